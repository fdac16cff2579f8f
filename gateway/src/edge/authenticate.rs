//! Bearer tokens (RFC 6750): a request under `/v1` or `/graphql` acts for whoever its token names.

use std::sync::Arc;

use auth::bearer::{self, Bearer};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use kernel::{
    actor::Actor,
    id::RequestId,
    problem::{self, Problem},
};

use webhooks::follow::Standing;

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

/// A request's token, to be asked about again: by what goes on for longer than a grant may take to end.
#[derive(Debug, Clone)]
pub(crate) struct Pass {
    bearer: Arc<Bearer>,
    token: Arc<str>,
    request: RequestId,
}

impl Standing for Pass {
    fn check(&self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async {
            let verified = self.bearer.verify(&self.token, self.request).await;
            verified.map(drop).map_err(Problem::from)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Pass {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let pass = parts.extensions.get::<Self>().cloned();
        pass.ok_or_else(unauthenticated)
    }
}

/// Verifies the token and hands the actor on; without one nothing below is reached.
pub(crate) async fn authenticate(
    State(bearer): State<Arc<Bearer>>,
    mut request: Request,
    next: Next,
) -> Response {
    let token = bearer::token_of(request.headers()).map(Arc::from);
    let id = request.extensions().get::<RequestId>().copied();
    let mut response = match verify(&bearer, token, id).await {
        Ok((actor, pass)) => {
            request.extensions_mut().insert(actor);
            request.extensions_mut().insert(pass);
            next.run(request).await
        }
        Err(fault) => fault.into_response(),
    };
    // What is refused for its token names where tokens are to be had.
    response.extensions_mut().insert(bearer.resource_metadata());
    response
}

async fn verify(
    bearer: &Arc<Bearer>,
    token: Result<Arc<str>, auth::TokenFault>,
    id: Option<RequestId>,
) -> Result<(Actor, Pass), Fault> {
    let pass = Pass {
        bearer: Arc::clone(bearer),
        token: token.map_err(auth::Error::from)?,
        request: id.ok_or_else(unauthenticated)?,
    };
    let actor = bearer.verify(&pass.token, pass.request).await?;
    Ok((actor, pass))
}

/// A route outside of [`authenticate`] asked for an actor: a fault of ours, which shows as a refusal.
fn unauthenticated() -> Fault {
    Fault(Problem::new(
        &problem::INVALID_TOKEN,
        "This request is not authenticated.",
    ))
}
