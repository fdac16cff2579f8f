#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Form, Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    authorization::{Authorization, Request},
    *,
};
use crate::client::{Client, Error as CallError, Options, Source as TokenSource};

const MERCHANT: &str = "mer_01jd3x5k8vfm7b2c9q0r4t6w8y";
const OTHER: &str = "mer_01jd3x5k8vfm7b2c9q0r4t6w8z";

/// An authorization server that rotates strictly: a refresh token is good once, and whoever uses it twice has lost everything.
#[derive(Clone)]
struct Server {
    url: Url,
    state: Arc<Mutex<Rotation>>,
}

#[derive(Default)]
struct Rotation {
    /// How many refresh tokens there have been; the last one is good.
    number: usize,
    ended: bool,
    /// What the next refreshes are answered instead, with the exchange done or not.
    instead: Vec<u16>,
    challenge: String,
    revoked: Vec<String>,
    refused_access: Vec<String>,
    scope: String,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let server = Self {
            url,
            state: Arc::default(),
        };
        server.state().scope = "catalog:write".to_owned();
        let routes = Router::new()
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/oauth/token", post(token))
            .route("/oauth/revoke", post(revocation))
            .route("/v1/echo", get(echo))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        server
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Rotation> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn issuer(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// A login whose access token ends `seconds` from now.
    fn login(&self, seconds: u64) -> Login {
        self.state().number = 1;
        Login {
            issuer: self.url.clone(),
            merchant_id: MERCHANT.parse().unwrap(),
            scope: "catalog:write".to_owned(),
            grant_expires_at: None,
            access_token: oauth2::AccessToken::new("access-1".to_owned()),
            access_token_expires_at: Clock::system().now().plus(Duration::from_secs(seconds)),
            refresh_token: oauth2::RefreshToken::new("refresh-1".to_owned()),
        }
    }

    fn source(&self, file: &LoginFile) -> Source {
        Source {
            // A file of its own, as another process would have it.
            file: LoginFile::new(file.path().to_owned()),
            url: self.url.clone(),
            merchant_id: MERCHANT.parse().unwrap(),
            scopes: "catalog:write".parse().unwrap(),
            clock: Clock::system(),
        }
    }

    fn client(&self, file: &LoginFile) -> Client {
        Client::new(Options {
            url: self.url.clone(),
            source: TokenSource::Login(self.source(file)),
        })
        .unwrap()
    }
}

async fn metadata(State(server): State<Server>) -> Json<Value> {
    let at = |path: &str| server.url.join(path).unwrap();
    Json(json!({
        "issuer": server.issuer(), "token_endpoint": at("/oauth/token"), "authorization_endpoint": at("/oauth/authorize"),
        "revocation_endpoint": at("/oauth/revoke"),
    }))
}

async fn token(
    State(server): State<Server>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let mut state = server.state();
    let refused =
        |error: &str| (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    assert_eq!(form["client_id"], CLIENT.to_string());
    if form["grant_type"] == "authorization_code" {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
        if challenge != state.challenge || form["code"] != "code-1" {
            return refused("invalid_grant");
        }
    } else {
        if state.ended || form["refresh_token"] != format!("refresh-{}", state.number) {
            state.ended = true;
            return refused("invalid_grant");
        }
        if let Some(status) = state.instead.pop() {
            return StatusCode::from_u16(status).unwrap().into_response();
        }
    }
    state.number += 1;
    let number = state.number;
    Json(json!({
        "access_token": format!("access-{number}"), "token_type": "Bearer", "expires_in": 600,
        "refresh_token": format!("refresh-{number}"), "scope": state.scope,
        "merchant_id": MERCHANT, "grant_expires_in": 86_400,
    }))
    .into_response()
}

async fn revocation(State(server): State<Server>, Form(form): Form<HashMap<String, String>>) {
    server.state().revoked.push(form["token"].clone());
}

async fn echo(State(server): State<Server>, headers: http::HeaderMap) -> Response {
    let token = headers["authorization"].to_str().unwrap().to_owned();
    let token = token.strip_prefix("Bearer ").unwrap().to_owned();
    if server.state().refused_access.contains(&token) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    Json(json!({"token": token})).into_response()
}

/// A file in a directory of its own, which is removed with it.
struct Place(LoginFile);

impl Place {
    fn new() -> Self {
        let name = format!(
            "stoa-logins-{}",
            uuid::Uuid::from_bytes(rand::random()).simple()
        );
        Self(LoginFile::new(
            std::env::temp_dir()
                .join(name)
                .join("stoa/credentials.json"),
        ))
    }

    async fn with(login: Login) -> Self {
        let place = Self::new();
        let locked = place.0.lock().await.unwrap();
        let logins = Logins {
            logins: vec![login],
        };
        locked.write(&logins).unwrap();
        drop(locked);
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.path().ancestors().nth(2).unwrap());
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn the_file_and_its_directory_are_for_their_owner_alone() {
    let server = Server::start().await;
    let place = Place::with(server.login(600)).await;
    let directory = place.0.path().parent().unwrap();
    assert_eq!((mode(directory), mode(place.0.path())), (0o700, 0o600));
    let names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 2, "the file and its lock: {names:?}");
    assert_eq!(mode(&directory.join(".credentials.json.lock")), 0o600);
}

#[tokio::test]
async fn a_file_that_others_can_open_is_refused_and_not_overwritten() {
    let server = Server::start().await;
    let place = Place::with(server.login(600)).await;
    for wide in [0o644, 0o640, 0o660, 0o601] {
        std::fs::set_permissions(place.0.path(), std::fs::Permissions::from_mode(wide)).unwrap();
        let error = place.0.read().unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{wide:o}: {error}");
        let locked = place.0.lock().await.unwrap();
        assert!(locked.write(&Logins::default()).is_err());
        assert_eq!(mode(place.0.path()), wide);
    }
}

#[tokio::test]
async fn a_link_and_a_file_of_something_else_are_refused() {
    let server = Server::start().await;
    let place = Place::with(server.login(600)).await;
    let link = place.0.path().with_file_name("link.json");
    std::os::unix::fs::symlink(place.0.path(), &link).unwrap();
    assert!(matches!(
        LoginFile::new(link).read().unwrap_err(),
        Error::File { .. }
    ));
    std::fs::write(place.0.path(), "{\"other\": 1}").unwrap();
    let error = place.0.read().unwrap_err();
    assert!(
        error.to_string().contains("not a file of logins"),
        "{error}"
    );
    let locked = place.0.lock().await.unwrap();
    assert!(locked.write(&Logins::default()).is_err());
    let kept = std::fs::read_to_string(place.0.path()).unwrap();
    assert_eq!(kept, "{\"other\": 1}");
}

#[test]
fn tokens_do_not_show_where_a_login_is_printed() {
    let login = Login {
        issuer: Url::parse("https://stoa.example").unwrap(),
        merchant_id: MERCHANT.parse().unwrap(),
        scope: String::new(),
        grant_expires_at: None,
        access_token: oauth2::AccessToken::new("access-1".to_owned()),
        access_token_expires_at: Timestamp::from_unix_millis(0),
        refresh_token: oauth2::RefreshToken::new("refresh-1".to_owned()),
    };
    let text = format!("{login:?}");
    assert!(
        !text.contains("access-1") && !text.contains("refresh-1"),
        "{text}"
    );
}

#[tokio::test]
async fn which_login_is_meant_is_found_or_asked_for() {
    let server = Server::start().await;
    let login = server.login(600);
    let other = Login {
        merchant_id: OTHER.parse().unwrap(),
        ..login.clone()
    };
    let elsewhere = Login {
        issuer: Url::parse("https://stoa.example").unwrap(),
        ..login.clone()
    };
    let mut logins = Logins::default();
    let error = logins.one(Some(&server.url), None).unwrap_err();
    assert!(error.to_string().contains("run `stoa login`"), "{error}");

    assert!(logins.put(login.clone()).is_none());
    assert!(logins.one(None, None).is_ok());
    assert!(logins.put(other).is_none());
    assert!(logins.put(elsewhere.clone()).is_none());
    let error = logins.one(None, Some(login.merchant_id)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("--url https://stoa.example --merchant {MERCHANT}")),
        "{text}"
    );
    // A slash at the end is no difference.
    let url = Url::parse("https://stoa.example/").unwrap();
    assert!(logins.one(Some(&url), Some(login.merchant_id)).is_ok());
    assert!(logins.put(elsewhere).is_some());
    assert_eq!(logins.logins.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_refresh_at_once_get_one_successor() {
    let server = Server::start().await;
    let place = Place::with(server.login(5)).await;
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let client = server.client(&place.0);
            tokio::spawn(async move { client.token().await })
        })
        .collect();
    for client in clients {
        assert_eq!(client.await.unwrap().unwrap(), "access-2");
    }
    assert_eq!(server.state().number, 2);
    assert!(!server.state().ended);
    let kept = place.0.read().unwrap();
    assert_eq!(kept.logins[0].refresh_token.secret(), "refresh-2");
}

#[tokio::test]
async fn a_token_that_is_good_for_a_while_is_used_as_it_is() {
    let server = Server::start().await;
    let place = Place::with(server.login(600)).await;
    assert_eq!(server.client(&place.0).token().await.unwrap(), "access-1");
    assert_eq!(server.state().number, 1);
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_refreshed_once_for_all_commands() {
    let server = Server::start().await;
    let place = Place::with(server.login(600)).await;
    server.state().refused_access.push("access-1".to_owned());
    for _ in 0..2 {
        let client = server.client(&place.0);
        let answer: Value = client.get("/v1/echo").await.unwrap();
        assert_eq!(answer["token"], "access-2");
    }
    assert_eq!(server.state().number, 2);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_token() {
    let server = Server::start().await;
    let place = Place::with(server.login(5)).await;
    server.state().instead = vec![503];
    assert_eq!(server.client(&place.0).token().await.unwrap(), "access-2");
}

#[tokio::test]
async fn a_login_that_has_ended_says_what_to_do() {
    let server = Server::start().await;
    let place = Place::with(server.login(5)).await;
    server.state().ended = true;
    let error = server.client(&place.0).token().await.unwrap_err();
    assert!(
        matches!(&error, CallError::Login(Error::Ended { .. })) && !error.is_retryable(),
        "{error:?}"
    );
    assert!(error.to_string().contains("Run `stoa login"), "{error}");
}

#[tokio::test]
async fn a_narrowed_login_says_what_is_lacking() {
    let server = Server::start().await;
    let place = Place::with(server.login(5)).await;
    server.state().scope = "catalog:read strange:scope".to_owned();
    let error = server.client(&place.0).token().await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does not include catalog:write: run `stoa login"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refreshed_token_is_not_used_before_it_is_on_disk() {
    let server = Server::start().await;
    let place = Place::with(server.login(5)).await;
    let client = server.client(&place.0);
    // The directory of the file vanishes while the server answers: what is not on disk is not given out.
    let directory = place.0.path().parent().unwrap();
    let locked = place.0.lock().await.unwrap();
    let waiting = tokio::spawn(async move { client.token().await });
    tokio::task::yield_now().await;
    std::fs::remove_dir_all(directory).unwrap();
    drop(locked);
    assert!(waiting.await.unwrap().is_err());
}

/// What the browser does: it brings the answer to the redirect URI of the request.
async fn bring(to: &str, answer: &[(&str, &str)]) -> (u16, http::HeaderMap, String) {
    let mut url = Url::parse(to).unwrap();
    url.query_pairs_mut().extend_pairs(answer);
    let response = crate::client::http()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

/// A login on its way, and the parameters that the browser was sent with.
async fn begun(
    server: &Server,
    place: &Place,
    merchant: Option<&str>,
) -> (
    tokio::task::JoinHandle<Result<Login, CallError>>,
    HashMap<String, String>,
) {
    let authorization = Authorization::begin(Request {
        url: server.url.clone(),
        merchant: merchant.map(|merchant| merchant.parse().unwrap()),
        scope: "catalog:write".to_owned(),
    })
    .await
    .unwrap();
    let asked: HashMap<_, _> = authorization.url().query_pairs().into_owned().collect();
    server.state().challenge = asked["code_challenge"].clone();
    let file = place.0.clone();
    let completing =
        tokio::spawn(async move { authorization.complete(&file, &Clock::system()).await });
    (completing, asked)
}

#[tokio::test]
async fn a_login_is_made_from_the_one_answer_that_was_asked_for() {
    let (server, place) = (Server::start().await, Place::new());
    let (completing, asked) = begun(&server, &place, Some(MERCHANT)).await;
    let fixed = [
        ("response_type", "code"),
        ("code_challenge_method", "S256"),
        ("scope", "catalog:write"),
    ];
    for (name, value) in fixed {
        assert_eq!(asked[name], value);
    }
    assert_eq!(
        asked["resource"],
        format!("{}/merchants/{MERCHANT}", server.issuer())
    );
    let (state, redirect) = (&asked["state"], &asked["redirect_uri"]);
    assert!(redirect.starts_with("http://127.0.0.1:") && redirect.ends_with("/callback"));
    let iss = server.issuer();

    // Whatever any page may send is not found, and does not use up the one answer.
    for (to, answer) in [
        (
            redirect.replace("/callback", "/"),
            vec![("state", &**state)],
        ),
        (redirect.clone(), vec![("code", "code-1"), ("iss", iss)]),
        (
            redirect.clone(),
            vec![("code", "code-1"), ("state", "guessed"), ("iss", iss)],
        ),
        (
            redirect.clone(),
            vec![("code", "a"), ("code", "b"), ("state", state), ("iss", iss)],
        ),
    ] {
        assert_eq!(bring(&to, &answer).await.0, 404, "{answer:?}");
    }
    let (status, headers, page) = bring(
        redirect,
        &[("code", "code-1"), ("state", state), ("iss", iss)],
    )
    .await;
    assert_eq!(status, 200);
    assert!(page.contains("You are logged in"), "{page}");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("frame-ancestors 'none'")
    );

    let login = completing.await.unwrap().unwrap();
    assert_eq!(login.merchant_id.to_string(), MERCHANT);
    assert_eq!(mode(place.0.path()), 0o600);
    let kept = place.0.read().unwrap();
    assert_eq!(kept.logins[0].refresh_token.secret(), "refresh-1");
    // The port is closed again.
    let port = Url::parse(redirect).unwrap().port().unwrap();
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn an_answer_of_another_server_a_refusal_and_another_merchant_make_no_login() {
    let server = Server::start().await;
    let iss = server.issuer().to_owned();
    for (merchant, answer, words) in [
        (
            None,
            vec![("code", "code-1"), ("iss", "https://evil.example")],
            "https://evil.example",
        ),
        (None, vec![("code", "code-1")], "nothing was kept"),
        (
            None,
            vec![("error", "access_denied"), ("iss", &iss)],
            "not allowed: access_denied",
        ),
        (
            None,
            vec![("code", "code-2"), ("iss", &iss)],
            "no token: invalid_grant",
        ),
        (
            Some(OTHER),
            vec![("code", "code-1"), ("iss", &iss)],
            "not for mer_",
        ),
    ] {
        let place = Place::new();
        let (completing, asked) = begun(&server, &place, merchant).await;
        let mut answer = answer;
        answer.push(("state", &asked["state"]));
        let (status, _, page) = bring(&asked["redirect_uri"], &answer).await;
        assert_eq!(status, 400);
        assert!(page.contains("You are not logged in"), "{page}");
        let error = completing.await.unwrap().unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!place.0.path().exists(), "{words}");
    }
}

#[tokio::test]
async fn a_login_that_takes_anothers_place_gives_that_back() {
    let server = Server::start().await;
    let place = Place::with(server.login(600)).await;
    let (completing, asked) = begun(&server, &place, None).await;
    let answer = [
        ("code", "code-1"),
        ("state", &*asked["state"]),
        ("iss", server.issuer()),
    ];
    assert_eq!(bring(&asked["redirect_uri"], &answer).await.0, 200);
    completing.await.unwrap().unwrap();
    assert_eq!(server.state().revoked, ["refresh-1"]);
    assert_eq!(place.0.read().unwrap().logins.len(), 1);
    // What the revocation took along is got anew.
    assert_eq!(server.client(&place.0).token().await.unwrap(), "access-3");
}

#[tokio::test]
async fn the_server_says_for_whom_and_until_when() {
    let server = Server::start().await;
    let place = Place::with(server.login(600)).await;
    server.state().scope = "catalog:read".to_owned();
    let told = server.source(&place.0).renew().await.unwrap();
    assert_eq!(told.scope, "catalog:read");
    let left = told.grant_expires_at.unwrap().since(Clock::system().now());
    assert!(left > Duration::from_hours(23), "{left:?}");
    assert_eq!(server.state().number, 2);

    server.state().ended = true;
    let error = server.source(&place.0).renew().await.unwrap_err();
    assert!(error.to_string().contains("has ended"), "{error}");
}
