//! Walks through endpoints' lives on a clock that is moved by hand, against a model: receivers fail, hang up, are gone, ask for patience and come
//! back; owners disable, enable, and replay; workers stop and die; days pass. After each step, once nothing more is to be done at the clock's present,
//! what was sent and what the tables say is what the model says.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    time::Duration,
};

use kernel::{clock::Clock, db::Transaction};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use sqlx::AssertSqlSafe;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::{ATTEMPTS, PATIENCE, World, made};
use crate::{
    dead_letter::{DeadLetterId, Replay},
    delivery::AttemptId,
    endpoint::{
        CatchUp, EndpointChange, EndpointId, Status,
        settings::{DeliverySettings, Ordering},
    },
    replay::{
        ReplayEvent, ReplayEventInput, ReplayId, Replayer, SelectedState, Selection, Start,
        StartInput,
    },
    retry::Schedule,
    worker::Limits,
};

mod breaker;
mod fare;
mod model;
mod seen;
mod walker;

use seen::{Said, Seen};
use walker::{IN_FLIGHT, Mood, Walker};

/// Steps of a walk, before all is mended and what is left is delivered.
const STEPS: usize = 50;

/// Rounds in which all that is left has to be delivered once all is mended.
const LAST_ROUNDS: usize = 1_000;

const RESOURCES: usize = 5;

/// A lease, and how much of it may pass while a worker that lives holds lanes: it renews them by the time of the machine.
const LEASE: Duration = Duration::from_secs(10);
const HELD_MAX: Duration = Duration::from_secs(8);

/// A worker under way.
struct AtWork {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

struct Walk {
    seed: u64,
    random: StdRng,
    world: World,
    clock: Clock,
    walkers: Vec<Walker>,
    versions: [i64; RESOURCES],
    worker: Option<AtWork>,
    /// How far the clock has moved since nobody held a lane.
    held_for: Duration,
    /// How often an endpoint was enabled, so that each way to catch up has its turn.
    enabled: usize,
    history: String,
}

impl Walk {
    async fn begin(seed: u64) -> Self {
        let clock = Clock::manual(Clock::system().now());
        let world = World::at(clock.clone()).await;
        let settings = [
            DeliverySettings::default(),
            DeliverySettings {
                ordering: Ordering::Resource,
                retry_waits_seconds: Some(vec![5, 60, 3_600, 6 * 3_600]),
                ..DeliverySettings::default()
            },
            DeliverySettings {
                concurrency_max: Some(2),
                retry_waits_seconds: Some(vec![10]),
                ..DeliverySettings::default()
            },
            DeliverySettings {
                ordering: Ordering::Resource,
                concurrency_max: Some(1),
                retry_waits_seconds: Some(vec![3_600, 36_000, 86_400, 86_400, 86_400, 86_400]),
                ..DeliverySettings::default()
            },
        ];
        let mut walkers = Vec::new();
        for (number, delivery) in (1..).zip(settings) {
            walkers.push(Walker::new(&world, seed ^ number, delivery).await);
        }
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            world,
            clock,
            walkers,
            versions: [0; RESOURCES],
            worker: None,
            held_for: Duration::ZERO,
            enabled: 0,
            history: String::new(),
        }
    }

    fn noted(&mut self, what: std::fmt::Arguments<'_>) {
        writeln!(self.history, "{}  {what}", self.clock.now()).unwrap();
    }

    /// Lets time go on, beyond what a lease bears only while nobody who lives holds one.
    async fn wait(&mut self, by: Duration) {
        let held = self.held().await;
        if held == 0 {
            self.held_for = Duration::ZERO;
        }
        self.held_for += by;
        let is_too_long = held > 0 && self.held_for > HELD_MAX;
        if self.worker.is_some() && (is_too_long || self.random.random_bool(0.2)) {
            if by > LEASE && self.random.random_bool(0.5) {
                self.kill().await;
            } else {
                self.stop().await;
            }
        }
        self.noted(format_args!("{by:?} pass"));
        self.clock.advance(by);
    }

    /// Lanes that somebody who lives holds.
    async fn held(&self) -> i64 {
        let mut tx = self.look().await;
        let held = sqlx::query_scalar("select count(*) from lanes where lease_until > $1");
        let held = held.bind(self.clock.now()).fetch_one(&mut *tx).await;
        tx.commit().await.unwrap();
        held.unwrap()
    }

    async fn stop(&mut self) {
        self.noted(format_args!("the worker stops"));
        let AtWork { stop, task } = self.worker.take().unwrap();
        stop.cancel();
        let stopped = tokio::time::timeout(PATIENCE, task).await;
        stopped.expect("it stops in time").unwrap();
        assert_eq!(self.held().await, 0, "seed {}: a lane was kept", self.seed);
        self.held_for = Duration::ZERO;
    }

    /// The worker is no more, and leaves its leases as they are.
    async fn kill(&mut self) {
        self.noted(format_args!("the worker dies"));
        let AtWork { task, .. } = self.worker.take().unwrap();
        task.abort();
        let _ = task.await;
        let now = self.clock.now();
        let all = Seen::of(&self.world, &self.ids(), now).await;
        for (walker, seen) in self.walkers.iter_mut().zip(all) {
            if seen.lane.is_held {
                walker.model.owner_died(&seen.lane);
            }
        }
    }

    fn ids(&self) -> Vec<EndpointId> {
        self.walkers.iter().map(|walker| walker.id).collect()
    }

    fn begin_work(&mut self) {
        let limits = Limits {
            linger: Duration::ZERO,
            in_flight_per_endpoint: usize::try_from(IN_FLIGHT).unwrap(),
            ..Limits::default()
        };
        let worker = self.world.worker_by(Schedule::default(), limits);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let task = tokio::spawn(async move { worker.run(stopping).await });
        self.worker = Some(AtWork { stop, task });
    }

    /// Until nothing more is to be done at the clock's present; then all is as it should be.
    async fn settle(&mut self) {
        if self.worker.is_none() {
            self.begin_work();
        }
        let settled = tokio::time::timeout(PATIENCE, async {
            while self.is_busy().await {
                self.world.wake.wake();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if settled.await.is_err() {
            let received = self.walkers.iter().map(|walker| {
                let told = walker.told.lock().unwrap();
                format!("meanwhile received: {:?}", told.received)
            });
            let mut faults = vec!["it never comes to rest".to_owned()];
            faults.extend(received);
            self.fail(&faults).await;
        }
        self.observe().await;
    }

    /// Relays and replays what is to be, and says whether anything else is to be done: something that was received is not recorded, or a lane is somebody's or
    /// due, but for what has to be held while its receiver wants to be left alone.
    async fn is_busy(&self) -> bool {
        let now = self.clock.now();
        let mut received = 0;
        let mut left_alone = Vec::new();
        for walker in &self.walkers {
            let told = walker.told.lock().unwrap();
            let is_asked =
                |(_, said): &(i64, Said)| said.is_busy() && !said.retry_after().is_zero();
            let asked = told.received.iter().any(is_asked);
            if asked || walker.model.paused_until(now).is_some() {
                received += i64::try_from(told.received.len()).unwrap();
                left_alone.push(walker.id);
            }
        }
        let mut tx = self.look().await;
        // A lane that is nobody's has nothing on its way.
        let (recorded, outbox, replays, lanes): (i64, i64, i64, i64) = sqlx::query_as(AssertSqlSafe(format!(
            "select
                (select count(*) from {ATTEMPTS} where merchant_id = $3 and endpoint_id = any($2) and id >= $4 and started_at = $1),
                (select count(*) from outbox),
                (select count(*) from replay_hints),
                (select count(*) from lanes where case when lease_until > $1 then endpoint_id <> all($2) else due_at <= $1 end)",
        )))
        .bind(now)
        .bind(&left_alone)
        .bind(self.world.merchant)
        .bind(AttemptId::least(now))
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
        if outbox > 0 {
            self.world.relay_all().await;
        }
        // One of an endpoint that is disabled waits for that.
        let has_replayed = replays > 0 && self.replay_all().await;
        has_replayed || recorded < received || outbox > 0 || lanes > 0
    }

    /// Says whether any replay came further.
    async fn replay_all(&self) -> bool {
        let replayer = Replayer::new(
            self.world.worker.clone(),
            self.clock.clone(),
            self.world.wake.clone(),
        );
        let mut pauses = HashMap::new();
        let before = self.replays_running().await;
        while replayer.round(&mut pauses).await.unwrap() {}
        self.replays_running().await < before
    }

    async fn replays_running(&self) -> i64 {
        self.count("select count(*) from replay_hints").await
    }

    async fn count(&self, count: &'static str) -> i64 {
        let mut tx = self.look().await;
        let count = sqlx::query_scalar(count).fetch_one(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        count
    }

    /// A transaction for looking at whole tables. Those have no index to go by, which our connections count as so dear that PostgreSQL would compile the
    /// statement first.
    async fn look(&self) -> Transaction {
        let mut tx = self.world.worker.begin().await.unwrap();
        let cheap = sqlx::query("set local jit = off");
        cheap.execute(&mut *tx).await.unwrap();
        tx
    }

    async fn observe(&mut self) {
        let now = self.clock.now();
        let mut faults = Vec::new();
        let all = Seen::of(&self.world, &self.ids(), now).await;
        for (place, seen) in all.into_iter().enumerate() {
            let walker = &mut self.walkers[place];
            let received = std::mem::take(&mut walker.told.lock().unwrap().received);
            match seen.recorded(&received) {
                Ok(sent) => walker.model.observe(&sent, &seen, now),
                Err(fault) => faults.push(format!("endpoint {place}: {fault}")),
            }
            let of_model = walker.model.faults().iter();
            faults.extend(of_model.map(|fault| format!("endpoint {place}: {fault}")));
            if !received.is_empty() {
                self.noted(format_args!("endpoint {place} was sent {received:?}"));
            }
        }
        if !faults.is_empty() {
            self.fail(&faults).await;
        }
    }

    async fn fail(&self, faults: &[String]) -> ! {
        let all = Seen::of(&self.world, &self.ids(), self.clock.now()).await;
        let lanes: Vec<String> = all
            .iter()
            .map(|seen| format!("{:?}\n", seen.lane))
            .collect();
        let Self { seed, history, .. } = self;
        panic!(
            "STOA_TEST_SEED={seed}\n{history}{}{}",
            lanes.concat(),
            faults.join("\n")
        );
    }

    /// Some events of some resources.
    async fn append(&mut self) {
        let now = self.clock.now();
        let mut events = Vec::new();
        for _ in 0..self.random.random_range(1..=14) {
            let resource = self.random.random_range(0..RESOURCES);
            self.versions[resource] += 1;
            events.push(made(&format!("o{resource}"), self.versions[resource]));
        }
        self.noted(format_args!("{} events", events.len()));
        self.world.append(&events).await;
        self.world.relay_all().await;
        // The order in which they were numbered is the relay's.
        let all = Seen::of(&self.world, &self.ids(), now).await;
        for (walker, seen) in self.walkers.iter_mut().zip(all) {
            let known = walker.model.last_sequence();
            let new = seen.stream.iter().filter(|(sequence, _)| *sequence > known);
            let new: Vec<&String> = new.map(|(_, resource)| resource).collect();
            assert_eq!(new.len(), events.len());
            for resource in new {
                walker.model.numbered(resource, now);
            }
        }
    }

    fn change_mood(&mut self, place: usize) {
        let mood = match self.random.random_range(0..16) {
            0..4 => Mood::Up,
            4..9 => Mood::Down,
            9..11 => Mood::HangsUp,
            11..14 => Mood::Busy(
                *[429, 503].choose(&mut self.random).unwrap(),
                *[0, 3, 90, 7_200, 100_000].choose(&mut self.random).unwrap(),
            ),
            14 => Mood::Flaky,
            _ => Mood::Gone,
        };
        self.noted(format_args!("endpoint {place} is {mood:?}"));
        self.walkers[place].told.lock().unwrap().mood = mood;
    }

    async fn switch(&mut self, place: usize, status: Status, catch_up: Option<CatchUp>) {
        self.noted(format_args!(
            "endpoint {place} is switched to {status:?}, {catch_up:?}"
        ));
        let (id, now) = (self.walkers[place].id, self.clock.now());
        let change = EndpointChange {
            status: Some(status),
            catch_up,
            ..EndpointChange::default()
        };
        self.world.change(id, change).await.unwrap();
        let mut tx = self.world.worker.begin().await.unwrap();
        let begun: Option<ReplayId> =
            sqlx::query_scalar("select id from replays where endpoint_id = $1 and created_at = $2")
                .bind(id)
                .bind(now)
                .fetch_optional(&mut *tx)
                .await
                .unwrap();
        let model = &mut self.walkers[place].model;
        match status {
            Status::Enabled => model.enable(catch_up, begun, now),
            Status::Disabled => model.disable(now),
        }
    }

    async fn replay(&mut self, place: usize) {
        let Walker { id, model, .. } = &mut self.walkers[place];
        if !model.is_enabled() || model.last_sequence() == 0 {
            return;
        }
        let endpoint = *id;
        let now = self.clock.now();
        let sequence = self.random.random_range(1..=model.last_sequence());
        let what = self.random.random_range(0..5);
        match what {
            0 => {
                let input = ReplayEventInput { endpoint, sequence };
                self.world.run(&ReplayEvent { input }).await.unwrap();
                model.bring_forward(sequence, now);
            }
            1 => {
                let mut tx = self.world.worker.begin().await.unwrap();
                let letter: Option<(DeadLetterId, i64)> = sqlx::query_as(
                    "select id, sequence from dead_letters where endpoint_id = $1 order by id desc limit 1",
                )
                .bind(endpoint)
                .fetch_optional(&mut *tx)
                .await
                .unwrap();
                drop(tx);
                if let Some((id, sequence)) = letter {
                    self.world.run(&Replay { id }).await.unwrap();
                    model.letter_replayed(sequence, now);
                }
            }
            _ => {
                let states = [
                    SelectedState::All,
                    SelectedState::Missed,
                    SelectedState::Dead,
                ];
                let state = states[what - 2];
                let selection = Selection {
                    after_sequence: Some(sequence - 1),
                    state,
                    ..Selection::default()
                };
                let input = StartInput {
                    endpoint,
                    selection,
                };
                let replay = self.world.run(&Start { input }).await.unwrap();
                model.replay(replay.id, state, sequence - 1);
            }
        }
        self.noted(format_args!(
            "endpoint {place} is replayed {sequence}, in way {what}"
        ));
    }

    async fn step(&mut self) {
        let place = self.random.random_range(0..self.walkers.len());
        // So that what is sent from here on is told by its time.
        self.clock.advance(Duration::from_millis(1));
        match self.random.random_range(0..100) {
            0..35 => {
                let units = [1, 60, 1_500, 3_600, 86_400];
                let unit = *units.choose(&mut self.random).unwrap();
                let count = self.random.random_range(
                    1..=match unit {
                        86_400 => 6,
                        1_500 | 3_600 => 5,
                        _ => 20,
                    },
                );
                self.wait(Duration::from_secs(unit * count)).await;
            }
            35..55 => self.append().await,
            55..75 => self.change_mood(place),
            75..85 => {
                if self.walkers[place].model.is_enabled() {
                    self.append().await;
                } else {
                    self.enable(place).await;
                }
            }
            85..89 => {
                if self.walkers[place].model.is_enabled() {
                    self.switch(place, Status::Disabled, None).await;
                }
            }
            _ => self.replay(place).await,
        }
        self.settle().await;
    }

    async fn enable(&mut self, place: usize) {
        let catch_up = [Some(CatchUp::All), Some(CatchUp::None), None][self.enabled % 3];
        self.enabled += 1;
        self.switch(place, Status::Enabled, catch_up).await;
    }

    /// All is mended: whatever is left is delivered.
    async fn end(&mut self) {
        self.noted(format_args!("all is mended"));
        self.clock.advance(Duration::from_millis(1));
        for place in 0..self.walkers.len() {
            self.walkers[place].told.lock().unwrap().mood = Mood::Up;
            if !self.walkers[place].model.is_enabled() {
                self.enable(place).await;
            }
        }
        self.settle().await;
        for _ in 0..LAST_ROUNDS {
            let now = self.clock.now();
            let due = self
                .walkers
                .iter()
                .filter_map(|walker| walker.model.next_due(now));
            let Some(due) = due.min() else { break };
            self.wait(due.since(now).max(Duration::from_millis(1)))
                .await;
            self.settle().await;
        }
        for place in 0..self.walkers.len() {
            let model = &mut self.walkers[place].model;
            model.ended();
            if !model.faults().is_empty() {
                let faults = model.faults().to_vec();
                self.fail(&faults).await;
            }
        }
        assert_eq!(self.world.count("select count(*) from deliveries").await, 0);
        self.stop().await;
    }
}

/// Walks, and says how often what has happened.
async fn walk(seed: u64) -> BTreeMap<&'static str, u32> {
    let mut walk = Walk::begin(seed).await;
    for _ in 0..STEPS {
        walk.step().await;
    }
    walk.end().await;
    let mut tally = BTreeMap::new();
    for walker in walk.walkers {
        for (what, count) in walker.model.tally {
            *tally.entry(what).or_default() += count;
        }
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_to_an_endpoint_is_what_was_said_of_it() {
    // STOA_TEST_SEED at build time repeats the choices of a failed walk.
    let own = option_env!("STOA_TEST_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    let mut walks: JoinSet<_> = [1, 2, 3, own].into_iter().map(walk).collect();
    let mut tally: BTreeMap<&'static str, u32> = BTreeMap::new();
    let mut broken_off = 0;
    while let Some(walked) = walks.join_next().await {
        // Why has been printed with its seed.
        broken_off += i32::from(walked.is_err());
        for (what, count) in walked.unwrap_or_default() {
            *tally.entry(what).or_default() += count;
        }
    }
    assert_eq!(broken_off, 0, "walks were broken off");
    // A walk that comes to nothing shows nothing.
    for what in [
        "attempts_exhausted",
        "breaker opened",
        "catch up with all",
        "catch up with none",
        "catch up with what waited",
        "endpoint_gone",
        "failing",
        "gone",
        "left unqueued",
        "left dropped",
        "paused",
        "probe",
        "probe that was taken",
        "recovered",
        "replay",
        "requested",
        "taken",
        "warned",
    ] {
        assert!(tally.contains_key(what), "no {what}: {tally:?}");
    }
}
