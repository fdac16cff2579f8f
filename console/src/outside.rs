//! What goes wrong outside of the pages and is shown to people all the same: the database away before a page is reached, a handler that panics, and an
//! authorization request whose client or redirect URI is wrong, which must not be redirected anywhere.

use std::sync::Arc;

use auth::Issuer;
use axum::{
    extract::{Request, State},
    http::Uri,
    middleware::Next,
    response::Response,
};
use kernel::problem::Problem;

use crate::{failure, security::harden};

/// Shows problems as pages where people look: a layer for the gateway to put around everything.
pub async fn problems_as_pages(
    State(issuer): State<Issuer>,
    request: Request,
    next: Next,
) -> Response {
    let is_page = is_for_people(request.uri());
    let response = next.run(request).await;
    if !is_page {
        return response;
    }
    let is_shown = response
        .headers()
        .contains_key(axum::http::header::CONTENT_TYPE);
    let problem = response.extensions().get::<Arc<Problem>>().cloned();
    match problem {
        Some(problem) if !is_shown => {
            let mut response = failure::of_problem(problem);
            harden(&mut response, issuer.as_str().starts_with("https:"));
            response
        }
        _ => response,
    }
}

fn is_for_people(uri: &Uri) -> bool {
    uri.path() == "/console"
        || uri.path().starts_with("/console/")
        || uri.path() == "/oauth/authorize"
}
