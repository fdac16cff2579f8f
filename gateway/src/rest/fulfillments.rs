//! `/v1/orders/{orderId}/fulfillments` and `/v1/fulfillments`.

use axum::extract::State;
use commerce::{
    fulfillment::{self, Fulfilled, Fulfillment, FulfillmentId, FulfillmentInput, TrackingInput},
    order::{Order, OrderId},
};
use kernel::{actor::Actor, idempotency::Answer, page::Page, scope::Scope};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Services,
    parameters::{KeyHeader, VersionHeader},
};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, IfMatch, Listed, Mutated, PathId, Resource, Versioned,
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_fulfillments, fulfill_order))
        .routes(routes!(get_fulfillment, update_tracking))
}

impl Versioned for Fulfillment {
    fn version(&self) -> i64 {
        self.version.into()
    }
}

/// An order after something of it was shipped, and the fulfilments that this made: one for each location.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Fulfilled)]
struct FulfilledBody {
    /// The order as it is now; null to those who lack `orders:read`.
    #[schema(required)]
    order: Option<Order>,
    /// What was made.
    fulfillments: Vec<Fulfillment>,
    /// The order's version.
    #[serde(skip)]
    version: i64,
}

impl FulfilledBody {
    fn shown_to(actor: &Actor, fulfilled: Fulfilled) -> Self {
        let version = fulfilled.order.version.into();
        let order = actor
            .access
            .scopes
            .allows(Scope::OrdersRead)
            .then_some(fulfilled.order);
        Self {
            order,
            fulfillments: fulfilled.fulfillments,
            version,
        }
    }
}

impl Versioned for FulfilledBody {
    fn version(&self) -> i64 {
        self.version
    }
}

/// List an order's fulfilments
#[utoipa::path(
    get, path = "/v1/orders/{orderId}/fulfillments", operation_id = "listFulfillments", tag = "Fulfillments",
    params(("orderId" = OrderId, Path, description = "The order.")),
    responses((status = 200, description = "The fulfilments, oldest first.", body = Page<Fulfillment>)),
    security(("oauth" = ["fulfillments:read"])),
)]
async fn list_fulfillments(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Order>,
) -> Result<Listed<Fulfillment>, Fault> {
    let mut tx = services.enter(&actor).await?;
    let data = fulfillment::list_of_order(&mut tx, &actor, id).await?;
    Ok(Listed(Page {
        data,
        next_cursor: None,
    }))
}

/// Fulfil an order
///
/// Says what has left: by default all that is left to ship. One fulfilment is made for each location.
#[utoipa::path(
    post, path = "/v1/orders/{orderId}/fulfillments", operation_id = "fulfillOrder", tag = "Fulfillments",
    params(("orderId" = OrderId, Path, description = "The order."), KeyHeader),
    request_body(content = FulfillmentInput, example = json!({"lines": [{"line": 1, "quantity": 2}], "carrier": "DHL",
        "trackingNumber": "00340434161094042557", "trackingUrl": "https://carrier.example/track/00340434161094042557"})),
    responses((status = 201, description = "The order and its new fulfilments.", body = FulfilledBody)),
    extensions(("x-problem-types" = json!(["invalid_transition", "quantity_exceeded"]))),
    security(("oauth" = ["fulfillments:write"])),
)]
async fn fulfill_order(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Order>,
    key: IdempotencyKey,
    Body(input): Body<FulfillmentInput>,
) -> Result<Mutated<FulfilledBody>, FaultOfOperation> {
    let fulfill = fulfillment::Fulfill::new(id, input)?;
    let Answer { value, replayed } = services.once(&actor, &key, &fulfill).await?.answer;
    Ok(Mutated::created(Answer {
        value: FulfilledBody::shown_to(&actor, value),
        replayed,
    }))
}

/// Get a fulfilment
#[utoipa::path(
    get, path = "/v1/fulfillments/{fulfillmentId}", operation_id = "getFulfillment", tag = "Fulfillments",
    params(("fulfillmentId" = FulfillmentId, Path, description = "The fulfilment.")),
    responses((status = 200, description = "The fulfilment.", body = Fulfillment)),
    security(("oauth" = ["fulfillments:read"])),
)]
async fn get_fulfillment(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Fulfillment>,
) -> Result<Resource<Fulfillment>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(Resource(fulfillment::get(&mut tx, &actor, id).await?))
}

/// Change a fulfilment's tracking
#[utoipa::path(
    patch, path = "/v1/fulfillments/{fulfillmentId}", operation_id = "updateTracking", tag = "Fulfillments",
    params(("fulfillmentId" = FulfillmentId, Path, description = "The fulfilment."), KeyHeader, VersionHeader),
    request_body = TrackingInput,
    responses((status = 200, description = "The fulfilment.", body = Fulfillment)),
    security(("oauth" = ["fulfillments:write"])),
)]
async fn update_tracking(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Fulfillment>,
    key: IdempotencyKey,
    IfMatch(version): IfMatch,
    Body(input): Body<TrackingInput>,
) -> Result<Mutated<Fulfillment>, FaultOfOperation> {
    services
        .once(
            &actor,
            &key,
            &fulfillment::UpdateTracking::new(id, version, input)?,
        )
        .await
}
