//! The authorization server's endpoints: a file for each, under the names that their RFCs give them.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use kernel::{clock::Clock, db::Database, problem::Problem};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Authorizations, Issuer, SigningKeys,
    client::{limiter::Limiter, token_error::TokenErrors},
    token::{access_token::Verifier, refusal::Refusal},
};

mod attempt;
pub mod authorize;
mod client_authentication;
mod form;
mod introspect;
mod jwks;
mod metadata;
mod protected_resource;
mod revoke;
mod token;

/// Bytes of a request; an honest one has some three hundred, or two thousand with an assertion.
const BODY_LENGTH_MAX: usize = 16_384;

/// The name of the client's HTTP Basic scheme among the OpenAPI document's security schemes.
pub const CLIENT_SECRET_BASIC: &str = "clientSecretBasic";

/// What the endpoints work with.
#[derive(Debug, Clone)]
pub struct State {
    /// Who issues the tokens.
    pub issuer: Issuer,
    /// What signs them.
    pub keys: Arc<SigningKeys>,
    /// A pool of the API role.
    pub database: Database,
    /// The present.
    pub clock: Clock,
    /// How often somebody may be wrong.
    pub limiter: Arc<Limiter>,
    /// What apps are refused, for their developers.
    pub errors: TokenErrors,
}

impl State {
    /// The authorization requests, as this process serves them.
    fn authorizations(&self) -> Authorizations {
        Authorizations::new(
            self.issuer.clone(),
            self.database.clone(),
            self.clock.clone(),
        )
    }

    /// What reads access tokens.
    fn verifier(&self) -> Verifier {
        Verifier::new(self.issuer.clone(), Arc::clone(&self.keys))
    }
}

/// The endpoints with their description, for the gateway to merge. Whoever serves them puts a [`Caller`](kernel::caller::Caller) into the extensions
/// of each request.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(authorize::by_query, authorize::by_form))
        .routes(routes!(token::issue))
        .routes(routes!(introspect::introspect))
        .routes(routes!(revoke::revoke))
        .layer(DefaultBodyLimit::max(BODY_LENGTH_MAX))
        .routes(routes!(jwks::read))
        .routes(routes!(metadata::read))
        .routes(routes!(protected_resource::read))
        .routes(routes!(protected_resource::read_merchant))
}

/// Whether `path` is one of the endpoints that answer clients of OAuth in the form of RFC 6749, section 5.2, whatever goes wrong.
pub fn is_for_clients(path: &str) -> bool {
    ["/oauth/token", "/oauth/introspect", "/oauth/revoke"].contains(&path)
}

/// The answer of those endpoints while the database is known to be away because of `cause`.
pub fn unavailable(
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> axum::response::Response {
    token::refused(Refusal::Unavailable(Box::new(Problem::unavailable(cause))))
}

/// The endpoints at work.
pub fn router(state: State) -> axum::Router {
    routes().with_state(state).split_for_parts().0
}
