//! Dead letters: deliveries that were given up on, each with its event and attempts copied, to be looked at and replayed.
//!
//! Written by the worker's settling transaction; read and replayed by the edge. A replay queues the same event under its original sequence, so
//! that the receiver's stream stays without gaps and its de-duplication by id works.

use std::collections::{HashMap, hash_map::Entry};

use kernel::{
    actor::{Access, Actor},
    clock::Timestamp,
    id::{EventId, Id, Kind},
    idempotency::{Call, Kept, Operation},
    keyring::Keyring,
    page::{Page, PageRequest},
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{
    delivery::{self, Attempt, Report},
    endpoint::{self, EndpointId, Visible},
    error::Error,
    event::{self, Envelope, Event},
    replay,
    retry::DeadLetterReason,
    stream,
};

pub(crate) mod store;

/// The id of a [`DeadLetter`]: `dle_…`.
pub type DeadLetterId = Id<DeadLetter>;

impl Kind for DeadLetter {
    const PREFIX: &'static str = "dle";
}

/// A delivery that was given up on.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The dead letter's id.
    pub id: DeadLetterId,
    /// The endpoint that did not take it.
    pub endpoint_id: EndpointId,
    /// Its number in the endpoint's stream, which a replay keeps.
    pub sequence: i64,
    /// Why it was given up on: `attempts_exhausted` or `endpoint_gone`.
    #[schema(example = "attempts_exhausted")]
    pub reason: String,
    /// The event, as the endpoint's owner may see it now.
    pub event: Envelope,
    /// What was tried, oldest first.
    pub attempts: Vec<Attempt>,
    /// When it was given up on.
    pub created_at: Timestamp,
    /// When it was last replayed.
    #[schema(required)]
    pub replayed_at: Option<Timestamp>,
}

/// A dead letter as the table has it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: DeadLetterId,
    pub(crate) endpoint: EndpointId,
    pub(crate) sequence: i64,
    pub(crate) reason: String,
    pub(crate) event: Event,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) created_at: Timestamp,
    pub(crate) replayed_at: Option<Timestamp>,
}

/// Copies a delivery that is given up on, in the transaction that takes it off the queue.
pub(crate) async fn bury(
    tx: &mut PgConnection,
    report: &Report,
    reason: DeadLetterReason,
    now: Timestamp,
) -> Result<(), Error> {
    let attempts = delivery::attempts(
        &mut *tx,
        report.lease.merchant,
        report.lease.endpoint,
        report.event.id,
        report.sequence,
    )
    .await?;
    store::insert(tx, DeadLetterId::new(now), report, reason, &attempts, now).await?;
    Ok(())
}

/// The dead letters of one endpoint, the newest first.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    keyring: &Keyring,
    endpoint: EndpointId,
    page: &PageRequest<DeadLetterId>,
    now: Timestamp,
) -> Result<Page<DeadLetter>, Error> {
    endpoint::get(&mut *tx, actor, endpoint).await?;
    let rows = store::list(
        &mut *tx,
        actor.merchant,
        endpoint,
        page.after,
        page.fetch_count(),
    )
    .await?;
    let page = Page::from_rows(rows, page, |row| row.id);
    let next_cursor = page.next_cursor;
    Ok(Page {
        data: show(tx, actor, keyring, page.data, now).await?,
        next_cursor,
    })
}

/// One dead letter of an endpoint that the actor sees.
pub async fn get(
    tx: &mut PgConnection,
    actor: &Actor,
    keyring: &Keyring,
    id: DeadLetterId,
    now: Timestamp,
) -> Result<DeadLetter, Error> {
    actor.access.require(Scope::WebhooksRead)?;
    let row = find(&mut *tx, actor, id).await?;
    let shown = show(tx, actor, keyring, vec![row], now).await?;
    shown
        .into_iter()
        .next()
        .ok_or(Error::DeadLetterNotFound(id))
}

async fn find(tx: &mut PgConnection, actor: &Actor, id: DeadLetterId) -> Result<Row, Error> {
    let row = store::find(&mut *tx, actor.merchant, id)
        .await?
        .ok_or(Error::DeadLetterNotFound(id))?;
    let endpoint = endpoint::store::find(tx, Visible::to(actor), row.endpoint).await?;
    // Another app's is not there.
    endpoint.map(|_| row).ok_or(Error::DeadLetterNotFound(id))
}

/// Shows each event as the owner of its endpoint may see it now, as far as the actor may see it too.
async fn show(
    tx: &mut PgConnection,
    actor: &Actor,
    keyring: &Keyring,
    rows: Vec<Row>,
    now: Timestamp,
) -> Result<Vec<DeadLetter>, Error> {
    let mut receivers = HashMap::new();
    for row in &rows {
        if let Entry::Vacant(vacant) = receivers.entry(row.endpoint) {
            vacant.insert(stream::receiver(&mut *tx, actor, row.endpoint, now).await?);
        }
    }
    let wanted = rows.iter().filter(|row| {
        receivers
            .get(&row.endpoint)
            .is_some_and(|receiver| receiver.wants_personal(&row.event))
    });
    let personal = event::select_personal(
        &mut *tx,
        keyring,
        actor.merchant,
        wanted.map(|row| &row.event),
    )
    .await?;
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(receiver) = receivers.get(&row.endpoint) else {
            continue;
        };
        let event = event::envelope(
            &row.event,
            actor.merchant,
            Some(row.sequence),
            receiver,
            personal.get(&row.event.id),
        )?;
        shown.push(DeadLetter {
            id: row.id,
            endpoint_id: row.endpoint,
            sequence: row.sequence,
            reason: row.reason,
            event,
            attempts: row.attempts,
            created_at: row.created_at,
            replayed_at: row.replayed_at,
        });
    }
    Ok(shown)
}

/// Queues a dead letter again: the same event, under the same number, from the first attempt on.
#[derive(Debug)]
pub struct Replay {
    /// The dead letter.
    pub id: DeadLetterId,
}

/// A dead letter that was queued again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replayed {
    /// The dead letter.
    pub dead_letter_id: DeadLetterId,
    /// The endpoint that will be sent it.
    pub endpoint_id: EndpointId,
    /// The number that it keeps.
    pub sequence: i64,
    /// The event.
    pub event_id: EventId,
    /// When it was queued.
    pub replayed_at: Timestamp,
}

impl Kept for Replayed {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::WebhooksRead).is_ok()
    }
}

impl Operation for Replay {
    const NAME: &'static str = "dead_letter.replay";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = DeadLetterId;
    type Output = Replayed;
    type Error = Error;

    fn input(&self) -> &DeadLetterId {
        &self.id
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<Replayed, Error> {
        let row = find(&mut *tx, actor, self.id).await?;
        let endpoint = endpoint::get(&mut *tx, actor, row.endpoint).await?;
        replay::queue_again(tx, actor.merchant, &endpoint, row.sequence, now).await?;
        Ok(Replayed {
            dead_letter_id: row.id,
            endpoint_id: row.endpoint,
            sequence: row.sequence,
            event_id: row.event.id,
            replayed_at: now,
        })
    }
}
