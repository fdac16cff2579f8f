//! What is told of an order: its snapshot without personal data, and the personal part apart and sealed.

use kernel::{
    event::{NewEvent, ResourceRef, SealedPersonal},
    idempotency,
    scope::Scope,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Order;
use crate::Error;

/// An event of an order at its version. `sealed` is what the order's row keeps: it is sealed as events want it, so that telling of a change needs no
/// key.
pub(crate) fn event(
    kind: &'static str,
    order: &Order,
    sealed: Option<Vec<u8>>,
) -> Result<NewEvent, Error> {
    let personal = order
        .customer_id
        .zip(sealed)
        .map(|(subject, sealed)| SealedPersonal { subject, sealed });
    Ok(NewEvent {
        kind,
        resource: ResourceRef {
            kind: "order",
            id: order.id.to_string(),
            version: order.version.number(),
        },
        scope: Scope::OrdersRead,
        locations: order.locations(),
        data: to_json(order)?,
        personal,
    })
}

/// The JSON of a contract type; that there is none would be a fault of ours.
pub(crate) fn to_json(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    Ok(serde_json::value::to_raw_value(value).map_err(idempotency::Error::Input)?)
}
