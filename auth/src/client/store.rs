//! The apps' statements. A global table: an app is known before a merchant is. Of secrets it holds hashes only.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::AppId};
use sqlx::PgConnection;

use super::app::App;

pub(super) async fn insert(
    tx: &mut PgConnection,
    app: &App,
    secret_sha256: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "insert into apps (id, name, secret_sha256, created_at)
        values ($1, $2, $3, $4)",
        app.id as AppId,
        app.name,
        secret_sha256,
        app.created_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(tx: &mut PgConnection, id: AppId) -> Result<Option<App>, Error> {
    let app = sqlx::query_as!(
        App,
        r#"select id as "id: AppId", name, created_at as "created_at: Timestamp"
        from apps
        where id = $1"#,
        id as AppId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(app)
}

pub(super) async fn select_secret_sha256(
    tx: &mut PgConnection,
    id: AppId,
) -> Result<Option<Vec<u8>>, Error> {
    let secret_sha256 = sqlx::query_scalar!(
        "select secret_sha256
        from apps
        where id = $1",
        id as AppId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(secret_sha256.flatten())
}
