//! What goes wrong in the middle: conflicts, panics, cancelled requests, dying connections. Nothing is ever half done, and the next call does it once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use kernel::{clock::Clock, problem::Problem};
use sqlx::{Executor, Row};
use tokio::sync::Barrier;

use crate::{
    World,
    tally::{self, Error, Gate, Process, Tally, Then, error_of},
};

async fn terminate(world: &World, backend: i32) {
    let mut owner = world.database.owner().await.unwrap();
    let ended = sqlx::query("select pg_terminate_backend($1, 10000)")
        .bind(backend)
        .fetch_one(&mut owner)
        .await
        .unwrap();
    assert!(ended.get::<bool, _>(0), "the backend has ended");
}

#[tokio::test]
async fn a_serialization_failure_is_run_again_a_few_times() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let answer = process
        .run(
            &actor,
            "k",
            Tally::new("one", Then::Conflict(AtomicUsize::new(5))),
        )
        .await
        .unwrap();
    assert!(!answer.replayed);
    assert_eq!(tally::rows(&world).await, 1);
    let error = error_of(
        process
            .run(
                &actor,
                "never",
                Tally::new("two", Then::Conflict(AtomicUsize::new(usize::MAX))),
            )
            .await,
    );
    let Error::Database(error) = error else {
        panic!("{error:?}")
    };
    assert_eq!(Problem::from(error).kind.status, 503);
    assert_eq!(tally::rows(&world).await, 1);
    assert_eq!(tally::events_and_answers(&world).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_calls_that_deadlock_both_are_done_in_the_end() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    for row in [1, 2] {
        tally::make_row(&process, world.a, row).await;
    }
    let between = Arc::new(Barrier::new(2));
    let lock = |first, second| {
        Tally::new(
            "one",
            Then::Lock {
                first,
                second,
                met: AtomicUsize::new(0),
                between: Arc::clone(&between),
            },
        )
    };
    let (there, back) = (lock(1, 2), lock(2, 1));
    let (left_key, right_key) = (tally::key("left"), tally::key("right"));
    let (left, right) = tokio::join!(
        process.idempotency.once(&actor, &left_key, &there),
        process.idempotency.once(&actor, &right_key, &back),
    );
    assert!(!left.unwrap().replayed && !right.unwrap().replayed);
    let runs: usize = [&there, &back].into_iter().map(Tally::meetings).sum();
    assert!(
        runs >= 3,
        "one of them was the victim of a deadlock and ran again"
    );
    assert_eq!(tally::rows(&world).await, 2);
    assert_eq!(
        world
            .database
            .count("select sum(touched) from tally_rows")
            .await
            .unwrap(),
        4
    );
}

#[tokio::test]
async fn a_failure_at_the_commit_keeps_nothing() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    process
        .run(&actor, "first", Tally::new("one", Then::Claim("seat")))
        .await
        .unwrap();
    for _ in 0..2 {
        let failed = process
            .run(&actor, "second", Tally::new("one", Then::Claim("seat")))
            .await
            .unwrap_err();
        let Error::Database(error) = failed.error else {
            panic!("{:?}", failed.error)
        };
        assert_eq!(
            (failed.replayed, error.violated_constraint().as_deref()),
            (false, Some("tally_claims_merchant_id_name_key"))
        );
    }
    assert_eq!(tally::rows(&world).await, 1);
    assert_eq!(tally::events_and_answers(&world).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_panic_nothing_is_kept_and_a_waiting_twin_runs() {
    let world = tally::world().await;
    let (process, actor) = (Arc::new(Process::new(&world)), world.actor(world.a));
    let (gate, mut keeper) = Gate::new();
    let panicking = {
        let (process, actor) = (Arc::clone(&process), actor.clone());
        tokio::spawn(async move {
            process
                .run(&actor, "k", Tally::new("one", Then::Panic(gate)))
                .await
                .is_ok()
        })
    };
    keeper.arrival().await;
    let twin = process.once(&actor, "k", "one");
    let panic = async {
        keeper.open();
        assert!(panicking.await.unwrap_err().is_panic());
    };
    let (twin, ()) = tokio::join!(twin, panic);
    assert!(!twin.unwrap().replayed);
    assert!(process.once(&actor, "k", "one").await.unwrap().replayed);
    assert_eq!(tally::rows(&world).await, 1);
    assert_eq!(tally::events_and_answers(&world).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_cancelled_call_nothing_is_kept_and_a_waiting_twin_runs() {
    let world = tally::world().await;
    let (process, actor) = (Arc::new(Process::new(&world)), world.actor(world.a));
    let (gate, mut keeper) = Gate::new();
    let cancelled = {
        let (process, actor) = (Arc::clone(&process), actor.clone());
        tokio::spawn(async move {
            process
                .run(&actor, "k", Tally::new("one", Then::Wait(gate)))
                .await
                .is_ok()
        })
    };
    keeper.arrival().await;
    let twin = process.once(&actor, "k", "one");
    let cancel = async {
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
    };
    let (twin, ()) = tokio::join!(twin, cancel);
    assert!(!twin.unwrap().replayed);
    assert_eq!(tally::rows(&world).await, 1);
    assert_eq!(tally::events_and_answers(&world).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_cancelled_at_any_moment_leave_all_or_nothing_and_a_retry_does_the_rest() {
    let world = tally::world().await;
    let process = Arc::new(Process::start(&world, 4, Clock::system()));
    let actor = world.actor(world.a);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200_u32 {
        let (process, actor) = (Arc::clone(&process), actor.clone());
        calls.spawn(async move {
            let key = format!("k{number}");
            let mut call = Box::pin(process.once(&actor, &key, "one"));
            for _ in 0..rand::random_range(0..60) {
                if std::future::poll_fn(|context| {
                    std::task::Poll::Ready(call.as_mut().poll(context).is_ready())
                })
                .await
                {
                    return 0;
                }
                tokio::task::yield_now().await;
            }
            drop(call);
            process.once(&actor, &key, "one").await.unwrap();
            1
        });
    }
    let cancelled: usize = calls.join_all().await.into_iter().sum();
    assert!(cancelled > 0, "some were cancelled");
    assert_eq!(tally::rows(&world).await, 200);
    assert_eq!(tally::events_and_answers(&world).await, (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_connection_that_dies_before_the_commit_leaves_nothing_and_the_retry_runs_once() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let (gate, mut keeper) = Gate::new();
    let dying = process.run(&actor, "k", Tally::new("one", Then::Wait(gate)));
    let killing = async {
        let backend = keeper.arrival().await;
        terminate(&world, backend).await;
        keeper.open();
    };
    let (died, ()) = tokio::join!(dying, killing);
    let Error::Database(error) = error_of(died) else {
        panic!("the database should have failed")
    };
    assert!(error.is_unavailable(), "{error:?}");
    assert_eq!(tally::rows(&world).await, 0);
    assert_eq!(tally::events_and_answers(&world).await, (0, 0));
    assert!(!process.once(&actor, "k", "one").await.unwrap().replayed);
    assert!(process.once(&actor, "k", "one").await.unwrap().replayed);
    assert_eq!(tally::rows(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_random_kills_of_backends_every_key_is_done_once() {
    let world = tally::world().await;
    let process = Arc::new(Process::start(&world, 8, Clock::system()));
    let actor = world.actor(world.a);
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let (process, actor, done) = (Arc::clone(&process), actor.clone(), Arc::clone(&done));
        clients.spawn(async move {
            for number in 0..40 {
                let key = format!("c{client}-{number}");
                // A client that gets no answer asks again with the same key.
                while let Err(failed) = process.once(&actor, &key, "one").await {
                    assert!(
                        matches!(failed.error, Error::Database(_) | Error::Idempotency(_)),
                        "{:?}",
                        failed.error
                    );
                }
                done.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut owner = world.database.owner().await.unwrap();
    let mut killed = 0;
    while done.load(Ordering::SeqCst) < 320 {
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name = 'stoa_api' order by random() limit 1";
        killed += owner.fetch_all(kill).await.unwrap().len();
        let seen = done.load(Ordering::SeqCst);
        crate::until(|| async { done.load(Ordering::SeqCst) >= (seen + 4).min(320) }).await;
    }
    crate::soon(clients.join_all()).await;
    assert!(killed > 10, "{killed} were killed");
    assert_eq!(tally::rows(&world).await, 320);
    assert_eq!(tally::events_and_answers(&world).await, (320, 320));
}
