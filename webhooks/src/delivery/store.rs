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

use super::{
    Attempt, AttemptId, Due, Lease, Made, OwnerId, Place, Report, Signal, Target, first_attempt_at,
    runs::Run,
};
use crate::{endpoint::EndpointId, event::GrantRow, worker::Want};

/// Attempts that a dead letter copies at most: those of the schedule, and of some replays.
const ATTEMPTS_MAX: i64 = 100;

struct LeaseRow {
    endpoint: EndpointId,
    merchant: MerchantId,
    fence: i64,
    signal: i64,
    added_at: Option<Timestamp>,
    unordered_signal: i64,
}

impl From<LeaseRow> for Lease {
    fn from(row: LeaseRow) -> Self {
        Self {
            endpoint: row.endpoint,
            merchant: row.merchant,
            fence: row.fence,
            signal: Signal {
                number: row.signal,
                added_at: row.added_at,
                unordered_number: row.unordered_signal,
            },
        }
    }
}

/// Leases up to `limit` lanes that are due and nobody's, the longest due first, leaving out merchants who have their share. With each comes how often its
/// breaker had opened.
pub(crate) async fn lease(
    tx: &mut PgConnection,
    owner: OwnerId,
    now: Timestamp,
    until: Timestamp,
    limit: i64,
    leave_out: &[MerchantId],
) -> Result<Vec<(Lease, u32)>, Error> {
    let rows = sqlx::query!(
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
            lanes.signal,
            lanes.added_at as "added_at: Timestamp",
            lanes.unordered_signal,
            lanes.breaker_count"#,
        owner as OwnerId,
        now as Timestamp,
        until as Timestamp,
        limit,
        leave_out as &[MerchantId],
    )
    .fetch_all(tx)
    .await?;
    let leases = rows.into_iter().map(|row| {
        let lease = LeaseRow {
            endpoint: row.endpoint,
            merchant: row.merchant,
            fence: row.fence,
            signal: row.signal,
            added_at: row.added_at,
            unordered_signal: row.unordered_signal,
        };
        let breaker_openings = u32::try_from(row.breaker_count).unwrap_or(0);
        (Lease::from(lease), breaker_openings)
    });
    Ok(leases.collect())
}

/// Prolongs the leases of those lanes that this owner still has, and says which, as they now are.
pub(crate) async fn renew(
    database: &Database,
    owner: OwnerId,
    endpoints: &[EndpointId],
    until: Timestamp,
) -> Result<Vec<Lease>, Error> {
    let mut tx = database.begin().await?;
    let rows = sqlx::query_as!(
        LeaseRow,
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
            lanes.signal,
            lanes.added_at as "added_at: Timestamp",
            lanes.unordered_signal"#,
        owner as OwnerId,
        endpoints as &[EndpointId],
        until as Timestamp,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// The lanes of this owner as they now are: what was added shows in their signals.
pub(crate) async fn look(
    tx: &mut PgConnection,
    owner: OwnerId,
    endpoints: &[EndpointId],
) -> Result<Vec<Lease>, Error> {
    let rows = sqlx::query_as!(
        LeaseRow,
        r#"select
            endpoint_id as "endpoint: EndpointId",
            merchant_id as "merchant: MerchantId",
            fence,
            signal,
            added_at as "added_at: Timestamp",
            unordered_signal
        from lanes
        where endpoint_id = any($2)
            and owner = $1"#,
        owner as OwnerId,
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(Lease::from).collect())
}

/// Due deliveries of the lanes that want some, of each priority up to the number that is wanted, behind those that were read before.
pub(crate) async fn due(
    tx: &mut PgConnection,
    wants: &[Want],
    now: Timestamp,
) -> Result<Vec<Due>, Error> {
    let mut merchants: Vec<MerchantId> = wants.iter().map(|want| want.lease.merchant).collect();
    let lane_merchants = merchants.clone();
    merchants.sort_unstable();
    merchants.dedup();
    let endpoints: Vec<EndpointId> = wants.iter().map(|want| want.lease.endpoint).collect();
    let limits: Vec<i64> = wants
        .iter()
        .map(|want| i64::try_from(want.rows_max).unwrap_or(i64::MAX))
        .collect();
    let from = |after: fn(&Want) -> Option<(Timestamp, i64)>| -> (Vec<Timestamp>, Vec<i64>) {
        let start = (Timestamp::from_unix_millis(0), 0);
        wants
            .iter()
            .map(|want| after(want).unwrap_or(start))
            .unzip()
    };
    let (normal_times, normal_sequences) = from(|want| want.after.normal);
    let (bulk_times, bulk_sequences) = from(|want| want.after.bulk);
    // A limit for each lane, so that one with a hundred thousand due neither crowds out the others nor is read whole. A select for each priority, so that
    // each is a range of the index.
    let rows = sqlx::query_as!(
        Due,
        r#"select
            due.merchant_id as "merchant!: MerchantId",
            due.endpoint_id as "endpoint!: EndpointId",
            due.sequence as "sequence!",
            due.event_id as "event!: EventId",
            due.attempt_count as "attempt_count!",
            due.due_at as "due_at!: Timestamp",
            due.priority as "priority!",
            due.resource_key,
            due.data_bytes as "data_bytes!"
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::timestamptz[], $5::bigint[], $6::timestamptz[], $7::bigint[])
            as lane (merchant_id, endpoint_id, row_limit, normal_time, normal_sequence, bulk_time, bulk_sequence)
        cross join lateral (
            (select merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, priority, resource_key, data_bytes
            from deliveries
            where deliveries.merchant_id = any($9)
                and deliveries.merchant_id = lane.merchant_id
                and deliveries.endpoint_id = lane.endpoint_id
                and deliveries.priority = 0
                and deliveries.due_at <= $8
                and (deliveries.due_at, deliveries.sequence) > (lane.normal_time, lane.normal_sequence)
            order by deliveries.due_at, deliveries.sequence
            limit lane.row_limit)
            union all
            (select merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, priority, resource_key, data_bytes
            from deliveries
            where deliveries.merchant_id = any($9)
                and deliveries.merchant_id = lane.merchant_id
                and deliveries.endpoint_id = lane.endpoint_id
                and deliveries.priority = 1
                and deliveries.due_at <= $8
                and (deliveries.due_at, deliveries.sequence) > (lane.bulk_time, lane.bulk_sequence)
            order by deliveries.due_at, deliveries.sequence
            limit lane.row_limit)
        ) as due"#,
        &lane_merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &limits,
        &normal_times as &[Timestamp],
        &normal_sequences,
        &bulk_times as &[Timestamp],
        &bulk_sequences,
        now as Timestamp,
        &merchants as &[MerchantId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// The first deliveries of some ordered resources, due or not, by their sequences; of each up to a number.
pub(crate) async fn first_of_resources(
    tx: &mut PgConnection,
    resources: &[(Lease, i64, i64)],
) -> Result<Vec<(EndpointId, i64, i64)>, Error> {
    let lane_merchants: Vec<MerchantId> =
        resources.iter().map(|(lease, ..)| lease.merchant).collect();
    let mut merchants = lane_merchants.clone();
    merchants.sort_unstable();
    merchants.dedup();
    let endpoints: Vec<EndpointId> = resources.iter().map(|(lease, ..)| lease.endpoint).collect();
    let keys: Vec<i64> = resources.iter().map(|(_, key, _)| *key).collect();
    let limits: Vec<i64> = resources.iter().map(|(.., limit)| *limit).collect();
    // A range of one key, rather than an equality: so the order is that of one index alone.
    let rows = sqlx::query!(
        r#"select
            first.endpoint_id as "endpoint: EndpointId",
            first.resource_key as "key!",
            first.sequence
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) as resource (merchant_id, endpoint_id, key, row_limit)
        cross join lateral (
            select endpoint_id, resource_key, sequence
            from deliveries
            where deliveries.merchant_id = any($5)
                and deliveries.merchant_id = resource.merchant_id
                and deliveries.endpoint_id = resource.endpoint_id
                and deliveries.resource_key >= resource.key
                and deliveries.resource_key <= resource.key
            order by deliveries.resource_key, deliveries.sequence
            limit resource.row_limit
        ) as first"#,
        &lane_merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &keys,
        &limits,
        &merchants as &[MerchantId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.endpoint, row.key, row.sequence))
        .collect())
}

struct TargetRow {
    merchant: MerchantId,
    endpoint: EndpointId,
    url: Option<String>,
    version: i64,
    is_verified: bool,
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
            endpoints.version,
            endpoints.verified_at is not null as "is_verified!",
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
        version: row.version,
        is_verified: row.is_verified,
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

/// What an endpoint has on its queue, counted up to `limit`.
pub(crate) async fn count_queued(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    limit: i64,
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from (
            select 1
            from deliveries
            where merchant_id = $1
                and endpoint_id = $2
            limit $3
        ) as queued"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        limit,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

/// What each attempt has of its own, however it is kept, as arrays.
struct Columns<'m> {
    ids: Vec<AttemptId>,
    events: Vec<EventId>,
    sequences: Vec<i64>,
    numbers: Vec<i32>,
    started: Vec<Timestamp>,
    durations: Vec<i32>,
    statuses: Vec<Option<i32>>,
    excerpts: Vec<Option<&'m str>>,
    request_bytes: Vec<Option<i32>>,
}

impl<'m> Columns<'m> {
    fn of(made: &[Made<'m>]) -> Self {
        fn column<'m, T>(made: &[Made<'m>], of: impl Fn(&Made<'m>) -> T) -> Vec<T> {
            made.iter().map(of).collect()
        }
        Self {
            ids: column(made, |made| made.attempt.id),
            events: column(made, |made| made.event),
            sequences: column(made, |made| made.sequence),
            numbers: column(made, |made| made.attempt.number),
            started: column(made, |made| made.attempt.started_at),
            durations: column(made, |made| made.attempt.duration_ms),
            statuses: column(made, |made| made.attempt.status),
            excerpts: column(made, |made| made.attempt.answer_excerpt.as_deref()),
            request_bytes: column(made, |made| made.request_bytes),
        }
    }
}

/// Writes attempts down that were accepted, in their runs. A transaction that is repeated makes the same runs of them.
pub(super) async fn insert_runs(
    tx: &mut PgConnection,
    made: &[Made<'_>],
    runs: &[Run],
) -> Result<(), Error> {
    if runs.is_empty() {
        return Ok(());
    }
    let first_of = |run: &Run| made.get(run.from.saturating_sub(1));
    let firsts: Vec<&Made<'_>> = runs.iter().filter_map(first_of).collect();
    let merchants: Vec<MerchantId> = firsts.iter().map(|made| made.merchant).collect();
    let endpoints: Vec<EndpointId> = firsts.iter().map(|made| made.endpoint).collect();
    let versions: Vec<i64> = firsts.iter().map(|made| made.endpoint_version).collect();
    let (first_ids, last_ids): (Vec<AttemptId>, Vec<AttemptId>) =
        runs.iter().map(|run| run.ids).unzip();
    let (first_sequences, last_sequences): (Vec<i64>, Vec<i64>) =
        runs.iter().map(|run| run.sequences).unzip();
    let place = |place| i32::try_from(place).unwrap_or(i32::MAX);
    let froms: Vec<i32> = runs.iter().map(|run| place(run.from)).collect();
    let tos: Vec<i32> = runs.iter().map(|run| place(run.to)).collect();
    let columns = Columns::of(made);
    sqlx::query!(
        "insert into attempt_runs
            (merchant_id, endpoint_id, endpoint_version, first_id, id, first_sequence, last_sequence,
             ids, event_ids, sequences, numbers, started_at, durations_ms, statuses, answer_excerpts, request_bytes)
        select merchant_id, endpoint_id, endpoint_version, first_id, last_id, first_sequence, last_sequence,
            ($10::uuid[])[run.begins:run.ends], ($11::uuid[])[run.begins:run.ends], ($12::bigint[])[run.begins:run.ends],
            ($13::integer[])[run.begins:run.ends], ($14::timestamptz[])[run.begins:run.ends], ($15::integer[])[run.begins:run.ends],
            ($16::integer[])[run.begins:run.ends], ($17::text[])[run.begins:run.ends], ($18::integer[])[run.begins:run.ends]
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::uuid[], $5::uuid[], $6::bigint[], $7::bigint[], $8::integer[], $9::integer[])
            as run (merchant_id, endpoint_id, endpoint_version, first_id, last_id, first_sequence, last_sequence, begins, ends)
        on conflict (merchant_id, endpoint_id, id) do nothing",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &versions,
        &first_ids as &[AttemptId],
        &last_ids as &[AttemptId],
        &first_sequences,
        &last_sequences,
        &froms,
        &tos,
        &columns.ids as &[AttemptId],
        &columns.events as &[EventId],
        &columns.sequences,
        &columns.numbers,
        &columns.started as &[Timestamp],
        &columns.durations,
        &columns.statuses as &[Option<i32>],
        &columns.excerpts as &[Option<&str>],
        &columns.request_bytes as &[Option<i32>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes attempts down that were not accepted.
pub(super) async fn insert_attempts(tx: &mut PgConnection, made: &[Made<'_>]) -> Result<(), Error> {
    if made.is_empty() {
        return Ok(());
    }
    let merchants: Vec<MerchantId> = made.iter().map(|made| made.merchant).collect();
    let endpoints: Vec<EndpointId> = made.iter().map(|made| made.endpoint).collect();
    let versions: Vec<i64> = made.iter().map(|made| made.endpoint_version).collect();
    let errors: Vec<Option<&str>> = made
        .iter()
        .map(|made| made.attempt.error.as_deref())
        .collect();
    let columns = Columns::of(made);
    sqlx::query!(
        "insert into attempts
            (merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error, answer_excerpt,
             endpoint_version, request_bytes)
        select merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error, answer_excerpt,
            endpoint_version, request_bytes
        from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::integer[], $7::timestamptz[], $8::integer[],
            $9::integer[], $10::text[], $11::text[], $12::bigint[], $13::integer[])
            as attempt (merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error, answer_excerpt,
                endpoint_version, request_bytes)
        on conflict (merchant_id, id) do nothing",
        &merchants as &[MerchantId],
        &columns.ids as &[AttemptId],
        &endpoints as &[EndpointId],
        &columns.events as &[EventId],
        &columns.sequences,
        &columns.numbers,
        &columns.started as &[Timestamp],
        &columns.durations,
        &columns.statuses as &[Option<i32>],
        &errors as &[Option<&str>],
        &columns.excerpts as &[Option<&str>],
        &versions,
        &columns.request_bytes as &[Option<i32>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The merchants of some reports, each once.
fn merchants_of(reports: &[&Report]) -> Vec<MerchantId> {
    let mut merchants: Vec<MerchantId> =
        reports.iter().map(|report| report.lease.merchant).collect();
    merchants.sort_unstable();
    merchants.dedup();
    merchants
}

/// Takes deliveries off the queue.
pub(crate) async fn remove(tx: &mut PgConnection, mut places: Vec<Place>) -> Result<(), Error> {
    if places.is_empty() {
        return Ok(());
    }
    // Most of a backlog's follow one another at once: such are a range of the index.
    places.sort_unstable();
    let (mut merchants, mut endpoints) = (Vec::new(), Vec::new());
    let (mut firsts, mut lasts): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
    for (merchant, endpoint, sequence) in places {
        match lasts.last_mut() {
            Some(last)
                if endpoints.last() == Some(&endpoint) && sequence <= last.saturating_add(1) =>
            {
                *last = sequence;
            }
            _ => {
                merchants.push(merchant);
                endpoints.push(endpoint);
                firsts.push(sequence);
                lasts.push(sequence);
            }
        }
    }
    let mut all_merchants = merchants.clone();
    all_merchants.dedup();
    // Where they lie is found first, range by range and in the order of the one index that has it: a plan for a join, made while the queue was short, would read
    // all of a long one.
    sqlx::query!(
        "delete from deliveries
        where ctid = any (array (
            select found.ctid
            from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) as settled (merchant_id, endpoint_id, first_sequence, last_sequence)
            cross join lateral (
                select ctid
                from deliveries
                where deliveries.merchant_id = any($5)
                    and deliveries.merchant_id = settled.merchant_id
                    and deliveries.endpoint_id = settled.endpoint_id
                    and deliveries.sequence >= settled.first_sequence
                    and deliveries.sequence <= settled.last_sequence
                order by deliveries.sequence
            ) as found
        ))",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &firsts,
        &lasts,
        &all_merchants as &[MerchantId],
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
    let (reports, times): (Vec<&Report>, Vec<Timestamp>) = again.iter().copied().unzip();
    let merchants: Vec<MerchantId> = reports.iter().map(|report| report.lease.merchant).collect();
    let endpoints: Vec<EndpointId> = reports.iter().map(|report| report.lease.endpoint).collect();
    let sequences: Vec<i64> = reports.iter().map(|report| report.sequence).collect();
    let counts: Vec<i32> = reports.iter().map(|report| report.attempt.number).collect();
    sqlx::query!(
        "update deliveries
        set attempt_count = settled.attempt_count,
            due_at = settled.due_at
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::integer[], $5::timestamptz[])
            as settled (merchant_id, endpoint_id, sequence, attempt_count, due_at)
        where deliveries.merchant_id = any($6)
            and deliveries.merchant_id = settled.merchant_id
            and deliveries.endpoint_id = settled.endpoint_id
            and deliveries.sequence = settled.sequence",
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        &sequences,
        &counts,
        &times as &[Timestamp],
        &merchants_of(&reports) as &[MerchantId],
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
    sequence: i64,
) -> Result<Vec<Attempt>, Error> {
    let attempts = sqlx::query_as!(
        Attempt,
        r#"select
            id as "id!: AttemptId",
            number as "number!",
            started_at as "started_at!: Timestamp",
            duration_ms as "duration_ms!",
            status,
            error,
            answer_excerpt
        from stoa_attempts_of($1, $2, $3, $4, $5)
        order by started_at, number
        limit $6"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        event as EventId,
        sequence,
        first_attempt_at(event) as AttemptId,
        ATTEMPTS_MAX,
    )
    .fetch_all(tx)
    .await?;
    Ok(attempts)
}

/// When the next delivery of each of these lanes is due, of those that have any. One that waits for an earlier one of its resource is due with that one: by
/// its own time, a lane would be taken again and again in which nothing may be sent.
pub(crate) async fn next_due(
    tx: &mut PgConnection,
    leases: &[Lease],
) -> Result<HashMap<EndpointId, Timestamp>, Error> {
    let merchants: Vec<MerchantId> = leases.iter().map(|lease| lease.merchant).collect();
    let endpoints: Vec<EndpointId> = leases.iter().map(|lease| lease.endpoint).collect();
    // The first of each priority by the index on due_at, rather than the minimum of all.
    let rows = sqlx::query!(
        r#"select
            lane.endpoint_id as "endpoint!: EndpointId",
            due.due_at as "due_at!: Timestamp"
        from unnest($1::uuid[], $2::uuid[]) as lane (merchant_id, endpoint_id)
        cross join unnest('{0,1}'::smallint[]) as priority (of_lane)
        cross join lateral (
            select due_at
            from deliveries
            where deliveries.merchant_id = any($1)
                and deliveries.merchant_id = lane.merchant_id
                and deliveries.endpoint_id = lane.endpoint_id
                and deliveries.priority = priority.of_lane
                and not exists (
                    select 1
                    from deliveries as earlier
                    where earlier.merchant_id = any($1)
                        and earlier.merchant_id = deliveries.merchant_id
                        and earlier.endpoint_id = deliveries.endpoint_id
                        and earlier.resource_key = deliveries.resource_key
                        and earlier.sequence < deliveries.sequence
                )
            order by deliveries.due_at
            limit 1
        ) as due"#,
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    let mut next = HashMap::new();
    for row in rows {
        let due_at = next.entry(row.endpoint).or_insert(row.due_at);
        *due_at = row.due_at.min(*due_at);
    }
    Ok(next)
}

/// A lane to let go of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Release {
    pub(crate) lease: Lease,
    /// When it is due again; `None` if nothing is.
    pub(crate) due_at: Option<Timestamp>,
    /// How often its breaker has opened since its endpoint last accepted something.
    pub(crate) breaker_openings: u32,
    /// Until when nothing is sent, if its breaker is open or its receiver wants to be left alone.
    pub(crate) rest_until: Option<Timestamp>,
}

/// Lets go of lanes to which nothing was added since their signals were seen, and says which.
pub(crate) async fn release(
    tx: &mut PgConnection,
    owner: OwnerId,
    lanes: &[Release],
) -> Result<Vec<EndpointId>, Error> {
    let endpoints: Vec<EndpointId> = lanes.iter().map(|lane| lane.lease.endpoint).collect();
    let fences: Vec<i64> = lanes.iter().map(|lane| lane.lease.fence).collect();
    let signals: Vec<i64> = lanes.iter().map(|lane| lane.lease.signal.number).collect();
    let times: Vec<Option<Timestamp>> = lanes.iter().map(|lane| lane.due_at).collect();
    let breaker_counts: Vec<i32> = lanes
        .iter()
        .map(|lane| i32::try_from(lane.breaker_openings).unwrap_or(i32::MAX))
        .collect();
    let rests: Vec<Option<Timestamp>> = lanes.iter().map(|lane| lane.rest_until).collect();
    let released = sqlx::query_scalar!(
        r#"with idle as (
            select lanes.endpoint_id, seen.due_at, seen.breaker_count, seen.rest_until
            from lanes
            join unnest($2::uuid[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::integer[], $7::timestamptz[])
                as seen (endpoint_id, fence, signal, due_at, breaker_count, rest_until)
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
            due_at = idle.due_at,
            breaker_count = idle.breaker_count,
            rest_until = idle.rest_until
        from idle
        where lanes.endpoint_id = idle.endpoint_id
        returning lanes.endpoint_id as "endpoint: EndpointId""#,
        owner as OwnerId,
        &endpoints as &[EndpointId],
        &fences,
        &signals,
        &times as &[Option<Timestamp>],
        &breaker_counts,
        &rests as &[Option<Timestamp>],
    )
    .fetch_all(tx)
    .await?;
    Ok(released)
}
