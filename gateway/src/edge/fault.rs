//! Problems on their way out: `application/problem+json` (RFC 9457).

use std::sync::Arc;

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kernel::{
    id::RequestId,
    problem::{FieldError, Problem},
};
use serde::Serialize;

/// A problem's `type`: this and its slug, which docs/errors.md describes.
pub(crate) const TYPE_BASE: &str = "urn:stoa:problem:";

/// A handler's failure: a [`Problem`] that the way out renders.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) Problem);

impl<E: Into<Problem>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Fault {
    /// The failure of an operation that ran under a key.
    pub(crate) fn of_operation<E: Into<Problem>>(
        failed: kernel::idempotency::Failed<E>,
    ) -> FaultOfOperation {
        FaultOfOperation {
            fault: Self(failed.error.into()),
            replayed: failed.replayed,
        }
    }
}

/// A [`Fault`], and whether it is the kept refusal of an earlier request.
#[derive(Debug)]
pub(crate) struct FaultOfOperation {
    fault: Fault,
    replayed: bool,
}

impl<E: Into<Problem>> From<E> for FaultOfOperation {
    fn from(error: E) -> Self {
        Self {
            fault: Fault::from(error),
            replayed: false,
        }
    }
}

impl From<Fault> for FaultOfOperation {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            replayed: false,
        }
    }
}

impl IntoResponse for FaultOfOperation {
    fn into_response(self) -> Response {
        let mut response = self.fault.into_response();
        if self.replayed {
            response
                .headers_mut()
                .insert(super::answer::REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl IntoResponse for Fault {
    /// The body comes later, from [`render`]: only the way out knows the request's id.
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}

/// A problem as clients see it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'p> {
    /// The kind of problem: this and a slug that docs/errors.md describes.
    #[schema(example = "urn:stoa:problem:invalid_fields")]
    pub(crate) r#type: String,
    /// A short sentence that is the same each time.
    pub(crate) title: &'p str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// What happened this time.
    pub(crate) detail: &'p str,
    /// The request, as our logs know it.
    pub(crate) request_id: RequestId,
    /// Every field that is wrong.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    pub(crate) errors: &'p [FieldError],
}

/// Gives a response that carries a problem its body and headers. A page says in its own words what went wrong, and stays what it is.
pub(crate) fn render(
    response: Response,
    request: RequestId,
    request_headers: &HeaderMap,
) -> Response {
    let (parts, body) = response.into_parts();
    let is_page = parts
        .headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let Some(problem) = parts
        .extensions
        .get::<Arc<Problem>>()
        .filter(|_| !is_page)
        .cloned()
    else {
        return Response::from_parts(parts, body);
    };
    let json = ProblemBody {
        r#type: format!("{TYPE_BASE}{}", problem.kind.slug),
        title: problem.kind.title,
        status: problem.kind.status,
        detail: &problem.detail,
        request_id: request,
        errors: &problem.errors,
    };
    let mut response = (parts.status, Json(json)).into_response();
    let headers = response.headers_mut();
    headers.extend(parts.headers);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(after) = problem.retry_after {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(after.as_secs().max(1)),
        );
    }
    let metadata = parts.extensions.get::<auth::bearer::ResourceMetadata>();
    if let Some(challenge) = auth::bearer::challenge(request_headers, metadata, &problem) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    response.extensions_mut().insert(problem);
    response
}
