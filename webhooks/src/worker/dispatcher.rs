//! The dispatcher: leases lanes, reads what is due in them, and hands it out in turns.
//!
//! One task per worker owns all of that, so that nothing needs a lock. Each step is one transaction: it leases lanes, looks at the signals of
//! those it has, rereads endpoints and grants, and reads due rows. Then deliveries go out as far as limits allow.
//!
//! A failure of the database stops it for a moment and never ends it. What it holds in memory is always repeatable from the tables; its
//! leases run out by themselves if it dies.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kernel::{
    clock::{Clock, Timestamp},
    db::{Database, Transaction},
    id::MerchantId,
    keyring::Keyring,
};
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::lanes::{Ending, Lanes, Limits};
use crate::{
    delivery::{Lease, OwnerId, store},
    endpoint::EndpointId,
    error::Error,
    event::Event,
    relay::Wake,
};

mod read;

use read::{Read, ReadyTarget};

/// How long a lane is ours unless we say so again: what a dead process held is taken over after this.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How often leases are renewed; two may fail before one runs out.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// How often due lanes are looked for without being told of any: what retries wait for beyond their time, at most.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// How old what we know of endpoints and grants may be when something is sent; a revoked grant is felt within a second.
const TARGETS_KEPT_FOR: Duration = Duration::from_millis(500);

/// How long an idle lane is kept: an endpoint with a steady trickle is not leased anew for each event.
const LINGER: Duration = Duration::from_secs(1);

/// Lanes leased by one step at most; more are leased by the next.
const LEASED_AT_ONCE: usize = 64;

/// How long a stopping worker waits for what is in flight: an attempt's deadline, and the time to record it.
const STOPPING_MAX: Duration = Duration::from_secs(20);

/// The pause after a failed step; doubled each time up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A delivery that waits in memory.
#[derive(Debug)]
struct Waiting {
    event: Arc<Event>,
    personal: Option<Value>,
    fault: Option<String>,
    attempt_count: i32,
}

/// A delivery on its way to the handler.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) merchant: MerchantId,
    pub(super) lease: Lease,
    pub(super) sequence: i64,
    pub(super) event: Arc<Event>,
    pub(super) personal: Option<Value>,
    /// Why the event can't be read in full, if so: the attempt fails without anything being sent.
    pub(super) fault: Option<String>,
    /// Which attempt this is, from 1.
    pub(super) number: i32,
    pub(super) target: Arc<ReadyTarget>,
    pub(super) ticket: Ticket,
}

/// Tells the dispatcher when a job is over, also if its handler was dropped or broke.
#[derive(Debug)]
pub(super) struct Ticket {
    lease: Lease,
    sequence: i64,
    end: End,
    ended: mpsc::UnboundedSender<Ended>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Recorded(Ending),
    /// Nobody knows what came of it: the lane is left to run out, and whoever has it next repeats the delivery.
    Unrecorded,
}

#[derive(Debug)]
pub(super) struct Ended {
    lease: Lease,
    sequence: i64,
    end: End,
}

impl Ticket {
    pub(super) fn recorded(mut self, ending: Ending) {
        self.end = End::Recorded(ending);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Without a dispatcher there is nobody to tell.
        let _ = self.ended.send(Ended {
            lease: self.lease,
            sequence: self.sequence,
            end: self.end,
        });
    }
}

/// Owns the lanes of one worker.
pub(super) struct Dispatcher {
    database: Database,
    keyring: Arc<Keyring>,
    clock: Clock,
    owner: OwnerId,
    wake: Wake,
    lanes: Lanes<Waiting>,
    targets: HashMap<EndpointId, Arc<ReadyTarget>>,
    targets_read_at: Option<Instant>,
    idle_since: HashMap<EndpointId, Instant>,
    /// Until when the leases that were taken first are ours.
    leased_until: Timestamp,
    ended: mpsc::UnboundedReceiver<Ended>,
    ended_sender: mpsc::UnboundedSender<Ended>,
}

impl Dispatcher {
    pub(super) fn new(
        database: Database,
        keyring: Arc<Keyring>,
        clock: Clock,
        owner: OwnerId,
        wake: Wake,
        limits: Limits,
    ) -> Self {
        let (ended_sender, ended) = mpsc::unbounded_channel();
        Self {
            leased_until: clock.now(),
            database,
            keyring,
            clock,
            owner,
            wake,
            lanes: Lanes::new(limits),
            targets: HashMap::new(),
            targets_read_at: None,
            idle_since: HashMap::new(),
            ended,
            ended_sender,
        }
    }

    /// Hands out jobs until `stop`; then waits for those in flight, and gives its lanes back.
    pub(super) async fn run(mut self, jobs: mpsc::Sender<Job>, stop: CancellationToken) {
        let mut look = true;
        let mut poll_at = Instant::now() + POLL_EVERY;
        let mut renew_at = Instant::now() + RENEW_EVERY;
        let mut resume_at = Instant::now();
        let mut pause = PAUSE_FIRST;
        while !stop.is_cancelled() {
            let now = Instant::now();
            if now >= renew_at {
                renew_at = now + RENEW_EVERY;
                self.renew().await;
            }
            if now >= poll_at {
                poll_at = now + POLL_EVERY;
                look = true;
                self.lanes.look_again();
            }
            self.lanes.give_way();
            if now >= resume_at {
                match self.step(look).await {
                    Ok(found_all) => {
                        look = !found_all;
                        pause = PAUSE_FIRST;
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "due deliveries could not be read; trying again");
                        resume_at = Instant::now() + pause;
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
            }
            if !self.hand_out(&jobs).await {
                tracing::error!("the worker of deliveries has ended");
                break;
            }
            self.release_idle().await;
            if (look || self.reads_wanted()) && Instant::now() >= resume_at {
                self.note_ended();
                continue;
            }
            let next = poll_at.min(renew_at).max(Instant::now());
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.woken() => look = true,
                Some(ended) = self.ended.recv() => self.note(&ended),
                () = tokio::time::sleep_until(next) => {}
            }
            self.note_ended();
        }
        // The worker ends once it has done what it was handed.
        drop(jobs);
        self.wind_down(renew_at).await;
    }

    async fn wind_down(&mut self, mut renew_at: Instant) {
        let given_up_at = Instant::now() + STOPPING_MAX;
        while !self.lanes.is_empty() && Instant::now() < given_up_at {
            if Instant::now() >= renew_at {
                renew_at = Instant::now() + RENEW_EVERY;
                self.renew().await;
            }
            let pause = match self.give_back().await {
                Ok(true) => POLL_EVERY,
                Ok(false) => PAUSE_FIRST,
                Err(error) => {
                    tracing::warn!(error = %error, "lanes could not be released");
                    POLL_EVERY
                }
            };
            if self.lanes.is_empty() {
                break;
            }
            tokio::select! {
                Some(ended) = self.ended.recv() => self.note(&ended),
                () = tokio::time::sleep(pause) => {}
            }
            self.note_ended();
        }
    }

    /// Lets go of all lanes that have nothing in flight: what waits in them, and what is being added to them, is for others to send. False if
    /// something was added to one at this very moment.
    async fn give_back(&mut self) -> Result<bool, Error> {
        for lease in self.lanes.leases() {
            self.lanes.clear(lease.endpoint);
        }
        let idle: Vec<EndpointId> = self
            .lanes
            .idle()
            .iter()
            .map(|lease| lease.endpoint)
            .collect();
        if idle.is_empty() {
            return Ok(true);
        }
        let mut tx = self.database.begin().await?;
        let seen = store::look(&mut tx, self.owner, &idle).await?;
        let next_due = store::next_due(&mut tx, &seen).await?;
        // Also of endpoints to which nothing was sent when we last looked at them: with the signal we may just have passed over their being
        // enabled. If nothing goes there after all, the next owner finds out.
        let lanes: Vec<(Lease, Option<Timestamp>)> = seen
            .iter()
            .map(|lease| (*lease, next_due.get(&lease.endpoint).copied()))
            .collect();
        let released = store::release(&mut tx, self.owner, &lanes).await?;
        tx.commit().await?;
        for endpoint in &idle {
            // One that was not seen is another's by now.
            let is_seen = seen.iter().any(|lease| lease.endpoint == *endpoint);
            if !is_seen || released.contains(endpoint) {
                self.forget(*endpoint);
            }
        }
        Ok(released.len() == seen.len())
    }

    fn note_ended(&mut self) {
        while let Ok(ended) = self.ended.try_recv() {
            self.note(&ended);
        }
    }

    fn note(&mut self, ended: &Ended) {
        match ended.end {
            End::Recorded(ending) => {
                self.lanes.end(ended.lease, ended.sequence, ending);
                if ending == Ending::Gone {
                    // What else waits for it is not to be given up on as well, and goes where the endpoint now is.
                    self.targets_read_at = None;
                }
            }
            End::Unrecorded => {
                let lost = self
                    .lanes
                    .leases()
                    .into_iter()
                    .find(|lease| lease.endpoint == ended.lease.endpoint);
                if lost.is_some_and(|lost| lost.fence == ended.lease.fence) {
                    self.forget(ended.lease.endpoint);
                }
            }
        }
    }

    fn forget(&mut self, endpoint: EndpointId) {
        self.lanes.forget(endpoint);
        self.targets.remove(&endpoint);
        self.idle_since.remove(&endpoint);
    }

    /// Whether deliveries go to this endpoint at all.
    fn sends(&self, endpoint: EndpointId) -> bool {
        self.targets
            .get(&endpoint)
            .is_some_and(|target| target.url.is_some())
    }

    /// Whether lanes have something unread.
    fn reads_wanted(&self) -> bool {
        !self.lanes.to_read().is_empty()
    }

    /// Prolongs all leases. Lanes that are no longer ours are forgotten; if the database is away, all are until we hear otherwise.
    async fn renew(&mut self) {
        let leases = self.lanes.leases();
        if leases.is_empty() {
            return;
        }
        let endpoints: Vec<EndpointId> = leases.iter().map(|lease| lease.endpoint).collect();
        let until = self.clock.now().plus(LEASE);
        match store::renew(&self.database, self.owner, &endpoints, until).await {
            Ok(renewed) => {
                self.leased_until = until;
                let fences: HashMap<EndpointId, i64> = renewed
                    .iter()
                    .map(|lease| (lease.endpoint, lease.fence))
                    .collect();
                for lease in leases {
                    if fences.get(&lease.endpoint) != Some(&lease.fence) {
                        tracing::warn!(endpoint.id = %lease.endpoint, "a lane was lost to another worker");
                        self.forget(lease.endpoint);
                    }
                }
                for lease in renewed {
                    self.lanes.raise(lease.endpoint, lease.signal);
                }
            }
            Err(error) => tracing::warn!(error = %error, "leases could not be renewed"),
        }
    }

    /// One transaction: leases and looks if asked to, then reads what the lanes want. Says whether all due lanes were found.
    async fn step(&mut self, look: bool) -> Result<bool, Error> {
        let targets_are_fresh = self
            .targets_read_at
            .is_some_and(|read_at| read_at.elapsed() < TARGETS_KEPT_FOR);
        if !look && !self.reads_wanted() && (targets_are_fresh || self.lanes.is_empty()) {
            return Ok(true);
        }
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let mut taken = Vec::new();
        let stepped = self
            .step_in(&mut tx, look, targets_are_fresh, now, &mut taken)
            .await;
        let finished = match stepped {
            Ok(read) => tx.commit().await.map(|()| read).map_err(Error::from),
            Err(error) => Err(error),
        };
        match finished {
            Ok(read) => {
                for (endpoint, rows, complete) in read {
                    self.lanes.fill(endpoint, rows, complete);
                }
                Ok(taken.len() < LEASED_AT_ONCE)
            }
            Err(error) => {
                for lease in taken {
                    self.forget(lease.endpoint);
                }
                Err(error)
            }
        }
    }

    async fn step_in(
        &mut self,
        tx: &mut Transaction,
        look: bool,
        targets_are_fresh: bool,
        now: Timestamp,
        taken: &mut Vec<Lease>,
    ) -> Result<Vec<Read>, Error> {
        let mut targets_are_fresh = targets_are_fresh;
        if look {
            let owned: Vec<EndpointId> = self
                .lanes
                .leases()
                .iter()
                .map(|lease| lease.endpoint)
                .collect();
            if !owned.is_empty() {
                for lease in store::look(&mut *tx, self.owner, &owned).await? {
                    // What was disabled may have been enabled.
                    let was_raised = self.lanes.raise(lease.endpoint, lease.signal);
                    targets_are_fresh &= !was_raised || self.sends(lease.endpoint);
                }
            }
            let room = self.lanes.room().min(LEASED_AT_ONCE);
            if room > 0 {
                let until = now.plus(LEASE);
                let limit = i64::try_from(room).unwrap_or(i64::MAX);
                let full = self.lanes.merchants_at_their_share();
                let leases = store::lease(&mut *tx, self.owner, now, until, limit, &full).await?;
                if self.lanes.is_empty() {
                    self.leased_until = until;
                }
                for lease in &leases {
                    self.lanes.take(*lease);
                    targets_are_fresh = false;
                }
                taken.extend(leases);
            }
        }
        if !targets_are_fresh && !self.lanes.is_empty() {
            self.read_targets(&mut *tx, now).await?;
        }
        self.read(tx, now).await
    }

    /// Hands out what limits allow. False if nobody takes it any more.
    async fn hand_out(&mut self, jobs: &mpsc::Sender<Job>) -> bool {
        // A view of grants that can't be renewed sends nothing, nor do lanes that may be another's by now.
        let fresh = self
            .targets_read_at
            .is_some_and(|read_at| read_at.elapsed() < TARGETS_KEPT_FOR);
        if !fresh || self.clock.now() >= self.leased_until {
            return true;
        }
        while let Some((lease, sequence, waiting)) = self.lanes.next() {
            let ticket = Ticket {
                lease,
                sequence,
                end: End::Unrecorded,
                ended: self.ended_sender.clone(),
            };
            let Some(target) = self
                .targets
                .get(&lease.endpoint)
                .filter(|target| target.url.is_some())
                .cloned()
            else {
                continue;
            };
            let job = Job {
                merchant: lease.merchant,
                lease,
                sequence,
                event: waiting.event,
                personal: waiting.personal,
                fault: waiting.fault,
                number: waiting.attempt_count.saturating_add(1),
                target,
                ticket,
            };
            if jobs.send(job).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Lets go of lanes that have been idle for [`LINGER`], unless something was added to them, and at once of those that have given way.
    async fn release_idle(&mut self) {
        let idle = self.lanes.idle();
        self.idle_since
            .retain(|endpoint, _| idle.iter().any(|lease| lease.endpoint == *endpoint));
        let now = Instant::now();
        let ripe: Vec<Lease> = idle
            .into_iter()
            .filter(|lease| {
                let idle_since = *self.idle_since.entry(lease.endpoint).or_insert(now);
                self.lanes.rest(lease.endpoint).is_some()
                    || now.duration_since(idle_since) >= LINGER
            })
            .collect();
        if ripe.is_empty() {
            return;
        }
        match self.release(&ripe).await {
            Ok(released) => {
                for lease in ripe {
                    if released.contains(&lease.endpoint) {
                        if self.lanes.rest(lease.endpoint).is_some() {
                            // There is room for those that it gave way to.
                            self.wake.wake();
                        }
                        self.forget(lease.endpoint);
                    } else {
                        self.lanes.reread(lease.endpoint);
                        self.wake.wake();
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "lanes could not be released");
                // They run out if this goes on.
                self.idle_since.clear();
            }
        }
    }

    async fn release(&self, leases: &[Lease]) -> Result<Vec<EndpointId>, Error> {
        let mut tx = self.database.begin().await?;
        let next_due = store::next_due(&mut tx, leases).await?;
        let now = self.clock.now();
        let due_at = |endpoint: EndpointId| {
            let due_at = *next_due.get(&endpoint).filter(|_| self.sends(endpoint))?;
            let rested_at = self.lanes.rest(endpoint).map(|rest| now.plus(rest));
            Some(rested_at.map_or(due_at, |rested_at| due_at.max(rested_at)))
        };
        let lanes: Vec<(Lease, Option<Timestamp>)> = leases
            .iter()
            .map(|lease| (*lease, due_at(lease.endpoint)))
            .collect();
        let released = store::release(&mut tx, self.owner, &lanes).await?;
        tx.commit().await?;
        Ok(released)
    }
}
