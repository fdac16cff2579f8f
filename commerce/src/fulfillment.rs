//! Fulfilments: what left a location for an order, and how to follow it.
//!
//! A fulfilment belongs to one location; fulfilling lines of several locations makes one for each. What is fulfilled leaves the stock: `onHand` and
//! `reserved` fall together, so that what is available stays as it was.

use async_graphql::{Enum, InputObject, SimpleObject};
use kernel::{
    actor::Access,
    clock::Timestamp,
    id::{Id, Kind, LocationId},
    idempotency::Kept,
    validation::{Faults, Validate},
    version::Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::order::{LINES_MAX, Order, OrderId, QUANTITY_MAX};

mod fulfill;
mod read;
mod store;
#[cfg(test)]
mod tests;
mod tracking;

pub use fulfill::{Fulfill, FulfillRequest, fulfill};
pub use read::{get, list_of_order, of_orders};
pub use tracking::{TrackingRequest, UpdateTracking, update_tracking};

impl Kind for Fulfillment {
    const PREFIX: &'static str = "ful";
}

/// The id of a [`Fulfillment`]: `ful_…`.
pub type FulfillmentId = Id<Fulfillment>;

/// What left a location for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct Fulfillment {
    /// The id.
    pub id: FulfillmentId,
    /// The order.
    pub order_id: OrderId,
    /// Where it was shipped from.
    pub location_id: LocationId,
    /// How far it has come.
    pub status: FulfillmentStatus,
    /// Who carries it.
    #[schema(required, example = "DHL")]
    pub carrier: Option<String>,
    /// The carrier's number for it.
    #[schema(required, example = "00340434161094042557")]
    pub tracking_number: Option<String>,
    /// Where it can be followed.
    #[schema(
        required,
        example = "https://carrier.example/track/00340434161094042557"
    )]
    pub tracking_url: Option<String>,
    /// What was shipped.
    pub lines: Vec<FulfillmentLine>,
    /// Raised by each change.
    pub version: Version,
    /// When it was shipped.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// How far a fulfilment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, Enum, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[graphql(rename_items = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum FulfillmentStatus {
    /// It has left the location.
    Shipped,
    /// It has arrived.
    Delivered,
    /// It did not arrive.
    Failed,
}

/// How many pieces of an order's line were shipped, or are to be.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject, InputObject,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[graphql(input_name = "FulfillmentLineInput")]
pub struct FulfillmentLine {
    /// The number of the order's line, from 1.
    #[schema(minimum = 1, example = 1)]
    pub line: i32,
    /// How many pieces.
    #[schema(minimum = 1, maximum = 1_000_000, example = 2)]
    pub quantity: i32,
}

/// What to ship of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FulfillmentInput {
    /// Which pieces; left out, all that is left to ship (at `locationId`, if that is given, and at the locations that the grant includes).
    #[serde(default)]
    pub lines: Option<Vec<FulfillmentLine>>,
    /// Where it is shipped from, to ship what is left there.
    #[serde(default)]
    pub location_id: Option<LocationId>,
    /// Who carries it.
    #[serde(default)]
    #[schema(example = "DHL")]
    pub carrier: Option<String>,
    /// The carrier's number for it.
    #[serde(default)]
    #[schema(example = "00340434161094042557")]
    pub tracking_number: Option<String>,
    /// Where it can be followed; an `https` or `http` URL.
    #[serde(default)]
    #[schema(example = "https://carrier.example/track/00340434161094042557")]
    pub tracking_url: Option<String>,
}

/// How to follow a fulfilment. What is left out or null stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrackingInput {
    /// Who carries it.
    #[serde(default)]
    #[schema(example = "DHL")]
    pub carrier: Option<String>,
    /// The carrier's number for it.
    #[serde(default)]
    #[schema(example = "00340434161094042557")]
    pub tracking_number: Option<String>,
    /// Where it can be followed; an `https` or `http` URL.
    #[serde(default)]
    #[schema(example = "https://carrier.example/track/00340434161094042557")]
    pub tracking_url: Option<String>,
}

/// An order after something of it was shipped, and the fulfilments that this made: one for each location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fulfilled {
    /// The order as it is now. The edge shows it to those who hold `orders:read`.
    pub order: Order,
    /// What was made.
    pub fulfillments: Vec<Fulfillment>,
}

impl Kept for Fulfilled {
    fn visible_to(&self, access: &Access) -> bool {
        self.fulfillments
            .iter()
            .all(|fulfillment| fulfillment.visible_to(access))
    }
}

impl Kept for Fulfillment {
    fn visible_to(&self, access: &Access) -> bool {
        access.sees_location(self.location_id)
    }
}

/// Characters of a carrier's name and of a tracking number at most.
const TRACKING_LENGTH_MAX: usize = 100;

/// Characters of a tracking URL at most.
const TRACKING_URL_LENGTH_MAX: usize = 2_000;

impl Validate for FulfillmentInput {
    fn validate(&self, faults: &mut Faults) {
        if let Some(lines) = &self.lines {
            if lines.is_empty() {
                faults.add(
                    "/lines",
                    "required",
                    "must have at least one line, or be left out",
                );
            }
            faults.at_most("/lines", lines, LINES_MAX);
            let mut seen = std::collections::HashSet::new();
            for (index, line) in lines.iter().enumerate() {
                if !(1..=QUANTITY_MAX).contains(&line.quantity) {
                    let detail = format!("must be from 1 to {QUANTITY_MAX}");
                    faults.add(&format!("/lines/{index}/quantity"), "out_of_range", detail);
                }
                if !seen.insert(line.line) {
                    faults.add(
                        &format!("/lines/{index}/line"),
                        "duplicate",
                        "an earlier entry names the same line",
                    );
                }
            }
            if self.location_id.is_some() {
                faults.add(
                    "/locationId",
                    "invalid",
                    "must be left out where lines are given: each line has its location",
                );
            }
        }
        tracking_rules(
            faults,
            self.carrier.as_deref(),
            self.tracking_number.as_deref(),
            self.tracking_url.as_deref(),
        );
    }
}

impl Validate for TrackingInput {
    fn validate(&self, faults: &mut Faults) {
        if self.carrier.is_none() && self.tracking_number.is_none() && self.tracking_url.is_none() {
            faults.add(
                "",
                "required",
                "must have at least one of carrier, trackingNumber and trackingUrl",
            );
        }
        tracking_rules(
            faults,
            self.carrier.as_deref(),
            self.tracking_number.as_deref(),
            self.tracking_url.as_deref(),
        );
    }
}

fn tracking_rules(
    faults: &mut Faults,
    carrier: Option<&str>,
    number: Option<&str>,
    url: Option<&str>,
) {
    if let Some(carrier) = carrier {
        faults.text("/carrier", carrier, TRACKING_LENGTH_MAX);
    }
    if let Some(number) = number {
        faults.text("/trackingNumber", number, TRACKING_LENGTH_MAX);
    }
    if let Some(url) = url {
        faults.text("/trackingUrl", url, TRACKING_URL_LENGTH_MAX);
        let authority = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        if authority.is_none_or(|rest| rest.is_empty() || rest.contains(char::is_whitespace)) {
            faults.add("/trackingUrl", "invalid", "must be an https or http URL");
        }
    }
}
