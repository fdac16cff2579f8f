//! Merchants: the tenants. A merchant is made with its key, in one transaction.

use kernel::{
    clock::Timestamp,
    id::MerchantId,
    keyring::Keyring,
    page::{Page, PageRequest},
    validation::{self, Faults, Validate},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::Error;

mod store;

/// Characters of a name, as the table has it.
pub(crate) const NAME_LENGTH_MAX: usize = 200;

/// A merchant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Merchant {
    /// The merchant's id.
    pub id: MerchantId,
    /// What the merchant is called.
    #[schema(example = "Corner Books")]
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What a new merchant is made of.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MerchantInput {
    /// What the merchant is called, 1 to 200 characters.
    #[schema(example = "Corner Books")]
    pub name: String,
}

impl Validate for MerchantInput {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/name", &self.name, NAME_LENGTH_MAX);
    }
}

/// Makes the merchant `id` and its key. The transaction must have entered `id`: a new merchant's key is a tenant's row.
pub async fn create(
    tx: &mut PgConnection,
    keyring: &Keyring,
    id: MerchantId,
    input: MerchantInput,
    now: Timestamp,
) -> Result<Merchant, Error> {
    validation::check(&input).map_err(Error::InvalidFields)?;
    let merchant = Merchant {
        id,
        name: input.name,
        created_at: now,
    };
    store::insert(tx, &merchant).await?;
    keyring.create_merchant_key(tx, id, now).await?;
    Ok(merchant)
}

/// The merchant `id`.
pub async fn get(tx: &mut PgConnection, id: MerchantId) -> Result<Merchant, Error> {
    store::select(tx, id).await?.ok_or_else(|| Error::NotFound {
        noun: "merchant",
        id: id.to_string(),
    })
}

/// Where a page of the merchants ends: they are listed in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MerchantKey(MerchantId);

/// Every merchant of the installation: for the command line.
pub async fn list(
    tx: &mut PgConnection,
    page: &PageRequest<MerchantKey>,
) -> Result<Page<Merchant>, Error> {
    let after = page.after.as_ref().map(|MerchantKey(id)| *id);
    let rows = store::select_page(tx, after, page.fetch_count()).await?;
    Ok(Page::from_rows(rows, page, |last| MerchantKey(last.id)))
}
