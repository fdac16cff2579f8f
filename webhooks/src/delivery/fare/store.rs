//! The statements of how endpoints fare.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::BTreeMap;

use kernel::{clock::Timestamp, db::Error, id::MerchantId};
use sqlx::PgConnection;

use super::Tally;
use crate::{delivery::AttemptId, endpoint::EndpointId};

/// Microseconds of an hour.
const HOUR_MICROS: i64 = 3_600_000_000;

/// The merchants of some tallies, each once.
fn merchants_of<'t>(tallies: impl Iterator<Item = &'t Tally>) -> Vec<MerchantId> {
    let mut merchants: Vec<MerchantId> = tallies.map(|tally| tally.merchant).collect();
    merchants.sort_unstable();
    merchants.dedup();
    merchants
}

/// Adds to the counts of the hour that `now` is in. Rows are locked in the order of endpoints, as by everybody.
pub(super) async fn add_hours(
    tx: &mut PgConnection,
    tallies: &BTreeMap<EndpointId, Tally>,
    now: Timestamp,
) -> Result<(), Error> {
    let micros = now.unix_micros();
    let hour = Timestamp::from_unix_micros(micros.saturating_sub(micros.rem_euclid(HOUR_MICROS)));
    let endpoints: Vec<EndpointId> = tallies.keys().copied().collect();
    let merchants: Vec<MerchantId> = tallies.values().map(|tally| tally.merchant).collect();
    let succeeded: Vec<i64> = tallies.values().map(|tally| tally.succeeded).collect();
    let failed: Vec<i64> = tallies.values().map(|tally| tally.failed).collect();
    // Arrays of arrays do not unnest by row: each row's counts travel as an array's text.
    let classes: Vec<String> = tallies
        .values()
        .map(|tally| {
            let counts: Vec<String> = tally.classes.iter().map(i64::to_string).collect();
            format!("{{{}}}", counts.join(","))
        })
        .collect();
    sqlx::query!(
        "insert into endpoint_hours (merchant_id, endpoint_id, hour, succeeded, failed, duration_counts)
        select merchant_id, endpoint_id, $6, succeeded, failed, classes::bigint[]
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[])
            as tally (merchant_id, endpoint_id, succeeded, failed, classes)
        on conflict (merchant_id, endpoint_id, hour) do update
        set succeeded = endpoint_hours.succeeded + excluded.succeeded,
            failed = endpoint_hours.failed + excluded.failed,
            duration_counts = (
                select array_agg(coalesce(old, 0) + coalesce(new, 0) order by place)
                from unnest(endpoint_hours.duration_counts, excluded.duration_counts) with ordinality as class (old, new, place)
            )",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &succeeded,
        &failed,
        &classes,
        hour as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends the failing of endpoints that have taken something. Writes nothing for those that were not failing.
pub(super) async fn recover(
    tx: &mut PgConnection,
    tallies: &BTreeMap<EndpointId, Tally>,
    now: Timestamp,
) -> Result<(), Error> {
    let recovered = || tallies.iter().filter(|(_, tally)| tally.has_succeeded);
    let endpoints: Vec<EndpointId> = recovered().map(|(endpoint, _)| *endpoint).collect();
    if endpoints.is_empty() {
        return Ok(());
    }
    let merchants = merchants_of(recovered().map(|(_, tally)| tally));
    sqlx::query!(
        "update endpoint_health
        set failing_since = null,
            failure_count = 0,
            warned_at = null,
            last_success_at = $3
        where merchant_id = any($1)
            and endpoint_id = any($2)
            and failing_since is not null",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes the failures of endpoints whose last attempt failed, and gives for each since when it has, and when its owner was last told.
pub(super) async fn fail(
    tx: &mut PgConnection,
    tallies: &BTreeMap<EndpointId, Tally>,
    now: Timestamp,
) -> Result<Vec<(EndpointId, Timestamp, Option<Timestamp>)>, Error> {
    let failing: Vec<(&EndpointId, &Tally, Timestamp)> = tallies
        .iter()
        .filter_map(|(endpoint, tally)| Some((endpoint, tally, tally.failing_since?)))
        .collect();
    if failing.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints: Vec<EndpointId> = failing.iter().map(|(endpoint, ..)| **endpoint).collect();
    let merchants: Vec<MerchantId> = failing.iter().map(|(_, tally, _)| tally.merchant).collect();
    let since: Vec<Timestamp> = failing.iter().map(|(.., since)| *since).collect();
    let counts: Vec<i64> = failing.iter().map(|(_, tally, _)| tally.failed).collect();
    let errors: Vec<Option<&str>> = failing
        .iter()
        .map(|(_, tally, _)| tally.last_error.as_deref())
        .collect();
    let rows = sqlx::query!(
        r#"insert into endpoint_health (merchant_id, endpoint_id, failing_since, failure_count, last_error, last_failure_at)
        select merchant_id, endpoint_id, failing_since, failure_count, last_error, $6
        from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bigint[], $5::text[])
            as failing (merchant_id, endpoint_id, failing_since, failure_count, last_error)
        on conflict (merchant_id, endpoint_id) do update
        set failing_since = coalesce(endpoint_health.failing_since, excluded.failing_since),
            failure_count = endpoint_health.failure_count + excluded.failure_count,
            last_error = excluded.last_error,
            last_failure_at = excluded.last_failure_at
        returning
            endpoint_id as "endpoint: EndpointId",
            failing_since as "failing_since!: Timestamp",
            warned_at as "warned_at: Timestamp""#,
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &since as &[Timestamp],
        &counts,
        &errors as &[Option<&str>],
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.endpoint, row.failing_since, row.warned_at))
        .collect())
}

/// Whether something was taken of what was sent after `since`.
pub(super) async fn has_taken(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    since: Timestamp,
) -> Result<bool, Error> {
    let taken = sqlx::query_scalar!(
        "select 1
        where exists (
            select 1
            from attempt_runs
            where merchant_id = $1
                and endpoint_id = $2
                and id >= $3
                and $4 < any(started_at)
        )
        or exists (
            select 1
            from attempts
            where merchant_id = $1
                and endpoint_id = $2
                and id >= $3
                and started_at > $4
                and status between 200 and 299
        )",
        merchant as MerchantId,
        endpoint as EndpointId,
        AttemptId::least(since) as AttemptId,
        since as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(taken.is_some())
}

/// Notes that an endpoint fails since the first failure of a tally.
pub(super) async fn begin_failing(
    tx: &mut PgConnection,
    endpoint: EndpointId,
    tally: &Tally,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoint_health
        set failing_since = $3,
            failure_count = $4,
            warned_at = null
        where merchant_id = $1
            and endpoint_id = $2",
        tally.merchant as MerchantId,
        endpoint as EndpointId,
        tally.failing_since as Option<Timestamp>,
        tally.failed,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that the owner of an endpoint was told that it fails.
pub(super) async fn warned(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoint_health
        set warned_at = $3
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        endpoint as EndpointId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that something was taken at the URL that an endpoint still has.
pub(super) async fn verify(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    url: &str,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoints
        set verified_at = $4
        where merchant_id = $1
            and id = $2
            and url = $3
            and verified_at is null",
        merchant as MerchantId,
        endpoint as EndpointId,
        url,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}
