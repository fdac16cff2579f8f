//! `/v1/webhook-deliveries`, and the attempts and deliveries of `/v1/webhook-endpoints`: what was sent, and what came of it.

use axum::extract::State;
use kernel::{
    clock::Timestamp,
    id::EventId,
    page::Page,
    problem::{FieldError, Problem},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::{
    delivery::AttemptId,
    endpoint::{Endpoint, EndpointId},
    timeline::{
        self, AttemptFilter, AttemptOutcome, Delivery, DeliveryFilter, DeliveryKey, DeliveryState,
        MadeAttempt, Timeline,
    },
};

use super::{Services, parameters::PageParameters};
use crate::edge::{Authenticated, Listed, Paging, PathId, extract::PathSequence, fault::Fault};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_webhook_attempts))
        .routes(routes!(get_webhook_delivery))
        .routes(routes!(list_webhook_deliveries))
}

/// Which attempts to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AttemptFilters {
    /// Only those that came to this. A page may then be short, or empty, and still have a `nextCursor`: it has looked through 10,000 attempts.
    outcome: Option<AttemptOutcome>,
    /// Only those that began then or later, to the millisecond.
    since: Option<Timestamp>,
    /// Only those that began before then, to the millisecond.
    until: Option<Timestamp>,
}

/// List the attempts at an endpoint
///
/// The newest first, for as long as events are kept.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/attempts", operation_id = "listWebhookAttempts", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), PageParameters, AttemptFilters),
    responses((status = 200, description = "A page of attempts.", body = Page<MadeAttempt>)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn list_webhook_attempts(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Endpoint>,
    Paging { page, filters }: Paging<AttemptId, AttemptFilters>,
) -> Result<Listed<MadeAttempt>, Fault> {
    let filter = AttemptFilter {
        outcome: filters.outcome,
        since: filters.since,
        until: filters.until,
    };
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(
        timeline::attempts(&mut tx, &actor, id, filter, &page).await?,
    ))
}

/// Get a delivery's timeline
///
/// When the event happened, each attempt with what was sent and what was answered, when it was given up on or replayed, and when it is due. What was sent
/// is rendered again, without secrets and without personal data.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/deliveries/{sequence}", operation_id = "getWebhookDelivery", tag = "Webhook endpoints",
    params(
        ("endpointId" = EndpointId, Path, description = "The endpoint."),
        ("sequence" = i64, Path, description = "The event's number in the endpoint's stream.", minimum = 1, example = 1),
    ),
    responses((status = 200, description = "The delivery, and what has happened to it.", body = Timeline)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn get_webhook_delivery(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathSequence(endpoint, sequence): PathSequence<Endpoint>,
) -> Result<axum::Json<Timeline>, Fault> {
    let mut tx = services.enter(&actor).await?;
    let now = services.clock.now();
    Ok(axum::Json(
        timeline::get(&mut tx, &actor, endpoint, sequence, now).await?,
    ))
}

/// Which deliveries to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryFilters {
    /// Only those of this event.
    event_id: Option<EventId>,
    /// Only those of what happened to one resource: its type, such as `order`. Goes with `resourceId`.
    resource_type: Option<String>,
    /// Only those of what happened to one resource: its id. Goes with `resourceType`.
    resource_id: Option<String>,
    /// Only those to this endpoint.
    endpoint_id: Option<EndpointId>,
    /// Only those that stand there. A page may then be short, or empty, and still have a `nextCursor`: it has looked through 1,000 deliveries.
    state: Option<DeliveryState>,
}

impl DeliveryFilters {
    fn read(self) -> Result<DeliveryFilter, Problem> {
        let missing = |name, other| {
            let detail = format!("must be given with `{other}`");
            Problem::invalid_fields(vec![FieldError::in_parameter(name, "required", detail)])
        };
        let resource = match (self.resource_type, self.resource_id) {
            (Some(kind), Some(id)) => Some((kind, id)),
            (None, None) => None,
            (Some(_), None) => return Err(missing("resourceId", "resourceType")),
            (None, Some(_)) => return Err(missing("resourceType", "resourceId")),
        };
        Ok(DeliveryFilter {
            event: self.event_id,
            resource,
            endpoint: self.endpoint_id,
            state: self.state,
        })
    }
}

/// Find deliveries
///
/// Of an event, of what happened to a resource, or to an endpoint; without any of these, of the newest events.
#[utoipa::path(
    get, path = "/v1/webhook-deliveries", operation_id = "listWebhookDeliveries", tag = "Webhook endpoints",
    params(PageParameters, DeliveryFilters),
    responses((status = 200, description = "A page of deliveries.", body = Page<Delivery>)),
    security(("oauth" = ["webhooks:read"])),
)]
async fn list_webhook_deliveries(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging { page, filters }: Paging<DeliveryKey, DeliveryFilters>,
) -> Result<Listed<Delivery>, Fault> {
    let filter = filters.read()?;
    let mut tx = services.enter(&actor).await?;
    let now = services.clock.now();
    Ok(Listed(
        timeline::search(&mut tx, &actor, &filter, &page, now).await?,
    ))
}
