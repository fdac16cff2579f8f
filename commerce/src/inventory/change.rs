//! Setting and adjusting levels: all entries of a call, or none.

use std::collections::HashMap;

use kernel::{
    actor::Actor,
    clock::Timestamp,
    event,
    id::LocationId,
    idempotency::{self, Call},
    problem::FieldError,
    scope::Scope,
    validation,
};
use sqlx::PgConnection;

use super::{
    InventoryAdjustInput, InventoryChange, InventorySetInput, MovementReason, ON_HAND_MAX,
    ledger::{Ledger, Movement},
    store,
};
use crate::{
    Error, OutOfRangeEntry, Refusal, location,
    product::{self, VariantId},
};

/// `inventory.set`: says how many pieces lie where.
#[derive(Debug)]
pub struct Set {
    input: InventorySetInput,
}

impl Set {
    /// Checks the input.
    pub fn new(input: InventorySetInput) -> Result<Self, Error> {
        validation::check(&input).map_err(Error::Invalid)?;
        Ok(Self { input })
    }
}

impl idempotency::Operation for Set {
    const NAME: &'static str = "inventory.set";
    const SCOPE: Scope = Scope::InventoryWrite;
    type Input = InventorySetInput;
    type Output = InventoryChange;
    type Error = Error;

    fn input(&self) -> &InventorySetInput {
        &self.input
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<InventoryChange, Error> {
        let entries: Vec<_> = self
            .input
            .entries
            .iter()
            .map(|entry| Entry {
                pair: (entry.variant_id, entry.location_id),
                on_hand: OnHand::Absolute(entry.on_hand),
            })
            .collect();
        change(
            tx,
            call.actor,
            &entries,
            self.input.note.as_deref(),
            call.now,
        )
        .await
    }
}

/// `inventory.adjust`: says how many pieces came and went.
#[derive(Debug)]
pub struct Adjust {
    input: InventoryAdjustInput,
}

impl Adjust {
    /// Checks the input.
    pub fn new(input: InventoryAdjustInput) -> Result<Self, Error> {
        validation::check(&input).map_err(Error::Invalid)?;
        Ok(Self { input })
    }
}

impl idempotency::Operation for Adjust {
    const NAME: &'static str = "inventory.adjust";
    const SCOPE: Scope = Scope::InventoryWrite;
    type Input = InventoryAdjustInput;
    type Output = InventoryChange;
    type Error = Error;

    fn input(&self) -> &InventoryAdjustInput {
        &self.input
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<InventoryChange, Error> {
        let entries: Vec<_> = self
            .input
            .entries
            .iter()
            .map(|entry| Entry {
                pair: (entry.variant_id, entry.location_id),
                on_hand: OnHand::Delta(entry.delta),
            })
            .collect();
        change(
            tx,
            call.actor,
            &entries,
            self.input.note.as_deref(),
            call.now,
        )
        .await
    }
}

struct Entry {
    pair: (VariantId, LocationId),
    on_hand: OnHand,
}

enum OnHand {
    Absolute(i32),
    Delta(i32),
}

async fn change(
    tx: &mut PgConnection,
    actor: &Actor,
    entries: &[Entry],
    note: Option<&str>,
    now: Timestamp,
) -> Result<InventoryChange, Error> {
    actor.access.require(Scope::InventoryWrite)?;
    require_known(tx, actor, entries).await?;
    let mut pairs: Vec<_> = entries.iter().map(|entry| entry.pair).collect();
    pairs.sort_unstable();
    store::insert_missing(tx, actor.merchant, &pairs, now).await?;
    let mut ledger = Ledger::lock_pairs(tx, actor.merchant, &pairs).await?;
    let mut refused = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (variant, location) = entry.pair;
        // Every pair is there by now, and levels are never deleted.
        let Some(level) = ledger.level(variant, location) else {
            continue;
        };
        let (delta, reason, field) = match entry.on_hand {
            OnHand::Absolute(on_hand) => (
                on_hand.saturating_sub(level.on_hand),
                MovementReason::Set,
                "onHand",
            ),
            OnHand::Delta(delta) => (delta, MovementReason::Adjusted, "delta"),
        };
        let on_hand = i64::from(level.on_hand) + i64::from(delta);
        if !(i64::from(level.reserved)..=i64::from(ON_HAND_MAX)).contains(&on_hand) {
            refused.push(OutOfRangeEntry {
                index,
                field: field.to_owned(),
                on_hand,
                reserved: i64::from(level.reserved),
                maximum: i64::from(ON_HAND_MAX),
            });
        } else if delta == 0 {
            ledger.begin(variant, location, actor.request, now);
        } else {
            let movement = Movement {
                variant,
                location,
                reason,
                on_hand_delta: delta,
                reserved_delta: 0,
                order: None,
                app: actor.app,
                request: actor.request,
                note,
            };
            ledger.record(&movement, now);
        }
    }
    if !refused.is_empty() {
        return Err(Refusal::StockOutOfRange { entries: refused }.into());
    }
    let levels = entries
        .iter()
        .filter_map(|entry| ledger.level(entry.pair.0, entry.pair.1))
        .cloned()
        .collect();
    let events: Vec<_> = ledger
        .write(tx, actor.merchant)
        .await?
        .into_iter()
        .map(|(_, event)| event)
        .collect();
    event::append(tx, actor.merchant, actor.request, now, &events).await?;
    Ok(InventoryChange { levels })
}

/// Every variant must be the merchant's, and every location too, and visible to the actor.
async fn require_known(
    tx: &mut PgConnection,
    actor: &Actor,
    entries: &[Entry],
) -> Result<(), Error> {
    let mut variants: Vec<VariantId> = entries.iter().map(|entry| entry.pair.0).collect();
    variants.sort_unstable();
    variants.dedup();
    let mut locations: Vec<LocationId> = entries.iter().map(|entry| entry.pair.1).collect();
    locations.sort_unstable();
    locations.dedup();
    let known_variants: HashMap<_, _> =
        product::find_for_sale(tx, actor.merchant, &variants).await?;
    let known_locations = location::known(tx, actor, &locations).await?;
    let mut errors = Vec::new();
    for (
        index,
        Entry {
            pair: (variant, location),
            ..
        },
    ) in entries.iter().enumerate()
    {
        if !known_variants.contains_key(variant) {
            let detail = format!("there is no variant {variant}");
            errors.push(FieldError::at(
                format!("/entries/{index}/variantId"),
                "not_found",
                detail,
            ));
        }
        if !known_locations.contains(location) || !actor.access.sees_location(*location) {
            let detail = format!("there is no location {location}");
            errors.push(FieldError::at(
                format!("/entries/{index}/locationId"),
                "not_found",
                detail,
            ));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(errors))
    }
}
