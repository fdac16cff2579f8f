#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::HeaderMap as Headers,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::*;

/// A server that hands out numbered tokens, and says what it was sent.
#[derive(Clone)]
pub(super) struct Stub {
    pub(super) url: Url,
    tokens: Arc<AtomicUsize>,
    lifetime_s: u64,
    /// The first token that is good.
    good_from: usize,
}

impl Stub {
    /// Starts it; the routes are added to those of the authorization server.
    pub(super) async fn start(lifetime_s: u64, good_from: usize, routes: Router<Self>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let stub = Self {
            url,
            tokens: Arc::default(),
            lifetime_s,
            good_from,
        };
        let service = routes
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/oauth/token", post(token))
            .route("/v1/echo", post(echo).get(echo))
            .with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, service).await });
        stub
    }

    pub(super) fn client(&self) -> Client {
        Client::new(Options {
            url: self.url.clone(),
            source: Source::ClientCredentials(ClientCredentials {
                client_id: "app_1".to_owned(),
                client_secret: oauth2::ClientSecret::new("s3cret".to_owned()),
                resource: Resource::Url(format!("{}merchants/mer_1", self.url)),
                scope: "catalog:write".to_owned(),
            }),
        })
        .unwrap()
    }

    pub(super) fn tokens_given(&self) -> usize {
        self.tokens.load(Ordering::SeqCst)
    }
}

async fn metadata(State(stub): State<Stub>) -> impl IntoResponse {
    Json(
        json!({"issuer": stub.url.as_str().trim_end_matches('/'), "token_endpoint": stub.url.join("/oauth/token").unwrap()}),
    )
}

async fn token(State(stub): State<Stub>, headers: Headers, form: String) -> impl IntoResponse {
    let basic = headers["authorization"].to_str().unwrap().to_owned();
    let wanted = [
        "grant_type=client_credentials",
        "scope=catalog%3Awrite",
        "resource=http%3A%2F%2F127.0.0.1",
    ];
    // "app_1:s3cret" in base64.
    if basic != "Basic YXBwXzE6czNjcmV0" || !wanted.iter().all(|part| form.contains(part)) {
        let refusal = json!({"error": "invalid_client", "error_description": form});
        return (StatusCode::UNAUTHORIZED, Json(refusal));
    }
    let number = stub.tokens.fetch_add(1, Ordering::SeqCst) + 1;
    let answer = json!({"access_token": format!("token-{number}"), "token_type": "Bearer", "expires_in": stub.lifetime_s});
    (StatusCode::OK, Json(answer))
}

/// Says what it was sent, to those who have a good token.
async fn echo(State(stub): State<Stub>, headers: Headers, body: Bytes) -> impl IntoResponse {
    let token = headers["authorization"]
        .to_str()
        .unwrap()
        .rsplit('-')
        .next()
        .unwrap()
        .parse::<usize>()
        .unwrap();
    if token < stub.good_from {
        return problem(401, "invalid_token", "expired");
    }
    let key = headers
        .get("idempotency-key")
        .map(|key| key.to_str().unwrap().to_owned());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    (
        StatusCode::OK,
        [("x-request-id", "req_1")],
        json!({"token": token, "key": key, "body": body}).to_string(),
    )
        .into_response()
}

pub(super) fn problem(status: u16, slug: &str, detail: &str) -> Response {
    let body = json!({
        "type": format!("urn:stoa:problem:{slug}"), "title": "A problem.", "status": status, "detail": detail, "requestId": "req_9",
        "errors": [{"pointer": "/lines/0/quantity", "code": "out_of_range", "detail": "must be at least 1"}],
    });
    let headers = [
        ("content-type", "application/problem+json"),
        ("retry-after", "0"),
    ];
    (
        StatusCode::from_u16(status).unwrap(),
        headers,
        body.to_string(),
    )
        .into_response()
}

#[tokio::test]
async fn a_token_is_got_once_and_kept() {
    let stub = Stub::start(600, 0, Router::new()).await;
    let client = stub.client();
    let calls = (0..20).map(|number| {
        let client = client.clone();
        tokio::spawn(async move {
            client
                .post::<Value>("/v1/echo", &format!("key-{number}"), &json!({"n": number}))
                .await
                .unwrap()
        })
    });
    for (number, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = call.await.unwrap();
        assert_eq!(
            answer,
            json!({"token": 1, "key": format!("key-{number}"), "body": {"n": number}})
        );
    }
    assert_eq!(stub.tokens_given(), 1);
}

#[tokio::test]
async fn a_token_at_its_end_or_refused_is_replaced() {
    let ended = Stub::start(0, 0, Router::new()).await;
    let client = ended.client();
    for expected in 1..=3 {
        assert_eq!(
            client.get::<Value>("/v1/echo").await.unwrap()["token"],
            expected
        );
    }

    let refused = Stub::start(600, 2, Router::new()).await;
    assert_eq!(
        refused.client().get::<Value>("/v1/echo").await.unwrap()["token"],
        2
    );

    // Replaced once, not for ever.
    let hopeless = Stub::start(600, 100, Router::new()).await;
    let error = hopeless
        .client()
        .get::<Value>("/v1/echo")
        .await
        .unwrap_err();
    assert_eq!(
        (error.status(), hopeless.tokens_given()),
        (Some(StatusCode::UNAUTHORIZED), 2)
    );
}

#[tokio::test]
async fn failures_say_what_the_server_said() {
    let routes = Router::new()
        .route(
            "/v1/invalid",
            get(|| async { problem(422, "invalid_fields", "One field.") }),
        )
        .route(
            "/v1/away",
            get(|| async { problem(503, "unavailable", "Away.") }),
        )
        .route(
            "/v1/proxy",
            get(|| async { (StatusCode::BAD_GATEWAY, "<html>") }),
        )
        .route("/v1/text", get(|| async { "no JSON" }))
        .route(
            "/v1/moved",
            get(|| async { axum::response::Redirect::temporary("/v1/echo") }),
        );
    let stub = Stub::start(600, 0, routes).await;
    let client = stub.client();
    for (path, words, retryable) in [
        (
            "/v1/invalid",
            "422 invalid_fields: One field.\n  /lines/0/quantity: must be at least 1 (out_of_range) [request req_9]",
            false,
        ),
        ("/v1/away", "503 unavailable: Away.", true),
        (
            "/v1/proxy",
            "the server answered 502 Bad Gateway without saying why",
            true,
        ),
        ("/v1/text", "can't read the answer", false),
        ("/v1/moved", "the server answered 307", false),
    ] {
        let error = client.get::<Value>(path).await.unwrap_err();
        assert!(error.to_string().starts_with(words), "{path}: {error}");
        assert_eq!(error.is_retryable(), retryable, "{path}");
    }
    let answer = client
        .call(Method::GET, "/v1/echo?x=1", None, None::<&()>)
        .await
        .unwrap();
    assert_eq!(
        (answer.request_id(), answer.is_replayed()),
        (Some("req_1"), false)
    );
}

#[tokio::test]
async fn secrets_go_only_to_the_server_itself() {
    let stub = Stub::start(600, 0, Router::new()).await;
    let mut options = Options {
        url: stub.url.clone(),
        source: Source::ClientCredentials(ClientCredentials {
            client_id: "app_1".to_owned(),
            client_secret: oauth2::ClientSecret::new("wrong".to_owned()),
            resource: Resource::Url(format!("{}merchants/mer_1", stub.url)),
            scope: "catalog:write".to_owned(),
        }),
    };
    assert!(!format!("{options:?}").contains("wrong"));
    let error = Client::new(options.clone())
        .unwrap()
        .token()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Token { code, .. } if code == "invalid_client"),
        "{error:?}"
    );

    // The same server by another name calls itself otherwise.
    options.url = Url::parse(&stub.url.as_str().replace("127.0.0.1", "localhost")).unwrap();
    let error = Client::new(options).unwrap().token().await.unwrap_err();
    assert!(error.to_string().contains("use that address"), "{error}");
    assert_eq!(stub.tokens_given(), 0);
}
