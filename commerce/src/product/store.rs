//! The statements of products and variants.
//!
//! Where hundreds of rows are looked up at once, the statement is `unnest … cross join lateral (… offset 0)`: one descent of the right index a
//! row. With `= any (array)` the planner, as long as it has no statistics of a catalog that has just come in, thinks a merchant has few
//! products, and reads all of them for each batch.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use kernel::{
    clock::Timestamp,
    db,
    id::MerchantId,
    money::{Currency, Money},
    page::{self, PageRequest},
    version::Version,
};
use sqlx::{PgConnection, types::Json};

use super::{
    Attribute, Media, Product, ProductFilter, ProductId, ProductOption, ProductStatus, SaleVariant,
    Variant, VariantId, sale_title, upsert::Written,
};

/// A product with all its variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aggregate {
    /// The product with the variants that are not archived.
    pub(super) product: Product,
    /// The variants that are.
    pub(super) archived: Vec<Variant>,
}

/// A product that is there, and what its content hashes to.
pub(super) struct Known {
    pub(super) id: ProductId,
    pub(super) content_sha256: Vec<u8>,
}

struct ProductRow {
    id: ProductId,
    external_id: String,
    title: String,
    description: Option<String>,
    brand: Option<String>,
    category: Option<String>,
    status: ProductStatus,
    tags: Json<Vec<String>>,
    options: Json<Vec<ProductOption>>,
    attributes: Json<Vec<Attribute>>,
    media: Json<Vec<Media>>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<ProductRow> for Aggregate {
    fn from(row: ProductRow) -> Self {
        let product = Product {
            id: row.id,
            external_id: row.external_id,
            title: row.title,
            description: row.description,
            brand: row.brand,
            category: row.category,
            status: row.status,
            tags: row.tags.0,
            options: row.options.0,
            attributes: row.attributes.0,
            media: row.media.0,
            variants: Vec::new(),
            version: Version::new(row.version),
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Self {
            product,
            archived: Vec::new(),
        }
    }
}

struct VariantRow {
    id: VariantId,
    product_id: ProductId,
    external_id: String,
    position: i32,
    sku: Option<String>,
    barcode: Option<String>,
    price_minor: i64,
    compare_at_price_minor: Option<i64>,
    currency: String,
    weight_grams: Option<i32>,
    option_values: Json<Vec<String>>,
    attributes: Json<Vec<Attribute>>,
    archived: bool,
}

impl TryFrom<VariantRow> for Variant {
    type Error = db::Error;

    fn try_from(row: VariantRow) -> Result<Self, db::Error> {
        let currency = currency(row.id, &row.currency)?;
        Ok(Self {
            id: row.id,
            product_id: row.product_id,
            external_id: row.external_id,
            sku: row.sku,
            barcode: row.barcode,
            price: Money::new(row.price_minor, currency),
            compare_at_price: row
                .compare_at_price_minor
                .map(|minor| Money::new(minor, currency)),
            weight_grams: row.weight_grams,
            option_values: row.option_values.0,
            attributes: row.attributes.0,
            position: row.position,
            archived: row.archived,
        })
    }
}

fn currency(variant: VariantId, code: &str) -> Result<Currency, db::Error> {
    code.parse()
        .map_err(|error: kernel::money::ParseCurrencyError| {
            db::Error::corrupt("variants", variant, error)
        })
}

/// Which of these external ids are there.
pub(super) async fn known(
    tx: &mut PgConnection,
    merchant: MerchantId,
    external_ids: &[&str],
) -> Result<HashMap<String, Known>, db::Error> {
    let rows = sqlx::query!(
        r#"select product.id as "id: ProductId", product.external_id, product.content_sha256
        from unnest($2::text[]) as wanted (external_id)
        cross join lateral (
            select id, external_id, content_sha256
            from products
            where merchant_id = $1
                and external_id = wanted.external_id
            offset 0
        ) as product"#,
        merchant as MerchantId,
        external_ids as &[&str],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            (
                row.external_id,
                Known {
                    id: row.id,
                    content_sha256: row.content_sha256,
                },
            )
        })
        .collect())
}

/// Products by id, with all their variants.
pub(super) async fn select(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[ProductId],
) -> Result<Vec<Aggregate>, db::Error> {
    let rows = sqlx::query_as!(
        ProductRow,
        r#"select product.id as "id: ProductId", product.external_id, product.title, product.description, product.brand, product.category,
            product.status as "status: ProductStatus", product.tags as "tags: Json<Vec<String>>",
            product.options as "options: Json<Vec<ProductOption>>", product.attributes as "attributes: Json<Vec<Attribute>>",
            product.media as "media: Json<Vec<Media>>", product.version, product.created_at as "created_at: Timestamp",
            product.updated_at as "updated_at: Timestamp"
        from (select distinct id from unnest($2::uuid[]) as given (id)) as wanted
        cross join lateral (
            select id, external_id, title, description, brand, category, status, tags, options, attributes, media, version, created_at,
                updated_at
            from products
            where merchant_id = $1
                and id = wanted.id
            offset 0
        ) as product"#,
        merchant as MerchantId,
        ids as &[ProductId],
    )
    .fetch_all(&mut *tx)
    .await?;
    with_variants(tx, merchant, rows).await
}

/// Locks products until the end of the transaction, in the order given, and reads them with all their variants.
pub(super) async fn lock(
    tx: &mut PgConnection,
    merchant: MerchantId,
    external_ids: &[&str],
) -> Result<Vec<Aggregate>, db::Error> {
    // Not a full lock: that would wait for orders which refer to the product's key.
    let rows = sqlx::query_as!(
        ProductRow,
        r#"select product.id as "id: ProductId", product.external_id, product.title, product.description, product.brand, product.category,
            product.status as "status: ProductStatus", product.tags as "tags: Json<Vec<String>>",
            product.options as "options: Json<Vec<ProductOption>>", product.attributes as "attributes: Json<Vec<Attribute>>",
            product.media as "media: Json<Vec<Media>>", product.version, product.created_at as "created_at: Timestamp",
            product.updated_at as "updated_at: Timestamp"
        from unnest($2::text[]) as wanted (external_id)
        cross join lateral (
            select id, external_id, title, description, brand, category, status, tags, options, attributes, media, version, created_at,
                updated_at
            from products
            where merchant_id = $1
                and external_id = wanted.external_id
            for no key update
        ) as product"#,
        merchant as MerchantId,
        external_ids as &[&str],
    )
    .fetch_all(&mut *tx)
    .await?;
    with_variants(tx, merchant, rows).await
}

/// Locks one product until the end of the transaction.
pub(super) async fn lock_one(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: ProductId,
) -> Result<Option<Aggregate>, db::Error> {
    let row = sqlx::query_as!(
        ProductRow,
        r#"select id as "id: ProductId", external_id, title, description, brand, category, status as "status: ProductStatus",
            tags as "tags: Json<Vec<String>>", options as "options: Json<Vec<ProductOption>>",
            attributes as "attributes: Json<Vec<Attribute>>", media as "media: Json<Vec<Media>>", version,
            created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from products
        where merchant_id = $1
            and id = $2
        for no key update"#,
        merchant as MerchantId,
        id as ProductId,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let mut aggregates = with_variants(tx, merchant, row.into_iter().collect()).await?;
    Ok(aggregates.pop())
}

/// A statement of its own: its snapshot is younger than the products' locks.
async fn with_variants(
    tx: &mut PgConnection,
    merchant: MerchantId,
    rows: Vec<ProductRow>,
) -> Result<Vec<Aggregate>, db::Error> {
    let mut aggregates: Vec<Aggregate> = rows.into_iter().map(Aggregate::from).collect();
    if aggregates.is_empty() {
        return Ok(aggregates);
    }
    let ids: Vec<ProductId> = aggregates
        .iter()
        .map(|aggregate| aggregate.product.id)
        .collect();
    let places: HashMap<ProductId, usize> = ids.iter().copied().zip(0..).collect();
    for variant in variants_of(tx, merchant, &ids).await? {
        let place = places
            .get(&variant.product_id)
            .and_then(|&place| aggregates.get_mut(place));
        if let Some(aggregate) = place {
            if variant.archived {
                aggregate.archived.push(variant);
            } else {
                aggregate.product.variants.push(variant);
            }
        }
    }
    Ok(aggregates)
}

pub(super) async fn variants_of(
    tx: &mut PgConnection,
    merchant: MerchantId,
    products: &[ProductId],
) -> Result<Vec<Variant>, db::Error> {
    let rows = sqlx::query_as!(
        VariantRow,
        r#"select variant.id as "id: VariantId", variant.product_id as "product_id: ProductId", variant.external_id, variant.position,
            variant.sku, variant.barcode, variant.price_minor, variant.compare_at_price_minor, variant.currency, variant.weight_grams,
            variant.option_values as "option_values: Json<Vec<String>>", variant.attributes as "attributes: Json<Vec<Attribute>>",
            variant.archived
        from (select distinct product_id from unnest($2::uuid[]) as given (product_id)) as wanted
        cross join lateral (
            select id, product_id, external_id, position, sku, barcode, price_minor, compare_at_price_minor, currency, weight_grams,
                option_values, attributes, archived
            from variants
            where merchant_id = $1
                and product_id = wanted.product_id
            offset 0
        ) as variant
        order by variant.product_id, variant.position, variant.id"#,
        merchant as MerchantId,
        products as &[ProductId],
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Variant::try_from).collect()
}

pub(super) async fn variants(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[VariantId],
) -> Result<Vec<Variant>, db::Error> {
    let rows = sqlx::query_as!(
        VariantRow,
        r#"select id as "id: VariantId", product_id as "product_id: ProductId", external_id, position, sku, barcode, price_minor,
            compare_at_price_minor, currency, weight_grams, option_values as "option_values: Json<Vec<String>>",
            attributes as "attributes: Json<Vec<Attribute>>", archived
        from variants
        where merchant_id = $1
            and id = any($2)"#,
        merchant as MerchantId,
        ids as &[VariantId],
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Variant::try_from).collect()
}

pub(super) async fn variants_by_sku(
    tx: &mut PgConnection,
    merchant: MerchantId,
    skus: &[String],
) -> Result<Vec<Variant>, db::Error> {
    let rows = sqlx::query_as!(
        VariantRow,
        r#"select id as "id: VariantId", product_id as "product_id: ProductId", external_id, position, sku, barcode, price_minor,
            compare_at_price_minor, currency, weight_grams, option_values as "option_values: Json<Vec<String>>",
            attributes as "attributes: Json<Vec<Attribute>>", archived
        from variants
        where merchant_id = $1
            and sku = any($2)
            and not archived
        order by sku, id"#,
        merchant as MerchantId,
        skus,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Variant::try_from).collect()
}

pub(super) async fn for_sale(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[VariantId],
) -> Result<Vec<SaleVariant>, db::Error> {
    let rows = sqlx::query!(
        r#"select variants.id as "id: VariantId", variants.product_id as "product_id: ProductId", products.title, variants.sku,
            variants.price_minor, variants.currency, variants.option_values as "option_values: Json<Vec<String>>", variants.archived,
            products.status as "product_status: ProductStatus"
        from variants
        join products on products.merchant_id = variants.merchant_id and products.id = variants.product_id
        where variants.merchant_id = $1
            and products.merchant_id = $1
            and variants.id = any($2)"#,
        merchant as MerchantId,
        ids as &[VariantId],
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(SaleVariant {
                id: row.id,
                product_id: row.product_id,
                title: sale_title(&row.title, &row.option_values.0).into_owned(),
                sku: row.sku,
                price: Money::new(row.price_minor, currency(row.id, &row.currency)?),
                archived: row.archived,
                product_status: row.product_status,
            })
        })
        .collect()
}

/// The ids of a page.
pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    filter: &ProductFilter,
    request: &PageRequest<ProductId>,
) -> Result<Vec<ProductId>, db::Error> {
    let ids = sqlx::query_scalar!(
        r#"select id as "id: ProductId"
        from products
        where merchant_id = $1
            and ($2::uuid is null or id > $2)
            and ($3::text is null or status = $3)
            and ($4::text is null or brand = $4)
            and ($5::timestamptz is null or updated_at > $5)
            and ($6::text is null or external_id = $6)
        order by id
        limit $7"#,
        merchant as MerchantId,
        request.after as Option<ProductId>,
        filter.status.map(ProductStatus::name),
        filter.brand.as_deref(),
        page::overlapped(filter.updated_after) as Option<Timestamp>,
        filter.external_id.as_deref(),
        request.fetch_count(),
    )
    .fetch_all(tx)
    .await?;
    Ok(ids)
}

/// The ids of a page of products that have a variant of a SKU or barcode: found by the variants' indexes.
pub(super) async fn list_by_variant(
    tx: &mut PgConnection,
    merchant: MerchantId,
    filter: &ProductFilter,
    request: &PageRequest<ProductId>,
) -> Result<Vec<ProductId>, db::Error> {
    let ids = sqlx::query_scalar!(
        r#"select distinct products.id as "id: ProductId"
        from variants
        join products on products.merchant_id = variants.merchant_id and products.id = variants.product_id
        where variants.merchant_id = $1
            and products.merchant_id = $1
            and not variants.archived
            and ($2::uuid is null or products.id > $2)
            and ($3::text is null or products.status = $3)
            and ($4::text is null or products.brand = $4)
            and ($5::timestamptz is null or products.updated_at > $5)
            and ($6::text is null or variants.sku = $6)
            and ($7::text is null or variants.barcode = $7)
            and ($8::text is null or products.external_id = $8)
        order by products.id
        limit $9"#,
        merchant as MerchantId,
        request.after as Option<ProductId>,
        filter.status.map(ProductStatus::name),
        filter.brand.as_deref(),
        page::overlapped(filter.updated_after) as Option<Timestamp>,
        filter.sku.as_deref(),
        filter.barcode.as_deref(),
        filter.external_id.as_deref(),
        request.fetch_count(),
    )
    .fetch_all(tx)
    .await?;
    Ok(ids)
}

/// The columns of products to write, as arrays.
struct Columns<'p> {
    ids: Vec<ProductId>,
    external_ids: Vec<&'p str>,
    titles: Vec<&'p str>,
    descriptions: Vec<Option<&'p str>>,
    brands: Vec<Option<&'p str>>,
    categories: Vec<Option<&'p str>>,
    statuses: Vec<&'static str>,
    tags: Vec<Json<&'p Vec<String>>>,
    options: Vec<Json<&'p Vec<ProductOption>>>,
    attributes: Vec<Json<&'p Vec<Attribute>>>,
    media: Vec<Json<&'p Vec<Media>>>,
    hashes: Vec<&'p [u8]>,
    versions: Vec<i64>,
    created: Vec<Timestamp>,
    updated: Vec<Timestamp>,
}

impl<'p> Columns<'p> {
    fn of(written: &[&'p Written]) -> Self {
        let products = || written.iter().map(|written| &written.product);
        Self {
            ids: products().map(|product| product.id).collect(),
            external_ids: products()
                .map(|product| product.external_id.as_str())
                .collect(),
            titles: products().map(|product| product.title.as_str()).collect(),
            descriptions: products()
                .map(|product| product.description.as_deref())
                .collect(),
            brands: products().map(|product| product.brand.as_deref()).collect(),
            categories: products()
                .map(|product| product.category.as_deref())
                .collect(),
            statuses: products().map(|product| product.status.name()).collect(),
            tags: products().map(|product| Json(&product.tags)).collect(),
            options: products().map(|product| Json(&product.options)).collect(),
            attributes: products()
                .map(|product| Json(&product.attributes))
                .collect(),
            media: products().map(|product| Json(&product.media)).collect(),
            hashes: written
                .iter()
                .map(|written| written.content_sha256.as_slice())
                .collect(),
            versions: products().map(|product| product.version.number()).collect(),
            created: products().map(|product| product.created_at).collect(),
            updated: products().map(|product| product.updated_at).collect(),
        }
    }
}

/// Inserts products in the order given; says which. Those left out were there already.
pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    written: &[&Written],
) -> Result<Vec<ProductId>, db::Error> {
    let columns = Columns::of(written);
    let inserted = sqlx::query_scalar!(
        r#"insert into products
            (merchant_id, id, external_id, title, description, brand, category, status, tags, options, attributes, media,
             content_sha256, version, created_at, updated_at)
        select $1, id, external_id, title, description, brand, category, status, tags, options, attributes, media,
            content_sha256, version, created_at, updated_at
        from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::jsonb[],
            $11::jsonb[], $12::jsonb[], $13::bytea[], $14::bigint[], $15::timestamptz[], $16::timestamptz[])
            as new (id, external_id, title, description, brand, category, status, tags, options, attributes, media,
                content_sha256, version, created_at, updated_at)
        on conflict (merchant_id, external_id) do nothing
        returning id as "id: ProductId""#,
        merchant as MerchantId,
        &columns.ids as &[ProductId],
        &columns.external_ids as &[&str],
        &columns.titles as &[&str],
        &columns.descriptions as &[Option<&str>],
        &columns.brands as &[Option<&str>],
        &columns.categories as &[Option<&str>],
        &columns.statuses as &[&str],
        &columns.tags as &[Json<&Vec<String>>],
        &columns.options as &[Json<&Vec<ProductOption>>],
        &columns.attributes as &[Json<&Vec<Attribute>>],
        &columns.media as &[Json<&Vec<Media>>],
        &columns.hashes as &[&[u8]],
        &columns.versions,
        &columns.created as &[Timestamp],
        &columns.updated as &[Timestamp],
    )
    .fetch_all(tx)
    .await?;
    Ok(inserted)
}

/// Writes products whose locks are held.
pub(super) async fn update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    written: &[&Written],
) -> Result<(), db::Error> {
    let columns = Columns::of(written);
    sqlx::query!(
        "update products
        set title = new.title, description = new.description, brand = new.brand, category = new.category, status = new.status,
            tags = new.tags, options = new.options, attributes = new.attributes, media = new.media,
            content_sha256 = new.content_sha256, version = new.version, updated_at = new.updated_at
        from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::jsonb[], $10::jsonb[],
            $11::jsonb[], $12::bytea[], $13::bigint[], $14::timestamptz[])
            as new (id, title, description, brand, category, status, tags, options, attributes, media,
                content_sha256, version, updated_at)
        where products.merchant_id = $1
            and products.id = new.id",
        merchant as MerchantId,
        &columns.ids as &[ProductId],
        &columns.titles as &[&str],
        &columns.descriptions as &[Option<&str>],
        &columns.brands as &[Option<&str>],
        &columns.categories as &[Option<&str>],
        &columns.statuses as &[&str],
        &columns.tags as &[Json<&Vec<String>>],
        &columns.options as &[Json<&Vec<ProductOption>>],
        &columns.attributes as &[Json<&Vec<Attribute>>],
        &columns.media as &[Json<&Vec<Media>>],
        &columns.hashes as &[&[u8]],
        &columns.versions,
        &columns.updated as &[Timestamp],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes variants of products whose locks are held.
pub(super) async fn upsert_variants(
    tx: &mut PgConnection,
    merchant: MerchantId,
    variants: &[Variant],
) -> Result<(), db::Error> {
    let ids: Vec<VariantId> = variants.iter().map(|variant| variant.id).collect();
    let products: Vec<ProductId> = variants.iter().map(|variant| variant.product_id).collect();
    let external_ids: Vec<&str> = variants
        .iter()
        .map(|variant| variant.external_id.as_str())
        .collect();
    let positions: Vec<i32> = variants.iter().map(|variant| variant.position).collect();
    let skus: Vec<Option<&str>> = variants
        .iter()
        .map(|variant| variant.sku.as_deref())
        .collect();
    let barcodes: Vec<Option<&str>> = variants
        .iter()
        .map(|variant| variant.barcode.as_deref())
        .collect();
    let prices: Vec<i64> = variants
        .iter()
        .map(|variant| variant.price.minor())
        .collect();
    let compare_at_prices: Vec<Option<i64>> = variants
        .iter()
        .map(|variant| variant.compare_at_price.map(Money::minor))
        .collect();
    let currencies: Vec<&str> = variants
        .iter()
        .map(|variant| variant.price.currency().code())
        .collect();
    let weights: Vec<Option<i32>> = variants
        .iter()
        .map(|variant| variant.weight_grams)
        .collect();
    let option_values: Vec<_> = variants
        .iter()
        .map(|variant| Json(&variant.option_values))
        .collect();
    let attributes: Vec<_> = variants
        .iter()
        .map(|variant| Json(&variant.attributes))
        .collect();
    let archived: Vec<bool> = variants.iter().map(|variant| variant.archived).collect();
    sqlx::query!(
        "insert into variants
            (merchant_id, id, product_id, external_id, position, sku, barcode, price_minor, compare_at_price_minor, currency,
             weight_grams, option_values, attributes, archived)
        select $1, id, product_id, external_id, position, sku, barcode, price_minor, compare_at_price_minor, currency,
            weight_grams, option_values, attributes, archived
        from unnest($2::uuid[], $3::uuid[], $4::text[], $5::integer[], $6::text[], $7::text[], $8::bigint[], $9::bigint[],
            $10::text[], $11::integer[], $12::jsonb[], $13::jsonb[], $14::boolean[])
            as new (id, product_id, external_id, position, sku, barcode, price_minor, compare_at_price_minor, currency,
                weight_grams, option_values, attributes, archived)
        on conflict (merchant_id, id) do update
        set position = excluded.position, sku = excluded.sku, barcode = excluded.barcode, price_minor = excluded.price_minor,
            compare_at_price_minor = excluded.compare_at_price_minor, currency = excluded.currency,
            weight_grams = excluded.weight_grams, option_values = excluded.option_values, attributes = excluded.attributes,
            archived = excluded.archived",
        merchant as MerchantId,
        &ids as &[VariantId],
        &products as &[ProductId],
        &external_ids as &[&str],
        &positions,
        &skus as &[Option<&str>],
        &barcodes as &[Option<&str>],
        &prices,
        &compare_at_prices as &[Option<i64>],
        &currencies as &[&str],
        &weights as &[Option<i32>],
        &option_values as &[Json<&Vec<String>>],
        &attributes as &[Json<&Vec<Attribute>>],
        &archived,
    )
    .execute(tx)
    .await?;
    Ok(())
}
