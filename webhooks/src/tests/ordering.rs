//! Order by resource, against a model: whatever fails, is retried, replayed or killed, no event of a resource is attempted while an earlier one of it
//! is still to be taken, and other resources are not held back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use kernel::clock::Clock;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio_util::sync::CancellationToken;

use super::{
    receiver::{Received, Receiver, Reply},
    world::{PATIENCE, World, limits, made},
};
use crate::{
    endpoint::{
        Create, EndpointId, EndpointInput, SettingsChange,
        settings::{DeliverySettings, Ordering},
    },
    replay::{ReplayEvent, ReplayEventInput},
    worker::Worker,
};

const RESOURCES: usize = 10;
const VERSIONS: i64 = 8;

/// The resource that is refused for as long as the receiver is told to.
const STUCK: &str = "o0";

/// What has to hold, as the receiver sees it.
#[derive(Debug)]
struct Model {
    random: StdRng,
    is_stuck: bool,
    resources: BTreeMap<String, Taken>,
    faults: Vec<String>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Versions that were taken at least once.
    once: BTreeSet<i64>,
    /// The version that was taken last.
    latest: Option<i64>,
    /// Versions that were queued again and not taken since.
    again: BTreeSet<i64>,
}

impl Model {
    fn attempt(&mut self, request: &Received) -> Reply {
        let resource = request.body["resource"]["id"].as_str().unwrap().to_owned();
        let version = request.body["resource"]["version"].as_i64().unwrap();
        let taken = self.resources.entry(resource.clone()).or_default();
        let earlier = (1..version).find(|earlier| !taken.once.contains(earlier));
        let replayed = taken.again.iter().find(|earlier| **earlier < version);
        if let Some(earlier) = earlier.or(replayed.copied()) {
            self.faults.push(format!(
                "{resource}: {version} was sent before {earlier} was taken"
            ));
        }
        // The one that was taken last may come again, since its worker may have died before that was recorded; the next one waits for that.
        let is_repeated = taken.once.contains(&version) && !taken.again.contains(&version);
        if is_repeated && taken.latest != Some(version) {
            self.faults.push(format!(
                "{resource}: {version} was sent again after another"
            ));
        }
        if (self.is_stuck && resource == STUCK) || self.random.random_bool(0.25) {
            return Reply::Status(503);
        }
        taken.latest = Some(version);
        taken.once.insert(version);
        taken.again.remove(&version);
        Reply::Status(204)
    }
}

/// A worker in a runtime of its own, so that nothing of it survives when it is killed.
struct Killable {
    kill: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Killable {
    fn start(worker: Worker) -> Self {
        let kill = CancellationToken::new();
        let killed = kill.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let run = worker.run(CancellationToken::new());
                tokio::select! {
                    () = run => {}
                    () = killed.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { kill, thread }
    }

    async fn kill(self) {
        self.kill.cancel();
        tokio::task::spawn_blocking(move || self.thread.join().unwrap())
            .await
            .unwrap();
    }
}

struct Run {
    seed: u64,
    world: World,
    clock: Clock,
    endpoint: EndpointId,
    model: Arc<Mutex<Model>>,
    worker: Option<Killable>,
}

impl Run {
    async fn start(seed: u64) -> Self {
        let clock = Clock::manual(Clock::system().now());
        let world = World::at(clock.clone()).await;
        let model = Arc::new(Mutex::new(Model {
            random: StdRng::seed_from_u64(seed),
            is_stuck: true,
            resources: BTreeMap::new(),
            faults: Vec::new(),
        }));
        let judge = Arc::clone(&model);
        let receiver =
            Receiver::start(move |request, _| judge.lock().unwrap().attempt(request)).await;
        let input = EndpointInput {
            url: Some(receiver.url.clone()),
            settings: SettingsChange {
                delivery: Some(DeliverySettings {
                    ordering: Ordering::Resource,
                    ..DeliverySettings::default()
                }),
                ..SettingsChange::default()
            },
            ..EndpointInput::default()
        };
        let setting = world.setting();
        let endpoint = world
            .run(&Create { input, setting })
            .await
            .unwrap()
            .endpoint
            .id;
        let mut run = Self {
            seed,
            world,
            clock,
            endpoint,
            model,
            worker: None,
        };
        run.revive();
        run
    }

    fn revive(&mut self) {
        let worker = self
            .world
            .worker_apart(&vec![Duration::from_millis(3); 100_000], limits());
        self.worker = Some(Killable::start(worker));
    }

    async fn kill_and_revive(&mut self) {
        self.worker.take().unwrap().kill().await;
        // Its leases are over.
        self.clock.advance(Duration::from_secs(11));
        self.revive();
    }

    /// Lets time go on until a count is what it should become.
    async fn until(&self, sql: &str, expected: i64) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.world.count(sql).await != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
                self.clock.advance(Duration::from_millis(50));
            }
        });
        let is_in_time = waited.await.is_ok();
        let faults = self.model.lock().unwrap().faults.clone();
        assert!(faults.is_empty(), "seed {}: {faults:?}", self.seed);
        assert!(
            is_in_time,
            "{sql}: {} and not {expected}",
            self.world.count(sql).await
        );
    }
}

async fn holds(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut run = Run::start(seed).await;
    let mut versions = [0_i64; RESOURCES];
    let mut left: Vec<usize> = (0..RESOURCES)
        .flat_map(|resource| vec![resource; usize::try_from(VERSIONS).unwrap()])
        .collect();
    while !left.is_empty() {
        let count = random.random_range(1..=12).min(left.len());
        let mut batch = Vec::new();
        for _ in 0..count {
            let resource = left.swap_remove(random.random_range(0..left.len()));
            versions[resource] += 1;
            batch.push(made(&format!("o{resource}"), versions[resource]));
        }
        run.world.append(&batch).await;
        run.world.relay_all().await;
        run.world.wake.wake();
        run.clock
            .advance(Duration::from_millis(random.random_range(0..40)));
        if random.random_bool(0.2) {
            run.kill_and_revive().await;
        }
    }
    // Other resources are not held back by the one that is refused.
    run.until("select count(*) from deliveries", VERSIONS).await;
    run.model.lock().unwrap().is_stuck = false;
    run.until("select count(*) from deliveries", 0).await;

    // Replays, and new events behind them.
    for resource in 0..RESOURCES {
        let name = format!("o{resource}");
        let stream = run.world.stream(run.endpoint).await;
        for version in 1..=VERSIONS {
            if random.random_bool(0.3) {
                let (sequence, ..) = stream
                    .iter()
                    .find(|(_, id, of)| *id == name && *of == version)
                    .unwrap();
                run.model
                    .lock()
                    .unwrap()
                    .resources
                    .get_mut(&name)
                    .unwrap()
                    .again
                    .insert(version);
                let input = ReplayEventInput {
                    endpoint: run.endpoint,
                    sequence: *sequence,
                };
                run.world.run(&ReplayEvent { input }).await.unwrap();
            }
        }
        run.world.append(&[made(&name, VERSIONS + 1)]).await;
        if random.random_bool(0.2) {
            run.kill_and_revive().await;
        }
    }
    run.world.relay_all().await;
    run.until("select count(*) from deliveries", 0).await;
    run.worker.take().unwrap().kill().await;
    let model = run.model.lock().unwrap();
    let all: BTreeSet<i64> = (1..=VERSIONS + 1).collect();
    assert_eq!(model.resources.len(), RESOURCES);
    for taken in model.resources.values() {
        assert_eq!((&taken.once, taken.again.len()), (&all, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_resources_events_are_taken_in_their_order_whatever_happens() {
    for seed in [1, 2, rand::random()] {
        tracing::info!(seed, "with this randomness");
        holds(seed).await;
    }
}
