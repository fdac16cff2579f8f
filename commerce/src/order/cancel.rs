//! Cancelling an order: its stock is given back, once.

use kernel::{
    actor::Actor,
    clock::Timestamp,
    event,
    idempotency::{self, Call},
    scope::Scope,
    validation,
    version::Version,
};
use serde::Serialize;
use sqlx::PgConnection;

use super::{
    Order, OrderCancelInput, OrderId, OrderTransition, store,
    transition::{self, Command},
};
use crate::{
    Error,
    inventory::{
        MovementReason,
        ledger::{Ledger, Movement},
    },
};

/// `order.cancel`: cancels an order of which nothing was shipped.
#[derive(Debug)]
pub struct Cancel {
    request: CancelRequest,
}

/// What a cancellation asks for, as its idempotency key remembers it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    order_id: OrderId,
    expected_version: Option<Version>,
    #[serde(flatten)]
    input: OrderCancelInput,
}

impl Cancel {
    /// Checks the input. `expected_version` is what `If-Match` says.
    pub fn new(
        order: OrderId,
        expected_version: Option<Version>,
        input: OrderCancelInput,
    ) -> Result<Self, Error> {
        validation::check(&input).map_err(Error::Invalid)?;
        Ok(Self {
            request: CancelRequest {
                order_id: order,
                expected_version,
                input,
            },
        })
    }
}

impl idempotency::Operation for Cancel {
    const NAME: &'static str = "order.cancel";
    const SCOPE: Scope = Scope::OrdersWrite;
    type Input = CancelRequest;
    type Output = Order;
    type Error = Error;

    fn input(&self) -> &CancelRequest {
        &self.request
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Order, Error> {
        let CancelRequest {
            order_id,
            expected_version,
            input,
        } = &self.request;
        cancel(tx, call, *order_id, *expected_version, input).await
    }
}

/// Cancels an order and gives its stock back. Whoever is limited to locations cancels orders of those alone.
pub async fn cancel(
    tx: &mut PgConnection,
    call: Call<'_>,
    id: OrderId,
    expected_version: Option<Version>,
    input: &OrderCancelInput,
) -> Result<Order, Error> {
    let Call { actor, now } = call;
    actor.access.require(Scope::OrdersWrite)?;
    let store::Locked { mut order, sealed } = lock(tx, actor, id).await?;
    if let Some(expected) = expected_version.filter(|&expected| expected != order.version) {
        return Err(Error::VersionMismatch {
            expected: expected.number(),
            current: order.version.number(),
        });
    }
    if let Some(foreign) = order
        .locations()
        .into_iter()
        .find(|&location| !actor.access.sees_location(location))
    {
        return Err(Error::not_found("location", foreign));
    }
    let before = order.status;
    order.status = transition::next(Some(before), Command::Cancel)?;
    order.changed(now);

    let pairs: Vec<_> = order
        .lines
        .iter()
        .map(|line| (line.variant_id, line.location_id))
        .collect();
    let mut ledger = Ledger::lock_pairs(tx, actor.merchant, &pairs).await?;
    for line in &order.lines {
        let movement = Movement {
            variant: line.variant_id,
            location: line.location_id,
            reason: MovementReason::Released,
            on_hand_delta: 0,
            reserved_delta: line.fulfilled_quantity.saturating_sub(line.quantity),
            order: Some(id),
            app: actor.app,
            request: actor.request,
            note: None,
        };
        ledger.record(&movement, now);
    }
    let transition = OrderTransition::made(
        &order,
        Some(before),
        Command::Cancel,
        input.reason.clone(),
        call,
    );
    store::update(tx, actor.merchant, &order).await?;
    store::insert_transitions(tx, actor.merchant, &[(id, transition)]).await?;
    let mut events = vec![super::event("order.cancelled", &order, sealed)?];
    events.extend(
        ledger
            .write(tx, actor.merchant)
            .await?
            .into_iter()
            .map(|(_, event)| event),
    );
    event::append(tx, actor.merchant, actor.request, now, &events).await?;
    Ok(order)
}

/// Locks an order that the actor sees.
pub(crate) async fn lock(
    tx: &mut PgConnection,
    actor: &Actor,
    id: OrderId,
) -> Result<store::Locked, Error> {
    let locked = store::lock(tx, actor.merchant, id).await?;
    locked
        .filter(|locked| actor.access.sees_any_location(&locked.order.locations()))
        .ok_or_else(|| Error::not_found("order", id))
}

impl Order {
    /// Raises the version.
    pub(crate) fn changed(&mut self, now: Timestamp) {
        self.version = self.version.next();
        self.updated_at = self.updated_at.max(now);
    }
}

impl OrderTransition {
    /// The step that has just made `order` what it is.
    pub(crate) fn made(
        order: &Order,
        from: Option<super::OrderStatus>,
        command: Command,
        reason: Option<String>,
        call: Call<'_>,
    ) -> Self {
        Self {
            order_version: order.version,
            command: command.name().to_owned(),
            from_status: from,
            to_status: order.status,
            reason,
            app_id: call.actor.app,
            request_id: call.actor.request,
            occurred_at: call.now,
        }
    }
}
