//! Problems: what went wrong, in the form that every API shows (RFC 9457).
//!
//! A crate's error becomes a [`Problem`] in one place, its `From<Error> for Problem`. The edge renders it: REST as
//! `application/problem+json`, GraphQL with the slug in `extensions.code`. A problem with a status of 500 or above is logged with its source
//! and shown without it.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

use crate::scope::Scope;

/// One kind of problem: a row of docs/errors.md.
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// The stable word that clients match on: `insufficient_stock`.
    pub slug: &'static str,
    /// A short sentence that is the same each time.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What it means and what to do about it, for docs/errors.md.
    pub advice: &'static str,
}

/// Declares problem types, and `ALL` that lists them.
#[macro_export]
macro_rules! problem_types {
    ($($name:ident, $status:literal, $slug:literal, $title:literal, $advice:literal;)*) => {
        $(#[doc = concat!("`", $slug, "` (", stringify!($status), "): ", $title)]
        pub static $name: $crate::problem::ProblemType =
            $crate::problem::ProblemType { slug: $slug, title: $title, status: $status, advice: $advice };)*

        /// Every problem type of this module.
        pub static ALL: &[&$crate::problem::ProblemType] = &[$(&$name),*];
    };
}

problem_types! {
    MALFORMED_REQUEST, 400, "malformed_request", "The request can't be read.",
        "The body is not JSON, a header has no legal value, or the request breaks off. `detail` says what and where.";
    INVALID_FIELDS, 422, "invalid_fields", "Some fields are not valid.",
        "`errors` names every field that is wrong by its JSON Pointer (or query parameter), with a code and a sentence.";
    INVALID_TOKEN, 401, "invalid_token", "The access token is missing, expired, revoked or not valid.",
        "Get a new token at `/oauth/token`. If that is refused too, the grant has ended.";
    INSUFFICIENT_SCOPE, 403, "insufficient_scope", "The token lacks a scope.",
        "`WWW-Authenticate` names the scope. Ask the merchant for a grant that has it.";
    NOT_FOUND, 404, "not_found", "There is no such thing here.",
        "The id is wrong, or belongs to another merchant, or to a location that the grant does not include.";
    METHOD_NOT_ALLOWED, 405, "method_not_allowed", "This resource does not know that method.",
        "`Allow` lists the methods that it knows.";
    VERSION_MISMATCH, 412, "version_mismatch", "The resource has changed meanwhile.",
        "Read the resource again and repeat the change with the new ETag in `If-Match`.";
    PAYLOAD_TOO_LARGE, 413, "payload_too_large", "The body is too large.",
        "`detail` names the limit. For many rows use a catalog import, which has none.";
    UNSUPPORTED_MEDIA_TYPE, 415, "unsupported_media_type", "The body is of a type that is not read here.",
        "Send `Content-Type: application/json`, or `application/x-ndjson` to an import.";
    IDEMPOTENCY_KEY_REQUIRED, 400, "idempotency_key_required", "The header Idempotency-Key is missing or not valid.",
        "Send a key of 1 to 255 visible ASCII characters, new for each change that is meant and the same for each retry of it.";
    IDEMPOTENCY_KEY_REUSED, 422, "idempotency_key_reused", "This key was used with another input.",
        "A key stands for one change. Use a new key for another change; retry a change with the same input.";
    IDEMPOTENCY_KEY_IN_PROGRESS, 409, "idempotency_key_in_progress", "A request with this key is still being worked on.",
        "Retry after the time in `Retry-After`; the answer will then be there.";
    UNAVAILABLE, 503, "unavailable", "The service can't answer now.",
        "Retry with the same key after the time in `Retry-After`.";
    INTERNAL_ERROR, 500, "internal_error", "Something went wrong on our side.",
        "Retry with the same key. `requestId` finds the cause in our logs.";
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where in the body: a JSON Pointer (RFC 6901) such as `/lines/0/quantity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/lines/0/quantity")]
    pub pointer: Option<String>,
    /// Which query parameter, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// A stable word: `required`, `too_long`, `out_of_range`, `unknown_field` …
    #[schema(value_type = String, example = "out_of_range")]
    pub code: Cow<'static, str>,
    /// A sentence that says what is expected.
    #[schema(example = "must be at least 1")]
    pub detail: String,
}

impl FieldError {
    /// An error at a JSON Pointer.
    pub fn at(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            pointer: Some(pointer.into()),
            parameter: None,
            code: code.into(),
            detail: detail.into(),
        }
    }

    /// An error in a query parameter.
    pub fn in_parameter(name: &str, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            pointer: None,
            parameter: Some(name.to_owned()),
            code: code.into(),
            detail: detail.into(),
        }
    }
}

/// What is wrong with fields, in one line, for logs and terminals: `/name must not be empty; /scope must …`.
pub fn sentence(errors: &[FieldError]) -> String {
    let each = errors.iter().map(|error| {
        let place = error.pointer.as_ref().or(error.parameter.as_ref());
        format!("{} {}", place.map_or("", String::as_str), error.detail)
    });
    each.collect::<Vec<_>>().join("; ")
}

/// What went wrong this time.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", kind.slug)]
pub struct Problem {
    /// The kind.
    pub kind: &'static ProblemType,
    /// What happened this time, in a sentence that may be shown to the client.
    pub detail: String,
    /// Every field that is wrong.
    pub errors: Vec<FieldError>,
    /// When a retry makes sense.
    pub retry_after: Option<Duration>,
    /// The scope that is missing, for `WWW-Authenticate`.
    pub required_scope: Option<Scope>,
    /// The cause, for the log alone.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Problem {
    /// A problem of `kind`; `detail` is shown to the client.
    pub fn new(kind: &'static ProblemType, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            required_scope: None,
            source: None,
        }
    }

    /// Fields that are wrong.
    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] => {
                let place = only
                    .pointer
                    .as_deref()
                    .or(only.parameter.as_deref())
                    .unwrap_or_default();
                let place = if place.is_empty() { "the body" } else { place };
                format!("{place}: {}", only.detail)
            }
            several => format!(
                "{} fields are not valid; `errors` lists them.",
                several.len()
            ),
        };
        Self {
            errors,
            ..Self::new(&INVALID_FIELDS, detail)
        }
    }

    /// The thing that `noun` and `id` name is not there, or not visible.
    pub fn not_found(noun: &str, id: impl std::fmt::Display) -> Self {
        Self::new(&NOT_FOUND, format!("There is no {noun} {id}."))
    }

    /// Something on our side; the cause goes to the log.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(
                &INTERNAL_ERROR,
                "The cause is in our logs under this request id.",
            )
        }
    }

    /// The database or another part can't be reached now.
    pub fn unavailable(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            retry_after: Some(RETRY_UNAVAILABLE_AFTER),
            source: Some(source.into()),
            ..Self::new(&UNAVAILABLE, "The database can't be reached at the moment.")
        }
    }
}

/// What a client is told to wait when the database is away: a restart of the private PostgreSQL takes about a second.
const RETRY_UNAVAILABLE_AFTER: Duration = Duration::from_secs(1);
