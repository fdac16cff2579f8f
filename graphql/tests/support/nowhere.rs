//! The schema over a database that does not exist: whatever is executed shows.

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use graphql::Services;
use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    db::{Database, Role},
    event::Announcer,
    id::{AppId, GrantId, MerchantId, RequestId},
    idempotency::{Groups, Idempotency},
    keyring::{DataKey, Keyring},
};
use serde_json::Value;
use tower::ServiceExt;

pub(crate) fn actor() -> Actor {
    let now = Timestamp::from_unix_millis(1_800_000_000_000);
    Actor {
        merchant: MerchantId::new(now),
        app: AppId::new(now),
        grant: GrantId::new(now),
        access: Access::full(),
        request: RequestId::new(now),
    }
}

pub(crate) fn router() -> axum::Router {
    let database = Database::new(
        "postgres://nobody@localhost/none?host=/nowhere"
            .parse()
            .unwrap(),
        Role::Api,
        1,
    );
    let keyring = Arc::new(Keyring::new(DataKey::generate().unwrap()));
    let idempotency = Idempotency::new(
        database.clone(),
        Clock::system(),
        Arc::clone(&keyring),
        Announcer::default(),
    );
    graphql::router(graphql::schema(Services {
        database,
        keyring,
        placing: Groups::new(idempotency.clone()),
        idempotency,
    }))
}

pub(crate) async fn send(mut request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    request.extensions_mut().insert(actor());
    let response = router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let json = serde_json::from_slice(&bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)));
    (parts.status, parts.headers, json)
}

pub(crate) fn post(
    accept: Option<&str>,
    content_type: Option<&str>,
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::post("/graphql");
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    request.body(body.into()).unwrap()
}

pub(crate) async fn ask(body: Value) -> (StatusCode, Value) {
    let (status, _, answer) = send(post(None, Some("application/json"), body.to_string())).await;
    (status, answer)
}

pub(crate) fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_default()
}

pub(crate) const GRAPHQL: &str = "application/graphql-response+json";

pub(crate) const JSON: &str = "application/json";
