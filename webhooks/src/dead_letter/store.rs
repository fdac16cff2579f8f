//! The statements of dead letters.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{DataSubjectId, EventId, MerchantId},
};
use sqlx::{PgConnection, types::Json};

use super::{DeadLetterId, Row};
use crate::{
    delivery::{Attempt, Report},
    endpoint::EndpointId,
    event::{Event, Sealed},
    retry::DeadLetterReason,
};

pub(super) async fn insert(
    tx: &mut PgConnection,
    id: DeadLetterId,
    report: &Report,
    reason: DeadLetterReason,
    attempts: &[Attempt],
    now: Timestamp,
) -> Result<(), Error> {
    let personal = report.event.personal.as_ref();
    sqlx::query!(
        "insert into dead_letters
            (merchant_id, id, endpoint_id, sequence, event_id, reason, event, subject_id, personal, attempts, created_at, replayed_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, null)",
        report.lease.merchant as MerchantId,
        id as DeadLetterId,
        report.lease.endpoint as EndpointId,
        report.sequence,
        report.event.id as EventId,
        reason.as_str(),
        Json(&*report.event) as Json<&Event>,
        personal.map(|sealed| sealed.subject) as Option<DataSubjectId>,
        personal.map(|sealed| sealed.bytes.as_slice()),
        Json(attempts) as Json<&[Attempt]>,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct Stored {
    id: DeadLetterId,
    endpoint: EndpointId,
    sequence: i64,
    reason: String,
    event: Json<Event>,
    subject: Option<DataSubjectId>,
    personal: Option<Vec<u8>>,
    attempts: Json<Vec<Attempt>>,
    created_at: Timestamp,
    replayed_at: Option<Timestamp>,
}

impl From<Stored> for Row {
    fn from(stored: Stored) -> Self {
        let personal = stored
            .subject
            .zip(stored.personal)
            .map(|(subject, bytes)| Sealed { subject, bytes });
        Self {
            id: stored.id,
            endpoint: stored.endpoint,
            sequence: stored.sequence,
            reason: stored.reason,
            event: Event {
                personal,
                ..stored.event.0
            },
            attempts: stored.attempts.0,
            created_at: stored.created_at,
            replayed_at: stored.replayed_at,
        }
    }
}

pub(super) async fn find(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: DeadLetterId,
) -> Result<Option<Row>, Error> {
    let stored = sqlx::query_as!(
        Stored,
        r#"select
            id as "id: DeadLetterId",
            endpoint_id as "endpoint: EndpointId",
            sequence,
            reason,
            event as "event: Json<Event>",
            subject_id as "subject: DataSubjectId",
            personal,
            attempts as "attempts: Json<Vec<Attempt>>",
            created_at as "created_at: Timestamp",
            replayed_at as "replayed_at: Timestamp"
        from dead_letters
        where merchant_id = $1
            and id = $2"#,
        merchant as MerchantId,
        id as DeadLetterId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(stored.map(Row::from))
}

pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    before: Option<DeadLetterId>,
    count: i64,
) -> Result<Vec<Row>, Error> {
    let stored = sqlx::query_as!(
        Stored,
        r#"select
            id as "id: DeadLetterId",
            endpoint_id as "endpoint: EndpointId",
            sequence,
            reason,
            event as "event: Json<Event>",
            subject_id as "subject: DataSubjectId",
            personal,
            attempts as "attempts: Json<Vec<Attempt>>",
            created_at as "created_at: Timestamp",
            replayed_at as "replayed_at: Timestamp"
        from dead_letters
        where merchant_id = $1
            and endpoint_id = $2
            and ($3::uuid is null or id < $3)
        order by id desc
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        before as Option<DeadLetterId>,
        count,
    )
    .fetch_all(tx)
    .await?;
    Ok(stored.into_iter().map(Row::from).collect())
}

/// The events of dead letters, for replays of what retention has dropped from the history: of these endpoints, under these numbers.
pub(crate) async fn events(
    tx: &mut PgConnection,
    merchants: &[MerchantId],
    endpoints: &[EndpointId],
    sequences: &[i64],
    events: &[EventId],
) -> Result<HashMap<EventId, Event>, Error> {
    let rows = sqlx::query!(
        r#"select
            event as "event: Json<Event>",
            subject_id as "subject: DataSubjectId",
            personal
        from dead_letters
        where merchant_id = any($1)
            and endpoint_id = any($2)
            and sequence = any($3)
            and event_id = any($4)"#,
        merchants as &[MerchantId],
        endpoints as &[EndpointId],
        sequences,
        events as &[EventId],
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
