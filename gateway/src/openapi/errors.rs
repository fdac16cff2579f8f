//! The errors that follow from what an operation is: authenticated, keyed, with a body, versioned, a list.

use std::collections::{BTreeMap, BTreeSet};

use kernel::problem::{self, ProblemType};
use serde_json::{Map, Value, json};

use super::{operations, problem_type};

/// An operation names the refusals of its domain function by this extension: a list of slugs.
const EXTENSION: &str = "x-problem-types";

/// Gives every operation under `/v1` its error responses, one per status, with an example for each kind of problem.
pub(super) fn add(document: &mut Value) {
    for (path, _, operation) in operations(document) {
        let own: Vec<&'static ProblemType> = operation
            .remove(EXTENSION)
            .and_then(|slugs| slugs.as_array().cloned())
            .unwrap_or_default()
            .iter()
            .filter_map(|slug| problem_type(slug.as_str()?))
            .collect();
        if !path.starts_with("/v1/") {
            continue;
        }
        let mut by_status: BTreeMap<u16, BTreeSet<&'static str>> = BTreeMap::new();
        for kind in implied(operation, &path).into_iter().chain(own) {
            by_status.entry(kind.status).or_default().insert(kind.slug);
        }
        let Some(responses) = operation.entry("responses").or_insert_with(|| json!({})).as_object_mut() else {
            continue;
        };
        for (status, slugs) in by_status {
            responses.insert(status.to_string(), response(status, &slugs));
        }
    }
}

fn implied(operation: &Map<String, Value>, path: &str) -> Vec<&'static ProblemType> {
    let mut kinds: Vec<&'static ProblemType> =
        vec![&problem::INVALID_TOKEN, &problem::INSUFFICIENT_SCOPE, &problem::UNAVAILABLE, &problem::INTERNAL_ERROR];
    let parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    let has = |name: &str, place: &str| {
        parameters.iter().any(|parameter| {
            parameter["in"] == place && parameter["name"].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name))
        })
    };
    if path.contains('{') {
        kinds.push(&problem::NOT_FOUND);
    }
    if has("Idempotency-Key", "header") {
        kinds.extend([
            &problem::IDEMPOTENCY_KEY_REQUIRED,
            &problem::IDEMPOTENCY_KEY_REUSED,
            &problem::IDEMPOTENCY_KEY_IN_PROGRESS,
        ]);
    }
    if has("If-Match", "header") {
        kinds.extend([&problem::VERSION_MISMATCH, &problem::MALFORMED_REQUEST]);
    }
    if parameters.iter().any(|parameter| parameter["in"] == "query") {
        kinds.push(&problem::INVALID_FIELDS);
    }
    let body = operation.get("requestBody").and_then(|body| body["content"].as_object());
    if let Some(content) = body {
        kinds.push(&problem::UNSUPPORTED_MEDIA_TYPE);
        if content.contains_key("application/json") {
            kinds.extend([&problem::MALFORMED_REQUEST, &problem::INVALID_FIELDS, &problem::PAYLOAD_TOO_LARGE]);
        }
    }
    kinds
}

fn response(status: u16, slugs: &BTreeSet<&'static str>) -> Value {
    let kinds: Vec<&'static ProblemType> = slugs.iter().filter_map(|slug| problem_type(slug)).collect();
    let description: Vec<String> =
        kinds.iter().map(|kind| format!("`{}`: {}", kind.slug, kind.title)).collect();
    let examples: Map<String, Value> = kinds
        .iter()
        .map(|kind| {
            let mut value = json!({
                "type": format!("{}{}", crate::edge::fault::TYPE_BASE, kind.slug),
                "title": kind.title,
                "status": kind.status,
                "detail": kind.title,
                "requestId": "req_01jd3x5k8vfm7b2c9q0r4t6w8y",
            });
            if **kind == problem::INVALID_FIELDS {
                value["errors"] = json!([{"pointer": "/title", "code": "required", "detail": "must not be empty"}]);
            }
            (kind.slug.to_owned(), json!({"summary": kind.title, "value": value}))
        })
        .collect();
    let mut response = json!({
        "description": description.join("\n\n"),
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": examples,
        }},
    });
    if matches!(status, 409 | 503) {
        response["headers"] = json!({"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait before a retry."}});
    }
    if matches!(status, 401 | 403) {
        response["headers"] = json!({"WWW-Authenticate": {"schema": {"type": "string"}, "description": "RFC 6750, section 3."}});
    }
    response
}
