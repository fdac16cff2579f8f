//! Which location each line of an order is taken from: decided in memory, for all lines or for none.

use std::collections::HashMap;

use kernel::id::LocationId;

use crate::{InsufficientLine, inventory::ledger::Ledger, product::VariantId};

/// Finds a location for each line: the first, by id, of those allowed that has enough left after the lines before it. Names every line that can't be
/// filled.
pub(super) fn allocate(
    ledger: &Ledger,
    lines: impl IntoIterator<Item = (VariantId, i32)>,
    allowed: Option<&[LocationId]>,
) -> Result<Vec<LocationId>, Vec<InsufficientLine>> {
    let mut taken: HashMap<(VariantId, LocationId), i32> = HashMap::new();
    let mut places = Vec::new();
    let mut missing = Vec::new();
    for (index, (variant, quantity)) in lines.into_iter().enumerate() {
        let mut most = 0;
        let mut place = None;
        for level in ledger.levels_of(variant) {
            if allowed.is_some_and(|allowed| !allowed.contains(&level.location_id)) {
                continue;
            }
            let left = level.available.saturating_sub(
                taken
                    .get(&(variant, level.location_id))
                    .copied()
                    .unwrap_or(0),
            );
            most = most.max(left);
            if left >= quantity {
                place = Some(level.location_id);
                break;
            }
        }
        if let Some(location) = place {
            let sum = taken.entry((variant, location)).or_insert(0);
            *sum = sum.saturating_add(quantity);
            places.push(location);
        } else {
            missing.push(InsufficientLine {
                index,
                requested: i64::from(quantity),
                available: i64::from(most),
            });
        }
    }
    if missing.is_empty() {
        Ok(places)
    } else {
        Err(missing)
    }
}
