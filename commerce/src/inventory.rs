//! Stock: how much of which variant lies where, and the ledger of how it came to be so.
//!
//! A level is what lies at a location (`onHand`), and what of it orders have reserved; the rest is available. Every change of a level is a movement in
//! an append-only ledger, numbered by the level's version, and the movements sum to the level. Whoever changes levels locks their rows
//! first, sorted by variant and location, so that no two transactions wait for each other in a circle.

use async_graphql::{Enum, InputObject, SimpleObject};
use kernel::{
    actor::Access,
    clock::Timestamp,
    id::{AppId, Id, Kind, LocationId, RequestId},
    idempotency::Kept,
    validation::{Faults, Validate},
    version::Version,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    order::{OrderId, card_number},
    product::VariantId,
};

mod change;
pub(crate) mod ledger;
mod read;
mod store;
#[cfg(test)]
mod tests;

pub use change::{Adjust, Set};
pub use read::{InventoryFilter, InventoryLevelKey, MovementKey, levels_of, list, list_movements};

/// How much of a variant lies at a location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct InventoryLevel {
    /// The variant.
    pub variant_id: VariantId,
    /// Where it lies.
    pub location_id: LocationId,
    /// How many pieces lie there.
    #[schema(example = 12)]
    pub on_hand: i32,
    /// How many of them orders have reserved.
    #[schema(example = 2)]
    pub reserved: i32,
    /// How many can be ordered: `onHand` less `reserved`.
    #[schema(example = 10)]
    pub available: i32,
    /// Raised by each movement.
    pub version: Version,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl InventoryLevel {
    /// What names it in events: `{variantId}.{locationId}`.
    pub fn resource_id(&self) -> String {
        format!("{}.{}", self.variant_id, self.location_id)
    }
}

/// Why stock moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, Enum, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[graphql(rename_items = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum MovementReason {
    /// Counted: what lies there was set.
    Set,
    /// Pieces came or went.
    Adjusted,
    /// An order reserved pieces.
    Reserved,
    /// A cancelled order gave its pieces back.
    Released,
    /// Reserved pieces left the location.
    Shipped,
    /// Pieces came back from a customer.
    Returned,
}

impl MovementReason {
    /// As JSON and the database spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Adjusted => "adjusted",
            Self::Reserved => "reserved",
            Self::Released => "released",
            Self::Shipped => "shipped",
            Self::Returned => "returned",
        }
    }
}

impl Kind for InventoryMovement {
    const PREFIX: &'static str = "mov";
}

/// The id of an [`InventoryMovement`]: `mov_…`.
pub type InventoryMovementId = Id<InventoryMovement>;

/// One change of a level; never changed itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct InventoryMovement {
    /// The id.
    pub id: InventoryMovementId,
    /// The variant.
    pub variant_id: VariantId,
    /// Where it lies.
    pub location_id: LocationId,
    /// Why.
    pub reason: MovementReason,
    /// What it added to `onHand`.
    #[schema(example = 0)]
    pub on_hand_delta: i32,
    /// What it added to `reserved`.
    #[schema(example = 2)]
    pub reserved_delta: i32,
    /// The version of the level that it made.
    pub level_version: Version,
    /// The order that it was for.
    #[schema(required)]
    pub order_id: Option<OrderId>,
    /// The app that did it.
    pub app_id: AppId,
    /// The request that did it.
    pub request_id: RequestId,
    /// What the app noted.
    #[schema(required, example = "annual stocktaking")]
    pub note: Option<String>,
    /// When.
    pub occurred_at: Timestamp,
}

/// Levels to set, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InventorySetInput {
    /// What lies where; 1 to 500 entries, each level once.
    pub entries: Vec<InventorySetEntry>,
    /// A note for the ledger.
    #[serde(default)]
    #[schema(example = "annual stocktaking")]
    pub note: Option<String>,
}

/// How many pieces lie at a location.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InventorySetEntry {
    /// The variant.
    pub variant_id: VariantId,
    /// Where it lies.
    pub location_id: LocationId,
    /// How many pieces lie there, reserved ones included.
    #[schema(minimum = 0, maximum = 1_000_000_000, example = 12)]
    pub on_hand: i32,
}

/// Levels to adjust, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InventoryAdjustInput {
    /// What came and went; 1 to 500 entries, each level once.
    pub entries: Vec<InventoryAdjustEntry>,
    /// A note for the ledger.
    #[serde(default)]
    #[schema(example = "delivery 4711")]
    pub note: Option<String>,
}

/// Pieces that came to a location, or went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InventoryAdjustEntry {
    /// The variant.
    pub variant_id: VariantId,
    /// Where it lies.
    pub location_id: LocationId,
    /// How many pieces came, or went if negative.
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000, example = -1)]
    pub delta: i32,
}

/// The levels after a change, in the order of its entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct InventoryChange {
    /// The levels.
    pub levels: Vec<InventoryLevel>,
}

impl Kept for InventoryChange {
    fn visible_to(&self, access: &Access) -> bool {
        self.levels
            .iter()
            .all(|level| access.sees_location(level.location_id))
    }
}

/// Entries of one call at most: bounds what one transaction locks.
pub const ENTRIES_MAX: usize = 500;

/// Pieces that may lie at one location at most: sums of two still fit 32 bits.
pub const ON_HAND_MAX: i32 = 1_000_000_000;

/// Characters of a note at most.
const NOTE_LENGTH_MAX: usize = 500;

impl Validate for InventorySetInput {
    fn validate(&self, faults: &mut Faults) {
        let pairs: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (entry.variant_id, entry.location_id))
            .collect();
        entries_and_note(faults, &pairs, self.note.as_deref());
        for (index, entry) in self.entries.iter().enumerate() {
            if !(0..=ON_HAND_MAX).contains(&entry.on_hand) {
                faults.add(
                    &format!("/entries/{index}/onHand"),
                    "out_of_range",
                    format!("must be from 0 to {ON_HAND_MAX}"),
                );
            }
        }
    }
}

impl Validate for InventoryAdjustInput {
    fn validate(&self, faults: &mut Faults) {
        let pairs: Vec<_> = self
            .entries
            .iter()
            .map(|entry| (entry.variant_id, entry.location_id))
            .collect();
        entries_and_note(faults, &pairs, self.note.as_deref());
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.delta == 0 || !(-ON_HAND_MAX..=ON_HAND_MAX).contains(&entry.delta) {
                let detail = format!("must be from -{ON_HAND_MAX} to {ON_HAND_MAX}, and not 0");
                faults.add(&format!("/entries/{index}/delta"), "out_of_range", detail);
            }
        }
    }
}

fn entries_and_note(faults: &mut Faults, pairs: &[(VariantId, LocationId)], note: Option<&str>) {
    if pairs.is_empty() {
        faults.add("/entries", "required", "must have at least one entry");
    }
    faults.at_most("/entries", pairs, ENTRIES_MAX);
    let mut seen = std::collections::HashSet::new();
    for (index, pair) in pairs.iter().enumerate() {
        if !seen.insert(pair) {
            faults.add(
                &format!("/entries/{index}"),
                "duplicate",
                "an earlier entry names the same variant and location",
            );
        }
    }
    faults.optional_text("/note", note, NOTE_LENGTH_MAX);
    card_number::refuse(faults, "/note", note);
}
