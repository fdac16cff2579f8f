//! Failures on their way out: the one error that resolvers return, and how an answer's errors are finished.
//!
//! A [`Fault`] can only be made from a [`Problem`], and has no `Display`: the engine would take that for a message to the client. Internal causes
//! travel with the error to [`finish`], which logs them once.

use std::{borrow::Cow, sync::Arc};

use async_graphql::{ErrorExtensionValues, Pos, ServerError, Value};
use kernel::{
    id::RequestId,
    idempotency::Failed,
    problem::{self, FieldError, Problem},
};

use crate::limits::{ECHO_CHARACTERS_MAX, ERRORS_MAX, MESSAGE_CHARACTERS_MAX};

mod problems {
    kernel::problem_types! {
        INVALID_QUERY, 400, "invalid_query", "The GraphQL request can't be executed.",
            "The document does not parse, does not fit the schema, or its variables do not. `message` and `locations` say what and where. Nothing was executed.";
        QUERY_TOO_COSTLY, 400, "query_too_costly", "The GraphQL request asks for too much at once.",
            "`extensions` gives its `cost` and the `limit`. Ask for fewer rows by `first`, for fewer fields, or in several requests. Nothing was executed.";
        QUERY_TOO_DEEP, 400, "query_too_deep", "The GraphQL request is nested too deep.",
            "`extensions` gives its `depth` and the `limit`. Ask for what lies deeper in a request of its own. Nothing was executed.";
        ANSWER_TOO_LARGE, 400, "answer_too_large", "The answer is too large.",
            "`detail` names the limit. Ask for fewer rows by `first`, for fewer fields, and for long texts once. Mutations may have been executed: sent again with their keys, they give their answers.";
    }
}

pub(crate) use problems::{ANSWER_TOO_LARGE, INVALID_QUERY, QUERY_TOO_COSTLY, QUERY_TOO_DEEP};

/// The problem types of GraphQL itself, for docs/errors.md.
pub use problems::ALL as PROBLEM_TYPES;

/// A resolver's failure.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    problem: Arc<Problem>,
    /// Whether it is the kept refusal of an earlier call.
    replayed: bool,
}

/// What a field that may fail returns: its failure makes the field null and no more. A bare `Result` would take its parent with it, and with that the
/// answers of mutations that have been committed beside it.
pub(crate) type Nullable<T> = Option<Result<T, Fault>>;

impl<E: Into<Problem>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self {
            problem: Arc::new(error.into()),
            replayed: false,
        }
    }
}

impl Fault {
    /// The failure of an operation that ran under a key.
    pub(crate) fn of_operation<E: Into<Problem>>(failed: Failed<E>) -> Self {
        Self {
            problem: Arc::new(failed.error.into()),
            replayed: failed.replayed,
        }
    }
}

impl From<Fault> for async_graphql::Error {
    fn from(fault: Fault) -> Self {
        let mut extensions = extensions(&fault.problem);
        if fault.replayed {
            extensions.set("replayed", true);
        }
        Self {
            message: fault.problem.detail.clone(),
            source: Some(fault.problem),
            extensions: Some(extensions),
        }
    }
}

/// The error of a request that is not executed.
pub(crate) fn request_error(problem: Problem, further: &[(&str, u64)]) -> ServerError {
    let mut extensions = extensions(&problem);
    for &(name, value) in further {
        extensions.set(name, value);
    }
    let mut error = ServerError::new(problem.detail.clone(), None::<Pos>);
    error.extensions = Some(extensions);
    error.source = Some(Arc::new(problem));
    error
}

fn extensions(problem: &Problem) -> ErrorExtensionValues {
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", problem.kind.slug);
    extensions.set("status", problem.kind.status);
    if !problem.errors.is_empty() {
        extensions.set(
            "errors",
            Value::List(problem.errors.iter().map(field_error).collect()),
        );
    }
    if let Some(scope) = problem.required_scope {
        extensions.set("requiredScope", scope.name());
    }
    if let Some(after) = problem.retry_after {
        extensions.set("retryAfterSeconds", after.as_secs().max(1));
    }
    extensions
}

fn field_error(error: &FieldError) -> Value {
    let json = serde_json::to_value(error).unwrap_or_default();
    Value::from_json(json).unwrap_or_default()
}

/// The beginning of what a client has sent, as far as an error repeats it.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    beginning(text, ECHO_CHARACTERS_MAX)
}

fn beginning(text: &str, characters: usize) -> Cow<'_, str> {
    match text.char_indices().nth(characters) {
        Some((end, _)) => Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

/// Gives every error its code, status and request id, and logs causes of ours. What the engine itself finds has no code yet: without a
/// path it is about the document, with one it is about an argument.
pub(crate) fn finish(errors: &mut Vec<ServerError>, request: RequestId) {
    errors.truncate(ERRORS_MAX);
    let mut logged: Vec<*const Problem> = Vec::new();
    for error in errors {
        if let Some(problem) = error
            .source
            .as_ref()
            .and_then(|source| source.downcast_ref::<Problem>())
            && problem.kind.status >= 500
            && !logged.contains(&std::ptr::from_ref(problem))
        {
            // A batch of a loader fails for many fields at once: one cause, one line.
            logged.push(problem);
            log(problem, request);
        }
        // The engine's own messages repeat names and values in full.
        if let Cow::Owned(message) = beginning(&error.message, MESSAGE_CHARACTERS_MAX) {
            error.message = message;
        }
        let kind = if error.path.is_empty() {
            &INVALID_QUERY
        } else {
            &problem::INVALID_FIELDS
        };
        let extensions = error.extensions.get_or_insert_default();
        if extensions.get("code").is_none() {
            extensions.set("code", kind.slug);
            extensions.set("status", kind.status);
        }
        extensions.set("requestId", request.to_string());
    }
}

fn log(problem: &Problem, request: RequestId) {
    let mut cause = String::new();
    let mut next = std::error::Error::source(problem);
    while let Some(error) = next {
        cause.push_str(if cause.is_empty() { "" } else { ": " });
        cause.push_str(&error.to_string());
        next = error.source();
    }
    tracing::error!(request.id = %request, problem.slug = problem.kind.slug, problem.cause = cause, "a GraphQL field failed");
}
