//! The outbox: events are rows, written with the change that they tell of.
//!
//! A domain function appends in its own transaction; nothing is announced that was not committed, and nothing committed stays
//! unannounced. After the commit the edge calls [`Announcer::announce`], which wakes the relay of this process, or leaves a hint for another
//! one. That is for speed alone: the relay's sweep finds whatever a crash kept from being announced.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::{
    clock::Timestamp,
    db::{Database, Error},
    id::{DataSubjectId, EventId, LocationId, MerchantId, RequestId},
    scope::Scope,
};

mod store;

/// An event to append.
#[derive(Debug)]
pub struct NewEvent {
    /// `order.placed`.
    pub kind: &'static str,
    /// What it happened to.
    pub resource: ResourceRef,
    /// The scope that a receiver needs.
    pub scope: Scope,
    /// The locations that it touches; none: any receiver with the scope may know.
    pub locations: Vec<LocationId>,
    /// The resource as the API shows it, without personal data.
    pub data: Box<RawValue>,
    /// The personal part of `data`.
    pub personal: Option<SealedPersonal>,
}

/// How urgently an event is passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Normal,
    /// One of many, such as an import's: it waits for all others.
    Bulk,
}

impl Priority {
    /// The number that tables hold; the smaller goes first.
    pub const fn number(self) -> i16 {
        match self {
            Self::Normal => 0,
            Self::Bulk => 1,
        }
    }
}

/// A resource at a version.
#[derive(Debug, Clone)]
pub struct ResourceRef {
    /// `order`.
    pub kind: &'static str,
    /// `ord_…`.
    pub id: String,
    /// The version that this change made; orders a resource's events.
    pub version: i64,
}

/// A JSON object to be merged over an event's data for receivers who may see it, sealed under its subject's key in the context
/// [`PERSONAL_CONTEXT`].
#[derive(Debug, Clone)]
pub struct SealedPersonal {
    /// Whose data it is.
    pub subject: DataSubjectId,
    /// The sealed JSON.
    pub sealed: Vec<u8>,
}

/// The context in which the personal part of an event is sealed.
pub const PERSONAL_CONTEXT: &str = "event.personal";

/// Appends events to the outbox of the merchant that the transaction has entered. One statement, however many.
pub async fn append(
    tx: &mut PgConnection,
    merchant: MerchantId,
    request: RequestId,
    now: Timestamp,
    events: &[NewEvent],
) -> Result<Vec<EventId>, Error> {
    let requests = vec![request; events.len()];
    append_for(tx, merchant, &requests, now, events).await
}

/// Appends events of a flood, such as an import's, at [`Priority::Bulk`]: the relay and the deliveries let all others pass. One statement, however many.
pub async fn append_bulk(
    tx: &mut PgConnection,
    merchant: MerchantId,
    request: RequestId,
    now: Timestamp,
    events: &[NewEvent],
) -> Result<Vec<EventId>, Error> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let requests = vec![request; events.len()];
    store::insert(tx, merchant, &requests, now, events, Priority::Bulk).await
}

/// Appends events that several requests of a group have made, each under its own request. One statement, however many.
pub async fn append_for(
    tx: &mut PgConnection,
    merchant: MerchantId,
    requests: &[RequestId],
    now: Timestamp,
    events: &[NewEvent],
) -> Result<Vec<EventId>, Error> {
    debug_assert_eq!(requests.len(), events.len(), "each event has its request");
    if events.is_empty() {
        return Ok(Vec::new());
    }
    store::insert(tx, merchant, requests, now, events, Priority::Normal).await
}

/// Tells the relay which merchants have events waiting, and since when.
#[derive(Debug, Clone, Default)]
pub struct Announcer(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    merchants: Mutex<HashMap<MerchantId, Timestamp>>,
    arrived: Notify,
}

/// The channel of NOTIFY by which one process wakes the relays of others; a hint, never relied on.
pub const RELAY_CHANNEL: &str = "stoa_relay";

impl Announcer {
    /// Says that `merchant` has committed events, none of which was made before `since`: the time that was given to [`append`]. Never waits.
    pub fn announce(&self, merchant: MerchantId, since: Timestamp) {
        self.0
            .merchants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(merchant)
            .and_modify(|earliest| *earliest = since.min(*earliest))
            .or_insert(since);
        self.0.arrived.notify_one();
    }

    /// Waits until somebody has announced, and takes all who have, each with the time before which none of its events was made. For one consumer: the relay, or
    /// [`forward`](Self::forward).
    pub async fn next(&self) -> Vec<(MerchantId, Timestamp)> {
        loop {
            let merchants: Vec<_> = self
                .0
                .merchants
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .drain()
                .collect();
            if !merchants.is_empty() {
                return merchants;
            }
            self.0.arrived.notified().await;
        }
    }

    /// In a process without a relay: turns announcements into hints and one NOTIFY a batch, for as long as it is polled.
    pub async fn forward(&self, database: &Database) {
        loop {
            let announced = self.next().await;
            if let Err(error) = store::hint(database, announced).await {
                // The relay's sweep will find them.
                tracing::warn!(error = %error, "events could not be hinted at");
            }
        }
    }
}
