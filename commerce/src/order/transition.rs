//! The transitions of an order, as data: which command leads from which status to which.
//!
//! The table is checked here, in one place, and said once more by the constraint `order_transitions_allowed`; a test compares the two.

use super::OrderStatus;
use crate::Refusal;

/// What may be done with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// It comes into being.
    Place,
    /// It is given up.
    Cancel,
    /// A part of what is left is shipped.
    FulfillPart,
    /// All that is left is shipped.
    FulfillRest,
}

impl Command {
    /// As the history spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Cancel => "cancel",
            Self::FulfillPart | Self::FulfillRest => "fulfill",
        }
    }
}

/// Command, status before (`None` at the beginning), status after.
pub const TABLE: &[(Command, Option<OrderStatus>, OrderStatus)] = &[
    (Command::Place, None, OrderStatus::Placed),
    (
        Command::Cancel,
        Some(OrderStatus::Placed),
        OrderStatus::Cancelled,
    ),
    (
        Command::FulfillPart,
        Some(OrderStatus::Placed),
        OrderStatus::PartiallyFulfilled,
    ),
    (
        Command::FulfillRest,
        Some(OrderStatus::Placed),
        OrderStatus::Fulfilled,
    ),
    (
        Command::FulfillPart,
        Some(OrderStatus::PartiallyFulfilled),
        OrderStatus::PartiallyFulfilled,
    ),
    (
        Command::FulfillRest,
        Some(OrderStatus::PartiallyFulfilled),
        OrderStatus::Fulfilled,
    ),
];

/// The status after `command`, or the refusal that names both.
pub fn next(from: Option<OrderStatus>, command: Command) -> Result<OrderStatus, Refusal> {
    TABLE
        .iter()
        .find(|(known, before, _)| *known == command && *before == from)
        .map(|&(_, _, after)| after)
        .ok_or_else(|| Refusal::InvalidTransition {
            noun: "order".to_owned(),
            status: from.map_or("not placed", OrderStatus::name).to_owned(),
            command: command.name().to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shipped_or_cancelled_is_never_cancelled_again() {
        for status in OrderStatus::ALL {
            let allowed = *status == OrderStatus::Placed;
            assert_eq!(
                next(Some(*status), Command::Cancel).is_ok(),
                allowed,
                "{}",
                status.name()
            );
        }
    }

    #[test]
    fn nothing_leads_out_of_the_end() {
        for end in [OrderStatus::Fulfilled, OrderStatus::Cancelled] {
            for command in [
                Command::Place,
                Command::Cancel,
                Command::FulfillPart,
                Command::FulfillRest,
            ] {
                assert!(
                    next(Some(end), command).is_err(),
                    "{} {}",
                    command.name(),
                    end.name()
                );
            }
        }
    }
}
