//! The outermost layer: the request's id, one log line, and the last word on problems.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use kernel::{
    clock::Clock,
    id::RequestId,
    problem::{self, Problem},
    trace::{self, Carried, TraceParent},
};
use tracing::{Instrument, Span, field::Empty};

use super::{
    caller::{TrustedProxies, caller_of},
    fault::{self, Fault},
};

/// The header that names a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The API version that this binary speaks.
pub(crate) const API_VERSION: &str = "2026-11-01";

/// The header by which a client asks for an API version, and an answer names its own.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("stoa-version");

/// What the layer works with.
#[derive(Debug, Clone)]
pub(crate) struct Observing {
    /// The clock.
    pub(crate) clock: Clock,
    /// The proxies whose word on the client's address counts.
    pub(crate) proxies: TrustedProxies,
}

/// Gives the request an id and its [caller](kernel::caller::Caller), runs it, renders its problem if it has one, and logs it once.
pub(crate) async fn observe(
    State(Observing { clock, proxies }): State<Observing>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = clock.now();
    let id = RequestId::new(started);
    let caller = caller_of(&request, id, proxies);
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(caller);
    let method = request.method().clone();
    let authorization = request.headers().get(header::AUTHORIZATION).cloned();
    let headers: HeaderMap = authorization
        .map(|value| (header::AUTHORIZATION, value))
        .into_iter()
        .collect();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let (span, carried) = span_of(&request, id, route.as_deref());
    // For as long as the request is answered; who works on it for longer takes it along.
    let carried = carried.map(Arc::new);
    if let Some(carried) = &carried {
        request.extensions_mut().insert(Arc::clone(carried));
    }
    let response = match wrong_version(&request) {
        Some(fault) => fault.into_response(),
        None => next.run(request).instrument(span.clone()).await,
    };
    drop(carried);
    let mut response = fault::render(as_problem(response), id, &headers);
    let _entered = span.enter();
    let status = response.status().as_u16();
    if trace::is_on() {
        span.record("http.response.status_code", status);
    }
    let route = route.as_deref().unwrap_or("-");
    let duration_ms = clock.now().since(started).as_millis();
    match response.extensions().get::<Arc<Problem>>() {
        Some(problem) if status >= 500 => {
            let cause = problem.source.as_deref().map(chain).unwrap_or_default();
            tracing::error!(http.method = %method, http.route = route, http.status = status, duration_ms, problem = problem.kind.slug, cause, "request failed");
        }
        Some(problem) => {
            tracing::info!(http.method = %method, http.route = route, http.status = status, duration_ms, problem = problem.kind.slug, "request refused");
        }
        None => {
            tracing::debug!(http.method = %method, http.route = route, http.status = status, duration_ms, "request");
        }
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(VERSION, HeaderValue::from_static(API_VERSION));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// The span of a request. Where traces are exported, it joins the one that the client names, and what the request causes goes on in it.
fn span_of(request: &Request, id: RequestId, route: Option<&str>) -> (Span, Option<Carried>) {
    if !trace::is_on() {
        return (tracing::info_span!("request", request.id = %id), None);
    }
    let name = format!("{} {}", request.method(), route.unwrap_or("-"));
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        otel.name = name,
        otel.kind = "server",
        http.response.status_code = Empty,
    );
    let parent = request.headers().get(trace::HEADER);
    if let Some(parent) = parent.and_then(|value| value.to_str().ok()?.parse::<TraceParent>().ok())
    {
        parent.adopt(&span);
    }
    let carried = TraceParent::of(&span).map(|own| trace::carry(id, own));
    (span, carried)
}

fn wrong_version(request: &Request) -> Option<Fault> {
    let asked = request.headers().get(VERSION)?;
    (asked != API_VERSION).then(|| {
        Fault(Problem::new(
            &problem::MALFORMED_REQUEST,
            format!("There is no API version {asked:?}; this is {API_VERSION}."),
        ))
    })
}

/// Answers that the router gives by itself become problems too.
fn as_problem(response: Response) -> Response {
    if response.extensions().get::<Arc<Problem>>().is_some()
        || response.headers().contains_key(header::CONTENT_TYPE)
    {
        return response;
    }
    let problem = match response.status() {
        StatusCode::NOT_FOUND => Problem::new(&problem::NOT_FOUND, "There is no such path."),
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            &problem::METHOD_NOT_ALLOWED,
            "This resource does not know that method.",
        ),
        _ => return response,
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut response = Fault(problem).into_response();
    if let Some(allow) = allow {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// An error and its causes, one after another.
fn chain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
