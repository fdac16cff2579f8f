//! From an event to a receiver: signed, retried, given up on, replayed, withheld.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kernel::clock::Clock;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    receiver::{Receiver, Reply},
    world::{Made, PATIENCE, World, limits, made},
};
use crate::{
    dead_letter::{self, Replay},
    endpoint::{self, DisabledReason, EndpointChange, EndpointId, Ping, Status},
    error::{Error, Refusal},
    worker::Limits,
};

const FIRST_ONLY: &[Duration] = &[];
const QUICK: &[Duration] = &[Duration::from_millis(20), Duration::from_millis(20)];
const LATER: &[Duration] = &[Duration::from_hours(1)];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_event_arrives_signed_once_and_leaves_the_queue() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let created = world.endpoint(Some(&receiver.url)).await;
    let running = world.start(FIRST_ONLY);
    let personal = json!({"shipTo": {"name": "Ada"}});
    let ids = world
        .append(&[Made {
            personal: Some(personal),
            ..made("ord_1", 1)
        }])
        .await;
    let received = receiver.wait_for(1).await;
    let one = &received[0];
    assert_eq!(one.path, "/hook");
    assert_eq!(one.headers["content-type"], "application/json");
    assert_eq!(one.headers["webhook-id"], ids[0].to_string());
    assert!(one.is_signed_by(&created.secret.unwrap()));
    assert_eq!(one.body["type"], "order.placed");
    assert_eq!(one.body["sequence"], 1);
    assert_eq!(one.body["merchantId"], world.merchant.to_string());
    assert_eq!(
        one.body["data"],
        json!({"id": "ord_1", "version": 1, "shipTo": {"name": "Ada"}})
    );
    world.until("select count(*) from deliveries", 0).await;
    assert_eq!(
        world
            .count("select count(*) from attempt_runs where statuses = '{204}' and numbers = '{1}'")
            .await,
        1
    );
    running.stop().await;
    assert_eq!(receiver.received().len(), 1);
    let free = "select count(*) from lanes where owner is null and due_at is null";
    assert_eq!(world.count(free).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ping_arrives_while_nothing_else_does() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let created = world.endpoint(Some(&receiver.url)).await;
    let running = world.start(FIRST_ONLY);
    world
        .run(&Ping {
            id: created.endpoint.id,
        })
        .await
        .unwrap();
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].body["type"], "ping");
    assert_eq!(
        received[0].body["data"]["id"],
        created.endpoint.id.to_string()
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_failing_endpoint_is_retried_given_up_on_and_replayed_under_its_number() {
    let world = World::new().await;
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let receiver = Receiver::start(move |_, _| {
        Reply::Status(if is_mended.load(Ordering::SeqCst) {
            200
        } else {
            503
        })
    })
    .await;
    let created = world.endpoint(Some(&receiver.url)).await;
    let endpoint = created.endpoint.id;
    let running = world.start(QUICK);
    let ids = world.append(&[made("a", 1)]).await;
    world.until("select count(*) from dead_letters", 1).await;
    assert_eq!(receiver.received().len(), 3);
    assert_eq!(world.count("select count(*) from deliveries").await, 0);

    let listed = world.dead_letters(endpoint).await;
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let letter = dead_letter::get(
        &mut tx,
        &world.actor,
        &world.keyring,
        listed[0].id,
        world.clock.now(),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        (letter.sequence, letter.reason.as_str()),
        (1, "attempts_exhausted")
    );
    assert_eq!(letter.event.id, ids[0]);
    let attempts: Vec<_> = letter
        .attempts
        .iter()
        .map(|attempt| (attempt.number, attempt.status))
        .collect();
    assert_eq!(attempts, [(1, Some(503)), (2, Some(503)), (3, Some(503))]);
    assert_eq!(letter.attempts[0].answer_excerpt.as_deref(), Some("said"));

    mended.store(true, Ordering::SeqCst);
    let replayed = world.run(&Replay { id: letter.id }).await.unwrap();
    assert_eq!((replayed.sequence, replayed.event_id), (1, ids[0]));
    let received = receiver.wait_for(4).await;
    let last = received.last().unwrap();
    assert_eq!(last.headers["webhook-id"], ids[0].to_string());
    assert_eq!(last.body["sequence"], 1);
    assert!(last.is_signed_by(&created.secret.unwrap()));
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
    assert_eq!(
        world
            .count("select count(*) from dead_letters where replayed_at is not null")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replay_that_waits_for_its_next_attempt_is_brought_forward_by_another() {
    let world = World::new().await;
    let receiver =
        Receiver::start(|_, before| Reply::Status(if before < 2 { 500 } else { 200 })).await;
    let endpoint = world.endpoint(Some(&receiver.url)).await.endpoint.id;
    let running = world.start(FIRST_ONLY);
    world.append(&[made("a", 1)]).await;
    world.until("select count(*) from dead_letters", 1).await;
    running.stop().await;

    let id = world.dead_letters(endpoint).await[0].id;
    let replay = Replay { id };
    let running = world.start(LATER);
    world.run(&replay).await.unwrap();
    receiver.wait_for(2).await;
    let waiting = "select count(*) from deliveries where attempt_count = 1 and due_at > now()";
    world.until(waiting, 1).await;
    world.run(&replay).await.unwrap();
    let received = receiver.wait_for(3).await;
    assert_eq!(received[2].body["sequence"], 1);
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dead_letter_outlives_the_history_and_is_replayed_from_its_copy() {
    let world = World::new().await;
    let receiver =
        Receiver::start(|_, before| Reply::Status(if before == 0 { 500 } else { 200 })).await;
    let endpoint = world.endpoint(Some(&receiver.url)).await.endpoint.id;
    let running = world.start(FIRST_ONLY);
    let personal = json!({"name": "Ada"});
    world
        .append(&[Made {
            personal: Some(personal),
            ..made("a", 1)
        }])
        .await;
    world.until("select count(*) from dead_letters", 1).await;
    // Retention drops partitions; what a test can do is delete as their owner.
    let mut owner = world.database.owner().await.unwrap();
    for table in ["events", "streams", "attempts", "attempt_runs"] {
        let statement = format!(
            "alter table {table} no force row level security; delete from {table}; alter table {table} force row level security"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(&mut owner)
            .await
            .unwrap();
    }
    let id = world.dead_letters(endpoint).await[0].id;
    world.run(&Replay { id }).await.unwrap();
    let received = receiver.wait_for(2).await;
    assert_eq!(received[1].body, received[0].body);
    assert_eq!(received[1].body["data"]["name"], "Ada");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receiver_that_is_gone_is_disabled_and_enabled_again_by_hand() {
    let world = World::new().await;
    let back = Arc::new(AtomicBool::new(false));
    let is_back = Arc::clone(&back);
    let receiver = Receiver::start(move |_, _| {
        Reply::Status(if is_back.load(Ordering::SeqCst) {
            200
        } else {
            410
        })
    })
    .await;
    let observer = Receiver::accepting().await;
    let endpoint = world
        .endpoint_of(&world.actor, Some(&receiver.url), Some(&["order.placed"]))
        .await
        .endpoint
        .id;
    world
        .endpoint_of(
            &world.actor,
            Some(&observer.url),
            Some(&["webhook_endpoint.disabled", "webhook_endpoint.enabled"]),
        )
        .await;
    let running = world.start(LATER);
    world.append(&[made("a", 1)]).await;
    let told = observer.wait_for(1).await;
    assert_eq!(told[0].body["type"], "webhook_endpoint.disabled");
    assert_eq!(told[0].body["data"]["disabledReason"], "gone");
    assert_eq!(
        world
            .count("select count(*) from dead_letters where reason = 'endpoint_gone'")
            .await,
        1
    );

    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let disabled = endpoint::get(&mut tx, &world.actor, endpoint)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        (disabled.status, disabled.disabled_reason),
        (Status::Disabled, Some(DisabledReason::Gone))
    );
    let refused = world.run(&Ping { id: endpoint }).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::EndpointDisabled))
    ));
    world.append(&[made("b", 1)]).await;
    world.until("select count(*) from outbox", 0).await;

    back.store(true, Ordering::SeqCst);
    let enable = EndpointChange {
        status: Some(Status::Enabled),
        ..EndpointChange::default()
    };
    world.change(endpoint, enable).await.unwrap();
    world.append(&[made("c", 1)]).await;
    let received = receiver.wait_for(2).await;
    // What happened while it was disabled is in the stream and was not sent: the receiver sees the gap in the numbers.
    assert_eq!(received.last().unwrap().body["sequence"], 3);
    assert_eq!(
        observer.wait_for(2).await[1].body["type"],
        "webhook_endpoint.enabled"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receiver_that_is_gone_costs_only_what_was_on_its_way() {
    let world = World::new().await;
    let receiver = Receiver::start(|_, _| Reply::Status(410)).await;
    world
        .endpoint_of(&world.actor, Some(&receiver.url), Some(&["order.placed"]))
        .await;
    let events: Vec<Made> = (0..100)
        .map(|number| made(&format!("o{number}"), 1))
        .collect();
    world.append(&events).await;
    world.relay_all().await;
    let running = world.start(LATER);
    world
        .until(
            "select count(*) from lanes where owner is null and due_at is null",
            1,
        )
        .await;
    running.stop().await;
    let buried = world.count("select count(*) from dead_letters").await;
    assert!((1..=8).contains(&buried), "{buried}");
    assert_eq!(
        world.count("select count(*) from deliveries").await,
        100 - buried
    );
    assert_eq!(
        world
            .count("select count(*) from endpoints where status = 'disabled' and version = 2")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_receiver_that_is_gone_from_its_former_url_leaves_the_new_one_alone() {
    let world = World::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let former = Receiver::start(move |_, _| Reply::Held(Arc::clone(&held), 410)).await;
    let moved = Receiver::accepting().await;
    let endpoint = world.endpoint(Some(&former.url)).await.endpoint.id;
    let running = world.start(LATER);
    world.append(&[made("a", 1), made("b", 1)]).await;
    former.wait_for(2).await;
    let change = EndpointChange {
        url: Some(Some(moved.url.clone())),
        ..EndpointChange::default()
    };
    world.change(endpoint, change).await.unwrap();
    gate.add_permits(2);
    world
        .until("select count(*) from attempts where status = 410", 2)
        .await;
    // Due again at once: the schedule's next wait is an hour.
    moved.wait_for(2).await;
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
    assert_eq!(moved.sequences(), [1, 2]);
    assert_eq!(former.count(), 2);
    assert_eq!(world.count("select count(*) from dead_letters").await, 0);
    let enabled = "select count(*) from endpoints where status = 'enabled' and version = 2";
    assert_eq!(world.count(enabled).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_waited_when_an_endpoint_was_disabled_is_sent_once_it_is_enabled() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let endpoint = world
        .endpoint_of(&world.actor, Some(&receiver.url), Some(&["order.placed"]))
        .await
        .endpoint
        .id;
    world.append(&[made("a", 1), made("b", 1)]).await;
    world.relay_all().await;
    let status = |status| EndpointChange {
        status: Some(status),
        ..EndpointChange::default()
    };
    world
        .change(endpoint, status(Status::Disabled))
        .await
        .unwrap();
    let running = world.start(FIRST_ONLY);
    world.until("select count(*) from outbox", 0).await;
    // A lane that a relay raised before it saw the change is let go of without anything being sent.
    let mut tx = world.worker.begin().await.unwrap();
    crate::endpoint::store::raise_lane(&mut tx, endpoint, Some(world.clock.now()))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    world
        .until(
            "select count(*) from lanes where owner is null and due_at is null",
            1,
        )
        .await;
    assert_eq!(receiver.received().len(), 0);
    world
        .change(endpoint, status(Status::Enabled))
        .await
        .unwrap();
    receiver.wait_for(2).await;
    assert_eq!(receiver.sequences(), [1, 2]);
    running.stop().await;
}

/// A receiver that fails some events, whereupon it is sent nothing for as long as the clock stands.
struct LeftAlone {
    world: World,
    receiver: Receiver,
    endpoint: EndpointId,
    failing: usize,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
}

impl LeftAlone {
    /// It fails so many of the events by `reply`.
    async fn new(failing: usize, reply: fn() -> Reply) -> Self {
        let world = World::at(Clock::manual(Clock::system().now())).await;
        let receiver = Receiver::start(move |_, before| {
            if before < failing {
                reply()
            } else {
                Reply::Status(204)
            }
        })
        .await;
        let endpoint = world
            .endpoint_of(&world.actor, Some(&receiver.url), Some(&["order.placed"]))
            .await
            .endpoint
            .id;
        let limits = Limits {
            // As long as a test lasts, so that a pause is the worker's to know.
            linger: PATIENCE,
            ..limits()
        };
        let worker = world.worker(LATER, limits);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        Self {
            world,
            receiver,
            endpoint,
            failing,
            stop,
            worker: tokio::spawn(async move { worker.run(stopping).await }),
        }
    }

    /// Waits until it has failed so many events, these among them.
    async fn fails(&self, events: &[Made], count: i64) {
        self.world.append(events).await;
        self.world.relay_all().await;
        let failed = "select count(*) from deliveries where attempt_count = 1";
        self.world.until(failed, count).await;
    }

    /// Once its owner has made these changes, the next event arrives.
    async fn sees_the_next_after(self, changes: Vec<EndpointChange>) {
        for change in changes {
            self.world.change(self.endpoint, change).await.unwrap();
        }
        self.world.append(&[made("next", 1)]).await;
        self.world.relay_all().await;
        // As whatever happens has it look, before it reads again where deliveries go.
        self.world.wake.wake();
        let received = self.receiver.wait_for(self.failing + 1).await;
        assert_eq!(received[self.failing].body["resource"]["id"], "next");
        self.stop.cancel();
        let stopped = tokio::time::timeout(PATIENCE, self.worker).await;
        stopped.expect("stops in time").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_asked_to_be_left_alone_is_sent_what_is_due_once_it_was_disabled_and_enabled() {
    let left_alone = LeftAlone::new(1, || Reply::RetryAfter(503, 100)).await;
    left_alone.fails(&[made("a", 1)], 1).await;
    let status = |status| EndpointChange {
        status: Some(status),
        ..EndpointChange::default()
    };
    let changes = vec![status(Status::Disabled), status(Status::Enabled)];
    left_alone.sees_the_next_after(changes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_breaker_that_has_just_opened_closes_with_whatever_the_owner_changes() {
    let left_alone = LeftAlone::new(11, || Reply::Status(500)).await;
    let events: Vec<Made> = (0..10)
        .map(|number| made(&format!("a{number}"), 1))
        .collect();
    left_alone.fails(&events, 10).await;
    let world = &left_alone.world;
    let rests = "select count(*) from lanes where owner is null and breaker_count = 1";
    world.until(rests, 1).await;
    // The probe: the worker has just looked which lanes to let go of when it fails, and has this one when it is changed.
    world.clock.advance(Duration::from_secs(2));
    left_alone.fails(&[made("probe", 1)], 11).await;
    let change = EndpointChange {
        description: Some(Some("mended".to_owned())),
        ..EndpointChange::default()
    };
    left_alone.sees_the_next_after(vec![change]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_grant_may_no_longer_see_is_withheld_under_its_number() {
    let world = World::new().await;
    let receiver = Receiver::accepting().await;
    let created = world.endpoint(Some(&receiver.url)).await;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    world.narrow("catalog:read webhooks:write").await;
    let running = world.start(FIRST_ONLY);
    let received = receiver.wait_for(1).await;
    assert_eq!(received[0].body["type"], "event.withheld");
    assert_eq!(received[0].body["sequence"], 1);
    assert_eq!(received[0].body.get("data"), None);
    assert_eq!(received[0].body.get("resource"), None);
    assert!(received[0].is_signed_by(&created.secret.unwrap()));
    // What happens from now on is not numbered for it at all.
    world.append(&[made("b", 1)]).await;
    world.until("select count(*) from outbox", 0).await;
    running.stop().await;
    assert_eq!(world.stream(created.endpoint.id).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_grant_narrowed_between_two_attempts_is_felt_by_the_second() {
    let world = World::new().await;
    let receiver =
        Receiver::start(|_, before| Reply::Status(if before == 0 { 500 } else { 200 })).await;
    world.endpoint(Some(&receiver.url)).await;
    let running = world.start(&[Duration::from_secs(2)]);
    world.append(&[made("a", 1)]).await;
    assert_eq!(receiver.wait_for(1).await[0].body["type"], "order.placed");
    world.narrow("catalog:read").await;
    assert_eq!(receiver.wait_for(2).await[1].body["type"], "event.withheld");
    running.stop().await;
}
