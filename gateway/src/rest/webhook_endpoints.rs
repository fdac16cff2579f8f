//! `/v1/webhook-endpoints`: endpoints, their streams and their dead letters.

use axum::extract::State;
use kernel::page::Page;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::{
    dead_letter::{self, DeadLetter, DeadLetterId, Replayed},
    endpoint::{
        self, CreatedEndpoint, Deleted, Endpoint, EndpointChange, EndpointId, EndpointInput,
        health::{self, Health},
    },
    stream::{self, StreamPage, StreamRequest},
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
        .routes(routes!(list_webhook_endpoints, create_webhook_endpoint))
        .routes(routes!(
            get_webhook_endpoint,
            update_webhook_endpoint,
            delete_webhook_endpoint
        ))
        .routes(routes!(ping_webhook_endpoint))
        .routes(routes!(get_webhook_endpoint_health))
        .routes(routes!(list_webhook_endpoint_events))
        .routes(routes!(list_dead_letters))
        .routes(routes!(get_dead_letter))
        .routes(routes!(replay_dead_letter))
}

impl Versioned for Endpoint {
    fn version(&self) -> i64 {
        self.version
    }
}

impl Versioned for CreatedEndpoint {
    fn version(&self) -> i64 {
        self.endpoint.version
    }
}

impl Services {
    pub(super) fn endpoint_setting(&self) -> endpoint::Setting {
        endpoint::Setting {
            keyring: self.keyring.clone(),
            policy: self.address_policy,
            is_event_type: crate::openapi::is_event_type,
        }
    }
}

/// List webhook endpoints
#[utoipa::path(
    get, path = "/v1/webhook-endpoints", operation_id = "listWebhookEndpoints", tag = "Webhook endpoints",
    params(PageParameters),
    responses((status = 200, description = "A page of endpoints.", body = Page<Endpoint>)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn list_webhook_endpoints(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging {
        page,
        filters: NoFilters {},
    }: Paging<EndpointId, NoFilters>,
) -> Result<Listed<Endpoint>, Fault> {
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(endpoint::list(&mut tx, &actor, &page).await?))
}

/// Create a webhook endpoint
///
/// The signing secret is in this answer and in no other: a retry under the same key gives `secret: null`.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints", operation_id = "createWebhookEndpoint", tag = "Webhook endpoints",
    params(KeyHeader),
    request_body(content = EndpointInput, example = json!({
        "url": "https://erp.example.com/stoa-webhooks", "description": "ERP, production", "eventTypes": ["order.*", "inventory.exhausted"],
        "settings": {
            "delivery": {"ordering": "resource", "rateLimitPerSecond": 50},
            "signature": {"schemes": ["v1", "v1a"]},
        },
        "headers": {"x-tenant": "4711"},
    })),
    responses((status = 201, description = "The endpoint, and its secret.", body = CreatedEndpoint)),
    extensions(("x-problem-types" = json!(["too_many_endpoints"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn create_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    key: IdempotencyKey,
    Body(input): Body<EndpointInput>,
) -> Result<Mutated<CreatedEndpoint>, FaultOfOperation> {
    let create = endpoint::Create {
        input,
        setting: services.endpoint_setting(),
    };
    Ok(Mutated::created(
        services.once(&actor, &key, &create).await?.answer,
    ))
}

/// Get a webhook endpoint
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}", operation_id = "getWebhookEndpoint", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint.")),
    responses((status = 200, description = "The endpoint.", body = Endpoint)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn get_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
) -> Result<Resource<Endpoint>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(Resource(endpoint::get(&mut tx, &actor, id).await?))
}

/// Change a webhook endpoint
///
/// What is left out stays as it is; a group of `settings` that is given replaces the whole group. Switched on again, it is sent what was waiting when it was
/// disabled, and with `catchUp: all` whatever came since.
#[utoipa::path(
    patch, path = "/v1/webhook-endpoints/{endpointId}", operation_id = "updateWebhookEndpoint", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader, VersionHeader),
    request_body(content = EndpointChange, example = json!({
        "eventTypes": ["order.placed", "order.cancelled"], "status": "enabled", "catchUp": "all",
        "settings": {"delivery": {"retryWaitsSeconds": [5, 60, 3_600]}},
    })),
    responses((status = 200, description = "The endpoint.", body = Endpoint)),
    extensions(("x-problem-types" = json!(["endpoint_of_app", "too_many_replays"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn update_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
    IfMatch(version): IfMatch,
    Body(change): Body<EndpointChange>,
) -> Result<Mutated<Endpoint>, FaultOfOperation> {
    let input = endpoint::UpdateInput {
        id,
        version: version.map(i64::from),
        change,
    };
    services
        .once(
            &actor,
            &key,
            &endpoint::Update {
                input,
                setting: services.endpoint_setting(),
            },
        )
        .await
}

/// Delete a webhook endpoint
///
/// With its queue, its dead letters and its keys. What was sent stays in the merchant's feed.
#[utoipa::path(
    delete, path = "/v1/webhook-endpoints/{endpointId}", operation_id = "deleteWebhookEndpoint", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), OptionalKeyHeader, VersionHeader),
    responses((status = 200, description = "The id of what was deleted.", body = Deleted)),
    extensions(("x-problem-types" = json!(["endpoint_of_app"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn delete_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    key: Option<IdempotencyKey>,
    IfMatch(version): IfMatch,
) -> Result<Done<Deleted>, FaultOfOperation> {
    let key = key.map_or_else(|| IdempotencyKey::of_request(&actor), Ok)?;
    let delete = endpoint::Delete {
        input: endpoint::DeleteInput {
            id,
            version: version.map(i64::from),
        },
    };
    Ok(services.once(&actor, &key, &delete).await?.into())
}

/// Send a test event
///
/// An event of type `ping` to this endpoint alone, signed and numbered like any other.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/ping", operation_id = "pingWebhookEndpoint", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader),
    responses((status = 200, description = "The endpoint; the event follows.", body = Endpoint)),
    extensions(("x-problem-types" = json!(["endpoint_disabled"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn ping_webhook_endpoint(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
) -> Result<Mutated<Endpoint>, FaultOfOperation> {
    services.once(&actor, &key, &endpoint::Ping { id }).await
}

/// Get a webhook endpoint's health
///
/// Whether it takes what it is sent, how long it needs for it, what went wrong last, and how far it is behind.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/health", operation_id = "getWebhookEndpointHealth", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint.")),
    responses((status = 200, description = "How it fares.", body = Health)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn get_webhook_endpoint_health(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
) -> Result<axum::Json<Health>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    let now = services.clock.now();
    Ok(axum::Json(health::get(&mut tx, &actor, id, now).await?))
}

/// Where to read a stream.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamFilters {
    /// The last sequence that you have; 0 for the first. What retention has dropped gives 410, which names the oldest number still there; a number beyond the
    /// newest gives 422.
    #[param(minimum = 0, default = 0)]
    after: Option<String>,
}

/// Read an endpoint's stream
///
/// Exactly what the endpoint was or will be sent, without gaps, in the order of `sequence`: for catching up, and for endpoints without a URL.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/events", operation_id = "listWebhookEndpointEvents", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), StreamFilters, ("limit" = Option<u32>, Query, description = "Events at most, 1 to 250.")),
    responses((status = 200, description = "Events after `after`.", body = StreamPage)),
    extensions(("x-problem-types" = json!(["events_expired"]))),
    security(("oauth" = ["webhooks:read"])),
)]
async fn list_webhook_endpoint_events(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    Paging { page, filters }: Paging<i64, StreamFilters>,
) -> Result<axum::Json<StreamPage>, Fault> {
    let after = crate::edge::extract::number("after", filters.after.as_deref())?.unwrap_or(0);
    let request = StreamRequest {
        after,
        limit: page.limit,
    };
    let mut tx = services.enter(&actor).await?;
    let page = stream::read(
        &mut tx,
        &actor,
        &services.keyring,
        id,
        request,
        services.clock.now(),
    )
    .await?;
    Ok(axum::Json(page))
}

/// List an endpoint's dead letters
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/dead-letters", operation_id = "listDeadLetters", tag = "Dead letters",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), PageParameters),
    responses((status = 200, description = "A page of dead letters.", body = Page<DeadLetter>)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn list_dead_letters(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    Paging {
        page,
        filters: NoFilters {},
    }: Paging<DeadLetterId, NoFilters>,
) -> Result<Listed<DeadLetter>, Fault> {
    let mut tx = services.enter(&actor).await?;
    let now = services.clock.now();
    Ok(Listed(
        dead_letter::list(&mut tx, &actor, &services.keyring, id, &page, now).await?,
    ))
}

/// Get a dead letter
#[utoipa::path(
    get, path = "/v1/dead-letters/{deadLetterId}", operation_id = "getDeadLetter", tag = "Dead letters",
    params(("deadLetterId" = DeadLetterId, Path, description = "The dead letter.")),
    responses((status = 200, description = "The event, and every attempt to deliver it.", body = DeadLetter)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn get_dead_letter(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<DeadLetter>,
) -> Result<axum::Json<DeadLetter>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    let now = services.clock.now();
    Ok(axum::Json(
        dead_letter::get(&mut tx, &actor, &services.keyring, id, now).await?,
    ))
}

/// Replay a dead letter
///
/// Queues the same event under its original `sequence`, to be attempted at once and by the whole schedule again.
#[utoipa::path(
    post, path = "/v1/dead-letters/{deadLetterId}/replay", operation_id = "replayDeadLetter", tag = "Dead letters",
    params(("deadLetterId" = DeadLetterId, Path, description = "The dead letter."), KeyHeader),
    responses((status = 200, description = "What was queued.", body = Replayed)),
    extensions(("x-problem-types" = json!(["endpoint_disabled", "endpoint_without_url"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn replay_dead_letter(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<DeadLetter>,
    key: IdempotencyKey,
) -> Result<Done<Replayed>, FaultOfOperation> {
    Ok(services
        .once(&actor, &key, &dead_letter::Replay { id })
        .await?
        .into())
}
