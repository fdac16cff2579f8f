begin;
create temporary table incoming_products (like ceiling.products) on commit drop;
create temporary table incoming_variants (like ceiling.variants) on commit drop;
\copy incoming_products from '{products}'
\copy incoming_variants from '{variants}'
insert into ceiling.products
    (merchant_id, id, external_id, title, description, brand, category, status, tags, options, attributes, media, content_sha256, version, created_at,
    updated_at)
select '{merchant}', id, external_id, title, description, brand, category, status, tags, options, attributes, media, content_sha256, version, created_at,
    updated_at
from incoming_products
on conflict (merchant_id, external_id) do update
set title = excluded.title, description = excluded.description, brand = excluded.brand, category = excluded.category, status = excluded.status,
    tags = excluded.tags, options = excluded.options, attributes = excluded.attributes, media = excluded.media,
    content_sha256 = excluded.content_sha256, version = products.version + 1, updated_at = excluded.updated_at;
insert into ceiling.variants
    (merchant_id, id, product_id, external_id, position, sku, barcode, price_minor, compare_at_price_minor, currency, weight_grams, option_values, attributes,
    archived)
select '{merchant}', id, product_id, external_id, position, sku, barcode, price_minor, compare_at_price_minor, currency, weight_grams, option_values,
    attributes, archived
from incoming_variants
on conflict (merchant_id, product_id, external_id) do update
set position = excluded.position, sku = excluded.sku, barcode = excluded.barcode, price_minor = excluded.price_minor,
    compare_at_price_minor = excluded.compare_at_price_minor, currency = excluded.currency, weight_grams = excluded.weight_grams,
    option_values = excluded.option_values, attributes = excluded.attributes, archived = excluded.archived;
commit;
