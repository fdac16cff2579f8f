//! What goes when its time is over, and what stays.

use std::time::Duration;

use kernel::clock::{Clock, Timestamp};

use super::world::World;
use crate::{
    endpoint::{EndpointChange, EndpointId},
    replay::{Cancel, Selection, Start, StartInput},
    sweep,
};

const DAY: Duration = Duration::from_hours(24);
const RETENTION: Duration = Duration::from_hours(7 * 24);

async fn describe(world: &World, id: EndpointId, description: &str) {
    let change = EndpointChange {
        description: Some(Some(description.to_owned())),
        ..EndpointChange::default()
    };
    world.change(id, change).await.unwrap();
}

async fn swept(world: &World) -> u64 {
    sweep(&world.worker, RETENTION, world.clock.now())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_version_of_an_endpoint_goes_with_the_last_attempt_that_may_have_been_made_for_it() {
    let clock = Clock::manual(Clock::system().now());
    let world = World::at(clock.clone()).await;
    let changed = world.endpoint(Some("https://8.8.8.8/")).await.endpoint.id;
    world.endpoint(Some("https://8.8.4.4/")).await;
    clock.advance(DAY * 20);
    describe(&world, changed, "second").await;
    // The first was in force until now, however old it is.
    clock.advance(RETENTION);
    assert_eq!(swept(&world).await, 0);
    describe(&world, changed, "third").await;
    clock.advance(DAY * 3);
    assert_eq!(swept(&world).await, 1);
    let kept = "select count(*) from endpoint_versions";
    assert_eq!(world.count(kept).await, 3);
    // What is in force stays for ever, of both endpoints.
    clock.advance(DAY * 365);
    assert_eq!(swept(&world).await, 1);
    assert_eq!(world.count(kept).await, 2);
    let current = "select count(*) from endpoint_versions
        join endpoints using (merchant_id, version) where endpoints.id = endpoint_id";
    assert_eq!(world.count(current).await, 2);
}

#[tokio::test]
async fn hours_are_kept_for_a_month_and_replays_that_are_over_for_as_long_as_the_history() {
    let clock = Clock::manual(Timestamp::from_unix_millis(1_800_000_000_000));
    let world = World::at(clock.clone()).await;
    let endpoint = world.endpoint(Some("https://8.8.8.8/")).await.endpoint.id;
    let mut tx = world.worker.begin().await.unwrap();
    for days in [0, 20, 32, 400] {
        sqlx::query(
            "insert into endpoint_hours (merchant_id, endpoint_id, hour, succeeded, failed, duration_counts)
            values ($1, $2, $3, 1, 0, '{}')",
        )
        .bind(world.merchant)
        .bind(endpoint)
        .bind(clock.now().minus(DAY * days))
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(swept(&world).await, 2);
    assert_eq!(world.count("select count(*) from endpoint_hours").await, 2);
    let start = async || {
        let input = StartInput {
            endpoint,
            selection: Selection::default(),
        };
        world.run(&Start { input }).await.unwrap().id
    };
    start().await;
    let over = start().await;
    world.run(&Cancel { id: over }).await.unwrap();
    let replays = "select count(*) from replays";
    clock.advance(RETENTION);
    assert_eq!(swept(&world).await, 0);
    assert_eq!(world.count(replays).await, 2);
    clock.advance(DAY);
    assert_eq!(swept(&world).await, 1);
    let running = "select count(*) from replays where status = 'running'";
    assert_eq!(world.count(running).await, 1);
    assert_eq!(world.count(replays).await, 1);
}
