//! GraphQL over HTTP: statuses, media types, methods.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each binary uses its part of the support")]

#[path = "support/nowhere.rs"]
mod nowhere;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use nowhere::{GRAPHQL, JSON, ask, code, post, router, send};
use serde_json::json;
use tower::ServiceExt;

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
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "query($t: DateTime) { products(updatedAfter: $t) { nodes { id } } }", "variables": {"t": "2026-02-30T00:00:00Z"}}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "query($t: DateTime = 7) { products(updatedAfter: $t) { nodes { id } } }"}"#,
            400,
            GRAPHQL,
            "invalid_query",
        ),
        (
            None,
            Some(JSON),
            r#"{"query": "{ products(updatedAfter: \"2026-02-28T00:00:00+01:00\") { nodes { id } } }"}"#,
            200,
            GRAPHQL,
            "unavailable",
        ),
        // A whole number to the engine, but none of 32 bits: found when it is read.
        (
            None,
            Some(JSON),
            r#"{"query": "{ products(first: 4000000000) { nodes { id } } }"}"#,
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
            if let Some(data) = answer.get("data") {
                let fields = data.as_object().unwrap();
                assert!(
                    fields.len() == 1 && fields.values().all(serde_json::Value::is_null),
                    "what fails is null: {answer}"
                );
            }
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
