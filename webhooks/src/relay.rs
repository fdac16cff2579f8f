//! The relay: moves events from the outbox to the history, into the stream of each interested endpoint, and onto the queue.
//!
//! Run by every process with the worker role. Two actors make a webhook: this one (event → rows) and the worker (row → HTTP).
//!
//! One transaction moves a batch of one merchant's events, under the lock of the merchant's feed row, so that one relay at a time works for a
//! merchant, however many processes there are. In it everything happens or nothing: the events leave the outbox, enter `events` under the feed's next
//! numbers, and enter the streams and the queue under each endpoint's next. A crash before its commit leaves the outbox as it was. There is no
//! watermark: what is in the outbox is still to be moved, whenever it was committed.
//!
//! Waiting merchants are found in four ways, of which the last alone is relied on: announcements within the process, hints in a table, NOTIFY, and a
//! slow sweep over the outbox. Each says from which event on the outbox is to be read: see [`Start`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use kernel::{
    clock::{Clock, Timestamp},
    db::{Database, Error, Transaction},
    event::{Announcer, RELAY_CHANNEL},
    id::MerchantId,
    keyring::Keyring,
};
use tokio::{
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    app_endpoint,
    endpoint::{EndpointId, Outlet},
    hub::Hub,
    sink::Follower,
};

mod filters;
mod plan;
mod store;
mod versions;
mod waiting;

use filters::Filters;
pub(crate) use plan::resource_key;
pub(crate) use store::{first_waiting, raise_lanes};
use versions::Versions;
use waiting::{Start, Waiting};

/// Events that one transaction moves at most: some tens of milliseconds of work, and no other merchant waits for longer than that.
pub const BATCH_EVENTS_MAX: usize = 1_000;

/// Merchants that are worked for at once; each takes a connection.
const MERCHANTS_AT_ONCE: usize = 4;

/// Merchants that one sweep finds at most.
const SWEEP_MERCHANTS_MAX: i64 = 10_000;

/// How often the outbox is swept. The net under crashes and lost hints, so it may be slow.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

/// How many times as long as looking through the outbox took it is not looked through again: that reads past whatever PostgreSQL may not clear away yet.
const SWEEP_RESTS: u32 = 20;

/// The longest time between sweeps.
const SWEEP_AFTER_MAX: Duration = Duration::from_secs(30);

/// How long the relay pauses after a failure; doubled each time up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// NOTIFYs to other processes' workers are at least this far apart: it serialises commits.
const NOTIFY_EVERY: Duration = Duration::from_millis(50);

/// The channel by which a relay tells workers of other processes that lanes have work; a hint, never relied on.
pub const LANES_CHANNEL: &str = "stoa_lanes";

/// Wakes the worker of this process. Clones wake the same one.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// Has the worker look for due deliveries now.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits to be woken. For one consumer.
    pub(crate) async fn woken(&self) {
        self.0.notified().await;
    }
}

/// What one transaction has moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Events that left the outbox.
    pub events: usize,
    /// Entries made in streams of endpoints.
    pub stream_entries: usize,
    /// Deliveries put on the queue.
    pub deliveries: usize,
    /// Whether the outbox may hold more.
    pub more: bool,
}

/// Where merchants are handed in that have events waiting.
type Found = UnboundedSender<Vec<(MerchantId, Start)>>;

/// Moves events. One per process.
#[derive(Debug, Clone)]
pub struct Relay {
    database: Database,
    clock: Clock,
    keyring: Arc<Keyring>,
    announcer: Announcer,
    wake: Wake,
    lanes_raised: Arc<Notify>,
    hub: Option<Hub>,
    follower: Option<Follower>,
    filters: Filters,
    versions: Arc<Versions>,
}

impl Relay {
    /// A relay over the worker role's `database`, which hears of merchants by `announcer` and wakes this process's worker by `wake`.
    pub fn new(
        database: Database,
        clock: Clock,
        keyring: Arc<Keyring>,
        announcer: Announcer,
        wake: Wake,
    ) -> Self {
        Self {
            database,
            clock,
            keyring,
            announcer,
            wake,
            lanes_raised: Arc::default(),
            hub: None,
            follower: None,
            filters: Filters::default(),
            versions: Arc::default(),
        }
    }

    /// Wakes the readers of streams by `hub` from now on.
    #[must_use]
    pub fn telling(self, hub: Hub) -> Self {
        Self {
            hub: Some(hub),
            ..self
        }
    }

    /// Tells `follower` of feeds that have grown, from now on.
    #[must_use]
    pub fn followed_by(self, follower: Follower) -> Self {
        Self {
            follower: Some(follower),
            ..self
        }
    }

    /// Moves events until `stop`; what is under way then is finished. Failures are logged and tried again, without end.
    pub async fn run(&self, stop: CancellationToken) {
        let (found, waiting) = unbounded_channel();
        tokio::join!(
            Box::pin(self.work(waiting, &stop)),
            stop.run_until_cancelled(Box::pin(self.hear(&found))),
            stop.run_until_cancelled(Box::pin(self.listen(&found))),
            stop.run_until_cancelled(Box::pin(self.sweep(&found))),
            stop.run_until_cancelled(Box::pin(self.notify())),
        );
    }

    /// Works for the merchants that are found, several at once, each by one task at a time.
    async fn work(
        &self,
        mut found: UnboundedReceiver<Vec<(MerchantId, Start)>>,
        stop: &CancellationToken,
    ) {
        // A merchant found while it is worked for gets another turn.
        let mut waiting = Waiting::default();
        let mut working: Vec<MerchantId> = Vec::new();
        let mut turns = FuturesUnordered::new();
        loop {
            while working.len() < MERCHANTS_AT_ONCE
                && !stop.is_cancelled()
                && let Some((merchant, start)) =
                    waiting.take(|merchant| !working.contains(&merchant))
            {
                working.push(merchant);
                turns.push(Box::pin(async move {
                    (merchant, self.turn(merchant, start).await)
                }));
            }
            tokio::select! {
                Some((merchant, again)) = turns.next() => {
                    working.retain(|other| *other != merchant);
                    if let Some(start) = again {
                        waiting.add(merchant, start);
                    }
                }
                Some(merchants) = found.recv() => {
                    for (merchant, start) in merchants {
                        waiting.add(merchant, start);
                    }
                }
                () = stop.cancelled(), if turns.is_empty() => return,
            }
        }
    }

    /// One batch of one merchant. Says from where on it should have another turn, if it should.
    async fn turn(&self, merchant: MerchantId, start: Start) -> Option<Start> {
        match self.pass_from(merchant, start).await {
            Ok((moved, rest)) => {
                crate::metrics::relayed(moved.events);
                // Also when nothing was moved: the announcement may have been of a replay.
                self.wake.wake();
                if let Some(hub) = self.hub.as_ref().filter(|_| moved.events > 0) {
                    hub.announce(merchant);
                }
                if let Some(follower) = self.follower.as_ref().filter(|_| moved.events > 0) {
                    follower.announce(merchant);
                }
                if moved.deliveries > 0 {
                    self.lanes_raised.notify_one();
                }
                rest
            }
            Err(error) => {
                tracing::warn!(error = %error, merchant.id = %merchant, "events could not be relayed");
                // Whatever else went wrong waits for the sweep, so that it holds no turn of another merchant's.
                error.is_retryable().then_some(start)
            }
        }
    }

    /// Moves one batch of one merchant's events, in one transaction.
    pub async fn pass(&self, merchant: MerchantId) -> Result<Moved, Error> {
        let (moved, _) = self.pass_from(merchant, Start::BEGINNING).await?;
        Ok(moved)
    }

    /// The same, of the events from `start` on. Says where the rest begins, if the outbox may hold more.
    async fn pass_from(
        &self,
        merchant: MerchantId,
        start: Start,
    ) -> Result<(Moved, Option<Start>), Error> {
        let mut tx = self.database.begin_in_order().await?;
        let last_number = store::lock_feed(&mut tx, merchant).await?;
        // Of one feed no relay's time is before that of the relay before it, as far as clocks agree: so what is added to a lane is due in the order of its adding.
        let now = self.clock.now();
        self.materialise(&mut tx, merchant, now).await?;
        let mut batch = store::batch(&mut tx, merchant, start, BATCH_EVENTS_MAX).await?;
        let Some(last) = batch.last() else {
            tx.commit().await?;
            return Ok((Moved::default(), None));
        };
        let more = batch.len() >= BATCH_EVENTS_MAX;
        let rest = more.then(|| start.behind(last.id, last.priority > 0, now));
        if more || start != Start::BEGINNING {
            // Where it began or was cut may have parted a resource's events, as may their priorities: those of earlier versions come along, and those before them.
            loop {
                let gaps = self.versions.gaps(merchant, &batch);
                if gaps.is_empty() {
                    break;
                }
                let earlier = store::earlier(&mut tx, merchant, &batch, &gaps).await?;
                if earlier.is_empty() {
                    break;
                }
                batch.extend(earlier);
            }
        }
        plan::order(&mut batch);
        let audience = store::audience(&mut tx, merchant, &self.filters, now).await?;
        let mut moved = Moved {
            events: batch.len(),
            more,
            ..Moved::default()
        };

        let judged = plan::needs_data(&batch, &audience);
        let data = if judged.is_empty() {
            HashMap::new()
        } else {
            store::data(&mut tx, merchant, &judged).await?
        };
        let mut interest = plan::interest(&batch, merchant, &data, &audience);
        let numbers: Vec<i64> = (last_number.saturating_add(1)..)
            .take(batch.len())
            .collect();
        store::move_events(&mut tx, merchant, &batch, &numbers).await?;
        store::advance_feed(
            &mut tx,
            merchant,
            numbers.last().copied().unwrap_or(last_number),
        )
        .await?;

        if !interest.is_empty() {
            // An endpoint without a cursor has been deleted since the audience was read.
            let interested: Vec<EndpointId> =
                interest.iter().map(|interest| interest.endpoint).collect();
            let cursors: HashMap<EndpointId, i64> =
                store::lock_cursors(&mut tx, merchant, &interested)
                    .await?
                    .into_iter()
                    .collect();
            interest.retain(|interest| cursors.contains_key(&interest.endpoint));
            // Who was enabled since the audience was read is caught up with what came before: what comes from here on is queued.
            let unqueued: Vec<EndpointId> = interest
                .iter()
                .filter(|interest| !interest.outlet.is_queued())
                .map(|interest| interest.endpoint)
                .collect();
            if !unqueued.is_empty() {
                let outlets = store::outlets(&mut tx, merchant, &unqueued).await?;
                for interest in &mut interest {
                    if let Some(outlet) = outlets.get(&interest.endpoint) {
                        interest.outlet = *outlet;
                    }
                }
            }
            let entries = plan::number(&interest, &cursors);
            let deliveries: Vec<plan::Entry> = entries
                .iter()
                .filter(|entry| entry.outlet.is_queued())
                .copied()
                .collect();
            store::insert_streams(&mut tx, merchant, &entries).await?;
            store::advance_cursors(&mut tx, merchant, &interest, &cursors).await?;
            let hurried = store::insert_deliveries(&mut tx, merchant, &deliveries, now).await?;
            moved.stream_entries = entries.len();
            moved.deliveries = deliveries.len();
            // Last, because the lanes are shared with the workers of everybody.
            let sent = deliveries
                .iter()
                .filter(|entry| entry.outlet == Outlet::Sent);
            let mut lanes: Vec<EndpointId> = sent.map(|entry| entry.endpoint).collect();
            lanes.dedup();
            store::raise_lanes(&mut tx, &lanes, &hurried, now).await?;
        }
        tx.commit().await?;
        self.versions.note(merchant, &batch);
        tracing::debug!(
            merchant.id = %merchant,
            events = moved.events,
            deliveries = moved.deliveries,
            "relayed"
        );
        Ok((moved, rest))
    }

    /// Has the merchant's parts of apps' endpoints follow those. One that can't be read keeps no event waiting.
    async fn materialise(
        &self,
        tx: &mut Transaction,
        merchant: MerchantId,
        now: Timestamp,
    ) -> Result<(), Error> {
        match app_endpoint::materialise(&mut *tx, &self.keyring, merchant, now).await {
            Ok(_) => Ok(()),
            Err(crate::Error::Database(error)) => Err(error),
            Err(error) => {
                tracing::error!(error = %error, merchant.id = %merchant, "an app's endpoint can't be made for a merchant");
                Ok(())
            }
        }
    }

    /// Announcements of this process.
    async fn hear(&self, found: &Found) {
        loop {
            let announced = self.announcer.next().await;
            let starts = announced
                .into_iter()
                .map(|(merchant, since)| (merchant, Start::since(since)));
            // The receiver ends with the process.
            let _ = found.send(starts.collect());
        }
    }

    /// Hints of other processes, as soon as they notify.
    async fn listen(&self, found: &Found) {
        let mut pause = PAUSE_FIRST;
        loop {
            let heard = async {
                let mut listener = self.database.listen(RELAY_CHANNEL).await?;
                pause = PAUSE_FIRST;
                loop {
                    listener.recv().await?;
                    let hinted = store::take_hints(&self.database).await?;
                    let _ = found.send(hinted);
                }
            };
            let Err::<(), Error>(error) = heard.await else {
                continue;
            };
            tracing::debug!(error = %error, "listening for events broke off; listening again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The net: whatever is in the outbox, and hints whose NOTIFY was lost.
    async fn sweep(&self, found: &Found) {
        loop {
            let mut rest = SWEEP_EVERY;
            match self.waiting().await {
                Ok((merchants, took)) => {
                    let _ = found.send(merchants);
                    rest = took
                        .saturating_mul(SWEEP_RESTS)
                        .clamp(SWEEP_EVERY, SWEEP_AFTER_MAX);
                }
                Err(error) => tracing::warn!(error = %error, "the outbox could not be swept"),
            }
            tokio::time::sleep(rest).await;
        }
    }

    /// Whoever has events in the outbox, hinted at or not; and how long it took to look through it.
    async fn waiting(&self) -> Result<(Vec<(MerchantId, Start)>, Duration), Error> {
        let mut merchants = store::take_hints(&self.database).await?;
        let mut tx = self.database.begin_in_order().await?;
        let started = Instant::now();
        let first = store::first_waiting(&mut tx, SWEEP_MERCHANTS_MAX).await?;
        let took = started.elapsed();
        tx.commit().await?;
        let starts = first
            .into_iter()
            .map(|(merchant, first)| (merchant, Start::at(first)));
        merchants.extend(starts);
        Ok((merchants, took))
    }

    /// Tells the workers of other processes, at once when it has been quiet and coalesced when it has not.
    async fn notify(&self) {
        loop {
            self.lanes_raised.notified().await;
            if let Err(error) = self.database.notify(LANES_CHANNEL).await {
                tracing::debug!(error = %error, "workers could not be notified");
            }
            tokio::time::sleep(NOTIFY_EVERY).await;
        }
    }
}
