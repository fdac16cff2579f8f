//! The signing keys' statements. A global table. Private keys are there sealed only.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::{Database, Error},
};
use sqlx::{PgConnection, types::Json};

use super::signing_key::Jwk;

/// A key as it is kept.
pub(super) struct KeyRow {
    pub(super) kid: String,
    pub(super) public_jwk: Json<Jwk>,
    pub(super) sealed_private_key: Vec<u8>,
}

/// One process at a time looks whether there is a key and makes one; the lock lasts as long as the transaction.
pub(super) async fn lock(tx: &mut PgConnection) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtext('stoa.signing_keys'))")
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    key: &KeyRow,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into signing_keys (kid, public_jwk, sealed_private_key, created_at)
        values ($1, $2, $3, $4)",
        key.kid,
        &key.public_jwk as &Json<Jwk>,
        key.sealed_private_key,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The keys that are not retired, the newest first.
pub(super) async fn select(tx: &mut PgConnection) -> Result<Vec<KeyRow>, Error> {
    let keys = sqlx::query_as!(
        KeyRow,
        r#"select kid, public_jwk as "public_jwk: Json<Jwk>", sealed_private_key
        from signing_keys
        where retired_at is null
        order by created_at desc, kid"#,
    )
    .fetch_all(tx)
    .await?;
    Ok(keys)
}

/// The same in a transaction of its own.
pub(super) async fn read(database: &Database) -> Result<Vec<KeyRow>, Error> {
    let mut tx = database.begin().await?;
    select(&mut tx).await
}
