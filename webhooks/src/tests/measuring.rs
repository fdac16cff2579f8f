//! What the sampler tells operators of the queue.

use std::time::Duration;

use kernel::clock::Clock;

use super::world::{World, made};
use crate::{
    metrics::Sampler,
    replay::{Selection, Start, StartInput},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lag_is_the_age_of_what_is_oldest_and_nothing_when_nothing_waits() {
    let clock = Clock::manual(Clock::system().now());
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
