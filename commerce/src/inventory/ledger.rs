//! Levels under lock, what moves in them, and how that is written: by orders, fulfilments and changes of stock alike.
//!
//! A [`Ledger`] holds the rows that its transaction has locked, and those that it makes. Movements are recorded in memory, each raising its level's
//! version, and written by arrays: one statement for the levels that were there, one for the new ones, one for the movements, whatever their number. A
//! level's events tell where it ends, not every step.

use std::collections::BTreeMap;

use kernel::{
    clock::Timestamp,
    event::{NewEvent, ResourceRef},
    id::{AppId, LocationId, MerchantId, RequestId},
    scope::Scope,
    version::Version,
};
use sqlx::PgConnection;

use super::{InventoryLevel, InventoryMovement, InventoryMovementId, MovementReason, store};
use crate::{Error, order::OrderId, product::VariantId};

/// Levels that this transaction has locked, and new ones.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    levels: BTreeMap<(VariantId, LocationId), Entry>,
    movements: Vec<InventoryMovement>,
}

#[derive(Debug)]
struct Entry {
    level: InventoryLevel,
    /// What was available when the row was locked.
    available_before: i32,
    /// Whether the row is made by this transaction.
    is_new: bool,
    /// Who changed it last; nobody has if `None`.
    changed_by: Option<RequestId>,
}

/// What moves, and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Movement<'m> {
    pub(crate) variant: VariantId,
    pub(crate) location: LocationId,
    pub(crate) reason: MovementReason,
    pub(crate) on_hand_delta: i32,
    pub(crate) reserved_delta: i32,
    pub(crate) order: Option<OrderId>,
    pub(crate) app: AppId,
    pub(crate) request: RequestId,
    pub(crate) note: Option<&'m str>,
}

impl Ledger {
    /// Locks every level of these variants, at these locations or at all.
    pub(crate) async fn lock_variants(
        tx: &mut PgConnection,
        merchant: MerchantId,
        variants: &[VariantId],
        locations: Option<&[LocationId]>,
    ) -> Result<Self, Error> {
        if variants.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self::from_rows(
            store::lock_variants(tx, merchant, variants, locations).await?,
        ))
    }

    /// Locks the levels of these pairs.
    pub(crate) async fn lock_pairs(
        tx: &mut PgConnection,
        merchant: MerchantId,
        pairs: &[(VariantId, LocationId)],
    ) -> Result<Self, Error> {
        if pairs.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self::from_rows(
            store::lock_pairs(tx, merchant, pairs).await?,
        ))
    }

    fn from_rows(rows: Vec<InventoryLevel>) -> Self {
        let levels = rows.into_iter().map(|level| {
            let entry = Entry {
                available_before: level.available,
                is_new: false,
                changed_by: None,
                level,
            };
            ((entry.level.variant_id, entry.level.location_id), entry)
        });
        Self {
            levels: levels.collect(),
            movements: Vec::new(),
        }
    }

    /// A level as it is by now.
    pub(crate) fn level(
        &self,
        variant: VariantId,
        location: LocationId,
    ) -> Option<&InventoryLevel> {
        self.levels
            .get(&(variant, location))
            .map(|entry| &entry.level)
    }

    /// The levels of a variant, by location.
    pub(crate) fn levels_of(&self, variant: VariantId) -> impl Iterator<Item = &InventoryLevel> {
        let first = LocationId::from_uuid(uuid::Uuid::nil());
        let last = LocationId::from_uuid(uuid::Uuid::max());
        self.levels
            .range((variant, first)..=(variant, last))
            .map(|(_, entry)| &entry.level)
    }

    /// Takes up levels that are not there yet, with nothing in them. Those with which something is begun are made when this is written.
    pub(crate) fn add_missing(
        &mut self,
        pairs: impl IntoIterator<Item = (VariantId, LocationId)>,
        now: Timestamp,
    ) {
        for (variant, location) in pairs {
            let level = InventoryLevel {
                variant_id: variant,
                location_id: location,
                on_hand: 0,
                reserved: 0,
                available: 0,
                version: Version::new(0),
                updated_at: now,
            };
            let entry = Entry {
                available_before: 0,
                is_new: true,
                changed_by: None,
                level,
            };
            self.levels.entry((variant, location)).or_insert(entry);
        }
    }

    /// Moves stock. The caller has made sure that `0 <= reserved <= onHand` holds afterwards; the table's check does too.
    pub(crate) fn record(&mut self, movement: &Movement<'_>, now: Timestamp) {
        let Some(entry) = self.levels.get_mut(&(movement.variant, movement.location)) else {
            return;
        };
        let level = &mut entry.level;
        level.on_hand = level.on_hand.saturating_add(movement.on_hand_delta);
        level.reserved = level.reserved.saturating_add(movement.reserved_delta);
        level.available = level.on_hand.saturating_sub(level.reserved);
        entry.touch(movement.request, now);
        self.movements.push(InventoryMovement {
            id: InventoryMovementId::new(now),
            variant_id: movement.variant,
            location_id: movement.location,
            reason: movement.reason,
            on_hand_delta: movement.on_hand_delta,
            reserved_delta: movement.reserved_delta,
            level_version: entry.level.version,
            order_id: movement.order,
            app_id: movement.app,
            request_id: movement.request,
            note: movement.note.map(str::to_owned),
            occurred_at: now,
        });
    }

    /// Notes that a level has come into being without a movement: nothing lies there, and that was said.
    pub(crate) fn begin(
        &mut self,
        variant: VariantId,
        location: LocationId,
        request: RequestId,
        now: Timestamp,
    ) {
        if let Some(entry) = self.levels.get_mut(&(variant, location))
            && entry.is_new
            && entry.changed_by.is_none()
        {
            entry.touch(request, now);
        }
    }

    /// Writes what has changed, and says what is to be told of it, with the request that changed it.
    pub(crate) async fn write(
        self,
        tx: &mut PgConnection,
        merchant: MerchantId,
    ) -> Result<Vec<(RequestId, NewEvent)>, Error> {
        let changed: Vec<(RequestId, &Entry)> = self
            .levels
            .values()
            .filter_map(|entry| entry.changed_by.map(|request| (request, entry)))
            .collect();
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let levels_of = |is_new: bool| -> Vec<&InventoryLevel> {
            let alike = changed.iter().filter(|(_, entry)| entry.is_new == is_new);
            alike.map(|(_, entry)| &entry.level).collect()
        };
        store::insert_levels(tx, merchant, &levels_of(true)).await?;
        store::update_levels(tx, merchant, &levels_of(false)).await?;
        store::insert_movements(tx, merchant, &self.movements).await?;
        let mut events = Vec::with_capacity(changed.len());
        for (request, entry) in changed {
            for kind in entry.event_kinds() {
                events.push((request, level_event(kind, &entry.level)?));
            }
        }
        Ok(events)
    }
}

impl Entry {
    fn touch(&mut self, request: RequestId, now: Timestamp) {
        self.level.version = self.level.version.next();
        // Clocks differ, the lock does not: a later version is never of an earlier time.
        self.level.updated_at = self.level.updated_at.max(now);
        self.changed_by = Some(request);
    }

    fn event_kinds(&self) -> impl Iterator<Item = &'static str> {
        let crossed = match (self.available_before, self.level.available) {
            (1.., ..=0) => Some("inventory.exhausted"),
            // What never lay there before is not back.
            (..=0, 1..) if !self.is_new => Some("inventory.restocked"),
            _ => None,
        };
        std::iter::once("inventory.level_changed").chain(crossed)
    }
}

fn level_event(kind: &'static str, level: &InventoryLevel) -> Result<NewEvent, Error> {
    Ok(NewEvent {
        kind,
        resource: ResourceRef {
            kind: "inventory_level",
            id: level.resource_id(),
            version: level.version.number(),
        },
        scope: Scope::InventoryRead,
        locations: vec![level.location_id],
        data: crate::order::to_json(level)?,
        personal: None,
    })
}
