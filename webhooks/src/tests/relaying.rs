//! The relay: everything once, in order, without gaps, whatever happens beside it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kernel::{
    actor::Access,
    clock::{Clock, Timestamp},
    id::LocationId,
    scope::Scope,
};

use tokio_util::sync::CancellationToken;

use super::world::{Made, World, made, scopes};
use crate::{
    endpoint::{Delete, DeleteInput, EndpointChange, Ping, Status},
    relay::{BATCH_EVENTS_MAX, Moved},
};

/// Asserts that a stream is 1, 2, 3 …, holds `count` events, each once, and each resource's in the order of versions.
fn assert_whole(stream: &[(i64, String, i64)], count: usize) {
    let sequences: Vec<i64> = stream.iter().map(|(sequence, _, _)| *sequence).collect();
    assert_eq!(
        sequences,
        (1..=i64::try_from(count).unwrap()).collect::<Vec<_>>()
    );
    let mut versions: HashMap<&str, i64> = HashMap::new();
    for (sequence, resource, version) in stream {
        let last = versions.entry(resource).or_default();
        assert_eq!(*version, *last + 1, "{resource} at {sequence}");
        *last = *version;
    }
}

#[tokio::test]
async fn a_pass_moves_events_into_history_streams_and_queue() {
    let world = World::new().await;
    let pushed = world
        .endpoint(Some("https://8.8.8.8/hook"))
        .await
        .endpoint
        .id;
    let pulled = world.endpoint(None).await.endpoint.id;
    world
        .append(&[made("a", 1), made("b", 1), made("a", 2)])
        .await;
    let moved = world.relay().pass(world.merchant).await.unwrap();
    assert_eq!(
        moved,
        Moved {
            events: 3,
            stream_entries: 6,
            deliveries: 3,
            more: false
        }
    );
    assert_eq!(world.count("select count(*) from outbox").await, 0);
    assert_eq!(
        world
            .count("select count(*) from events where feed_number between 1 and 3")
            .await,
        3
    );
    assert_eq!(world.count("select last_number from feeds").await, 3);
    assert_whole(&world.stream(pushed).await, 3);
    assert_whole(&world.stream(pulled).await, 3);
    let lanes = "select count(*) from lanes where due_at is not null and signal = 1";
    assert_eq!(world.count(lanes).await, 1);
    assert_eq!(
        world.relay().pass(world.merchant).await.unwrap(),
        Moved::default()
    );
}

#[tokio::test]
async fn each_endpoint_is_numbered_by_what_it_is_sent() {
    let world = World::new().await;
    let (here, there) = (
        LocationId::new(world.clock.now()),
        LocationId::new(world.clock.now()),
    );
    let limited = Access {
        scopes: scopes("orders:read webhooks:write"),
        locations: Some(vec![here]),
        personal_data: false,
    };
    let limited = world.other_app(limited).await;
    let all = world.endpoint(None).await.endpoint.id;
    let cancelled = world
        .endpoint_of(&world.actor, None, Some(&["order.cancelled"]))
        .await
        .endpoint
        .id;
    let local = world.endpoint_of(&limited, None, None).await.endpoint.id;
    let cancelled_event = Made {
        kind: "order.cancelled",
        ..made("a", 2)
    };
    world
        .append(&[
            Made {
                locations: vec![there],
                ..made("a", 1)
            },
            Made {
                locations: vec![here, there],
                ..made("b", 1)
            },
            cancelled_event,
            Made {
                kind: "product.created",
                scope: Scope::CatalogRead,
                ..made("p", 1)
            },
        ])
        .await;
    world.relay_all().await;
    let resources = async |endpoint| {
        let stream = world.stream(endpoint).await;
        stream
            .into_iter()
            .map(|(sequence, resource, version)| format!("{sequence}{resource}{version}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(resources(all).await, ["1a1", "2b1", "3a2"]);
    assert_eq!(resources(cancelled).await, ["1a2"]);
    assert_eq!(resources(local).await, ["1b1", "2a2"]);
    assert_eq!(
        world.count("select count(*) from deliveries").await,
        0,
        "pull consumers are sent nothing"
    );
}

#[tokio::test]
async fn a_ping_goes_to_its_endpoint_alone() {
    let world = World::new().await;
    let pinged = world
        .endpoint_of(
            &world.actor,
            Some("https://8.8.8.8/"),
            Some(&["order.placed"]),
        )
        .await
        .endpoint
        .id;
    let other = world.endpoint(Some("https://8.8.8.8/")).await.endpoint.id;
    world.run(&Ping { id: pinged }).await.unwrap();
    world.relay_all().await;
    assert_eq!(world.stream(pinged).await.len(), 1);
    assert_eq!(world.stream(other).await.len(), 0);
}

#[tokio::test]
async fn a_disabled_endpoint_is_numbered_on_and_sent_nothing() {
    let world = World::new().await;
    let endpoint = world
        .endpoint_of(
            &world.actor,
            Some("https://8.8.8.8/"),
            Some(&["order.placed"]),
        )
        .await
        .endpoint
        .id;
    let disable = EndpointChange {
        status: Some(Status::Disabled),
        ..EndpointChange::default()
    };
    world.change(endpoint, disable).await.unwrap();
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    assert_whole(&world.stream(endpoint).await, 1);
    assert_eq!(world.count("select count(*) from deliveries").await, 0);
}

#[tokio::test]
async fn a_cut_batch_parts_no_resources_events() {
    let world = World::at(Clock::manual(Timestamp::from_unix_millis(
        1_800_000_000_000,
    )))
    .await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    let at = |millis: i64| Some(Timestamp::from_unix_millis(1_800_000_000_000 + millis));
    // The second version was written by a machine whose clock is behind: by time it comes first, the first one last.
    let mut events = vec![Made {
        at: at(0),
        ..made("late", 2)
    }];
    for number in 0..BATCH_EVENTS_MAX {
        events.push(Made {
            at: at(1_000),
            ..made(&format!("other{number}"), 1)
        });
    }
    events.push(Made {
        at: at(2_000),
        ..made("late", 1)
    });
    world.append(&events).await;
    world.relay_all().await;
    assert_whole(&world.stream(endpoint).await, BATCH_EVENTS_MAX + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_announced_late_goes_before_what_came_after_it() {
    const RESOURCES: usize = 20;
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    let announcer = kernel::event::Announcer::default();
    let relay = crate::relay::Relay::new(
        world.worker.clone(),
        world.clock.clone(),
        Arc::clone(&world.keyring),
        announcer.clone(),
        crate::relay::Wake::default(),
    );
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let running = tokio::spawn(async move { relay.run(stopping).await });
    // Of each resource the first versions are announced by nobody, as if their process had died, and the last since the time of its own event.
    for number in 1..=RESOURCES {
        let resource = format!("r{number}");
        let now = world.clock.now();
        let before = |seconds| Some(now.minus(std::time::Duration::from_secs(seconds)));
        for (version, at) in [(1, before(2)), (2, before(1)), (3, Some(now))] {
            let event = made(&resource, version);
            world.append(&[Made { at, ..event }]).await;
        }
        announcer.announce(world.merchant, now);
        let streams = i64::try_from(3 * number).unwrap();
        world.until("select count(*) from streams", streams).await;
    }
    stop.cancel();
    running.await.unwrap();
    assert_whole(&world.stream(endpoint).await, 3 * RESOURCES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn relays_side_by_side_and_writers_beside_them_leave_streams_whole() {
    const WRITERS: usize = 6;
    const EVENTS: i64 = 40;
    let world = Arc::new(World::new().await);
    let endpoint = world
        .endpoint(Some("https://8.8.8.8/hook"))
        .await
        .endpoint
        .id;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for version in 1..=EVENTS {
                    world.append(&[made(&format!("w{writer}"), version)]).await;
                }
            })
        })
        .collect();
    let stop = CancellationToken::new();
    let relays: Vec<_> = (0..3)
        .map(|_| {
            let (relay, merchant, stop) = (world.relay(), world.merchant, stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    relay.pass(merchant).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    world.until("select count(*) from outbox", 0).await;
    stop.cancel();
    for relay in relays {
        // None of them has stumbled over another.
        relay.await.unwrap();
    }
    let count = WRITERS * usize::try_from(EVENTS).unwrap();
    assert_whole(&world.stream(endpoint).await, count);
    assert_eq!(
        world.count("select count(*) from deliveries").await,
        i64::try_from(count).unwrap()
    );
    assert_eq!(
        world
            .count("select count(distinct feed_number) from events")
            .await,
        i64::try_from(count).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_relay_that_dies_anywhere_leaves_no_trace_of_the_batch() {
    let world = World::new().await;
    let endpoint = world
        .endpoint(Some("https://8.8.8.8/hook"))
        .await
        .endpoint
        .id;
    let mut appended = 0;
    for round in 0..30_u64 {
        world
            .append(&[made(&format!("r{round}"), 1), made(&format!("r{round}"), 2)])
            .await;
        appended += 2;
        let relay = world.relay();
        let merchant = world.merchant;
        let pass = tokio::spawn(async move { relay.pass(merchant).await });
        tokio::time::sleep(Duration::from_micros(300 * round)).await;
        pass.abort();
        let _ = pass.await;
    }
    world.relay_all().await;
    assert_whole(&world.stream(endpoint).await, appended);
    assert_eq!(
        world.count("select count(*) from events").await,
        i64::try_from(appended).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_added_to_an_endpoint_that_was_deleted_meanwhile() {
    use kernel::idempotency::Operation;

    let world = World::new().await;
    let endpoint = world
        .endpoint(Some("https://8.8.8.8/hook"))
        .await
        .endpoint
        .id;
    world.append(&[made("a", 1)]).await;
    let mut deleting = world.api.enter(world.merchant).await.unwrap();
    Delete {
        input: DeleteInput {
            id: endpoint,
            version: None,
        },
    }
    .run(&mut deleting, world.call())
    .await
    .unwrap();
    let relay = world.relay();
    let merchant = world.merchant;
    let pass = tokio::spawn(async move { relay.pass(merchant).await });
    // The relay sees the endpoint and waits for its cursor.
    let waiting = "select count(*) from pg_locks where not granted";
    world.until(waiting, 1).await;
    deleting.commit().await.unwrap();
    let moved = pass.await.unwrap().unwrap();
    assert_eq!(
        moved,
        Moved {
            events: 1,
            stream_entries: 0,
            deliveries: 0,
            more: false
        }
    );
    for table in [
        "streams",
        "deliveries",
        "lanes",
        "endpoint_cursors",
        "endpoints",
    ] {
        assert_eq!(
            world.count(&format!("select count(*) from {table}")).await,
            0,
            "{table}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_are_found_without_an_announcement() {
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    world.append(&[made("a", 1)]).await;
    // A process whose relay has heard nothing: its sweep finds the merchant.
    let relay = crate::relay::Relay::new(
        world.worker.clone(),
        world.clock.clone(),
        std::sync::Arc::clone(&world.keyring),
        kernel::event::Announcer::default(),
        crate::relay::Wake::default(),
    );
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let running = tokio::spawn(async move { relay.run(stopping).await });
    world.until("select count(*) from streams", 1).await;
    // Then one that was hinted at by a process without a relay.
    let announcer = kernel::event::Announcer::default();
    let since = world.clock.now();
    world.append(&[made("a", 2)]).await;
    announcer.announce(world.merchant, since);
    let (hinting, api) = (announcer.clone(), world.api.clone());
    let forwarding = tokio::spawn(async move { hinting.forward(&api).await });
    world.until("select count(*) from streams", 2).await;
    world.until("select count(*) from relay_hints", 0).await;
    forwarding.abort();
    stop.cancel();
    running.await.unwrap();
    assert_whole(&world.stream(endpoint).await, 2);
}
