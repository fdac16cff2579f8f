//! The outbox: events commit with their change or not at all, and announcements are not lost.

use std::{collections::HashSet, time::Duration};

use kernel::{
    event::{Announcer, NewEvent, RELAY_CHANNEL, ResourceRef, SealedPersonal, append},
    id::{DataSubjectId, LocationId, MerchantId, RequestId},
    scope::Scope,
};
use serde_json::value::RawValue;
use sqlx::{Executor, Row, postgres::PgListener};

use crate::{World, soon, until};

fn event(resource: &str, version: i64) -> NewEvent {
    NewEvent {
        kind: "order.placed",
        resource: ResourceRef {
            kind: "order",
            id: resource.to_owned(),
            version,
        },
        scope: Scope::OrdersRead,
        locations: Vec::new(),
        data: RawValue::from_string(r#"{"z": 1, "a":  [1.50]}"#.to_owned()).unwrap(),
        personal: None,
    }
}

#[tokio::test]
async fn what_is_appended_is_kept_to_the_letter() {
    let world = World::create().await;
    let (request, subject) = (RequestId::new(world.now), DataSubjectId::new(world.now));
    let (here, there) = (LocationId::new(world.now), LocationId::new(world.now));
    let mut second = event("ord_\"{,}\\ü", 7);
    second.locations = vec![here, there];
    second.personal = Some(SealedPersonal {
        subject,
        sealed: vec![0, 255, 1],
    });
    let mut tx = world.database.api().enter(world.a).await.unwrap();
    let ids = append(
        &mut tx,
        world.a,
        request,
        world.now,
        &[event("ord_1", 1), second],
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 2);

    let mut tx = world.database.worker().begin().await.unwrap();
    let rows = tx
        .fetch_all(
            "select merchant_id, id, type, resource_type, resource_id, resource_version, scope, locations, data::text, subject_id, personal,
                request_id, occurred_at
            from outbox
            order by resource_version",
        )
        .await
        .unwrap();
    for (row, (id, resource, version)) in rows
        .iter()
        .zip([(ids[0], "ord_1", 1_i64), (ids[1], "ord_\"{,}\\ü", 7)])
    {
        assert_eq!(row.get::<MerchantId, _>("merchant_id"), world.a);
        assert_eq!(row.get::<uuid::Uuid, _>("id"), id.uuid());
        assert_eq!(
            (
                row.get::<&str, _>("type"),
                row.get::<&str, _>("resource_type")
            ),
            ("order.placed", "order")
        );
        assert_eq!(
            (
                row.get::<&str, _>("resource_id"),
                row.get::<i64, _>("resource_version")
            ),
            (resource, version)
        );
        assert_eq!(row.get::<&str, _>("scope"), "orders:read");
        // json and not jsonb: what was signed and shown once is shown so again, spaces, order and zeros.
        assert_eq!(row.get::<&str, _>("data"), r#"{"z": 1, "a":  [1.50]}"#);
        assert_eq!(row.get::<RequestId, _>("request_id"), request);
        assert_eq!(
            row.get::<kernel::clock::Timestamp, _>("occurred_at"),
            world.now
        );
    }
    assert_eq!(rows[0].get::<Vec<LocationId>, _>("locations"), []);
    assert_eq!(rows[0].get::<Option<DataSubjectId>, _>("subject_id"), None);
    assert_eq!(
        rows[1].get::<Vec<LocationId>, _>("locations"),
        [here, there]
    );
    assert_eq!(
        rows[1].get::<Option<DataSubjectId>, _>("subject_id"),
        Some(subject)
    );
    assert_eq!(
        rows[1].get::<Option<Vec<u8>>, _>("personal"),
        Some(vec![0, 255, 1])
    );
}

#[tokio::test]
async fn what_is_rolled_back_was_never_told() {
    let world = World::create().await;
    let api = world.database.api();
    for end in 0..2 {
        let mut tx = api.enter(world.a).await.unwrap();
        append(
            &mut tx,
            world.a,
            RequestId::new(world.now),
            world.now,
            &[event("ord_1", 1)],
        )
        .await
        .unwrap();
        if end == 0 {
            tx.rollback().await.unwrap();
        } else {
            drop(tx);
        }
    }
    let mut tx = api.enter(world.a).await.unwrap();
    assert!(
        append(&mut tx, world.a, RequestId::new(world.now), world.now, &[])
            .await
            .unwrap()
            .is_empty()
    );
    tx.commit().await.unwrap();
    assert_eq!(
        world
            .database
            .count("select count(*) from outbox")
            .await
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn nobody_appends_for_a_merchant_that_was_not_entered() {
    let world = World::create().await;
    let mut tx = world.database.api().enter(world.a).await.unwrap();
    let refused = append(
        &mut tx,
        world.b,
        RequestId::new(world.now),
        world.now,
        &[event("ord_1", 1)],
    )
    .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("row-level security")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_announcement_is_lost_while_the_relay_is_busy() {
    let announcer = Announcer::default();
    let now = kernel::clock::Clock::system().now();
    let merchants: HashSet<_> = (0..2_000).map(|_| MerchantId::new(now)).collect();
    let announcing = {
        let (announcer, merchants) = (announcer.clone(), merchants.clone());
        tokio::spawn(async move {
            for merchant in merchants {
                announcer.announce(merchant, now);
                tokio::task::yield_now().await;
            }
        })
    };
    let mut told = HashSet::new();
    while told.len() < merchants.len() {
        let batch = soon(announcer.next()).await;
        assert!(!batch.is_empty());
        told.extend(batch.into_iter().map(|(merchant, _)| merchant));
    }
    announcing.await.unwrap();
    assert_eq!(told, merchants);
}

#[tokio::test]
async fn who_is_announced_more_than_once_is_announced_since_the_earliest() {
    let announcer = Announcer::default();
    let now = kernel::clock::Clock::system().now();
    let merchant = MerchantId::new(now);
    let earliest = now.minus(Duration::from_secs(2));
    for since in [now.minus(Duration::from_secs(1)), earliest, now] {
        announcer.announce(merchant, since);
    }
    assert_eq!(soon(announcer.next()).await, [(merchant, earliest)]);
    announcer.announce(merchant, now);
    assert_eq!(soon(announcer.next()).await, [(merchant, now)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_without_a_relay_leaves_hints_and_wakes_the_others() {
    let world = World::create().await;
    let (announcer, api) = (Announcer::default(), world.database.api());
    let mut listener = PgListener::connect_with(&sqlx::PgPool::connect_lazy_with(
        world.database.options().clone(),
    ))
    .await
    .unwrap();
    listener.listen(RELAY_CHANNEL).await.unwrap();
    let forwarding = {
        let (announcer, api) = (announcer.clone(), api.clone());
        tokio::spawn(async move { announcer.forward(&api).await })
    };
    let hinted = async |merchant: MerchantId| {
        let count = format!(
            "select count(*) from relay_hints where merchant_id = '{}'",
            merchant.uuid()
        );
        world.database.count(&count).await.unwrap() == 1
    };
    announcer.announce(world.a, world.now);
    soon(listener.recv()).await.unwrap();
    assert!(
        hinted(world.a).await,
        "the hint is there before anybody is woken"
    );

    // An earlier time of one who is hinted at already is kept, and a later one is not.
    let since = async |merchant: MerchantId| {
        let earliest = format!(
            "select (extract(epoch from '{}'::timestamptz - since) * 1000)::bigint from relay_hints where merchant_id = '{}'",
            world.now,
            merchant.uuid()
        );
        world.database.count(&earliest).await.unwrap()
    };
    let earlier = |millis| world.now.minus(Duration::from_millis(millis));
    assert_eq!(since(world.a).await, 0);
    for (millis, kept) in [(20, 20), (10, 20)] {
        announcer.announce(world.a, earlier(millis));
        soon(listener.recv()).await.unwrap();
        assert_eq!(since(world.a).await, kept);
    }

    // While hints can't be written the process lives on, and hints again when they can.
    let mut owner = world.database.owner().await.unwrap();
    owner
        .execute("alter table relay_hints rename to relay_hints_away")
        .await
        .unwrap();
    announcer.announce(world.a, world.now);
    owner
        .execute("alter table relay_hints_away rename to relay_hints")
        .await
        .unwrap();
    announcer.announce(world.b, world.now);
    until(async || {
        announcer.announce(world.b, world.now);
        hinted(world.b).await
    })
    .await;
    assert!(!forwarding.is_finished());
    forwarding.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn processes_that_hint_at_the_same_merchants_do_not_deadlock() {
    let world = World::create().await;
    let merchants: Vec<_> = (0..300).map(|_| MerchantId::new(world.now)).collect();
    for _ in 0..10 {
        let forwarding: Vec<_> = (0..8)
            .map(|_| {
                let (announcer, api) = (Announcer::default(), world.database.api());
                for &merchant in &merchants {
                    announcer.announce(merchant, world.now);
                }
                tokio::spawn(async move { announcer.forward(&api).await })
            })
            .collect();
        until(async || {
            world
                .database
                .count("select count(*) from relay_hints")
                .await
                .unwrap()
                == 300
        })
        .await;
        forwarding.iter().for_each(tokio::task::JoinHandle::abort);
        world
            .database
            .owner()
            .await
            .unwrap()
            .execute("truncate relay_hints")
            .await
            .unwrap();
    }
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    world
        .database
        .owner()
        .await
        .unwrap()
        .execute("select pg_stat_force_next_flush()")
        .await
        .unwrap();
    assert_eq!(world.database.count(deadlocks).await.unwrap(), 0);
}
