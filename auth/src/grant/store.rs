//! The grants' statements. A global table: a token names its grant before a merchant is known.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::{Database, Error},
    id::{AppId, GrantId, LocationId, MerchantId, PersonId},
    scope::ScopeSet,
};
use sqlx::PgConnection;

use super::Grant;

pub(super) struct Row {
    pub(super) id: GrantId,
    pub(super) merchant_id: MerchantId,
    pub(super) app_id: AppId,
    pub(super) scopes: Vec<String>,
    pub(super) locations: Option<Vec<LocationId>>,
    pub(super) personal_data: bool,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) epoch: i64,
    pub(super) version: i64,
    pub(super) created_at: Timestamp,
    pub(super) changed_at: Timestamp,
}

impl From<Row> for Grant {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            merchant_id: row.merchant_id,
            app_id: row.app_id,
            scopes: known_scopes(&row.scopes),
            locations: row.locations,
            personal_data: row.personal_data,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            epoch: row.epoch,
            version: row.version,
            created_at: row.created_at,
            changed_at: row.changed_at,
        }
    }
}

/// A newer binary beside this one may know more scopes: what this one does not know, it does not allow.
pub(super) fn known_scopes(names: &[String]) -> ScopeSet {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// False if the merchant and the app have a living grant already.
pub(super) async fn insert(tx: &mut PgConnection, grant: &Grant) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into grants
            (id, merchant_id, app_id, scopes, locations, personal_data, expires_at, revoked_at, epoch, version, created_at, changed_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        on conflict (merchant_id, app_id) where revoked_at is null do nothing",
        grant.id as GrantId,
        grant.merchant_id as MerchantId,
        grant.app_id as AppId,
        &grant.scopes.names(),
        grant.locations.as_deref() as Option<&[LocationId]>,
        grant.personal_data,
        grant.expires_at as Option<Timestamp>,
        grant.revoked_at as Option<Timestamp>,
        grant.epoch,
        grant.version,
        grant.created_at as Timestamp,
        grant.changed_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn update(tx: &mut PgConnection, grant: &Grant) -> Result<(), Error> {
    sqlx::query!(
        "update grants
        set scopes = $3,
            locations = $4,
            personal_data = $5,
            expires_at = $6,
            revoked_at = $7,
            epoch = $8,
            version = $9,
            changed_at = $10
        where merchant_id = $1
            and id = $2",
        grant.merchant_id as MerchantId,
        grant.id as GrantId,
        &grant.scopes.names(),
        grant.locations.as_deref() as Option<&[LocationId]>,
        grant.personal_data,
        grant.expires_at as Option<Timestamp>,
        grant.revoked_at as Option<Timestamp>,
        grant.epoch,
        grant.version,
        grant.changed_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn set_consented_by(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: GrantId,
    person: PersonId,
) -> Result<(), Error> {
    sqlx::query!(
        "update grants
        set consented_by = $3
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as GrantId,
        person as PersonId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: GrantId,
) -> Result<Option<Grant>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: GrantId",
            merchant_id as "merchant_id: MerchantId",
            app_id as "app_id: AppId",
            scopes,
            locations as "locations: Vec<LocationId>",
            personal_data,
            expires_at as "expires_at: Timestamp",
            revoked_at as "revoked_at: Timestamp",
            epoch,
            version,
            created_at as "created_at: Timestamp",
            changed_at as "changed_at: Timestamp"
        from grants
        where merchant_id = $1
            and id = $2"#,
        merchant as MerchantId,
        id as GrantId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Grant::from))
}

pub(super) async fn select_for_update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: GrantId,
) -> Result<Option<Grant>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: GrantId",
            merchant_id as "merchant_id: MerchantId",
            app_id as "app_id: AppId",
            scopes,
            locations as "locations: Vec<LocationId>",
            personal_data,
            expires_at as "expires_at: Timestamp",
            revoked_at as "revoked_at: Timestamp",
            epoch,
            version,
            created_at as "created_at: Timestamp",
            changed_at as "changed_at: Timestamp"
        from grants
        where merchant_id = $1
            and id = $2
        for update"#,
        merchant as MerchantId,
        id as GrantId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Grant::from))
}

/// The grant that is not revoked; it may have ended.
pub(super) async fn select_unrevoked(
    tx: &mut PgConnection,
    merchant: MerchantId,
    app: AppId,
) -> Result<Option<Grant>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: GrantId",
            merchant_id as "merchant_id: MerchantId",
            app_id as "app_id: AppId",
            scopes,
            locations as "locations: Vec<LocationId>",
            personal_data,
            expires_at as "expires_at: Timestamp",
            revoked_at as "revoked_at: Timestamp",
            epoch,
            version,
            created_at as "created_at: Timestamp",
            changed_at as "changed_at: Timestamp"
        from grants
        where merchant_id = $1
            and app_id = $2
            and revoked_at is null"#,
        merchant as MerchantId,
        app as AppId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Grant::from))
}

pub(super) async fn select_unrevoked_for_update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    app: AppId,
) -> Result<Option<Grant>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: GrantId",
            merchant_id as "merchant_id: MerchantId",
            app_id as "app_id: AppId",
            scopes,
            locations as "locations: Vec<LocationId>",
            personal_data,
            expires_at as "expires_at: Timestamp",
            revoked_at as "revoked_at: Timestamp",
            epoch,
            version,
            created_at as "created_at: Timestamp",
            changed_at as "changed_at: Timestamp"
        from grants
        where merchant_id = $1
            and app_id = $2
            and revoked_at is null
        for update"#,
        merchant as MerchantId,
        app as AppId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Grant::from))
}

/// Every grant changed at `since` or later, whosever it is. A transaction of its own.
pub(super) async fn select_changed(
    database: &Database,
    since: Timestamp,
) -> Result<Vec<Grant>, Error> {
    let mut tx = database.begin().await?;
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: GrantId",
            merchant_id as "merchant_id: MerchantId",
            app_id as "app_id: AppId",
            scopes,
            locations as "locations: Vec<LocationId>",
            personal_data,
            expires_at as "expires_at: Timestamp",
            revoked_at as "revoked_at: Timestamp",
            epoch,
            version,
            created_at as "created_at: Timestamp",
            changed_at as "changed_at: Timestamp"
        from grants
        where changed_at >= $1"#,
        since as Timestamp,
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(rows.into_iter().map(Grant::from).collect())
}
