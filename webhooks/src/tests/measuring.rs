//! What the sampler tells operators of the queue.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use kernel::clock::{Clock, Timestamp};

use super::world::{World, made};
use crate::{
    metrics::Sampler,
    replay::{Selection, Start, StartInput},
};

/// What was counted in this thread while it is installed as the local recorder.
#[derive(Default)]
pub(super) struct Counters(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Counters {
    /// The count of a metric with one label of this value.
    pub(super) fn of(&self, name: &str, value: &str) -> u64 {
        let counted = self.0.lock().unwrap();
        let count = counted.get(&format!("{name} {value}"));
        count.map_or(0, |count| count.load(Ordering::SeqCst))
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let values = key.labels().map(|label| format!(" {}", label.value()));
        let name = format!("{}{}", key.name(), values.collect::<String>());
        Counter::from_arc(Arc::clone(self.0.lock().unwrap().entry(name).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lag_is_the_age_of_what_is_oldest_and_nothing_when_nothing_waits() {
    // Events' ids tell their time to the millisecond.
    let now = Timestamp::from_unix_millis(Clock::system().now().unix_millis());
    let clock = Clock::manual(now);
    let world = World::at(clock.clone()).await;
    let sampler = Sampler::new(world.worker.clone(), clock.clone());
    let idle = sampler.sample().await.unwrap();
    assert_eq!(
        (idle.delivery_lag, idle.relay_lag, idle.replays_running),
        (Duration::ZERO, Duration::ZERO, 0)
    );
    let endpoint = world
        .endpoint(Some("http://127.0.0.1:9/"))
        .await
        .endpoint
        .id;
    world.append(&[made("a", 1)]).await;
    clock.advance(Duration::from_secs(3));
    world.append(&[made("b", 1)]).await;
    clock.advance(Duration::from_secs(4));
    let unrelayed = sampler.sample().await.unwrap();
    assert_eq!(
        (unrelayed.delivery_lag, unrelayed.relay_lag),
        (Duration::ZERO, Duration::from_secs(7))
    );
    world.relay_all().await;
    clock.advance(Duration::from_secs(5));
    world.append(&[made("c", 1)]).await;
    world.relay_all().await;
    let input = StartInput {
        endpoint,
        selection: Selection::default(),
    };
    world.run(&Start { input }).await.unwrap();
    let undelivered = sampler.sample().await.unwrap();
    assert_eq!(
        (
            undelivered.delivery_lag,
            undelivered.relay_lag,
            undelivered.replays_running
        ),
        (Duration::from_secs(5), Duration::ZERO, 1)
    );
    // A retry that is not due yet is no lag, though its lane may still say so.
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("update deliveries set due_at = due_at + interval '1 hour'")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let waiting = sampler.sample().await.unwrap();
    assert_eq!(waiting.delivery_lag, Duration::ZERO);
}

#[tokio::test]
async fn what_waits_behind_a_breaker_is_a_lag_of_its_own_and_the_breaker_is_counted_by_its_state() {
    let clock = Clock::manual(Clock::system().now());
    let world = World::at(clock.clone()).await;
    let sampler = Sampler::new(world.worker.clone(), clock.clone());
    world.endpoint(Some("http://127.0.0.1:9/")).await;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    // As a worker lets go of a lane whose breaker has opened.
    let rest_until = clock.now().plus(Duration::from_mins(5));
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("update lanes set breaker_count = 9, rest_until = $1, due_at = $1")
        .bind(rest_until)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    clock.advance(Duration::from_secs(7));
    let measured = async || {
        let sample = sampler.sample().await.unwrap();
        let states = (sample.open, sample.half_open);
        (states, sample.delivery_lag, sample.resting_lag)
    };
    let lag = Duration::from_secs;
    assert_eq!(measured().await, ((1, 0), lag(0), lag(7)));
    clock.advance(Duration::from_mins(5));
    assert_eq!(measured().await, ((0, 1), lag(0), lag(307)));
    // Its owner has mended something.
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("update lanes set breaker_count = 0, rest_until = null, due_at = $1")
        .bind(clock.now())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(measured().await, ((0, 0), lag(307), lag(0)));
}
