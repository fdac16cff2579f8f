//! The statements that read what has become of deliveries. All of them by an index, and bounded.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, DataSubjectId, EventId, LocationId, MerchantId},
};
use sqlx::{PgConnection, types::Json};

use super::DeliveryKey;
use crate::{
    dead_letter::DeadLetterId,
    delivery::{AttemptId, first_attempt_at},
    endpoint::{EndpointId, Visible, settings::Settings},
    event::{Event, GrantRow, Receiver, Sealed},
};

struct KeyRow {
    number: i64,
    endpoint: EndpointId,
    event: EventId,
    sequence: i64,
}

impl KeyRow {
    fn found(self) -> Found {
        Found {
            key: DeliveryKey {
                number: self.number,
                endpoint: self.endpoint,
                event: self.event,
            },
            sequence: self.sequence,
        }
    }
}

/// A delivery that was found: one number of one endpoint's stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) key: DeliveryKey,
    pub(super) sequence: i64,
}

/// The deliveries of one event to the endpoints that are visible, in the order of these.
pub(super) async fn by_event(
    tx: &mut PgConnection,
    visible: Visible,
    endpoint: Option<EndpointId>,
    event: EventId,
    after: Option<DeliveryKey>,
    limit: i64,
) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select
            0::bigint as "number!",
            streams.endpoint_id as "endpoint: EndpointId",
            streams.event_id as "event: EventId",
            streams.sequence
        from endpoints
        join streams
            on streams.merchant_id = $1
            and streams.endpoint_id = endpoints.id
            and streams.event_id = $4
        where endpoints.merchant_id = $1
            and ($2::uuid is null or endpoints.app_id = $2)
            and ($3::uuid is null or endpoints.id = $3)
            and ($5::uuid is null or endpoints.id > $5)
        order by endpoints.id
        limit $6"#,
        visible.merchant as MerchantId,
        visible.app as Option<AppId>,
        endpoint as Option<EndpointId>,
        event as EventId,
        after.map(|key| key.endpoint) as Option<EndpointId>,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(KeyRow::found).collect())
}

/// The deliveries of what happened to one resource, the newest version first.
pub(super) async fn by_resource(
    tx: &mut PgConnection,
    visible: Visible,
    endpoint: Option<EndpointId>,
    (kind, id): (&str, &str),
    after: Option<DeliveryKey>,
    limit: i64,
) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select
            events.resource_version as number,
            streams.endpoint_id as "endpoint: EndpointId",
            streams.event_id as "event: EventId",
            streams.sequence
        from events
        join endpoints
            on endpoints.merchant_id = $1
            and ($2::uuid is null or endpoints.app_id = $2)
            and ($3::uuid is null or endpoints.id = $3)
        join streams
            on streams.merchant_id = $1
            and streams.endpoint_id = endpoints.id
            and streams.event_id = events.id
        where events.merchant_id = $1
            and events.resource_id = $4
            and events.resource_type = $5
            and ($6::bigint is null or events.resource_version <= $6)
            and ($6::bigint is null or (events.resource_version, events.id, endpoints.id) < ($6, $7, $8))
        order by events.resource_version desc, events.id desc, endpoints.id desc
        limit $9"#,
        visible.merchant as MerchantId,
        visible.app as Option<AppId>,
        endpoint as Option<EndpointId>,
        id,
        kind,
        after.map(|key| key.number),
        after.map(|key| key.event) as Option<EventId>,
        after.map(|key| key.endpoint) as Option<EndpointId>,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(KeyRow::found).collect())
}

/// The newest events of a merchant, from this one on.
pub(super) async fn newest_events(
    tx: &mut PgConnection,
    merchant: MerchantId,
    from: EventId,
    limit: i64,
) -> Result<Vec<EventId>, Error> {
    let events = sqlx::query_scalar!(
        r#"select id as "id: EventId"
        from events
        where merchant_id = $1
            and id <= $2
        order by id desc
        limit $3"#,
        merchant as MerchantId,
        from as EventId,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(events)
}

/// The deliveries of these events to the endpoints that are visible, the newest event first.
pub(super) async fn of_events(
    tx: &mut PgConnection,
    visible: Visible,
    events: &[EventId],
    after: Option<(EventId, EndpointId)>,
    limit: i64,
) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select
            0::bigint as "number!",
            streams.endpoint_id as "endpoint: EndpointId",
            streams.event_id as "event: EventId",
            streams.sequence
        from unnest($3::uuid[]) as newest (id)
        join endpoints
            on endpoints.merchant_id = $1
            and ($2::uuid is null or endpoints.app_id = $2)
        join streams
            on streams.merchant_id = $1
            and streams.endpoint_id = endpoints.id
            and streams.event_id = newest.id
        where $4::uuid is null
            or (newest.id, endpoints.id) < ($4, $5)
        order by newest.id desc, endpoints.id desc
        limit $6"#,
        visible.merchant as MerchantId,
        visible.app as Option<AppId>,
        events as &[EventId],
        after.map(|(event, _)| event) as Option<EventId>,
        after.map(|(_, endpoint)| endpoint) as Option<EndpointId>,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(KeyRow::found).collect())
}

/// What is in one endpoint's stream, the newest first.
pub(super) async fn by_stream(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    before: i64,
    limit: i64,
) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select
            sequence as number,
            endpoint_id as "endpoint: EndpointId",
            event_id as "event: EventId",
            sequence
        from streams
        where merchant_id = $1
            and endpoint_id = $2
            and sequence < $3
        order by sequence desc
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        before,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(KeyRow::found).collect())
}

/// What is on one endpoint's queue, the newest first.
pub(super) async fn by_queue(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    before: i64,
    limit: i64,
) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select
            sequence as number,
            endpoint_id as "endpoint: EndpointId",
            event_id as "event: EventId",
            sequence
        from deliveries
        where merchant_id = $1
            and endpoint_id = $2
            and sequence < $3
        order by sequence desc
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        before,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(KeyRow::found).collect())
}

/// What of one endpoint has dead letters, the newest first.
pub(super) async fn by_dead_letter(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    before: i64,
    limit: i64,
) -> Result<Vec<Found>, Error> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select distinct on (sequence)
            sequence as number,
            endpoint_id as "endpoint: EndpointId",
            event_id as "event: EventId",
            sequence
        from dead_letters
        where merchant_id = $1
            and endpoint_id = $2
            and sequence < $3
        order by sequence desc
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        before,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(KeyRow::found).collect())
}

/// One number of one endpoint's stream; retention may have left it to a dead letter alone.
pub(super) async fn by_sequence(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    sequence: i64,
) -> Result<Option<Found>, Error> {
    let event = sqlx::query_scalar!(
        r#"select event_id as "event!: EventId"
        from streams
        where merchant_id = $1
            and endpoint_id = $2
            and sequence = $3
        union
        select event_id
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
    Ok(event.map(|event| Found {
        key: DeliveryKey {
            number: sequence,
            endpoint,
            event,
        },
        sequence,
    }))
}

/// What is still to be sent of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued {
    pub(super) attempt_count: i32,
    pub(super) due_at: Timestamp,
    pub(super) created_at: Timestamp,
}

/// What has been tried of a delivery.
#[derive(Debug, Clone)]
pub(super) struct Tried {
    pub(super) count: i64,
    pub(super) accepted: bool,
    pub(super) last: AttemptId,
    pub(super) last_at: Timestamp,
    pub(super) last_status: Option<i32>,
    pub(super) last_error: Option<String>,
}

/// That a delivery was given up on.
#[derive(Debug, Clone)]
pub(super) struct Buried {
    pub(super) id: DeadLetterId,
    pub(super) reason: String,
    pub(super) created_at: Timestamp,
    pub(super) replayed_at: Option<Timestamp>,
}

/// By endpoint and sequence.
pub(super) type Of<T> = HashMap<(EndpointId, i64), T>;

fn arrays(found: &[Found]) -> (Vec<EndpointId>, Vec<i64>, Vec<EventId>) {
    (
        found.iter().map(|found| found.key.endpoint).collect(),
        found.iter().map(|found| found.sequence).collect(),
        found.iter().map(|found| found.key.event).collect(),
    )
}

/// Which of these are on the queue.
pub(super) async fn queued(
    tx: &mut PgConnection,
    merchant: MerchantId,
    found: &[Found],
) -> Result<Of<Queued>, Error> {
    let (endpoints, sequences, _) = arrays(found);
    let rows = sqlx::query!(
        r#"select
            deliveries.endpoint_id as "endpoint: EndpointId",
            deliveries.sequence,
            deliveries.attempt_count,
            deliveries.due_at as "due_at: Timestamp",
            deliveries.created_at as "created_at: Timestamp"
        from unnest($2::uuid[], $3::bigint[]) as found (endpoint_id, sequence)
        join deliveries
            on deliveries.merchant_id = $1
            and deliveries.endpoint_id = found.endpoint_id
            and deliveries.sequence = found.sequence"#,
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &sequences,
    )
    .fetch_all(tx)
    .await?;
    let queued = rows.into_iter().map(|row| {
        let queued = Queued {
            attempt_count: row.attempt_count,
            due_at: row.due_at,
            created_at: row.created_at,
        };
        ((row.endpoint, row.sequence), queued)
    });
    Ok(queued.collect())
}

/// What has been tried of these.
pub(super) async fn tried(
    tx: &mut PgConnection,
    merchant: MerchantId,
    found: &[Found],
) -> Result<Of<Tried>, Error> {
    let (endpoints, sequences, events) = arrays(found);
    let Some(first) = events.iter().min() else {
        return Ok(HashMap::new());
    };
    let rows = sqlx::query!(
        r#"select
            found.endpoint_id as "endpoint!: EndpointId",
            found.sequence as "sequence!",
            tried.attempt_count as "attempt_count!",
            tried.accepted as "accepted!",
            tried.id as "last!: AttemptId",
            tried.started_at as "last_at!: Timestamp",
            tried.status as last_status,
            tried.error as last_error
        from unnest($2::uuid[], $3::bigint[], $4::uuid[]) as found (endpoint_id, sequence, event_id)
        cross join lateral (
            select
                count(*) as attempt_count,
                coalesce(bool_or(status between 200 and 299), false) as accepted,
                (array_agg(id order by started_at desc, id desc))[1] as id,
                (array_agg(started_at order by started_at desc, id desc))[1] as started_at,
                (array_agg(status order by started_at desc, id desc))[1] as status,
                (array_agg(error order by started_at desc, id desc))[1] as error
            from stoa_attempts_of($1, found.endpoint_id, found.event_id, found.sequence, $5)
        ) as tried
        where tried.attempt_count > 0"#,
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &sequences,
        &events as &[EventId],
        first_attempt_at(*first) as AttemptId,
    )
    .fetch_all(tx)
    .await?;
    let tried = rows.into_iter().map(|row| {
        let tried = Tried {
            count: row.attempt_count,
            accepted: row.accepted,
            last: row.last,
            last_at: row.last_at,
            last_status: row.last_status,
            last_error: row.last_error,
        };
        ((row.endpoint, row.sequence), tried)
    });
    Ok(tried.collect())
}

/// The dead letters of these, the oldest first.
pub(super) async fn buried(
    tx: &mut PgConnection,
    merchant: MerchantId,
    found: &[Found],
) -> Result<Of<Vec<Buried>>, Error> {
    let (endpoints, sequences, _) = arrays(found);
    let rows = sqlx::query!(
        r#"select
            dead_letters.endpoint_id as "endpoint: EndpointId",
            dead_letters.sequence,
            dead_letters.id as "id: DeadLetterId",
            dead_letters.reason,
            dead_letters.created_at as "created_at: Timestamp",
            dead_letters.replayed_at as "replayed_at: Timestamp"
        from unnest($2::uuid[], $3::bigint[]) as found (endpoint_id, sequence)
        join dead_letters
            on dead_letters.merchant_id = $1
            and dead_letters.endpoint_id = found.endpoint_id
            and dead_letters.sequence = found.sequence
        order by dead_letters.id"#,
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &sequences,
    )
    .fetch_all(tx)
    .await?;
    let mut buried: Of<Vec<Buried>> = HashMap::new();
    for row in rows {
        buried
            .entry((row.endpoint, row.sequence))
            .or_default()
            .push(Buried {
                id: row.id,
                reason: row.reason,
                created_at: row.created_at,
                replayed_at: row.replayed_at,
            });
    }
    Ok(buried)
}

/// The events of these deliveries, as their dead letters have them: for what retention has dropped from the history.
pub(super) async fn buried_events(
    tx: &mut PgConnection,
    merchant: MerchantId,
    found: &[Found],
) -> Result<HashMap<EventId, Event>, Error> {
    let (endpoints, sequences, _) = arrays(found);
    let rows = sqlx::query!(
        r#"select distinct on (dead_letters.event_id)
            dead_letters.event as "event: Json<Event>",
            dead_letters.subject_id as "subject: DataSubjectId",
            dead_letters.personal
        from unnest($2::uuid[], $3::bigint[]) as found (endpoint_id, sequence)
        join dead_letters
            on dead_letters.merchant_id = $1
            and dead_letters.endpoint_id = found.endpoint_id
            and dead_letters.sequence = found.sequence
        order by dead_letters.event_id, dead_letters.id"#,
        merchant as MerchantId,
        &endpoints as &[EndpointId],
        &sequences,
    )
    .fetch_all(tx)
    .await?;
    let events = rows.into_iter().map(|row| {
        let personal = row
            .subject
            .zip(row.personal)
            .map(|(subject, bytes)| Sealed { subject, bytes });
        Event {
            personal,
            ..row.event.0
        }
    });
    Ok(events.map(|event| (event.id, event)).collect())
}

/// What the owners of these endpoints may see at `now`.
pub(super) async fn receivers(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoints: &[EndpointId],
    now: Timestamp,
) -> Result<HashMap<EndpointId, Receiver>, Error> {
    struct Row {
        endpoint: EndpointId,
        is_granted: bool,
        scopes: Option<Vec<String>>,
        locations: Option<Vec<LocationId>>,
        personal_data: Option<bool>,
        expires_at: Option<DateTime<Utc>>,
        revoked_at: Option<DateTime<Utc>>,
    }
    let rows = sqlx::query_as!(
        Row,
        r#"select
            endpoints.id as "endpoint: EndpointId",
            endpoints.grant_id is not null as "is_granted!",
            grants.scopes as "scopes?",
            grants.locations as "locations?: Vec<LocationId>",
            grants.personal_data as "personal_data?",
            grants.expires_at,
            grants.revoked_at
        from endpoints
        left join grants
            on grants.id = endpoints.grant_id
        where endpoints.merchant_id = $1
            and endpoints.id = any($2)"#,
        merchant as MerchantId,
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    let receivers = rows.into_iter().map(|row| {
        let grant = GrantRow {
            is_granted: row.is_granted,
            scopes: row.scopes,
            locations: row.locations,
            personal_data: row.personal_data,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        };
        (row.endpoint, grant.receiver(now))
    });
    Ok(receivers.collect())
}

/// A version of an endpoint: where it went, and how it wanted what it was sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Version {
    pub(super) url: Option<String>,
    pub(super) settings: Settings,
}

/// These versions of an endpoint; those that are not known are missing.
pub(super) async fn versions(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    versions: &[i64],
) -> Result<HashMap<i64, Version>, Error> {
    let rows = sqlx::query!(
        r#"select version, url, settings as "settings: Json<Settings>"
        from endpoint_versions
        where merchant_id = $1
            and endpoint_id = $2
            and version = any($3)"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        versions,
    )
    .fetch_all(tx)
    .await?;
    let versions = rows.into_iter().map(|row| {
        let version = Version {
            url: row.url,
            settings: row.settings.0,
        };
        (row.version, version)
    });
    Ok(versions.collect())
}
