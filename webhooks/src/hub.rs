//! The hub: wakes whoever reads a merchant's streams when the relay has added to them. One per process; clones share it.
//!
//! Readers hold no connection while they wait. The relay [announces](Hub::announce) each merchant for whom it has committed something: readers in
//! this process hear of it at once, those in others by one coalesced NOTIFY that names the merchants, and all of them by a slow look at the numbers
//! of the feeds that are read, which is the net under lost hints. Being woken means "look again", and may be in vain.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kernel::{
    db::{Database, Error},
    id::MerchantId,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod store;

/// The channel by which processes tell each other whose streams have grown; a hint, never relied on.
pub const STREAMS_CHANNEL: &str = "stoa_streams";

/// NOTIFYs are at least this far apart: each serialises commits.
const NOTIFY_EVERY: Duration = Duration::from_millis(50);

/// How often the feeds that are read are looked at: the net under hints that were lost, so it may be slow.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long listening pauses after a failure; doubled each time up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Wakes the readers of streams.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    /// By which a process knows its own NOTIFYs.
    process: Uuid,
    stop: CancellationToken,
    readers: Mutex<HashMap<MerchantId, watch::Sender<()>>>,
    outgoing: Mutex<HashSet<MerchantId>>,
    raised: Notify,
}

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hub")
            .field("merchants", &self.readers().len())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// A hub whose readers end with `stop`. Somebody must [`run`](Self::run) it.
    pub fn new(stop: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            process: Uuid::from_bytes(rand::random()),
            stop,
            readers: Mutex::default(),
            outgoing: Mutex::default(),
            raised: Notify::default(),
        }))
    }

    /// Says that what was committed for `merchant` may be read: by the relay, after its commit. Never waits.
    pub fn announce(&self, merchant: MerchantId) {
        self.wake(merchant);
        self.0
            .outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(merchant);
        self.0.raised.notify_one();
    }

    /// Has the readers of `merchant` in this process look again. Never waits.
    pub fn wake(&self, merchant: MerchantId) {
        if let Some(reader) = self.readers().get(&merchant) {
            reader.send_replace(());
        }
    }

    /// From now on, hears when there may be more for `merchant`.
    pub fn subscribe(&self, merchant: MerchantId) -> Subscription {
        let changes = self
            .readers()
            .entry(merchant)
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        Subscription {
            merchant,
            hub: self.clone(),
            changes,
        }
    }

    /// Whether the process is stopping: whoever reads should end now.
    pub fn is_stopped(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Waits until the process stops.
    pub async fn stopped(&self) {
        self.0.stop.cancelled().await;
    }

    /// Tells other processes, hears what they tell, and looks at the feeds that are read; for as long as it is polled. `database` is of the worker's
    /// role, which sees every merchant's feed.
    pub async fn run(&self, database: &Database) {
        tokio::join!(
            Box::pin(self.tell(database)),
            Box::pin(self.hear(database)),
            Box::pin(self.look(database)),
        );
    }

    async fn tell(&self, database: &Database) {
        loop {
            self.0.raised.notified().await;
            let merchants: Vec<MerchantId> = self
                .0
                .outgoing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .drain()
                .collect();
            let notified = database.notify_of(STREAMS_CHANNEL, self.0.process, &merchants);
            if let Err(error) = notified.await {
                tracing::debug!(error = %error, "readers in other processes could not be notified");
            }
            tokio::time::sleep(NOTIFY_EVERY).await;
        }
    }

    async fn hear(&self, database: &Database) {
        let mut pause = PAUSE_FIRST;
        loop {
            let heard = async {
                let mut listener = database.listen(STREAMS_CHANNEL).await?;
                pause = PAUSE_FIRST;
                // Whatever was said while nobody listened.
                self.wake_all();
                loop {
                    let notification = listener.recv().await?;
                    self.take(notification.payload());
                }
            };
            let Err::<(), Error>(error) = heard.await else {
                continue;
            };
            tracing::debug!(error = %error, "listening for streams broke off; listening again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// A payload: the sender and the merchants, with spaces between.
    fn take(&self, payload: &str) {
        let mut words = payload.split(' ').filter_map(|word| word.parse().ok());
        if words.next() == Some(self.0.process) {
            return;
        }
        for merchant in words {
            self.wake(MerchantId::from_uuid(merchant));
        }
    }

    async fn look(&self, database: &Database) {
        let mut seen: HashMap<MerchantId, i64> = HashMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let merchants: Vec<MerchantId> = self.readers().keys().copied().collect();
            if merchants.is_empty() {
                seen.clear();
                continue;
            }
            match store::last_numbers(database, &merchants).await {
                Ok(numbers) => {
                    for (merchant, number) in &numbers {
                        if seen.get(merchant) != Some(number) {
                            self.wake(*merchant);
                        }
                    }
                    seen = numbers;
                }
                Err(error) => tracing::debug!(error = %error, "feeds could not be looked at"),
            }
        }
    }

    fn wake_all(&self) {
        for reader in self.readers().values() {
            reader.send_replace(());
        }
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<MerchantId, watch::Sender<()>>> {
        self.0
            .readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears when there may be more for a merchant.
#[derive(Debug)]
pub struct Subscription {
    merchant: MerchantId,
    hub: Hub,
    changes: watch::Receiver<()>,
}

impl Subscription {
    /// Forgets what was said so far: called before a look, so that what comes during it is not missed.
    pub fn mark_seen(&mut self) {
        self.changes.mark_unchanged();
    }

    /// Waits until something was said that has not been [seen](Self::mark_seen). Dropped half-way, it has forgotten nothing.
    pub async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The sender lives as long as this subscription is counted.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut readers = self.hub.readers();
        // The last one takes the merchant off the list; nobody subscribes meanwhile, for that takes the lock too.
        if readers
            .get(&self.merchant)
            .is_some_and(|reader| reader.receiver_count() <= 1)
        {
            readers.remove(&self.merchant);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use kernel::clock::Timestamp;

    use super::*;

    fn merchant() -> MerchantId {
        MerchantId::new(Timestamp::from_unix_millis(1_700_000_000_000))
    }

    #[test]
    fn only_the_readers_of_a_merchant_are_woken_and_nothing_said_during_a_look_is_missed() {
        let hub = Hub::new(CancellationToken::new());
        let (one, other) = (merchant(), merchant());
        let mut reader = hub.subscribe(one);
        hub.announce(other);
        assert_eq!(reader.changed().now_or_never(), None);
        hub.announce(one);
        assert_eq!(reader.changed().now_or_never(), Some(()));
        assert_eq!(reader.changed().now_or_never(), None);
        hub.announce(one);
        reader.mark_seen();
        assert_eq!(reader.changed().now_or_never(), None);
        hub.wake(one);
        assert_eq!(reader.changed().now_or_never(), Some(()));
    }

    #[test]
    fn a_process_does_not_hear_itself() {
        let hub = Hub::new(CancellationToken::new());
        let one = merchant();
        let mut reader = hub.subscribe(one);
        hub.take(&format!(
            "{} {}",
            hub.0.process.simple(),
            one.uuid().simple()
        ));
        assert_eq!(reader.changed().now_or_never(), None);
        let stranger = Uuid::from_u128(1).simple();
        hub.take(&format!(
            "{stranger} {} {}",
            merchant().uuid().simple(),
            one.uuid().simple()
        ));
        assert_eq!(reader.changed().now_or_never(), Some(()));
        hub.take("nonsense");
        assert_eq!(reader.changed().now_or_never(), None);
    }

    #[test]
    fn merchants_whom_nobody_reads_any_more_are_forgotten() {
        let hub = Hub::new(CancellationToken::new());
        let one = merchant();
        let (first, second) = (hub.subscribe(one), hub.subscribe(one));
        drop(first);
        assert_eq!(hub.readers().len(), 1);
        drop(second);
        assert_eq!(hub.readers().len(), 0);
    }
}
