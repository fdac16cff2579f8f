//! The developers' statements. Global tables; an app is looked for among those of the person who asks.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, GrantId, LocationId, MerchantId, PersonId},
    scope::ScopeSet,
    version::Version,
};
use sqlx::{PgConnection, types::Json};

use super::{AppInstall, AppKey, ClientKey};
use crate::{
    client::{
        app::{App, ClientKind},
        store::{Row, known_scopes},
    },
    grant::Grant,
};

/// Makes whoever else creates an app for this person wait.
pub(super) async fn lock_person(tx: &mut PgConnection, person: PersonId) -> Result<(), Error> {
    sqlx::query!(
        "select id
        from persons
        where id = $1
        for update",
        person as PersonId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

pub(super) async fn count_apps(tx: &mut PgConnection, person: PersonId) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from app_developers
        where person_id = $1"#,
        person as PersonId,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

pub(super) async fn insert_developer(
    tx: &mut PgConnection,
    app: AppId,
    person: PersonId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into app_developers (app_id, person_id, created_at)
        values ($1, $2, $3)",
        app as AppId,
        person as PersonId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_apps(
    tx: &mut PgConnection,
    person: PersonId,
) -> Result<Vec<App>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            apps.id as "id: AppId",
            apps.name,
            apps.kind as "kind: ClientKind",
            apps.redirect_uris,
            apps.scopes,
            apps.required_scopes,
            apps.homepage_url,
            apps.version as "version: Version",
            apps.created_at as "created_at: Timestamp"
        from app_developers
        join apps on apps.id = app_developers.app_id
        where app_developers.person_id = $1
        order by lower(apps.name), apps.id"#,
        person as PersonId,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(App::from).collect())
}

pub(super) async fn select_app(
    tx: &mut PgConnection,
    person: PersonId,
    id: AppId,
) -> Result<Option<App>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            apps.id as "id: AppId",
            apps.name,
            apps.kind as "kind: ClientKind",
            apps.redirect_uris,
            apps.scopes,
            apps.required_scopes,
            apps.homepage_url,
            apps.version as "version: Version",
            apps.created_at as "created_at: Timestamp"
        from app_developers
        join apps on apps.id = app_developers.app_id
        where app_developers.app_id = $1
            and app_developers.person_id = $2"#,
        id as AppId,
        person as PersonId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(App::from))
}

pub(super) async fn select_app_for_update(
    tx: &mut PgConnection,
    person: PersonId,
    id: AppId,
) -> Result<Option<App>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            apps.id as "id: AppId",
            apps.name,
            apps.kind as "kind: ClientKind",
            apps.redirect_uris,
            apps.scopes,
            apps.required_scopes,
            apps.homepage_url,
            apps.version as "version: Version",
            apps.created_at as "created_at: Timestamp"
        from app_developers
        join apps on apps.id = app_developers.app_id
        where app_developers.app_id = $1
            and app_developers.person_id = $2
        for update of apps"#,
        id as AppId,
        person as PersonId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(App::from))
}

pub(super) async fn update_app(
    tx: &mut PgConnection,
    app: &App,
    now: Timestamp,
) -> Result<(), Error> {
    let scopes = app.scopes.map(ScopeSet::names);
    sqlx::query!(
        "update apps
        set name = $2,
            redirect_uris = $3,
            scopes = $4,
            required_scopes = $5,
            homepage_url = $6,
            version = $7,
            changed_at = $8
        where id = $1",
        app.id as AppId,
        app.name,
        &app.redirect_uris,
        scopes.as_deref(),
        &app.required_scopes.names(),
        app.homepage_url,
        app.version as Version,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn count_keys(tx: &mut PgConnection, app: AppId) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from app_keys
        where app_id = $1"#,
        app as AppId,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

/// False if the app has a key of that name.
pub(super) async fn insert_key(
    tx: &mut PgConnection,
    app: AppId,
    key: &ClientKey,
    now: Timestamp,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into app_keys (app_id, kid, jwk, created_at)
        values ($1, $2, $3, $4)
        on conflict (app_id, kid) do nothing",
        app as AppId,
        key.kid,
        Json(key) as Json<&ClientKey>,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// False if the app has no such key.
pub(super) async fn delete_key(
    tx: &mut PgConnection,
    app: AppId,
    kid: &str,
) -> Result<bool, Error> {
    let deleted = sqlx::query!(
        "delete from app_keys
        where app_id = $1
            and kid = $2",
        app as AppId,
        kid,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected() == 1)
}

pub(super) async fn select_keys(tx: &mut PgConnection, app: AppId) -> Result<Vec<AppKey>, Error> {
    let keys = sqlx::query!(
        r#"select jwk as "jwk: Json<ClientKey>", created_at as "created_at: Timestamp"
        from app_keys
        where app_id = $1
        order by created_at desc, kid"#,
        app as AppId,
    )
    .fetch_all(tx)
    .await?;
    Ok(keys
        .into_iter()
        .map(|row| row.jwk.0.shown(row.created_at))
        .collect())
}

pub(super) async fn count_living_installs(
    tx: &mut PgConnection,
    app: AppId,
    now: Timestamp,
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from grants
        where app_id = $1
            and revoked_at is null
            and (expires_at is null or expires_at > $2)"#,
        app as AppId,
        now as Timestamp,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

/// One per merchant: the grant that lives, or the one that ended last. Those that changed last first.
pub(super) async fn select_installs(
    tx: &mut PgConnection,
    app: AppId,
    limit: i64,
) -> Result<Vec<AppInstall>, Error> {
    let rows = sqlx::query!(
        r#"select
            latest.id as "id: GrantId",
            latest.merchant_id as "merchant_id: MerchantId",
            latest.app_id as "app_id: AppId",
            latest.scopes,
            latest.locations as "locations: Vec<LocationId>",
            latest.personal_data,
            latest.expires_at as "expires_at: Timestamp",
            latest.revoked_at as "revoked_at: Timestamp",
            latest.epoch,
            latest.version,
            latest.created_at as "created_at: Timestamp",
            latest.changed_at as "changed_at: Timestamp",
            merchants.name as merchant_name,
            grant_uses.last_used_at as "last_used_at?: Timestamp"
        from (
            select distinct on (merchant_id) *
            from grants
            where app_id = $1
            order by merchant_id, revoked_at is null desc, changed_at desc
        ) as latest
        join merchants on merchants.id = latest.merchant_id
        left join grant_uses on grant_uses.grant_id = latest.id
        order by latest.changed_at desc, latest.id
        limit $2"#,
        app as AppId,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| AppInstall {
            merchant_id: row.merchant_id,
            merchant_name: row.merchant_name,
            last_used_at: row.last_used_at,
            grant: Grant {
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
            },
        })
        .collect())
}
