//! `/v1/orders`.

use axum::extract::State;
use commerce::order::{
    self, Order, OrderCancelInput, OrderFilter, OrderInput, OrderKey, OrderStatus, OrderTransition,
};
use kernel::{clock::Timestamp, idempotency::Answer, page::Page};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Services,
    parameters::{KeyHeader, PageParameters, VersionHeader},
};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, IfMatch, Listed, Mutated, Paging, PathId, Resource,
    Versioned,
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_orders, place_order))
        .routes(routes!(get_order))
        .routes(routes!(cancel_order))
        .routes(routes!(list_order_transitions))
}

impl Versioned for Order {
    fn version(&self) -> i64 {
        self.version.into()
    }
}

impl Services {
    /// Adds personal data to orders, for those who may see it.
    async fn reveal(
        &self,
        actor: &kernel::actor::Actor,
        orders: Vec<Order>,
    ) -> Result<Vec<Order>, Fault> {
        if !order::has_more_to_reveal(actor, &orders) {
            return Ok(orders);
        }
        let mut tx = self.enter_by_key(actor).await?;
        Ok(order::reveal(&mut tx, &self.keyring, actor, orders).await?)
    }

    /// The same for a mutation's answer, fresh or replayed.
    async fn reveal_answer(
        &self,
        actor: &kernel::actor::Actor,
        answer: Answer<Order>,
    ) -> Result<Answer<Order>, Fault> {
        let revealed = self.reveal(actor, vec![answer.value.clone()]).await?.pop();
        Ok(Answer {
            value: revealed.unwrap_or(answer.value),
            ..answer
        })
    }
}

/// Which orders to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only the order with this external id.
    external_id: Option<String>,
    /// Only orders in this state.
    #[param(inline)]
    status: Option<OrderStatus>,
    /// Only orders changed after this time. What was changed in the minute before it may be shown again, because a change that began
    /// earlier may have been committed later: go on from the newest `updatedAt` that you have, and compare `version`.
    updated_after: Option<Timestamp>,
    /// Only orders of this customer.
    customer_id: Option<order::CustomerId>,
}

/// List orders
///
/// Those changed last at the end, so that an order that changes while you page is met again.
#[utoipa::path(
    get, path = "/v1/orders", operation_id = "listOrders", tag = "Orders",
    params(PageParameters, Filters),
    responses((status = 200, description = "A page of orders.", body = Page<Order>)),
    security(("oauth" = ["orders:read"])),
)]
async fn list_orders(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging { page, filters }: Paging<OrderKey, Filters>,
) -> Result<Listed<Order>, Fault> {
    let filter = OrderFilter {
        external_id: filters.external_id,
        status: filters.status,
        updated_after: filters.updated_after,
        customer: filters.customer_id,
    };
    let mut tx = services.enter(&actor).await?;
    let found = order::list(&mut tx, &actor, &filter, &page).await?;
    let data = order::reveal(&mut tx, &services.keyring, &actor, found.data).await?;
    Ok(Listed(Page {
        data,
        next_cursor: found.next_cursor,
    }))
}

/// Place an order
///
/// Reserves the stock of every line or of none, at the prices of the catalog.
#[utoipa::path(
    post, path = "/v1/orders", operation_id = "placeOrder", tag = "Orders",
    params(KeyHeader),
    request_body = OrderInput,
    responses((status = 201, description = "The order, placed.", body = Order)),
    extensions(("x-problem-types" = json!(["insufficient_stock", "external_id_taken", "not_found"]))),
    security(("oauth" = ["orders:write"])),
)]
async fn place_order(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    IdempotencyKey(key): IdempotencyKey,
    Body(input): Body<OrderInput>,
) -> Result<Mutated<Order>, FaultOfOperation> {
    let place = order::Place::new(input, services.keyring.clone())?;
    let placed = services.placing.once(actor.clone(), key, place).await;
    let answer = placed.map_err(Fault::of_operation)?;
    Ok(Mutated::created(
        services.reveal_answer(&actor, answer).await?,
    ))
}

/// Get an order
#[utoipa::path(
    get, path = "/v1/orders/{orderId}", operation_id = "getOrder", tag = "Orders",
    params(("orderId" = order::OrderId, Path, description = "The order.")),
    responses((status = 200, description = "The order.", body = Order)),
    security(("oauth" = ["orders:read"])),
)]
async fn get_order(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Order>,
) -> Result<Resource<Order>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    let found = order::get(&mut tx, &actor, id).await?;
    let revealed = order::reveal(&mut tx, &services.keyring, &actor, vec![found.clone()])
        .await?
        .pop();
    Ok(Resource(revealed.unwrap_or(found)))
}

/// Cancel an order
///
/// Releases its stock. Only an order of which nothing was shipped can be cancelled.
#[utoipa::path(
    post, path = "/v1/orders/{orderId}/cancel", operation_id = "cancelOrder", tag = "Orders",
    params(("orderId" = order::OrderId, Path, description = "The order."), KeyHeader, VersionHeader),
    request_body = OrderCancelInput,
    responses((status = 200, description = "The order, cancelled.", body = Order)),
    extensions(("x-problem-types" = json!(["invalid_transition"]))),
    security(("oauth" = ["orders:write"])),
)]
async fn cancel_order(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Order>,
    key: IdempotencyKey,
    IfMatch(version): IfMatch,
    Body(input): Body<OrderCancelInput>,
) -> Result<Mutated<Order>, FaultOfOperation> {
    let cancel = order::Cancel::new(id, version, input)?;
    let cancelled = services.once(&actor, &key, &cancel).await?;
    Ok(Mutated::ok(
        services.reveal_answer(&actor, cancelled.answer).await?,
    ))
}

/// List an order's transitions
///
/// How the order came to be what it is: who did what, and why.
#[utoipa::path(
    get, path = "/v1/orders/{orderId}/transitions", operation_id = "listOrderTransitions", tag = "Orders",
    params(("orderId" = order::OrderId, Path, description = "The order.")),
    responses((status = 200, description = "The transitions, oldest first.", body = Page<OrderTransition>)),
    security(("oauth" = ["orders:read"])),
)]
async fn list_order_transitions(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Order>,
) -> Result<Listed<OrderTransition>, Fault> {
    let mut tx = services.enter(&actor).await?;
    let data = order::transitions(&mut tx, &actor, id).await?;
    Ok(Listed(Page {
        data,
        next_cursor: None,
    }))
}
