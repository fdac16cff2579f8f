//! Sinks: every merchant's events, for consumers of the operator's own: a stream of NATS JetStream, or an archive in an object store.
//!
//! A [`Follower`] is run by every process with the worker role beside the relay. For each sink that is configured it follows each merchant's feed in the order
//! of its numbers, hands batches to the sink, and advances the merchant's position once the sink has acknowledged: at least once, and never a number left out. What is
//! written is the event as the merchant's own feed shows it with all scopes, without its personal part: personal data never leaves for a sink, because nothing could erase it there.
//!
//! Merchants with news are announced by the relay of this process; a slow sweep over the feeds is the net, for crashes and for relays of other processes.
//!
//! Invariant: one process at a time follows a merchant for a sink. That is a lease in the row of the position, taken and given back by single statements: an advisory lock
//! would have to be held in a connection of its own while the network is waited for. Should a lease run out under a process that has stalled, what it reports changes
//! nothing (the position is advanced by comparing), and what it wrote is a repeat: streams tell those by the event's id, archives by the names of objects.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use kernel::{
    clock::Clock,
    db::{self, Database},
    id::{EventId, MerchantId},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    delivery::OwnerId,
    event::{self, Event, Receiver},
};

mod config;
mod jetstream;
mod object_store;
mod store;

pub use config::{Config, ConfigError, Credentials};

/// Merchants that are followed at once for one sink; none waits for another's slow batch.
const MERCHANTS_AT_ONCE: usize = 4;

/// How long a process has a merchant to itself: longer than a batch may take, so that it runs out only under one that is gone.
const LEASE: Duration = Duration::from_mins(1);

/// How long a sink may take for one batch.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the feeds are swept for merchants of whom nothing was heard. The net, so it may be slow.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Feeds that one statement of a sweep reads.
const SWEEP_FEEDS_MAX: i64 = 1_000;

/// When a merchant whom another process follows is looked at again: it may have read before the news.
const BUSY_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How long a merchant is left alone after a failure; doubled each time up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a sink is left alone after a failure, at most: it may have been of one merchant's batch, for which others should not wait long.
const REST_MAX: Duration = Duration::from_secs(5);

/// A wait without an end, for when there is nothing to wait for.
const FOREVER: Duration = Duration::from_hours(24);

/// What a batch may hold.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Events.
    events: usize,
    /// Bytes of their data; one event is taken in any case.
    bytes: usize,
    /// How long news may wait for more.
    linger: Duration,
}

/// An event in a feed.
#[derive(Debug)]
struct Entry {
    /// The number in the merchant's feed.
    number: i64,
    event: Event,
}

impl Entry {
    fn id(&self) -> EventId {
        self.event.id
    }

    /// The event as the merchant's feed shows it; without its data where a sink can't take that much.
    fn json(&self, merchant: MerchantId, with_data: bool) -> Result<Vec<u8>, serde_json::Error> {
        let mut shown = event::envelope(&self.event, merchant, None, &Receiver::merchant(), None)?;
        shown.data = shown.data.filter(|_| with_data);
        serde_json::to_vec(&shown)
    }
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The stream's server, or what it says.
    #[error("JetStream: {0}")]
    JetStream(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object store.
    #[error("object store: {0}")]
    ObjectStore(#[from] ::object_store::Error),
    /// Compressing.
    #[error("compressing: {0}")]
    Compress(#[from] std::io::Error),
    /// JSON of ours.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Compressing broke off.
    #[error("compressing broke off: {0}")]
    Join(#[from] tokio::task::JoinError),
    /// It took too long.
    #[error("the sink did not answer within {} seconds", WRITE_TIMEOUT.as_secs())]
    Timeout,
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
}

/// Where events go.
#[derive(Debug)]
enum Sink {
    JetStream(Box<jetstream::Stream>),
    ObjectStore(object_store::Archive),
}

impl Sink {
    const fn bounds(&self) -> Bounds {
        match self {
            Self::JetStream(stream) => stream.bounds(),
            Self::ObjectStore(archive) => archive.bounds(),
        }
    }

    /// Writes a batch, in its order; returns once it is safe there.
    async fn write(&self, merchant: MerchantId, batch: Vec<Entry>) -> Result<(), WriteError> {
        let written = async {
            match self {
                Self::JetStream(stream) => stream.write(merchant, &batch).await,
                Self::ObjectStore(archive) => archive.write(merchant, batch).await,
            }
        };
        tokio::time::timeout(WRITE_TIMEOUT, written)
            .await
            .unwrap_or(Err(WriteError::Timeout))
    }
}

/// Follows the merchants' feeds for the sinks that are configured. One per process; clones are the same one.
#[derive(Debug, Clone)]
pub struct Follower {
    database: Database,
    clock: Clock,
    owner: OwnerId,
    lines: Arc<[Line]>,
}

/// One sink, and the merchants with news for it.
#[derive(Debug)]
struct Line {
    /// The name of its positions.
    name: String,
    sink: Sink,
    /// Merchants with news.
    waiting: Mutex<HashMap<MerchantId, Waiting>>,
    heard: Notify,
}

/// A merchant with news.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// When it is to be looked at.
    due: Instant,
    /// Whether it is left alone until then, after a failure, whatever is heard of it.
    is_put_off: bool,
}

/// What came of one batch.
enum Turn {
    /// Everything is written that there was.
    Done,
    /// There is more.
    More,
    /// Another process follows this merchant.
    Busy,
    /// The sink or the database failed.
    Failed,
}

impl Follower {
    /// A follower over the worker role's `database`. Without sinks it does nothing.
    pub fn new(database: Database, clock: Clock, sinks: Vec<Config>) -> Result<Self, ConfigError> {
        let lines: Result<Vec<Line>, ConfigError> = sinks
            .into_iter()
            .map(|config| {
                Ok(Line {
                    name: config.name(),
                    sink: config.open()?,
                    waiting: Mutex::default(),
                    heard: Notify::new(),
                })
            })
            .collect();
        Ok(Self {
            owner: OwnerId::new(clock.now()),
            database,
            clock,
            lines: lines?.into(),
        })
    }

    /// Says that the merchant's feed has grown. Never waits.
    pub fn announce(&self, merchant: MerchantId) {
        for line in self.lines.iter() {
            line.hear(merchant, line.sink.bounds().linger);
        }
    }

    /// Follows until `stop`; batches under way then are finished. Failures are logged and tried again, without end.
    pub async fn run(&self, stop: CancellationToken) {
        let lines = self.lines.iter().map(|line| {
            let stop = stop.clone();
            async move {
                tokio::join!(
                    Box::pin(self.follow(line, &stop)),
                    stop.run_until_cancelled(Box::pin(self.sweep(line))),
                );
            }
        });
        join_all(lines).await;
    }

    /// Writes batches of the merchants with news, several at once, each by one task at a time.
    async fn follow(&self, line: &Line, stop: &CancellationToken) {
        let mut working: Vec<MerchantId> = Vec::new();
        let mut turns = FuturesUnordered::new();
        let mut rest_until = Instant::now();
        let mut rest = PAUSE_FIRST;
        let mut pauses: HashMap<MerchantId, Duration> = HashMap::new();
        loop {
            let now = Instant::now();
            while !stop.is_cancelled()
                && now >= rest_until
                && working.len() < MERCHANTS_AT_ONCE
                && let Some(merchant) = line.take(now, &working)
            {
                working.push(merchant);
                turns.push(Box::pin(async move {
                    (merchant, self.turn(line, merchant).await)
                }));
            }
            let next = line.next(&working).map_or(now + FOREVER, |due| {
                if working.len() < MERCHANTS_AT_ONCE {
                    due.max(rest_until)
                } else {
                    now + FOREVER
                }
            });
            tokio::select! {
                Some((merchant, turn)) = turns.next() => {
                    working.retain(|other| *other != merchant);
                    if matches!(turn, Turn::Done | Turn::More) {
                        rest = PAUSE_FIRST;
                        pauses.remove(&merchant);
                    }
                    match turn {
                        Turn::Done => {}
                        Turn::More => line.hear(merchant, Duration::ZERO),
                        Turn::Busy => line.hear(merchant, BUSY_AGAIN_AFTER),
                        Turn::Failed => {
                            let pause = pauses.entry(merchant).or_insert(PAUSE_FIRST);
                            line.put_off(merchant, *pause);
                            *pause = (*pause * 2).min(PAUSE_MAX);
                            rest_until = Instant::now() + rest;
                            rest = (rest * 2).min(REST_MAX);
                        }
                    }
                }
                () = line.heard.notified() => {}
                () = tokio::time::sleep_until(next), if !stop.is_cancelled() => {}
                () = stop.cancelled(), if turns.is_empty() => return,
            }
        }
    }

    async fn turn(&self, line: &Line, merchant: MerchantId) -> Turn {
        match self.pass(line, merchant).await {
            Ok(turn) => turn,
            Err(error) => {
                tracing::warn!(error = %error, sink = line.name, merchant.id = %merchant, "events could not be written to the sink");
                Turn::Failed
            }
        }
    }

    /// Writes one batch of one merchant.
    async fn pass(&self, line: &Line, merchant: MerchantId) -> Result<Turn, WriteError> {
        let bounds = line.sink.bounds();
        let row = store::Row {
            merchant,
            sink: &line.name,
            owner: self.owner,
        };
        let mut tx = self.database.begin().await?;
        let now = self.clock.now();
        let Some(position) = store::lease(&mut tx, row, now, now.plus(LEASE)).await? else {
            return Ok(Turn::Busy);
        };
        let batch = store::batch(&mut tx, merchant, position, bounds).await?;
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            store::release(&mut tx, row).await?;
            tx.commit().await.map_err(db::Error::from)?;
            return Ok(Turn::Done);
        };
        tx.commit().await.map_err(db::Error::from)?;

        let (first, last) = (first.number, last.number);
        // A position of 0 is that of a sink which begins: it does so with what is kept.
        if position > 0 && first > position.saturating_add(1) {
            tracing::error!(
                sink = line.name,
                merchant.id = %merchant,
                after = position,
                next = first,
                "retention dropped events that the sink had not taken"
            );
        }
        let count = batch.len();
        let bytes: usize = batch.iter().map(|entry| entry.event.data.get().len()).sum();
        let is_full = count >= bounds.events || bytes >= bounds.bytes;
        let written = line.sink.write(merchant, batch).await;
        let mut tx = self.database.begin().await?;
        let turn = if written.is_ok() {
            let advanced = store::advance(&mut tx, row, position, last, self.clock.now()).await?;
            match (advanced, is_full) {
                (true, true) => Turn::More,
                // What has come since is announced, or swept.
                (true, false) => Turn::Done,
                // The lease ran out meanwhile, and another process has the merchant.
                (false, _) => Turn::Busy,
            }
        } else {
            store::release(&mut tx, row).await?;
            Turn::Failed
        };
        tx.commit().await.map_err(db::Error::from)?;
        written?;
        tracing::debug!(sink = line.name, merchant.id = %merchant, first, last, events = count, "written to the sink");
        Ok(turn)
    }

    /// The net: merchants whose feeds are ahead of their positions.
    async fn sweep(&self, line: &Line) {
        loop {
            let mut after = None;
            loop {
                match self.behind(line, after).await {
                    Ok((behind, next)) => {
                        for merchant in behind {
                            line.hear(merchant, line.sink.bounds().linger);
                        }
                        after = next;
                        if after.is_none() {
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "the feeds could not be swept");
                        break;
                    }
                }
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    /// The merchants of the next feeds who have news, and where to go on, if anywhere.
    async fn behind(
        &self,
        line: &Line,
        after: Option<MerchantId>,
    ) -> Result<(Vec<MerchantId>, Option<MerchantId>), db::Error> {
        let mut tx = self.database.begin().await?;
        let feeds = store::feeds(&mut tx, after, SWEEP_FEEDS_MAX).await?;
        let merchants: Vec<MerchantId> = feeds.iter().map(|(merchant, _)| *merchant).collect();
        let positions = store::positions(&mut tx, &line.name, &merchants).await?;
        tx.commit().await?;
        let behind = feeds.iter().filter(|(merchant, last_number)| {
            positions.get(merchant).copied().unwrap_or_default() < *last_number
        });
        let is_full = i64::try_from(feeds.len()).is_ok_and(|read| read >= SWEEP_FEEDS_MAX);
        let next = merchants.last().copied().filter(|_| is_full);
        Ok((behind.map(|(merchant, _)| *merchant).collect(), next))
    }
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, HashMap<MerchantId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a merchant has news, to be looked at after a while; whoever is to be looked at sooner stays so.
    fn hear(&self, merchant: MerchantId, after: Duration) {
        let due = Instant::now() + after;
        self.waiting()
            .entry(merchant)
            .and_modify(|known| {
                if !known.is_put_off {
                    known.due = known.due.min(due);
                }
            })
            .or_insert(Waiting {
                due,
                is_put_off: false,
            });
        self.heard.notify_one();
    }

    /// Notes that a merchant is to be looked at after a while and not before.
    fn put_off(&self, merchant: MerchantId, after: Duration) {
        let waiting = Waiting {
            due: Instant::now() + after,
            is_put_off: true,
        };
        self.waiting().insert(merchant, waiting);
    }

    /// The merchant who has waited longest and is due, unless being worked for.
    fn take(&self, now: Instant, working: &[MerchantId]) -> Option<MerchantId> {
        let mut waiting = self.waiting();
        let (merchant, _) = waiting
            .iter()
            .filter(|(merchant, waiting)| waiting.due <= now && !working.contains(merchant))
            .min_by_key(|(_, waiting)| waiting.due)?;
        let merchant = *merchant;
        waiting.remove(&merchant);
        Some(merchant)
    }

    /// When the next merchant is due.
    fn next(&self, working: &[MerchantId]) -> Option<Instant> {
        let waiting = self.waiting();
        let due = waiting
            .iter()
            .filter(|(merchant, _)| !working.contains(merchant));
        due.map(|(_, waiting)| waiting.due).min()
    }
}
