//! Signing keys among processes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use auth::{
    Error, SigningKeys,
    token::{
        LIFETIME,
        signing_key::rotation::{
            self, KeyState, KeySummary, MADE_AHEAD, PUBLISHED_AHEAD, Pace, RETIRED_AFTER,
            SIGNING_PERIOD,
        },
    },
};
use kernel::{
    audit::{self, Filter, Log},
    caller::Caller,
    clock::Timestamp,
    id::RequestId,
    page::PageRequest,
    problem::Problem,
    test_database,
};
use sqlx::Executor;

use crate::fixture::{Install, Installation, Process, terms};

const MINUTE: Duration = Duration::from_mins(1);

fn kid_of(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

fn published(process: &Process) -> Vec<String> {
    let set: serde_json::Value = serde_json::from_str(&process.keys.document()).unwrap();
    let keys = set["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

async fn rotate(installation: &Installation, pace: Pace) -> Vec<KeySummary> {
    let now = installation.clock.now();
    let caller = Caller::local(RequestId::new(now));
    let mut tx = installation.database.api().begin().await.unwrap();
    let keys = rotation::rotate(&mut tx, &installation.keyring, &caller, pace, now)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    keys
}

/// What the log says of keys, the oldest first.
async fn acts(installation: &Installation) -> Vec<String> {
    let mut tx = installation.database.api().begin().await.unwrap();
    let page = PageRequest {
        limit: 50,
        after: None,
    };
    let all = Filter::default();
    let log = audit::list(&mut tx, Log::Installation, &all, &page).await;
    let mut entries = log.unwrap().data;
    entries.sort_by_key(|entry| entry.occurred_at);
    entries.into_iter().map(|entry| entry.action).collect()
}

/// Two processes whose clients ask for tokens all the time, and show them for as long as they last.
struct Traffic<'i> {
    installation: &'i Installation,
    install: &'i Install,
    processes: [Process; 2],
    /// Tokens that are out, and until when.
    tokens: Vec<(String, Timestamp)>,
    /// Since when each key is in both JWK sets.
    published: HashMap<String, Timestamp>,
    used: HashSet<String>,
}

impl Traffic<'_> {
    /// Each process looks after the keys every other step; every step each issues a token, and both verify all that are out.
    async fn step(&mut self, turn: usize, by: Duration) {
        self.installation.clock.advance(by);
        let now = self.installation.clock.now();
        self.processes[turn % 2].keys.tend().await.unwrap();
        let sets = [&self.processes[0], &self.processes[1]].map(published);
        for kid in sets[0].iter().filter(|kid| sets[1].contains(kid)) {
            self.published.entry(kid.clone()).or_insert(now);
        }
        for process in &self.processes {
            process.view.reread().await.unwrap();
            let token = process.token(self.install).await;
            let kid = kid_of(&token);
            let known = now.since(self.published[&kid]);
            assert!(
                self.used.contains(&kid) || known >= MINUTE * 10,
                "{kid} signs after {known:?}"
            );
            self.used.insert(kid);
            self.tokens.push((token, now.plus(LIFETIME)));
        }
        self.tokens.retain(|(_, end)| now < *end);
        for process in &self.processes {
            for (token, end) in &self.tokens {
                let verified = process.verify(token).await;
                assert!(verified.is_ok(), "{verified:?} at {now}, ends {end}");
            }
        }
    }
}

#[tokio::test]
async fn through_a_whole_rotation_no_token_is_refused_and_every_key_is_known_before_it_signs() {
    let installation = Installation::new().await;
    let install = installation.install(terms("orders:read")).await;
    let mut traffic = Traffic {
        processes: [installation.process().await, installation.process().await],
        installation: &installation,
        install: &install,
        tokens: Vec::new(),
        published: HashMap::new(),
        used: HashSet::new(),
    };
    // The first key of an installation has no time to be known beforehand.
    let first = published(&traffic.processes[0]);
    traffic.used.extend(first.iter().cloned());
    let start = installation.clock.now();
    for turn in 0..4 {
        traffic.step(turn, MINUTE / 2).await;
    }
    assert_eq!(published(&traffic.processes[0]), first);
    // Up to shortly before the successor is made, and then by half minutes.
    let elapsed = installation.clock.now().since(start);
    let quiet = SIGNING_PERIOD.saturating_sub(MADE_AHEAD + elapsed + MINUTE);
    traffic.step(0, quiet).await;
    for turn in 1..8 {
        traffic.step(turn, MINUTE / 2).await;
    }
    for process in &traffic.processes {
        assert_eq!(published(process).len(), 2, "the successor is published");
    }
    assert_eq!(traffic.used.len(), 1, "and does not sign yet");
    traffic.step(0, MADE_AHEAD.saturating_sub(MINUTE * 5)).await;
    let turns = (RETIRED_AFTER + MINUTE * 10).as_secs() / 30;
    for turn in 0..usize::try_from(turns).unwrap() {
        traffic.step(turn, MINUTE / 2).await;
    }
    assert_eq!(traffic.used.len(), 2, "the successor signs");
    for process in &traffic.processes {
        let left = published(process);
        assert_eq!(left.len(), 1, "the old key is retired");
        assert_ne!(left, first);
    }
    assert_eq!(
        acts(&installation).await,
        [
            "signing_key.created",
            "signing_key.created",
            "signing_key.retired"
        ],
        "one of the two processes did it"
    );
}

#[tokio::test]
async fn processes_that_find_a_rotation_due_at_once_make_one_successor() {
    let installation = Arc::new(Installation::new().await);
    let mut processes = Vec::new();
    for _ in 0..8 {
        processes.push(installation.process().await);
    }
    installation.clock.advance(SIGNING_PERIOD * 3);
    let tending: Vec<_> = processes
        .into_iter()
        .map(|process| tokio::spawn(async move { process.keys.tend().await.map(|()| process) }))
        .collect();
    for tended in tending {
        let process = tended.await.unwrap().unwrap();
        process.keys.reload().await.unwrap();
        assert_eq!(published(&process).len(), 2);
    }
    let keys = "select count(*) from signing_keys";
    assert_eq!(installation.database.count(keys).await.unwrap(), 2);
}

#[tokio::test]
async fn a_rotation_by_hand_is_announced_and_a_second_one_does_not_put_it_off() {
    let installation = Installation::new().await;
    let install = installation.install(terms("orders:read")).await;
    let process = installation.process().await;
    let before = process.token(&install).await;
    let keys = rotate(&installation, Pace::Announced).await;
    assert_eq!(
        keys.iter().map(|key| key.state).collect::<Vec<_>>(),
        [KeyState::Upcoming, KeyState::Signing]
    );
    assert_eq!(
        keys[0].signs_from,
        installation.clock.now().plus(PUBLISHED_AHEAD)
    );
    installation.clock.advance(MINUTE);
    assert_eq!(rotate(&installation, Pace::Announced).await, keys);
    process.keys.tend().await.unwrap();
    assert_eq!(published(&process).len(), 2, "published at once");
    assert_eq!(kid_of(&process.token(&install).await), kid_of(&before));
    process.verify(&before).await.unwrap();
    installation.clock.advance(PUBLISHED_AHEAD);
    // Its time has come, whether the keys have been read again or not.
    assert_eq!(kid_of(&process.token(&install).await), keys[0].kid);
    installation.clock.advance(RETIRED_AFTER);
    process.keys.tend().await.unwrap();
    assert_eq!(published(&process), [keys[0].kid.as_str()]);
    let now = installation.clock.now();
    let mut tx = installation.database.api().begin().await.unwrap();
    let states: Vec<_> = rotation::list(&mut tx, now)
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.state)
        .collect();
    assert_eq!(states, [KeyState::Signing, KeyState::Retired]);
}

#[tokio::test]
async fn a_key_that_has_become_known_is_out_at_once() {
    let installation = Installation::new().await;
    let install = installation.install(terms("orders:read")).await;
    let process = installation.process().await;
    let token = process.token(&install).await;
    rotate(&installation, Pace::Announced).await;
    let keys = rotate(&installation, Pace::AtOnce).await;
    let signing: Vec<_> = keys
        .iter()
        .filter(|key| key.state != KeyState::Retired)
        .collect();
    assert_eq!(signing.len(), 1, "also the one that was waiting: {keys:?}");
    assert_eq!(signing[0].state, KeyState::Signing);
    process.keys.tend().await.unwrap();
    assert!(process.verify(&token).await.is_err());
    let next = process.token(&install).await;
    assert_eq!(kid_of(&next), signing[0].kid);
    process.verify(&next).await.unwrap();
    let acts = acts(&installation).await;
    let count = |action: &str| acts.iter().filter(|act| *act == action).count();
    assert_eq!(
        [
            "signing_key.created",
            "signing_key.rotated",
            "signing_key.retired"
        ]
        .map(count),
        [3, 2, 2]
    );
}

#[tokio::test]
async fn sixteen_processes_that_start_at_once_agree_on_one_key() {
    let installation = Arc::new(Installation::new().await);
    let starting: Vec<_> = (0..16)
        .map(|_| {
            let installation = Arc::clone(&installation);
            tokio::spawn(async move { installation.process().await })
        })
        .collect();
    let mut processes = Vec::new();
    for process in starting {
        processes.push(process.await.unwrap());
    }
    let documents: HashSet<String> = processes
        .iter()
        .map(|process| process.keys.document())
        .collect();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(
        installation
            .database
            .count("select count(*) from signing_keys")
            .await
            .unwrap(),
        1
    );
    let install = installation.install(terms("orders:read")).await;
    let token = processes[0].token(&install).await;
    for process in &processes {
        process.verify(&token).await.unwrap();
    }
}

#[tokio::test]
async fn a_private_key_is_there_sealed_only_and_opens_under_its_master_key_alone() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    assert_eq!(format!("{:?}", process.keys), "SigningKeys(***)");
    // PKCS #8 begins with the version and the algorithm's identifiers, which a sealed key does not show.
    let plain = installation
        .database
        .count("select count(*) from signing_keys where position('\\x2a8648ce3d0201'::bytea in sealed_private_key) > 0")
        .await;
    assert_eq!(plain.unwrap(), 0);
    let other = Arc::new(test_database::keyring().unwrap());
    let refused =
        SigningKeys::load_or_create(process.database.clone(), other, installation.clock.clone())
            .await;
    assert!(matches!(refused, Err(Error::Keyring(_))), "{refused:?}");
}

#[tokio::test]
async fn a_new_key_is_found_by_its_tokens_but_made_up_names_do_not_ask_each_time() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    // Somebody asks for a key that does not exist: it was looked for just now.
    assert!(process.keys.verifier("made up").await.unwrap().is_none());
    let mut owner = installation.database.owner().await.unwrap();
    owner
        .execute("update signing_keys set retired_at = now()")
        .await
        .unwrap();
    let second = installation.process().await;
    let token = second.token(&install).await;
    assert!(
        process.verify(&token).await.is_err(),
        "looked for within the second before"
    );
    installation.clock.advance(Duration::from_secs(1));
    process.verify(&token).await.unwrap();
    // A database that is away is no proof that a key does not exist: 503, and not asked again at once.
    process.database.close().await;
    installation.clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        let error = process
            .keys
            .verifier("made up")
            .await
            .map(|_| ())
            .unwrap_err();
        assert_eq!(Problem::from(error).kind.slug, "unavailable");
    }
}
