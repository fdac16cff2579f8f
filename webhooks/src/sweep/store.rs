//! The statements of the sweeper. Several processes may sweep at once: what another has deleted is not there any more.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error};
use sqlx::PgConnection;

/// Deletes counts of hours before `before`.
pub(super) async fn delete_hours(
    tx: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from endpoint_hours
        where (merchant_id, endpoint_id, hour) in (
            select merchant_id, endpoint_id, hour
            from endpoint_hours
            where hour < $1
            limit $2
        )",
        before as Timestamp,
        limit,
    )
    .execute(tx)
    .await?
    .rows_affected();
    Ok(deleted)
}

/// Deletes versions of endpoints that were replaced before `before`: it is by the next one's time that a version is over.
pub(super) async fn delete_versions(
    tx: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from endpoint_versions
        where (merchant_id, endpoint_id, version) in (
            select older.merchant_id, older.endpoint_id, older.version
            from endpoint_versions as older
            where older.created_at < $1
                and exists (
                    select 1
                    from endpoint_versions as newer
                    where newer.merchant_id = older.merchant_id
                        and newer.endpoint_id = older.endpoint_id
                        and newer.version > older.version
                        and newer.created_at < $1
                )
            limit $2
        )",
        before as Timestamp,
        limit,
    )
    .execute(tx)
    .await?
    .rows_affected();
    Ok(deleted)
}

/// Deletes replays that have not come further since `before`, because they are over.
pub(super) async fn delete_replays(
    tx: &mut PgConnection,
    before: Timestamp,
    limit: i64,
) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from replays
        where (merchant_id, id) in (
            select merchant_id, id
            from replays
            where status <> 'running'
                and updated_at < $1
            limit $2
        )",
        before as Timestamp,
        limit,
    )
    .execute(tx)
    .await?
    .rows_affected();
    Ok(deleted)
}
