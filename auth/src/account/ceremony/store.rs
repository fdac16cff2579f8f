//! The ceremonies' statements. A global table.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::PersonId};
use sqlx::PgConnection;

use crate::account::token::Hash;

pub(super) async fn insert(
    tx: &mut PgConnection,
    token: &Hash,
    kind: &str,
    person: Option<PersonId>,
    sealed_state: &[u8],
    expires_at: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into ceremonies (token_sha256, kind, person_id, sealed_state, expires_at)
        values ($1, $2, $3, $4, $5)",
        token,
        kind,
        person as Option<PersonId>,
        sealed_state,
        expires_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(
    tx: &mut PgConnection,
    token: &Hash,
    kind: &str,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, Error> {
    let sealed = sqlx::query_scalar!(
        "select sealed_state
        from ceremonies
        where token_sha256 = $1 and kind = $2 and expires_at > $3",
        token,
        kind,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(sealed)
}

/// Takes the row away, if it is there and its time is not over.
pub(super) async fn delete(
    tx: &mut PgConnection,
    token: &Hash,
    kind: &str,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, Error> {
    let sealed = sqlx::query_scalar!(
        "delete from ceremonies
        where token_sha256 = $1 and kind = $2 and expires_at > $3
        returning sealed_state",
        token,
        kind,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(sealed)
}

/// Whatever the person has begun is over.
pub(in crate::account) async fn delete_of(
    tx: &mut PgConnection,
    person: PersonId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from ceremonies
        where person_id = $1",
        person as PersonId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(in crate::account) async fn delete_expired(
    tx: &mut PgConnection,
    now: Timestamp,
) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from ceremonies
        where expires_at <= $1",
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected())
}
