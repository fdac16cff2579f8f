//! Archiving: a product that is no longer sold.

use kernel::{
    actor::Actor,
    clock::Timestamp,
    event,
    idempotency::{Call, Operation},
    scope::Scope,
    version::Version,
};
use serde::Serialize;
use sqlx::PgConnection;

use super::{
    Product, ProductId, ProductStatus, store,
    upsert::{Written, content_sha256, product_event},
};
use crate::Error;

/// `product.archive` as an operation.
#[derive(Debug, Clone)]
pub struct Archive {
    input: ArchiveInput,
}

/// What archiving asks for.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveInput {
    /// The product.
    pub product_id: ProductId,
    /// The version that the client expects (`If-Match`).
    pub expected_version: Option<Version>,
}

impl Archive {
    /// Archives `product_id`, if it is at the expected version or none is expected.
    pub const fn new(product_id: ProductId, expected_version: Option<Version>) -> Self {
        Self {
            input: ArchiveInput {
                product_id,
                expected_version,
            },
        }
    }
}

impl Operation for Archive {
    const NAME: &'static str = "product.archive";
    const SCOPE: Scope = Scope::CatalogWrite;
    type Input = ArchiveInput;
    type Output = Product;
    type Error = Error;

    fn input(&self) -> &Self::Input {
        &self.input
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Product, Error> {
        archive(
            tx,
            call.actor,
            self.input.product_id,
            self.input.expected_version,
            call.now,
        )
        .await
    }
}

/// Archives a product: it is no longer sold, and keeps its variants for those who bought them. One that is archived already stays as it is.
pub async fn archive(
    tx: &mut PgConnection,
    actor: &Actor,
    id: ProductId,
    expected_version: Option<Version>,
    now: Timestamp,
) -> Result<Product, Error> {
    actor.access.require(Scope::CatalogWrite)?;
    let aggregate = store::lock_one(tx, actor.merchant, id).await?;
    let mut product = aggregate
        .ok_or_else(|| Error::not_found("product", id))?
        .product;
    if let Some(expected) = expected_version.filter(|&expected| expected != product.version) {
        return Err(Error::VersionMismatch {
            expected: expected.number(),
            current: product.version.number(),
        });
    }
    if product.status == ProductStatus::Archived {
        return Ok(product);
    }
    product.status = ProductStatus::Archived;
    product.version = product.version.next();
    product.updated_at = product.updated_at.max(now);
    let content_sha256 = content_sha256(&product.to_input())?;
    let event = product_event("product.archived", &product)?;
    let written = Written {
        product,
        content_sha256,
    };
    store::update(tx, actor.merchant, &[&written]).await?;
    event::append(tx, actor.merchant, actor.request, now, &[event]).await?;
    Ok(written.product)
}
