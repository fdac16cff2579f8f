//! Orders: what was bought, at which price, from where, and how far it has come.
//!
//! Placed by [`place_many`] in groups (and by [`place`] as a group of one), which reserves the stock of every line or of none in the transaction that
//! writes the order. An order is a state machine whose transitions are written down in [`transition`]; each is recorded with who and why.
//! Names, addresses and contacts are sealed under the customer's key. Results hold none of them: [`reveal`] adds them for those who may see them.

use std::borrow::Cow;

use async_graphql::{Enum, InputObject, SimpleObject};
use kernel::{
    actor::Access,
    clock::Timestamp,
    id::{DataSubjectId, Id, Kind, LocationId},
    idempotency::Kept,
    money::Money,
    version::Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::product::VariantId;

mod allocation;
mod cancel;
pub(crate) mod card_number;
mod events;
mod input;
mod personal;
mod place;
mod read;
pub(crate) mod store;
#[cfg(test)]
pub(crate) mod tests;
pub mod transition;

pub(crate) use cancel::lock;
pub use cancel::{Cancel, CancelRequest, cancel};
pub(crate) use events::{event, to_json};
pub use input::{EXTERNAL_ID_LENGTH_MAX, LINES_MAX, QUANTITY_MAX};
pub(crate) use personal::{CUSTOMER_CONTEXT, email_index};
pub use personal::{has_more_to_reveal, reveal};
pub use place::{Place, place, place_many};
pub(crate) use read::require_visible;
pub use read::{OrderFilter, OrderKey, get, get_many, list, transitions};

impl Kind for Order {
    const PREFIX: &'static str = "ord";
}

/// The id of an [`Order`]: `ord_…`.
pub type OrderId = Id<Order>;

/// The id of a customer: `cus_…`.
pub type CustomerId = DataSubjectId;

/// What somebody has bought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
#[graphql(name = "OrderFields")]
pub struct Order {
    /// The id.
    pub id: OrderId,
    /// The merchant's or the app's own id, unique among the merchant's orders.
    #[schema(required, example = "W-2026-000123")]
    pub external_id: Option<String>,
    /// How far it has come.
    pub status: OrderStatus,
    /// The ISO 4217 code of every amount in it.
    #[schema(example = "EUR")]
    pub currency: String,
    /// What all lines cost together.
    pub total: Money,
    /// What was bought.
    #[graphql(skip)] // the GraphQL schema has its lines with what belongs to other aggregates
    pub lines: Vec<OrderLine>,
    /// Who bought it, if that was said.
    #[schema(required)]
    pub customer_id: Option<CustomerId>,
    /// The customer's name and contacts as given with this order; null to those who may not see personal data, and after erasure.
    #[schema(required)]
    pub customer: Option<Contact>,
    /// Where it goes; null to those who may not see personal data, and after erasure.
    #[schema(required)]
    pub shipping_address: Option<Address>,
    /// Raised by each change.
    pub version: Version,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
#[graphql(name = "OrderLineFields")] // the GraphQL schema adds what belongs to other aggregates, under the name of OrderLine
pub struct OrderLine {
    /// Its number in the order, from 1.
    #[schema(example = 1)]
    pub line: i32,
    /// What was bought.
    pub variant_id: VariantId,
    /// The variant's SKU when the order was placed.
    #[schema(required, example = "SHIRT-1-M")]
    pub sku: Option<String>,
    /// The product's title and the variant's options when the order was placed.
    #[schema(example = "Linen shirt (M)")]
    pub title: String,
    /// How many pieces.
    #[schema(example = 2)]
    pub quantity: i32,
    /// How many of them were shipped.
    #[schema(example = 0)]
    pub fulfilled_quantity: i32,
    /// What a piece costs.
    pub unit_price: Money,
    /// What the line costs.
    pub total: Money,
    /// Where it is shipped from.
    pub location_id: LocationId,
}

/// How far an order has come.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, Enum, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[graphql(rename_items = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum OrderStatus {
    /// Its stock is reserved.
    Placed,
    /// Some of it was shipped.
    PartiallyFulfilled,
    /// All of it was shipped.
    Fulfilled,
    /// It was given up, and its stock given back.
    Cancelled,
}

impl OrderStatus {
    /// Every status there is.
    pub const ALL: &[Self] = &[
        Self::Placed,
        Self::PartiallyFulfilled,
        Self::Fulfilled,
        Self::Cancelled,
    ];

    /// As JSON and the database spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::PartiallyFulfilled => "partially_fulfilled",
            Self::Fulfilled => "fulfilled",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A person's name and contacts.
#[derive(
    Debug,
    Clone,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    ToSchema,
    SimpleObject,
    InputObject,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[graphql(input_name = "ContactInput")]
pub struct Contact {
    /// The name.
    #[serde(default)]
    #[schema(example = "Ada Lovelace")]
    pub name: Option<String>,
    /// The e-mail address; orders with an equal one belong to one customer.
    #[serde(default)]
    #[schema(example = "ada@example.com")]
    pub email: Option<String>,
    /// The telephone number.
    #[serde(default)]
    #[schema(example = "+44 20 7946 0000")]
    pub phone: Option<String>,
}

/// A postal address.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject, InputObject,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[graphql(input_name = "AddressInput")]
pub struct Address {
    /// Who receives it.
    #[serde(default)]
    #[schema(example = "Ada Lovelace")]
    pub name: Option<String>,
    /// The company.
    #[serde(default)]
    pub company: Option<String>,
    /// Street and number.
    #[schema(example = "12 St James's Square")]
    pub line1: String,
    /// Floor, flat, care of.
    #[serde(default)]
    pub line2: Option<String>,
    /// The postal code.
    #[serde(default)]
    #[schema(example = "SW1Y 4JH")]
    pub postal_code: Option<String>,
    /// The city.
    #[schema(example = "London")]
    pub city: String,
    /// The state, province or region.
    #[serde(default)]
    pub region: Option<String>,
    /// The country as ISO 3166-1 has it, two letters.
    #[schema(example = "GB")]
    pub country: String,
}

/// An order to place. Prices are the catalog's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderInput {
    /// An id of your own, unique among the merchant's orders.
    #[serde(default)]
    #[schema(example = "W-2026-000123")]
    pub external_id: Option<String>,
    /// Where every line is to be shipped from; left out, each line is taken from the first location that has enough of it.
    #[serde(default)]
    pub location_id: Option<LocationId>,
    /// What is bought: 1 to 250 lines, all in one currency.
    pub lines: Vec<OrderLineInput>,
    /// Who buys it.
    #[serde(default)]
    pub customer: Option<Contact>,
    /// Where it goes.
    #[serde(default)]
    pub shipping_address: Option<Address>,
}

/// A line of an order to place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderLineInput {
    /// What is bought.
    pub variant_id: VariantId,
    /// How many pieces.
    #[schema(minimum = 1, maximum = 1_000_000, example = 2)]
    pub quantity: i32,
}

/// Why an order is cancelled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderCancelInput {
    /// Why, for the order's history; no personal data.
    #[serde(default)]
    #[schema(example = "customer changed their mind")]
    pub reason: Option<String>,
}

/// A step in an order's history: who did what, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct OrderTransition {
    /// The order's version that it made.
    pub order_version: Version,
    /// What was done: `place`, `cancel`, `fulfill`.
    #[schema(example = "cancel")]
    pub command: String,
    /// The status before; null at the beginning.
    #[schema(required)]
    pub from_status: Option<OrderStatus>,
    /// The status after.
    pub to_status: OrderStatus,
    /// Why, if that was said.
    #[schema(required)]
    pub reason: Option<String>,
    /// The app that did it.
    pub app_id: kernel::id::AppId,
    /// The request that did it.
    pub request_id: kernel::id::RequestId,
    /// When.
    pub occurred_at: Timestamp,
}

impl Order {
    /// The locations that its lines are shipped from, each once, sorted.
    pub fn locations(&self) -> Vec<LocationId> {
        let mut locations: Vec<_> = self.lines.iter().map(|line| line.location_id).collect();
        locations.sort_unstable();
        locations.dedup();
        locations
    }
}

impl Kept for Order {
    fn visible_to(&self, access: &Access) -> bool {
        access.sees_any_location(&self.locations())
    }

    fn without_secrets(&self) -> Cow<'_, Self> {
        if self.customer.is_none() && self.shipping_address.is_none() {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Self {
            customer: None,
            shipping_address: None,
            ..self.clone()
        })
    }
}
