//! Shipping what an order has reserved.

use std::collections::BTreeMap;

use kernel::{
    actor::Actor,
    event,
    id::LocationId,
    idempotency::{self, Call},
    problem::FieldError,
    scope::Scope,
    validation,
    version::Version,
};
use serde::Serialize;
use sqlx::PgConnection;

use super::{
    Fulfilled, Fulfillment, FulfillmentId, FulfillmentInput, FulfillmentLine, FulfillmentStatus,
    store, tracking,
};
use crate::{
    Error, InsufficientLine, Refusal,
    inventory::{
        MovementReason,
        ledger::{Ledger, Movement},
    },
    order::{
        self, Order, OrderId, OrderStatus, OrderTransition,
        transition::{self, Command},
    },
};

/// `order.fulfill`: ships pieces of an order.
#[derive(Debug)]
pub struct Fulfill {
    request: FulfillRequest,
}

/// What a fulfilment asks for, as its idempotency key remembers it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FulfillRequest {
    order_id: OrderId,
    #[serde(flatten)]
    input: FulfillmentInput,
}

impl Fulfill {
    /// Checks the input.
    pub fn new(order: OrderId, input: FulfillmentInput) -> Result<Self, Error> {
        validation::check(&input).map_err(Error::Invalid)?;
        Ok(Self {
            request: FulfillRequest {
                order_id: order,
                input,
            },
        })
    }
}

impl idempotency::Operation for Fulfill {
    const NAME: &'static str = "order.fulfill";
    const SCOPE: Scope = Scope::FulfillmentsWrite;
    type Input = FulfillRequest;
    type Output = Fulfilled;
    type Error = Error;

    fn input(&self) -> &FulfillRequest {
        &self.request
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Fulfilled, Error> {
        fulfill(tx, call, self.request.order_id, &self.request.input).await
    }
}

/// Ships pieces of an order: they leave the stock, and one fulfilment is made for each location.
pub async fn fulfill(
    tx: &mut PgConnection,
    call: Call<'_>,
    id: OrderId,
    input: &FulfillmentInput,
) -> Result<Fulfilled, Error> {
    let Call { actor, now } = call;
    actor.access.require(Scope::FulfillmentsWrite)?;
    let order::store::Locked { mut order, sealed } = order::lock(tx, actor, id).await?;
    let before = order.status;
    // An order that can't be shipped at all says so, whatever is asked of it.
    transition::next(Some(before), Command::FulfillPart)?;
    let shipped = choose(&order, actor, input)?;
    for line in &mut order.lines {
        if let Some(shipped) = shipped.iter().find(|shipped| shipped.line == line.line) {
            line.fulfilled_quantity = line.fulfilled_quantity.saturating_add(shipped.quantity);
        }
    }
    let rest = order
        .lines
        .iter()
        .all(|line| line.fulfilled_quantity == line.quantity);
    let command = if rest {
        Command::FulfillRest
    } else {
        Command::FulfillPart
    };
    order.status = transition::next(Some(before), command)?;
    order.changed(now);

    let mut by_location: BTreeMap<LocationId, Vec<FulfillmentLine>> = BTreeMap::new();
    let mut movements = Vec::with_capacity(shipped.len());
    for shipped in &shipped {
        let Some(line) = order.lines.iter().find(|line| line.line == shipped.line) else {
            continue;
        };
        by_location
            .entry(line.location_id)
            .or_default()
            .push(*shipped);
        movements.push(Movement {
            variant: line.variant_id,
            location: line.location_id,
            reason: MovementReason::Shipped,
            on_hand_delta: -shipped.quantity,
            reserved_delta: -shipped.quantity,
            order: Some(id),
            app: actor.app,
            request: actor.request,
            note: None,
        });
    }
    let pairs: Vec<_> = movements
        .iter()
        .map(|movement| (movement.variant, movement.location))
        .collect();
    let mut ledger = Ledger::lock_pairs(tx, actor.merchant, &pairs).await?;
    for movement in &movements {
        ledger.record(movement, now);
    }
    let fulfillments: Vec<Fulfillment> = by_location
        .into_iter()
        .map(|(location_id, lines)| Fulfillment {
            id: FulfillmentId::new(now),
            order_id: id,
            location_id,
            status: FulfillmentStatus::Shipped,
            carrier: input.carrier.clone(),
            tracking_number: input.tracking_number.clone(),
            tracking_url: input.tracking_url.clone(),
            lines,
            version: Version::FIRST,
            created_at: now,
            updated_at: now,
        })
        .collect();

    let step = OrderTransition::made(&order, Some(before), command, None, call);
    order::store::update(tx, actor.merchant, &order).await?;
    order::store::update_fulfilled(tx, actor.merchant, &order).await?;
    order::store::insert_transitions(tx, actor.merchant, &[(id, step)]).await?;
    store::insert(tx, actor.merchant, &fulfillments).await?;
    let mut events = Vec::with_capacity(fulfillments.len() + 1);
    for fulfillment in &fulfillments {
        events.push(tracking::event("fulfillment.shipped", fulfillment)?);
    }
    let kind = if order.status == OrderStatus::Fulfilled {
        "order.fulfilled"
    } else {
        "order.partially_fulfilled"
    };
    events.push(order::event(kind, &order, sealed)?);
    events.extend(
        ledger
            .write(tx, actor.merchant)
            .await?
            .into_iter()
            .map(|(_, event)| event),
    );
    event::append(tx, actor.merchant, actor.request, now, &events).await?;
    Ok(Fulfilled {
        order,
        fulfillments,
    })
}

/// What is to be shipped of each line: what the input names, or all that is left where the actor may ship from.
fn choose(
    order: &Order,
    actor: &Actor,
    input: &FulfillmentInput,
) -> Result<Vec<FulfillmentLine>, Error> {
    let Some(wanted) = &input.lines else {
        if let Some(location) = input
            .location_id
            .filter(|&location| !actor.access.sees_location(location))
        {
            let error = FieldError::at(
                "/locationId",
                "not_found",
                format!("there is no location {location}"),
            );
            return Err(Error::Invalid(vec![error]));
        }
        let left: Vec<FulfillmentLine> = order
            .lines
            .iter()
            .filter(|line| actor.access.sees_location(line.location_id))
            .filter(|line| {
                input
                    .location_id
                    .is_none_or(|location| line.location_id == location)
            })
            .map(|line| FulfillmentLine {
                line: line.line,
                quantity: line.quantity.saturating_sub(line.fulfilled_quantity),
            })
            .filter(|line| line.quantity > 0)
            .collect();
        if left.is_empty() {
            return Err(Refusal::QuantityExceeded { lines: Vec::new() }.into());
        }
        return Ok(left);
    };
    let mut errors = Vec::new();
    let mut exceeded = Vec::new();
    for (index, wanted) in wanted.iter().enumerate() {
        let line = order.lines.iter().find(|line| line.line == wanted.line);
        let Some(line) = line.filter(|line| actor.access.sees_location(line.location_id)) else {
            let detail = format!(
                "the order has no line {} at a location that the grant includes",
                wanted.line
            );
            errors.push(FieldError::at(
                format!("/lines/{index}/line"),
                "not_found",
                detail,
            ));
            continue;
        };
        let left = line.quantity.saturating_sub(line.fulfilled_quantity);
        if wanted.quantity > left {
            exceeded.push(InsufficientLine {
                index,
                requested: i64::from(wanted.quantity),
                available: i64::from(left),
            });
        }
    }
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    if !exceeded.is_empty() {
        return Err(Refusal::QuantityExceeded { lines: exceeded }.into());
    }
    Ok(wanted.clone())
}
