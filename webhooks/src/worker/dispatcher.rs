//! The dispatcher: leases lanes, reads what is due in them, and hands it out in turns.
//!
//! One task per worker owns all of that, so that nothing needs a lock. What it asks of the database is one step at a time, beside which it goes on handing
//! out: a step is one transaction that leases lanes, looks at the signals of those that are owned, rereads endpoints and grants, and reads due rows.
//!
//! A failure of the database stops it for a moment and never ends it. What it holds in memory is always repeatable from the tables; its
//! leases run out by themselves if it dies.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use kernel::{
    clock::{Clock, Timestamp},
    db::Database,
    keyring::Keyring,
};
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    breaker,
    lanes::Lanes,
    limits::Limits,
    renders::Renders,
    ticket::{Ended, Ticket},
};
use crate::{
    delivery::{Lease, OwnerId, store},
    endpoint::EndpointId,
    error::Error,
    event::Event,
    metrics,
    relay::Wake,
};

mod read;

use read::{Reader, Request, Step};
pub(super) use read::{ReadyTarget, Sending};

/// How long a lane is ours unless we say so again: what a dead process held is taken over after this.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How often leases are renewed; two may fail before one runs out.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// How often due lanes are looked for without being told of any: what retries wait for beyond their time, at most.
const POLL_EVERY: Duration = Duration::from_millis(500);

/// How often lanes are read from their beginning. The net under deliveries that were added as no reader expects it, by a clock that runs otherwise.
const READ_WHOLE_EVERY: Duration = Duration::from_secs(30);

/// How old what we know of endpoints and grants may be when something is sent; a revoked grant is felt within a second.
const TARGETS_KEPT_FOR: Duration = Duration::from_millis(800);

/// How old it is when it is read again.
const TARGETS_READ_AFTER: Duration = Duration::from_millis(400);

/// How often lanes are let go of.
const RELEASE_EVERY: Duration = Duration::from_millis(50);

/// How long a stopping worker waits for what is in flight: an attempt's deadline, and the time to record it.
const STOPPING_MAX: Duration = Duration::from_secs(20);

/// The pause after a failed step; doubled each time up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Messages of ended requests that are taken in at once.
const ENDED_AT_ONCE: usize = 256;

/// Requests that are one task: what a task costs is shared by them, and they by one processor.
const REQUESTS_PER_TASK: usize = 8;

/// A delivery that waits in memory.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) event: Arc<Event>,
    pub(super) renders: Arc<Renders>,
    pub(super) personal: Option<Arc<Value>>,
    /// Why the event can't be read in full, if so: the attempt fails without anything being sent.
    pub(super) fault: Option<String>,
    pub(super) attempt_count: i32,
}

/// A delivery of a job.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) sequence: i64,
    /// Which attempt this is, from 1.
    pub(super) number: i32,
    pub(super) event: Arc<Event>,
    pub(super) renders: Arc<Renders>,
    pub(super) personal: Option<Arc<Value>>,
    pub(super) fault: Option<String>,
}

/// A request on its way to the handler: one delivery, or several where the endpoint takes batches.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lease: Lease,
    pub(super) items: Vec<Item>,
    pub(super) target: Arc<ReadyTarget>,
    /// Whether the next delivery of a resource waits for one of these.
    pub(super) is_awaited: bool,
    /// Until when the lane is ours as far as is known: what is not on its way by then is for another to send.
    pub(super) sent_before: Timestamp,
    pub(super) ticket: Ticket,
}

/// Owns the lanes of one worker.
pub(super) struct Dispatcher {
    reader: Arc<Reader>,
    database: Database,
    clock: Clock,
    owner: OwnerId,
    wake: Wake,
    lanes: Lanes<Waiting>,
    targets: HashMap<EndpointId, Arc<ReadyTarget>>,
    targets_read_at: Option<Instant>,
    /// Lanes whose endpoint has to be read again before anything is sent there.
    targets_wanted: bool,
    /// What was read of endpoints before then no longer holds.
    targets_changed_at: Option<Instant>,
    idle_since: HashMap<EndpointId, Instant>,
    /// Until when the leases that were taken first are ours.
    leased_until: Timestamp,
    ended: mpsc::UnboundedReceiver<Ended>,
    ended_sender: mpsc::UnboundedSender<Ended>,
}

/// A step under way.
type Stepping = BoxFuture<'static, Result<Step, Error>>;

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
            reader: Arc::new(Reader {
                database: database.clone(),
                keyring,
                clock: clock.clone(),
                owner,
            }),
            database,
            clock,
            owner,
            wake,
            lanes: Lanes::new(limits),
            targets: HashMap::new(),
            targets_read_at: None,
            targets_wanted: false,
            targets_changed_at: None,
            idle_since: HashMap::new(),
            ended,
            ended_sender,
        }
    }

    /// Hands out jobs until `stop`; then waits for those in flight, and gives its lanes back.
    pub(super) async fn run(mut self, jobs: mpsc::Sender<Vec<Job>>, stop: CancellationToken) {
        let mut look = true;
        let mut poll_at = Instant::now() + POLL_EVERY;
        let mut read_whole_at = Instant::now() + READ_WHOLE_EVERY;
        let mut renew_at = Instant::now() + RENEW_EVERY;
        let mut release_at = Instant::now();
        let mut resume_at = Instant::now();
        let mut pause = PAUSE_FIRST;
        let mut stepping: Option<Stepping> = None;
        let mut ended = Vec::new();
        while !stop.is_cancelled() {
            let now = Instant::now();
            if now >= renew_at {
                renew_at = now + RENEW_EVERY;
                self.renew().await;
            }
            if now >= poll_at {
                poll_at = now + POLL_EVERY;
                look = true;
                self.measure();
                self.tell_recovered().await;
                self.lanes.look_again();
            }
            if now >= read_whole_at {
                read_whole_at = now + READ_WHOLE_EVERY;
                self.lanes.look_from_the_beginning();
            }
            if stepping.is_none() && now >= release_at {
                // Between steps: a step looks at the lanes that it was given, and none of them goes meanwhile.
                release_at = now + RELEASE_EVERY;
                self.release_idle().await;
            }
            if stepping.is_none() && now >= resume_at {
                self.targets_wanted |= self.lanes.is_any_in_doubt(self.clock.now());
                let rereads_targets = self.rereads_targets();
                if self.wants_step(look, rereads_targets) {
                    let look = std::mem::take(&mut look);
                    stepping = Some(self.begin_step(look, rereads_targets));
                }
            }
            if !self.hand_out(&jobs).await {
                tracing::error!("the worker of deliveries has ended");
                break;
            }
            let next = self.next_look(poll_at.min(renew_at), resume_at, stepping.is_some());
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                count = self.ended.recv_many(&mut ended, ENDED_AT_ONCE) => {
                    debug_assert!(count > 0, "a sender of it is ours");
                    // Whoever is about to end goes first: a turn costs the same however much it takes in and hands out.
                    tokio::task::yield_now().await;
                    while ended.len() < ENDED_AT_ONCE && let Ok(one) = self.ended.try_recv() {
                        ended.push(one);
                    }
                    for ended in ended.drain(..) {
                        self.note(ended);
                    }
                }
                stepped = under_way(&mut stepping) => {
                    stepping = None;
                    match stepped {
                        Ok(found) => {
                            look |= !found.found_all;
                            pause = PAUSE_FIRST;
                            self.apply(found);
                        }
                        Err(error) => {
                            tracing::warn!(error = %error, "due deliveries could not be read; trying again");
                            self.lanes.abandon_reads();
                            look = true;
                            resume_at = Instant::now() + pause;
                            pause = (pause * 2).min(PAUSE_MAX);
                        }
                    }
                }
                () = self.wake.woken() => look = true,
                () = tokio::time::sleep_until(next) => {}
            }
        }
        // The worker ends once it has done what it was handed. A step that is under way may lease lanes that nobody here knows.
        drop(jobs);
        if let Some(stepping) = stepping
            && let Ok(found) = stepping.await
        {
            self.apply(found);
        }
        self.wind_down(renew_at).await;
    }

    /// When there is something to do again without being told.
    fn next_look(&self, latest: Instant, resume_at: Instant, is_stepping: bool) -> Instant {
        let now = Instant::now();
        let mut next = latest;
        if let Some(timer) = self.lanes.next_timer() {
            next = next.min(now + timer.since(self.clock.now()).max(Duration::from_millis(1)));
        }
        if !is_stepping && resume_at > now {
            next = next.min(resume_at);
        }
        next.max(now)
    }

    fn targets_age(&self) -> Option<Duration> {
        self.targets_read_at.map(|read_at| read_at.elapsed())
    }

    /// Whether a step is to read all lanes' targets again, if there is one.
    fn rereads_targets(&self) -> bool {
        self.targets_wanted
            || self
                .targets_age()
                .is_none_or(|age| age >= TARGETS_READ_AFTER)
    }

    /// Whether a step is to be made. Old targets alone are no reason while nothing waits to be sent there.
    fn wants_step(&self, look: bool, rereads_targets: bool) -> bool {
        look || self.lanes.wants_rows()
            || self.targets_wanted
            || (rereads_targets && self.lanes.has_waiting())
    }

    fn begin_step(&mut self, look: bool, reread_targets: bool) -> Stepping {
        let request = Request {
            look,
            leases: self.lanes.leases(),
            room: self.lanes.room(),
            full: self.lanes.merchants_at_their_share(),
            reread_targets,
            targets: self.targets.clone(),
            room_bytes: self.lanes.room_bytes(),
            wants: self.lanes.begin_read(),
        };
        self.targets_wanted = false;
        let reader = Arc::clone(&self.reader);
        // A task of its own, so that what it decodes does not keep anybody waiting for a turn.
        let task = tokio::spawn(async move { reader.step(request).await });
        async move {
            task.await
                .unwrap_or_else(|error| Err(Error::Broken(error.to_string())))
        }
        .boxed()
    }

    /// Takes in what a step has found.
    fn apply(&mut self, step: Step) {
        let now = self.clock.now();
        for lease in step.seen {
            // What was disabled may have been enabled.
            if self.lanes.raise(lease.endpoint, lease.signal) && !self.sends(lease.endpoint) {
                self.targets_wanted = true;
            }
        }
        if !step.leased.is_empty() && self.lanes.is_empty() {
            self.leased_until = step.leased_until;
        }
        for (lease, breaker_openings) in step.leased {
            self.lanes.take(lease, breaker_openings);
            self.lanes.is_being_read(lease.endpoint);
        }
        if step.targets_read_at >= self.targets_changed_at {
            self.targets_read_at = step.targets_read_at.or(self.targets_read_at);
        }
        for (endpoint, target) in step.targets {
            match target {
                // Deleted; its lane is gone too.
                None => self.forget(endpoint),
                Some(target) => self.aim(endpoint, target, now),
            }
        }
        for read in step.reads {
            if self.sends(read.lease.endpoint) {
                self.lanes.fill(read.lease, read.rows, &read.extent, now);
            } else {
                // Whatever is due in it stays there until somebody enables the endpoint.
                self.lanes.clear(read.lease.endpoint);
            }
        }
    }

    fn aim(&mut self, endpoint: EndpointId, target: Arc<ReadyTarget>, now: Timestamp) {
        if let Some(known) = self.targets.get(&endpoint) {
            if known.means.version != target.means.version {
                // Its owner has mended something, or has had it disabled and enabled since we last looked.
                self.lanes.trust(endpoint);
            } else if known.receiver != target.receiver {
                // What waits was read for other eyes: personal data may be missing from it.
                self.lanes.reread(endpoint);
            }
        }
        if target.url.is_none() {
            self.lanes.clear(endpoint);
        }
        self.lanes.heed(endpoint, target.means.wishes, now);
        self.targets.insert(endpoint, target);
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
                Some(ended) = self.ended.recv() => self.note(ended),
                () = tokio::time::sleep(pause) => {}
            }
            while let Ok(ended) = self.ended.try_recv() {
                self.note(ended);
            }
        }
    }

    /// Lets go of all lanes that have nothing on its way: what waits in them, and what is being added to them, is for others to send. False if
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
        let now = self.clock.now();
        let mut tx = self.database.begin_in_order().await?;
        let seen = store::look(&mut tx, self.owner, &idle).await?;
        let targets = &self.targets;
        let targets = self.reader.targets(&mut tx, &seen, targets, now).await?;
        let next_due = store::next_due(&mut tx, &seen).await?;
        tx.commit().await?;
        for (endpoint, target) in targets {
            if let Some(target) = target {
                self.aim(endpoint, target, now);
            }
        }
        // Also of endpoints to which nothing was sent when we last looked at them: with the signal we may just have passed over their being
        // enabled. If nothing goes there after all, the next owner finds out.
        let lanes: Vec<store::Release> = seen
            .iter()
            .map(|lease| self.release_of(*lease, next_due.get(&lease.endpoint).copied()))
            .collect();
        let mut tx = self.database.begin().await?;
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

    fn release_of(&self, lease: Lease, next_due: Option<Timestamp>) -> store::Release {
        let rest_until = self.lanes.quiet_until(lease.endpoint, self.clock.now());
        store::Release {
            lease,
            due_at: next_due.map(|due_at| rest_until.map_or(due_at, |until| due_at.max(until))),
            breaker_openings: self.lanes.breaker_openings(lease.endpoint),
            rest_until,
        }
    }

    fn note(&mut self, ended: Ended) {
        let now = self.clock.now();
        match ended {
            Ended::Answered {
                lease,
                sequences,
                ending,
                duration,
            } => {
                self.lanes
                    .answered(lease, &sequences, ending, duration, now);
            }
            Ended::Recorded(recorded) => {
                for (lease, sequence, again_at) in recorded {
                    if self.lanes.recorded(lease, sequence, again_at, now) {
                        // What else waits for it is not to be given up on as well, and goes where the endpoint now is.
                        self.targets_wanted = true;
                        self.targets_read_at = None;
                        self.targets_changed_at = Some(Instant::now());
                    }
                }
            }
            // Nobody knows what came of it: the lane is left to run out, and whoever has it next repeats the delivery.
            Ended::Lost(lease) => {
                if self.lanes.owns(lease) {
                    self.forget(lease.endpoint);
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
                        tracing::warn!(endpoint.id = %lease.endpoint, "a lane is no longer ours: its endpoint was deleted, or another worker has it");
                        self.forget(lease.endpoint);
                    }
                }
            }
            Err(error) => tracing::warn!(error = %error, "leases could not be renewed"),
        }
    }

    /// Tells the metrics what this process is about.
    fn measure(&self) {
        let standing = self.lanes.standing();
        metrics::lanes_owned(standing.lanes);
        metrics::in_flight(standing.in_flight);
    }

    /// Has the table know of breakers that have closed, while their lanes go on being ours: operators see it there, and so does the next owner if this
    /// process dies.
    async fn tell_recovered(&mut self) {
        let recovered = self.lanes.recovered();
        if recovered.is_empty() {
            return;
        }
        match breaker::store::close(&self.database, self.owner, &recovered).await {
            Ok(()) => self.lanes.told_recovered(&recovered),
            Err(error) => {
                tracing::warn!(error = %error, "breakers that have closed could not be noted");
            }
        }
    }

    /// Hands out what limits allow. False if nobody takes it any more.
    async fn hand_out(&mut self, jobs: &mpsc::Sender<Vec<Job>>) -> bool {
        let now = self.clock.now();
        // A view of grants that can't be renewed sends nothing, nor do lanes that may be another's by now.
        let is_fresh = self.targets_age().is_some_and(|age| age < TARGETS_KEPT_FOR);
        if !is_fresh || now >= self.leased_until {
            return true;
        }
        let mut task = Vec::new();
        while let Some((lease, rows)) = self.lanes.next(now) {
            let ticket = Ticket::new(
                lease,
                rows.iter().map(|row| row.sequence).collect(),
                self.ended_sender.clone(),
            );
            let Some(target) = self
                .targets
                .get(&lease.endpoint)
                .filter(|target| target.url.is_some())
                .cloned()
            else {
                continue;
            };
            let is_awaited = rows.iter().any(|row| row.resource.is_some());
            let items = rows.into_iter().map(|row| Item {
                sequence: row.sequence,
                number: row.payload.attempt_count.saturating_add(1),
                event: row.payload.event,
                renders: row.payload.renders,
                personal: row.payload.personal,
                fault: row.payload.fault,
            });
            task.push(Job {
                lease,
                items: items.collect(),
                target,
                is_awaited,
                sent_before: self.leased_until,
                ticket,
            });
            if task.len() == REQUESTS_PER_TASK
                && jobs.send(std::mem::take(&mut task)).await.is_err()
            {
                return false;
            }
        }
        task.is_empty() || jobs.send(task).await.is_ok()
    }

    /// Lets go of lanes that have been idle for long enough, unless something was added to them; at once of those that rest or take nothing, and of all that
    /// are idle if there is no room for others.
    async fn release_idle(&mut self) {
        let idle = self.lanes.idle();
        let lanes = &self.lanes;
        self.idle_since
            .retain(|endpoint, _| !lanes.has_work(*endpoint));
        let (now, time) = (Instant::now(), self.clock.now());
        let is_full = self.lanes.room() == 0;
        let ripe: Vec<Lease> = idle
            .into_iter()
            .filter(|lease| {
                let idle_since = *self.idle_since.entry(lease.endpoint).or_insert(now);
                let is_ripe = is_full
                    || !self.sends(lease.endpoint)
                    || self.lanes.rest_until(lease.endpoint).is_some()
                    || now.duration_since(idle_since) >= self.lanes.limits().linger;
                is_ripe && !self.lanes.is_in_doubt(lease.endpoint, time)
            })
            .collect();
        if ripe.is_empty() {
            return;
        }
        match self.release(&ripe).await {
            Ok(released) => {
                for lease in ripe {
                    if released.contains(&lease.endpoint) {
                        if is_full {
                            // There is room for others.
                            self.wake.wake();
                        }
                        self.forget(lease.endpoint);
                    } else {
                        self.lanes.reread(lease.endpoint);
                        self.idle_since.remove(&lease.endpoint);
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
        let mut tx = self.database.begin_in_order().await?;
        let next_due = store::next_due(&mut tx, leases).await?;
        tx.commit().await?;
        let lanes: Vec<store::Release> = leases
            .iter()
            .map(|lease| {
                let next_due = next_due
                    .get(&lease.endpoint)
                    .filter(|_| self.sends(lease.endpoint));
                self.release_of(*lease, next_due.copied())
            })
            .collect();
        let mut tx = self.database.begin().await?;
        let released = store::release(&mut tx, self.owner, &lanes).await?;
        tx.commit().await?;
        Ok(released)
    }
}

/// The step that is under way, or nothing for ever.
async fn under_way(stepping: &mut Option<Stepping>) -> Result<Step, Error> {
    match stepping {
        Some(stepping) => stepping.await,
        None => std::future::pending().await,
    }
}
