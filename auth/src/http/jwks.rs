//! The public signing keys (RFC 7517), for whoever verifies tokens without asking us.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

/// For how long the set may be kept. A key must have been published this long before it signs.
const CACHE_CONTROL: &str = "public, max-age=300";

/// A JWK set (RFC 7517, section 5).
#[derive(utoipa::ToSchema)]
#[schema(example = json!({"keys": [{
    "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig",
    "kid": "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
}]}))]
#[allow(
    dead_code,
    reason = "describes the document, which is rendered when keys are loaded"
)]
pub(super) struct JwkSet {
    /// The keys that verify tokens.
    #[schema(value_type = Vec<Object>)]
    keys: Vec<serde_json::Value>,
}

/// Read the public signing keys
///
/// The keys under which access tokens are signed, as a JWK set (RFC 7517). A token's header names its key in `kid`, the key's thumbprint (RFC
/// 7638).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    operation_id = "readSigningKeys",
    tag = "OAuth",
    security(()),
    responses((status = 200, description = "The keys.", body = JwkSet, content_type = "application/jwk-set+json",
        headers(("Cache-Control" = String, description = "The set may be kept for five minutes."))))
)]
pub(super) async fn read(State(state): State<super::State>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        (header::CACHE_CONTROL, CACHE_CONTROL),
    ];
    (headers, state.keys.document()).into_response()
}
