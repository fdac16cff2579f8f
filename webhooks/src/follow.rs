//! Following: a stream of an endpoint, or the merchant's feed, read on as it grows. What REST sends as server-sent events and GraphQL as a
//! subscription.
//!
//! Called by the edge, which writes what [`Live::next`] gives to the client. Nothing is read ahead beyond one page, and the next page is read when the
//! client has taken this one: a slow reader costs a page of memory. Whoever waits holds no connection and asks the database nothing; the
//! [hub](crate::hub) wakes them.
//!
//! Invariants: what is given is what the reads by page give ([`crate::stream`], [`crate::feed`]), in the same order, each once, and with
//! its place: reading on from there loses and repeats nothing. Whether the reader may still read is asked before anything is given and
//! several times a second, so that the end of a grant or of a token ends the stream.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use kernel::{
    actor::Actor,
    clock::Clock,
    db::Database,
    keyring::Keyring,
    page::{self, PageRequest},
    problem::{self, Problem},
    scope::Scope,
};
use tokio::time::Instant;

use crate::{
    endpoint::{self, EndpointId},
    error::Error,
    event::Envelope,
    feed,
    hub::{Hub, Subscription},
    metrics::{self, OpenStream},
    stream::{self, StreamRequest},
};

mod seats;

pub use seats::{STREAMS_MAX, STREAMS_PER_APP_MAX, Seat, Seats};

/// Events that are read at once: what a reader holds in memory.
const PAGE_EVENTS: u32 = 32;

/// How often it is asked whether the reader may still read. The view that answers is at most 800 ms behind a change; what is given
/// at all is asked for anew after this time.
const CHECK_EVERY: Duration = Duration::from_millis(150);

/// How often a quiet stream shows that it lives; proxies in between close what is silent for longer than half a minute.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// Looks of one reader are at least this far apart: under a flood of events, each finds several.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Tells whether somebody who was let in may still be served.
pub trait Standing: Send + Sync {
    /// The problem that a new request of theirs would be answered with, if there is one.
    fn check(&self) -> BoxFuture<'_, Result<(), Problem>>;
}

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes after this number of the stream or the feed.
    After(i64),
    /// With what happens from now on.
    Now,
}

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An endpoint's own stream.
    Endpoint(EndpointId),
    /// The merchant's feed, as far as the actor may see it.
    Feed,
}

/// What a followed stream gives.
#[derive(Debug, Clone)]
pub enum Item {
    /// An event, and the place after it.
    Event {
        /// What reading on from here is asked for with: a number of the stream, or a cursor of the feed.
        place: String,
        /// The event.
        event: Box<Envelope>,
    },
    /// Nothing was to be shown, and this is the place: at the beginning, and as a sign of life.
    Place(String),
}

/// What streams are followed with. Clones share their seats.
#[derive(Debug, Clone)]
pub struct Streams {
    /// The API role's database.
    pub database: Database,
    /// Opens personal data for those who may see it.
    pub keyring: Arc<Keyring>,
    /// The clock.
    pub clock: Clock,
    /// Wakes readers.
    pub hub: Hub,
    /// Bounds how many there are.
    pub seats: Seats,
}

impl Streams {
    /// Begins to follow: fails as a read by page would, and if too many streams are open.
    pub async fn follow(
        &self,
        actor: Actor,
        standing: Box<dyn Standing>,
        source: Source,
        start: Start,
    ) -> Result<Live, Error> {
        let scope = match source {
            Source::Endpoint(_) => Scope::WebhooksRead,
            Source::Feed => Scope::EventsRead,
        };
        actor.access.require(scope)?;
        let seat = self.seats.take(&actor)?;
        let mut changes = self.hub.subscribe(actor.merchant);
        changes.mark_seen();
        let after = match start {
            Start::After(after) => after,
            Start::Now => self.newest(&actor, source).await?,
        };
        let now = Instant::now();
        let mut live = Live {
            streams: self.clone(),
            actor,
            standing,
            source,
            changes,
            page: VecDeque::new(),
            more: true,
            after,
            start: Some(after),
            checked_at: now,
            looked_at: now,
            heartbeat_at: now + HEARTBEAT_EVERY,
            has_ended: false,
            _seat: seat,
            _open: metrics::stream_opened(),
        };
        live.read().await?;
        Ok(live)
    }

    /// The newest number, for those who begin now.
    async fn newest(&self, actor: &Actor, source: Source) -> Result<i64, Error> {
        let mut tx = self.database.enter_by_key(actor.merchant).await?;
        let newest = match source {
            Source::Endpoint(id) => {
                endpoint::get(&mut tx, actor, id).await?;
                stream::last_sequence(&mut tx, actor.merchant, id).await?
            }
            Source::Feed => feed::last_number(&mut tx, actor.merchant).await?,
        };
        tx.commit().await?;
        Ok(newest)
    }
}

/// A stream that is followed. Ends when dropped.
pub struct Live {
    streams: Streams,
    actor: Actor,
    standing: Box<dyn Standing>,
    source: Source,
    changes: Subscription,
    /// What was read and not given yet, each with its number.
    page: VecDeque<(i64, Envelope)>,
    /// Whether there is more to read already.
    more: bool,
    /// The number up to which was read.
    after: i64,
    /// Where it began, until the reader was told.
    start: Option<i64>,
    checked_at: Instant,
    looked_at: Instant,
    heartbeat_at: Instant,
    has_ended: bool,
    _seat: Seat,
    _open: OpenStream,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Live")
            .field("source", &self.source)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl Live {
    /// What comes next, for as long as that takes. A problem says why the stream ends, and is the last; then `None`.
    pub async fn next(&mut self) -> Option<Result<Item, Problem>> {
        if self.has_ended {
            return None;
        }
        let next = self.find().await;
        self.has_ended = next.is_err();
        Some(next)
    }

    async fn find(&mut self) -> Result<Item, Problem> {
        loop {
            if self.streams.hub.is_stopped() {
                return Err(stopping());
            }
            if self.checked_at.elapsed() >= CHECK_EVERY {
                self.standing.check().await?;
                self.checked_at = Instant::now();
            }
            if let Some(start) = self.start.take() {
                // Known from the start, so that a reader who loses the connection before the first event comes knows where to go on.
                return Ok(Item::Place(self.place(start)));
            }
            if let Some((number, event)) = self.page.pop_front() {
                self.heartbeat_at = Instant::now() + HEARTBEAT_EVERY;
                return Ok(Item::Event {
                    place: self.place(number),
                    event: Box::new(event),
                });
            }
            if self.more {
                self.read().await?;
                continue;
            }
            let now = Instant::now();
            if now >= self.heartbeat_at {
                self.heartbeat_at = now + HEARTBEAT_EVERY;
                // Whole, so that an endpoint that was deleted meanwhile is noticed.
                self.read().await?;
                if self.page.is_empty() {
                    return Ok(Item::Place(self.place(self.after)));
                }
                continue;
            }
            let wake_at = self.heartbeat_at.min(now + CHECK_EVERY);
            tokio::select! {
                () = self.changes.changed() => self.look().await?,
                () = tokio::time::sleep_until(wake_at) => {}
                () = self.streams.hub.stopped() => {}
            }
        }
    }

    /// Looks whether there is more, by one statement.
    async fn look(&mut self) -> Result<(), Error> {
        tokio::time::sleep_until(self.looked_at + LOOK_EVERY).await;
        self.changes.mark_seen();
        self.looked_at = Instant::now();
        let merchant = self.actor.merchant;
        let mut tx = self.streams.database.enter_by_key(merchant).await?;
        let newest = match self.source {
            Source::Endpoint(id) => stream::last_sequence(&mut tx, merchant, id).await?,
            Source::Feed => feed::last_number(&mut tx, merchant).await?,
        };
        tx.commit().await?;
        self.more = newest > self.after;
        Ok(())
    }

    /// Reads the next page.
    async fn read(&mut self) -> Result<(), Error> {
        let Streams {
            database,
            keyring,
            clock,
            ..
        } = &self.streams;
        let mut tx = database.enter(self.actor.merchant).await?;
        match self.source {
            Source::Endpoint(id) => {
                let request = StreamRequest {
                    after: self.after,
                    limit: PAGE_EVENTS,
                };
                let now = clock.now();
                let read = stream::read(&mut tx, &self.actor, keyring, id, request, now).await?;
                let numbered = read.data.into_iter().filter_map(|event| {
                    let number = event.sequence?;
                    Some((number, event))
                });
                self.page.extend(numbered);
                self.after = read.next_after;
                self.more = read.next_after < read.last_sequence;
            }
            Source::Feed => {
                let request = PageRequest {
                    limit: PAGE_EVENTS,
                    after: Some(self.after),
                };
                let read = feed::read_numbered(&mut tx, &self.actor, keyring, &request).await?;
                self.page.extend(read.data);
                self.after = read.until;
                self.more = read.has_more;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    fn place(&self, number: i64) -> String {
        match self.source {
            Source::Endpoint(_) => number.to_string(),
            Source::Feed => page::encode(&number),
        }
    }
}

/// The place that a text names; `None` if it is none.
pub fn parse_place(source: Source, text: &str) -> Option<i64> {
    match source {
        Source::Endpoint(_) => text.parse().ok(),
        Source::Feed => page::decode(text).ok(),
    }
    .filter(|&number| number >= 0)
}

/// The process ends; another will go on.
fn stopping() -> Problem {
    Problem::new(
        &problem::UNAVAILABLE,
        "This server is stopping. Connect again, and read on from the last event's id.",
    )
}
