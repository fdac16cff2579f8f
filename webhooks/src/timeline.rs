//! What has happened to deliveries: every attempt, and the timeline of one delivery.
//!
//! Called by the edge, for integrators who ask where an event is, and for the people who help them. Read from what the worker and the relay write for
//! their own work: no table is kept for looking at, so that looking costs those who look and not those who deliver.
//!
//! Invariants: an actor sees what was sent to the endpoints that it sees, and of the events no more than the endpoint's owner and its own token may see.
//! No personal data is shown here, to anybody: an attempt's body is rendered again without the personal part of its event, and what receivers have
//! answered was [masked](mask) before it was kept. Every read is bounded, whatever the length of the histories.

use std::collections::{BTreeMap, HashMap, hash_map::Entry as Slot};

use kernel::{actor::Actor, clock::Timestamp, id::EventId};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{
    dead_letter::DeadLetterId,
    delivery::{AttemptId, is_accepted},
    endpoint::{self, EndpointId},
    error::Error,
    event::Resource,
};

mod list;
mod mask;
mod request;
mod search;
mod store;

pub use list::{AttemptFilter, SCANNED_ATTEMPTS_MAX, attempts};
pub use mask::{MASK, mask};
pub use search::{DeliveryFilter, search};

/// What an attempt has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookAttemptOutcome)]
pub enum AttemptOutcome {
    /// The receiver accepted it: any 2xx.
    Succeeded,
    /// It answered otherwise, or not at all.
    Failed,
}

impl AttemptOutcome {
    fn of(status: Option<i32>) -> Self {
        if is_accepted(status) {
            Self::Succeeded
        } else {
            Self::Failed
        }
    }
}

/// One attempt at a delivery, with what it was for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MadeWebhookAttempt)]
pub struct MadeAttempt {
    /// The attempt's id.
    pub id: AttemptId,
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// The event.
    pub event_id: EventId,
    /// The event's number in the endpoint's stream.
    #[schema(example = 4711)]
    pub sequence: i64,
    /// Which attempt it was: 1, 2, 3 …; a replay begins at 1 again.
    pub number: i32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds; of a lease, until it was acknowledged.
    #[schema(example = 87)]
    pub duration_ms: i32,
    /// What it came to.
    pub outcome: AttemptOutcome,
    /// The HTTP status of the answer; null if there was none. 200 for what was leased and acknowledged.
    #[schema(required, example = 503)]
    pub status: Option<i32>,
    /// Why there was no answer: `dns`, `refused_address`, `connect`, `tls`, `authentication`, `timeout`, `protocol`, `transformation` or
    /// `internal`.
    #[schema(required, example = "timeout")]
    pub error: Option<String>,
    /// The beginning of the answer, in which values of the customer's data are replaced by `***`.
    #[schema(required)]
    pub answer_excerpt: Option<String>,
    /// The version of the endpoint that it was made for; null for attempts of before versions were kept.
    #[schema(required, example = 3)]
    pub endpoint_version: Option<i64>,
    /// Bytes of the body that was sent; null if that is not known, and for what was leased.
    #[schema(required, example = 1830)]
    pub request_bytes: Option<i32>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookDeliveryState)]
pub enum DeliveryState {
    /// It is on the queue, and was not tried since it came there.
    Pending,
    /// It was tried, and will be again.
    Retrying,
    /// The receiver has accepted it.
    Delivered,
    /// It was given up on, and is a dead letter.
    Dead,
    /// It is in the stream and was not sent: the endpoint was disabled, or has no URL.
    NotSent,
}

impl DeliveryState {
    fn of(
        queued: Option<&store::Queued>,
        tried: Option<&store::Tried>,
        buried: Option<&Vec<store::Buried>>,
    ) -> Self {
        let accepted_last = tried.is_some_and(|tried| {
            AttemptOutcome::of(tried.last_status) == AttemptOutcome::Succeeded
        });
        match queued {
            Some(queued) if queued.attempt_count == 0 => Self::Pending,
            Some(_) => Self::Retrying,
            None if accepted_last => Self::Delivered,
            None if buried.is_some() => Self::Dead,
            None if tried.is_some_and(|tried| tried.accepted) => Self::Delivered,
            None => Self::NotSent,
        }
    }
}

/// One event on its way to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookDelivery)]
pub struct Delivery {
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// The event's number in the endpoint's stream.
    #[schema(example = 4711)]
    pub sequence: i64,
    /// The event.
    pub event: EventSummary,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts made so far, those before a replay counted too.
    #[schema(example = 2)]
    pub attempt_count: i64,
    /// When it is due; null if it is not on the queue.
    #[schema(required)]
    pub next_attempt_at: Option<Timestamp>,
    /// What the newest attempt came to; null if there was none, or none is kept any more.
    #[schema(required)]
    pub last_attempt: Option<AttemptSummary>,
    /// Its newest dead letter; null if it was never given up on.
    #[schema(required)]
    pub dead_letter_id: Option<DeadLetterId>,
}

/// What an event is, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventSummary {
    /// The event's id.
    pub id: EventId,
    /// What happened; `event.withheld` if you may not see it.
    #[serde(rename = "type")]
    #[schema(example = "order.placed")]
    pub kind: String,
    /// What it happened to; null if withheld, or no longer kept.
    #[schema(required)]
    pub resource: Option<Resource>,
    /// When it happened; null if it is no longer kept.
    #[schema(required)]
    pub occurred_at: Option<Timestamp>,
}

/// What an attempt came to, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookAttemptSummary)]
pub struct AttemptSummary {
    /// The attempt's id.
    pub id: AttemptId,
    /// When it began.
    pub started_at: Timestamp,
    /// What it came to.
    pub outcome: AttemptOutcome,
    /// The HTTP status of the answer; null if there was none.
    #[schema(required, example = 503)]
    pub status: Option<i32>,
    /// Why there was no answer.
    #[schema(required, example = "timeout")]
    pub error: Option<String>,
}

/// By which a list of deliveries goes on. What orders it depends on what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryKey {
    /// A resource's version, or a sequence.
    number: i64,
    endpoint: EndpointId,
    event: EventId,
}

/// A delivery, and all that has happened to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookDeliveryTimeline)]
pub struct Timeline {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// What has happened, and what is to come, in the order of time.
    pub timeline: Vec<Entry>,
}

/// Something that happened to a delivery, or will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookDeliveryTimelineEntry)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// The attempt, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<MadeAttempt>,
    /// What the attempt sent, as it is rendered again; absent if the event is no longer kept, and if it was leased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<SentRequest>,
    /// The dead letter, where it was made or replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_id: Option<DeadLetterId>,
    /// Why it was given up on, where it was: `attempts_exhausted` or `endpoint_gone`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "attempts_exhausted")]
    pub reason: Option<String>,
}

/// What happens to a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookDeliveryTimelineEntryType)]
pub enum EntryKind {
    /// The event happened.
    Occurred,
    /// It was put on the queue, where it still is.
    Queued,
    /// It was sent.
    Attempt,
    /// It was given up on.
    DeadLetter,
    /// Its dead letter was put on the queue again.
    Replayed,
    /// It is due.
    Due,
}

/// What an attempt sent: rendered again from the event and the endpoint as it was, without secrets and without personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SentWebhookRequest)]
pub struct SentRequest {
    /// Where it went; null if that version of the endpoint is not kept.
    #[schema(required, example = "https://erp.example.com/stoa")]
    pub url: Option<String>,
    /// Its headers; of signatures, credentials and headers of the endpoint's own, only that they were there.
    #[schema(value_type = Object, example = json!({"content-type": "application/json", "webhook-id": "evt_01jd3x5k8vfm7b2c9q0r4t6w8y", "webhook-signature": "***"}))]
    pub headers: BTreeMap<String, String>,
    /// The beginning of its body, uncompressed, with the event as you may see it now.
    #[schema(example = "{\"id\":\"evt_01jd3x5k8vfm7b2c9q0r4t6w8y\",\"type\":\"order.placed\"")]
    pub body_excerpt: String,
    /// Whether it went as one of several events in one request: here it is alone.
    pub is_batch: bool,
    /// Whether the event has a personal part, such as a customer's name and address. The receiver may have been sent it; here it is left out.
    pub has_personal_part: bool,
}

/// One delivery of an endpoint that the actor sees, and its timeline.
pub async fn get(
    tx: &mut PgConnection,
    actor: &Actor,
    endpoint: EndpointId,
    sequence: i64,
    now: Timestamp,
) -> Result<Timeline, Error> {
    endpoint::get(&mut *tx, actor, endpoint).await?;
    let merchant = actor.merchant;
    let found = store::by_sequence(&mut *tx, merchant, endpoint, sequence)
        .await?
        .ok_or(Error::SequenceNotFound(sequence))?;
    let hydrated = search::hydrate(&mut *tx, actor, &[found], now).await?;
    let place = (endpoint, sequence);
    let delivery = hydrated.delivery(found);
    let event = hydrated.events.get(&found.key.event);
    let attempts = list::attempts_of(&mut *tx, merchant, found).await?;
    let numbers: Vec<i64> = attempts
        .iter()
        .filter_map(|attempt| attempt.endpoint_version)
        .collect();
    let versions = store::versions(tx, merchant, endpoint, &numbers).await?;

    let mut timeline = Vec::new();
    if let Some(event) = event {
        timeline.push(Entry::new(event.occurred_at, EntryKind::Occurred));
    }
    // Rendered once for each version of the endpoint, however many attempts there were.
    let mut sent: HashMap<Option<i64>, request::Sent> = HashMap::new();
    for attempt in attempts {
        let version = attempt.endpoint_version;
        if let (Some(event), Some(receiver), Slot::Vacant(vacant)) = (
            event,
            hydrated.receivers.get(&endpoint),
            sent.entry(version),
        ) {
            let unknown = store::Version::default();
            let version = version.and_then(|version| versions.get(&version));
            let version = version.unwrap_or(&unknown);
            vacant.insert(request::Sent::render(
                merchant, event, sequence, receiver, version,
            )?);
        }
        let known = version.and_then(|version| versions.get(&version));
        // What is leased is not posted.
        let is_posted = known.is_none_or(|version| version.url.is_some());
        let request = sent
            .get(&version)
            .filter(|_| is_posted)
            .map(|sent| sent.at(&attempt));
        timeline.push(Entry {
            request,
            attempt: Some(attempt.clone()),
            ..Entry::new(attempt.started_at, EntryKind::Attempt)
        });
    }
    for buried in hydrated.buried.get(&place).into_iter().flatten() {
        let of_dead_letter = |at, kind| Entry {
            dead_letter_id: Some(buried.id),
            ..Entry::new(at, kind)
        };
        timeline.push(Entry {
            reason: Some(buried.reason.clone()),
            ..of_dead_letter(buried.created_at, EntryKind::DeadLetter)
        });
        if let Some(replayed_at) = buried.replayed_at {
            timeline.push(of_dead_letter(replayed_at, EntryKind::Replayed));
        }
    }
    if let Some(queued) = hydrated.queued.get(&place) {
        timeline.push(Entry::new(queued.created_at, EntryKind::Queued));
        timeline.push(Entry::new(queued.due_at, EntryKind::Due));
    }
    timeline.sort_by_key(|entry| (entry.at, entry.kind));
    Ok(Timeline { delivery, timeline })
}

impl Entry {
    const fn new(at: Timestamp, kind: EntryKind) -> Self {
        Self {
            at,
            kind,
            attempt: None,
            request: None,
            dead_letter_id: None,
            reason: None,
        }
    }
}
