//! Reading fulfilments.

use std::collections::HashMap;

use kernel::{actor::Actor, scope::Scope};
use sqlx::PgConnection;

use super::{Fulfillment, FulfillmentId, store};
use crate::{
    Error,
    order::{self, OrderId},
};

/// One fulfilment.
pub async fn get(
    tx: &mut PgConnection,
    actor: &Actor,
    id: FulfillmentId,
) -> Result<Fulfillment, Error> {
    actor.access.require(Scope::FulfillmentsRead)?;
    let found = store::select(tx, actor.merchant, id).await?;
    found
        .filter(|fulfillment| actor.access.sees_location(fulfillment.location_id))
        .ok_or_else(|| Error::not_found("fulfillment", id))
}

/// The fulfilments of an order that are visible, the first at the beginning.
pub async fn list_of_order(
    tx: &mut PgConnection,
    actor: &Actor,
    id: OrderId,
) -> Result<Vec<Fulfillment>, Error> {
    actor.access.require(Scope::FulfillmentsRead)?;
    order::require_visible(tx, actor, id).await?;
    Ok(of_orders(tx, actor, &[id])
        .await?
        .remove(&id)
        .unwrap_or_default())
}

/// The fulfilments of these orders by order, for loaders; orders without any are left out. One statement, however many.
pub async fn of_orders(
    tx: &mut PgConnection,
    actor: &Actor,
    orders: &[OrderId],
) -> Result<HashMap<OrderId, Vec<Fulfillment>>, Error> {
    actor.access.require(Scope::FulfillmentsRead)?;
    let mut fulfillments: HashMap<_, Vec<_>> = HashMap::new();
    for fulfillment in store::select_of_orders(tx, actor.merchant, orders).await? {
        if actor.access.sees_location(fulfillment.location_id) {
            fulfillments
                .entry(fulfillment.order_id)
                .or_default()
                .push(fulfillment);
        }
    }
    Ok(fulfillments)
}
