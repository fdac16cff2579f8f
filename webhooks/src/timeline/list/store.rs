//! The statements that read attempts: those that have a row each, and those that are kept in runs.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{EventId, MerchantId},
};
use sqlx::PgConnection;

use crate::{
    delivery::{AttemptId, first_attempt_at, runs},
    endpoint::EndpointId,
    timeline::{AttemptOutcome, DeliveryKey, MadeAttempt, store::Found},
};

/// Attempts at one delivery that a timeline shows at most: those of the longest schedule, and of some replays.
const ATTEMPTS_MAX: i64 = 200;

/// Attempts that have a row each, as they are looked through for a filter: id, and whether it succeeded.
pub(super) async fn scan(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    (from, before): (AttemptId, AttemptId),
    limit: i64,
) -> Result<Vec<(AttemptId, bool)>, Error> {
    let rows = sqlx::query!(
        r#"select id as "id: AttemptId", coalesce(status between 200 and 299, false) as "succeeded!"
        from attempts
        where merchant_id = $1
            and endpoint_id = $2
            and id >= $3
            and id < $4
        order by id desc
        limit $5"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        from as AttemptId,
        before as AttemptId,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, row.succeeded))
        .collect())
}

/// The attempts of the newest runs, up to `limit` runs beside those that reach over `before`; and the id from which on that is all there is.
pub(super) async fn scan_runs(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    (from, before): (AttemptId, AttemptId),
    limit: i64,
) -> Result<(Vec<InRun>, Option<AttemptId>), Error> {
    // No run that began before `before` has an attempt of this id or a later one; ids know milliseconds.
    let over_by = runs::SPAN_MAX + Duration::from_millis(1);
    let ends_before = AttemptId::least(before.made_at().plus(over_by));
    let rows = sqlx::query!(
        r#"select run.id as "run!: AttemptId", run.ids as "ids!: Vec<AttemptId>"
        from (
            (select id, ids
            from attempt_runs
            where merchant_id = $1
                and endpoint_id = $2
                and id >= $4
                and id < $5
                and first_id < $4)
            union all
            (select id, ids
            from attempt_runs
            where merchant_id = $1
                and endpoint_id = $2
                and id >= $3
                and id < $4
            order by id desc
            limit $6)
        ) as run
        order by run.id desc"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        from as AttemptId,
        before as AttemptId,
        ends_before as AttemptId,
        limit,
    )
    .fetch_all(tx)
    .await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let is_cut = rows.iter().filter(|row| row.run < before).count() >= limit;
    let last = rows.last().map(|row| row.run).filter(|_| is_cut);
    let attempts = rows.iter().flat_map(|row| {
        let ids = row.ids.iter().filter(|id| (from..before).contains(id));
        ids.map(|id| InRun {
            id: *id,
            run: row.run,
        })
    });
    Ok((attempts.collect(), last))
}

/// An attempt that is kept in a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct InRun {
    pub(super) id: AttemptId,
    /// The run's id.
    pub(super) run: AttemptId,
}

struct AttemptRow {
    id: AttemptId,
    endpoint_id: EndpointId,
    event_id: EventId,
    sequence: i64,
    number: i32,
    started_at: Timestamp,
    duration_ms: i32,
    status: Option<i32>,
    error: Option<String>,
    answer_excerpt: Option<String>,
    endpoint_version: Option<i64>,
    request_bytes: Option<i32>,
}

impl From<AttemptRow> for MadeAttempt {
    fn from(row: AttemptRow) -> Self {
        Self {
            id: row.id,
            endpoint_id: row.endpoint_id,
            event_id: row.event_id,
            sequence: row.sequence,
            number: row.number,
            started_at: row.started_at,
            duration_ms: row.duration_ms,
            outcome: AttemptOutcome::of(row.status),
            status: row.status,
            error: row.error,
            answer_excerpt: row.answer_excerpt,
            endpoint_version: row.endpoint_version,
            request_bytes: row.request_bytes,
        }
    }
}

/// These attempts, of which each has a row.
pub(super) async fn attempts(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[AttemptId],
) -> Result<Vec<MadeAttempt>, Error> {
    let (Some(first), Some(last)) = (ids.iter().min(), ids.iter().max()) else {
        return Ok(Vec::new());
    };
    // The bounds leave out the days between which none of them lies.
    let rows = sqlx::query_as!(
        AttemptRow,
        r#"select
            id as "id: AttemptId",
            endpoint_id as "endpoint_id: EndpointId",
            event_id as "event_id: EventId",
            sequence,
            number,
            started_at as "started_at: Timestamp",
            duration_ms,
            status,
            error,
            answer_excerpt,
            endpoint_version,
            request_bytes
        from attempts
        where merchant_id = $1
            and id = any($2)
            and id >= $3
            and id <= $4"#,
        merchant as MerchantId,
        ids as &[AttemptId],
        *first as AttemptId,
        *last as AttemptId,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(MadeAttempt::from).collect())
}

/// These attempts of an endpoint, which are kept in runs.
pub(super) async fn attempts_in_runs(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    attempts: &[InRun],
) -> Result<Vec<MadeAttempt>, Error> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<AttemptId> = attempts.iter().map(|attempt| attempt.id).collect();
    let mut runs: Vec<AttemptId> = attempts.iter().map(|attempt| attempt.run).collect();
    runs.dedup();
    let rows = sqlx::query_as!(
        AttemptRow,
        r#"select
            made.id as "id!: AttemptId",
            run.endpoint_id as "endpoint_id: EndpointId",
            made.event_id as "event_id!: EventId",
            made.sequence as "sequence!",
            made.number as "number!",
            made.started_at as "started_at!: Timestamp",
            made.duration_ms as "duration_ms!",
            made.status,
            null::text as error,
            made.answer_excerpt,
            run.endpoint_version as "endpoint_version?",
            made.request_bytes
        from attempt_runs as run
        cross join unnest(run.ids, run.event_ids, run.sequences, run.numbers, run.started_at, run.durations_ms, run.statuses, run.answer_excerpts, run.request_bytes)
            as made (id, event_id, sequence, number, started_at, duration_ms, status, answer_excerpt, request_bytes)
        where run.merchant_id = $1
            and run.endpoint_id = $2
            and run.id = any($3)
            and made.id = any($4)"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        &runs as &[AttemptId],
        &ids as &[AttemptId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(MadeAttempt::from).collect())
}

/// The attempts at one delivery, in the order in which they began.
pub(in crate::timeline) async fn attempts_of(
    tx: &mut PgConnection,
    merchant: MerchantId,
    found: Found,
) -> Result<Vec<MadeAttempt>, Error> {
    let DeliveryKey {
        endpoint, event, ..
    } = found.key;
    let rows = sqlx::query_as!(
        AttemptRow,
        r#"select
            id as "id!: AttemptId",
            $2 as "endpoint_id!: EndpointId",
            $3 as "event_id!: EventId",
            sequence as "sequence!",
            number as "number!",
            started_at as "started_at!: Timestamp",
            duration_ms as "duration_ms!",
            status,
            error,
            answer_excerpt,
            endpoint_version,
            request_bytes
        from stoa_attempts_of($1, $2, $3, $4, $5)
        order by started_at, id
        limit $6"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        event as EventId,
        found.sequence,
        first_attempt_at(event) as AttemptId,
        ATTEMPTS_MAX,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(MadeAttempt::from).collect())
}
