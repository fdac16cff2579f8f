//! The fields of `Mutation`: each runs its operation once per idempotency key, in a transaction of its own.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};
use commerce::{
    order::{self, Order, OrderCancelInput, OrderInput},
    product::{self, Product, ProductInput, UpsertOutcome, Upserted},
};
use kernel::{
    idempotency::{Answer, Groups, Idempotency, Key, Operation},
    keyring::Keyring,
    problem::Problem,
    version::Version,
};

use crate::{
    fault::{Fault, Nullable},
    input::{self, Body},
    order::OrderNode,
    reader::Reader,
};

/// What can be changed. Every field takes an idempotency key: sent again with the same input, it gives the same answer, and changes nothing.
#[derive(Debug)]
pub(crate) struct Mutation;

/// A product after an upsert, and what that came to.
#[derive(Debug, SimpleObject)]
pub(crate) struct ProductUpsertPayload {
    /// The product as it is now.
    product: Product,
    /// What the upsert came to.
    outcome: UpsertOutcome,
    /// Whether this is the kept answer of an earlier call with this key.
    replayed: bool,
}

impl From<Answer<Upserted>> for ProductUpsertPayload {
    fn from(answer: Answer<Upserted>) -> Self {
        let Upserted { outcome, product } = answer.value;
        Self {
            product,
            outcome,
            replayed: answer.replayed,
        }
    }
}

/// An order, placed.
#[derive(Debug, SimpleObject)]
pub(crate) struct OrderPlacePayload {
    /// The order.
    order: OrderNode,
    /// Whether this is the kept answer of an earlier call with this key.
    replayed: bool,
}

/// An order, cancelled.
#[derive(Debug, SimpleObject)]
pub(crate) struct OrderCancelPayload {
    /// The order.
    order: OrderNode,
    /// Whether this is the kept answer of an earlier call with this key.
    replayed: bool,
}

#[Object]
impl Mutation {
    /// Makes the product with the input's `externalId` what the input says, whether it was there or not. What is left out is emptied; a variant that is
    /// left out is archived. Needs `catalog:write`.
    async fn product_upsert(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The product, all of it.")] input: Body<ProductInput>,
        #[graphql(desc = "Your name for this change: 1 to 255 visible ASCII characters.")]
        idempotency_key: String,
        #[graphql(desc = "Only if the product is at this version.")] if_version: Option<Version>,
    ) -> Nullable<ProductUpsertPayload> {
        let upsert = || Ok(product::Upsert::new(input.into_valid()?, if_version)?);
        Some(
            once(context, &idempotency_key, upsert)
                .await
                .map(ProductUpsertPayload::from),
        )
    }

    /// Places an order: reserves the stock of every line or of none, at the prices of the catalog. Needs `orders:write`.
    async fn order_place(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The order.")] input: Body<OrderInput>,
        #[graphql(desc = "Your name for this change: 1 to 255 visible ASCII characters.")]
        idempotency_key: String,
    ) -> Nullable<OrderPlacePayload> {
        let keyring = Arc::clone(context.data_unchecked::<Arc<Keyring>>());
        let place = || Ok(order::Place::new(input.into_valid()?, keyring)?);
        let placed = place_revealed(context, &idempotency_key, place).await;
        Some(placed.map(|Answer { value, replayed }| OrderPlacePayload {
            order: value.into(),
            replayed,
        }))
    }

    /// Cancels an order of which nothing was shipped, and gives its stock back. Needs `orders:write`.
    async fn order_cancel(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The order's id.")] id: ID,
        #[graphql(desc = "Why, for the order's history; no personal data.")] reason: Option<String>,
        #[graphql(desc = "Your name for this change: 1 to 255 visible ASCII characters.")]
        idempotency_key: String,
        #[graphql(desc = "Only if the order is at this version.")] if_version: Option<Version>,
    ) -> Nullable<OrderCancelPayload> {
        let cancel = || {
            Ok(order::Cancel::new(
                input::id::<Order>(&id)?,
                if_version,
                OrderCancelInput { reason },
            )?)
        };
        let cancelled = once_revealed(context, &idempotency_key, cancel).await;
        Some(
            cancelled.map(|Answer { value, replayed }| OrderCancelPayload {
                order: value.into(),
                replayed,
            }),
        )
    }
}

/// Runs an operation under its key, for an actor that has its scope: only they are told what is wrong with their input.
async fn once<O>(
    context: &Context<'_>,
    key: &str,
    operation: impl FnOnce() -> Result<O, Problem>,
) -> Result<Answer<O::Output>, Fault>
where
    O: Operation,
    Problem: From<O::Error>,
{
    let (key, operation) = prepare(context, key, operation)?;
    let actor = &context.data_unchecked::<Reader>().actor;
    context
        .data_unchecked::<Idempotency>()
        .once(actor, &key, &operation)
        .await
        .map_err(Fault::of_operation)
}

/// The key and the operation of a call, once its actor has been found to have the scope.
fn prepare<O: Operation>(
    context: &Context<'_>,
    key: &str,
    operation: impl FnOnce() -> Result<O, Problem>,
) -> Result<(Key, O), Fault> {
    let actor = &context.data_unchecked::<Reader>().actor;
    actor.access.require(O::SCOPE)?;
    Ok((key.parse()?, operation()?))
}

/// Places an order, in a group with whatever else the merchant has waiting, and adds personal data as [`once_revealed`] does.
async fn place_revealed(
    context: &Context<'_>,
    key: &str,
    place: impl FnOnce() -> Result<order::Place, Problem>,
) -> Result<Answer<Order>, Fault> {
    let (key, place) = prepare(context, key, place)?;
    let actor = &context.data_unchecked::<Reader>().actor;
    let placed = context
        .data_unchecked::<Groups<order::Place>>()
        .once((**actor).clone(), key, place)
        .await
        .map_err(Fault::of_operation)?;
    revealed(context, placed).await
}

/// The same for operations on orders: adds personal data, for those who may see it, to fresh and replayed answers alike.
async fn once_revealed<O>(
    context: &Context<'_>,
    key: &str,
    operation: impl FnOnce() -> Result<O, Problem>,
) -> Result<Answer<Order>, Fault>
where
    O: Operation<Output = Order>,
    Problem: From<O::Error>,
{
    let answer = once(context, key, operation).await?;
    revealed(context, answer).await
}

async fn revealed(
    context: &Context<'_>,
    Answer { value, replayed }: Answer<Order>,
) -> Result<Answer<Order>, Fault> {
    Ok(Answer {
        value: context.data_unchecked::<Reader>().reveal_one(value).await?,
        replayed,
    })
}
