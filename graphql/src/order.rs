//! Orders with what belongs to other aggregates: fulfilments, products, locations.

use async_graphql::{ComplexObject, Context, SimpleObject};
use commerce::{
    fulfillment::Fulfillment,
    location::Location,
    order::{Order, OrderLine},
    product::{Product, Variant},
};

use crate::{
    fault::Nullable,
    loader::{FulfillmentsOf, Loaders},
};

/// What somebody has bought.
#[derive(Debug, SimpleObject)]
#[graphql(complex, name = "Order")]
pub(crate) struct OrderNode {
    #[graphql(flatten)]
    order: Order,
}

impl From<Order> for OrderNode {
    fn from(order: Order) -> Self {
        Self { order }
    }
}

#[ComplexObject]
impl OrderNode {
    /// What was bought.
    async fn lines(&self) -> Vec<OrderLineNode> {
        self.order
            .lines
            .iter()
            .map(|line| OrderLineNode { line: line.clone() })
            .collect()
    }

    /// What was shipped of it. Needs `fulfillments:read`.
    async fn fulfillments(&self, context: &Context<'_>) -> Nullable<Vec<Fulfillment>> {
        let found = context
            .data_unchecked::<Loaders>()
            .load_one(FulfillmentsOf(self.order.id))
            .await;
        Some(found.map(Option::unwrap_or_default))
    }
}

/// One line of an order.
#[derive(Debug, SimpleObject)]
#[graphql(complex, name = "OrderLine")]
pub(crate) struct OrderLineNode {
    #[graphql(flatten)]
    line: OrderLine,
}

#[ComplexObject]
impl OrderLineNode {
    /// What was bought, as it is now. Needs `catalog:read`.
    async fn variant(&self, context: &Context<'_>) -> Nullable<Variant> {
        context
            .data_unchecked::<Loaders>()
            .load_one(self.line.variant_id)
            .await
            .transpose()
    }

    /// The product of what was bought, as it is now. Needs `catalog:read`.
    async fn product(&self, context: &Context<'_>) -> Nullable<Product> {
        let loaders = context.data_unchecked::<Loaders>();
        match loaders.load_one(self.line.variant_id).await.transpose()? {
            Ok(variant) => loaders.load_one(variant.product_id).await.transpose(),
            Err(fault) => Some(Err(fault)),
        }
    }

    /// Where it is shipped from. Needs `locations:read`; null outside of the grant's locations.
    async fn location(&self, context: &Context<'_>) -> Nullable<Location> {
        context
            .data_unchecked::<Loaders>()
            .load_one(self.line.location_id)
            .await
            .transpose()
    }
}
