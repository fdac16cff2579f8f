//! The statements of idempotency keys.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::{
    clock::Timestamp,
    db::{Database, Error},
    id::{AppId, MerchantId},
};

/// Keys deleted by one statement of the sweeper: short enough to disturb nobody.
pub(super) const SWEPT_AT_ONCE: u32 = 5_000;

pub(super) struct Row {
    pub(super) fingerprint: Vec<u8>,
    pub(super) refused: bool,
    pub(super) outcome: serde_json::Value,
}

pub(super) struct NewRow {
    pub(super) app: AppId,
    pub(super) key: String,
    pub(super) fingerprint: Vec<u8>,
    pub(super) refused: bool,
    pub(super) outcome: serde_json::Value,
}

/// Takes keys' locks until the end of the transaction, and says of each whether it was taken or is held elsewhere. Its own statement: what is read next must
/// be read by a snapshot that is younger than the lock.
pub(super) async fn try_lock(tx: &mut PgConnection, locks: &[i64]) -> Result<Vec<bool>, Error> {
    let taken = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(wanted.lock) as "taken!"
        from unnest($1::bigint[]) with ordinality as wanted (lock, place)
        order by wanted.place"#,
        locks,
    )
    .fetch_all(tx)
    .await?;
    Ok(taken)
}

pub(super) async fn select(
    tx: &mut PgConnection,
    merchant: MerchantId,
    operation: &str,
    apps: &[AppId],
    keys: &[&str],
) -> Result<HashMap<(AppId, String), Row>, Error> {
    let rows = sqlx::query!(
        r#"select app_id as "app_id: AppId", idempotency_key, fingerprint, refused, outcome
        from idempotency_keys
        where merchant_id = $1
            and operation = $2
            and (app_id, idempotency_key) in (select app, key from unnest($3::uuid[], $4::text[]) as wanted (app, key))"#,
        merchant as MerchantId,
        operation,
        apps as &[AppId],
        keys as &[&str],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let kept = Row {
                fingerprint: row.fingerprint,
                refused: row.refused,
                outcome: row.outcome,
            };
            ((row.app_id, row.idempotency_key), kept)
        })
        .collect())
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    operation: &str,
    rows: &[NewRow],
    now: Timestamp,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let apps: Vec<AppId> = rows.iter().map(|row| row.app).collect();
    let keys: Vec<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    let fingerprints: Vec<&[u8]> = rows.iter().map(|row| row.fingerprint.as_slice()).collect();
    let refused: Vec<bool> = rows.iter().map(|row| row.refused).collect();
    let outcomes: Vec<&serde_json::Value> = rows.iter().map(|row| &row.outcome).collect();
    sqlx::query!(
        "insert into idempotency_keys (merchant_id, app_id, operation, idempotency_key, fingerprint, refused, outcome, created_at)
        select $1, app_id, $2, idempotency_key, fingerprint, refused, outcome, $8
        from unnest($3::uuid[], $4::text[], $5::bytea[], $6::boolean[], $7::jsonb[])
            as kept (app_id, idempotency_key, fingerprint, refused, outcome)
        returning app_id",
        merchant as MerchantId,
        operation,
        &apps as &[AppId],
        &keys as &[&str],
        &fingerprints as &[&[u8]],
        &refused,
        &outcomes as &[&serde_json::Value],
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete_before(worker: &Database, before: Timestamp) -> Result<u64, Error> {
    let mut tx = worker.begin().await?;
    let deleted = sqlx::query!(
        "delete from idempotency_keys
        where (merchant_id, app_id, operation, idempotency_key) in (
            select merchant_id, app_id, operation, idempotency_key
            from idempotency_keys
            where created_at < $1
            limit $2
        )",
        before as Timestamp,
        i64::from(SWEPT_AT_ONCE),
    )
    .execute(&mut *tx)
    .await?
    .rows_affected();
    tx.commit().await?;
    Ok(deleted)
}
