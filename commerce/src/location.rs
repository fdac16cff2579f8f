//! Locations: the places where stock lies and from which orders are shipped.
//!
//! A merchant names its locations by external ids of its own. A grant may be limited to some of them; whoever acts under it sees no others, neither
//! here nor in stock, orders and fulfilments.

use std::collections::{HashMap, HashSet};

use async_graphql::{InputObject, SimpleObject};
use kernel::{
    actor::{Access, Actor},
    clock::Timestamp,
    id::MerchantId,
    idempotency::{self, Call, Kept},
    page::{Page, PageRequest},
    scope::Scope,
    validation::{self, Faults, Validate},
    version::Version,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub use kernel::id::LocationId;

use crate::Error;

mod store;
#[cfg(test)]
mod tests;

/// A place where stock lies and from which orders are shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct Location {
    /// The id.
    pub id: LocationId,
    /// The merchant's own id.
    #[schema(example = "warehouse-north")]
    pub external_id: String,
    /// What people call it.
    #[schema(example = "Warehouse North")]
    pub name: String,
    /// The country as ISO 3166-1 has it, two letters.
    #[schema(required, example = "DE")]
    pub country: Option<String>,
    /// Raised by each change.
    pub version: Version,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A location to create or to change, found by its external id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocationInput {
    /// The merchant's own id.
    #[schema(example = "warehouse-north")]
    pub external_id: String,
    /// What people call it.
    #[schema(example = "Warehouse North")]
    pub name: String,
    /// The country as ISO 3166-1 has it, two letters.
    #[serde(default)]
    #[schema(example = "DE")]
    pub country: Option<String>,
}

/// Characters of an external id at most.
pub const EXTERNAL_ID_LENGTH_MAX: usize = 255;

/// Characters of a name at most.
const NAME_LENGTH_MAX: usize = 200;

impl Validate for LocationInput {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/externalId", &self.external_id, EXTERNAL_ID_LENGTH_MAX);
        faults.text("/name", &self.name, NAME_LENGTH_MAX);
        if let Some(country) = &self.country {
            country_code(faults, "/country", country);
        }
    }
}

/// A country must be two capital letters.
pub(crate) fn country_code(faults: &mut Faults, step: &str, country: &str) {
    if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()) {
        faults.add(
            step,
            "invalid",
            "must be a country code of ISO 3166-1, two capital letters such as DE",
        );
    }
}

impl Kept for Location {
    fn visible_to(&self, access: &Access) -> bool {
        access.sees_location(self.id)
    }
}

/// Where a page of locations ends: the list runs by external id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationKey(String);

/// `location.upsert`: creates a location, or changes the one that has its external id.
#[derive(Debug)]
pub struct Upsert {
    input: LocationInput,
}

impl Upsert {
    /// Checks the input.
    pub fn new(input: LocationInput) -> Result<Self, Error> {
        validation::check(&input).map_err(Error::Invalid)?;
        Ok(Self { input })
    }
}

impl idempotency::Operation for Upsert {
    const NAME: &'static str = "location.upsert";
    const SCOPE: Scope = Scope::LocationsWrite;
    type Input = LocationInput;
    type Output = Location;
    type Error = Error;

    fn input(&self) -> &LocationInput {
        &self.input
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Location, Error> {
        upsert(tx, call.actor, &self.input, call.now).await
    }
}

/// Creates a location, or changes the one that has its external id; an equal input changes nothing. Whoever is limited to locations changes those, and
/// creates none.
pub async fn upsert(
    tx: &mut PgConnection,
    actor: &Actor,
    input: &LocationInput,
    now: Timestamp,
) -> Result<Location, Error> {
    actor.access.require(Scope::LocationsWrite)?;
    let merchant = actor.merchant;
    let mut existing = store::lock_by_external_id(tx, merchant, &input.external_id).await?;
    if existing.is_none() && actor.access.locations.is_none() {
        let location = Location {
            id: LocationId::new(now),
            external_id: input.external_id.clone(),
            name: input.name.clone(),
            country: input.country.clone(),
            version: Version::FIRST,
            created_at: now,
            updated_at: now,
        };
        if store::insert(tx, merchant, &location).await? {
            return Ok(location);
        }
        // A twin was faster; what it made is committed by now.
        existing = store::lock_by_external_id(tx, merchant, &input.external_id).await?;
    }
    let mut location = existing
        .filter(|location| actor.access.sees_location(location.id))
        .ok_or_else(|| Error::not_found("location", &input.external_id))?;
    if location.name != input.name || location.country != input.country {
        location.name.clone_from(&input.name);
        location.country.clone_from(&input.country);
        location.version = location.version.next();
        location.updated_at = location.updated_at.max(now);
        store::update(tx, merchant, &location).await?;
    }
    Ok(location)
}

/// One location.
pub async fn get(tx: &mut PgConnection, actor: &Actor, id: LocationId) -> Result<Location, Error> {
    get_many(tx, actor, &[id])
        .await?
        .remove(&id)
        .ok_or_else(|| Error::not_found("location", id))
}

/// Those of `ids` that are there and visible, for loaders. One statement, however many.
pub async fn get_many(
    tx: &mut PgConnection,
    actor: &Actor,
    ids: &[LocationId],
) -> Result<HashMap<LocationId, Location>, Error> {
    actor.access.require(Scope::LocationsRead)?;
    let found = store::select_many(tx, actor.merchant, ids).await?;
    let visible = found
        .into_iter()
        .filter(|location| actor.access.sees_location(location.id));
    Ok(visible.map(|location| (location.id, location)).collect())
}

/// The locations by external id.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    page: &PageRequest<LocationKey>,
) -> Result<Page<Location>, Error> {
    actor.access.require(Scope::LocationsRead)?;
    let after = page
        .after
        .as_ref()
        .map(|LocationKey(external_id)| external_id.as_str());
    let rows = store::list(
        tx,
        actor.merchant,
        actor.access.location_uuids().as_deref(),
        after,
        page.fetch_count(),
    )
    .await?;
    Ok(Page::from_rows(rows, page, |last| {
        LocationKey(last.external_id.clone())
    }))
}

/// A location, as its merchant's staff choose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationName {
    /// The id.
    pub id: LocationId,
    /// The merchant's own id.
    pub external_id: String,
    /// What people call it.
    pub name: String,
}

/// Locations that are read for staff to choose from. A grant names fifty at most; whoever has more than these has names for groups of them.
const NAMES_MAX: i64 = 1_000;

/// The locations of `merchant` by name, for its staff, who act under no grant. The transaction must have entered the merchant.
pub async fn names(
    tx: &mut PgConnection,
    merchant: MerchantId,
) -> Result<Vec<LocationName>, kernel::db::Error> {
    store::select_names(tx, merchant, NAMES_MAX).await
}

/// Which of `ids` are locations of the merchant.
pub(crate) async fn known(
    tx: &mut PgConnection,
    actor: &Actor,
    ids: &[LocationId],
) -> Result<HashSet<LocationId>, Error> {
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    Ok(store::select_ids(tx, actor.merchant, ids)
        .await?
        .into_iter()
        .collect())
}
