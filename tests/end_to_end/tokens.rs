//! Codes and refresh tokens under fire: many at once against two processes, and a server that is killed between the question and the answer.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use rand::{Rng, SeedableRng, rngs::StdRng};
use reqwest::Url;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tests::{Browser, Person, Stoa, wait_for};
use tokio::sync::watch;

use crate::STOA;

/// Requests at once.
const AT_ONCE: usize = 50;

/// Processes that are killed.
const KILLS: u32 = 12;

/// Answers between one kill and the next at most.
const REFRESHES_BETWEEN_KILLS_MAX: u32 = 20;

/// Redemptions that are on their way when a server is killed.
const REDEMPTIONS_KILLED: u32 = 8;

/// Where the app is answered; nobody listens there.
const REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// An app that runs on somebody's own machine, and whoever consents to it.
struct Install {
    app: String,
    person: Person,
    browser: Browser,
}

/// A code, and what proves whose it is.
struct Code {
    code: String,
    verifier: String,
}

/// What the token endpoint says: the status and the JSON. Nothing if the connection broke.
type Answer = Option<(u16, Value)>;

impl Install {
    async fn new(stoa: &Stoa) -> Self {
        let app = stoa.app_with(&["--public", "--redirect-uri", REDIRECT_URI]);
        let person = stoa.person(&stoa.merchant(), "owner");
        Self {
            app: app["clientId"].as_str().unwrap().to_owned(),
            browser: person.browser(&stoa.base_url()).await,
            person,
        }
    }

    /// Consents.
    async fn code(&self, stoa: &Stoa) -> Code {
        let verifier = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let mut request = Url::parse(&format!("{}/oauth/authorize", stoa.base_url())).unwrap();
        request.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", &self.app),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "orders:read"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let answer = self
            .person
            .consent(&self.browser, request.as_str(), |form| form)
            .await;
        let (_, code) = answer
            .query_pairs()
            .find(|(name, _)| name == "code")
            .unwrap_or_else(|| panic!("no code in {answer}"));
        Code {
            code: code.into_owned(),
            verifier,
        }
    }

    async fn redeem(&self, base_url: &str, code: &Code) -> Answer {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", &self.app),
            ("redirect_uri", REDIRECT_URI),
            ("code", &code.code),
            ("code_verifier", &code.verifier),
        ];
        post(base_url, &form).await
    }

    async fn refresh(&self, base_url: &str, token: &str) -> Answer {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.app),
            ("refresh_token", token),
        ];
        post(base_url, &form).await
    }

    /// The same until somebody answers.
    async fn refresh_until_answered(&self, base_url: &str, token: &str) -> (u16, Value) {
        wait_for("an answer to a refresh", async || {
            let answer = self.refresh(base_url, token).await;
            answer.filter(|(status, _)| *status < 500)
        })
        .await
    }
}

async fn post(base_url: &str, form: &[(&str, &str)]) -> Answer {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{base_url}/oauth/token")).form(form);
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    Some((status, answer.json().await.ok()?))
}

fn text(answer: &Value, name: &str) -> String {
    let value = answer[name].as_str();
    value
        .unwrap_or_else(|| panic!("no {name} in {answer}"))
        .to_owned()
}

/// Families of refresh tokens that have not ended.
async fn living_families(stoa: &Stoa) -> i64 {
    stoa.count_rows("refresh_families where ended_at is null")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_redemptions_of_one_code_one_wins() {
    let stoa = Stoa::start(STOA).await;
    let second = stoa.start_beside().await;
    let install = Install::new(&stoa).await;
    let code = install.code(&stoa).await;
    let addresses = [stoa.base_url(), second.base_url()];
    let redeeming = (0..AT_ONCE).map(|number| install.redeem(&addresses[number % 2], &code));
    let answers = join_all(redeeming).await;
    let mut won = 0;
    for (status, answer) in answers.into_iter().flatten() {
        if status == 200 {
            won += 1;
        } else {
            assert_eq!(
                (status, answer["error"].as_str()),
                (400, Some("invalid_grant"))
            );
        }
    }
    assert_eq!(won, 1);
    assert_eq!(stoa.count_rows("refresh_families").await, 1);
    assert_eq!(stoa.count_rows("refresh_tokens").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_refreshes_of_one_token_lock_nobody_out() {
    let stoa = Stoa::start(STOA).await;
    let second = stoa.start_beside().await;
    let install = Install::new(&stoa).await;
    let addresses = [stoa.base_url(), second.base_url()];
    let code = install.code(&stoa).await;
    let (status, answer) = install.redeem(&addresses[0], &code).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let mut token = text(&answer, "refresh_token");
    for _ in 0..3 {
        let refreshing = (0..AT_ONCE).map(|number| install.refresh(&addresses[number % 2], &token));
        let answers = join_all(refreshing).await;
        let mut successors = HashSet::new();
        for (status, answer) in answers.into_iter().flatten() {
            assert_eq!(status, 200, "{answer}");
            successors.insert(text(&answer, "refresh_token"));
        }
        assert_eq!(successors.len(), 1, "each was given the same successor");
        token = successors.into_iter().next().unwrap();
    }
    assert_eq!(living_families(&stoa).await, 1);
}

#[allow(
    clippy::print_stderr,
    reason = "the seed is how a failure is seen again"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_between_locks_nobody_out() {
    let mut stoa = Stoa::start(STOA).await;
    let install = Install::new(&stoa).await;
    let code = install.code(&stoa).await;
    let base_url = stoa.base_url();
    let (status, answer) = install.redeem(&base_url, &code).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    let first = text(&answer, "refresh_token");
    let stopped = AtomicBool::new(false);
    let (count, mut counted) = watch::channel(0);
    let refreshing = async {
        let mut token = first;
        while !stopped.load(Ordering::Relaxed) {
            let (status, answer) = install.refresh_until_answered(&base_url, &token).await;
            assert_eq!(status, 200, "after {} refreshes: {answer}", *count.borrow());
            token = text(&answer, "refresh_token");
            count.send_modify(|count| *count += 1);
        }
        token
    };
    let killing = async {
        let seed = rand::random();
        eprintln!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..KILLS {
            let wanted = *counted.borrow() + random.random_range(1..=REFRESHES_BETWEEN_KILLS_MAX);
            let progress = counted.wait_for(|count| *count >= wanted);
            tokio::time::timeout(tests::PATIENCE, progress)
                .await
                .expect("no more answers came")
                .unwrap();
            if random.random_bool(0.5) {
                stoa.kill_postgres();
            } else {
                stoa.kill();
                stoa.spawn_again();
            }
            stoa.wait_until_ready().await;
        }
        stopped.store(true, Ordering::Relaxed);
    };
    let (token, ()) = tokio::join!(refreshing, killing);
    assert!(*count.borrow() > 0);
    assert_eq!(living_families(&stoa).await, 1);
    let (status, answer) = install.refresh_until_answered(&base_url, &token).await;
    assert_eq!(status, 200, "{answer}");
}

#[allow(
    clippy::print_stderr,
    reason = "the seed is how a failure is seen again"
)]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_between_redeems_no_code_twice() {
    let mut stoa = Stoa::start(STOA).await;
    let install = Install::new(&stoa).await;
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 1..=KILLS {
        let code = install.code(&stoa).await;
        let base_url = stoa.base_url();
        // At once, with all of them on their way, or after some answers.
        let wanted = random.random_range(0..REDEMPTIONS_KILLED);
        let (count, mut counted) = watch::channel(0);
        let redeeming = async {
            let again = (0..REDEMPTIONS_KILLED).map(async |_| {
                let answer = install.redeem(&base_url, &code).await;
                count.send_modify(|count| *count += 1);
                answer
            });
            join_all(again).await
        };
        let killing = async {
            counted.wait_for(|count| *count >= wanted).await.unwrap();
            stoa.kill();
        };
        let (answers, ()) = tokio::join!(redeeming, killing);
        let won = answers
            .iter()
            .flatten()
            .filter(|(status, _)| *status == 200);
        assert!(won.count() <= 1);
        stoa.restart().await;
        // Redeemed or not, answered or not: once more gives tokens only if nothing gave them before.
        let (status, answer) = install.redeem(&base_url, &code).await.unwrap();
        let answered = answers.iter().flatten().any(|(status, _)| *status == 200);
        assert!(status == 400 || !answered, "{answer}");
        assert!(
            stoa.count_rows("refresh_families").await <= i64::from(round),
            "a family a code at most"
        );
    }
}
