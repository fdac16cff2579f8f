//! Lanes: one owner at a time, nothing counted from a former one, nothing lost between letting go and adding.

use std::{sync::Arc, time::Duration};

use kernel::{
    clock::{Clock, Timestamp},
    id::EventId,
};

use super::world::{ATTEMPTS, World, made};
use crate::{
    client::{Answer, Failure, FailureKind, Outcome},
    delivery::{Attempt, Lease, OwnerId, Report, Settled, fare, settle, store},
    event,
    relay::raise_lanes,
    retry::{DeadLetterReason, Decision},
};

const LEASE: Duration = Duration::from_secs(10);
const URL: &str = "https://8.8.8.8/hook";

async fn lease(world: &World, owner: OwnerId) -> Vec<Lease> {
    let mut tx = world.worker.begin().await.unwrap();
    let now = world.clock.now();
    let leases = store::lease(&mut tx, owner, now, now.plus(LEASE), 100, &[])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    leases.into_iter().map(|(lease, _)| lease).collect()
}

async fn report(
    world: &World,
    lease: Lease,
    sequence: i64,
    event: EventId,
    decision: Decision,
) -> Report {
    let mut tx = world.worker.begin().await.unwrap();
    let event = event::select(&mut tx, &[world.merchant], &[event])
        .await
        .unwrap()
        .remove(&event)
        .unwrap();
    let result = match decision {
        Decision::Delivered => Ok(Answer {
            status: 200,
            retry_after: None,
            excerpt: String::new(),
        }),
        _ => Err(Failure {
            kind: FailureKind::Timeout,
            detail: String::new(),
        }),
    };
    let outcome = Outcome {
        result,
        duration: Duration::ZERO,
    };
    Report {
        endpoint_version: 1,
        request_bytes: 100,
        is_first: false,
        lease,
        sequence,
        event: Arc::new(event),
        attempt: Attempt::new(1, world.clock.now(), &outcome),
        url: URL.to_owned(),
        decision,
    }
}

fn release_of(lease: Lease, due_at: Option<kernel::clock::Timestamp>) -> store::Release {
    store::Release {
        lease,
        due_at,
        breaker_openings: 0,
        rest_until: None,
    }
}

async fn settled(world: &World, owner: OwnerId, reports: &[Report]) -> Settled {
    let mut tx = world.worker.begin().await.unwrap();
    let settled = settle(
        &mut tx,
        owner,
        &reports.iter().collect::<Vec<_>>(),
        world.clock.now(),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    settled
}

async fn world_with_lane() -> (World, Vec<EventId>) {
    let world = World::at(Clock::manual(Timestamp::from_unix_millis(
        1_800_000_000_000,
    )))
    .await;
    world.endpoint(Some(URL)).await;
    let events = world
        .append(&[made("a", 1), made("b", 1), made("c", 1)])
        .await;
    world.relay_all().await;
    (world, events)
}

#[tokio::test]
async fn a_lane_says_after_which_time_everything_is_due_that_was_added() {
    let (world, _) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let first = lease(&world, owner).await[0];
    let look = async || {
        let mut tx = world.worker.begin().await.unwrap();
        let seen = store::look(&mut tx, owner, &[first.endpoint])
            .await
            .unwrap()[0];
        tx.commit().await.unwrap();
        seen.signal
    };
    let add = async |resource: &str| {
        world.append(&[made(resource, 1)]).await;
        world.relay_all().await;
    };
    let began = world.clock.now();
    world.clock.advance(Duration::from_secs(1));
    add("d").await;
    world.clock.advance(Duration::from_secs(1));
    add("e").await;
    let second = look().await;
    assert_eq!(second.added_after(first.signal), Some(began));
    assert_eq!(second.added_at, Some(world.clock.now()));
    // At the very same time: whoever has seen the one may have to look for the other among what it has read.
    add("f").await;
    let third = look().await;
    assert_eq!(third.added_after(second), None);
    assert_eq!(third.added_after(first.signal), None);
    assert_eq!(third.added_after(third), Some(world.clock.now()));
    // What is said to be out of order.
    world.clock.advance(Duration::from_secs(1));
    let mut tx = world.worker.begin().await.unwrap();
    let lane = [first.endpoint];
    raise_lanes(&mut tx, &lane, &lane, world.clock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let fourth = look().await;
    assert_eq!(fourth.added_after(third), None);
    // By a clock that is behind.
    let mut tx = world.worker.begin().await.unwrap();
    raise_lanes(&mut tx, &lane, &[], began).await.unwrap();
    tx.commit().await.unwrap();
    let fifth = look().await;
    assert_eq!(fifth.added_after(fourth), None);
    assert_eq!(fifth.added_at, fourth.added_at);
}

#[tokio::test]
async fn a_lane_has_one_owner_until_its_lease_runs_out() {
    let (world, _) = world_with_lane().await;
    let (first, second) = (
        OwnerId::new(world.clock.now()),
        OwnerId::new(world.clock.now()),
    );
    let held = lease(&world, first).await;
    assert_eq!(held.len(), 1);
    assert_eq!(lease(&world, second).await, []);
    world.clock.advance(Duration::from_secs(8));
    let endpoints = [held[0].endpoint];
    let until = world.clock.now().plus(LEASE);
    assert_eq!(
        store::renew(&world.worker, first, &endpoints, until)
            .await
            .unwrap(),
        held
    );
    world.clock.advance(Duration::from_secs(8));
    assert_eq!(lease(&world, second).await, [], "it was renewed");
    world.clock.advance(Duration::from_secs(2));
    let taken = lease(&world, second).await;
    assert_eq!(
        taken,
        [Lease {
            fence: held[0].fence + 1,
            ..held[0]
        }]
    );
    assert_eq!(
        store::renew(&world.worker, first, &endpoints, until)
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn what_an_expired_owner_reports_changes_nothing() {
    let (world, events) = world_with_lane().await;
    let (first, second) = (
        OwnerId::new(world.clock.now()),
        OwnerId::new(world.clock.now()),
    );
    let old = lease(&world, first).await[0];
    world.clock.advance(Duration::from_secs(11));
    let new = lease(&world, second).await[0];
    let later = world.clock.now().plus(Duration::from_hours(1));
    let late = [
        report(&world, old, 1, events[0], Decision::Delivered).await,
        report(&world, old, 2, events[1], Decision::RetryAt(later)).await,
        report(&world, old, 3, events[2], Decision::DisableEndpoint).await,
    ];
    let passed_over = settled(&world, first, &late).await;
    assert_eq!(passed_over.counted, [false; 3]);
    assert_eq!(passed_over.buried, []);
    for untouched in [
        "select count(*) from deliveries where attempt_count = 0",
        &format!("select 3 + count(*) from {ATTEMPTS}"),
        "select 3 + count(*) from dead_letters",
        "select 3 + count(*) from outbox",
    ] {
        assert_eq!(world.count(untouched).await, 3, "{untouched}");
    }
    // Not even under the new fence, if it is not the owner; and the new owner's reports count.
    let forged = [report(&world, new, 1, events[0], Decision::Delivered).await];
    assert_eq!(settled(&world, first, &forged).await.counted, [false]);
    assert_eq!(settled(&world, second, &forged).await.counted, [true]);
    assert_eq!(world.count("select count(*) from deliveries").await, 2);
}

#[tokio::test]
async fn a_url_is_verified_once_by_a_group_however_many_were_its_first() {
    let (world, events) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let lease = lease(&world, owner).await[0];
    let mut reports = Vec::new();
    for (event, sequence) in events.iter().zip(1..) {
        let report = report(&world, lease, sequence, *event, Decision::Delivered).await;
        reports.push(Report {
            is_first: true,
            ..report
        });
    }
    reports[2].url = "https://8.8.4.4/".to_owned();
    let verified = fare::verified(&reports.iter().collect::<Vec<_>>());
    let urls: Vec<&str> = verified.iter().map(|(.., url)| *url).collect();
    assert_eq!(urls, ["https://8.8.4.4/", URL]);
    settled(&world, owner, &reports).await;
    let noted = "select count(*) from endpoints where verified_at is not null";
    assert_eq!(world.count(noted).await, 1);
}

#[tokio::test]
async fn an_owner_that_lost_a_lane_and_has_it_again_counts_nothing_from_before() {
    let (world, events) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let old = lease(&world, owner).await[0];
    world.clock.advance(Duration::from_secs(11));
    let new = lease(&world, owner).await[0];
    assert_eq!(new.fence, old.fence + 1);
    let mixed = [
        report(&world, old, 1, events[0], Decision::Delivered).await,
        report(&world, new, 2, events[1], Decision::Delivered).await,
        report(&world, old, 3, events[2], Decision::Delivered).await,
    ];
    assert_eq!(
        settled(&world, owner, &mixed).await.counted,
        [false, true, false]
    );
    assert_eq!(world.count("select count(*) from deliveries").await, 2);
}

#[tokio::test]
async fn each_decision_leaves_its_rows() {
    let (world, events) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let lease = lease(&world, owner).await[0];
    let later = world.clock.now().plus(Duration::from_mins(1));
    let reports = [
        report(&world, lease, 1, events[0], Decision::Delivered).await,
        report(&world, lease, 2, events[1], Decision::RetryAt(later)).await,
        report(
            &world,
            lease,
            3,
            events[2],
            Decision::DeadLetter(DeadLetterReason::AttemptsExhausted),
        )
        .await,
    ];
    let settled = settled(&world, owner, &reports).await;
    assert_eq!(settled.counted, [true; 3]);
    let attempts = format!("select count(*) from {ATTEMPTS}");
    assert_eq!(world.count(&attempts).await, 3);
    let waiting = "select count(*) from deliveries where sequence = 2 and attempt_count = 1 and due_at = '2027-01-15T08:01:00Z'";
    assert_eq!(world.count(waiting).await, 1);
    assert_eq!(world.count("select count(*) from deliveries").await, 1);
    let buried = "select count(*) from dead_letters where sequence = 3 and jsonb_array_length(attempts) = 1 and event->'resource'->>'id' = 'c'";
    assert_eq!(world.count(buried).await, 1);
}

#[tokio::test]
async fn one_answer_that_the_receiver_is_gone_is_enough_and_buries_only_its_own() {
    let (world, events) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let lease = lease(&world, owner).await[0];
    let reports = [
        report(&world, lease, 1, events[0], Decision::DisableEndpoint).await,
        report(&world, lease, 2, events[1], Decision::DisableEndpoint).await,
    ];
    let settled = settled(&world, owner, &reports).await;
    assert_eq!(settled.counted, [true; 2]);
    // So what waits behind it waits on, wherever it goes.
    assert!(reports[1].again_at().is_some());
    assert_eq!(settled.announced, [world.merchant]);
    assert_eq!(settled.buried, [DeadLetterReason::EndpointGone]);
    assert_eq!(world.count("select count(*) from attempts").await, 2);
    let buried =
        "select count(*) from dead_letters where sequence = 1 and reason = 'endpoint_gone'";
    assert_eq!(world.count(buried).await, 1);
    assert_eq!(world.count("select count(*) from dead_letters").await, 1);
    let kept = "select count(*) from deliveries where sequence = 2 and attempt_count = 1";
    assert_eq!(world.count(kept).await, 1);
}

#[tokio::test]
async fn a_lane_to_which_something_was_added_is_not_let_go() {
    let (world, events) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let lease = lease(&world, owner).await[0];
    let mut reports = Vec::new();
    for (event, sequence) in events.iter().zip(1..) {
        reports.push(report(&world, lease, sequence, *event, Decision::Delivered).await);
    }
    settled(&world, owner, &reports).await;
    let release = async |lease: Lease| {
        let mut tx = world.worker.begin().await.unwrap();
        let due = store::next_due(&mut tx, &[lease])
            .await
            .unwrap()
            .get(&lease.endpoint)
            .copied();
        let released = store::release(&mut tx, owner, &[release_of(lease, due)])
            .await
            .unwrap();
        tx.commit().await.unwrap();
        released
    };
    // Something is added after the owner saw that nothing is left, and before it lets go.
    world.append(&[made("d", 1)]).await;
    world.relay_all().await;
    assert_eq!(release(lease).await, []);
    let mut tx = world.worker.begin().await.unwrap();
    let seen = store::look(&mut tx, owner, &[lease.endpoint])
        .await
        .unwrap()[0];
    tx.commit().await.unwrap();
    assert_eq!(seen.signal.number, lease.signal.number + 1);
    assert_eq!(release(seen).await, [lease.endpoint]);
    assert_eq!(
        world
            .count("select count(*) from lanes where owner is null and due_at is not null")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_settling_owner_can_not_lose_its_lane_before_the_commit() {
    let (world, events) = world_with_lane().await;
    let (first, second) = (
        OwnerId::new(world.clock.now()),
        OwnerId::new(world.clock.now()),
    );
    let old = lease(&world, first).await[0];
    let delivered = [report(&world, old, 1, events[0], Decision::Delivered).await];
    world.clock.advance(Duration::from_secs(11));
    let mut tx = world.worker.begin().await.unwrap();
    assert_eq!(
        settle(
            &mut tx,
            first,
            &delivered.iter().collect::<Vec<_>>(),
            world.clock.now()
        )
        .await
        .unwrap()
        .counted,
        [true]
    );
    assert_eq!(
        lease(&world, second).await,
        [],
        "the lane is held by the transaction"
    );
    // The relay is not held up by it.
    world.append(&[made("d", 1)]).await;
    tokio::time::timeout(super::world::PATIENCE, world.relay_all())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(lease(&world, second).await.len(), 1);
}

#[tokio::test]
async fn what_waits_for_an_earlier_one_of_its_resource_is_due_with_that_one() {
    let (world, _) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let lease = lease(&world, owner).await[0];
    let next_due = async || {
        let mut tx = world.worker.begin().await.unwrap();
        let due = store::next_due(&mut tx, &[lease]).await.unwrap();
        due.get(&lease.endpoint).copied()
    };
    assert_eq!(next_due().await, Some(world.clock.now()));
    let set = async |statement: &'static str| {
        let mut tx = world.worker.begin().await.unwrap();
        sqlx::query(statement).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    };
    set("update deliveries set resource_key = 7").await;
    set("update deliveries set due_at = due_at + interval '1 hour' where sequence = 1").await;
    let later = world.clock.now().plus(Duration::from_hours(1));
    assert_eq!(next_due().await, Some(later));
    set("update deliveries set resource_key = 8, priority = 1 where sequence = 3").await;
    assert_eq!(next_due().await, Some(world.clock.now()));
}

#[tokio::test]
async fn a_failure_that_is_recorded_after_a_later_success_is_no_beginning_of_a_failing() {
    let (world, events) = world_with_lane().await;
    let owner = OwnerId::new(world.clock.now());
    let held = lease(&world, owner).await[0];
    let later = world.clock.now().plus(Duration::from_hours(9));
    let failure = [report(&world, held, 1, events[0], Decision::RetryAt(later)).await];
    world.clock.advance(Duration::from_secs(1));
    let success = [report(&world, held, 2, events[1], Decision::Delivered).await];
    settled(&world, owner, &success).await;
    settled(&world, owner, &failure).await;
    world.clock.advance(Duration::from_hours(6 * 24));
    let held = lease(&world, owner).await[0];
    let failure = [report(&world, held, 1, events[0], Decision::RetryAt(later)).await];
    settled(&world, owner, &failure).await;
    let told = "select count(*) from outbox where type = 'webhook_endpoint.failing'";
    assert_eq!(world.count(told).await, 0);
    let mut tx = world.worker.begin().await.unwrap();
    let since: Timestamp = sqlx::query_scalar("select failing_since from endpoint_health")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert_eq!(since, world.clock.now());
}
