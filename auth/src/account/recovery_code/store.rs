//! The recovery codes' statements. A global table. Of codes there are hashes only.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::PersonId};
use sqlx::PgConnection;

use crate::account::token::Hash;

pub(super) async fn insert(
    tx: &mut PgConnection,
    person: PersonId,
    hashes: &[Vec<u8>],
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into recovery_codes (person_id, code_sha256, created_at)
        select $1, code_sha256, $3
        from unnest($2::bytea[]) as code_sha256",
        person as PersonId,
        hashes,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(in crate::account) async fn delete(
    tx: &mut PgConnection,
    person: PersonId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from recovery_codes
        where person_id = $1",
        person as PersonId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Uses a code up, and says how many are left; `None` if it is none, or was used.
pub(super) async fn redeem(
    tx: &mut PgConnection,
    person: PersonId,
    code: &Hash,
    now: Timestamp,
) -> Result<Option<i64>, Error> {
    let used = sqlx::query!(
        "update recovery_codes
        set used_at = $3
        where person_id = $1 and code_sha256 = $2 and used_at is null",
        person as PersonId,
        code,
        now as Timestamp,
    )
    .execute(&mut *tx)
    .await?;
    if used.rows_affected() == 0 {
        return Ok(None);
    }
    Ok(Some(count_left(tx, person).await?))
}

pub(super) async fn count_left(tx: &mut PgConnection, person: PersonId) -> Result<i64, Error> {
    let left = sqlx::query_scalar!(
        r#"select count(*) as "left!"
        from recovery_codes
        where person_id = $1 and used_at is null"#,
        person as PersonId,
    )
    .fetch_one(tx)
    .await?;
    Ok(left)
}
