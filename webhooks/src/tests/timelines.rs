//! Attempts, deliveries and their timelines, as integrators see them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use kernel::{
    actor::{Access, Actor},
    id::EventId,
    page::{self, Page, PageRequest},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use super::{
    receiver::{Receiver, Reply},
    world::{ATTEMPTS, Made, World, made, scopes},
};
use crate::{
    client::{Answer, Outcome},
    delivery::{self, Attempt, AttemptId},
    endpoint::EndpointId,
    error::Error,
    timeline::{
        self, AttemptFilter, AttemptOutcome, Delivery, DeliveryFilter, DeliveryKey, DeliveryState,
        EntryKind, MadeAttempt,
    },
};

const ONCE_MORE: &[Duration] = &[Duration::from_millis(1)];

async fn attempts(
    world: &World,
    endpoint: EndpointId,
    filter: AttemptFilter,
    limit: u32,
    cursor: Option<&str>,
) -> Page<MadeAttempt> {
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let after: Option<AttemptId> = cursor.map(|cursor| page::decode(cursor).unwrap());
    let request = PageRequest { limit, after };
    timeline::attempts(&mut tx, &world.actor, endpoint, filter, &request)
        .await
        .unwrap()
}

async fn search(
    world: &World,
    actor: &Actor,
    filter: &DeliveryFilter,
    limit: u32,
    cursor: Option<&str>,
) -> Result<Page<Delivery>, Error> {
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let after: Option<DeliveryKey> = cursor.map(|cursor| page::decode(cursor).unwrap());
    let request = PageRequest { limit, after };
    timeline::search(&mut tx, actor, filter, &request, world.clock.now()).await
}

/// All pages together: sequences and states.
async fn all(world: &World, filter: &DeliveryFilter, limit: u32) -> Vec<(i64, DeliveryState)> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let page = search(world, &world.actor, filter, limit, cursor.as_deref())
            .await
            .unwrap();
        assert!(page.data.len() <= usize::try_from(limit).unwrap());
        found.extend(page.data.iter().map(|one| (one.sequence, one.state)));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return found;
        }
    }
}

async fn get(world: &World, endpoint: EndpointId, sequence: i64) -> timeline::Timeline {
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    timeline::get(&mut tx, &world.actor, endpoint, sequence, world.clock.now())
        .await
        .unwrap()
}

fn of(endpoint: EndpointId) -> DeliveryFilter {
    DeliveryFilter {
        endpoint: Some(endpoint),
        ..DeliveryFilter::default()
    }
}

/// An endpoint with a delivered event (2, at the second attempt), a dead one (1), one that was not sent (3) and one on the queue (4).
async fn fared(world: &World) -> (EndpointId, Vec<EventId>) {
    let receiver = Receiver::start(|request, before| {
        let fails = request.body["resource"]["id"] == "dead" || before == 2;
        Reply::Status(if fails { 500 } else { 200 })
    })
    .await;
    let kinds = ["order.placed", "order.paid"];
    let endpoint = world
        .endpoint_of(&world.actor, Some(&receiver.url), Some(&kinds))
        .await
        .endpoint
        .id;
    let running = world.start(ONCE_MORE);
    let mut events = world.append(&[made("dead", 1)]).await;
    world.until("select count(*) from dead_letters", 1).await;
    let personal = Made {
        kind: "order.paid",
        personal: Some(json!({"customer": {"name": "Ada Lovelace"}})),
        ..made("good", 2)
    };
    events.extend(world.append(&[personal]).await);
    let all = format!("select count(*) from {ATTEMPTS}");
    world.until(&all, 4).await;
    world.until("select count(*) from deliveries", 0).await;
    running.stop().await;
    events.extend(world.append(&[made("unsent", 1)]).await);
    world.relay_all().await;
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("delete from deliveries")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    events.extend(world.append(&[made("queued", 1)]).await);
    world.relay_all().await;
    (endpoint, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attempts_are_listed_newest_first_by_outcome_and_time() {
    let world = World::new().await;
    let (endpoint, events) = fared(&world).await;
    let everything = attempts(&world, endpoint, AttemptFilter::default(), 10, None).await;
    let shown: Vec<_> = everything
        .data
        .iter()
        .map(|one| (one.sequence, one.number, one.outcome))
        .collect();
    let (succeeded, failed) = (AttemptOutcome::Succeeded, AttemptOutcome::Failed);
    assert_eq!(
        shown,
        [
            (2, 2, succeeded),
            (2, 1, failed),
            (1, 2, failed),
            (1, 1, failed)
        ]
    );
    assert_eq!(everything.data[0].event_id, events[1]);
    assert_eq!(everything.data[0].answer_excerpt.as_deref(), Some("said"));
    assert_eq!(everything.next_cursor, None);

    let only = |outcome| AttemptFilter {
        outcome: Some(outcome),
        ..AttemptFilter::default()
    };
    let first = attempts(&world, endpoint, only(failed), 2, None).await;
    assert_eq!(first.data, everything.data[1..3]);
    let rest = attempts(
        &world,
        endpoint,
        only(failed),
        2,
        first.next_cursor.as_deref(),
    )
    .await;
    assert_eq!(rest.data, everything.data[3..]);
    assert_eq!(rest.next_cursor, None);
    assert_eq!(
        attempts(&world, endpoint, only(succeeded), 2, None)
            .await
            .data,
        everything.data[..1]
    );

    let second = everything.data[2].started_at;
    let since = AttemptFilter {
        since: Some(second),
        ..AttemptFilter::default()
    };
    let until = AttemptFilter {
        until: Some(second),
        ..AttemptFilter::default()
    };
    let since = attempts(&world, endpoint, since, 10, None).await.data;
    let until = attempts(&world, endpoint, until, 10, None).await.data;
    assert!(since.contains(&everything.data[2]) && !until.contains(&everything.data[2]));
    assert_eq!([since, until].concat(), everything.data);
    // Another endpoint's are its own.
    let other = world.endpoint(None).await.endpoint.id;
    let none = attempts(&world, other, AttemptFilter::default(), 10, None).await;
    assert_eq!((none.data, none.next_cursor), (vec![], None));
}

/// Attempts as groups of workers record them that send to one endpoint: at any of its deliveries and in any order, some of them all in one millisecond.
fn recorded(world: &World, rng: &mut StdRng) -> Vec<Vec<(EventId, i64, Attempt)>> {
    let mut events: HashMap<i64, EventId> = HashMap::new();
    let start = world.clock.now();
    let mut groups = Vec::new();
    for group in 0..40 {
        let began = start.plus(Duration::from_millis(group * 300));
        let spread = [1, 100, 20_000][rng.random_range(0..3)];
        let attempts = (0..rng.random_range(1..70)).map(|_| {
            let sequence = i64::try_from(group).unwrap() * 10 + rng.random_range(0..200);
            let started_at = began.plus(Duration::from_millis(rng.random_range(0..spread)));
            let fails = rng.random_bool(0.1);
            let outcome = Outcome {
                result: Ok(Answer {
                    status: if fails { 503 } else { 202 },
                    retry_after: None,
                    excerpt: format!("said {sequence}"),
                }),
                duration: Duration::from_millis(rng.random_range(0..90)),
            };
            let event = events
                .entry(sequence)
                .or_insert_with(|| EventId::new(start));
            (
                *event,
                sequence,
                Attempt::new(rng.random_range(1..9), started_at, &outcome),
            )
        });
        groups.push(attempts.collect());
    }
    groups
}

#[tokio::test]
async fn however_attempts_were_recorded_each_is_found_once() {
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    let seed: u64 = rand::random();
    let groups = recorded(&world, &mut StdRng::seed_from_u64(seed));
    // What may have been committed is recorded once more.
    for group in groups.iter().chain(&groups[..3]) {
        let made = group
            .iter()
            .map(|(event, sequence, attempt)| delivery::Made {
                merchant: world.merchant,
                endpoint,
                event: *event,
                sequence: *sequence,
                attempt,
                endpoint_version: 7,
                request_bytes: Some(512),
            });
        let mut tx = world.worker.begin().await.unwrap();
        delivery::record(&mut tx, made).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut expected: Vec<_> = groups.iter().flatten().collect();
    expected.sort_by_key(|(.., attempt)| Reverse(attempt.id));

    let middle = expected[expected.len() / 2].2.started_at;
    let outcomes = [
        None,
        Some(AttemptOutcome::Succeeded),
        Some(AttemptOutcome::Failed),
    ];
    let spans = [(None, None), (Some(middle), None), (None, Some(middle))];
    for ((outcome, (since, until)), limit) in outcomes
        .iter()
        .flat_map(|outcome| spans.map(|span| (*outcome, span)))
        .zip([1, 7, 60, 250].into_iter().cycle())
    {
        let filter = AttemptFilter {
            outcome,
            since,
            until,
        };
        let mut listed = Vec::new();
        let mut cursor = None;
        loop {
            let page = attempts(&world, endpoint, filter, limit, cursor.as_deref()).await;
            listed.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        // Bounds are told from ids, which know milliseconds.
        let millis = |at: kernel::clock::Timestamp| at.unix_millis();
        let wanted: Vec<_> = expected
            .iter()
            .filter(|(.., attempt)| {
                let at = millis(attempt.started_at);
                since.is_none_or(|since| at >= millis(since))
                    && until.is_none_or(|until| at < millis(until))
                    && outcome.is_none_or(|outcome| {
                        (outcome == AttemptOutcome::Succeeded)
                            == delivery::is_accepted(attempt.status)
                    })
            })
            .map(|(event, sequence, attempt)| (attempt.id, *event, *sequence))
            .collect();
        let listed: Vec<_> = listed
            .iter()
            .map(|one| (one.id, one.event_id, one.sequence))
            .collect();
        assert_eq!(listed, wanted, "seed {seed}: {filter:?} by {limit}");
    }

    let mut by_delivery: BTreeMap<(i64, EventId), Vec<Attempt>> = BTreeMap::new();
    for (event, sequence, attempt) in groups.iter().flatten() {
        let of_delivery = by_delivery.entry((*sequence, *event)).or_default();
        of_delivery.push(attempt.clone());
    }
    let mut tx = world.worker.begin().await.unwrap();
    for ((sequence, event), mut made) in by_delivery {
        made.sort_by_key(|attempt| attempt.id);
        let mut found = delivery::attempts(&mut tx, world.merchant, endpoint, event, sequence)
            .await
            .unwrap();
        assert!(
            found.is_sorted_by_key(|attempt| attempt.started_at),
            "{found:?}"
        );
        found.sort_by_key(|attempt| attempt.id);
        assert_eq!(found, made, "seed {seed}: {sequence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deliveries_are_found_by_endpoint_event_resource_and_state() {
    use DeliveryState::{Dead, Delivered, NotSent, Pending, Retrying};
    let world = World::new().await;
    let (endpoint, events) = fared(&world).await;
    for limit in [1, 2, 10] {
        assert_eq!(
            all(&world, &of(endpoint), limit).await,
            [(4, Pending), (3, NotSent), (2, Delivered), (1, Dead)]
        );
        for (state, expected) in [
            (Pending, vec![4]),
            (Retrying, vec![]),
            (Delivered, vec![2]),
            (Dead, vec![1]),
            (NotSent, vec![3]),
        ] {
            let filter = DeliveryFilter {
                state: Some(state),
                ..of(endpoint)
            };
            let found = all(&world, &filter, limit).await;
            let expected: Vec<_> = expected.into_iter().map(|one| (one, state)).collect();
            assert_eq!(found, expected, "{state:?} by {limit}");
        }
    }
    let by_event = DeliveryFilter {
        event: Some(events[1]),
        ..DeliveryFilter::default()
    };
    let page = search(&world, &world.actor, &by_event, 10, None)
        .await
        .unwrap();
    assert_eq!(page.data.len(), 1);
    let delivery = &page.data[0];
    assert_eq!(
        (
            delivery.sequence,
            delivery.attempt_count,
            delivery.next_attempt_at
        ),
        (2, 2, None)
    );
    assert_eq!(delivery.event.kind, "order.paid");
    assert_eq!(delivery.last_attempt.as_ref().unwrap().status, Some(200));
    let by_resource = |id: &str| DeliveryFilter {
        resource: Some(("order".to_owned(), id.to_owned())),
        ..DeliveryFilter::default()
    };
    // A second endpoint gets the second version of what the first got the first of.
    world.endpoint(Some("http://127.0.0.1:9/")).await;
    world.append(&[made("queued", 2)]).await;
    world.relay_all().await;
    for limit in [1, 2, 10] {
        let mut found = all(&world, &by_resource("queued"), limit).await;
        found.sort_by_key(|(sequence, _)| *sequence);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(all(&world, &by_resource("nothing"), limit).await, []);
    }
    let both = DeliveryFilter {
        event: Some(events[1]),
        ..by_resource("dead")
    };
    assert_eq!(all(&world, &both, 10).await, []);
    for limit in [1, 10] {
        let mut everything = all(&world, &DeliveryFilter::default(), limit).await;
        everything.sort_by_key(|(sequence, _)| *sequence);
        assert_eq!(
            everything.len(),
            4 + 2,
            "each delivery of each endpoint once: {everything:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_timeline_tells_all_that_happened_and_shows_no_personal_data() {
    let world = World::new().await;
    let (endpoint, events) = fared(&world).await;
    let kinds = |timeline: &timeline::Timeline| -> Vec<EntryKind> {
        timeline.timeline.iter().map(|entry| entry.kind).collect()
    };
    let dead = get(&world, endpoint, 1).await;
    assert_eq!(
        kinds(&dead),
        [
            EntryKind::Occurred,
            EntryKind::Attempt,
            EntryKind::Attempt,
            EntryKind::DeadLetter
        ]
    );
    assert_eq!(
        dead.timeline[3].reason.as_deref(),
        Some("attempts_exhausted")
    );
    assert_eq!(
        dead.timeline[3].dead_letter_id,
        dead.delivery.dead_letter_id
    );
    let delivered = get(&world, endpoint, 2).await;
    let sent = delivered.timeline[1].request.as_ref().unwrap();
    assert!(sent.has_personal_part);
    assert!(!sent.body_excerpt.contains("Ada"), "{}", sent.body_excerpt);
    assert!(sent.body_excerpt.contains(r#""type":"order.paid""#));
    assert_eq!(sent.headers["webhook-signature"], "***");
    assert_eq!(sent.headers["webhook-id"], events[1].to_string());
    let queued = get(&world, endpoint, 4).await;
    assert!(kinds(&queued).starts_with(&[EntryKind::Occurred]));
    assert!(kinds(&queued).ends_with(&[EntryKind::Queued, EntryKind::Due]));
    // Replayed, it is on its way again and its past is still told.
    let replay = crate::dead_letter::Replay {
        id: dead.delivery.dead_letter_id.unwrap(),
    };
    world.run(&replay).await.unwrap();
    let again = get(&world, endpoint, 1).await;
    assert_eq!(again.delivery.state, DeliveryState::Pending);
    assert_eq!(again.delivery.attempt_count, 2);
    assert!(kinds(&again).contains(&EntryKind::Replayed));
    // What the history has forgotten, the dead letter still knows.
    super::reading::forget(&world, "events", "id", &events[..1]).await;
    super::reading::forget(&world, "streams", "event_id", &events[..1]).await;
    let remembered = get(&world, endpoint, 1).await;
    assert_eq!(remembered.delivery.event.kind, "order.placed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sees_more_than_their_endpoints_and_their_grant() {
    let world = World::new().await;
    let (endpoint, events) = fared(&world).await;
    let stranger = world
        .other_app(Access {
            scopes: scopes("orders:read webhooks:read"),
            locations: None,
            personal_data: true,
        })
        .await;
    let by_event = DeliveryFilter {
        event: Some(events[0]),
        ..DeliveryFilter::default()
    };
    let found = search(&world, &stranger, &by_event, 10, None)
        .await
        .unwrap();
    assert_eq!(found.data, []);
    let found = search(&world, &stranger, &of(endpoint), 10, None)
        .await
        .unwrap();
    assert_eq!(found.data, []);
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let now = world.clock.now();
    assert!(matches!(
        timeline::get(&mut tx, &stranger, endpoint, 1, now).await,
        Err(Error::EndpointNotFound(_))
    ));
    assert!(matches!(
        timeline::get(&mut tx, &world.actor, endpoint, 99, now).await,
        Err(Error::SequenceNotFound(99))
    ));
    drop(tx);
    world.narrow("catalog:read webhooks:read").await;
    let shown = get(&world, endpoint, 2).await;
    assert_eq!(shown.delivery.event.kind, "event.withheld");
    assert_eq!(shown.delivery.event.resource, None);
    let sent = shown.timeline[1].request.as_ref().unwrap();
    assert!(!sent.body_excerpt.contains("good"), "{}", sent.body_excerpt);
    let by_resource = DeliveryFilter {
        resource: Some(("order".to_owned(), "good".to_owned())),
        ..DeliveryFilter::default()
    };
    assert_eq!(all(&world, &by_resource, 10).await, []);
}
