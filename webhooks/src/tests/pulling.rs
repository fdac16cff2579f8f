//! Leases: events handed out, acknowledged, given back and given up on.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use kernel::{
    clock::{Clock, Timestamp},
    idempotency::{Answer, Failed, Failure, Idempotency, Key, Operation},
    problem::{self, Problem},
};
use tokio_util::sync::CancellationToken;

use super::{
    measuring::Counters,
    reading::read,
    world::{World, made},
};
use crate::{
    endpoint::{EndpointChange, EndpointId, Status},
    error::{Error, Refusal},
    follow::{Seats, Standing},
    hub::Hub,
    pull::{
        Acknowledge, AcknowledgeInput, Lease, LeaseId, LeaseInput, LeaseSettled, Leasing, Of,
        Release, ReleaseInput,
    },
    replay::Selection,
    timeline,
};

struct Stands;

impl Standing for Stands {
    fn check(&self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async { Ok(()) })
    }
}

struct Ended;

impl Standing for Ended {
    fn check(&self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async { Err(Problem::new(&problem::INVALID_TOKEN, "ended")) })
    }
}

struct Consumer {
    world: World,
    leasing: Leasing,
    endpoint: EndpointId,
}

const ONE_MINUTE: Duration = Duration::from_mins(1);

impl Consumer {
    /// A consumer of a new endpoint, with these settings, on a clock that stands.
    async fn new(settings: &str) -> Self {
        let start = Clock::system().now();
        let world = World::at(Clock::manual(start)).await;
        let endpoint = world.endpoint(None).await.endpoint.id;
        let mut tx = world.api.enter(world.merchant).await.unwrap();
        sqlx::query("update endpoints set settings = $3::jsonb where merchant_id = $1 and id = $2")
            .bind(world.merchant)
            .bind(endpoint)
            .bind(settings)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let leasing = Leasing {
            database: world.api.clone(),
            idempotency: Idempotency::new(
                world.api.clone(),
                world.clock.clone(),
                Arc::clone(&world.keyring),
                world.announcer.clone(),
            ),
            keyring: Arc::clone(&world.keyring),
            clock: world.clock.clone(),
            hub: Hub::new(CancellationToken::new()),
            seats: Seats::default(),
            attempts_max: 3,
        };
        Self {
            world,
            leasing,
            endpoint,
        }
    }

    /// Appends events and has them queued.
    async fn queue(&self, resources: &[&str]) {
        let version = self.world.count("select count(*) from events").await + 1;
        let events: Vec<_> = resources
            .iter()
            .zip(version..)
            .map(|(resource, version)| made(resource, version))
            .collect();
        for event in events {
            self.world.append(&[event]).await;
            self.world.relay_all().await;
        }
        self.leasing.hub.announce(self.world.merchant);
    }

    fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    async fn try_lease(
        &self,
        key: &str,
        input: &LeaseInput,
    ) -> Result<Answer<Lease>, Failed<Error>> {
        let key: Key = key.parse().unwrap();
        self.leasing
            .lease(&self.world.actor, &Stands, &key, self.endpoint, input)
            .await
    }

    async fn lease(&self, key: &str, max_events: u32) -> Lease {
        let input = LeaseInput {
            max_events,
            ..LeaseInput::default()
        };
        self.try_lease(key, &input).await.unwrap().value
    }

    async fn acknowledge(
        &self,
        lease: LeaseId,
        sequences: Option<&[i64]>,
    ) -> Result<LeaseSettled, Error> {
        let input = AcknowledgeInput {
            lease_id: lease,
            sequences: sequences.map(<[i64]>::to_vec),
        };
        self.run(&Acknowledge {
            input: Of {
                id: self.endpoint,
                input,
            },
        })
        .await
    }

    async fn release(
        &self,
        lease: LeaseId,
        sequences: Option<&[i64]>,
        delay_seconds: u32,
    ) -> Result<LeaseSettled, Error> {
        let input = ReleaseInput {
            lease_id: lease,
            sequences: sequences.map(<[i64]>::to_vec),
            delay_seconds,
        };
        self.run(&Release {
            input: Of {
                id: self.endpoint,
                input,
            },
        })
        .await
    }

    async fn run<O: Operation<Error = Error>>(&self, operation: &O) -> Result<O::Output, Error> {
        self.world.run(operation).await
    }

    async fn queued(&self) -> i64 {
        self.world.count("select count(*) from deliveries").await
    }
}

const LEASED: &str = r#"{"pull": "lease"}"#;
const ORDERED: &str = r#"{"pull": "lease", "delivery": {"ordering": "resource"}}"#;

fn sequences(lease: &Lease) -> Vec<i64> {
    lease
        .data
        .iter()
        .filter_map(|leased| leased.event.sequence)
        .collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    result.unwrap_err().into_refusal().unwrap()
}

#[tokio::test]
async fn events_are_handed_out_once_and_acknowledged_away() {
    let consumer = Consumer::new(LEASED).await;
    consumer.queue(&["a", "b", "c"]).await;
    let first = consumer.lease("first", 2).await;
    assert_eq!(sequences(&first), [1, 2]);
    assert_eq!(first.expires_at, Some(consumer.now().plus(ONE_MINUTE)));
    assert!(first.data.iter().all(|leased| leased.attempt == 1));
    assert!(first.data[0].event.data.is_some());
    let second = consumer.lease("second", 10).await;
    assert_eq!(sequences(&second), [3]);
    let none = consumer.lease("third", 10).await;
    assert_eq!((none.lease_id, none.data.len()), (None, 0));

    let first = first.lease_id.unwrap();
    let settled = consumer.acknowledge(first, Some(&[2, 3, 9])).await.unwrap();
    assert_eq!(
        (settled.settled_count, settled.not_held),
        (1, vec![3, 9]),
        "what another lease holds is none of this one's"
    );
    assert_eq!(
        consumer
            .acknowledge(first, None)
            .await
            .unwrap()
            .settled_count,
        1
    );
    assert_eq!(consumer.queued().await, 1);
    assert_eq!(
        refusal(consumer.acknowledge(first, None).await),
        Refusal::LeaseExpired
    );
    // What found nothing is not kept: the same request may lease later.
    consumer.queue(&["d"]).await;
    assert_eq!(sequences(&consumer.lease("third", 10).await), [4]);
}

#[tokio::test]
async fn what_was_acknowledged_counts_as_accepted_and_is_not_replayed_as_missed() {
    let consumer = Consumer::new(LEASED).await;
    consumer.queue(&["a", "b"]).await;
    let lease = consumer.lease("first", 2).await.lease_id.unwrap();
    consumer.world.clock.advance(Duration::from_secs(2));
    consumer.acknowledge(lease, Some(&[1])).await.unwrap();
    let mut tx = consumer
        .world
        .api
        .enter(consumer.world.merchant)
        .await
        .unwrap();
    let timeline = timeline::get(
        &mut tx,
        &consumer.world.actor,
        consumer.endpoint,
        1,
        consumer.now(),
    );
    let timeline = timeline.await.unwrap();
    let attempt = timeline
        .timeline
        .iter()
        .find_map(|entry| entry.attempt.as_ref())
        .unwrap();
    assert_eq!(
        (attempt.status, attempt.duration_ms, attempt.number),
        (Some(200), 2_000, 1)
    );
    assert!(
        timeline
            .timeline
            .iter()
            .all(|entry| entry.request.is_none()),
        "nothing was posted"
    );
    tx.commit().await.unwrap();

    consumer.release(lease, None, 3_600).await.unwrap();
    let missed = Selection::default();
    let replay = consumer.world.replay(consumer.endpoint, missed).await;
    consumer.world.replay_all().await;
    let replay = consumer.world.replay_of(&replay).await;
    assert_eq!(
        replay.queued_count, 0,
        "one was accepted, the other is queued"
    );
}

#[tokio::test]
async fn events_are_handed_out_in_the_form_that_was_asked_for() {
    let consumer = Consumer::new(r#"{"pull": "lease", "payload": {"shape": "thin"}}"#).await;
    consumer.queue(&["a"]).await;
    let lease = consumer.lease("first", 1).await;
    assert!(lease.data[0].event.data.is_none());
    assert!(lease.data[0].event.resource.is_some());
    let read = read(&consumer.world, consumer.endpoint, 0, 9)
        .await
        .unwrap();
    assert_eq!(
        serde_json::to_value(&read.data[0]).unwrap(),
        serde_json::to_value(&lease.data[0].event).unwrap(),
        "and are the same in the stream"
    );
}

#[tokio::test]
async fn a_retry_is_given_the_same_lease_for_as_long_as_it_lasts() {
    let consumer = Consumer::new(LEASED).await;
    consumer.queue(&["a", "b", "c"]).await;
    let input = LeaseInput {
        max_events: 2,
        ..LeaseInput::default()
    };
    let first = consumer.try_lease("key", &input).await.unwrap();
    let again = consumer.try_lease("key", &input).await.unwrap();
    assert_eq!((first.replayed, again.replayed), (false, true));
    assert_eq!(again.value.lease_id, first.value.lease_id);
    assert_eq!(
        serde_json::to_value(&again.value).unwrap(),
        serde_json::to_value(&first.value).unwrap()
    );
    let lease = first.value.lease_id.unwrap();
    consumer.acknowledge(lease, Some(&[1])).await.unwrap();
    let rest = consumer.try_lease("key", &input).await.unwrap();
    assert_eq!(sequences(&rest.value), [2]);
    let other = LeaseInput {
        max_events: 3,
        ..LeaseInput::default()
    };
    assert!(matches!(
        consumer.try_lease("key", &other).await.unwrap_err().error,
        Error::Idempotency(kernel::idempotency::Error::KeyReused)
    ));
    consumer.world.clock.advance(ONE_MINUTE);
    let late = consumer.try_lease("key", &input).await.unwrap_err();
    assert!(late.replayed);
    assert_eq!(refusal(Err::<(), _>(late.error)), Refusal::LeaseExpired);
}

#[tokio::test]
async fn what_comes_after_a_leases_end_changes_nothing() {
    let consumer = Consumer::new(LEASED).await;
    consumer.queue(&["a", "b"]).await;
    let lost = consumer.lease("lost", 10).await.lease_id.unwrap();
    consumer.world.clock.advance(ONE_MINUTE);
    // Before somebody else has it, and after.
    assert_eq!(
        refusal(consumer.acknowledge(lost, None).await),
        Refusal::LeaseExpired
    );
    let again = consumer.lease("again", 10).await;
    assert_eq!(sequences(&again), [1, 2]);
    assert!(again.data.iter().all(|leased| leased.attempt == 2));
    assert_eq!(
        refusal(consumer.acknowledge(lost, Some(&[1])).await),
        Refusal::LeaseExpired
    );
    assert_eq!(
        refusal(consumer.release(lost, None, 0).await),
        Refusal::LeaseExpired
    );
    assert_eq!(consumer.queued().await, 2);
    let again = again.lease_id.unwrap();
    assert_eq!(
        consumer
            .acknowledge(again, None)
            .await
            .unwrap()
            .settled_count,
        2
    );
}

#[tokio::test]
async fn what_is_given_back_comes_again_when_it_is_asked_for() {
    let consumer = Consumer::new(LEASED).await;
    consumer.queue(&["a", "b", "c"]).await;
    let lease = consumer.lease("first", 10).await.lease_id.unwrap();
    consumer.release(lease, Some(&[1]), 0).await.unwrap();
    consumer.release(lease, Some(&[2]), 30).await.unwrap();
    let again = consumer.lease("again", 10).await;
    assert_eq!(sequences(&again), [1]);
    assert_eq!(again.data[0].attempt, 2);
    consumer.world.clock.advance(Duration::from_secs(30));
    assert_eq!(sequences(&consumer.lease("later", 10).await), [2]);
    assert_eq!(
        consumer
            .acknowledge(lease, None)
            .await
            .unwrap()
            .settled_count,
        1
    );
}

#[tokio::test]
async fn a_resources_events_wait_for_one_another_and_for_no_others() {
    let consumer = Consumer::new(ORDERED).await;
    consumer.queue(&["a", "b", "a", "a", "b", "c"]).await;
    let first = consumer.lease("1", 10).await;
    assert_eq!(sequences(&first), [1, 2, 6]);
    let none = consumer.lease("2", 10).await;
    assert_eq!(none.data.len(), 0, "what is leased holds its resource back");
    let first = first.lease_id.unwrap();
    consumer.acknowledge(first, Some(&[1, 6])).await.unwrap();
    consumer.release(first, Some(&[2]), 30).await.unwrap();
    let next = consumer.lease("3", 10).await;
    assert_eq!(sequences(&next), [3], "and so does what waits");
    consumer.world.clock.advance(Duration::from_secs(30));
    assert_eq!(sequences(&consumer.lease("4", 10).await), [2]);
    consumer
        .acknowledge(next.lease_id.unwrap(), None)
        .await
        .unwrap();
    assert_eq!(sequences(&consumer.lease("5", 10).await), [4]);
}

#[tokio::test]
async fn what_was_leased_too_often_is_a_dead_letter_and_holds_nothing_back() {
    let consumer = Consumer::new(ORDERED).await;
    consumer.queue(&["a", "a", "b"]).await;
    let first = consumer.lease("attempt-1", 10).await;
    assert_eq!(sequences(&first), [1, 3]);
    consumer
        .acknowledge(first.lease_id.unwrap(), Some(&[3]))
        .await
        .unwrap();
    for attempt in 2..=3 {
        consumer.world.clock.advance(ONE_MINUTE);
        let lease = consumer.lease(&format!("attempt-{attempt}"), 10).await;
        assert_eq!(sequences(&lease), [1]);
        assert_eq!(lease.data[0].attempt, attempt);
    }
    consumer.world.clock.advance(ONE_MINUTE);
    let counters = Counters::default();
    let counting = ::metrics::set_default_local_recorder(&counters);
    let next = consumer.lease("next", 10).await;
    drop(counting);
    assert_eq!(sequences(&next), [2]);
    let counted = counters.of("stoa_dead_letters_total", "attempts_exhausted");
    assert_eq!(counted, 1);
    let letters = consumer.world.dead_letters(consumer.endpoint).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (letters[0].sequence, letters[0].reason.as_str()),
        (1, "attempts_exhausted")
    );
    assert!(letters[0].event.data.is_some());
}

#[tokio::test]
async fn consumers_beside_each_other_never_share_an_event() {
    let consumer = Consumer::new(LEASED).await;
    let resources = ["a"; 60];
    consumer.queue(&resources).await;
    let leases = (0..8).map(|number| {
        let consumer = &consumer;
        async move {
            let mut mine = Vec::new();
            for round in 0..20 {
                let lease = consumer.lease(&format!("{number}-{round}"), 5).await;
                mine.extend(sequences(&lease));
                if let Some(lease) = lease.lease_id {
                    consumer.acknowledge(lease, None).await.unwrap();
                }
            }
            mine
        }
    });
    let mut all: Vec<i64> = join_all(leases).await.concat();
    all.sort_unstable();
    assert_eq!(all, (1..=60).collect::<Vec<_>>());
}

#[tokio::test]
async fn whoever_waits_is_woken_by_what_comes() {
    let consumer = Consumer::new(LEASED).await;
    let input = LeaseInput {
        wait_seconds: 20,
        ..LeaseInput::default()
    };
    let began = tokio::time::Instant::now();
    let (leased, ()) = tokio::join!(consumer.try_lease("key", &input), consumer.queue(&["a"]));
    assert_eq!(sequences(&leased.unwrap().value), [1]);
    assert!(began.elapsed() < Duration::from_secs(15), "it was woken");
    // Whoever may no longer read is told so instead.
    let key: Key = "other".parse().unwrap();
    let (refused, ()) = tokio::join!(
        consumer.leasing.lease(
            &consumer.world.actor,
            &Ended,
            &key,
            consumer.endpoint,
            &input
        ),
        async {
            while consumer.leasing.seats.count() == 0 {
                tokio::task::yield_now().await;
            }
            consumer.queue(&["b"]).await;
        }
    );
    assert!(matches!(refused.unwrap_err().error, Error::NoLonger(_)));
    assert_eq!(consumer.leasing.seats.count(), 0);
}

#[tokio::test]
async fn large_events_are_handed_out_in_smaller_portions() {
    let consumer = Consumer::new(LEASED).await;
    consumer.queue(&["a", "b", "c"]).await;
    let mut tx = consumer.world.worker.begin().await.unwrap();
    sqlx::query("update deliveries set data_bytes = 5000000 where merchant_id = $1")
        .bind(consumer.world.merchant)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    for sequence in 1..=3 {
        let lease = consumer.lease(&sequence.to_string(), 10).await;
        assert_eq!(sequences(&lease), [sequence]);
    }
}

#[tokio::test]
async fn only_an_endpoint_that_is_read_by_lease_hands_out() {
    let consumer = Consumer::new("{}").await;
    let input = LeaseInput::default();
    let failed = consumer.try_lease("key", &input).await.unwrap_err();
    assert_eq!(
        refusal(Err::<(), _>(failed.error)),
        Refusal::EndpointNotLeased
    );
    let consumer = Consumer::new(LEASED).await;
    let change = EndpointChange {
        status: Some(Status::Disabled),
        ..EndpointChange::default()
    };
    consumer
        .world
        .change(consumer.endpoint, change)
        .await
        .unwrap();
    let failed = consumer.try_lease("key", &input).await.unwrap_err();
    assert_eq!(
        refusal(Err::<(), _>(failed.error)),
        Refusal::EndpointDisabled
    );
    let stranger = consumer
        .world
        .other_app(consumer.world.actor.access.clone())
        .await;
    let key: Key = "key".parse().unwrap();
    let failed = consumer
        .leasing
        .lease(&stranger, &Stands, &key, consumer.endpoint, &input)
        .await
        .unwrap_err();
    assert!(matches!(failed.error, Error::EndpointNotFound(_)));
}
