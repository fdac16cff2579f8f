//! Reading stock.

use std::collections::HashMap;

use kernel::{
    actor::Actor,
    clock::Timestamp,
    id::LocationId,
    page::{Page, PageRequest},
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{InventoryLevel, InventoryMovement, store};
use crate::{Error, product::VariantId};

/// Which levels a list shows; all of them by default. Conditions add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InventoryFilter {
    /// Only those of this variant.
    pub variant: Option<VariantId>,
    /// Only those at this location.
    pub location: Option<LocationId>,
    /// Only those changed after this time, and what the minute before it may have had: see [`page::overlapped`](kernel::page::overlapped).
    pub updated_after: Option<Timestamp>,
}

/// Where a page of levels ends: the list runs by time of change, so that what changes while somebody pages is met again at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryLevelKey(Timestamp, VariantId, LocationId);

/// Where a page of a level's movements ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovementKey(i64);

/// The levels, those changed last at the end.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    filter: &InventoryFilter,
    page: &PageRequest<InventoryLevelKey>,
) -> Result<Page<InventoryLevel>, Error> {
    actor.access.require(Scope::InventoryRead)?;
    let visible = actor.access.location_uuids();
    let after = page
        .after
        .as_ref()
        .map(|&InventoryLevelKey(time, variant, location)| (time, variant, location));
    let rows = store::list(
        tx,
        actor.merchant,
        visible.as_deref(),
        filter,
        after,
        page.fetch_count(),
    )
    .await?;
    Ok(Page::from_rows(rows, page, |last| {
        InventoryLevelKey(last.updated_at, last.variant_id, last.location_id)
    }))
}

/// The levels of these variants by variant, for loaders; one that lies nowhere is left out. One statement, however many.
pub async fn levels_of(
    tx: &mut PgConnection,
    actor: &Actor,
    variants: &[VariantId],
) -> Result<HashMap<VariantId, Vec<InventoryLevel>>, Error> {
    actor.access.require(Scope::InventoryRead)?;
    let visible = actor.access.location_uuids();
    let mut levels: HashMap<_, Vec<_>> = HashMap::new();
    for level in store::select_of_variants(tx, actor.merchant, visible.as_deref(), variants).await?
    {
        levels.entry(level.variant_id).or_default().push(level);
    }
    Ok(levels)
}

/// How a level came to be what it is, from its beginning.
pub async fn list_movements(
    tx: &mut PgConnection,
    actor: &Actor,
    variant: VariantId,
    location: LocationId,
    page: &PageRequest<MovementKey>,
) -> Result<Page<InventoryMovement>, Error> {
    actor.access.require(Scope::InventoryRead)?;
    if !actor.access.sees_location(location) {
        return Err(Error::not_found("location", location));
    }
    let after = page.after.map(|MovementKey(version)| version);
    let rows = store::list_movements(
        tx,
        actor.merchant,
        variant,
        location,
        after,
        page.fetch_count(),
    )
    .await?;
    Ok(Page::from_rows(rows, page, |last| {
        MovementKey(last.level_version.number())
    }))
}
