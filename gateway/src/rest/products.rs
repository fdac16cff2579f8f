//! `/v1/products`.

use axum::{extract::State, http::StatusCode};
use commerce::product::{
    self, Product, ProductFilter, ProductId, ProductInput, ProductStatus, UpsertOutcome, Upserted,
};
use kernel::{clock::Timestamp, page::Page};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Services,
    parameters::{KeyHeader, PageParameters, VersionHeader},
};
use crate::edge::{
    Authenticated, Body, IdempotencyKey, IfMatch, Listed, Mutated, Paging, PathId, Resource,
    Versioned,
    fault::{Fault, FaultOfOperation},
};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(list_products, upsert_product))
        .routes(routes!(get_product))
        .routes(routes!(archive_product))
}

impl Versioned for Product {
    fn version(&self) -> i64 {
        self.version.into()
    }
}

impl Versioned for Upserted {
    fn version(&self) -> i64 {
        self.product.version.into()
    }
}

/// Which products to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filters {
    /// Only the product with this external id.
    external_id: Option<String>,
    /// Only products in this state.
    #[param(inline)]
    status: Option<ProductStatus>,
    /// Only products with a variant of this SKU.
    sku: Option<String>,
    /// Only products with a variant of this barcode.
    barcode: Option<String>,
    /// Only products of this brand.
    brand: Option<String>,
    /// Only products changed after this time. What was changed in the minute before it may be shown again, because a change that began
    /// earlier may have been committed later: go on from the newest `updatedAt` that you have, and compare `version`.
    updated_after: Option<Timestamp>,
}

/// List products
#[utoipa::path(
    get, path = "/v1/products", operation_id = "listProducts", tag = "Products",
    params(PageParameters, Filters),
    responses((status = 200, description = "A page of products.", body = Page<Product>)),
    security(("oauth" = ["catalog:read"])),
)]
async fn list_products(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging { page, filters }: Paging<ProductId, Filters>,
) -> Result<Listed<Product>, Fault> {
    let filter = ProductFilter {
        external_id: filters.external_id,
        status: filters.status,
        sku: filters.sku,
        barcode: filters.barcode,
        brand: filters.brand,
        updated_after: filters.updated_after,
    };
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(
        product::list(&mut tx, &actor, &filter, &page).await?,
    ))
}

/// Create or change a product
///
/// Makes the product with this `externalId` what the body says, whether it was there or not. What is left out is emptied; a variant that is left
/// out is archived. A body that changes nothing gives `unchanged`: no new version, no event.
#[utoipa::path(
    post, path = "/v1/products", operation_id = "upsertProduct", tag = "Products",
    params(KeyHeader, VersionHeader),
    request_body = ProductInput,
    responses(
        (status = 200, description = "The product was changed, or was so already.", body = Upserted),
        (status = 201, description = "The product is new.", body = Upserted),
    ),
    security(("oauth" = ["catalog:write"])),
)]
async fn upsert_product(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    key: IdempotencyKey,
    IfMatch(version): IfMatch,
    Body(input): Body<ProductInput>,
) -> Result<Mutated<Upserted>, FaultOfOperation> {
    let upsert = product::Upsert::new(input, version)?;
    let upserted = services.once(&actor, &key, &upsert).await?;
    let status = match upserted.answer.value.outcome {
        UpsertOutcome::Created => StatusCode::CREATED,
        UpsertOutcome::Updated | UpsertOutcome::Unchanged => StatusCode::OK,
    };
    Ok(Mutated { status, ..upserted })
}

/// Get a product
#[utoipa::path(
    get, path = "/v1/products/{productId}", operation_id = "getProduct", tag = "Products",
    params(("productId" = ProductId, Path, description = "The product.")),
    responses((status = 200, description = "The product.", body = Product)),
    security(("oauth" = ["catalog:read"])),
)]
async fn get_product(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Product>,
) -> Result<Resource<Product>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(Resource(product::get(&mut tx, &actor, id).await?))
}

/// Archive a product
///
/// It is no longer sold; orders and stock go on naming it. An upsert brings it back.
#[utoipa::path(
    post, path = "/v1/products/{productId}/archive", operation_id = "archiveProduct", tag = "Products",
    params(("productId" = ProductId, Path, description = "The product."), KeyHeader, VersionHeader),
    responses((status = 200, description = "The product, archived.", body = Product)),
    security(("oauth" = ["catalog:write"])),
)]
async fn archive_product(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<Product>,
    key: IdempotencyKey,
    IfMatch(version): IfMatch,
) -> Result<Mutated<Product>, FaultOfOperation> {
    services
        .once(&actor, &key, &product::Archive::new(id, version))
        .await
}
