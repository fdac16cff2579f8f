//! Calls that queue while a group is committed: the next group takes all of them.

use futures_util::future::join_all;
use kernel::idempotency::{GROUP_WEIGHT_MAX, Groups};

use crate::tally::{self, Gate, Process, Tally, Then, key};

/// Calls that queue behind the first.
const QUEUED: usize = 40;

#[tokio::test]
async fn calls_that_wait_for_a_group_share_the_next_one() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let groups = Groups::new(process.idempotency.clone());
    let (gate, mut keeper) = Gate::new();
    let call = |name: &str, then: Then| {
        let (groups, actor, key) = (groups.clone(), actor.clone(), key(name));
        let operation = Tally::new(name, then);
        tokio::spawn(async move { groups.once(actor, key, operation).await })
    };
    let first = call("first", Then::Wait(gate));
    keeper.arrival().await;
    // Every fourth repeats a key: it is done once all the same.
    let queued: Vec<_> = (0..QUEUED)
        .map(|place| {
            call(
                &format!("queued-{}", place - usize::from(place % 4 == 3)),
                Then::Succeed,
            )
        })
        .collect();
    let gone = call("gone", Then::Succeed);
    // The calls have been polled, and so have queued, once a task that was spawned after them has run.
    tokio::spawn(async {}).await.unwrap();
    gone.abort();
    keeper.open();

    assert!(first.await.unwrap().is_ok());
    let answers = join_all(queued).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().is_ok()));
    let distinct = i64::try_from(QUEUED - QUEUED / 4).unwrap();
    crate::soon(async {
        while tally::rows(&world).await < distinct + 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(
        tally::rows(&world).await,
        distinct + 2,
        "the first, each key once, and the call whose caller went away"
    );
    let transactions = world
        .database
        .count("select count(distinct xid) from tallies")
        .await
        .unwrap();
    assert_eq!(transactions, 2, "the first alone, then all that had queued");
}

#[tokio::test]
async fn a_heavy_call_is_the_last_of_its_group() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let groups = Groups::new(process.idempotency.clone());
    let (gate, mut keeper) = Gate::new();
    let call = |name: &str, then: Then, weight: usize| {
        let (groups, actor, key) = (groups.clone(), actor.clone(), key(name));
        let operation = Tally::new(name, then).weighing(weight);
        tokio::spawn(async move { groups.once(actor, key, operation).await })
    };
    let first = call("first", Then::Wait(gate), 1);
    keeper.arrival().await;
    let weights = [1, GROUP_WEIGHT_MAX, 1, 1];
    let queued: Vec<_> = (0..)
        .zip(weights)
        .map(|(place, weight)| call(&format!("queued-{place}"), Then::Succeed, weight))
        .collect();
    // They have queued once a task that was spawned after them has run.
    tokio::spawn(async {}).await.unwrap();
    keeper.open();
    assert!(first.await.unwrap().is_ok());
    let answers = join_all(queued).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().is_ok()));
    let transactions = world
        .database
        .count("select count(distinct xid) from tallies")
        .await
        .unwrap();
    assert_eq!(
        transactions, 3,
        "the first, those up to the heavy one, the rest"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_another_process_is_at_work_on_holds_up_nobody_else() {
    let world = tally::world().await;
    let (here, elsewhere) = (Process::new(&world), Process::new(&world));
    let actor = world.actor(world.a);
    let (gate, mut keeper) = Gate::new();
    let held = {
        let actor = actor.clone();
        let operation = Tally::new("held", Then::Wait(gate));
        tokio::spawn(async move { elsewhere.run(&actor, "held", operation).await })
    };
    keeper.arrival().await;

    let groups = Groups::new(here.idempotency.clone());
    let call = |name: &str| {
        let (groups, actor, key) = (groups.clone(), actor.clone(), key(name));
        let operation = Tally::new(name, Then::Succeed);
        tokio::spawn(async move { groups.once(actor, key, operation).await })
    };
    let twin = call("held");
    // In its group or behind it.
    for number in 0..20 {
        assert!(call(&format!("other-{number}")).await.unwrap().is_ok());
    }
    assert!(!twin.is_finished(), "its answer is not known yet");
    keeper.open();
    let done = held.await.unwrap().unwrap();
    let twin = twin.await.unwrap().unwrap();
    assert_eq!((twin.replayed, twin.value.id), (true, done.value.id));
}

#[tokio::test]
async fn a_panic_in_a_group_leaves_nobody_waiting() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let groups = Groups::new(process.idempotency.clone());
    let (gate, mut keeper) = Gate::new();
    let panicking = {
        let (groups, actor) = (groups.clone(), actor.clone());
        let operation = Tally::new("panics", Then::Panic(gate));
        tokio::spawn(async move { groups.once(actor, key("panics"), operation).await })
    };
    keeper.arrival().await;
    let (behind, operation) = (groups.clone(), Tally::new("behind", Then::Succeed));
    let waiting = {
        let actor = actor.clone();
        tokio::spawn(async move { behind.once(actor, key("behind"), operation).await })
    };
    tokio::spawn(async {}).await.unwrap();
    keeper.open();
    assert!(crate::soon(panicking).await.unwrap().is_err());
    // Told that nothing is known of its call; the retry finds somebody at work again.
    assert!(crate::soon(waiting).await.unwrap().is_err());
    let again = groups.once(actor, key("behind"), Tally::new("behind", Then::Succeed));
    assert!(crate::soon(again).await.is_ok());
}
