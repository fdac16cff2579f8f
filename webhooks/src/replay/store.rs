//! The statements of replays.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashSet;

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{EventId, MerchantId},
};
use sqlx::{PgConnection, types::Json};

use super::{Replay, ReplayId, ReplayStatus, Selection};
use crate::{
    delivery::{AttemptId, first_attempt_at},
    endpoint::EndpointId,
    relay::resource_key,
};

/// Hints that one look takes at most: as many replays as may be running on an installation without one of them waiting for another's end.
const HINTS_MAX: i64 = 10_000;

struct Row {
    id: ReplayId,
    endpoint_id: EndpointId,
    selection: Json<Selection>,
    status: String,
    position: i64,
    until_sequence: i64,
    queued_count: i64,
    expired_count: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<Row> for Replay {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            status: match row.status.as_str() {
                "running" => ReplayStatus::Running,
                "completed" => ReplayStatus::Completed,
                "cancelled" => ReplayStatus::Cancelled,
                _ => return Err(Error::corrupt("replays", row.id, "unknown status")),
            },
            id: row.id,
            endpoint_id: row.endpoint_id,
            selection: row.selection.0,
            position: row.position,
            until_sequence: row.until_sequence,
            queued_count: row.queued_count,
            expired_count: row.expired_count,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl ReplayStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Running replays of an endpoint, counted up to `limit`.
pub(super) async fn running(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    limit: i64,
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from (
            select 1
            from replays
            where merchant_id = $1
                and endpoint_id = $2
                and status = 'running'
            limit $3
        ) as running"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        limit,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    replay: &Replay,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into replays
            (merchant_id, id, endpoint_id, app_id, selection, status, position, until_sequence, queued_count, expired_count, created_at, updated_at)
        select $1, $2, $3, endpoints.app_id, $4, $5, $6, $7, $8, $9, $10, $11
        from endpoints
        where endpoints.merchant_id = $1
            and endpoints.id = $3",
        merchant as MerchantId,
        replay.id as ReplayId,
        replay.endpoint_id as EndpointId,
        Json(&replay.selection) as Json<&Selection>,
        replay.status.as_str(),
        replay.position,
        replay.until_sequence,
        replay.queued_count,
        replay.expired_count,
        replay.created_at as Timestamp,
        replay.updated_at as Timestamp,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into replay_hints (replay_id, merchant_id)
        values ($1, $2)",
        replay.id as ReplayId,
        merchant as MerchantId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn find(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: ReplayId,
) -> Result<Option<Replay>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: ReplayId",
            endpoint_id as "endpoint_id: EndpointId",
            selection as "selection: Json<Selection>",
            status,
            position,
            until_sequence,
            queued_count,
            expired_count,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from replays
        where merchant_id = $1
            and id = $2"#,
        merchant as MerchantId,
        id as ReplayId,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Replay::try_from).transpose()
}

/// The same, held against a change until the end of the transaction.
pub(super) async fn lock(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: ReplayId,
) -> Result<Option<Replay>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: ReplayId",
            endpoint_id as "endpoint_id: EndpointId",
            selection as "selection: Json<Selection>",
            status,
            position,
            until_sequence,
            queued_count,
            expired_count,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from replays
        where merchant_id = $1
            and id = $2
        for update"#,
        merchant as MerchantId,
        id as ReplayId,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Replay::try_from).transpose()
}

pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    before: Option<ReplayId>,
    count: i64,
) -> Result<Vec<Replay>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: ReplayId",
            endpoint_id as "endpoint_id: EndpointId",
            selection as "selection: Json<Selection>",
            status,
            position,
            until_sequence,
            queued_count,
            expired_count,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from replays
        where merchant_id = $1
            and endpoint_id = $2
            and ($3::uuid is null or id < $3)
        order by id desc
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        before as Option<ReplayId>,
        count,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Replay::try_from).collect()
}

/// The hint is left to whoever works at the replay: taking it here could wait for a batch that waits for the replay.
pub(super) async fn cancel(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: ReplayId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update replays
        set status = 'cancelled',
            updated_at = $3
        where merchant_id = $1
            and id = $2
            and status = 'running'",
        merchant as MerchantId,
        id as ReplayId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What the queue has to know of an event.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) event: EventId,
    pub(super) kind: String,
    pub(super) resource_kind: String,
    pub(super) resource_id: String,
    pub(super) data_bytes: i32,
}

/// What the queue has to know of the event of a number of a stream; retention may have left it to a dead letter alone.
pub(super) async fn detail(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    sequence: i64,
) -> Result<Option<Detail>, Error> {
    let detail = sqlx::query_as!(
        Detail,
        r#"select
            events.id as "event!: EventId",
            events.type as "kind!",
            events.resource_type as "resource_kind!",
            events.resource_id as "resource_id!",
            octet_length(events.data::text) as "data_bytes!"
        from streams
        join events
            on events.merchant_id = $1
            and events.id = streams.event_id
        where streams.merchant_id = $1
            and streams.endpoint_id = $2
            and streams.sequence = $3
        union all
        select
            event_id,
            event ->> 'type',
            event -> 'resource' ->> 'type',
            event -> 'resource' ->> 'id',
            octet_length((event -> 'data')::text)
        from dead_letters
        where merchant_id = $1
            and endpoint_id = $2
            and sequence = $3
        limit 1"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        sequence,
    )
    .fetch_optional(tx)
    .await?;
    Ok(detail)
}

/// The events of the history with these ids; those that retention has dropped are missing.
pub(super) async fn details(
    tx: &mut PgConnection,
    merchant: MerchantId,
    events: &[EventId],
) -> Result<Vec<Detail>, Error> {
    let details = sqlx::query_as!(
        Detail,
        r#"select
            id as "event: EventId",
            type as kind,
            resource_type as resource_kind,
            resource_id,
            octet_length(data::text) as "data_bytes!"
        from events
        where merchant_id = $1
            and id = any($2)"#,
        merchant as MerchantId,
        events as &[EventId],
    )
    .fetch_all(tx)
    .await?;
    Ok(details)
}

/// A delivery that is to be queued.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) sequence: i64,
    event: EventId,
    resource_key: Option<i64>,
    data_bytes: i32,
}

impl Chosen {
    /// `is_ordered`: one resource's deliveries wait for one another.
    pub(super) fn new(sequence: i64, detail: &Detail, is_ordered: bool) -> Self {
        Self {
            sequence,
            event: detail.event,
            resource_key: is_ordered
                .then(|| resource_key(&detail.resource_kind, &detail.resource_id)),
            data_bytes: detail.data_bytes,
        }
    }
}

/// Queues one delivery for somebody who waits for it. One that is on the queue already is brought forward.
pub(super) async fn bring_forward(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    chosen: &Chosen,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into deliveries
            (merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, created_at, priority, resource_key, data_bytes)
        values ($1, $2, $3, $4, 0, $5, $5, 0, $6, $7)
        on conflict (merchant_id, endpoint_id, sequence) do update
        set due_at = least(deliveries.due_at, excluded.due_at),
            priority = 0",
        merchant as MerchantId,
        endpoint as EndpointId,
        chosen.sequence,
        chosen.event as EventId,
        now as Timestamp,
        chosen.resource_key,
        chosen.data_bytes,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Queues deliveries as bulk, and says which: what is on the queue already stays as it is.
pub(super) async fn queue(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    chosen: &[Chosen],
    now: Timestamp,
) -> Result<Vec<i64>, Error> {
    let sequences: Vec<i64> = chosen.iter().map(|chosen| chosen.sequence).collect();
    let events: Vec<EventId> = chosen.iter().map(|chosen| chosen.event).collect();
    let keys: Vec<Option<i64>> = chosen.iter().map(|chosen| chosen.resource_key).collect();
    let bytes: Vec<i32> = chosen.iter().map(|chosen| chosen.data_bytes).collect();
    let queued = sqlx::query_scalar!(
        "insert into deliveries
            (merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, created_at, priority, resource_key, data_bytes)
        select $1, $2, sequence, event_id, 0, $7, $7, 1, resource_key, data_bytes
        from unnest($3::bigint[], $4::uuid[], $5::bigint[], $6::integer[]) as chosen (sequence, event_id, resource_key, data_bytes)
        on conflict (merchant_id, endpoint_id, sequence) do nothing
        returning sequence",
        merchant as MerchantId,
        endpoint as EndpointId,
        &sequences,
        &events as &[EventId],
        &keys as &[Option<i64>],
        &bytes,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(queued)
}

/// Notes on the dead letters of these numbers that they have been queued again.
pub(super) async fn mark_dead_letters(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    sequences: &[i64],
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update dead_letters
        set replayed_at = $4
        where merchant_id = $1
            and endpoint_id = $2
            and sequence = any($3)",
        merchant as MerchantId,
        endpoint as EndpointId,
        sequences,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The replays that are running, with their merchants.
pub(super) async fn hints(tx: &mut PgConnection) -> Result<Vec<(ReplayId, MerchantId)>, Error> {
    let rows = sqlx::query!(
        r#"select replay_id as "replay: ReplayId", merchant_id as "merchant: MerchantId"
        from replay_hints
        order by replay_id
        limit $1"#,
        HINTS_MAX,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.replay, row.merchant))
        .collect())
}

/// Takes a hint until the end of the transaction. False if somebody else has it, or it is gone.
pub(super) async fn take_hint(tx: &mut PgConnection, id: ReplayId) -> Result<bool, Error> {
    let taken = sqlx::query!(
        r#"select replay_id as "replay: ReplayId"
        from replay_hints
        where replay_id = $1
        for update skip locked"#,
        id as ReplayId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(taken.is_some())
}

pub(super) async fn delete_hint(tx: &mut PgConnection, id: ReplayId) -> Result<(), Error> {
    sqlx::query!(
        "delete from replay_hints
        where replay_id = $1",
        id as ReplayId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Which numbers a batch looks at: those after the first, up to the second, of events between the bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) after: i64,
    pub(super) until: i64,
    pub(super) events: (EventId, EventId),
    pub(super) limit: i64,
}

/// The next entries of an endpoint's stream. The bounds of the events' ids leave out whole partitions.
pub(super) async fn stream_entries(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    span: Span,
) -> Result<Vec<(i64, EventId)>, Error> {
    let rows = sqlx::query!(
        r#"select sequence, event_id as "event: EventId"
        from streams
        where merchant_id = $1
            and endpoint_id = $2
            and sequence > $3
            and sequence <= $4
            and event_id >= $5
            and event_id < $6
        order by sequence
        limit $7"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        span.after,
        span.until,
        span.events.0 as EventId,
        span.events.1 as EventId,
        span.limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.sequence, row.event))
        .collect())
}

/// The next entries of an endpoint's stream that are about one resource: found by the resource, so that the stream's length does not matter.
pub(super) async fn resource_entries(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    (kind, id): (&str, &str),
    span: Span,
) -> Result<Vec<(i64, EventId)>, Error> {
    let rows = sqlx::query!(
        r#"select streams.sequence, streams.event_id as "event: EventId"
        from events
        join streams
            on streams.merchant_id = $1
            and streams.endpoint_id = $2
            and streams.event_id = events.id
        where events.merchant_id = $1
            and events.resource_id = $8
            and events.resource_type = $9
            and events.id >= $5
            and events.id < $6
            and streams.sequence > $3
            and streams.sequence <= $4
        order by streams.sequence
        limit $7"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        span.after,
        span.until,
        span.events.0 as EventId,
        span.events.1 as EventId,
        span.limit,
        id,
        kind,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.sequence, row.event))
        .collect())
}

/// The next dead letters of an endpoint that have not been replayed, with what is to be known of their events: they outlive the history.
pub(super) async fn dead_entries(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    span: Span,
) -> Result<Vec<(i64, Detail)>, Error> {
    let rows = sqlx::query!(
        r#"select distinct on (sequence)
            sequence,
            event_id as "event: EventId",
            event ->> 'type' as "kind!",
            event -> 'resource' ->> 'type' as "resource_kind!",
            event -> 'resource' ->> 'id' as "resource_id!",
            octet_length((event -> 'data')::text) as "data_bytes!"
        from dead_letters
        where merchant_id = $1
            and endpoint_id = $2
            and sequence > $3
            and sequence <= $4
            and event_id >= $5
            and event_id < $6
            and replayed_at is null
        order by sequence
        limit $7"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        span.after,
        span.until,
        span.events.0 as EventId,
        span.events.1 as EventId,
        span.limit,
    )
    .fetch_all(tx)
    .await?;
    let entries = rows.into_iter().map(|row| {
        let detail = Detail {
            event: row.event,
            kind: row.kind,
            resource_kind: row.resource_kind,
            resource_id: row.resource_id,
            data_bytes: row.data_bytes,
        };
        (row.sequence, detail)
    });
    Ok(entries.collect())
}

/// Those of these numbers of the endpoint's stream that its receiver has accepted.
pub(super) async fn accepted(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    entries: &[(i64, EventId)],
) -> Result<HashSet<i64>, Error> {
    let (sequences, events): (Vec<i64>, Vec<EventId>) = entries.iter().copied().unzip();
    let Some(first) = events.iter().min() else {
        return Ok(HashSet::new());
    };
    let accepted = sqlx::query_scalar!(
        r#"select entry.sequence as "sequence!"
        from unnest($3::bigint[], $4::uuid[]) as entry (sequence, event_id)
        where exists (
            select 1
            from stoa_attempts_of($1, $2, entry.event_id, entry.sequence, $5)
            where status between 200 and 299
        )"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        &sequences,
        &events as &[EventId],
        first_attempt_at(*first) as AttemptId,
    )
    .fetch_all(tx)
    .await?;
    Ok(accepted.into_iter().collect())
}

/// Notes how far a replay has come.
pub(super) async fn advance(
    tx: &mut PgConnection,
    merchant: MerchantId,
    replay: &Replay,
) -> Result<(), Error> {
    sqlx::query!(
        "update replays
        set status = $3,
            position = $4,
            queued_count = $5,
            expired_count = $6,
            updated_at = $7
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        replay.id as ReplayId,
        replay.status.as_str(),
        replay.position,
        replay.queued_count,
        replay.expired_count,
        replay.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}
