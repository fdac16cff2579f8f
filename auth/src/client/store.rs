//! The apps' statements, and those of what they prove themselves by. Global tables: an app is known before a merchant is. Of secrets they hold
//! hashes only.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::AppId, scope::ScopeSet, version::Version};
use sqlx::{PgConnection, types::Json};

use super::{
    app::{App, ClientKind},
    app_secret::{AppSecret, AppSecretId},
    key::ClientKey,
};

/// Expired assertions that one new one clears away; two would do.
const EXPIRED_ASSERTIONS_DELETED_MAX: i64 = 20;

pub(super) struct Row {
    pub(super) id: AppId,
    pub(super) name: String,
    pub(super) kind: ClientKind,
    pub(super) redirect_uris: Vec<String>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) required_scopes: Vec<String>,
    pub(super) homepage_url: Option<String>,
    pub(super) version: Version,
    pub(super) created_at: Timestamp,
}

impl From<Row> for App {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            kind: row.kind,
            redirect_uris: row.redirect_uris,
            scopes: row.scopes.as_deref().map(known_scopes),
            required_scopes: known_scopes(&row.required_scopes),
            homepage_url: row.homepage_url,
            version: row.version,
            created_at: row.created_at,
        }
    }
}

/// A newer binary beside this one may know more scopes: what this one does not know, it does not let an app ask for.
pub(super) fn known_scopes(names: &[String]) -> ScopeSet {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

pub(super) async fn insert(tx: &mut PgConnection, app: &App) -> Result<(), Error> {
    let scopes = app.scopes.map(ScopeSet::names);
    sqlx::query!(
        "insert into apps
            (id, name, kind, redirect_uris, scopes, required_scopes, homepage_url, version, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        app.id as AppId,
        app.name,
        app.kind as ClientKind,
        &app.redirect_uris,
        scopes.as_deref(),
        &app.required_scopes.names(),
        app.homepage_url,
        app.version as Version,
        app.created_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(tx: &mut PgConnection, id: AppId) -> Result<Option<App>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: AppId",
            name,
            kind as "kind: ClientKind",
            redirect_uris,
            scopes,
            required_scopes,
            homepage_url,
            version as "version: Version",
            created_at as "created_at: Timestamp"
        from apps
        where id = $1"#,
        id as AppId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(App::from))
}

pub(super) async fn select_for_update(
    tx: &mut PgConnection,
    id: AppId,
) -> Result<Option<App>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: AppId",
            name,
            kind as "kind: ClientKind",
            redirect_uris,
            scopes,
            required_scopes,
            homepage_url,
            version as "version: Version",
            created_at as "created_at: Timestamp"
        from apps
        where id = $1
        for update"#,
        id as AppId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(App::from))
}

pub(super) async fn select_page(
    tx: &mut PgConnection,
    after: Option<AppId>,
    limit: i64,
) -> Result<Vec<App>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: AppId",
            name,
            kind as "kind: ClientKind",
            redirect_uris,
            scopes,
            required_scopes,
            homepage_url,
            version as "version: Version",
            created_at as "created_at: Timestamp"
        from apps
        where $1::uuid is null or id > $1
        order by id
        limit $2"#,
        after as Option<AppId>,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(App::from).collect())
}

/// The app and the hashes of the secrets that it may show at `now`. One statement, whether there is such an app or not.
pub(super) async fn select_with_secrets(
    tx: &mut PgConnection,
    id: AppId,
    now: Timestamp,
) -> Result<Option<(App, Vec<Vec<u8>>)>, Error> {
    let row = sqlx::query!(
        r#"select
            id as "id: AppId",
            name,
            kind as "kind: ClientKind",
            redirect_uris,
            scopes,
            required_scopes,
            homepage_url,
            version as "version: Version",
            created_at as "created_at: Timestamp",
            array(
                select app_secrets.secret_sha256
                from app_secrets
                where app_secrets.app_id = apps.id
                    and (app_secrets.expires_at is null or app_secrets.expires_at > $2)
            ) as "secrets!: Vec<Vec<u8>>",
            case
                when not exists (select from app_secrets where app_secrets.app_id = apps.id)
                then secret_sha256
            end as superseded_secret
        from apps
        where id = $1"#,
        id as AppId,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| {
        let secrets = row
            .secrets
            .into_iter()
            .chain(row.superseded_secret)
            .collect();
        let app = Row {
            id: row.id,
            name: row.name,
            kind: row.kind,
            redirect_uris: row.redirect_uris,
            scopes: row.scopes,
            required_scopes: row.required_scopes,
            homepage_url: row.homepage_url,
            version: row.version,
            created_at: row.created_at,
        };
        (app.into(), secrets)
    }))
}

pub(super) async fn insert_secret(
    tx: &mut PgConnection,
    app: AppId,
    secret: &AppSecret,
    secret_sha256: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into app_secrets (app_id, id, secret_sha256, hint, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6)",
        app as AppId,
        secret.id as AppSecretId,
        secret_sha256,
        secret.hint,
        secret.created_at as Timestamp,
        secret.expires_at as Option<Timestamp>,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives an app that such a binary made, which has no row here, the row that the migration would have given it.
pub(super) async fn insert_superseded_secret(
    tx: &mut PgConnection,
    app: AppId,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into app_secrets (app_id, id, secret_sha256, hint, created_at)
        select id, id, secret_sha256, '', created_at
        from apps
        where id = $1
            and secret_sha256 is not null
            and not exists (select from app_secrets where app_id = $1)",
        app as AppId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The secrets of `app` that are good at `now`, the newest first; also the one of an app that has no row here.
pub(super) async fn select_living_secrets(
    tx: &mut PgConnection,
    app: AppId,
    now: Timestamp,
) -> Result<Vec<AppSecret>, Error> {
    let secrets = sqlx::query_as!(
        AppSecret,
        r#"select
            id as "id!: AppSecretId",
            hint as "hint!",
            created_at as "created_at!: Timestamp",
            expires_at as "expires_at: Timestamp"
        from (
            select id, hint, created_at, expires_at
            from app_secrets
            where app_id = $1
                and (expires_at is null or expires_at > $2)
            union all
            select id, '', created_at, null
            from apps
            where id = $1
                and secret_sha256 is not null
                and not exists (select from app_secrets where app_id = $1)
        ) as living
        order by created_at desc, id desc"#,
        app as AppId,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(secrets)
}

/// No secret of `app` is good after `end`.
pub(super) async fn end_secrets(
    tx: &mut PgConnection,
    app: AppId,
    end: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update app_secrets
        set expires_at = $2
        where app_id = $1
            and (expires_at is null or expires_at > $2)",
        app as AppId,
        end as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete_ended_secrets(
    tx: &mut PgConnection,
    app: AppId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from app_secrets
        where app_id = $1
            and expires_at <= $2",
        app as AppId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// False if the app has no such secret.
pub(super) async fn delete_secret(
    tx: &mut PgConnection,
    app: AppId,
    secret: AppSecretId,
) -> Result<bool, Error> {
    let deleted = sqlx::query!(
        "delete from app_secrets
        where app_id = $1
            and id = $2",
        app as AppId,
        secret as AppSecretId,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected() == 1)
}

/// What binaries from before `app_secrets` take for the app's secret: the newest one that does not end, or none.
pub(super) async fn update_superseded_secret(
    tx: &mut PgConnection,
    app: AppId,
) -> Result<(), Error> {
    sqlx::query!(
        "update apps
        set secret_sha256 = (
            select app_secrets.secret_sha256
            from app_secrets
            where app_secrets.app_id = $1
                and app_secrets.expires_at is null
            order by app_secrets.created_at desc, app_secrets.id desc
            limit 1
        )
        where id = $1",
        app as AppId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The app and its keys. One statement, whether there is such an app or not.
pub(super) async fn select_with_keys(
    tx: &mut PgConnection,
    id: AppId,
) -> Result<Option<(App, Vec<ClientKey>)>, Error> {
    let row = sqlx::query!(
        r#"select
            id as "id: AppId",
            name,
            kind as "kind: ClientKind",
            redirect_uris,
            scopes,
            required_scopes,
            homepage_url,
            version as "version: Version",
            created_at as "created_at: Timestamp",
            array(
                select app_keys.jwk
                from app_keys
                where app_keys.app_id = apps.id
            ) as "keys!: Vec<Json<ClientKey>>"
        from apps
        where id = $1"#,
        id as AppId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| {
        let keys = row.keys.into_iter().map(|Json(key)| key).collect();
        let app = Row {
            id: row.id,
            name: row.name,
            kind: row.kind,
            redirect_uris: row.redirect_uris,
            scopes: row.scopes,
            required_scopes: row.required_scopes,
            homepage_url: row.homepage_url,
            version: row.version,
            created_at: row.created_at,
        };
        (app.into(), keys)
    }))
}

/// Notes an assertion as used; false if it was used before. Who comes at the same moment waits for the first to commit.
pub(super) async fn insert_assertion(
    tx: &mut PgConnection,
    app: AppId,
    jti_sha256: &[u8],
    expires_at: Timestamp,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into client_assertions (app_id, jti_sha256, expires_at)
        values ($1, $2, $3)
        on conflict (app_id, jti_sha256) do nothing",
        app as AppId,
        jti_sha256,
        expires_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Forgets some assertions of `app` that are no longer good: more than are added, so that what is kept follows what is good. Those that somebody else is
/// about to forget are left to them.
pub(super) async fn delete_expired_assertions(
    tx: &mut PgConnection,
    app: AppId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from client_assertions
        where app_id = $1
            and jti_sha256 in (
                select jti_sha256
                from client_assertions
                where app_id = $1
                    and expires_at <= $2
                limit $3
                for update skip locked
            )",
        app as AppId,
        now as Timestamp,
        EXPIRED_ASSERTIONS_DELETED_MAX,
    )
    .execute(tx)
    .await?;
    Ok(())
}
