//! `/v1/locations`.

use axum::extract::State;
use commerce::location::{self, Location, LocationId, LocationInput, LocationKey};
use kernel::page::Page;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Services,
    parameters::{KeyHeader, PageParameters},
};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, Listed, Mutated, Paging, PathId, Resource, Versioned,
    extract::NoFilters,
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_locations, upsert_location))
        .routes(routes!(get_location))
}

impl Versioned for Location {
    fn version(&self) -> i64 {
        self.version.into()
    }
}

/// List locations
#[utoipa::path(
    get, path = "/v1/locations", operation_id = "listLocations", tag = "Locations",
    params(PageParameters),
    responses((status = 200, description = "A page of locations.", body = Page<Location>)),
    security(("oauth" = ["locations:read"])),
)]
async fn list_locations(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging {
        page,
        filters: NoFilters {},
    }: Paging<LocationKey, NoFilters>,
) -> Result<Listed<Location>, Fault> {
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(location::list(&mut tx, &actor, &page).await?))
}

/// Create or change a location
///
/// Makes the location with this `externalId` what the body says, whether it was there or not.
#[utoipa::path(
    post, path = "/v1/locations", operation_id = "upsertLocation", tag = "Locations",
    params(KeyHeader),
    request_body = LocationInput,
    responses((status = 200, description = "The location.", body = Location)),
    extensions(("x-problem-types" = json!(["not_found"]))),
    security(("oauth" = ["locations:write"])),
)]
async fn upsert_location(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    key: IdempotencyKey,
    Body(input): Body<LocationInput>,
) -> Result<Mutated<Location>, FaultOfOperation> {
    services
        .once(&actor, &key, &location::Upsert::new(input)?)
        .await
}

/// Get a location
#[utoipa::path(
    get, path = "/v1/locations/{locationId}", operation_id = "getLocation", tag = "Locations",
    params(("locationId" = LocationId, Path, description = "The location.")),
    responses((status = 200, description = "The location.", body = Location)),
    security(("oauth" = ["locations:read"])),
)]
async fn get_location(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<kernel::id::Location>,
) -> Result<Resource<Location>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(Resource(location::get(&mut tx, &actor, id).await?))
}
