//! Setting and adjusting levels: all entries of a call, or none. Calls that come at once are decided as a group.

use std::collections::{BTreeSet, HashSet};

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

    fn change<'c>(&'c self, call: Call<'c>) -> Change<'c> {
        let entries = self.input.entries.iter().map(|entry| Entry {
            pair: (entry.variant_id, entry.location_id),
            on_hand: OnHand::Absolute(entry.on_hand),
        });
        Change {
            call,
            entries: entries.collect(),
            note: self.input.note.as_deref(),
        }
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

    fn weight(&self) -> usize {
        self.input.entries.len()
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<InventoryChange, Error> {
        change(tx, self.change(call)).await
    }

    async fn run_many<'m>(
        tx: &'m mut PgConnection,
        members: &'m [(&'m Self, Call<'m>)],
    ) -> Result<Vec<Result<InventoryChange, Error>>, Error> {
        let changes = members.iter().map(|(set, call)| set.change(*call));
        change_many(tx, &changes.collect::<Vec<_>>()).await
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

    fn change<'c>(&'c self, call: Call<'c>) -> Change<'c> {
        let entries = self.input.entries.iter().map(|entry| Entry {
            pair: (entry.variant_id, entry.location_id),
            on_hand: OnHand::Delta(entry.delta),
        });
        Change {
            call,
            entries: entries.collect(),
            note: self.input.note.as_deref(),
        }
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

    fn weight(&self) -> usize {
        self.input.entries.len()
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<InventoryChange, Error> {
        change(tx, self.change(call)).await
    }

    async fn run_many<'m>(
        tx: &'m mut PgConnection,
        members: &'m [(&'m Self, Call<'m>)],
    ) -> Result<Vec<Result<InventoryChange, Error>>, Error> {
        let changes = members.iter().map(|(adjust, call)| adjust.change(*call));
        change_many(tx, &changes.collect::<Vec<_>>()).await
    }
}

/// What one call wants.
struct Change<'c> {
    call: Call<'c>,
    entries: Vec<Entry>,
    note: Option<&'c str>,
}

impl Change<'_> {
    fn pairs(&self) -> impl Iterator<Item = Pair> {
        self.entries.iter().map(|entry| entry.pair)
    }
}

type Pair = (VariantId, LocationId);

struct Entry {
    pair: Pair,
    on_hand: OnHand,
}

enum OnHand {
    Absolute(i32),
    Delta(i32),
}

/// One call: a group of one.
async fn change(tx: &mut PgConnection, change: Change<'_>) -> Result<InventoryChange, Error> {
    let mut results = change_many(tx, &[change]).await?;
    results
        .pop()
        .unwrap_or_else(|| Err(Error::not_found("inventory_level", "in an empty group")))
}

/// Several calls of one merchant, in the order of arrival. Each is done or refused as if it had come alone after those before it, all of its entries or none;
/// an error of the whole means that nothing may be committed.
async fn change_many(
    tx: &mut PgConnection,
    changes: &[Change<'_>],
) -> Result<Vec<Result<InventoryChange, Error>>, Error> {
    let Some(Change { call: first, .. }) = changes.first() else {
        return Ok(Vec::new());
    };
    let merchant = first.actor.merchant;
    let now = changes.iter().map(|change| change.call.now);
    let now = now.max().unwrap_or(first.now);
    let (mut ledger, unknown) = lock(tx, first.actor, changes, now).await?;
    let results = changes
        .iter()
        .map(|change| {
            change.call.actor.access.require(Scope::InventoryWrite)?;
            unknown.refuse(change)?;
            decide(&mut ledger, change)
        })
        .collect();
    let told = ledger.write(tx, merchant).await?;
    let (requests, events): (Vec<_>, Vec<_>) = told.into_iter().unzip();
    event::append_for(tx, merchant, &requests, now, &events).await?;
    Ok(results)
}

/// What a group names and the merchant has not.
struct Unknown {
    variants: HashSet<VariantId>,
    locations: HashSet<LocationId>,
}

/// Locks the levels that a group names, and takes up those that are missing.
///
/// Levels are never deleted, nor are the variants and locations that they are of: so only what has no level yet is looked for in the catalog.
async fn lock(
    tx: &mut PgConnection,
    actor: &Actor,
    changes: &[Change<'_>],
    now: Timestamp,
) -> Result<(Ledger, Unknown), Error> {
    let pairs: BTreeSet<Pair> = changes.iter().flat_map(Change::pairs).collect();
    let mut pairs: Vec<Pair> = pairs.into_iter().collect();
    let mut ledger = Ledger::lock_pairs(tx, actor.merchant, &pairs).await?;
    pairs.retain(|(variant, location)| ledger.level(*variant, *location).is_none());

    let mut variants: Vec<VariantId> = pairs.iter().map(|pair| pair.0).collect();
    variants.dedup();
    let known = product::find_for_sale(tx, actor.merchant, &variants).await?;
    variants.retain(|variant| !known.contains_key(variant));
    let mut locations: Vec<LocationId> = pairs.iter().map(|pair| pair.1).collect();
    locations.sort_unstable();
    locations.dedup();
    let known = location::known(tx, actor, &locations).await?;
    locations.retain(|location| !known.contains(location));

    let unknown = Unknown {
        variants: variants.into_iter().collect(),
        locations: locations.into_iter().collect(),
    };
    pairs.retain(|(variant, location)| {
        !unknown.variants.contains(variant) && !unknown.locations.contains(location)
    });
    ledger.add_missing(pairs, now);
    Ok((ledger, unknown))
}

impl Unknown {
    /// Refuses a call that names what is not there, or what its caller does not see.
    fn refuse(&self, change: &Change<'_>) -> Result<(), Error> {
        let access = &change.call.actor.access;
        let mut errors = Vec::new();
        for (index, entry) in change.entries.iter().enumerate() {
            let (variant, location) = entry.pair;
            if self.variants.contains(&variant) {
                errors.push(FieldError::at(
                    format!("/entries/{index}/variantId"),
                    "not_found",
                    format!("there is no variant {variant}"),
                ));
            }
            if self.locations.contains(&location) || !access.sees_location(location) {
                errors.push(FieldError::at(
                    format!("/entries/{index}/locationId"),
                    "not_found",
                    format!("there is no location {location}"),
                ));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(errors))
        }
    }
}

/// Changes levels in memory, or refuses the call and leaves the ledger as it was.
fn decide(ledger: &mut Ledger, change: &Change<'_>) -> Result<InventoryChange, Error> {
    let Change {
        call,
        entries,
        note,
    } = change;
    let mut deltas = Vec::with_capacity(entries.len());
    let mut refused = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (variant, location) = entry.pair;
        // Every pair is there by now.
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
        if (i64::from(level.reserved)..=i64::from(ON_HAND_MAX)).contains(&on_hand) {
            deltas.push((entry.pair, delta, reason));
        } else {
            refused.push(OutOfRangeEntry {
                index,
                field: field.to_owned(),
                on_hand,
                reserved: i64::from(level.reserved),
                maximum: i64::from(ON_HAND_MAX),
            });
        }
    }
    if !refused.is_empty() {
        return Err(Refusal::StockOutOfRange { entries: refused }.into());
    }
    let Actor { app, request, .. } = *call.actor;
    for ((variant, location), delta, reason) in deltas {
        if delta == 0 {
            ledger.begin(variant, location, request, call.now);
        } else {
            let movement = Movement {
                variant,
                location,
                reason,
                on_hand_delta: delta,
                reserved_delta: 0,
                order: None,
                app,
                request,
                note: *note,
            };
            ledger.record(&movement, call.now);
        }
    }
    let levels = entries
        .iter()
        .filter_map(|entry| ledger.level(entry.pair.0, entry.pair.1))
        .cloned()
        .collect();
    Ok(InventoryChange { levels })
}
