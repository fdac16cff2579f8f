//! One key, one run: replays, twins, scopes, and what a key belongs to.

use std::time::Duration;

use futures_util::future::join_all;
use kernel::{
    actor::Access,
    clock::Clock,
    id::{AppId, LocationId},
    idempotency::{self, Error as Refused, Idempotency, Key},
    problem::Problem,
    scope::Scope,
};

use crate::tally::{self, Error, Gate, Grouped, Process, SECRET, Tally, Then, error_of, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_equal_calls_in_one_process_are_one_run_and_sixty_three_replays() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let answers = join_all((0..64).map(|_| process.once(&actor, "k", "one"))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.unwrap()).collect();
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.value.id == answers[0].value.id)
    );
    assert_eq!(tally::rows(&world).await, 1);
    assert_eq!(tally::events_and_answers(&world).await, (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn equal_calls_in_two_processes_are_one_run() {
    let world = tally::world().await;
    let (one, two) = (Process::new(&world), Process::new(&world));
    let actor = world.actor(world.a);
    for round in 0..20 {
        let key = format!("k{round}");
        let calls =
            (0..64).map(|call| if call % 2 == 0 { &one } else { &two }.once(&actor, &key, "one"));
        let answers: Vec<_> = join_all(calls)
            .await
            .into_iter()
            .map(|answer| answer.unwrap())
            .collect();
        assert_eq!(
            answers.iter().filter(|answer| !answer.replayed).count(),
            1,
            "round {round}"
        );
        assert!(
            answers
                .iter()
                .all(|answer| answer.value.id == answers[0].value.id),
            "round {round}"
        );
    }
    assert_eq!(tally::rows(&world).await, 20);
    assert_eq!(tally::events_and_answers(&world).await, (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twins_in_a_process_wait_without_a_connection() {
    let world = tally::world().await;
    let process = Process::start(&world, 2, Clock::system());
    let actor = world.actor(world.a);
    let (gate, mut keeper) = Gate::new();
    let leader = process.run(&actor, "k", Tally::new("one", Then::Wait(gate)));
    let twins = join_all((0..63).map(|_| process.once(&actor, "k", "one")));
    let others = async {
        keeper.arrival().await;
        // One of two connections is the leader's. If a twin held the other, this would find none.
        for number in 0..10 {
            process
                .once(&actor, &format!("other{number}"), "other")
                .await
                .unwrap();
        }
        keeper.open();
    };
    let (leader, twins, ()) = tokio::join!(leader, twins, others);
    let leader = leader.unwrap();
    assert!(!leader.replayed);
    for twin in twins {
        let twin = twin.unwrap();
        assert_eq!((twin.replayed, twin.value.id), (true, leader.value.id));
    }
    assert_eq!(tally::rows_named(&world, "one").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_another_process_holds_for_too_long_is_in_progress() {
    let world = tally::world().await;
    let (one, two) = (
        Process::new(&world),
        Process::start(&world, 1, Clock::system()),
    );
    let actor = world.actor(world.a);
    let (gate, mut keeper) = Gate::new();
    let held = one.run(&actor, "k", Tally::new("one", Then::Wait(gate)));
    let waiting = async {
        keeper.arrival().await;
        let (held, free) = (key("k"), key("free"));
        let (first, second) = (
            Tally::new("one", Then::Succeed),
            Tally::new("free", Then::Succeed),
        );
        let members =
            [(&held, &first), (&free, &second)].map(|(key, operation)| idempotency::Member {
                actor: &actor,
                key,
                operation,
            });
        // Only the one whose key is held has to wait, and gives up in the end.
        let mut outcomes = two.idempotency.once_many(world.a, &members).await;
        assert!(!outcomes.pop().unwrap().unwrap().replayed);
        let error = error_of(outcomes.pop().unwrap());
        let Error::Idempotency(error @ Refused::InProgress) = error else {
            panic!("{error:?}")
        };
        let problem = Problem::from(error);
        assert_eq!(problem.kind.status, 409);
        assert!(
            problem
                .retry_after
                .is_some_and(|after| after > Duration::ZERO)
        );
        keeper.open();
    };
    let (done, ()) = tokio::join!(held, waiting);
    let again = two.once(&actor, "k", "one").await.unwrap();
    assert_eq!(
        (again.replayed, again.value.id),
        (true, done.unwrap().value.id)
    );
    assert_eq!(tally::rows_named(&world, "one").await, 1);
}

#[tokio::test]
async fn another_input_under_the_key_is_refused_and_the_answer_stays() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let first = process.once(&actor, "k", "one").await.unwrap();
    let error = error_of(process.once(&actor, "k", "two").await);
    let Error::Idempotency(error @ Refused::KeyReused) = error else {
        panic!("{error:?}")
    };
    assert_eq!(Problem::from(error).kind.status, 422);
    assert_eq!(tally::rows(&world).await, 1);
    assert_eq!(
        process.once(&actor, "k", "one").await.unwrap().value.id,
        first.value.id
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_inputs_that_race_for_a_key_one_is_done_and_the_other_refused() {
    let world = tally::world().await;
    let (one, two) = (Process::new(&world), Process::new(&world));
    let actor = world.actor(world.a);
    for round in 0..20 {
        let key = format!("k{round}");
        let (left, right) = tokio::join!(
            one.once(&actor, &key, "left"),
            two.once(&actor, &key, "right")
        );
        let (done, refused) = if left.is_ok() {
            (left, right)
        } else {
            (right, left)
        };
        assert!(!done.unwrap().replayed);
        assert!(matches!(
            error_of(refused),
            Error::Idempotency(Refused::KeyReused)
        ));
    }
    assert_eq!(tally::rows(&world).await, 20);
}

#[tokio::test]
async fn a_key_belongs_to_merchant_app_and_operation() {
    let world = tally::world().await;
    let process = Process::new(&world);
    let actor = world.actor(world.a);
    let mut other_app = actor.clone();
    other_app.app = AppId::new(world.now);
    let mut other_merchant = actor.clone();
    other_merchant.merchant = world.b;
    let first = process.once(&actor, "k", "one").await.unwrap();
    for other in [&other_app, &other_merchant] {
        // Another input, so that an answer that crossed over would show as a reused key too.
        let answer = process.once(other, "k", "two").await.unwrap();
        assert!(!answer.replayed && answer.value.id != first.value.id);
    }
    let other = Grouped(Tally::new("three", Then::Succeed));
    let answer = process
        .idempotency
        .once(&actor, &key("k"), &other)
        .await
        .map_err(|failed| failed.error)
        .unwrap();
    assert!(!answer.replayed);
    assert_eq!(tally::rows(&world).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_that_is_held_holds_up_no_other_merchant_app_or_operation() {
    let world = tally::world().await;
    let process = Process::new(&world);
    let actor = world.actor(world.a);
    let mut other_app = actor.clone();
    other_app.app = AppId::new(world.now);
    let mut other_merchant = actor.clone();
    other_merchant.merchant = world.b;
    let (gate, mut keeper) = Gate::new();
    let held = process.run(&actor, "k", Tally::new("one", Then::Wait(gate)));
    let others = async {
        keeper.arrival().await;
        for other in [&other_app, &other_merchant] {
            assert!(
                !crate::soon(process.once(other, "k", "one"))
                    .await
                    .unwrap()
                    .replayed
            );
        }
        let (key, other) = (key("k"), Grouped(Tally::new("one", Then::Succeed)));
        let answer = crate::soon(process.idempotency.once(&actor, &key, &other)).await;
        assert!(!answer.map_err(|failed| failed.error).unwrap().replayed);
        keeper.open();
    };
    let (held, ()) = tokio::join!(held, others);
    assert!(!held.unwrap().replayed);
}

#[tokio::test]
async fn a_refusal_is_kept_without_its_effects_and_replayed() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    for replayed in [false, true] {
        let failed = process
            .run(&actor, "k", Tally::new("one", Then::Refuse))
            .await
            .unwrap_err();
        assert_eq!(failed.replayed, replayed);
        assert!(matches!(failed.error, Error::Refused(refusal) if refusal.reason == "no one"));
    }
    // What would succeed now is still what the key came to then.
    assert!(process.once(&actor, "k", "one").await.unwrap_err().replayed);
    assert_eq!(tally::rows(&world).await, 0);
    assert_eq!(tally::events_and_answers(&world).await, (0, 1));
}

#[tokio::test]
async fn what_is_missing_is_not_kept() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let failed = process
        .run(&actor, "k", Tally::new("one", Then::Miss))
        .await
        .unwrap_err();
    assert!(!failed.replayed && matches!(failed.error, Error::Missing));
    assert_eq!(tally::rows(&world).await, 0);
    assert_eq!(tally::events_and_answers(&world).await, (0, 0));
    assert!(!process.once(&actor, "k", "one").await.unwrap().replayed);
}

#[tokio::test]
async fn a_narrowed_grant_is_not_shown_the_kept_answer() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let (here, elsewhere) = (LocationId::new(world.now), LocationId::new(world.now));
    let operation = || Tally::new("one", Then::Succeed).at(here);
    process.run(&actor, "k", operation()).await.unwrap();
    let mut narrowed = actor.clone();
    narrowed.access.locations = Some(vec![elsewhere]);
    let error = error_of(process.run(&narrowed, "k", operation()).await);
    let Error::Idempotency(error @ Refused::NotVisible) = error else {
        panic!("{error:?}")
    };
    assert_eq!(Problem::from(error).kind.status, 404);
    assert!(
        process
            .run(&actor, "k", operation())
            .await
            .unwrap()
            .replayed
    );
    assert_eq!(tally::rows(&world).await, 1);
}

#[tokio::test]
async fn without_the_scope_nothing_is_run_and_nothing_replayed() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    let mut reader = actor.clone();
    reader.access = Access {
        scopes: Scope::ALL
            .iter()
            .copied()
            .filter(|&scope| scope != Scope::OrdersWrite)
            .collect(),
        ..Access::full()
    };
    assert!(
        matches!(error_of(process.once(&reader, "k", "one").await), Error::Scope(missing) if missing.0 == Scope::OrdersWrite)
    );
    assert_eq!(tally::rows(&world).await, 0);
    process.once(&actor, "k", "one").await.unwrap();
    let failed = process.once(&reader, "k", "one").await.unwrap_err();
    assert!(!failed.replayed && matches!(failed.error, Error::Scope(_)));
}

#[tokio::test]
async fn secrets_are_told_once_and_not_kept() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    assert_eq!(
        process
            .once(&actor, "k", "one")
            .await
            .unwrap()
            .value
            .secret
            .as_deref(),
        Some(SECRET)
    );
    assert_eq!(
        process.once(&actor, "k", "one").await.unwrap().value.secret,
        None
    );
    let kept = format!(
        "select count(*) from idempotency_keys where to_jsonb(idempotency_keys)::text like '%{SECRET}%'"
    );
    assert_eq!(world.database.count(&kept).await.unwrap(), 0);
    assert_eq!(
        world
            .database
            .count("select count(*) from idempotency_keys where outcome ->> 'name' = 'one'")
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn the_input_itself_is_not_kept_only_its_keyed_hash() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    process
        .run(&actor, "k", Tally::new("Sojourner Truth", Then::Miss))
        .await
        .unwrap_err();
    process.once(&actor, "k", "one").await.unwrap();
    // Under another master key the same input hashes to something else: nobody with the table alone can try inputs.
    let other = Idempotency::new(
        process.database.clone(),
        Clock::system(),
        std::sync::Arc::new(kernel::test_database::keyring().unwrap()),
        process.announcer.clone(),
    );
    let failed = other
        .once(&actor, &key("k"), &Tally::new("one", Then::Succeed))
        .await
        .unwrap_err();
    assert!(matches!(
        failed.error,
        Error::Idempotency(Refused::KeyReused)
    ));
}

#[tokio::test]
async fn a_sweep_goes_on_until_nothing_old_is_left() {
    let world = tally::world().await;
    let mut owner = world.database.owner().await.unwrap();
    let many = "alter table idempotency_keys no force row level security;
        insert into idempotency_keys (merchant_id, app_id, operation, idempotency_key, fingerprint, refused, outcome, created_at)
        select uuid '00000000-0000-7000-8000-000000000001', uuid '00000000-0000-7000-8000-000000000002', 'tally', number::text, '', false, '{}', '2001-01-01'
        from generate_series(1, 12000) as number";
    sqlx::raw_sql(many).execute(&mut owner).await.unwrap();
    let deleted = idempotency::sweep(&world.database.worker(), world.now)
        .await
        .unwrap();
    assert_eq!(deleted, 12_000);
}

#[tokio::test]
async fn the_sweep_deletes_what_is_older_than_seventy_two_hours_and_nothing_else() {
    let world = tally::world().await;
    let clock = Clock::manual(world.now);
    let process = Process::start(&world, 2, clock.clone());
    let (worker, actor) = (world.database.worker(), world.actor(world.a));
    let old = process.once(&actor, "old", "one").await.unwrap();
    clock.advance(Duration::from_secs(1));
    let young = process.once(&actor, "young", "one").await.unwrap();
    let full_age = world.now.plus(idempotency::KEPT_FOR);
    assert_eq!(idempotency::sweep(&worker, full_age).await.unwrap(), 0);
    assert_eq!(
        idempotency::sweep(&worker, full_age.plus(Duration::from_micros(1)))
            .await
            .unwrap(),
        1
    );
    let again = process.once(&actor, "old", "one").await.unwrap();
    assert!(!again.replayed && again.value.id != old.value.id);
    let again = process.once(&actor, "young", "one").await.unwrap();
    assert_eq!((again.replayed, again.value.id), (true, young.value.id));
}

#[tokio::test]
async fn only_what_was_done_is_announced() {
    let world = tally::world().await;
    let (process, actor) = (Process::new(&world), world.actor(world.a));
    process
        .run(&actor, "refused", Tally::new("one", Then::Refuse))
        .await
        .unwrap_err();
    process
        .run(&actor, "missing", Tally::new("one", Then::Miss))
        .await
        .unwrap_err();
    let mut other = actor.clone();
    other.merchant = world.b;
    let clock = kernel::clock::Clock::system();
    let now = clock.now();
    process.once(&other, "k", "one").await.unwrap();
    let announced = crate::soon(process.announcer.next()).await;
    assert_eq!(announced.len(), 1, "{announced:?}");
    // Since the time that its events have.
    let (merchant, since) = announced[0];
    assert_eq!(merchant, world.b);
    assert!(since >= now && since <= clock.now(), "{since}");
}

#[test]
fn a_key_is_1_to_255_visible_ascii_characters_bare_or_quoted() {
    for (text, read) in [
        ("k", "k"),
        ("\"k\"", "k"),
        ("a\"b", "a\"b"),
        ("~!", "~!"),
        (&*"x".repeat(255), &*"x".repeat(255)),
    ] {
        assert_eq!(text.parse::<Key>().unwrap().as_str(), read);
    }
    for text in [
        "",
        "\"\"",
        " ",
        "a b",
        "k\n",
        "k\0",
        "schlüssel",
        "\u{7f}",
        &*"x".repeat(256),
    ] {
        let error = text.parse::<Key>().unwrap_err();
        assert_eq!(Problem::from(error).kind.status, 400, "{text:?}");
    }
}
