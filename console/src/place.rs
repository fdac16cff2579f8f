//! Locations, as people choose them: by name.

use std::collections::HashSet;

use commerce::location;
use kernel::id::{LocationId, MerchantId};

use crate::{Console, failure::Failure};

/// One location.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The location.
    pub(crate) id: LocationId,
    /// What people call it.
    pub(crate) name: String,
}

/// The locations of a shop, by name. Those that share one are told apart by the shop's own ids.
pub(crate) async fn places(console: &Console, merchant: MerchantId) -> Result<Vec<Place>, Failure> {
    let mut tx = console
        .database
        .enter(merchant)
        .await
        .map_err(Failure::of_database)?;
    let names = location::names(&mut tx, merchant)
        .await
        .map_err(Failure::of_database)?;
    let mut once = HashSet::new();
    let twice: HashSet<String> = names
        .iter()
        .filter(|name| !once.insert(name.name.as_str()))
        .map(|name| name.name.clone())
        .collect();
    Ok(names
        .into_iter()
        .map(|name| Place {
            id: name.id,
            name: if twice.contains(&name.name) {
                format!("{} ({})", name.name, name.external_id)
            } else {
                name.name
            },
        })
        .collect())
}

/// The names of `ids`, as far as they are known.
pub(crate) fn names_of(places: &[Place], ids: &[LocationId]) -> Vec<String> {
    let names: Vec<String> = places
        .iter()
        .filter(|place| ids.contains(&place.id))
        .map(|place| place.name.clone())
        .collect();
    let missing = ids.len().saturating_sub(names.len());
    let rest = (missing > 0).then(|| format!("{missing} more"));
    names.into_iter().chain(rest).collect()
}
