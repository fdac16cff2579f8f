//! The fields of `Query`.

use async_graphql::{Context, ID, Object, connection::Connection};
use commerce::{
    Error,
    order::{self, OrderFilter, OrderKey, OrderStatus},
    product::{self, Product, ProductFilter, ProductId, ProductStatus},
};
use kernel::{clock::Timestamp, scope::Scope};

use crate::{
    connection::{connection, page_request},
    fault::{Fault, Nullable},
    input,
    loader::Loaders,
    order::OrderNode,
    reader::Reader,
};

/// What can be read.
#[derive(Debug)]
pub(crate) struct Query;

#[Object]
impl Query {
    /// The product of this id. Needs `catalog:read`.
    async fn product(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The product's id.")] id: ID,
    ) -> Nullable<Product> {
        Some(product_of(context, &id).await)
    }

    /// The products, oldest first. Needs `catalog:read`.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is an argument of the field"
    )]
    async fn products(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, 1 to 250; 50 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only those after the one with this cursor.")] after: Option<String>,
        #[graphql(desc = "Only the product with this external id.")] external_id: Option<String>,
        #[graphql(desc = "Only products in this state.")] status: Option<ProductStatus>,
        #[graphql(desc = "Only products with a variant of this SKU.")] sku: Option<String>,
        #[graphql(desc = "Only products with a variant of this barcode.")] barcode: Option<String>,
        #[graphql(desc = "Only products of this brand.")] brand: Option<String>,
        #[graphql(
            desc = "Only products changed after this time. What was changed in the minute before it may be shown again: compare `version`."
        )]
        updated_after: Option<Timestamp>,
    ) -> Nullable<Connection<String, Product>> {
        let filter = ProductFilter {
            external_id,
            status,
            sku,
            barcode,
            brand,
            updated_after,
        };
        Some(products_of(context, first, after.as_deref(), filter).await)
    }

    /// The order of this id. Needs `orders:read`; names, addresses and contacts take `orders.pii:read`.
    async fn order(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The order's id.")] id: ID,
    ) -> Nullable<OrderNode> {
        Some(order_of(context, &id).await)
    }

    /// The orders, those changed last at the end. Needs `orders:read`; names, addresses and contacts take `orders.pii:read`.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is an argument of the field"
    )]
    async fn orders(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "How many, 1 to 250; 50 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only those after the one with this cursor.")] after: Option<String>,
        #[graphql(desc = "Only the order with this external id.")] external_id: Option<String>,
        #[graphql(desc = "Only orders in this state.")] status: Option<OrderStatus>,
        #[graphql(desc = "Only orders of this customer.")] customer_id: Option<ID>,
        #[graphql(
            desc = "Only orders changed after this time. What was changed in the minute before it may be shown again: compare `version`."
        )]
        updated_after: Option<Timestamp>,
    ) -> Nullable<Connection<String, OrderNode>> {
        let customer = match customer_id.map(|id| input::id(&id)).transpose() {
            Ok(customer) => customer,
            Err(problem) => return Some(Err(problem.into())),
        };
        let filter = OrderFilter {
            external_id,
            status,
            customer,
            updated_after,
        };
        Some(orders_of(context, first, after.as_deref(), filter).await)
    }
}

async fn product_of(context: &Context<'_>, id: &str) -> Result<Product, Fault> {
    context
        .data_unchecked::<Reader>()
        .actor
        .access
        .require(Scope::CatalogRead)?;
    let id = input::id::<Product>(id)?;
    let found = context.data_unchecked::<Loaders>().load_one(id).await?;
    Ok(found.ok_or_else(|| Error::not_found("product", id))?)
}

async fn products_of(
    context: &Context<'_>,
    first: Option<i32>,
    after: Option<&str>,
    filter: ProductFilter,
) -> Result<Connection<String, Product>, Fault> {
    let reader = context.data_unchecked::<Reader>();
    reader.actor.access.require(Scope::CatalogRead)?;
    let request = page_request::<ProductId>(first, after)?;
    let mut tx = reader.begin().await?;
    let page = product::list(&mut tx, &reader.actor, &filter, &request).await?;
    tx.end().await?;
    Ok(connection(
        page,
        &request,
        |product| product.id,
        |product| product,
    ))
}

async fn order_of(context: &Context<'_>, id: &str) -> Result<OrderNode, Fault> {
    context
        .data_unchecked::<Reader>()
        .actor
        .access
        .require(Scope::OrdersRead)?;
    let id = input::id::<order::Order>(id)?;
    let found = context.data_unchecked::<Loaders>().load_one(id).await?;
    Ok(found.ok_or_else(|| Error::not_found("order", id))?.into())
}

async fn orders_of(
    context: &Context<'_>,
    first: Option<i32>,
    after: Option<&str>,
    filter: OrderFilter,
) -> Result<Connection<String, OrderNode>, Fault> {
    let reader = context.data_unchecked::<Reader>();
    reader.actor.access.require(Scope::OrdersRead)?;
    let request = page_request::<OrderKey>(first, after)?;
    let mut tx = reader.begin().await?;
    let mut page = order::list(&mut tx, &reader.actor, &filter, &request).await?;
    page.data = reader.reveal(&mut tx, page.data).await?;
    tx.end().await?;
    Ok(connection(page, &request, OrderKey::of, OrderNode::from))
}
