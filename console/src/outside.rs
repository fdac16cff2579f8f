//! What goes wrong outside of the pages and is shown to people all the same: the database away before a page is reached, a handler that panics, and an
//! authorization request whose client or redirect URI is wrong, which must not be redirected anywhere.

use std::sync::Arc;

use auth::{Issuer, http::authorize::Unredirectable};
use axum::{
    extract::{Request, State},
    http::{Uri, header},
    middleware::Next,
    response::Response,
};
use kernel::problem::Problem;

use crate::{
    failure::{self, Words},
    security::harden,
};

/// Shows problems as pages where people look: a layer for the gateway to put around everything.
pub async fn problems_as_pages(
    State(issuer): State<Issuer>,
    request: Request,
    next: Next,
) -> Response {
    let is_for_people = is_for_people(request.uri());
    let answer = next.run(request).await;
    if !is_for_people {
        return answer;
    }
    let Some(mut page) = page_of(&answer) else {
        return answer;
    };
    if let Some(after) = answer.headers().get(header::RETRY_AFTER) {
        page.headers_mut()
            .insert(header::RETRY_AFTER, after.clone());
    }
    harden(&mut page, issuer.as_str().starts_with("https:"));
    page
}

/// The page in place of an answer that is none.
fn page_of(answer: &Response) -> Option<Response> {
    if let Some(Unredirectable { reason }) = answer.extensions().get() {
        return Some(Words::unredirectable(answer.status(), reason).answer());
    }
    let problem = answer.extensions().get::<Arc<Problem>>()?;
    let is_shown = answer.headers().contains_key(header::CONTENT_TYPE);
    (!is_shown).then(|| failure::of_problem(Arc::clone(problem)))
}

fn is_for_people(uri: &Uri) -> bool {
    uri.path() == "/console"
        || uri.path().starts_with("/console/")
        || uri.path() == "/oauth/authorize"
}
