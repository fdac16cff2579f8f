//! `/v1/inventory-levels` and the ledger behind them.

use axum::extract::State;
use commerce::{
    inventory::{
        self, InventoryAdjustInput, InventoryChange, InventoryFilter, InventoryLevel,
        InventoryLevelKey, InventoryMovement, InventorySetInput, MovementKey,
    },
    product::VariantId,
};
use kernel::{clock::Timestamp, id::LocationId, page::Page};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Services,
    parameters::{KeyHeader, PageParameters},
};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, Listed, Paging,
    answer::{Done, Mutated},
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_inventory_levels))
        .routes(routes!(set_inventory))
        .routes(routes!(adjust_inventory))
        .routes(routes!(list_inventory_movements))
}

/// Which levels to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LevelFilters {
    /// Only levels of this variant.
    variant_id: Option<VariantId>,
    /// Only levels at this location.
    location_id: Option<LocationId>,
    /// Only levels changed after this time. What was changed in the minute before it may be shown again, because a change that began
    /// earlier may have been committed later: go on from the newest `updatedAt` that you have, and compare `version`.
    updated_after: Option<Timestamp>,
}

/// Which movements to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MovementFilters {
    /// The variant.
    #[param(required)]
    variant_id: Option<VariantId>,
    /// The location.
    #[param(required)]
    location_id: Option<LocationId>,
}

/// List stock levels
#[utoipa::path(
    get, path = "/v1/inventory-levels", operation_id = "listInventoryLevels", tag = "Inventory",
    params(PageParameters, LevelFilters),
    responses((status = 200, description = "A page of levels.", body = Page<InventoryLevel>)),
    security(("oauth" = ["inventory:read"])),
)]
async fn list_inventory_levels(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging { page, filters }: Paging<InventoryLevelKey, LevelFilters>,
) -> Result<Listed<InventoryLevel>, Fault> {
    let filter = InventoryFilter {
        variant: filters.variant_id,
        location: filters.location_id,
        updated_after: filters.updated_after,
    };
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(
        inventory::list(&mut tx, &actor, &filter, &page).await?,
    ))
}

/// Set stock
///
/// Says what lies there, counted just now. All entries or none.
#[utoipa::path(
    post, path = "/v1/inventory-levels/set", operation_id = "setInventory", tag = "Inventory",
    params(KeyHeader),
    request_body = InventorySetInput,
    responses((status = 200, description = "The levels as they are now.", body = InventoryChange)),
    extensions(("x-problem-types" = json!(["stock_out_of_range", "not_found"]))),
    security(("oauth" = ["inventory:write"])),
)]
async fn set_inventory(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    IdempotencyKey(key): IdempotencyKey,
    Body(input): Body<InventorySetInput>,
) -> Result<Done<InventoryChange>, FaultOfOperation> {
    let set = inventory::Set::new(input)?;
    let answer = services.setting.once(actor, key, set).await;
    Ok(Mutated::ok(answer.map_err(Fault::of_operation)?).into())
}

/// Adjust stock
///
/// Adds to what lies there, or takes from it. All entries or none.
#[utoipa::path(
    post, path = "/v1/inventory-levels/adjust", operation_id = "adjustInventory", tag = "Inventory",
    params(KeyHeader),
    request_body = InventoryAdjustInput,
    responses((status = 200, description = "The levels as they are now.", body = InventoryChange)),
    extensions(("x-problem-types" = json!(["stock_out_of_range", "not_found"]))),
    security(("oauth" = ["inventory:write"])),
)]
async fn adjust_inventory(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    IdempotencyKey(key): IdempotencyKey,
    Body(input): Body<InventoryAdjustInput>,
) -> Result<Done<InventoryChange>, FaultOfOperation> {
    let adjust = inventory::Adjust::new(input)?;
    let answer = services.adjusting.once(actor, key, adjust).await;
    Ok(Mutated::ok(answer.map_err(Fault::of_operation)?).into())
}

/// List a level's movements
///
/// The ledger of one variant at one location, oldest first: its deltas sum to the level.
#[utoipa::path(
    get, path = "/v1/inventory-movements", operation_id = "listInventoryMovements", tag = "Inventory",
    params(PageParameters, MovementFilters),
    responses((status = 200, description = "A page of movements.", body = Page<InventoryMovement>)),
    extensions(("x-problem-types" = json!(["not_found"]))),
    security(("oauth" = ["inventory:read"])),
)]
async fn list_inventory_movements(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging { page, filters }: Paging<MovementKey, MovementFilters>,
) -> Result<Listed<InventoryMovement>, Fault> {
    let variant = crate::edge::extract::required("variantId", filters.variant_id)?;
    let location = crate::edge::extract::required("locationId", filters.location_id)?;
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(
        inventory::list_movements(&mut tx, &actor, variant, location, &page).await?,
    ))
}
