//! The statements of locations.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{LocationId, MerchantId},
    version::Version,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Location, LocationName};

pub(super) async fn lock_by_external_id(
    tx: &mut PgConnection,
    merchant: MerchantId,
    external_id: &str,
) -> Result<Option<Location>, Error> {
    Ok(sqlx::query_as!(
        Location,
        r#"select
            id as "id: LocationId", external_id, name, country, version as "version: Version",
            created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from locations
        where merchant_id = $1
            and external_id = $2
        for update"#,
        merchant as MerchantId,
        external_id,
    )
    .fetch_optional(tx)
    .await?)
}

/// False if another has the external id.
pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    location: &Location,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into locations (merchant_id, id, external_id, name, country, version, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (merchant_id, external_id) do nothing",
        merchant as MerchantId,
        location.id as LocationId,
        location.external_id,
        location.name,
        location.country,
        location.version as Version,
        location.created_at as Timestamp,
        location.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

pub(super) async fn update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    location: &Location,
) -> Result<(), Error> {
    sqlx::query!(
        "update locations
        set name = $3, country = $4, version = $5, updated_at = $6
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        location.id as LocationId,
        location.name,
        location.country,
        location.version as Version,
        location.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_many(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[LocationId],
) -> Result<Vec<Location>, Error> {
    Ok(sqlx::query_as!(
        Location,
        r#"select
            id as "id: LocationId", external_id, name, country, version as "version: Version",
            created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from locations
        where merchant_id = $1
            and id = any($2)"#,
        merchant as MerchantId,
        ids as &[LocationId],
    )
    .fetch_all(tx)
    .await?)
}

pub(super) async fn select_ids(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[LocationId],
) -> Result<Vec<LocationId>, Error> {
    Ok(sqlx::query_scalar!(
        r#"select id as "id: LocationId"
        from locations
        where merchant_id = $1
            and id = any($2)"#,
        merchant as MerchantId,
        ids as &[LocationId],
    )
    .fetch_all(tx)
    .await?)
}

pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    visible: Option<&[Uuid]>,
    after: Option<&str>,
    count: i64,
) -> Result<Vec<Location>, Error> {
    Ok(sqlx::query_as!(
        Location,
        r#"select
            id as "id: LocationId", external_id, name, country, version as "version: Version",
            created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from locations
        where merchant_id = $1
            and ($2::uuid[] is null or id = any($2))
            and ($3::text is null or external_id > $3)
        order by external_id
        limit $4"#,
        merchant as MerchantId,
        visible,
        after,
        count,
    )
    .fetch_all(tx)
    .await?)
}

pub(super) async fn select_names(
    tx: &mut PgConnection,
    merchant: MerchantId,
    count_max: i64,
) -> Result<Vec<LocationName>, Error> {
    Ok(sqlx::query_as!(
        LocationName,
        r#"select id as "id: LocationId", external_id, name
        from locations
        where merchant_id = $1
        order by lower(name), external_id
        limit $2"#,
        merchant as MerchantId,
        count_max,
    )
    .fetch_all(tx)
    .await?)
}
