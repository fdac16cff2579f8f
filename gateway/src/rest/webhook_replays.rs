//! `/v1/webhook-replays`, and the replays of `/v1/webhook-endpoints`: a part of a stream, sent again.

use axum::extract::State;
use kernel::page::Page;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::{
    endpoint::{Endpoint, EndpointId},
    replay::{
        self, Cancel, Replay, ReplayEvent, ReplayEventInput, ReplayId, ReplayedEvent, Selection,
        Start, StartInput,
    },
};

use super::{
    Services,
    parameters::{KeyHeader, PageParameters},
};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, Listed, Paging, PathId,
    answer::Done,
    extract::{NoFilters, PathSequence},
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_webhook_replays, start_webhook_replay))
        .routes(routes!(replay_webhook_event))
        .routes(routes!(get_webhook_replay))
        .routes(routes!(cancel_webhook_replay))
}

/// Replay a part of an endpoint's stream
///
/// Queues again what the selection names, in the background and under the original `sequence`s: by default everything that the receiver has missed. It
/// waits for what is new, and while the endpoint is disabled.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/replays", operation_id = "startWebhookReplay", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), KeyHeader),
    request_body(content = Selection, example = json!({"afterSequence": 4700, "eventTypes": ["order.*"], "state": "missed"})),
    responses((status = 202, description = "The replay, which has yet to begin.", body = Replay)),
    extensions(("x-problem-types" = json!(["too_many_replays", "endpoint_without_url"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn start_webhook_replay(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    key: IdempotencyKey,
    Body(selection): Body<Selection>,
) -> Result<Done<Replay>, FaultOfOperation> {
    let start = Start {
        input: StartInput {
            endpoint: id,
            selection,
        },
    };
    Ok(Done::accepted(services.once(&actor, &key, &start).await?))
}

/// List an endpoint's replays
///
/// The newest first.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/replays", operation_id = "listWebhookReplays", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), PageParameters),
    responses((status = 200, description = "A page of replays.", body = Page<Replay>)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn list_webhook_replays(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    Paging {
        page,
        filters: NoFilters {},
    }: Paging<ReplayId, NoFilters>,
) -> Result<Listed<Replay>, Fault> {
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(replay::list(&mut tx, &actor, id, &page).await?))
}

/// Get a replay
#[utoipa::path(
    get, path = "/v1/webhook-replays/{replayId}", operation_id = "getWebhookReplay", tag = "Webhook endpoints",
    params(("replayId" = ReplayId, Path, description = "The replay.")),
    responses((status = 200, description = "The replay, and how far it has come.", body = Replay)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn get_webhook_replay(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Replay>,
) -> Result<axum::Json<Replay>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(axum::Json(replay::get(&mut tx, &actor, id).await?))
}

/// Cancel a replay
///
/// It queues no more. What it has queued is sent.
#[utoipa::path(
    post, path = "/v1/webhook-replays/{replayId}/cancel", operation_id = "cancelWebhookReplay", tag = "Webhook endpoints",
    params(("replayId" = ReplayId, Path, description = "The replay."), KeyHeader),
    responses((status = 200, description = "The replay as it then is; one that was over stays as it was.", body = Replay)),
    security(("oauth" = ["webhooks:write"])),
)]
async fn cancel_webhook_replay(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Replay>,
    key: IdempotencyKey,
) -> Result<Done<Replay>, FaultOfOperation> {
    Ok(services.once(&actor, &key, &Cancel { id }).await?.into())
}

/// Replay one event
///
/// Queues it again under its `sequence`, to be attempted at once and by the whole schedule; one that waits for its next attempt is brought forward.
#[utoipa::path(
    post, path = "/v1/webhook-endpoints/{endpointId}/events/{sequence}/replay", operation_id = "replayWebhookEvent", tag = "Webhook endpoints",
    params(
        ("endpointId" = EndpointId, Path, description = "The endpoint."),
        ("sequence" = i64, Path, description = "The event's number in the endpoint's stream.", minimum = 1, example = 1),
        KeyHeader
    ),
    responses((status = 200, description = "What was queued.", body = ReplayedEvent)),
    extensions(("x-problem-types" = json!(["endpoint_disabled", "endpoint_without_url"]))),
    security(("oauth" = ["webhooks:write"])),
)]
async fn replay_webhook_event(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathSequence(endpoint, sequence): PathSequence<Endpoint>,
    key: IdempotencyKey,
) -> Result<Done<ReplayedEvent>, FaultOfOperation> {
    let replay = ReplayEvent {
        input: ReplayEventInput { endpoint, sequence },
    };
    Ok(services.once(&actor, &key, &replay).await?.into())
}
