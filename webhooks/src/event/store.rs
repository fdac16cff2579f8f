//! The statements that read events.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{DataSubjectId, EventId, LocationId, MerchantId, RequestId},
    keyring::{self, Keyring},
    personal,
};
use serde_json::{Value, value::RawValue};
use sqlx::{PgConnection, types::Json};

use super::{Event, Resource, Sealed};

/// The events of these merchants with these ids; those that retention has dropped are missing.
pub(crate) async fn select(
    tx: &mut PgConnection,
    merchants: &[MerchantId],
    ids: &[EventId],
) -> Result<HashMap<EventId, Event>, Error> {
    let rows = sqlx::query!(
        r#"select
            id as "id: EventId",
            type as kind,
            resource_type,
            resource_id,
            resource_version,
            scope,
            locations as "locations: Vec<LocationId>",
            data as "data: Json<Box<RawValue>>",
            subject_id as "subject_id: DataSubjectId",
            personal,
            request_id as "request_id: RequestId",
            occurred_at as "occurred_at: Timestamp",
            trace_parent
        from events
        where merchant_id = any($1)
            and id = any($2)"#,
        merchants as &[MerchantId],
        ids as &[EventId],
    )
    .fetch_all(tx)
    .await?;
    let events = rows.into_iter().map(|row| Event {
        id: row.id,
        kind: row.kind,
        resource: Resource {
            kind: row.resource_type,
            id: row.resource_id,
            version: row.resource_version,
        },
        scope: row.scope,
        locations: row.locations,
        data: row.data.0,
        request: row.request_id,
        occurred_at: row.occurred_at,
        personal: row
            .subject_id
            .zip(row.personal)
            .map(|(subject, bytes)| Sealed { subject, bytes }),
        trace_parent: row.trace_parent,
    });
    Ok(events.map(|event| (event.id, event)).collect())
}

/// Opens the personal parts of these events of one merchant. A subject who was erased has none.
pub(crate) async fn select_personal<'e>(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    events: impl Iterator<Item = &'e Event>,
) -> Result<HashMap<EventId, Value>, keyring::Error> {
    let sealed: Vec<(EventId, &Sealed)> = events
        .filter_map(|event| Some((event.id, event.personal.as_ref()?)))
        .collect();
    let subjects: Vec<DataSubjectId> = sealed.iter().map(|(_, sealed)| sealed.subject).collect();
    let keys = personal::keys(tx, keyring, merchant, &subjects).await?;
    let mut opened = HashMap::new();
    for (id, sealed) in sealed {
        let Some(key) = keys.get(&sealed.subject) else {
            continue;
        };
        let plain = key.open(kernel::event::PERSONAL_CONTEXT, &sealed.bytes)?;
        let value =
            serde_json::from_slice(&plain).map_err(|error| Error::corrupt("events", id, error))?;
        opened.insert(id, value);
    }
    Ok(opened)
}
