//! Replays: what was missed, given up on, or is wanted again.

use std::{collections::HashMap, time::Duration};

use kernel::{actor::Access, clock::Clock, page::PageRequest};

use super::{
    receiver::{Receiver, Reply},
    world::{Made, World, made, scopes},
};
use crate::{
    dead_letter,
    endpoint::{
        EndpointChange, EndpointId, SettingsChange, Status,
        settings::{DeliverySettings, Ordering},
    },
    error::{Error, Refusal},
    replay::{
        self, Cancel, QUEUED_MAX, RUNNING_MAX, Replay, ReplayEvent, ReplayEventInput, ReplayStatus,
        Replayer, SelectedState, Selection, Start, StartInput,
    },
};

const FIRST_ONLY: &[Duration] = &[];

impl World {
    fn replayer(&self) -> Replayer {
        Replayer::new(self.worker.clone(), self.clock.clone(), self.wake.clone())
    }

    /// An endpoint for orders; not for what happens to endpoints.
    async fn orders_to(&self, url: &str) -> EndpointId {
        let kinds = ["order.placed", "order.paid", "fulfillment.created"];
        self.endpoint_of(&self.actor, Some(url), Some(&kinds))
            .await
            .endpoint
            .id
    }

    pub(super) async fn replay(&self, endpoint: EndpointId, selection: Selection) -> Replay {
        self.run(&Start {
            input: StartInput {
                endpoint,
                selection,
            },
        })
        .await
        .unwrap()
    }

    /// Works until there is nothing more to do.
    pub(super) async fn replay_all(&self) {
        let mut pauses = HashMap::new();
        while self.replayer().round(&mut pauses).await.unwrap() {}
    }

    pub(super) async fn replay_of(&self, replay: &Replay) -> Replay {
        let mut tx = self.api.enter(self.merchant).await.unwrap();
        replay::get(&mut tx, &self.actor, replay.id).await.unwrap()
    }

    /// The numbers on the queue.
    async fn queued(&self) -> Vec<i64> {
        let mut tx = self.worker.begin().await.unwrap();
        sqlx::query_scalar("select sequence from deliveries order by sequence")
            .fetch_all(&mut *tx)
            .await
            .unwrap()
    }

    async fn empty_the_queue(&self) {
        let mut tx = self.worker.begin().await.unwrap();
        sqlx::query("delete from deliveries")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }

    async fn switch(&self, endpoint: EndpointId, status: Status) {
        let change = EndpointChange {
            status: Some(status),
            ..EndpointChange::default()
        };
        self.change(endpoint, change).await.unwrap();
    }
}

fn orders(count: i64) -> Vec<Made> {
    (1..=count)
        .map(|number| made(&format!("o{number}"), 1))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_missed_is_sent_and_nothing_that_was_accepted() {
    let world = World::new().await;
    // The second is given up on, all others are accepted.
    let receiver =
        Receiver::start(|_, before| Reply::Status(if before == 1 { 500 } else { 200 })).await;
    let endpoint = world.orders_to(&receiver.url).await;
    let running = world.start(FIRST_ONLY);
    for order in &orders(3) {
        let before = receiver.count();
        world.append(std::slice::from_ref(order)).await;
        receiver.wait_for(before + 1).await;
        world.until("select count(*) from deliveries", 0).await;
    }
    running.stop().await;
    world.switch(endpoint, Status::Disabled).await;
    world.append(&orders(5)[3..]).await;
    world.relay_all().await;
    world.switch(endpoint, Status::Enabled).await;
    world.append(&[made("o6", 1)]).await;
    world.relay_all().await;
    assert_eq!(world.queued().await, [6], "queued without any replay");

    let replay = world.replay(endpoint, Selection::default()).await;
    assert_eq!((replay.position, replay.until_sequence), (0, 6));
    world.replay_all().await;
    assert_eq!(world.queued().await, [2, 4, 5, 6]);
    let replay = world.replay_of(&replay).await;
    assert_eq!(
        (
            replay.status,
            replay.queued_count,
            replay.position,
            replay.expired_count
        ),
        (ReplayStatus::Completed, 3, 6, 0)
    );
    assert!(world.dead_letters(endpoint).await[0].replayed_at.is_some());
    assert_eq!(
        world
            .count("select count(*) from deliveries where priority = 1")
            .await,
        3
    );
    assert_eq!(world.count("select count(*) from replay_hints").await, 0);

    let running = world.start(FIRST_ONLY);
    receiver.wait_for(7).await;
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
    let mut sent = receiver.sequences();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent, [1, 2, 3, 4, 5, 6]);
    // Now nothing is missed any more.
    let replay = world.replay(endpoint, Selection::default()).await;
    world.replay_all().await;
    assert_eq!(world.replay_of(&replay).await.queued_count, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_selection_by_number_type_resource_or_time_takes_that_and_no_more() {
    let clock = Clock::manual(Clock::system().now());
    let world = World::at(clock.clone()).await;
    let endpoint = world.orders_to("http://127.0.0.1:9/").await;
    let start = clock.now();
    for (order, kind) in [
        ("a", "order.placed"),
        ("a", "order.paid"),
        ("b", "order.placed"),
        ("b", "fulfillment.created"),
    ] {
        let version = i64::from(kind != "order.placed") + 1;
        world
            .append(&[Made {
                kind,
                ..made(order, version)
            }])
            .await;
        world.relay_all().await;
        clock.advance(Duration::from_secs(1));
    }
    world.empty_the_queue().await;
    let second = |seconds| Some(start.plus(Duration::from_secs(seconds)));
    let none = Selection::default;
    for (selection, expected) in [
        (none(), vec![1, 2, 3, 4]),
        (
            Selection {
                after_sequence: Some(2),
                ..none()
            },
            vec![3, 4],
        ),
        (
            Selection {
                after_sequence: Some(99),
                ..none()
            },
            vec![],
        ),
        (
            Selection {
                event_types: Some(vec!["order.*".to_owned()]),
                ..none()
            },
            vec![1, 2, 3],
        ),
        (
            Selection {
                event_types: Some(vec!["order.paid".to_owned()]),
                ..none()
            },
            vec![2],
        ),
        (
            Selection {
                resource_type: Some("order".to_owned()),
                resource_id: Some("b".to_owned()),
                ..none()
            },
            vec![3, 4],
        ),
        (
            Selection {
                since: second(1),
                until: second(3),
                ..none()
            },
            vec![2, 3],
        ),
        (
            Selection {
                state: SelectedState::Dead,
                ..none()
            },
            vec![],
        ),
        (
            Selection {
                state: SelectedState::All,
                after_sequence: Some(3),
                ..none()
            },
            vec![4],
        ),
    ] {
        let shown = format!("{selection:?}");
        let replay = world.replay(endpoint, selection).await;
        world.replay_all().await;
        assert_eq!(world.queued().await, expected, "{shown}");
        assert_eq!(
            world.replay_of(&replay).await.status,
            ReplayStatus::Completed,
            "{shown}"
        );
        world.empty_the_queue().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dead_letters_are_replayed_once_and_even_when_the_history_has_forgotten_them() {
    let world = World::new().await;
    let receiver =
        Receiver::start(|_, before| Reply::Status(if before < 2 { 500 } else { 200 })).await;
    let endpoint = world.orders_to(&receiver.url).await;
    let running = world.start(FIRST_ONLY);
    let events = world.append(&orders(2)).await;
    world.until("select count(*) from dead_letters", 2).await;
    super::reading::forget(&world, "events", "id", &events).await;
    super::reading::forget(&world, "streams", "event_id", &events).await;
    let dead = || Selection {
        state: SelectedState::Dead,
        ..Selection::default()
    };
    let replay = world.replay(endpoint, dead()).await;
    world.replay_all().await;
    assert_eq!(world.replay_of(&replay).await.queued_count, 2);
    receiver.wait_for(4).await;
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
    let replay = world.replay(endpoint, dead()).await;
    world.replay_all().await;
    assert_eq!(world.replay_of(&replay).await.queued_count, 0);
    // Of the stream itself nothing is left, and that is said.
    let replay = world.replay(endpoint, Selection::default()).await;
    world.replay_all().await;
    let replay = world.replay_of(&replay).await;
    assert_eq!((replay.queued_count, replay.expired_count), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_share_a_long_replay_and_queue_each_event_once() {
    let world = World::new().await;
    let endpoint = world.orders_to("http://127.0.0.1:9/").await;
    world.append(&orders(2_500)).await;
    world.relay_all().await;
    world.empty_the_queue().await;
    let replay = world.replay(endpoint, Selection::default()).await;
    // A batch whose process dies leaves nothing behind.
    let abandoned = tokio::time::timeout(Duration::from_millis(3), world.replay_all()).await;
    drop(abandoned);
    tokio::join!(world.replay_all(), world.replay_all());
    world.replay_all().await;
    assert_eq!(world.queued().await, (1..=2_500).collect::<Vec<_>>());
    let replay = world.replay_of(&replay).await;
    assert_eq!(
        (replay.status, replay.queued_count),
        (ReplayStatus::Completed, 2_500)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replay_waits_while_its_endpoint_has_enough_to_do_or_is_disabled() {
    let clock = Clock::manual(Clock::system().now());
    let world = World::at(clock.clone()).await;
    let endpoint = world.orders_to("http://127.0.0.1:9/").await;
    world.append(&orders(3)).await;
    world.relay_all().await;
    world.empty_the_queue().await;
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query(
        "insert into deliveries (merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, created_at)
        select $1, $2, 100 + number, gen_random_uuid(), 0, $3, $3 from generate_series(1, $4) as number",
    )
    .bind(world.merchant)
    .bind(endpoint)
    .bind(clock.now())
    .bind(QUEUED_MAX)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    let replay = world.replay(endpoint, Selection::default()).await;
    world.replay_all().await;
    assert_eq!(world.replay_of(&replay).await.position, 0);
    world.empty_the_queue().await;

    world.switch(endpoint, Status::Disabled).await;
    world.replay_all().await;
    assert_eq!(world.replay_of(&replay).await.status, ReplayStatus::Running);
    world.switch(endpoint, Status::Enabled).await;
    world.replay_all().await;
    assert_eq!(
        world.replay_of(&replay).await.status,
        ReplayStatus::Completed
    );
    assert_eq!(world.queued().await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancelled_replay_queues_no_more_and_only_so_many_run_at_once() {
    let world = World::new().await;
    let endpoint = world.orders_to("http://127.0.0.1:9/").await;
    world.append(&orders(2)).await;
    world.relay_all().await;
    world.empty_the_queue().await;
    let mut replays = Vec::new();
    for _ in 0..RUNNING_MAX {
        replays.push(world.replay(endpoint, Selection::default()).await);
    }
    let start = Start {
        input: StartInput {
            endpoint,
            selection: Selection::default(),
        },
    };
    assert!(matches!(
        world.run(&start).await,
        Err(Error::Refused(Refusal::TooManyReplays))
    ));
    for replay in &replays {
        let cancelled = world.run(&Cancel { id: replay.id }).await.unwrap();
        assert_eq!(cancelled.status, ReplayStatus::Cancelled);
    }
    world.replay_all().await;
    assert_eq!(world.queued().await, Vec::<i64>::new());
    assert_eq!(world.count("select count(*) from replay_hints").await, 0);
    let page = PageRequest {
        limit: 5,
        after: None,
    };
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let listed = replay::list(&mut tx, &world.actor, endpoint, &page)
        .await
        .unwrap();
    assert_eq!(listed.data.len(), 5);
    assert!(listed.data.windows(2).all(|pair| pair[0].id > pair[1].id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_event_is_queued_again_under_its_number_for_whoever_waits_for_it() {
    let world = World::new().await;
    let endpoint = world.orders_to("http://127.0.0.1:9/").await;
    let events = world.append(&orders(2)).await;
    world.relay_all().await;
    world.empty_the_queue().await;
    let again = |sequence| ReplayEvent {
        input: ReplayEventInput { endpoint, sequence },
    };
    let replayed = world.run(&again(2)).await.unwrap();
    assert_eq!((replayed.sequence, replayed.event_id), (2, events[1]));
    assert_eq!(world.queued().await, [2]);
    assert_eq!(
        world
            .count("select count(*) from deliveries where priority = 0")
            .await,
        1
    );
    assert!(matches!(
        world.run(&again(3)).await,
        Err(Error::SequenceNotFound(3))
    ));
    world.switch(endpoint, Status::Disabled).await;
    assert!(matches!(
        world.run(&again(1)).await,
        Err(Error::Refused(Refusal::EndpointDisabled))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_queued_again_waits_for_its_resource_where_that_was_asked_for() {
    let world = World::new().await;
    let receiver = Receiver::start(|_, _| Reply::Status(500)).await;
    let endpoint = world.orders_to(&receiver.url).await;
    let ordered = serde_json::from_value(serde_json::json!({"delivery": {"ordering": "resource"}}));
    let change = EndpointChange {
        settings: ordered.unwrap(),
        ..EndpointChange::default()
    };
    world.change(endpoint, change).await.unwrap();
    let running = world.start(FIRST_ONLY);
    let events = world.append(&orders(1)).await;
    world.until("select count(*) from dead_letters", 1).await;
    running.stop().await;
    let keyed = "select count(*) from deliveries where resource_key is not null and data_bytes > 0";
    let dead = world.dead_letters(endpoint).await[0].id;
    let event = ReplayEvent {
        input: ReplayEventInput {
            endpoint,
            sequence: 1,
        },
    };
    world.run(&event).await.unwrap();
    assert_eq!(world.count(keyed).await, 1);
    world.empty_the_queue().await;
    super::reading::forget(&world, "events", "id", &events).await;
    world.run(&event).await.unwrap();
    assert_eq!(
        world.count(keyed).await,
        1,
        "by what its dead letter has kept"
    );
    world.empty_the_queue().await;
    world
        .run(&crate::dead_letter::Replay { id: dead })
        .await
        .unwrap();
    assert_eq!(world.count(keyed).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_app_sees_and_starts_no_replay_of_an_endpoint_that_is_not_its_own() {
    let world = World::new().await;
    let endpoint = world.orders_to("http://127.0.0.1:9/").await;
    let replay = world.replay(endpoint, Selection::default()).await;
    let stranger = world
        .other_app(Access {
            scopes: scopes("orders:read webhooks:write"),
            locations: None,
            personal_data: true,
        })
        .await;
    let start = Start {
        input: StartInput {
            endpoint,
            selection: Selection::default(),
        },
    };
    assert!(matches!(
        world.run_as(&stranger, &start).await,
        Err(Error::EndpointNotFound(_))
    ));
    assert!(matches!(
        world.run_as(&stranger, &Cancel { id: replay.id }).await,
        Err(Error::ReplayNotFound(_))
    ));
    let event = ReplayEvent {
        input: ReplayEventInput {
            endpoint,
            sequence: 1,
        },
    };
    assert!(matches!(
        world.run_as(&stranger, &event).await,
        Err(Error::EndpointNotFound(_))
    ));
    let nowhere = world.endpoint(None).await.endpoint.id;
    let start = Start {
        input: StartInput {
            endpoint: nowhere,
            selection: Selection::default(),
        },
    };
    assert!(matches!(
        world.run(&start).await,
        Err(Error::Refused(Refusal::EndpointWithoutUrl))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_replayed_waits_while_the_endpoint_rests_and_keeps_its_resources_order() {
    let world = World::new().await;
    let receiver = Receiver::start(|_, _| Reply::Status(500)).await;
    let endpoint = world.orders_to(&receiver.url).await;
    let ordered = EndpointChange {
        settings: SettingsChange {
            delivery: Some(DeliverySettings {
                ordering: Ordering::Resource,
                ..DeliverySettings::default()
            }),
            ..SettingsChange::default()
        },
        ..EndpointChange::default()
    };
    world.change(endpoint, ordered).await.unwrap();
    let running = world.start(FIRST_ONLY);
    world.append(&orders(3)).await;
    world.until("select count(*) from dead_letters", 3).await;
    running.stop().await;
    let rests = "update lanes set due_at = null, breaker_count = 5, rest_until = '2100-01-01'";
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query(rests).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let waits = "select count(*) from lanes where breaker_count = 5 and due_at = rest_until";
    let id = world.dead_letters(endpoint).await[0].id;
    world.run(&dead_letter::Replay { id }).await.unwrap();
    assert_eq!(world.count(waits).await, 1);
    let input = ReplayEventInput {
        endpoint,
        sequence: 1,
    };
    world.run(&ReplayEvent { input }).await.unwrap();
    world.replay(endpoint, Selection::default()).await;
    world.replay_all().await;
    assert_eq!(world.count(waits).await, 1);
    let queued = "select count(*) from deliveries where resource_key is not null";
    assert_eq!(world.count(queued).await, 3);
}
