//! Every error that the document declares, provoked.
//!
//! For each operation and each problem that the running server's `/openapi.json` says it may give, there is a [provocation](provoke): one that is
//! missing fails the test, and so does an answer that the document does not declare. What follows from the kind of the operation is provoked the same
//! way for all of them; only the refusals of a domain function have a provocation of their own.

use std::sync::Arc;

use serde_json::json;
use tests::{Answer, Stoa, StoaOptions, wait_for};

use crate::{
    STOA,
    matrix::{
        document::{self, Operation, Things},
        world::World,
    },
};

mod outages;
mod provoke;

use provoke::Provocation;

/// What of the server has to be broken for it, which the tests of [`outages`] do.
const OUTAGES: &[&str] = &["internal_error", "unavailable", "events_expired"];

/// What is wrong with `answer` as the problem `slug` that `operation` declares.
fn faults(operation: &Operation, slug: &str, answer: &Answer) -> Vec<String> {
    let text = |member: &str| answer.json[member].as_str().unwrap_or_default();
    let has = |name: &str| answer.headers.contains_key(name);
    let header = |name: &str| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let status = answer.status.as_u16();
    let names_fields = answer.json["errors"]
        .as_array()
        .is_some_and(|errors| !errors.is_empty());
    let rules = [
        (answer.slug() == slug, "is another answer"),
        (
            operation.problems.get(slug) == Some(&status),
            "is not declared with this status",
        ),
        (
            header("content-type") == "application/problem+json",
            "is no application/problem+json",
        ),
        (
            answer.json["status"] == status,
            "has another status in its body",
        ),
        (
            !text("requestId").is_empty() && text("requestId") == header("x-request-id"),
            "does not name its request",
        ),
        (
            !text("title").is_empty() && !text("detail").is_empty(),
            "does not say what happened",
        ),
        (
            slug != "invalid_fields" || names_fields,
            "does not name the fields",
        ),
        (
            status != 503 || has("retry-after"),
            "does not say when to retry",
        ),
        (
            !matches!(status, 401 | 403) || has("www-authenticate"),
            "has no challenge",
        ),
    ];
    let broken = rules.iter().filter(|(holds, _)| !holds);
    broken
        .map(|(_, what)| {
            format!(
                "{} {slug}: {what}: {} {}",
                operation.id, answer.status, answer.text
            )
        })
        .collect()
}

/// Fails unless `answer` is the problem `slug` as `operation` declares it.
fn assert_declared(operation: &Operation, slug: &str, answer: &Answer) {
    assert_eq!(faults(operation, slug, answer), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_declared_problem_is_provoked() {
    let world = Arc::new(World::new(Stoa::shared(STOA).await).await);
    let provocation = Provocation::new(Arc::clone(&world)).await;
    let mut missing = Vec::new();
    let mut wrong = Vec::new();
    let mut waiting = Vec::new();
    for operation in &world.operations {
        for slug in operation
            .problems
            .keys()
            .filter(|slug| !OUTAGES.contains(&slug.as_str()))
        {
            if slug == "idempotency_key_in_progress" {
                // Each takes five seconds: all at once.
                waiting.push(provocation.in_progress(operation));
                continue;
            }
            let answers = provocation.of(operation, slug).await;
            if answers.is_empty() {
                missing.push(format!("{} {slug}", operation.id));
            }
            wrong.extend(
                answers
                    .iter()
                    .flat_map(|answer| faults(operation, slug, answer)),
            );
        }
    }
    assert!(
        missing.is_empty(),
        "declared, and not provoked: {missing:#?}"
    );
    for (operation, answer) in futures_util::future::join_all(waiting).await {
        wrong.extend(faults(operation, "idempotency_key_in_progress", &answer));
        if !answer.headers.contains_key("retry-after") {
            wrong.push(format!(
                "{}: a key in progress must say when to retry",
                operation.id
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_endpoint_gives_every_error_of_its_rfc() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let operations = document::operations(&stoa.base_url()).await;
    let issue = operations
        .iter()
        .find(|operation| operation.id == "issueToken")
        .unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |secret: &str, form: &[(&str, &str)]| {
        let request = http.post(format!("{}/oauth/token", stoa.base_url()));
        let response = request
            .basic_auth(&client.credentials.client_id, Some(secret))
            .form(form)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (
            status,
            response.json::<serde_json::Value>().await.unwrap()["error"].clone(),
        )
    };
    let (secret, resource) = (&client.credentials.client_secret, &client.resource());
    let kind = ("grant_type", "client_credentials");
    for (expected, answer) in [
        (
            (400, "invalid_request"),
            ask(secret, &[("resource", resource)]).await,
        ),
        (
            (400, "unsupported_grant_type"),
            ask(
                secret,
                &[("grant_type", "password"), ("resource", resource)],
            )
            .await,
        ),
        (
            (400, "invalid_target"),
            ask(secret, &[kind, ("resource", "https://elsewhere.example")]).await,
        ),
        (
            (400, "invalid_scope"),
            ask(
                secret,
                &[kind, ("resource", resource), ("scope", "moons:read")],
            )
            .await,
        ),
        (
            (401, "invalid_client"),
            ask("wrong", &[kind, ("resource", resource)]).await,
        ),
    ] {
        assert_eq!(answer, (expected.0, json!(expected.1)));
        assert!(
            issue.failures.contains(&expected.0),
            "{} is not declared",
            expected.0
        );
    }
    // Whoever goes on guessing is told to wait.
    let throttled = wait_for("the limit", async || {
        let answer = ask("wrong", &[kind, ("resource", resource)]).await;
        (answer.0 == 429).then_some(answer)
    })
    .await;
    assert_eq!(throttled.1, "temporarily_unavailable");
    // 500 and 503 are outages'.
    assert_eq!(issue.failures, [400, 401, 429, 500, 503]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_operation_knows_is_a_problem_too() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let unknown = client.get("/v1/moons").await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.slug()),
        (404, "not_found"),
        "{}",
        unknown.text
    );
    let call = document::operations(&stoa.base_url()).await;
    let list = call
        .iter()
        .find(|operation| operation.id == "listProducts")
        .unwrap();
    let mut call = list.call(&Things::new());
    call.method = reqwest::Method::DELETE;
    let refused = call.send(&stoa.base_url(), Some(&client.token())).await;
    assert_eq!(
        (refused.status.as_u16(), refused.slug()),
        (405, "method_not_allowed"),
        "{}",
        refused.text
    );
    assert!(refused.headers["allow"].to_str().unwrap().contains("GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_character_that_no_text_may_have_is_the_clients_fault_wherever_it_is() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    for (path, parameter) in [
        ("/v1/products?externalId=a%00b", "externalId"),
        ("/v1/products?sku=%00", "sku"),
        ("/v1/orders?externalId=%00", "externalId"),
    ] {
        let refused = client.get(path).await.expect(422);
        assert_eq!(refused["errors"][0]["parameter"], parameter, "{refused}");
    }
    let query = "query($id: String) { products(externalId: $id) { nodes { id } } }";
    let answer = client.graphql(query, json!({"id": "a\u{0}b"})).await;
    assert_eq!(
        answer.json["errors"][0]["extensions"]["code"], "invalid_fields",
        "{}",
        answer.text
    );
}

/// A server of its own, to be broken.
async fn own_world() -> World {
    let options = StoaOptions {
        retry_schedule: Some("0,0".to_owned()),
        log: Some("off".to_owned()),
        ..StoaOptions::default()
    };
    World::new(Arc::new(Stoa::start_with(STOA, options).await)).await
}
