//! The relay's statements.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use kernel::{
    clock::Timestamp,
    db::{Database, Error},
    id::{AppId, EventId, LocationId, MerchantId},
};
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};

use super::{
    filters::Filters,
    plan::{Audience, Entry, Interest, Pending},
    versions::Gap,
    waiting::Start,
};
use crate::{
    endpoint::{
        EndpointId, Outlet, Status,
        settings::{Imports, Ordering, Settings},
    },
    event::GrantRow,
};

/// Locks the merchant's feed and gives its last number.
pub(super) async fn lock_feed(tx: &mut PgConnection, merchant: MerchantId) -> Result<i64, Error> {
    if let Some(last_number) = select_feed(tx, merchant).await? {
        return Ok(last_number);
    }
    sqlx::query!(
        "insert into feeds (merchant_id, last_number)
        values ($1, 0)
        on conflict (merchant_id) do nothing",
        merchant as MerchantId,
    )
    .execute(&mut *tx)
    .await?;
    let last_number = select_feed(tx, merchant).await?;
    last_number
        .ok_or_else(|| Error::corrupt("feeds", merchant, "the row is not there after its insert"))
}

async fn select_feed(tx: &mut PgConnection, merchant: MerchantId) -> Result<Option<i64>, Error> {
    let last_number = sqlx::query_scalar!(
        "select last_number
        from feeds
        where merchant_id = $1
        for update",
        merchant as MerchantId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(last_number)
}

pub(super) async fn advance_feed(
    tx: &mut PgConnection,
    merchant: MerchantId,
    last_number: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "update feeds
        set last_number = $2
        where merchant_id = $1",
        merchant as MerchantId,
        last_number,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Some of what waits in the outbox from `start` on, what somebody waits for before bulk. Its statement begins after the feed was locked, so it sees whatever
/// earlier relays have left.
pub(super) async fn batch(
    tx: &mut PgConnection,
    merchant: MerchantId,
    start: Start,
    events_max: usize,
) -> Result<Vec<Pending>, Error> {
    let limit = i64::try_from(events_max).unwrap_or(i64::MAX);
    // A range of the index for each priority.
    let rows = sqlx::query_as!(
        Pending,
        r#"select
            id as "id!: EventId",
            ctid::text as "place!",
            type as "kind!",
            resource_type as "resource_kind!",
            resource_id as "resource_id!",
            resource_version as "resource_version!",
            scope as "scope!",
            locations as "locations!: Vec<LocationId>",
            occurred_at as "occurred_at!: Timestamp",
            priority as "priority!",
            octet_length(data::text) as "data_bytes!"
        from (
            (select id, ctid, type, resource_type, resource_id, resource_version, scope, locations, occurred_at, priority, data
            from outbox
            where merchant_id = $1
                and (priority, id) >= (0::smallint, $2)
                and priority < 1
            order by priority, id
            limit $4)
            union all
            (select id, ctid, type, resource_type, resource_id, resource_version, scope, locations, occurred_at, priority, data
            from outbox
            where merchant_id = $1
                and (priority, id) >= (1::smallint, $3)
            order by priority, id
            limit $4)
        ) as waiting
        order by priority, id
        limit $4"#,
        merchant as MerchantId,
        start.normal as EventId,
        start.bulk as EventId,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// What waits in the outbox where a batch has gaps.
pub(super) async fn earlier(
    tx: &mut PgConnection,
    merchant: MerchantId,
    batch: &[Pending],
    gaps: &[Gap<'_>],
) -> Result<Vec<Pending>, Error> {
    let known: Vec<EventId> = batch.iter().map(|event| event.id).collect();
    let kinds: Vec<&str> = gaps.iter().map(|gap| gap.kind).collect();
    let ids: Vec<&str> = gaps.iter().map(|gap| gap.id).collect();
    let firsts: Vec<i64> = gaps.iter().map(|gap| gap.from_version).collect();
    let lasts: Vec<i64> = gaps.iter().map(|gap| gap.before_version).collect();
    let rows = sqlx::query_as!(
        Pending,
        r#"select
            earlier.id as "id: EventId",
            earlier.ctid::text as "place!",
            earlier.type as kind,
            earlier.resource_type as resource_kind,
            earlier.resource_id,
            earlier.resource_version,
            earlier.scope,
            earlier.locations as "locations: Vec<LocationId>",
            earlier.occurred_at as "occurred_at: Timestamp",
            earlier.priority,
            octet_length(earlier.data::text) as "data_bytes!"
        from unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[]) as gap (kind, id, from_version, before_version)
        cross join lateral (
            select id, ctid, type, resource_type, resource_id, resource_version, scope, locations, occurred_at, priority, data
            from outbox
            where outbox.merchant_id = $1
                and outbox.resource_type = gap.kind
                and outbox.resource_id = gap.id
                and outbox.resource_version >= gap.from_version
                and outbox.resource_version < gap.before_version
                and outbox.id <> all($6)
            order by outbox.resource_version
        ) as earlier"#,
        merchant as MerchantId,
        &kinds as &[&str],
        &ids as &[&str],
        &firsts,
        &lasts,
        &known as &[EventId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

struct AudienceRow {
    endpoint: EndpointId,
    app: AppId,
    event_types: Option<Vec<String>>,
    status: String,
    has_url: bool,
    settings: Json<Settings>,
    version: i64,
    is_granted: bool,
    scopes: Option<Vec<String>>,
    locations: Option<Vec<LocationId>>,
    personal_data: Option<bool>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// All endpoints of a merchant, with what they may see at `now`.
pub(super) async fn audience(
    tx: &mut PgConnection,
    merchant: MerchantId,
    filters: &Filters,
    now: Timestamp,
) -> Result<Vec<Audience>, Error> {
    let rows = sqlx::query_as!(
        AudienceRow,
        r#"select
            endpoints.id as "endpoint: EndpointId",
            endpoints.app_id as "app: AppId",
            endpoints.event_types,
            endpoints.status,
            endpoints.url is not null as "has_url!",
            endpoints.settings as "settings: Json<Settings>",
            endpoints.version,
            endpoints.grant_id is not null as "is_granted!",
            grants.scopes as "scopes?",
            grants.locations as "locations?: Vec<LocationId>",
            grants.personal_data as "personal_data?",
            grants.expires_at,
            grants.revoked_at
        from endpoints
        left join grants
            on grants.id = endpoints.grant_id
        where endpoints.merchant_id = $1"#,
        merchant as MerchantId,
    )
    .fetch_all(tx)
    .await?;
    let audience = rows.into_iter().map(|row| Audience {
        endpoint: row.endpoint,
        app: row.app,
        of_merchant: !row.is_granted,
        filter: filters.get(
            row.endpoint,
            row.version,
            row.event_types.as_deref(),
            row.settings.filter.as_deref(),
        ),
        outlet: if row.status == Status::Enabled.as_str() {
            Outlet::of(row.has_url, &row.settings)
        } else {
            Outlet::Read
        },
        is_ordered: row.settings.delivery.ordering == Ordering::Resource,
        takes_bulk: row.settings.delivery.imports == Imports::Each,
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
    Ok(audience.collect())
}

/// What becomes by now of the events of those of these endpoints that are enabled.
pub(super) async fn outlets(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoints: &[EndpointId],
) -> Result<HashMap<EndpointId, Outlet>, Error> {
    let enabled = sqlx::query!(
        r#"select
            id as "id: EndpointId",
            url is not null as "has_url!",
            settings as "settings: Json<Settings>"
        from endpoints
        where merchant_id = $1
            and id = any($2)
            and status = 'enabled'"#,
        merchant as MerchantId,
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    let outlets = enabled
        .into_iter()
        .map(|row| (row.id, Outlet::of(row.has_url, &row.settings)));
    Ok(outlets.collect())
}

/// The data of these events in the outbox.
pub(super) async fn data(
    tx: &mut PgConnection,
    merchant: MerchantId,
    events: &[&Pending],
) -> Result<HashMap<EventId, Box<RawValue>>, Error> {
    let places: Vec<&str> = events.iter().map(|event| &*event.place).collect();
    let rows = sqlx::query!(
        r#"select found.id as "id: EventId", found.data as "data: Json<Box<RawValue>>"
        from unnest($2::text[]::tid[]) as event (place)
        cross join lateral (
            select id, data
            from outbox
            where outbox.merchant_id = $1
                and outbox.ctid = event.place
            limit 1
        ) as found"#,
        merchant as MerchantId,
        &places as &[&str],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.data.0)).collect())
}

/// Moves these events from the outbox to the history, under these numbers of the feed. Their data never leaves the database.
///
/// By where they lie: a plan that finds them by their ids, made while the outbox was short, would read all of a long one.
pub(super) async fn move_events(
    tx: &mut PgConnection,
    merchant: MerchantId,
    events: &[Pending],
    numbers: &[i64],
) -> Result<(), Error> {
    let places: Vec<&str> = events.iter().map(|event| &*event.place).collect();
    sqlx::query!(
        "insert into events
            (merchant_id, id, feed_number, type, resource_type, resource_id, resource_version, scope, locations, data, subject_id,
             personal, request_id, occurred_at, trace_parent)
        select moved.merchant_id, moved.id, numbered.feed_number, moved.type, moved.resource_type, moved.resource_id, moved.resource_version,
            moved.scope, moved.locations, moved.data, moved.subject_id, moved.personal, moved.request_id, moved.occurred_at, moved.trace_parent
        from unnest($2::text[]::tid[], $3::bigint[]) as numbered (place, feed_number)
        cross join lateral (
            select merchant_id, id, type, resource_type, resource_id, resource_version, scope, locations, data, subject_id, personal, request_id,
                occurred_at, trace_parent
            from outbox
            where outbox.merchant_id = $1
                and outbox.ctid = numbered.place
            limit 1
        ) as moved",
        merchant as MerchantId,
        &places as &[&str],
        numbers,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from outbox
        where ctid = any (array (
            select found.ctid
            from unnest($2::text[]::tid[]) as moved (place)
            cross join lateral (
                select ctid
                from outbox
                where outbox.merchant_id = $1
                    and outbox.ctid = moved.place
                limit 1
            ) as found
        ))",
        merchant as MerchantId,
        &places as &[&str],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks the cursors of these endpoints, in an order that all relays share, and gives their last sequences.
pub(super) async fn lock_cursors(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoints: &[EndpointId],
) -> Result<Vec<(EndpointId, i64)>, Error> {
    let rows = sqlx::query!(
        r#"select endpoint_id as "endpoint_id: EndpointId", last_sequence
        from endpoint_cursors
        where merchant_id = $1
            and endpoint_id = any($2)
        order by endpoint_id
        for update"#,
        merchant as MerchantId,
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.endpoint_id, row.last_sequence))
        .collect())
}

pub(super) async fn advance_cursors(
    tx: &mut PgConnection,
    merchant: MerchantId,
    interests: &[Interest<'_>],
    cursors: &HashMap<EndpointId, i64>,
) -> Result<(), Error> {
    let mut endpoints: Vec<EndpointId> = Vec::with_capacity(interests.len());
    let mut sequences: Vec<i64> = Vec::with_capacity(interests.len());
    for interest in interests {
        let Some(last) = cursors.get(&interest.endpoint) else {
            continue;
        };
        endpoints.push(interest.endpoint);
        sequences
            .push(last.saturating_add(i64::try_from(interest.events.len()).unwrap_or(i64::MAX)));
    }
    sqlx::query!(
        "update endpoint_cursors
        set last_sequence = advanced.last_sequence
        from unnest($2::uuid[], $3::bigint[]) as advanced (endpoint_id, last_sequence)
        where endpoint_cursors.merchant_id = $1
            and endpoint_cursors.endpoint_id = advanced.endpoint_id",
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &sequences,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The primary key lets an event into a stream once: a second time is a fault that must not be passed over.
pub(super) async fn insert_streams(
    tx: &mut PgConnection,
    merchant: MerchantId,
    entries: &[Entry],
) -> Result<(), Error> {
    let endpoints: Vec<EndpointId> = entries.iter().map(|entry| entry.endpoint).collect();
    let events: Vec<EventId> = entries.iter().map(|entry| entry.event).collect();
    let sequences: Vec<i64> = entries.iter().map(|entry| entry.sequence).collect();
    sqlx::query!(
        "insert into streams (merchant_id, endpoint_id, event_id, sequence)
        select $1, endpoint_id, event_id, sequence
        from unnest($2::uuid[], $3::uuid[], $4::bigint[]) as entry (endpoint_id, event_id, sequence)
        returning sequence",
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &events as &[EventId],
        &sequences,
    )
    .fetch_all(tx)
    .await?;
    Ok(())
}

/// Queues deliveries, and gives what waits of their ordered resources at a lower priority the same one: it has to go first. Says on whose queues that was.
pub(super) async fn insert_deliveries(
    tx: &mut PgConnection,
    merchant: MerchantId,
    entries: &[Entry],
    now: Timestamp,
) -> Result<Vec<EndpointId>, Error> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints: Vec<EndpointId> = entries.iter().map(|entry| entry.endpoint).collect();
    let events: Vec<EventId> = entries.iter().map(|entry| entry.event).collect();
    let sequences: Vec<i64> = entries.iter().map(|entry| entry.sequence).collect();
    let priorities: Vec<i16> = entries.iter().map(|entry| entry.priority).collect();
    let resources: Vec<Option<i64>> = entries.iter().map(|entry| entry.resource_key).collect();
    let bytes: Vec<i32> = entries.iter().map(|entry| entry.data_bytes).collect();
    sqlx::query!(
        "insert into deliveries
            (merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, created_at, priority, resource_key, data_bytes)
        select $1, endpoint_id, sequence, event_id, 0, $5, $5, priority, resource_key, data_bytes
        from unnest($2::uuid[], $3::uuid[], $4::bigint[], $6::smallint[], $7::bigint[], $8::integer[])
            as entry (endpoint_id, event_id, sequence, priority, resource_key, data_bytes)
        returning sequence",
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &events as &[EventId],
        &sequences,
        now as Timestamp,
        &priorities,
        &resources as &[Option<i64>],
        &bytes,
    )
    .fetch_all(&mut *tx)
    .await?;
    let urgent: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.priority == 0 && entry.resource_key.is_some())
        .collect();
    if urgent.is_empty() {
        return Ok(Vec::new());
    }
    let endpoints: Vec<EndpointId> = urgent.iter().map(|entry| entry.endpoint).collect();
    let resources: Vec<Option<i64>> = urgent.iter().map(|entry| entry.resource_key).collect();
    let mut hurried = sqlx::query_scalar!(
        r#"update deliveries
        set priority = 0
        from unnest($2::uuid[], $3::bigint[]) as urgent (endpoint_id, resource_key)
        where deliveries.merchant_id = $1
            and deliveries.endpoint_id = urgent.endpoint_id
            and deliveries.resource_key = urgent.resource_key
            and deliveries.priority = 1
        returning deliveries.endpoint_id as "endpoint: EndpointId""#,
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &resources as &[Option<i64>],
    )
    .fetch_all(tx)
    .await?;
    hurried.dedup();
    Ok(hurried)
}

/// Makes lanes due, and raises their signals so that no owner lets go of one without having seen what was added. What was added to them is due at `now` or
/// later, except for those in `unordered`.
pub(crate) async fn raise_lanes(
    tx: &mut PgConnection,
    endpoints: &[EndpointId],
    unordered: &[EndpointId],
    now: Timestamp,
) -> Result<(), Error> {
    if endpoints.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with locked as (
            select endpoint_id
            from lanes
            where endpoint_id = any($1)
            order by endpoint_id
            for no key update
        )
        update lanes
        set due_at = least(lanes.due_at, greatest(lanes.rest_until, $2)),
            signal = lanes.signal + 1,
            added_at = greatest(lanes.added_at, $2),
            unordered_signal = case
                when $2 <= lanes.added_at or lanes.endpoint_id = any($3) then lanes.signal + 1
                else lanes.unordered_signal
            end
        from locked
        where lanes.endpoint_id = locked.endpoint_id",
        endpoints as &[EndpointId],
        now as Timestamp,
        unordered as &[EndpointId],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes the hints that other processes have left. One that is just being written is passed over: its writer notifies again.
pub(super) async fn take_hints(database: &Database) -> Result<Vec<(MerchantId, Start)>, Error> {
    let mut tx = database.begin().await?;
    let rows = sqlx::query!(
        r#"with taken as (
            select merchant_id
            from relay_hints
            for update skip locked
        )
        delete from relay_hints
        using taken
        where relay_hints.merchant_id = taken.merchant_id
        returning relay_hints.merchant_id as "merchant: MerchantId", relay_hints.since as "since: Timestamp""#,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let hinted = rows.into_iter().map(|row| {
        let start = row.since.map_or(Start::BEGINNING, Start::since);
        (row.merchant, start)
    });
    Ok(hinted.collect())
}

/// Merchants with events in the outbox, each with the first of them. The index is asked for the first event behind each merchant, so that no backlog is read
/// through.
pub(crate) async fn first_waiting(
    tx: &mut PgConnection,
    merchants_max: i64,
) -> Result<Vec<(MerchantId, EventId)>, Error> {
    let rows = sqlx::query!(
        r#"with recursive waiting as (
            (select merchant_id, id
            from outbox
            order by merchant_id, id
            limit 1)
            union all
            select next.merchant_id, next.id
            from waiting
            cross join lateral (
                select merchant_id, id
                from outbox
                where outbox.merchant_id > waiting.merchant_id
                order by merchant_id, id
                limit 1
            ) as next
        )
        select merchant_id as "merchant!: MerchantId", id as "first!: EventId"
        from waiting
        limit $1"#,
        merchants_max,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.merchant, row.first))
        .collect())
}
