//! What the API is as a protected resource (RFC 9728): who issues tokens for it, and how they are shown.
//!
//! Every merchant's part of the API is a resource of its own, for tokens are for one merchant; the installation as a whole has the same document, for
//! clients that know no merchant yet.

use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use kernel::{id::MerchantId, scope::Scope};
use serde::Serialize;
use utoipa::ToSchema;

/// For how long the metadata may be kept.
const CACHE_CONTROL: &str = "public, max-age=3600";

/// Protected resource metadata (RFC 9728, section 2).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "resource": "https://stoa.example/merchants/mer_01jd3x5k8vfm7b2c9q0r4t6w8y",
    "authorization_servers": ["https://stoa.example"],
    "jwks_uri": "https://stoa.example/.well-known/jwks.json",
    "scopes_supported": ["catalog:read", "catalog:write", "orders:read"],
    "bearer_methods_supported": ["header"],
    "resource_name": "Stoa"
}))]
pub(super) struct ProtectedResource {
    /// The resource, as tokens name it in `aud`.
    resource: String,
    /// Who issues tokens for it.
    authorization_servers: Vec<String>,
    /// Under which keys they are signed.
    jwks_uri: String,
    /// Every scope there is.
    scopes_supported: Vec<&'static str>,
    /// How a token is shown: in the header `Authorization` alone.
    bearer_methods_supported: Vec<&'static str>,
    /// What it is called.
    resource_name: &'static str,
}

/// Read the API's metadata
///
/// Who issues tokens for this API and how they are shown, as RFC 9728 describes it.
#[utoipa::path(
    get,
    path = "/.well-known/oauth-protected-resource",
    operation_id = "readProtectedResourceMetadata",
    tag = "OAuth",
    security(()),
    responses((status = 200, description = "The metadata.", body = ProtectedResource))
)]
pub(super) async fn read(State(state): State<super::State>) -> Response {
    let resource = state.issuer.to_string();
    metadata(&state, resource)
}

/// Read the metadata of a merchant's part of the API
///
/// The same for one merchant as the resource. Whether there is such a merchant is not told.
#[utoipa::path(
    get,
    path = "/.well-known/oauth-protected-resource/merchants/{merchantId}",
    operation_id = "readMerchantResourceMetadata",
    tag = "OAuth",
    security(()),
    params(("merchantId" = MerchantId, Path, description = "The merchant's id.")),
    responses(
        (status = 200, description = "The metadata.", body = ProtectedResource),
        (status = 404, description = "This is no id of a merchant."),
    )
)]
pub(super) async fn read_merchant(
    State(state): State<super::State>,
    Path(merchant): Path<String>,
) -> Response {
    match merchant.parse() {
        Ok(merchant) => metadata(&state, state.issuer.resource(merchant)),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn metadata(state: &super::State, resource: String) -> Response {
    let issuer = &state.issuer;
    let metadata = ProtectedResource {
        resource,
        authorization_servers: vec![issuer.to_string()],
        jwks_uri: format!("{issuer}/.well-known/jwks.json"),
        scopes_supported: Scope::ALL.iter().map(|scope| scope.name()).collect(),
        bearer_methods_supported: vec!["header"],
        resource_name: "Stoa",
    };
    ([(header::CACHE_CONTROL, CACHE_CONTROL)], Json(metadata)).into_response()
}
