//! Deliveries, found by event, by resource and by where they stand.

use std::collections::{HashMap, HashSet};

use kernel::{
    actor::Actor,
    clock::Timestamp,
    id::EventId,
    page::{self, Page, PageRequest},
    scope::Scope,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    AttemptOutcome, AttemptSummary, Delivery, DeliveryKey, DeliveryState, EventSummary,
    store::{self, Buried, Found, Of, Queued, Tried},
};
use crate::{
    endpoint::{self, EndpointId, Visible},
    error::Error,
    event::{self, Event, Receiver, WITHHELD},
};

/// Deliveries that a page with a state asked for looks through at most, to find those that are in it. What is further back is for the next page.
const SCANNED_DELIVERIES_MAX: i64 = 1_000;

/// Events that a page looks through at most where neither event, resource nor endpoint is named.
const SCANNED_EVENTS_MAX: i64 = 1_000;

/// Which deliveries are looked for. What is absent does not limit it.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Those of this event.
    pub event: Option<EventId>,
    /// Those of what happened to this resource: its type and its id.
    pub resource: Option<(String, String)>,
    /// Those to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Those that stand there.
    pub state: Option<DeliveryState>,
}

/// Deliveries to the endpoints that the actor sees: of an event in the order of endpoints, of a resource by its newest version first, of an endpoint by
/// the newest number first, and of all by the newest event first.
///
/// A page may be short, or empty, and still have a cursor: it has looked through [`SCANNED_DELIVERIES_MAX`] for a state, or through
/// [`SCANNED_EVENTS_MAX`] events for any at all.
pub async fn search(
    tx: &mut PgConnection,
    actor: &Actor,
    filter: &DeliveryFilter,
    request: &PageRequest<DeliveryKey>,
    now: Timestamp,
) -> Result<Page<Delivery>, Error> {
    actor.access.require(Scope::WebhooksRead)?;
    if let Some(endpoint) = filter.endpoint
        && endpoint::store::find(&mut *tx, Visible::to(actor), endpoint)
            .await?
            .is_none()
    {
        // Another app's is not there, and to it nothing was sent.
        return Ok(Page {
            data: Vec::new(),
            next_cursor: None,
        });
    }
    let looked_max = match filter.state {
        Some(_) => SCANNED_DELIVERIES_MAX,
        None => request.fetch_count(),
    };
    let Looked { found, next } = find(&mut *tx, actor, filter, request.after, looked_max).await?;
    let hydrated = hydrate(&mut *tx, actor, &found, now).await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let mut data = Vec::new();
    let mut last = None;
    let mut is_full = false;
    for one in &found {
        let delivery = hydrated.delivery(*one);
        // What the receiver may no longer see is not found by what it is about.
        let wanted = filter.state.is_none_or(|state| state == delivery.state)
            && (filter.resource.is_none() || delivery.event.kind != WITHHELD);
        if wanted && data.len() >= limit {
            is_full = true;
            break;
        }
        last = Some(one.key);
        if wanted {
            data.push(delivery);
        }
    }
    // A full page goes on after its last row, any other where looking has stopped.
    let next = if is_full { last } else { next };
    Ok(Page {
        data,
        next_cursor: next.map(|key| page::encode(&key)),
    })
}

/// What was found, and after what there may be more.
struct Looked {
    found: Vec<Found>,
    next: Option<DeliveryKey>,
}

impl Looked {
    fn up_to(found: Vec<Found>, limit: i64) -> Self {
        let more = i64::try_from(found.len()).unwrap_or(i64::MAX) >= limit;
        let next = found.last().map(|last| last.key).filter(|_| more);
        Self { found, next }
    }
}

async fn find(
    tx: &mut PgConnection,
    actor: &Actor,
    filter: &DeliveryFilter,
    after: Option<DeliveryKey>,
    limit: i64,
) -> Result<Looked, Error> {
    let visible = Visible::to(actor);
    let merchant = actor.merchant;
    if let Some(event) = filter.event {
        if let Some((kind, id)) = &filter.resource {
            // An event is about one resource: either all of them are of it, or none is.
            let events = event::select(&mut *tx, &[merchant], &[event]).await?;
            let is_of_it = events
                .get(&event)
                .is_some_and(|event| event.resource.kind == *kind && event.resource.id == *id);
            if !is_of_it {
                return Ok(Looked::up_to(Vec::new(), limit));
            }
        }
        let found = store::by_event(tx, visible, filter.endpoint, event, after, limit).await?;
        return Ok(Looked::up_to(found, limit));
    }
    if let Some((kind, id)) = &filter.resource {
        let found =
            store::by_resource(tx, visible, filter.endpoint, (kind, id), after, limit).await?;
        return Ok(Looked::up_to(found, limit));
    }
    let Some(endpoint) = filter.endpoint else {
        return among_the_newest(tx, visible, after, limit).await;
    };
    let before = after.map_or(i64::MAX, |key| key.number);
    let found = match filter.state {
        Some(DeliveryState::Pending | DeliveryState::Retrying) => {
            store::by_queue(tx, merchant, endpoint, before, limit).await?
        }
        Some(DeliveryState::Dead) => {
            store::by_dead_letter(tx, merchant, endpoint, before, limit).await?
        }
        Some(DeliveryState::Delivered | DeliveryState::NotSent) | None => {
            store::by_stream(tx, merchant, endpoint, before, limit).await?
        }
    };
    Ok(Looked::up_to(found, limit))
}

/// Deliveries of the merchant's newest events.
async fn among_the_newest(
    tx: &mut PgConnection,
    visible: Visible,
    after: Option<DeliveryKey>,
    limit: i64,
) -> Result<Looked, Error> {
    let after = after.map(|key| (key.event, key.endpoint));
    let from = after.map_or(EventId::from_uuid(Uuid::max()), |(event, _)| event);
    let events = store::newest_events(&mut *tx, visible.merchant, from, SCANNED_EVENTS_MAX).await?;
    let looked = Looked::up_to(
        store::of_events(tx, visible, &events, after, limit).await?,
        limit,
    );
    let all_were_looked_at = i64::try_from(events.len()).unwrap_or(i64::MAX) < SCANNED_EVENTS_MAX;
    let last = events.last().filter(|_| !all_were_looked_at);
    Ok(Looked {
        next: looked.next.or_else(|| {
            last.map(|event| DeliveryKey {
                number: 0,
                // Before all others of this event: none of it is shown again.
                endpoint: EndpointId::from_uuid(Uuid::nil()),
                event: *event,
            })
        }),
        ..looked
    })
}

/// What is known of some deliveries.
#[derive(Debug)]
pub(super) struct Hydrated {
    pub(super) events: HashMap<EventId, Event>,
    pub(super) receivers: HashMap<EndpointId, Receiver>,
    pub(super) queued: Of<Queued>,
    tried: Of<Tried>,
    pub(super) buried: Of<Vec<Buried>>,
}

pub(super) async fn hydrate(
    tx: &mut PgConnection,
    actor: &Actor,
    found: &[Found],
    now: Timestamp,
) -> Result<Hydrated, Error> {
    let merchant = actor.merchant;
    let ids: HashSet<EventId> = found.iter().map(|found| found.key.event).collect();
    let ids: Vec<EventId> = ids.into_iter().collect();
    let mut events = event::select(&mut *tx, &[merchant], &ids).await?;
    let forgotten: Vec<Found> = found
        .iter()
        .filter(|found| !events.contains_key(&found.key.event))
        .copied()
        .collect();
    if !forgotten.is_empty() {
        events.extend(store::buried_events(&mut *tx, merchant, &forgotten).await?);
    }
    let endpoints: HashSet<EndpointId> = found.iter().map(|found| found.key.endpoint).collect();
    let endpoints: Vec<EndpointId> = endpoints.into_iter().collect();
    let receivers = store::receivers(&mut *tx, merchant, &endpoints, now).await?;
    Ok(Hydrated {
        events,
        receivers: receivers
            .into_iter()
            .map(|(endpoint, receiver)| (endpoint, receiver.read_by(&actor.access)))
            .collect(),
        queued: store::queued(&mut *tx, merchant, found).await?,
        tried: store::tried(&mut *tx, merchant, found).await?,
        buried: store::buried(tx, merchant, found).await?,
    })
}

impl Hydrated {
    pub(super) fn delivery(&self, found: Found) -> Delivery {
        let DeliveryKey {
            endpoint, event, ..
        } = found.key;
        let place = (endpoint, found.sequence);
        let (queued, tried, buried) = (
            self.queued.get(&place),
            self.tried.get(&place),
            self.buried.get(&place),
        );
        Delivery {
            endpoint_id: endpoint,
            sequence: found.sequence,
            event: self.summary(endpoint, event),
            state: DeliveryState::of(queued, tried, buried),
            attempt_count: tried.map_or(0, |tried| tried.count),
            next_attempt_at: queued.map(|queued| queued.due_at),
            last_attempt: tried.map(|tried| AttemptSummary {
                id: tried.last,
                started_at: tried.last_at,
                outcome: AttemptOutcome::of(tried.last_status),
                status: tried.last_status,
                error: tried.last_error.clone(),
            }),
            dead_letter_id: buried.and_then(|buried| buried.last()).map(|last| last.id),
        }
    }

    /// The event as the endpoint's owner may see it now, as far as the actor may too.
    fn summary(&self, endpoint: EndpointId, id: EventId) -> EventSummary {
        let event = self.events.get(&id);
        let seen = event.filter(|event| {
            let receiver = self.receivers.get(&endpoint);
            receiver.is_some_and(|receiver| receiver.may_see(&event.scope, &event.locations))
        });
        EventSummary {
            id,
            kind: seen.map_or_else(|| WITHHELD.to_owned(), |event| event.kind.clone()),
            resource: seen.map(|event| event.resource.clone()),
            occurred_at: event.map(|event| event.occurred_at),
        }
    }
}
