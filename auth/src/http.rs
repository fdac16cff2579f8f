//! The authorization server's endpoints: `/oauth/token`, the metadata and the key set. They keep the names that their RFCs give them.

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use kernel::{clock::Clock, db::Database};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Issuer, SigningKeys,
    client::{limiter::Limiter, token_error::TokenErrors},
};

mod client_authentication;
mod form;
mod jwks;
mod metadata;
mod token;

/// Bytes of a token request; an honest one has some three hundred.
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

/// The endpoints with their description, for the gateway to merge.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(token::issue))
        .layer(DefaultBodyLimit::max(BODY_LENGTH_MAX))
        .routes(routes!(jwks::read))
        .routes(routes!(metadata::read))
}

/// The endpoints at work.
pub fn router(state: State) -> axum::Router {
    routes().with_state(state).split_for_parts().0
}
