//! Products and their variants: what a merchant sells.
//!
//! Called by REST, GraphQL, imports and orders. A product is known by the merchant's own `externalId`, and [`upsert_many`] makes it what the
//! input says, whether it was there or not. Invariants:
//!
//! - An upsert whose content is what is stored changes nothing: no version, no event. Every other change raises the version by one and
//!   appends one event of that version.
//! - Whoever writes a product or its variants holds the lock of the product's row.
//! - Nothing is deleted: orders and stock go on naming what was sold once. What is no longer sold is archived.

use std::{borrow::Cow, collections::HashMap};

use async_graphql::{Enum, InputObject, SimpleObject};
use kernel::{
    actor::{Access, Actor},
    clock::Timestamp,
    id::{Id, Kind, MerchantId},
    idempotency::Kept,
    money::Money,
    page::{Page, PageRequest},
    scope::Scope,
    version::Version,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::Error;

mod archive;
mod input;
mod store;
#[cfg(test)]
mod tests;
mod upsert;

pub use archive::{Archive, ArchiveInput, archive};
pub use input::{
    ATTRIBUTES_MAX, EXTERNAL_ID_CHARACTERS_MAX, MEDIA_MAX, OPTIONS_MAX, PRICE_MINOR_MAX, TAGS_MAX,
    TITLE_CHARACTERS_MAX, VARIANTS_MAX, WEIGHT_GRAMS_MAX,
};
pub use upsert::{Decided, Upsert, UpsertInput, upsert, upsert_many};

impl Kind for Product {
    const PREFIX: &'static str = "prod";
}

/// The id of a [`Product`]: `prod_…`.
pub type ProductId = Id<Product>;

impl Kind for Variant {
    const PREFIX: &'static str = "var";
}

/// The id of a [`Variant`]: `var_…`.
pub type VariantId = Id<Variant>;

/// Something that a merchant sells, in one or several variants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// Our id.
    #[schema(value_type = ProductId)]
    pub id: ProductId,
    /// The merchant's own id, unique among the merchant's products.
    #[schema(example = "SHIRT-1")]
    pub external_id: String,
    /// What it is called.
    #[schema(example = "Linen shirt")]
    pub title: String,
    /// What there is to say about it; plain text or HTML, as the merchant wrote it.
    #[schema(required)]
    pub description: Option<String>,
    /// Who makes it.
    #[schema(required)]
    pub brand: Option<String>,
    /// Where it belongs, as the merchant names it: `Apparel > Shirts`.
    #[schema(required)]
    pub category: Option<String>,
    /// Whether it is sold.
    pub status: ProductStatus,
    /// Words to find it by, in the order given.
    pub tags: Vec<String>,
    /// What its variants differ in.
    pub options: Vec<ProductOption>,
    /// Further facts, in the order given.
    pub attributes: Vec<Attribute>,
    /// Pictures and films, in the order given.
    pub media: Vec<Media>,
    /// What can be bought, in the order given; archived variants are left out.
    pub variants: Vec<Variant>,
    /// Raised by one with every change; the `ETag`.
    pub version: Version,
    /// When it was first written.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// Whether a product is sold.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    Default,
    Serialize,
    Deserialize,
    ToSchema,
    Enum,
    sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[graphql(rename_items = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum ProductStatus {
    /// It is sold.
    #[default]
    Active,
    /// It is being prepared, and not sold yet.
    Draft,
    /// It is no longer sold.
    Archived,
}

impl ProductStatus {
    /// As JSON and the database spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draft => "draft",
            Self::Archived => "archived",
        }
    }
}

/// Something that a product's variants differ in, such as its size.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject, InputObject,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[graphql(input_name = "ProductOptionInput")]
pub struct ProductOption {
    /// What differs, unique within the product.
    #[schema(example = "Size")]
    pub name: String,
    /// What there is to choose from.
    #[schema(example = json!(["S", "M", "L"]))]
    pub values: Vec<String>,
}

/// A further fact about a product or a variant.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject, InputObject,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[graphql(input_name = "AttributeInput")]
pub struct Attribute {
    /// What it is about; may occur several times.
    #[schema(example = "material")]
    pub name: String,
    /// What it is.
    #[schema(example = "linen")]
    pub value: String,
}

/// A picture, a film or another file about a product.
#[derive(
    Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject, InputObject,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[graphql(input_name = "MediaInput")]
pub struct Media {
    /// Where it is: an `https` or `http` URL.
    #[schema(example = "https://shop.example/shirt.jpg")]
    pub url: String,
    /// What it shows, for those who can't see it.
    #[serde(default)]
    pub alt: Option<String>,
    /// What it is.
    #[serde(default)]
    #[graphql(default)]
    pub kind: MediaKind,
}

/// What a medium is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema, Enum,
)]
#[serde(rename_all = "snake_case")]
#[graphql(rename_items = "snake_case")]
pub enum MediaKind {
    /// A picture.
    #[default]
    Image,
    /// A film.
    Video,
    /// Anything else: a manual, a certificate, a model in three dimensions.
    Document,
}

/// What can be bought: a product in one size and colour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct Variant {
    /// Our id.
    #[schema(value_type = VariantId)]
    pub id: VariantId,
    /// The product that it belongs to.
    #[schema(value_type = ProductId)]
    pub product_id: ProductId,
    /// The merchant's own id, unique within the product.
    #[schema(example = "SHIRT-1-M")]
    pub external_id: String,
    /// The merchant's stock keeping unit; several variants may share one.
    #[schema(required)]
    pub sku: Option<String>,
    /// What a scanner reads, as the merchant gave it: not every barcode is a valid GTIN.
    #[schema(required)]
    pub barcode: Option<String>,
    /// What it costs.
    #[schema(value_type = Money)]
    pub price: Money,
    /// What it cost before, in the same currency.
    #[schema(required)]
    pub compare_at_price: Option<Money>,
    /// What it weighs, in grams.
    #[schema(required)]
    pub weight_grams: Option<i32>,
    /// Which value of each of the product's options it has, in the options' order.
    pub option_values: Vec<String>,
    /// Further facts, in the order given.
    pub attributes: Vec<Attribute>,
    /// Its place among the product's variants, from 1.
    pub position: i32,
    /// Whether the merchant no longer lists it. Orders and stock may still name it.
    pub archived: bool,
}

/// A product as a merchant describes it, the whole of it: what is left out is emptied, and a variant that is left out is archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "externalId": "SHIRT-1",
    "title": "Linen shirt",
    "brand": "Arden",
    "category": "Apparel > Shirts",
    "options": [{"name": "Size", "values": ["M", "L"]}],
    "variants": [
        {"externalId": "SHIRT-1-M", "sku": "LS-M", "price": {"amount": "49.00", "currency": "EUR"}, "optionValues": ["M"]},
        {"externalId": "SHIRT-1-L", "sku": "LS-L", "price": {"amount": "49.00", "currency": "EUR"}, "optionValues": ["L"]}
    ]
}))]
pub struct ProductInput {
    /// The merchant's own id, 1 to 255 characters: the product that has it is changed, or else made.
    pub external_id: String,
    /// What it is called, 1 to 500 characters.
    pub title: String,
    /// What there is to say about it, at most 65,536 characters.
    #[serde(default)]
    pub description: Option<String>,
    /// Who makes it.
    #[serde(default)]
    pub brand: Option<String>,
    /// Where it belongs.
    #[serde(default)]
    pub category: Option<String>,
    /// Whether it is sold; `active` if left out.
    #[serde(default)]
    #[graphql(default)]
    pub status: ProductStatus,
    /// Words to find it by.
    #[serde(default)]
    #[graphql(default)]
    pub tags: Vec<String>,
    /// What its variants differ in.
    #[serde(default)]
    #[graphql(default)]
    pub options: Vec<ProductOption>,
    /// Further facts.
    #[serde(default)]
    #[graphql(default)]
    pub attributes: Vec<Attribute>,
    /// Pictures and films.
    #[serde(default)]
    #[graphql(default)]
    pub media: Vec<Media>,
    /// What can be bought: 1 to 250 variants.
    pub variants: Vec<VariantInput>,
}

/// A variant as a merchant describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, InputObject)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VariantInput {
    /// The merchant's own id, unique within the product; the product's own if left out of an only variant.
    #[serde(default)]
    pub external_id: Option<String>,
    /// The merchant's stock keeping unit; an empty one counts as none.
    #[serde(default)]
    pub sku: Option<String>,
    /// What a scanner reads; kept as given, and an empty one counts as none.
    #[serde(default)]
    pub barcode: Option<String>,
    /// What it costs; not negative.
    #[schema(value_type = Money)]
    pub price: Money,
    /// What it cost before, in the same currency.
    #[serde(default)]
    pub compare_at_price: Option<Money>,
    /// What it weighs, in grams.
    #[serde(default)]
    pub weight_grams: Option<i32>,
    /// A value for each of the product's options, in the options' order.
    #[serde(default)]
    #[graphql(default)]
    pub option_values: Vec<String>,
    /// Further facts.
    #[serde(default)]
    #[graphql(default)]
    pub attributes: Vec<Attribute>,
}

/// What an upsert came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, Enum)]
#[serde(rename_all = "snake_case")]
#[graphql(rename_items = "snake_case")]
pub enum UpsertOutcome {
    /// There was no product of this external id.
    Created,
    /// The product was changed.
    Updated,
    /// The product was already what the input says.
    Unchanged,
}

/// A product after an upsert, and what that came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct Upserted {
    /// What the upsert came to.
    pub outcome: UpsertOutcome,
    /// The product as it is now.
    pub product: Product,
}

impl Kept for Upserted {
    fn visible_to(&self, access: &Access) -> bool {
        access.scopes.allows(Scope::CatalogRead)
    }
}

impl Kept for Product {
    fn visible_to(&self, access: &Access) -> bool {
        access.scopes.allows(Scope::CatalogRead)
    }
}

/// Which products a list shows; all of them by default. Conditions add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductFilter {
    /// Only the product with this external id.
    pub external_id: Option<String>,
    /// Only those of this status.
    pub status: Option<ProductStatus>,
    /// Only those that have a variant, not archived, of this SKU.
    pub sku: Option<String>,
    /// Only those that have a variant, not archived, of this barcode.
    pub barcode: Option<String>,
    /// Only those of this brand.
    pub brand: Option<String>,
    /// Only those changed after this time, and what the minute before it may have had: see [`page::overlapped`](kernel::page::overlapped).
    pub updated_after: Option<Timestamp>,
}

/// A variant as an order needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleVariant {
    /// The variant.
    pub id: VariantId,
    /// Its product.
    pub product_id: ProductId,
    /// The product's title, and the variant's option values in brackets: `Linen shirt (M / White)`.
    pub title: String,
    /// Its SKU.
    pub sku: Option<String>,
    /// What it costs.
    pub price: Money,
    /// Whether the variant is archived.
    pub archived: bool,
    /// The status of its product.
    pub product_status: ProductStatus,
}

impl SaleVariant {
    /// Whether it can be ordered now: its product is active, and it is not archived itself.
    pub fn is_for_sale(&self) -> bool {
        !self.archived && self.product_status == ProductStatus::Active
    }
}

/// The product of this id.
pub async fn get(tx: &mut PgConnection, actor: &Actor, id: ProductId) -> Result<Product, Error> {
    let mut products = get_many(tx, actor, &[id]).await?;
    products
        .remove(&id)
        .ok_or_else(|| Error::not_found("product", id))
}

/// The products of these ids; those that are not there are left out. Two statements, however many.
pub async fn get_many(
    tx: &mut PgConnection,
    actor: &Actor,
    ids: &[ProductId],
) -> Result<HashMap<ProductId, Product>, Error> {
    actor.access.require(Scope::CatalogRead)?;
    let aggregates = store::select(tx, actor.merchant, ids).await?;
    Ok(aggregates
        .into_iter()
        .map(|aggregate| (aggregate.product.id, aggregate.product))
        .collect())
}

/// The variants of these products, archived ones left out, in their order. One statement, however many.
pub async fn variants_of(
    tx: &mut PgConnection,
    actor: &Actor,
    products: &[ProductId],
) -> Result<HashMap<ProductId, Vec<Variant>>, Error> {
    actor.access.require(Scope::CatalogRead)?;
    let mut variants: HashMap<_, Vec<_>> = HashMap::new();
    for variant in store::variants_of(tx, actor.merchant, products).await? {
        if !variant.archived {
            variants
                .entry(variant.product_id)
                .or_default()
                .push(variant);
        }
    }
    Ok(variants)
}

/// The variants of these ids, archived ones too; those that are not there are left out. One statement, however many.
pub async fn variants(
    tx: &mut PgConnection,
    actor: &Actor,
    ids: &[VariantId],
) -> Result<HashMap<VariantId, Variant>, Error> {
    actor.access.require(Scope::CatalogRead)?;
    let variants = store::variants(tx, actor.merchant, ids).await?;
    Ok(variants
        .into_iter()
        .map(|variant| (variant.id, variant))
        .collect())
}

/// The variants that have one of these SKUs, archived ones left out; several may share one. One statement, however many.
pub async fn variants_by_sku(
    tx: &mut PgConnection,
    actor: &Actor,
    skus: &[String],
) -> Result<HashMap<String, Vec<Variant>>, Error> {
    actor.access.require(Scope::CatalogRead)?;
    let mut variants: HashMap<_, Vec<_>> = HashMap::new();
    for variant in store::variants_by_sku(tx, actor.merchant, skus).await? {
        variants
            .entry(variant.sku.clone().unwrap_or_default())
            .or_default()
            .push(variant);
    }
    Ok(variants)
}

/// What orders need to know of these variants, archived ones too; those that are not there are left out. One statement, however many. Checks
/// no scope: who may place orders need not be able to read the catalog.
pub async fn find_for_sale(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[VariantId],
) -> Result<HashMap<VariantId, SaleVariant>, Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let variants = store::for_sale(tx, merchant, ids).await?;
    Ok(variants
        .into_iter()
        .map(|variant| (variant.id, variant))
        .collect())
}

/// A page of products, oldest first. The order never changes, so a product that is changed while somebody pages is neither missed nor seen twice.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    filter: &ProductFilter,
    request: &PageRequest<ProductId>,
) -> Result<Page<Product>, Error> {
    actor.access.require(Scope::CatalogRead)?;
    let ids = if filter.sku.is_some() || filter.barcode.is_some() {
        store::list_by_variant(tx, actor.merchant, filter, request).await?
    } else {
        store::list(tx, actor.merchant, filter, request).await?
    };
    let page = Page::from_rows(ids, request, |&id| id);
    let mut products = get_many(tx, actor, &page.data).await?;
    let data = page
        .data
        .iter()
        .filter_map(|id| products.remove(id))
        .collect();
    Ok(Page {
        data,
        next_cursor: page.next_cursor,
    })
}

impl Product {
    /// The input that would make the product what it is.
    fn to_input(&self) -> ProductInput {
        ProductInput {
            external_id: self.external_id.clone(),
            title: self.title.clone(),
            description: self.description.clone(),
            brand: self.brand.clone(),
            category: self.category.clone(),
            status: self.status,
            tags: self.tags.clone(),
            options: self.options.clone(),
            attributes: self.attributes.clone(),
            media: self.media.clone(),
            variants: self.variants.iter().map(Variant::to_input).collect(),
        }
    }
}

impl Variant {
    fn to_input(&self) -> VariantInput {
        VariantInput {
            external_id: Some(self.external_id.clone()),
            sku: self.sku.clone(),
            barcode: self.barcode.clone(),
            price: self.price,
            compare_at_price: self.compare_at_price,
            weight_grams: self.weight_grams,
            option_values: self.option_values.clone(),
            attributes: self.attributes.clone(),
        }
    }
}

/// A product's title with a variant's option values.
fn sale_title<'t>(title: &'t str, option_values: &[String]) -> Cow<'t, str> {
    if option_values.is_empty() {
        Cow::Borrowed(title)
    } else {
        Cow::Owned(format!("{title} ({})", option_values.join(" / ")))
    }
}
