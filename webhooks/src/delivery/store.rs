//! The statements of lanes, deliveries and attempts.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use kernel::{
    clock::Timestamp,
    db::{Database, Error},
    id::{EventId, LocationId, MerchantId},
};
use sqlx::PgConnection;

use super::{Attempt, AttemptId, Due, Lease, OwnerId, Report, Target};
use crate::{endpoint::EndpointId, event::GrantRow};

/// Attempts that a dead letter copies at most: those of the schedule, and of some replays.
const ATTEMPTS_MAX: i64 = 100;

/// Leases up to `limit` lanes that are due and nobody's, the longest due first, leaving out merchants who have their share.
pub(crate) async fn lease(
    tx: &mut PgConnection,
    owner: OwnerId,
    now: Timestamp,
    until: Timestamp,
    limit: i64,
    leave_out: &[MerchantId],
) -> Result<Vec<Lease>, Error> {
    let leases = sqlx::query_as!(
        Lease,
        r#"update lanes
        set owner = $1,
            lease_until = $3,
            fence = lanes.fence + 1
        from (
            select endpoint_id
            from lanes
            where due_at <= $2
                and (lease_until is null or lease_until <= $2)
                and merchant_id <> all($5)
            order by due_at
            limit $4
            for update skip locked
        ) as free
        where lanes.endpoint_id = free.endpoint_id
        returning
            lanes.endpoint_id as "endpoint: EndpointId",
            lanes.merchant_id as "merchant: MerchantId",
            lanes.fence,
            lanes.signal"#,
        owner as OwnerId,
        now as Timestamp,
        until as Timestamp,
        limit,
        leave_out as &[MerchantId],
    )
    .fetch_all(tx)
    .await?;
    Ok(leases)
}

/// Prolongs the leases of those lanes that this owner still has, and says which, as they now are.
pub(crate) async fn renew(
    database: &Database,
    owner: OwnerId,
    endpoints: &[EndpointId],
    until: Timestamp,
) -> Result<Vec<Lease>, Error> {
    let mut tx = database.begin().await?;
    let leases = sqlx::query_as!(
        Lease,
        r#"with locked as (
            select endpoint_id
            from lanes
            where endpoint_id = any($2)
                and owner = $1
            order by endpoint_id
            for no key update
        )
        update lanes
        set lease_until = $3
        from locked
        where lanes.endpoint_id = locked.endpoint_id
            and lanes.owner = $1
        returning
            lanes.endpoint_id as "endpoint: EndpointId",
            lanes.merchant_id as "merchant: MerchantId",
            lanes.fence,
            lanes.signal"#,
        owner as OwnerId,
        endpoints as &[EndpointId],
        until as Timestamp,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(leases)
}

/// The lanes of this owner as they now are: what was added shows in their signals.
pub(crate) async fn look(
    tx: &mut PgConnection,
    owner: OwnerId,
    endpoints: &[EndpointId],
) -> Result<Vec<Lease>, Error> {
    let leases = sqlx::query_as!(
        Lease,
        r#"select
            endpoint_id as "endpoint: EndpointId",
            merchant_id as "merchant: MerchantId",
            fence,
            signal
        from lanes
        where endpoint_id = any($2)
            and owner = $1"#,
        owner as OwnerId,
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    Ok(leases)
}

/// Due deliveries of some lanes, up to a number for each.
pub(crate) async fn due(
    tx: &mut PgConnection,
    lanes: &[(Lease, usize)],
    now: Timestamp,
) -> Result<Vec<Due>, Error> {
    let merchants: Vec<MerchantId> = lanes.iter().map(|(lease, _)| lease.merchant).collect();
    let endpoints: Vec<EndpointId> = lanes.iter().map(|(lease, _)| lease.endpoint).collect();
    let limits: Vec<i64> = lanes
        .iter()
        .map(|(_, limit)| i64::try_from(*limit).unwrap_or(i64::MAX))
        .collect();
    // A limit for each lane, so that one with a hundred thousand due neither crowds out the others nor is read whole.
    let rows = sqlx::query_as!(
        Due,
        r#"select
            due.merchant_id as "merchant: MerchantId",
            due.endpoint_id as "endpoint: EndpointId",
            due.sequence,
            due.event_id as "event: EventId",
            due.attempt_count,
            due.due_at as "due_at: Timestamp"
        from unnest($1::uuid[], $2::uuid[], $3::bigint[]) as lane (merchant_id, endpoint_id, row_limit)
        cross join lateral (
            select merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at
            from deliveries
            where deliveries.merchant_id = any($1)
                and deliveries.merchant_id = lane.merchant_id
                and deliveries.endpoint_id = lane.endpoint_id
                and deliveries.due_at <= $4
            order by deliveries.due_at, deliveries.sequence
            limit lane.row_limit
        ) as due"#,
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &limits,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

struct TargetRow {
    merchant: MerchantId,
    endpoint: EndpointId,
    url: Option<String>,
    sealed_secrets: Vec<Vec<u8>>,
    is_granted: bool,
    scopes: Option<Vec<String>>,
    locations: Option<Vec<LocationId>>,
    personal_data: Option<bool>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// Where these endpoints' deliveries go, and what may be seen there at `now`. An endpoint that was deleted is missing.
pub(crate) async fn targets(
    tx: &mut PgConnection,
    merchants: &[MerchantId],
    endpoints: &[EndpointId],
    now: Timestamp,
) -> Result<Vec<Target>, Error> {
    let rows = sqlx::query_as!(
        TargetRow,
        r#"select
            endpoints.merchant_id as "merchant: MerchantId",
            endpoints.id as "endpoint: EndpointId",
            case when endpoints.status = 'enabled' then endpoints.url end as url,
            endpoints.sealed_secrets,
            endpoints.grant_id is not null as "is_granted!",
            grants.scopes as "scopes?",
            grants.locations as "locations?: Vec<LocationId>",
            grants.personal_data as "personal_data?",
            grants.expires_at,
            grants.revoked_at
        from endpoints
        left join grants
            on grants.id = endpoints.grant_id
        where endpoints.merchant_id = any($1)
            and endpoints.id = any($2)"#,
        merchants as &[MerchantId],
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    let targets = rows.into_iter().map(|row| Target {
        endpoint: row.endpoint,
        merchant: row.merchant,
        url: row.url,
        sealed_secrets: row.sealed_secrets,
        receiver: GrantRow {
            is_granted: row.is_granted,
            scopes: row.scopes,
            locations: row.locations,
            personal_data: row.personal_data,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        }
        .receiver(now),
    });
    Ok(targets.collect())
}

/// Holds against a change of owner, until the end of the transaction, those of these lanes that this owner has, and says under
/// which fences.
///
/// `for key share` lets relays and renewals pass, and makes `skip locked` of a new owner pass over the lane.
pub(super) async fn hold(
    tx: &mut PgConnection,
    owner: OwnerId,
    endpoints: &[EndpointId],
) -> Result<HashMap<EndpointId, i64>, Error> {
    let rows = sqlx::query!(
        r#"select endpoint_id as "endpoint: EndpointId", fence
        from lanes
        where endpoint_id = any($1)
            and owner = $2
        order by endpoint_id
        for key share"#,
        endpoints as &[EndpointId],
        owner as OwnerId,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.endpoint, row.fence))
        .collect())
}

pub(super) async fn insert_attempts(
    tx: &mut PgConnection,
    reports: &[&Report],
) -> Result<(), Error> {
    if reports.is_empty() {
        return Ok(());
    }
    let merchants: Vec<MerchantId> = reports.iter().map(|report| report.lease.merchant).collect();
    let ids: Vec<AttemptId> = reports.iter().map(|report| report.attempt.id).collect();
    let endpoints: Vec<EndpointId> = reports.iter().map(|report| report.lease.endpoint).collect();
    let events: Vec<EventId> = reports.iter().map(|report| report.event.id).collect();
    let sequences: Vec<i64> = reports.iter().map(|report| report.sequence).collect();
    let numbers: Vec<i32> = reports.iter().map(|report| report.attempt.number).collect();
    let started: Vec<Timestamp> = reports
        .iter()
        .map(|report| report.attempt.started_at)
        .collect();
    let durations: Vec<i32> = reports
        .iter()
        .map(|report| report.attempt.duration_ms)
        .collect();
    let statuses: Vec<Option<i32>> = reports.iter().map(|report| report.attempt.status).collect();
    let errors: Vec<Option<&str>> = reports
        .iter()
        .map(|report| report.attempt.error.as_deref())
        .collect();
    let excerpts: Vec<Option<&str>> = reports
        .iter()
        .map(|report| report.attempt.answer_excerpt.as_deref())
        .collect();
    sqlx::query!(
        "insert into attempts
            (merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error, answer_excerpt)
        select merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error, answer_excerpt
        from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::integer[], $7::timestamptz[], $8::integer[],
            $9::integer[], $10::text[], $11::text[])
            as attempt (merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error, answer_excerpt)
        on conflict (merchant_id, id) do nothing",
        &merchants as &[MerchantId],
        &ids as &[AttemptId],
        &endpoints as &[EndpointId],
        &events as &[EventId],
        &sequences,
        &numbers,
        &started as &[Timestamp],
        &durations,
        &statuses as &[Option<i32>],
        &errors as &[Option<&str>],
        &excerpts as &[Option<&str>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes deliveries off the queue.
pub(super) async fn remove(tx: &mut PgConnection, reports: &[&Report]) -> Result<(), Error> {
    if reports.is_empty() {
        return Ok(());
    }
    let merchants: Vec<MerchantId> = reports.iter().map(|report| report.lease.merchant).collect();
    let endpoints: Vec<EndpointId> = reports.iter().map(|report| report.lease.endpoint).collect();
    let sequences: Vec<i64> = reports.iter().map(|report| report.sequence).collect();
    sqlx::query!(
        "delete from deliveries
        using unnest($1::uuid[], $2::uuid[], $3::bigint[]) as settled (merchant_id, endpoint_id, sequence)
        where deliveries.merchant_id = any($1)
            and deliveries.merchant_id = settled.merchant_id
            and deliveries.endpoint_id = settled.endpoint_id
            and deliveries.sequence = settled.sequence",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &sequences,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes deliveries due again.
pub(super) async fn reschedule(
    tx: &mut PgConnection,
    again: &[(&Report, Timestamp)],
) -> Result<(), Error> {
    if again.is_empty() {
        return Ok(());
    }
    let merchants: Vec<MerchantId> = again
        .iter()
        .map(|(report, _)| report.lease.merchant)
        .collect();
    let endpoints: Vec<EndpointId> = again
        .iter()
        .map(|(report, _)| report.lease.endpoint)
        .collect();
    let sequences: Vec<i64> = again.iter().map(|(report, _)| report.sequence).collect();
    let counts: Vec<i32> = again
        .iter()
        .map(|(report, _)| report.attempt.number)
        .collect();
    let times: Vec<Timestamp> = again.iter().map(|(_, due_at)| *due_at).collect();
    sqlx::query!(
        "update deliveries
        set attempt_count = settled.attempt_count,
            due_at = settled.due_at
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::integer[], $5::timestamptz[])
            as settled (merchant_id, endpoint_id, sequence, attempt_count, due_at)
        where deliveries.merchant_id = any($1)
            and deliveries.merchant_id = settled.merchant_id
            and deliveries.endpoint_id = settled.endpoint_id
            and deliveries.sequence = settled.sequence",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &sequences,
        &counts,
        &times as &[Timestamp],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes off the queue deliveries whose event is nowhere kept any more.
pub(crate) async fn discard(tx: &mut PgConnection, lost: &[Due]) -> Result<(), Error> {
    let merchants: Vec<MerchantId> = lost.iter().map(|due| due.merchant).collect();
    let endpoints: Vec<EndpointId> = lost.iter().map(|due| due.endpoint).collect();
    let sequences: Vec<i64> = lost.iter().map(|due| due.sequence).collect();
    sqlx::query!(
        "delete from deliveries
        using unnest($1::uuid[], $2::uuid[], $3::bigint[]) as lost (merchant_id, endpoint_id, sequence)
        where deliveries.merchant_id = any($1)
            and deliveries.merchant_id = lost.merchant_id
            and deliveries.endpoint_id = lost.endpoint_id
            and deliveries.sequence = lost.sequence",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &sequences,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn attempts(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    event: EventId,
) -> Result<Vec<Attempt>, Error> {
    let attempts = sqlx::query_as!(
        Attempt,
        r#"select
            id as "id: AttemptId",
            number,
            started_at as "started_at: Timestamp",
            duration_ms,
            status,
            error,
            answer_excerpt
        from attempts
        where merchant_id = $1
            and endpoint_id = $2
            and event_id = $3
        order by started_at, number
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        event as EventId,
        ATTEMPTS_MAX,
    )
    .fetch_all(tx)
    .await?;
    Ok(attempts)
}

/// When the next delivery of each of these lanes is due, of those that have any.
pub(crate) async fn next_due(
    tx: &mut PgConnection,
    leases: &[Lease],
) -> Result<HashMap<EndpointId, Timestamp>, Error> {
    let merchants: Vec<MerchantId> = leases.iter().map(|lease| lease.merchant).collect();
    let endpoints: Vec<EndpointId> = leases.iter().map(|lease| lease.endpoint).collect();
    // The first of each by the index on due_at, rather than the minimum of all.
    let rows = sqlx::query!(
        r#"select
            due.endpoint_id as "endpoint: EndpointId",
            due.due_at as "due_at: Timestamp"
        from unnest($1::uuid[], $2::uuid[]) as lane (merchant_id, endpoint_id)
        cross join lateral (
            select endpoint_id, due_at
            from deliveries
            where deliveries.merchant_id = any($1)
                and deliveries.merchant_id = lane.merchant_id
                and deliveries.endpoint_id = lane.endpoint_id
            order by deliveries.due_at
            limit 1
        ) as due"#,
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.endpoint, row.due_at))
        .collect())
}

/// Lets go of lanes to which nothing was added since their signals were seen, and says which.
pub(crate) async fn release(
    tx: &mut PgConnection,
    owner: OwnerId,
    lanes: &[(Lease, Option<Timestamp>)],
) -> Result<Vec<EndpointId>, Error> {
    let endpoints: Vec<EndpointId> = lanes.iter().map(|(lease, _)| lease.endpoint).collect();
    let fences: Vec<i64> = lanes.iter().map(|(lease, _)| lease.fence).collect();
    let signals: Vec<i64> = lanes.iter().map(|(lease, _)| lease.signal).collect();
    let times: Vec<Option<Timestamp>> = lanes.iter().map(|(_, due_at)| *due_at).collect();
    let released = sqlx::query_scalar!(
        r#"with idle as (
            select lanes.endpoint_id, seen.due_at
            from lanes
            join unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::timestamptz[]) as seen (endpoint_id, fence, signal, due_at)
                on seen.endpoint_id = lanes.endpoint_id
                and seen.fence = lanes.fence
                and seen.signal = lanes.signal
            where lanes.owner = $1
            order by lanes.endpoint_id
            for no key update of lanes
        )
        update lanes
        set owner = null,
            lease_until = null,
            due_at = idle.due_at
        from idle
        where lanes.endpoint_id = idle.endpoint_id
        returning lanes.endpoint_id as "endpoint: EndpointId""#,
        owner as OwnerId,
        &endpoints as &[EndpointId],
        &fences,
        &signals,
        &times as &[Option<Timestamp>],
    )
    .fetch_all(tx)
    .await?;
    Ok(released)
}
