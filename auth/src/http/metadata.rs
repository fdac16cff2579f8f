//! What this authorization server can do (RFC 8414): no more than is on.

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use kernel::scope::Scope;
use serde::Serialize;
use utoipa::ToSchema;

use super::client_authentication;
use crate::{client::key::KeyAlgorithm, grant::client_credentials};

/// For how long the metadata may be kept.
const CACHE_CONTROL: &str = "public, max-age=3600";

/// Authorization server metadata (RFC 8414, section 2).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "issuer": "https://stoa.example",
    "token_endpoint": "https://stoa.example/oauth/token",
    "jwks_uri": "https://stoa.example/.well-known/jwks.json",
    "scopes_supported": ["catalog:read", "catalog:write", "orders:read"],
    "response_types_supported": [],
    "grant_types_supported": ["client_credentials"],
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
    "token_endpoint_auth_signing_alg_values_supported": ["ES256", "EdDSA", "PS256", "RS256"]
}))]
pub(super) struct Metadata {
    /// The issuer, as tokens name it in `iss`.
    issuer: String,
    /// Where tokens are issued.
    token_endpoint: String,
    /// Where the signing keys are.
    jwks_uri: String,
    /// Every scope there is.
    scopes_supported: Vec<&'static str>,
    /// Empty: there is no authorization endpoint. The field itself is required.
    response_types_supported: Vec<&'static str>,
    /// What `grant_type` may be.
    grant_types_supported: Vec<&'static str>,
    /// How a client may prove itself.
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    /// How a client may sign an assertion.
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
}

/// Read the authorization server's metadata
///
/// Where tokens and keys are found and what is supported, as RFC 8414 describes it.
#[utoipa::path(
    get,
    path = "/.well-known/oauth-authorization-server",
    operation_id = "readAuthorizationServerMetadata",
    tag = "OAuth",
    security(()),
    responses((status = 200, description = "The metadata.", body = Metadata))
)]
pub(super) async fn read(State(state): State<super::State>) -> Response {
    let issuer = &state.issuer;
    let metadata = Metadata {
        issuer: issuer.to_string(),
        token_endpoint: format!("{issuer}/oauth/token"),
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        scopes_supported: Scope::ALL.iter().map(|scope| scope.name()).collect(),
        response_types_supported: Vec::new(),
        grant_types_supported: vec![client_credentials::GRANT_TYPE],
        token_endpoint_auth_methods_supported: client_authentication::METHODS.to_vec(),
        token_endpoint_auth_signing_alg_values_supported: KeyAlgorithm::ALL
            .iter()
            .map(|algorithm| algorithm.name())
            .collect(),
    };
    ([(header::CACHE_CONTROL, CACHE_CONTROL)], Json(metadata)).into_response()
}
