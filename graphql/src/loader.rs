//! Loaders: what many fields of one answer ask for at once is read once, in one transaction a batch.
//!
//! One per request, so that nothing read for one actor reaches another. Nothing is kept between batches: a mutation's answer shows what it has made.

use std::collections::HashMap;

use async_graphql::dataloader::{self, DataLoader};
use commerce::{
    fulfillment::{self, Fulfillment},
    location::{self, Location, LocationId},
    order::{self, Order, OrderId},
    product::{self, Product, ProductId, Variant, VariantId},
};

use crate::{fault::Fault, reader::Reader};

/// The loaders of one request.
pub(crate) type Loaders = DataLoader<Load>;

/// Makes the loaders of one request.
pub(crate) fn loaders(reader: Reader) -> Loaders {
    DataLoader::new(Load(reader), tokio::spawn)
}

/// Reads the rows of a batch of keys.
pub(crate) struct Load(Reader);

/// The key of an order's fulfilments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FulfillmentsOf(pub(crate) OrderId);

impl dataloader::Loader<ProductId> for Load {
    type Value = Product;
    type Error = Fault;

    async fn load(&self, ids: &[ProductId]) -> Result<HashMap<ProductId, Product>, Fault> {
        let mut tx = self.0.begin().await?;
        let found = product::get_many(&mut tx, &self.0.actor, ids).await?;
        tx.end().await?;
        Ok(found)
    }
}

impl dataloader::Loader<VariantId> for Load {
    type Value = Variant;
    type Error = Fault;

    async fn load(&self, ids: &[VariantId]) -> Result<HashMap<VariantId, Variant>, Fault> {
        let mut tx = self.0.begin().await?;
        let found = product::variants(&mut tx, &self.0.actor, ids).await?;
        tx.end().await?;
        Ok(found)
    }
}

impl dataloader::Loader<OrderId> for Load {
    type Value = Order;
    type Error = Fault;

    async fn load(&self, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, Fault> {
        let mut tx = self.0.begin().await?;
        let found = order::get_many(&mut tx, &self.0.actor, ids).await?;
        let revealed = self
            .0
            .reveal(&mut tx, found.into_values().collect())
            .await?;
        tx.end().await?;
        Ok(revealed
            .into_iter()
            .map(|order| (order.id, order))
            .collect())
    }
}

impl dataloader::Loader<FulfillmentsOf> for Load {
    type Value = Vec<Fulfillment>;
    type Error = Fault;

    async fn load(
        &self,
        orders: &[FulfillmentsOf],
    ) -> Result<HashMap<FulfillmentsOf, Vec<Fulfillment>>, Fault> {
        let ids: Vec<OrderId> = orders.iter().map(|FulfillmentsOf(order)| *order).collect();
        let mut tx = self.0.begin().await?;
        let found = fulfillment::of_orders(&mut tx, &self.0.actor, &ids).await?;
        tx.end().await?;
        Ok(found
            .into_iter()
            .map(|(order, fulfillments)| (FulfillmentsOf(order), fulfillments))
            .collect())
    }
}

impl dataloader::Loader<LocationId> for Load {
    type Value = Location;
    type Error = Fault;

    async fn load(&self, ids: &[LocationId]) -> Result<HashMap<LocationId, Location>, Fault> {
        let mut tx = self.0.begin().await?;
        let found = location::get_many(&mut tx, &self.0.actor, ids).await?;
        tx.end().await?;
        Ok(found)
    }
}
