//! Bearer tokens (RFC 6750): a request under `/v1` or `/graphql` acts for whoever its token names.

use std::sync::Arc;

use auth::bearer::{self, Bearer};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};
use kernel::{
    actor::Actor,
    id::RequestId,
    problem::{self, Problem},
};

use super::Fault;

/// The actor of a request, made by [`authenticate`].
#[derive(Debug)]
pub(crate) struct Authenticated(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for Authenticated {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let actor = parts.extensions.get::<Actor>().cloned();
        actor.map(Self).ok_or_else(unauthenticated)
    }
}

/// Verifies the token and hands the actor on; without one nothing below is reached.
pub(crate) async fn authenticate(
    State(bearer): State<Arc<Bearer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = bearer::token_of(request.headers()).map(str::to_owned);
    let id = request.extensions().get::<RequestId>().copied();
    let mut response = match verify(&bearer, token, id).await {
        Ok(actor) => {
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        Err(fault) => fault.into_response(),
    };
    // What is refused for its token names where tokens are to be had.
    response.extensions_mut().insert(bearer.resource_metadata());
    response
}

async fn verify(
    bearer: &Bearer,
    token: Result<String, auth::TokenFault>,
    id: Option<RequestId>,
) -> Result<Actor, Fault> {
    let token = token.map_err(auth::Error::from)?;
    Ok(bearer
        .verify(&token, id.ok_or_else(unauthenticated)?)
        .await?)
}

/// A route outside of [`authenticate`] asked for an actor: a fault of ours, which shows as a refusal.
fn unauthenticated() -> Fault {
    Fault(Problem::new(
        &problem::INVALID_TOKEN,
        "This request is not authenticated.",
    ))
}
