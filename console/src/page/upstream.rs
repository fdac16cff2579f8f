//! To the upstream provider and back.

use auth::account::upstream::{CALLBACK_PATH, Purpose, UpstreamOutcome};
use axum::{
    Extension, Router,
    extract::{Query, State},
    http::HeaderMap,
    response::Response,
    routing::get,
};
use kernel::caller::Caller;
use serde::Deserialize;

use crate::{
    Console,
    ceremony::{self, Kind},
    failure::Failure,
    session::{begin, see_other},
};

/// Nobody else's page sends people to the provider: where the browser says whose link it was, it must be ours.
pub(crate) fn require_own_link(headers: &HeaderMap) -> Result<(), Failure> {
    let own = headers
        .get("sec-fetch-site")
        .is_none_or(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    if own {
        Ok(())
    } else {
        Err(Failure::ForeignForm)
    }
}

/// Sends the browser to the provider.
pub(crate) async fn set_out(
    console: &Console,
    purpose: Purpose<'_>,
    next: &str,
) -> Result<Response, Failure> {
    if console.accounts.upstream_name().is_none() {
        return Err(Failure::NoPage);
    }
    let (ceremony, url) = console.accounts.begin_upstream(purpose).await?;
    let mut response = see_other(url.as_str());
    ceremony::keep(console, &mut response, Kind::Upstream, &ceremony, next);
    Ok(response)
}

/// What the provider sends.
#[derive(Debug, Deserialize)]
struct Callback {
    #[serde(default)]
    code: String,
    #[serde(default)]
    state: String,
    iss: Option<String>,
}

/// The routes.
pub(crate) fn routes() -> Router<Console> {
    Router::new().route(CALLBACK_PATH, get(finish))
}

async fn finish(
    State(console): State<Console>,
    Extension(caller): Extension<Caller>,
    Query(callback): Query<Callback>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Some(begun) = ceremony::read(&console, &headers, Kind::Upstream) else {
        return Ok(see_other("/console/sign-in"));
    };
    if callback.code.is_empty() {
        // Refused or broken off over there: nothing has happened.
        return Ok(see_other(&begun.next));
    }
    let outcome = console
        .accounts
        .finish_upstream(
            &caller,
            &begun.token,
            &callback.code,
            &callback.state,
            callback.iss.as_deref(),
        )
        .await?;
    Ok(match outcome {
        UpstreamOutcome::SignedIn(session)
        | UpstreamOutcome::Accepted(session)
        | UpstreamOutcome::SteppedUp(session) => begin(&console, &session, &begun.next),
        UpstreamOutcome::Linked => see_other(&begun.next),
    })
}
