//! Reading fulfilments.

use std::collections::HashMap;

use kernel::{actor::Actor, scope::Scope};
use sqlx::PgConnection;

use super::{Fulfillment, FulfillmentId, store};
use crate::{Error, order::OrderId};

/// One fulfilment.
pub async fn get(tx: &mut PgConnection, actor: &Actor, id: FulfillmentId) -> Result<Fulfillment, Error> {
    actor.access.require(Scope::FulfillmentsRead)?;
    let found = store::select(tx, actor.merchant, id).await?;
    found
        .filter(|fulfillment| actor.access.sees_location(fulfillment.location_id))
        .ok_or_else(|| Error::not_found("fulfillment", id))
}

/// The fulfilments of an order, the first at the beginning; none if the order is not there or has none that are visible.
pub async fn list_of_order(tx: &mut PgConnection, actor: &Actor, order: OrderId) -> Result<Vec<Fulfillment>, Error> {
    Ok(of_orders(tx, actor, &[order]).await?.remove(&order).unwrap_or_default())
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
            fulfillments.entry(fulfillment.order_id).or_default().push(fulfillment);
        }
    }
    Ok(fulfillments)
}
