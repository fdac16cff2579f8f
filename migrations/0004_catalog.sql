-- expand
-- The catalog: products, their variants, and the imports that bring them in.

create table products (
    merchant_id uuid not null,
    id uuid not null,
    -- Compared and sorted by bytes: that is fast, and the order in which rows are locked is the same everywhere.
    external_id text collate "C" not null,
    title text not null,
    description text,
    brand text,
    category text,
    status text not null,
    tags jsonb not null,
    options jsonb not null,
    attributes jsonb not null,
    media jsonb not null,
    -- SHA-256 of the canonical input: an upsert with an equal one changes nothing, and is told so without a lock.
    content_sha256 bytea not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint products_pkey primary key (merchant_id, id),
    constraint products_external_id_key unique (merchant_id, external_id),
    constraint products_status check (status in ('active', 'draft', 'archived')),
    constraint products_version_positive check (version > 0)
);
create index products_updated_at on products (merchant_id, updated_at, id);
alter table products enable row level security;
alter table products force row level security;
create policy products_api on products to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on products to stoa_api;

create table variants (
    merchant_id uuid not null,
    id uuid not null,
    product_id uuid not null,
    external_id text collate "C" not null,
    position integer not null,
    sku text collate "C",
    barcode text collate "C",
    price_minor bigint not null,
    compare_at_price_minor bigint,
    currency text not null,
    weight_grams integer,
    option_values jsonb not null,
    attributes jsonb not null,
    -- A variant that an upsert leaves out is archived: orders and stock go on naming it.
    archived boolean not null,
    constraint variants_pkey primary key (merchant_id, id),
    constraint variants_external_id_key unique (merchant_id, product_id, external_id),
    constraint variants_product_fkey foreign key (merchant_id, product_id) references products (merchant_id, id),
    constraint variants_price_not_negative check (price_minor >= 0 and (compare_at_price_minor is null or compare_at_price_minor >= 0)),
    constraint variants_currency check (currency ~ '^[A-Z]{3}$')
);
create index variants_sku on variants (merchant_id, sku) where sku is not null;
create index variants_barcode on variants (merchant_id, barcode) where barcode is not null;
alter table variants enable row level security;
alter table variants force row level security;
create policy variants_api on variants to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on variants to stoa_api;

create table catalog_imports (
    merchant_id uuid not null,
    id uuid not null,
    app_id uuid not null,
    idempotency_key text not null,
    -- Over the parameters, not the body.
    fingerprint bytea not null,
    label text,
    status text not null,
    -- Raised by every request that takes the import over; a batch of an older one commits nothing.
    attempt bigint not null,
    -- The checkpoint: input lines, blank ones included, that are dealt with. A blank line has no result and counts for nothing else.
    lines_done bigint not null,
    batches_done bigint not null,
    created_count bigint not null,
    updated_count bigint not null,
    unchanged_count bigint not null,
    failed_count bigint not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    completed_at timestamptz,
    constraint catalog_imports_pkey primary key (merchant_id, id),
    constraint catalog_imports_key unique (merchant_id, app_id, idempotency_key),
    constraint catalog_imports_status check (status in ('running', 'completed')),
    constraint catalog_imports_counts check (lines_done >= created_count + updated_count + unchanged_count + failed_count),
    constraint catalog_imports_completed check ((status = 'completed') = (completed_at is not null))
);
alter table catalog_imports enable row level security;
alter table catalog_imports force row level security;
create policy catalog_imports_api on catalog_imports to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on catalog_imports to stoa_api;

-- Results by batch: one NDJSON text a batch, a line per input line, as the client reads them.
create table catalog_import_batches (
    merchant_id uuid not null,
    import_id uuid not null,
    batch bigint not null,
    first_line bigint not null,
    last_line bigint not null,
    results text not null,
    constraint catalog_import_batches_pkey primary key (merchant_id, import_id, batch),
    constraint catalog_import_batches_import_fkey foreign key (merchant_id, import_id) references catalog_imports (merchant_id, id)
);
alter table catalog_import_batches enable row level security;
alter table catalog_import_batches force row level security;
create policy catalog_import_batches_api on catalog_import_batches to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert on catalog_import_batches to stoa_api;
