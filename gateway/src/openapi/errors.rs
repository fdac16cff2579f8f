//! The errors that follow from what an operation is: authenticated, keyed, with a body, versioned, a list.

use std::collections::{BTreeMap, BTreeSet};

use kernel::problem::{self, ProblemType};
use serde_json::{Map, Value, json};

use super::{operations, problem_type};

/// An operation names the refusals of its domain function by this extension: a list of slugs.
const EXTENSION: &str = "x-problem-types";

/// Gives every operation its error responses, one per status, with an example for each kind of problem.
pub(super) fn add(document: &mut Value) {
    for (path, _, operation) in operations(document) {
        let own = operation.remove(EXTENSION);
        let own = own
            .iter()
            .flat_map(|slugs| slugs.as_array().into_iter().flatten());
        let mut kinds: Vec<&'static ProblemType> = own
            .filter_map(|slug| problem_type(slug.as_str()?))
            .collect();
        // Another `Stoa-Version` than ours is refused everywhere.
        kinds.push(&problem::MALFORMED_REQUEST);
        if path.starts_with("/v1/") {
            kinds.extend(implied(operation, &path));
        }
        let mut by_status: BTreeMap<u16, BTreeSet<&'static str>> = BTreeMap::new();
        for kind in kinds {
            by_status.entry(kind.status).or_default().insert(kind.slug);
        }
        let Some(responses) = operation
            .entry("responses")
            .or_insert_with(|| json!({}))
            .as_object_mut()
        else {
            continue;
        };
        for (status, slugs) in by_status {
            merge(responses, status, &slugs);
        }
    }
}

/// What follows from authentication, path, key, versions, lists and body.
fn implied(operation: &Map<String, Value>, path: &str) -> Vec<&'static ProblemType> {
    let mut kinds: Vec<&'static ProblemType> = vec![
        &problem::INVALID_TOKEN,
        &problem::INSUFFICIENT_SCOPE,
        &problem::UNAVAILABLE,
        &problem::INTERNAL_ERROR,
    ];
    let parameters = operation
        .get("parameters")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let has = |name: &str, place: &str| {
        parameters.iter().any(|parameter| {
            parameter["in"] == place
                && parameter["name"]
                    .as_str()
                    .is_some_and(|found| found.eq_ignore_ascii_case(name))
        })
    };
    let media: Vec<&str> = operation
        .get("requestBody")
        .and_then(|body| body["content"].as_object())
        .map(|content| content.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let takes_json = media.contains(&"application/json");
    if path.contains('{') {
        kinds.push(&problem::NOT_FOUND);
    }
    if has("Idempotency-Key", "header") {
        kinds.extend([
            &problem::IDEMPOTENCY_KEY_REQUIRED,
            &problem::IDEMPOTENCY_KEY_REUSED,
        ]);
        // A stream's key makes a resource, which a second request takes over rather than waits for.
        if media.is_empty() || takes_json {
            kinds.push(&problem::IDEMPOTENCY_KEY_IN_PROGRESS);
        }
    }
    if has("If-Match", "header") {
        kinds.push(&problem::VERSION_MISMATCH);
    }
    if parameters
        .iter()
        .any(|parameter| parameter["in"] == "query")
    {
        kinds.push(&problem::INVALID_FIELDS);
    }
    if !media.is_empty() {
        kinds.push(&problem::UNSUPPORTED_MEDIA_TYPE);
    }
    if takes_json {
        kinds.extend([&problem::INVALID_FIELDS, &problem::PAYLOAD_TOO_LARGE]);
    }
    kinds
}

/// Adds a response, or its content to one that the operation describes itself.
fn merge(responses: &mut Map<String, Value>, status: u16, slugs: &BTreeSet<&'static str>) {
    let new = response(status, slugs);
    let Some(existing) = responses.get_mut(&status.to_string()) else {
        responses.insert(status.to_string(), new);
        return;
    };
    let described = existing["description"].as_str().unwrap_or_default();
    existing["description"] = json!(format!(
        "{described}\n\n{}",
        new["description"].as_str().unwrap_or_default()
    ));
    for part in ["content", "headers"] {
        let Some(added) = new[part].as_object().cloned() else {
            continue;
        };
        match existing[part].as_object_mut() {
            Some(members) => members.extend(added),
            None => existing[part] = Value::Object(added),
        }
    }
}

fn response(status: u16, slugs: &BTreeSet<&'static str>) -> Value {
    let kinds: Vec<&'static ProblemType> =
        slugs.iter().filter_map(|slug| problem_type(slug)).collect();
    let description: Vec<String> = kinds
        .iter()
        .map(|kind| format!("`{}`: {}", kind.slug, kind.title))
        .collect();
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
