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
use crate::{
    authorization::pkce,
    client::key::KeyAlgorithm,
    grant::{authorization_code, client_credentials, refresh_token},
};

/// For how long the metadata may be kept.
const CACHE_CONTROL: &str = "public, max-age=3600";

/// Authorization server metadata (RFC 8414, section 2).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "issuer": "https://stoa.example",
    "authorization_endpoint": "https://stoa.example/oauth/authorize",
    "token_endpoint": "https://stoa.example/oauth/token",
    "introspection_endpoint": "https://stoa.example/oauth/introspect",
    "revocation_endpoint": "https://stoa.example/oauth/revoke",
    "jwks_uri": "https://stoa.example/.well-known/jwks.json",
    "scopes_supported": ["catalog:read", "catalog:write", "orders:read"],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
    "code_challenge_methods_supported": ["S256"],
    "authorization_response_iss_parameter_supported": true,
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
    "token_endpoint_auth_signing_alg_values_supported": ["ES256", "EdDSA", "PS256", "RS256"],
    "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
    "introspection_endpoint_auth_signing_alg_values_supported": ["ES256", "EdDSA", "PS256", "RS256"],
    "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
    "revocation_endpoint_auth_signing_alg_values_supported": ["ES256", "EdDSA", "PS256", "RS256"]
}))]
pub(super) struct Metadata {
    /// The issuer, as tokens and answers name it in `iss`.
    issuer: String,
    /// Where merchants are asked.
    authorization_endpoint: String,
    /// Where tokens are issued.
    token_endpoint: String,
    /// Where tokens are looked at (RFC 7662).
    introspection_endpoint: String,
    /// Where tokens are given back (RFC 7009).
    revocation_endpoint: String,
    /// Where the signing keys are.
    jwks_uri: String,
    /// Every scope there is.
    scopes_supported: Vec<&'static str>,
    /// What `response_type` may be.
    response_types_supported: Vec<&'static str>,
    /// How the answer comes to the redirect URI.
    response_modes_supported: Vec<&'static str>,
    /// What `grant_type` may be.
    grant_types_supported: Vec<&'static str>,
    /// What `code_challenge_method` may be (RFC 7636).
    code_challenge_methods_supported: Vec<&'static str>,
    /// Every answer has `iss` (RFC 9207).
    authorization_response_iss_parameter_supported: bool,
    /// How a client may prove itself.
    token_endpoint_auth_methods_supported: Vec<&'static str>,
    /// How a client may sign its assertions.
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// How a client may prove itself where tokens are looked at: public clients can't.
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    /// The same as at the token endpoint.
    introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    /// The same as at the token endpoint.
    revocation_endpoint_auth_methods_supported: Vec<&'static str>,
    /// The same as at the token endpoint.
    revocation_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
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
    let methods = client_authentication::METHODS.to_vec();
    let algorithms: Vec<_> = KeyAlgorithm::ALL
        .iter()
        .map(|algorithm| algorithm.name())
        .collect();
    let metadata = Metadata {
        issuer: issuer.to_string(),
        authorization_endpoint: format!("{issuer}/oauth/authorize"),
        token_endpoint: format!("{issuer}/oauth/token"),
        introspection_endpoint: format!("{issuer}/oauth/introspect"),
        revocation_endpoint: format!("{issuer}/oauth/revoke"),
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        scopes_supported: Scope::ALL.iter().map(|scope| scope.name()).collect(),
        response_types_supported: vec!["code"],
        response_modes_supported: vec!["query"],
        grant_types_supported: vec![
            authorization_code::GRANT_TYPE,
            refresh_token::GRANT_TYPE,
            client_credentials::GRANT_TYPE,
        ],
        code_challenge_methods_supported: vec![pkce::METHOD],
        authorization_response_iss_parameter_supported: true,
        introspection_endpoint_auth_methods_supported: methods
            .iter()
            .copied()
            .filter(|&method| method != "none")
            .collect(),
        introspection_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
        revocation_endpoint_auth_methods_supported: methods.clone(),
        revocation_endpoint_auth_signing_alg_values_supported: algorithms.clone(),
        token_endpoint_auth_methods_supported: methods,
        token_endpoint_auth_signing_alg_values_supported: algorithms,
    };
    ([(header::CACHE_CONTROL, CACHE_CONTROL)], Json(metadata)).into_response()
}
