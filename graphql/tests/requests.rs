//! Requests over HTTP that need no data: what is refused, how quickly, and with which status. The database behind the schema does not exist, so that
//! whatever is executed shows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{fmt::Write, sync::Arc};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use graphql::{COST_MAX, Services};
use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    db::{Database, Role},
    event::Announcer,
    id::{AppId, GrantId, MerchantId, RequestId},
    idempotency::Idempotency,
    keyring::{DataKey, Keyring},
};
use serde_json::{Value, json};
use tower::ServiceExt;

fn actor() -> Actor {
    let now = Timestamp::from_unix_millis(1_800_000_000_000);
    Actor {
        merchant: MerchantId::new(now),
        app: AppId::new(now),
        grant: GrantId::new(now),
        access: Access::full(),
        request: RequestId::new(now),
    }
}

fn router() -> axum::Router {
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
        idempotency,
    }))
}

async fn send(mut request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    request.extensions_mut().insert(actor());
    let response = router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let json = serde_json::from_slice(&bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)));
    (parts.status, parts.headers, json)
}

fn post(accept: Option<&str>, content_type: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut request = Request::post("/graphql");
    if let Some(accept) = accept {
        request = request.header(header::ACCEPT, accept);
    }
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    request.body(body.into()).unwrap()
}

async fn ask(body: Value) -> (StatusCode, Value) {
    let (status, _, answer) = send(post(None, Some("application/json"), body.to_string())).await;
    (status, answer)
}

fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_default()
}

const GRAPHQL: &str = "application/graphql-response+json";
const JSON: &str = "application/json";

/// `Accept`, `Content-Type` and body; status, media type and code.
type Case = (
    Option<&'static str>,
    Option<&'static str>,
    &'static str,
    u16,
    &'static str,
    &'static str,
);

#[tokio::test]
async fn statuses_are_those_of_graphql_over_http() {
    let fine = r#"{"query": "{ __typename }"}"#;
    let table: &[Case] = &[
        (Some(GRAPHQL), Some(JSON), fine, 200, GRAPHQL, ""),
        (Some(JSON), Some(JSON), fine, 200, JSON, ""),
        (None, Some(JSON), fine, 200, GRAPHQL, ""),
        (Some("*/*"), Some(JSON), fine, 200, GRAPHQL, ""),
        (Some("text/html"), Some(JSON), fine, 200, GRAPHQL, ""),
        (
            Some("application/graphql-response+json, application/json"),
            Some(JSON),
            fine,
            200,
            GRAPHQL,
            "",
        ),
        (
            Some("application/json, application/graphql-response+json"),
            Some(JSON),
            fine,
            200,
            JSON,
            "",
        ),
        (
            Some("application/json;q=0.5, application/graphql-response+json;q=0.9"),
            Some(JSON),
            fine,
            200,
            GRAPHQL,
            "",
        ),
        (
            Some("application/json, application/graphql-response+json;q=0"),
            Some(JSON),
            fine,
            200,
            JSON,
            "",
        ),
        (
            Some("APPLICATION/JSON"),
            Some("Application/JSON; charset=\"UTF-8\""),
            fine,
            200,
            JSON,
            "",
        ),
        (
            None,
            Some("application/json; charset=utf-16"),
            fine,
            415,
            GRAPHQL,
            "unsupported_media_type",
        ),
        (
            None,
            Some("text/plain"),
            fine,
            415,
            GRAPHQL,
            "unsupported_media_type",
        ),
        (
            None,
            Some("application/x-www-form-urlencoded"),
            "query={__typename}",
            415,
            GRAPHQL,
            "unsupported_media_type",
        ),
        (None, None, fine, 415, GRAPHQL, "unsupported_media_type"),
        (Some(JSON), Some(JSON), "{", 400, JSON, "malformed_request"),
        (Some(JSON), Some(JSON), "", 400, JSON, "malformed_request"),
        (Some(JSON), Some(JSON), "7", 400, JSON, "malformed_request"),
        (Some(JSON), Some(JSON), "[]", 400, JSON, "malformed_request"),
        (
            Some(JSON),
            Some(JSON),
            "[7]",
            400,
            JSON,
            "malformed_request",
        ),
        (Some(JSON), Some(JSON), "{}", 400, JSON, "malformed_request"),
        (
            None,
            Some(JSON),
            r#"{"query": null}"#,
            400,
            GRAPHQL,
            "malformed_request",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": ["{ __typename }"]}"#,
            400,
            GRAPHQL,
            "malformed_request",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ __typename }", "variables": [1]}"#,
            400,
            GRAPHQL,
            "malformed_request",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ __typename }", "variables": "{}"}"#,
            400,
            GRAPHQL,
            "malformed_request",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ __typename }", "operationName": 1}"#,
            400,
            GRAPHQL,
            "malformed_request",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ __typename }", "extensions": 1}"#,
            400,
            GRAPHQL,
            "malformed_request",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ __typename }", "variables": null, "operationName": null, "extensions": null}"#,
            200,
            GRAPHQL,
            "",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ __typename }", "extensions": {"a": 1}, "more": 1}"#,
            200,
            GRAPHQL,
            "",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{"}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            Some(JSON),
            Some(JSON),
            r#"{"query": "{"}"#,
            200,
            JSON,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": ""}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ nothing }"}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            Some(JSON),
            Some(JSON),
            r#"{"query": "{ nothing }"}"#,
            200,
            JSON,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "query A { __typename }", "operationName": "B"}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "query A { __typename } query B { __typename }"}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "query A { __typename } query B { __typename }", "operationName": "B"}"#,
            200,
            GRAPHQL,
            "",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "query($n: Int!) { products(first: $n) { nodes { id } } }"}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "query($n: Int) { products(first: $n) { nodes { id } } }", "variables": {"n": "x"}}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "subscription { __typename }"}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        // Executed, and failed: the status says that it was.
        (
            None,
            Some(JSON),
            r#"{"query": "{ product(id: \"x\") { id } }"}"#,
            200,
            GRAPHQL,
            "not_found",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ products(first: 0) { nodes { id } } }"}"#,
            200,
            GRAPHQL,
            "invalid_fields",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ products(updatedAfter: \"x\") { nodes { id } } }"}"#,
            200,
            GRAPHQL,
            "invalid_fields",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ products { nodes { id } } }"}"#,
            200,
            GRAPHQL,
            "unavailable",
        ),
    ];
    for (accept, content_type, body, status, media_type, expected) in table {
        let (got, headers, answer) = send(post(*accept, *content_type, (*body).to_owned())).await;
        assert_eq!(
            (got.as_u16(), code(&answer)),
            (*status, *expected),
            "{accept:?} {content_type:?} {body}: {answer}"
        );
        assert_eq!(
            headers[header::CONTENT_TYPE],
            format!("{media_type}; charset=utf-8"),
            "{accept:?} {body}"
        );
        if expected.is_empty() {
            assert!(
                answer.get("errors").is_none() && answer["data"]["__typename"] == "Query",
                "{answer}"
            );
        } else {
            let executed = matches!(*expected, "not_found" | "invalid_fields" | "unavailable");
            assert_eq!(answer.get("data").is_some(), executed, "{answer}");
            assert!(
                answer["errors"][0]["extensions"]["requestId"]
                    .as_str()
                    .unwrap()
                    .starts_with("req_")
            );
        }
    }
}

#[tokio::test]
async fn a_get_reads_and_never_changes() {
    let get = |query: &str| {
        Request::get(format!("/graphql?{query}"))
            .body(Body::empty())
            .unwrap()
    };
    let (status, _, answer) = send(get("query=%7B__typename%7D")).await;
    assert_eq!(
        (status.as_u16(), &answer["data"]["__typename"]),
        (200, &json!("Query"))
    );
    let (status, _, answer) = send(get("query=query(%24n%3AInt)%7Bproducts(first%3A%24n)%7Bnodes%7Bid%7D%7D%7D&variables=%7B%22n%22%3A251%7D")).await;
    assert_eq!(
        (status.as_u16(), code(&answer)),
        (200, "invalid_fields"),
        "{answer}"
    );
    for (query, status, expected) in [
        ("", 400, "malformed_request"),
        (
            "query=%7B__typename%7D&variables=%7B",
            400,
            "malformed_request",
        ),
        (
            "query=%7B__typename%7D&variables=7",
            400,
            "malformed_request",
        ),
        ("query=%7B", 400, "invalid_query"),
        ("query=mutation%7B__typename%7D", 405, "method_not_allowed"),
        (
            "query=query%20A%7B__typename%7Dmutation%20B%7B__typename%7D&operationName=B",
            405,
            "method_not_allowed",
        ),
        (
            "query=query%20A%7B__typename%7Dmutation%20B%7B__typename%7D&operationName=A",
            200,
            "",
        ),
    ] {
        let (got, headers, answer) = send(get(query)).await;
        assert_eq!((got.as_u16(), code(&answer)), (status, expected), "{query}");
        assert_eq!(headers.contains_key(header::ALLOW), status == 405);
    }
    let request = Request::get("/graphql?query=mutation%7B__typename%7D")
        .header(header::ACCEPT, JSON)
        .body(Body::empty())
        .unwrap();
    assert_eq!(send(request).await.0.as_u16(), 405, "in either form");
    let (status, headers, answer) =
        send(Request::delete("/graphql").body(Body::empty()).unwrap()).await;
    assert_eq!(
        (status.as_u16(), code(&answer)),
        (405, "method_not_allowed")
    );
    assert_eq!(headers[header::ALLOW], "GET, POST");
}

#[tokio::test]
async fn nobody_is_served_without_an_actor() {
    let request = post(None, Some(JSON), r#"{"query": "{ __typename }"}"#);
    let response = router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_body_has_a_limit() {
    let body =
        json!({"query": "{ __typename }", "variables": {"x": "x".repeat(graphql::BODY_BYTES_MAX)}});
    let (status, answer) = ask(body).await;
    assert_eq!((status.as_u16(), code(&answer)), (413, "payload_too_large"));
}

/// Whether a request was refused before execution: with the database away, what is executed says `unavailable`.
async fn refused_as(query: String, variables: Value, expected: &str) -> Value {
    let (status, answer) = ask(json!({"query": query, "variables": variables})).await;
    let error = answer["errors"][0].clone();
    assert_eq!(
        (status.as_u16(), code(&answer)),
        (400, expected),
        "{}",
        error["message"]
    );
    assert!(answer.get("data").is_none());
    error
}

#[tokio::test]
async fn what_costs_too_much_is_refused_with_its_cost_and_the_limit() {
    let query = "query($n: Int) { products(first: $n) { nodes { id title brand variants { id sku price { amount currency } } } } }";
    let (status, answer) = ask(json!({"query": query, "variables": {"n": 10}})).await;
    assert_eq!(
        (status.as_u16(), code(&answer)),
        (200, "unavailable"),
        "this one is executed: {answer}"
    );
    assert_eq!(
        answer["extensions"]["cost"],
        json!({"requested": 2 + 10 * (4 + 4 * 5), "limit": COST_MAX})
    );
    let nested = "query($n: Int) { orders(first: $n) { nodes { id lines { title product { title variants { id sku } } } } } }";
    let error = refused_as(nested.to_owned(), json!({"n": 250}), "query_too_costly").await;
    let cost = 2 + 250 * (1 + 1 + 4 * (1 + 1 + 1 + 1 + 4 * 2));
    assert_eq!(error["extensions"]["cost"], json!(cost), "{error}");
    assert_eq!(error["extensions"]["limit"], json!(COST_MAX));
}

#[tokio::test]
async fn thousands_of_aliases_are_refused() {
    let mut query = String::from("{");
    for place in 0..6_000 {
        write!(query, "a{place:x}:__typename ").unwrap();
    }
    query.push('}');
    assert!(query.len() > graphql::DOCUMENT_BYTES_MAX);
    refused_as(query, json!({}), "invalid_query").await;
    let mut query = String::from("{");
    for place in 0..1_200 {
        write!(query, "a{place:x}:products(first:9){{nodes{{id}}}} ").unwrap();
    }
    query.push('}');
    refused_as(query, json!({}), "query_too_costly").await;
}

#[tokio::test]
async fn fragment_bombs_are_refused() {
    let mut query = String::from("{ product(id: \"prod_01jd3x5k8vfm7b2c9q0r4t6w8y\") { ...F0 } }");
    for place in 0..25 {
        write!(
            query,
            " fragment F{place} on Product {{ ...F{0} ...F{0} ...F{0} ...F{0} }}",
            place + 1
        )
        .unwrap();
    }
    query.push_str(" fragment F25 on Product { id }");
    refused_as(query.clone(), json!({}), "invalid_query").await;
    // The same in an operation beside the one that is executed.
    let beside = query.replacen('{', "query Bomb {", 1) + " query Fine { __typename }";
    let (status, answer) = ask(json!({"query": beside, "operationName": "Fine"})).await;
    assert_eq!((status.as_u16(), code(&answer)), (400, "invalid_query"));
    for cycle in [
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "{ __typename } fragment A on Query { ...A }",
    ] {
        refused_as(cycle.to_owned(), json!({}), "invalid_query").await;
    }
}

#[tokio::test]
async fn deep_documents_are_refused_before_they_are_parsed() {
    for (opening, closing) in [
        ("{a", "}"),
        ("{a(b:[", "]){c}}"),
        ("{...", "}"),
        ("{a(b:{c:", "}){d}}"),
    ] {
        let levels = 60_000 / (opening.len() + closing.len());
        let query = opening.repeat(levels) + &closing.repeat(levels);
        refused_as(query, json!({}), "invalid_query").await;
        refused_as(
            opening.repeat(60_000 / opening.len()),
            json!({}),
            "invalid_query",
        )
        .await;
    }
    refused_as(
        format!("{{a(b:{}", "[".repeat(60_000)),
        json!({}),
        "invalid_query",
    )
    .await;
    refused_as(
        format!("query(${}", "a:[".repeat(20_000)),
        json!({}),
        "invalid_query",
    )
    .await;
    let fields = format!(
        "{{ {} id {} }}",
        "product(id: 1) { ".repeat(13),
        "}".repeat(13)
    );
    refused_as(fields, json!({}), "query_too_deep").await;
    // JSON that is nested without an end is refused by its own parser.
    let variables = format!(
        r#"{{"query": "{{ __typename }}", "variables": {{"x": {}"#,
        "[".repeat(500_000)
    );
    let (status, _, answer) = send(post(None, Some(JSON), variables)).await;
    assert_eq!((status.as_u16(), code(&answer)), (400, "malformed_request"));
}

#[tokio::test]
async fn large_variables_are_not_used_hundreds_of_times() {
    let mut query = String::from("query($id: ID!) {");
    for place in 0..500 {
        write!(query, "a{place}: product(id: $id) {{ id }} ").unwrap();
    }
    query.push('}');
    refused_as(query, json!({"id": "x".repeat(100_000)}), "invalid_query").await;
}

#[tokio::test]
async fn directives_are_bounded_and_change_no_cost() {
    let query = format!("{{ __typename {} }}", "@skip(if: false) ".repeat(2_000));
    refused_as(query, json!({}), "invalid_query").await;
    let (_, answer) =
        ask(json!({"query": "{ __typename @include(if: true) b: __typename @skip(if: true) }"}))
            .await;
    assert_eq!(
        answer,
        json!({"data": {"__typename": "Query"}, "extensions": {"cost": {"requested": 2, "limit": COST_MAX}}})
    );
}

#[tokio::test]
async fn a_batch_is_charged_as_a_whole_and_bounded() {
    let one = json!({"query": "{ __typename }"});
    let (status, answer) = ask(json!([one, one, {"query": "{"}])).await;
    assert_eq!(status.as_u16(), 200, "something was executed");
    assert_eq!(answer.as_array().unwrap().len(), 3);
    assert_eq!(answer[1]["data"]["__typename"], "Query");
    assert_eq!(code(&answer[2]), "invalid_query");

    let page = json!({"query": "{ orders(first: 250) { nodes { id externalId status currency total { amount } } } }"});
    let (status, answer) = ask(json!([page, page, page, page, page, page, page])).await;
    assert_eq!(status.as_u16(), 400);
    for element in answer.as_array().unwrap() {
        assert_eq!(code(element), "query_too_costly");
        assert_eq!(
            element["errors"][0]["extensions"]["cost"],
            json!(7 * (2 + 250 * 6)),
            "the sum of all"
        );
        assert!(element.get("data").is_none(), "none is executed");
    }
    let (status, answer) = ask(Value::Array(vec![one; graphql::BATCH_MAX + 1])).await;
    assert_eq!((status.as_u16(), code(&answer[0])), (400, "invalid_query"));
}

#[tokio::test]
async fn thousands_of_mistakes_are_not_all_listed() {
    let query = format!(
        "{{ {} }}",
        (0..5_000).fold(String::new(), |mut query, place| {
            write!(query, "x{place:x} ").unwrap();
            query
        })
    );
    let (_, answer) = ask(json!({"query": query})).await;
    assert_eq!(answer["errors"].as_array().unwrap().len(), 100);
}

#[tokio::test]
async fn causes_of_ours_are_not_shown() {
    let (_, answer) = ask(json!({"query": "{ products { nodes { id } } }"})).await;
    let error = answer["errors"][0].to_string();
    assert!(
        !error.contains("nowhere") && !error.contains("os error"),
        "{error}"
    );
    assert_eq!(answer["errors"][0]["extensions"]["status"], 503);
    assert_eq!(answer["data"], json!({"products": null}));
}

#[tokio::test]
async fn introspection_answers() {
    let query = "{ __schema { queryType { name } types { name fields { name type { name } } } } }";
    let (status, answer) = ask(json!({"query": query})).await;
    assert_eq!(status.as_u16(), 200, "{answer}");
    assert_eq!(answer["data"]["__schema"]["queryType"]["name"], "Query");
}
