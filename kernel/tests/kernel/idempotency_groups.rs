//! Groups: several calls in one transaction, each as if it were alone.

use kernel::{
    actor::Actor,
    idempotency::{Error as Refused, GROUP_MAX, Key, Member, Outcome},
};
use sqlx::Row;

use crate::{
    World,
    tally::{self, Error, Gate, Grouped, Process, Tally, Then, error_of, key},
};

/// Calls of a test, with their keys.
struct Calls<O = Tally>(Vec<(Actor, Key, O)>);

impl<O> Calls<O> {
    fn members(&self) -> Vec<Member<'_, O>> {
        self.0
            .iter()
            .map(|(actor, key, operation)| Member {
                actor,
                key,
                operation,
            })
            .collect()
    }
}

async fn run(process: &Process, world: &World, calls: &Calls) -> Vec<Outcome<Tally>> {
    process
        .idempotency
        .once_many(world.a, &calls.members())
        .await
}

/// Transactions in which rows were written.
async fn transactions(world: &World) -> i64 {
    world
        .database
        .count("select count(distinct xid) from tallies")
        .await
        .unwrap()
}

#[tokio::test]
async fn a_refusal_leaves_nothing_behind_and_the_others_commit() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let thens = || [Then::Succeed, Then::Refuse, Then::Miss, Then::Succeed];
    for replayed in [false, true] {
        let calls = thens().into_iter().enumerate();
        let calls = Calls(
            calls
                .map(|(place, then)| {
                    (
                        actor.clone(),
                        key(&format!("k{place}")),
                        Tally::new(&format!("n{place}"), then),
                    )
                })
                .collect(),
        );
        let outcomes = run(&process, &world, &calls).await;
        assert!(
            matches!(&outcomes[0], Ok(answer) if answer.replayed == replayed && answer.value.name == "n0")
        );
        assert!(
            matches!(&outcomes[1], Err(failed) if failed.replayed == replayed && matches!(failed.error, Error::Refused(_)))
        );
        assert!(
            matches!(&outcomes[2], Err(failed) if !failed.replayed && matches!(failed.error, Error::Missing))
        );
        assert!(
            matches!(&outcomes[3], Ok(answer) if answer.replayed == replayed && answer.value.name == "n3")
        );
        assert_eq!(tally::rows(&world).await, 2);
        assert_eq!(tally::events_and_answers(&world).await, (2, 3));
        assert_eq!(transactions(&world).await, 1);
    }
}

#[tokio::test]
async fn an_error_of_the_whole_makes_the_members_run_singly() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let names = ["a", "b", "c"];
    let calls = Calls(
        names
            .map(|name| {
                let then = if name == "b" {
                    Then::FailInGroup
                } else {
                    Then::Succeed
                };
                (actor.clone(), key(name), Grouped(Tally::new(name, then)))
            })
            .into(),
    );
    let outcomes = process
        .idempotency
        .once_many(world.a, &calls.members())
        .await;
    for (outcome, name) in outcomes.into_iter().zip(names) {
        let answer = outcome.map_err(|failed| failed.error).unwrap();
        assert_eq!((answer.value.name.as_str(), answer.replayed), (name, false));
    }
    assert_eq!(
        (tally::rows(&world).await, transactions(&world).await),
        (3, 3)
    );
    assert_eq!(tally::events_and_answers(&world).await, (3, 3));
}

#[tokio::test]
async fn an_unexpected_error_of_one_member_harms_no_other() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    // A row that is too long for nothing, under a name that PostgreSQL can't store.
    let calls = Calls(
        ["a", "b\0", "c"]
            .map(|name| {
                (
                    actor.clone(),
                    key(&name.replace('\0', "")),
                    Tally::new(name, Then::Succeed),
                )
            })
            .into(),
    );
    let mut outcomes = run(&process, &world, &calls).await.into_iter();
    assert_eq!(outcomes.next().unwrap().unwrap().value.name, "a");
    assert!(matches!(
        error_of(outcomes.next().unwrap()),
        Error::Database(_)
    ));
    assert_eq!(outcomes.next().unwrap().unwrap().value.name, "c");
    assert_eq!(tally::rows(&world).await, 2);
    assert_eq!(tally::events_and_answers(&world).await, (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_group_whose_connection_dies_is_done_singly_and_once() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let (gate, mut keeper) = Gate::new();
    let calls = Calls(vec![
        (actor.clone(), key("a"), Tally::new("a", Then::Succeed)),
        (actor.clone(), key("b"), Tally::new("b", Then::Wait(gate))),
        (actor.clone(), key("c"), Tally::new("c", Then::Succeed)),
    ]);
    let killing = async {
        let backend = keeper.arrival().await;
        let mut owner = world.database.owner().await.unwrap();
        let ended = sqlx::query("select pg_terminate_backend($1, 10000)")
            .bind(backend)
            .fetch_one(&mut owner)
            .await
            .unwrap();
        assert!(ended.get::<bool, _>(0));
        keeper.open();
    };
    let (outcomes, ()) = tokio::join!(run(&process, &world, &calls), killing);
    for outcome in outcomes {
        assert!(!outcome.unwrap().replayed);
    }
    assert_eq!(
        (tally::rows(&world).await, transactions(&world).await),
        (3, 3)
    );
    assert_eq!(tally::events_and_answers(&world).await, (3, 3));
}

#[tokio::test]
async fn a_conflict_in_a_group_is_run_again_as_a_group() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    for round in 0..10 {
        let calls = Calls(
            ["a", "b", "c"]
                .map(|name| {
                    let then = if name == "c" {
                        Then::Conflict(1.into())
                    } else {
                        Then::Succeed
                    };
                    (
                        actor.clone(),
                        key(&format!("{name}{round}")),
                        Tally::new(name, then),
                    )
                })
                .into(),
        );
        for outcome in run(&process, &world, &calls).await {
            assert!(!outcome.unwrap().replayed);
        }
    }
    assert_eq!(
        (tally::rows(&world).await, transactions(&world).await),
        (30, 10)
    );
}

#[tokio::test]
async fn a_key_twice_in_a_group_is_run_once() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let calls = Calls(
        ["a", "b", "a", "a"]
            .map(|name| (actor.clone(), key(name), Tally::new(name, Then::Succeed)))
            .into(),
    );
    let answers: Vec<_> = run(&process, &world, &calls)
        .await
        .into_iter()
        .map(|outcome| outcome.unwrap())
        .collect();
    assert_eq!(
        answers
            .iter()
            .map(|answer| answer.replayed)
            .collect::<Vec<_>>(),
        [false, false, true, true]
    );
    assert!(
        answers[2].value.id == answers[0].value.id && answers[3].value.id == answers[0].value.id
    );
    assert_eq!(tally::rows(&world).await, 2);

    let calls = Calls(
        ["x", "y"]
            .map(|name| (actor.clone(), key("same"), Tally::new(name, Then::Succeed)))
            .into(),
    );
    let mut outcomes = run(&process, &world, &calls).await;
    assert!(matches!(
        error_of(outcomes.pop().unwrap()),
        Error::Idempotency(Refused::KeyReused)
    ));
    assert!(!outcomes.pop().unwrap().unwrap().replayed);
}

#[tokio::test]
async fn a_group_is_cut_into_transactions_of_bounded_size() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let count = GROUP_MAX + 44;
    let calls = Calls(
        (0..count)
            .map(|number| {
                (
                    actor.clone(),
                    key(&format!("k{number}")),
                    Tally::new(&format!("n{number}"), Then::Succeed),
                )
            })
            .collect(),
    );
    let outcomes = run(&process, &world, &calls).await;
    for (number, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(
            outcome.unwrap().value.name,
            format!("n{number}"),
            "in the members' order"
        );
    }
    assert_eq!(tally::rows(&world).await, i64::try_from(count).unwrap());
    assert_eq!(transactions(&world).await, 2);
}

#[tokio::test]
async fn a_member_without_the_scope_is_left_out() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let mut reader = actor.clone();
    reader.access.scopes = "orders:read".parse().unwrap();
    let calls = Calls(
        [("a", &actor), ("b", &reader), ("c", &actor)]
            .map(|(name, actor)| (actor.clone(), key(name), Tally::new(name, Then::Succeed)))
            .into(),
    );
    let mut outcomes = run(&process, &world, &calls).await.into_iter();
    assert_eq!(outcomes.next().unwrap().unwrap().value.name, "a");
    assert!(matches!(
        error_of(outcomes.next().unwrap()),
        Error::Scope(_)
    ));
    assert_eq!(outcomes.next().unwrap().unwrap().value.name, "c");
    assert_eq!(tally::rows(&world).await, 2);
}

#[tokio::test]
async fn a_member_of_another_merchant_gets_its_own_answer_and_never_this_merchants() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let mut stranger = actor.clone();
    stranger.merchant = world.b;
    process.once(&actor, "k", "one").await.unwrap();
    let ours = process.once(&actor, "k", "one").await.unwrap();
    let calls = Calls(
        [&stranger, &actor]
            .map(|actor| (actor.clone(), key("k"), Tally::new("one", Then::Succeed)))
            .into(),
    );
    let outcomes = run(&process, &world, &calls).await;
    assert!(
        matches!(&outcomes[0], Ok(answer) if !answer.replayed && answer.value.id != ours.value.id)
    );
    assert!(
        matches!(&outcomes[1], Ok(answer) if answer.replayed && answer.value.id == ours.value.id)
    );
    assert_eq!(tally::rows(&world).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_of_two_processes_that_overlap_do_each_key_once() {
    let world = tally::world().await;
    let processes = [Process::new(&world), Process::new(&world)];
    let actor = world.actor(world.a);
    let groups: Vec<_> = (0..8_usize)
        .map(|group| {
            let numbers = (0..24).map(|place| (place * (group + 1) + group) % 32);
            Calls(
                numbers
                    .map(|number| {
                        (
                            actor.clone(),
                            key(&format!("k{number}")),
                            Tally::new(&format!("n{number}"), Then::Succeed),
                        )
                    })
                    .collect(),
            )
        })
        .collect();
    let outcomes = futures_util::future::join_all(
        groups
            .iter()
            .enumerate()
            .map(|(group, calls)| run(&processes[group % 2], &world, calls)),
    )
    .await;
    let mut ids = std::collections::HashMap::new();
    let mut fresh = 0;
    for answer in outcomes
        .into_iter()
        .flatten()
        .map(|outcome| outcome.unwrap())
    {
        fresh += i64::from(!answer.replayed);
        assert_eq!(
            *ids.entry(answer.value.name.clone())
                .or_insert(answer.value.id),
            answer.value.id
        );
    }
    assert_eq!(tally::rows(&world).await, fresh);
    assert_eq!(i64::try_from(ids.len()).unwrap(), fresh);
}
