//! The keys that webhooks are signed with: listed and rotated by their endpoint's owner, and public for whoever verifies.

use axum::{
    Extension, Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use kernel::{caller::Caller, problem::Problem};
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::endpoint::{
    Endpoint, EndpointId,
    key::{self, EndpointKeys, KeySet, Rotate, RotateInput, Rotated, Rotation},
};

use super::{Services, parameters::KeyHeader};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, PathId,
    answer::Done,
    fault::{Fault, FaultOfOperation},
};

/// For how long a key set may be kept: a key that is replaced goes on for a day by default.
const CACHE_CONTROL: &str = "public, max-age=300";

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_webhook_endpoint_keys))
        .routes(routes!(rotate_webhook_endpoint_keys))
}

/// What needs no token.
pub(super) fn public_routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new().routes(routes!(read_webhook_keys))
}

/// List an endpoint's keys
///
/// The keys that its deliveries are signed with, without their secrets. More than one of a scheme while they are being rotated.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/keys", operation_id = "listWebhookEndpointKeys", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint.")),
    responses((status = 200, description = "The living keys, the newest first.", body = EndpointKeys)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn list_webhook_endpoint_keys(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
) -> Result<Json<EndpointKeys>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    let now = services.clock.now();
    Ok(Json(key::list(&mut tx, &actor, id, now).await?))
}

/// Rotate an endpoint's keys
///
/// Makes a new key for each scheme. The older ones sign beside it until their end, a day later unless you say otherwise: a receiver that knows either
/// accepts. The new secret is in this answer and in no other: a retry under the same key gives `secret: null`.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/rotate-keys", operation_id = "rotateWebhookEndpointKeys", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader),
    request_body(content = Rotation, example = json!({"schemes": ["v1"], "overlapSeconds": 86_400})),
    responses((status = 200, description = "The new secret, and all living keys.", body = Rotated)),
    extensions(("x-problem-types" = json!(["endpoint_of_app", "too_many_keys"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn rotate_webhook_endpoint_keys(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
    Body(rotation): Body<Rotation>,
) -> Result<Done<Rotated>, FaultOfOperation> {
    let rotate = Rotate {
        input: RotateInput { id, rotation },
        keyring: services.keyring.clone(),
        caller,
    };
    Ok(services.once(&actor, &key, &rotate).await?.into())
}

/// Read an endpoint's public keys
///
/// The Ed25519 keys that verify its `v1a` signatures, as a JWK set (RFC 7517, RFC 8037), for receivers; no token is needed. While a key is being
/// rotated there are two.
#[utoipa::path(
    get, path = "/webhook-keys/{endpointId}", operation_id = "readWebhookKeys", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint.")),
    responses((status = 200, description = "The living keys, the newest first.", body = KeySet, content_type = "application/jwk-set+json",
        headers(("Cache-Control" = String, description = "The set may be kept for five minutes.")))),
    extensions(("x-problem-types" = json!(["not_found", "unavailable", "internal_error"]))),
    security(()),
)]
async fn read_webhook_keys(
    State(services): State<Services>,
    PathId(id): PathId<Endpoint>,
) -> Result<Response, Fault> {
    let mut tx = services.database.begin().await?;
    let keys = key::public_keys(&mut tx, id, services.clock.now()).await?;
    let keys = keys.ok_or_else(|| Problem::not_found("public key of webhook endpoint", id))?;
    let headers = [
        (header::CONTENT_TYPE, "application/jwk-set+json"),
        (header::CACHE_CONTROL, CACHE_CONTROL),
    ];
    Ok((headers, Json(keys)).into_response())
}
