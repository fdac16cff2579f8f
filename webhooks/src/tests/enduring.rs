//! Workers that stop, die, lose the database, or meet what hangs, fails or can't be read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kernel::{actor::Access, clock::Clock};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    receiver::{Receiver, Reply},
    world::{Made, PATIENCE, World, made, scopes},
};
use crate::{dead_letter::Replay, endpoint::EndpointChange, metrics::Sampler, worker::Limits};

const FIRST_ONLY: &[Duration] = &[];
const QUICK: &[Duration] = &[Duration::from_millis(20), Duration::from_millis(20)];
const LATER: &[Duration] = &[Duration::from_hours(1)];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_that_hangs_holds_up_nobody_else() {
    let world = World::new().await;
    let hanging = Receiver::start(|_, _| Reply::Never).await;
    let good = Receiver::accepting().await;
    world.endpoint(Some(&hanging.url)).await;
    let other = world
        .other_app(Access {
            scopes: scopes("orders:read webhooks:write"),
            locations: None,
            personal_data: false,
        })
        .await;
    world.endpoint_of(&other, Some(&good.url), None).await;
    let events: Vec<Made> = (0..500)
        .map(|number| made(&format!("o{number}"), 1))
        .collect();
    let running = world.start(LATER);
    world.append(&events).await;
    // All 500 arrive while the other endpoint still hangs on its first ones: well before a deadline of 15 seconds has passed.
    tokio::time::timeout(Duration::from_secs(12), good.wait_for(500))
        .await
        .unwrap();
    assert!(
        hanging.received().len() <= 8,
        "{}",
        hanging.received().len()
    );
    assert_eq!(good.sequences(), (1..=500).collect::<Vec<_>>());
    running.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn endpoints_that_only_fail_keep_no_lane_that_others_wait_for() {
    let world = World::new().await;
    let failing = Receiver::start(|_, _| Reply::Status(500)).await;
    let good = Receiver::accepting().await;
    world.endpoint(Some(&failing.url)).await;
    let events: Vec<Made> = (0..50)
        .map(|number| made(&format!("o{number}"), 1))
        .collect();
    world.append(&events).await;
    world.relay_all().await;
    // Room for one lane, and a backlog that comes back for ever.
    let limits = Limits {
        lanes: 1,
        ..Limits::default()
    };
    let worker = world.worker(&vec![Duration::from_millis(1); 100_000], limits);
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let stopped = tokio::spawn(async move { worker.run(stopping).await });
    failing.wait_for(8).await;
    world.endpoint(Some(&good.url)).await;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    good.wait_for(1).await;
    // Nor is the failing one forgotten.
    let before = failing.count();
    failing.wait_for(before + 1).await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, stopped)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(good.sequences(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operators_see_breakers_that_rest_and_those_that_have_closed_while_their_lanes_are_owned() {
    let world = World::new().await;
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let receiver = Receiver::start(move |_, _| {
        let status = if is_mended.load(Ordering::SeqCst) {
            200
        } else {
            500
        };
        Reply::Status(status)
    })
    .await;
    world.endpoint(Some(&receiver.url)).await;
    let events: Vec<Made> = (0..20)
        .map(|number| made(&format!("o{number}"), 1))
        .collect();
    world.append(&events).await;
    world.relay_all().await;
    let worker = world.worker(&vec![Duration::from_millis(1); 100_000], Limits::default());
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let stopped = tokio::spawn(async move { worker.run(stopping).await });
    let not_closed = "select count(*) from lanes where breaker_count > 0";
    world.until(not_closed, 1).await;
    let sampler = Sampler::new(world.worker.clone(), world.clock.clone());
    let resting = sampler.sample().await.unwrap();
    assert_eq!(resting.open + resting.half_open, 1);
    assert_eq!(resting.delivery_lag, Duration::ZERO);
    assert!(resting.resting_lag > Duration::ZERO);
    mended.store(true, Ordering::SeqCst);
    world.until(not_closed, 0).await;
    // Not because it was let go.
    let owned = "select count(*) from lanes where owner is not null";
    assert_eq!(world.count(owned).await, 1);
    let recovered = sampler.sample().await.unwrap();
    assert_eq!((recovered.open, recovered.half_open), (0, 0));
    stop.cancel();
    tokio::time::timeout(PATIENCE, stopped)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_dead_worker_had_in_flight_is_sent_by_another() {
    let clock = Clock::manual(Clock::system().now());
    let world = World::at(clock.clone()).await;
    let dead = Arc::new(AtomicBool::new(false));
    let is_dead = Arc::clone(&dead);
    let receiver = Receiver::start(move |_, _| {
        if is_dead.load(Ordering::SeqCst) {
            Reply::Status(200)
        } else {
            Reply::Never
        }
    })
    .await;
    world.endpoint(Some(&receiver.url)).await;
    world.append(&[made("a", 1), made("b", 1)]).await;
    world.relay_all().await;
    // A runtime of its own, so that nothing of the worker survives.
    let worker = world.worker(LATER, Limits::default());
    let killed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let _ = tokio::time::timeout(
                Duration::from_millis(700),
                worker.run(CancellationToken::new()),
            )
            .await;
        });
        runtime.shutdown_background();
    });
    receiver.wait_for(2).await;
    tokio::task::spawn_blocking(move || killed.join().unwrap())
        .await
        .unwrap();
    dead.store(true, Ordering::SeqCst);
    assert_eq!(
        world
            .count("select count(*) from lanes where owner is not null")
            .await,
        1
    );
    let running = world.start(LATER);
    clock.advance(Duration::from_secs(11));
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
    assert_eq!(receiver.sequences(), [1, 1, 2, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stopping_worker_gives_back_a_lane_to_which_something_is_added() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = Receiver::start(move |_, _| Reply::Held(Arc::clone(&held), 200)).await;
    world.endpoint(Some(&receiver.url)).await;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    let stop = CancellationToken::new();
    let (worker, stopping) = (world.worker(LATER, Limits::default()), stop.clone());
    let stopped = tokio::spawn(async move { worker.run(stopping).await });
    receiver.wait_for(1).await;
    stop.cancel();
    // Relayed after the last look for new work, before what is in flight ends.
    world.append(&[made("b", 1)]).await;
    world.relay_all().await;
    gate.add_permits(1);
    tokio::time::timeout(PATIENCE, stopped)
        .await
        .unwrap()
        .unwrap();
    let free = "select count(*) from lanes where owner is null and due_at is not null";
    assert_eq!(world.count(free).await, 1);
    assert_eq!(
        world
            .count("select count(*) from deliveries where sequence = 2")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_on_its_way_is_not_read_again() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let receiver = Receiver::start(move |_, before| {
        if before == 0 {
            Reply::Held(Arc::clone(&held), 200)
        } else {
            Reply::Status(200)
        }
    })
    .await;
    world.endpoint(Some(&receiver.url)).await;
    let running = world.start(LATER);
    let first = world.append(&[made("a", 1)]).await;
    receiver.wait_for(1).await;
    // Whoever read it again would find nothing, and take its delivery off the queue.
    let mut owner = world.database.owner().await.unwrap();
    sqlx::raw_sql("alter table events no force row level security")
        .execute(&mut owner)
        .await
        .unwrap();
    sqlx::query("delete from events where id = $1")
        .bind(first[0])
        .execute(&mut owner)
        .await
        .unwrap();
    world.append(&[made("b", 1)]).await;
    receiver.wait_for(2).await;
    let on_its_way = "select count(*) from deliveries where sequence = 1";
    assert_eq!(world.count(on_its_way).await, 1);
    gate.add_permits(1);
    world.until(on_its_way, 0).await;
    running.stop().await;
    assert_eq!(receiver.sequences(), [1, 2]);
}

/// Spoils rows as nothing of ours does.
async fn spoil(world: &World, table: &str, change: &str) {
    let mut owner = world.database.owner().await.unwrap();
    let statement = format!(
        "alter table {table} no force row level security; {change}; alter table {table} force row level security"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut owner)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn personal_data_that_does_not_open_fails_its_own_delivery_and_no_other() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    world.endpoint(Some(&receiver.url)).await;
    let with_personal = |name| Made {
        personal: Some(json!({"name": "Ada"})),
        ..made(name, 1)
    };
    world
        .append(&[with_personal("a"), with_personal("b"), with_personal("c")])
        .await;
    world.relay_all().await;
    spoil(
        &world,
        "events",
        "update events set personal = 'spoilt' where resource_id = 'a'",
    )
    .await;
    spoil(
        &world,
        "events",
        "alter table data_subject_keys no force row level security;
        update data_subject_keys set wrapped_key = 'spoilt' from events
        where events.subject_id = data_subject_keys.subject_id and events.resource_id = 'b';
        alter table data_subject_keys force row level security",
    )
    .await;
    let running = world.start(QUICK);
    let received = receiver.wait_for(1).await;
    assert_eq!(
        received[0].body["data"],
        json!({"id": "c", "version": 1, "name": "Ada"})
    );
    world.until("select count(*) from dead_letters", 2).await;
    running.stop().await;
    assert_eq!(receiver.count(), 1);
    assert_eq!(world.count("select count(*) from deliveries").await, 0);
    let failed = "select count(*) from attempts where error = 'internal'";
    assert_eq!(world.count(failed).await, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_key_is_looked_for_where_a_thin_shape_shows_nothing_personal() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let endpoint = world.endpoint(Some(&receiver.url)).await.endpoint.id;
    let thin: EndpointChange =
        serde_json::from_value(json!({"settings": {"payload": {"shape": "thin"}}})).unwrap();
    world.change(endpoint, thin).await.unwrap();
    let event = Made {
        personal: Some(json!({"name": "Ada"})),
        ..made("a", 1)
    };
    world.append(&[event]).await;
    spoil(
        &world,
        "data_subject_keys",
        "revoke select on data_subject_keys from stoa_worker",
    )
    .await;
    let running = world.start(QUICK);
    let received = receiver.wait_for(1).await;
    running.stop().await;
    assert_eq!(received[0].body.get("data"), None);
    assert_eq!(received[0].body["resource"]["id"], "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_that_does_not_decode_fails_its_own_delivery_and_no_other() {
    let world = World::new().await;
    let receiver =
        Receiver::start(|_, before| Reply::Status(if before == 0 { 500 } else { 200 })).await;
    let endpoint = world.endpoint(Some(&receiver.url)).await.endpoint.id;
    let running = world.start(FIRST_ONLY);
    let ids = world.append(&[made("a", 1)]).await;
    world.until("select count(*) from dead_letters", 1).await;
    running.stop().await;
    let id = world.dead_letters(endpoint).await[0].id;
    world.run(&Replay { id }).await.unwrap();
    spoil(&world, "events", "delete from events").await;
    spoil(
        &world,
        "dead_letters",
        "update dead_letters set event = event - 'scope'",
    )
    .await;
    world.append(&[made("b", 1)]).await;
    let running = world.start(FIRST_ONLY);
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].body["sequence"], 2);
    world.until("select count(*) from dead_letters", 2).await;
    running.stop().await;
    assert_eq!(world.count("select count(*) from deliveries").await, 0);
    // Nobody can say any more who may see it, so nobody does.
    spoil(
        &world,
        "dead_letters",
        "delete from dead_letters where replayed_at is not null",
    )
    .await;
    let listed = world.dead_letters(endpoint).await;
    assert_eq!((listed[0].sequence, listed[0].event.id), (1, ids[0]));
    assert_eq!(listed[0].event.kind, "event.withheld");
    assert_eq!(
        listed[0].attempts.last().unwrap().error.as_deref(),
        Some("internal")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_workers_and_a_trickle_lose_nothing_and_send_nothing_twice() {
    const EVENTS: i64 = 150;
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    world.endpoint(Some(&receiver.url)).await;
    let (first, second) = (world.start(LATER), world.start(LATER));
    for number in 0..EVENTS {
        world.append(&[made(&format!("o{number}"), 1)]).await;
        // Now and then the next one comes just when the lane, idle for a while, is let go.
        if number % 50 == 49 {
            world.until("select count(*) from outbox", 0).await;
            world.until("select count(*) from deliveries", 0).await;
            world
                .until("select count(*) from lanes where owner is null", 1)
                .await;
        }
    }
    world.until("select count(*) from outbox", 0).await;
    world.until("select count(*) from deliveries", 0).await;
    first.stop().await;
    second.stop().await;
    assert_eq!(receiver.sequences(), (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(
        world
            .count("select count(*) from lanes where owner is null and due_at is null")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_worker_outlives_its_database_connections() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    world.endpoint(Some(&receiver.url)).await;
    let running = world.start(LATER);
    for round in 0..5 {
        world.append(&[made(&format!("o{round}"), 1)]).await;
        let mut owner = world.database.owner().await.unwrap();
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid() and application_name = 'stoa_worker'",
        )
        .execute(&mut owner)
        .await
        .unwrap();
    }
    world.until("select count(*) from outbox", 0).await;
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
    let mut sequences = receiver.sequences();
    sequences.dedup();
    assert_eq!(sequences, (1..=5).collect::<Vec<_>>());
}
