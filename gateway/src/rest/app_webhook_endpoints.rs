//! `/v1/app-webhook-endpoints`: endpoints that an app has for all of its installs.

use axum::{Extension, Json, extract::State};
use kernel::{caller::Caller, page::Page};
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::{
    app_endpoint::{
        self, AppEndpoint, AppEndpointChange, AppEndpointId, AppEndpointInput, CreatedAppEndpoint,
        Deleted, Rotated,
    },
    endpoint::key::{EndpointKeys, Rotation},
};

use super::{
    Services,
    parameters::{KeyHeader, OptionalKeyHeader, PageParameters, VersionHeader},
};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, IfMatch, Listed, Mutated, Paging, PathId, Resource,
    Versioned,
    answer::Done,
    extract::NoFilters,
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(
            list_app_webhook_endpoints,
            create_app_webhook_endpoint
        ))
        .routes(routes!(
            get_app_webhook_endpoint,
            update_app_webhook_endpoint,
            delete_app_webhook_endpoint
        ))
        .routes(routes!(list_app_webhook_endpoint_keys))
        .routes(routes!(rotate_app_webhook_endpoint_keys))
}

impl Versioned for AppEndpoint {
    fn version(&self) -> i64 {
        self.version
    }
}

impl Versioned for CreatedAppEndpoint {
    fn version(&self) -> i64 {
        self.endpoint.version
    }
}

/// List the app's webhook endpoints
///
/// Those that the token's app has for all of its installs, whichever merchant the token is of.
#[utoipa::path(
    get, path = "/v1/app-webhook-endpoints", operation_id = "listAppWebhookEndpoints", tag = "App webhook endpoints",
    params(PageParameters),
    responses((status = 200, description = "A page of endpoints.", body = Page<AppEndpoint>)),
    security(("oauth" = ["apps:admin"])),
)]
async fn list_app_webhook_endpoints(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging {
        page,
        filters: NoFilters {},
    }: Paging<AppEndpointId, NoFilters>,
) -> Result<Listed<AppEndpoint>, Fault> {
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(app_endpoint::list(&mut tx, &actor, &page).await?))
}

/// Create a webhook endpoint for all installs of the app
///
/// Each merchant that has granted the app something, now or later, gets an endpoint of its own from it: with its own stream, sent what that grant lets
/// the app see, signed by the same secret. The secret is in this answer and in no other: a retry under the same key gives `secret: null`.
#[utoipa::path(
    post, path = "/v1/app-webhook-endpoints", operation_id = "createAppWebhookEndpoint", tag = "App webhook endpoints",
    params(KeyHeader),
    request_body(content = AppEndpointInput, example = json!({
        "url": "https://logistics.example.com/stoa-webhooks", "description": "Shipments, production", "eventTypes": ["fulfillment.*"],
        "settings": {"signature": {"schemes": ["v1", "v1a"]}},
    })),
    responses((status = 201, description = "The endpoint, and its secret.", body = CreatedAppEndpoint)),
    extensions(("x-problem-types" = json!(["too_many_endpoints"]))),
    security(("oauth" = ["apps:admin"])),
)]
async fn create_app_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    key: IdempotencyKey,
    Body(input): Body<AppEndpointInput>,
) -> Result<Mutated<CreatedAppEndpoint>, FaultOfOperation> {
    let create = app_endpoint::Create {
        input,
        setting: services.endpoint_setting(),
    };
    Ok(Mutated::created(
        services.once(&actor, &key, &create).await?.answer,
    ))
}

/// Get a webhook endpoint of the app
#[utoipa::path(
    get, path = "/v1/app-webhook-endpoints/{appEndpointId}", operation_id = "getAppWebhookEndpoint", tag = "App webhook endpoints",
    params(("appEndpointId" = AppEndpointId, Path, description = "The app's endpoint.")),
    responses((status = 200, description = "The endpoint.", body = AppEndpoint)),
    security(("oauth" = ["apps:admin"])),
)]
async fn get_app_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<AppEndpoint>,
) -> Result<Resource<AppEndpoint>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(Resource(app_endpoint::get(&mut tx, &actor, id).await?))
}

/// Change a webhook endpoint of the app
///
/// What is left out stays as it is; a group of `settings` that is given replaces the whole group. Each merchant's part follows within seconds.
#[utoipa::path(
    patch, path = "/v1/app-webhook-endpoints/{appEndpointId}", operation_id = "updateAppWebhookEndpoint", tag = "App webhook endpoints",
    params(("appEndpointId" = AppEndpointId, Path, description = "The app's endpoint."), KeyHeader, VersionHeader),
    request_body(content = AppEndpointChange, example = json!({"eventTypes": ["fulfillment.*", "order.cancelled"]})),
    responses((status = 200, description = "The endpoint.", body = AppEndpoint)),
    security(("oauth" = ["apps:admin"])),
)]
async fn update_app_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<AppEndpoint>,
    key: IdempotencyKey,
    IfMatch(version): IfMatch,
    Body(change): Body<AppEndpointChange>,
) -> Result<Mutated<AppEndpoint>, FaultOfOperation> {
    let update = app_endpoint::Update {
        input: app_endpoint::UpdateInput {
            id,
            version: version.map(i64::from),
            change,
        },
        setting: services.endpoint_setting(),
    };
    services.once(&actor, &key, &update).await
}

/// Delete a webhook endpoint of the app
///
/// Each merchant's part goes with it within seconds: with its queue, its dead letters and its keys.
#[utoipa::path(
    delete, path = "/v1/app-webhook-endpoints/{appEndpointId}", operation_id = "deleteAppWebhookEndpoint", tag = "App webhook endpoints",
    params(("appEndpointId" = AppEndpointId, Path, description = "The app's endpoint."), OptionalKeyHeader, VersionHeader),
    responses((status = 200, description = "The id of what was deleted.", body = Deleted)),
    security(("oauth" = ["apps:admin"])),
)]
async fn delete_app_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<AppEndpoint>,
    key: Option<IdempotencyKey>,
    IfMatch(version): IfMatch,
) -> Result<Done<Deleted>, FaultOfOperation> {
    let key = key.map_or_else(|| IdempotencyKey::of_request(&actor), Ok)?;
    let delete = app_endpoint::Delete {
        input: app_endpoint::DeleteInput {
            id,
            version: version.map(i64::from),
        },
    };
    Ok(services.once(&actor, &key, &delete).await?.into())
}

/// List the keys of an app's webhook endpoint
///
/// The same for all merchants, without their secrets. The public ones of `v1a` are at `/webhook-keys/{endpointId}` of each merchant's part too.
#[utoipa::path(
    get, path = "/v1/app-webhook-endpoints/{appEndpointId}/keys", operation_id = "listAppWebhookEndpointKeys", tag = "App webhook endpoints",
    params(("appEndpointId" = AppEndpointId, Path, description = "The app's endpoint.")),
    responses((status = 200, description = "The living keys, the newest first.", body = EndpointKeys)),
    security(("oauth" = ["apps:admin"])),
)]
async fn list_app_webhook_endpoint_keys(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<AppEndpoint>,
) -> Result<Json<EndpointKeys>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    let now = services.clock.now();
    Ok(Json(app_endpoint::keys(&mut tx, &actor, id, now).await?))
}

/// Rotate the keys of an app's webhook endpoint
///
/// Makes a new key for each scheme, with which all merchants' deliveries are signed within seconds; the older ones sign beside it until their end. The new
/// secret is in this answer and in no other: a retry under the same key gives `secret: null`.
#[utoipa::path(
    post, path = "/v1/app-webhook-endpoints/{appEndpointId}/rotate-keys", operation_id = "rotateAppWebhookEndpointKeys", tag = "App webhook endpoints",
    params(("appEndpointId" = AppEndpointId, Path, description = "The app's endpoint."), KeyHeader),
    request_body(content = Rotation, example = json!({"schemes": ["v1"], "overlapSeconds": 86_400})),
    responses((status = 200, description = "The new secret, and all living keys.", body = Rotated)),
    extensions(("x-problem-types" = json!(["too_many_keys"]))),
    security(("oauth" = ["apps:admin"])),
)]
async fn rotate_app_webhook_endpoint_keys(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Extension(caller): Extension<Caller>,
    PathId(id): PathId<AppEndpoint>,
    key: IdempotencyKey,
    Body(rotation): Body<Rotation>,
) -> Result<Done<Rotated>, FaultOfOperation> {
    let rotate = app_endpoint::Rotate {
        input: app_endpoint::RotateInput { id, rotation },
        keyring: services.keyring.clone(),
        caller,
    };
    Ok(services.once(&actor, &key, &rotate).await?.into())
}
