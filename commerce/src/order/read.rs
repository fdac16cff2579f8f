//! Reading orders.

use std::collections::HashMap;

use kernel::{
    actor::Actor,
    clock::Timestamp,
    page::{Page, PageRequest},
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{CustomerId, Order, OrderId, OrderStatus, OrderTransition, store};
use crate::Error;

/// Which orders a list shows; all of them by default. Conditions add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// Only the one of this external id.
    pub external_id: Option<String>,
    /// Only those of this status.
    pub status: Option<OrderStatus>,
    /// Only those of this customer.
    pub customer: Option<CustomerId>,
    /// Only those changed after this time, and what the minute before it may have had: see [`page::overlapped`](kernel::page::overlapped).
    pub updated_after: Option<Timestamp>,
}

/// Where a page of orders ends: the list runs by time of change, so that what changes while somebody pages is met again at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderKey(Timestamp, OrderId);

impl OrderKey {
    /// The key of an order, for cursors of single rows.
    pub fn of(order: &Order) -> Self {
        Self(order.updated_at, order.id)
    }
}

/// One order, without personal data: see [`reveal`](super::reveal).
pub async fn get(tx: &mut PgConnection, actor: &Actor, id: OrderId) -> Result<Order, Error> {
    get_many(tx, actor, &[id])
        .await?
        .remove(&id)
        .ok_or_else(|| Error::not_found("order", id))
}

/// Those of `ids` that are there and visible, for loaders. Two statements, however many.
pub async fn get_many(
    tx: &mut PgConnection,
    actor: &Actor,
    ids: &[OrderId],
) -> Result<HashMap<OrderId, Order>, Error> {
    actor.access.require(Scope::OrdersRead)?;
    let orders = select_visible(tx, actor, ids).await?;
    Ok(orders.into_iter().map(|order| (order.id, order)).collect())
}

async fn select_visible(
    tx: &mut PgConnection,
    actor: &Actor,
    ids: &[OrderId],
) -> Result<Vec<Order>, Error> {
    let mut orders = store::select_many(tx, actor.merchant, ids).await?;
    orders.retain(|order| actor.access.sees_any_location(&order.locations()));
    Ok(orders)
}

/// The orders, those changed last at the end.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    filter: &OrderFilter,
    page: &PageRequest<OrderKey>,
) -> Result<Page<Order>, Error> {
    actor.access.require(Scope::OrdersRead)?;
    let visible = actor.access.location_uuids();
    let after = page.after.as_ref().map(|&OrderKey(time, id)| (time, id));
    let rows = store::list(
        tx,
        actor.merchant,
        visible.as_deref(),
        filter,
        after,
        page.fetch_count(),
    )
    .await?;
    Ok(Page::from_rows(rows, page, OrderKey::of))
}

/// Fails unless the order is there and visible, whatever the actor's scopes: for what hangs on an order and has a scope of its own.
pub(crate) async fn require_visible(
    tx: &mut PgConnection,
    actor: &Actor,
    id: OrderId,
) -> Result<(), Error> {
    if select_visible(tx, actor, &[id]).await?.is_empty() {
        return Err(Error::not_found("order", id));
    }
    Ok(())
}

/// How an order came to be what it is, from its beginning.
pub async fn transitions(
    tx: &mut PgConnection,
    actor: &Actor,
    id: OrderId,
) -> Result<Vec<OrderTransition>, Error> {
    get(tx, actor, id).await?;
    Ok(store::select_transitions(tx, actor.merchant, id).await?)
}
