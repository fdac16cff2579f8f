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
    pub(super) signs_from: Timestamp,
}

/// The life of a key, which may be over.
pub(super) struct LifeRow {
    pub(super) kid: String,
    pub(super) created_at: Timestamp,
    pub(super) signs_from: Timestamp,
    pub(super) retired_at: Option<Timestamp>,
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
        "insert into signing_keys (kid, public_jwk, sealed_private_key, created_at, signs_from)
        values ($1, $2, $3, $4, $5)",
        key.kid,
        &key.public_jwk as &Json<Jwk>,
        key.sealed_private_key,
        now as Timestamp,
        key.signs_from as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The keys that are not retired, those first whose time to sign comes last.
pub(super) async fn select(tx: &mut PgConnection) -> Result<Vec<KeyRow>, Error> {
    let keys = sqlx::query_as!(
        KeyRow,
        r#"select
            kid,
            public_jwk as "public_jwk: Json<Jwk>",
            sealed_private_key,
            coalesce(signs_from, created_at) as "signs_from!: Timestamp"
        from signing_keys
        where retired_at is null
        order by coalesce(signs_from, created_at) desc, created_at desc, kid"#,
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

/// Every key there ever was, those first whose time to sign came last.
pub(super) async fn select_lives(tx: &mut PgConnection) -> Result<Vec<LifeRow>, Error> {
    let lives = sqlx::query_as!(
        LifeRow,
        r#"select
            kid,
            created_at as "created_at: Timestamp",
            coalesce(signs_from, created_at) as "signs_from!: Timestamp",
            retired_at as "retired_at: Timestamp"
        from signing_keys
        order by coalesce(signs_from, created_at) desc, created_at desc, kid"#,
    )
    .fetch_all(tx)
    .await?;
    Ok(lives)
}

pub(super) async fn bring_forward(
    tx: &mut PgConnection,
    kid: &str,
    signs_from: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update signing_keys
        set signs_from = $2
        where kid = $1",
        kid,
        signs_from as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn retire(
    tx: &mut PgConnection,
    kids: &[&str],
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update signing_keys
        set retired_at = $2
        where kid = any($1::text[])
            and retired_at is null",
        kids as &[&str],
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}
