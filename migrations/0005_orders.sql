-- expand
-- Locations, stock, customers, orders and fulfilments.

create table locations (
    merchant_id uuid not null,
    id uuid not null,
    external_id text not null,
    name text not null,
    country text,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint locations_pkey primary key (merchant_id, id),
    constraint locations_external_id_key unique (merchant_id, external_id)
);
alter table locations enable row level security;
alter table locations force row level security;
create policy locations_api on locations to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on locations to stoa_api;

-- What lies where. Available is on_hand less reserved, and the check is the last line of defence against overselling.
create table inventory_levels (
    merchant_id uuid not null,
    variant_id uuid not null,
    location_id uuid not null,
    on_hand bigint not null,
    reserved bigint not null,
    version bigint not null,
    updated_at timestamptz not null,
    constraint inventory_levels_pkey primary key (merchant_id, variant_id, location_id),
    constraint inventory_levels_variant_fkey foreign key (merchant_id, variant_id) references variants (merchant_id, id),
    constraint inventory_levels_location_fkey foreign key (merchant_id, location_id) references locations (merchant_id, id),
    constraint inventory_levels_not_oversold check (reserved >= 0 and on_hand >= reserved)
);
create index inventory_levels_updated_at on inventory_levels (merchant_id, updated_at, variant_id, location_id);
alter table inventory_levels enable row level security;
alter table inventory_levels force row level security;
create policy inventory_levels_api on inventory_levels to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on inventory_levels to stoa_api;

-- The ledger of stock: every change of a level, never changed, never dropped. Its sums are the level.
create table inventory_movements (
    merchant_id uuid not null,
    id uuid not null,
    variant_id uuid not null,
    location_id uuid not null,
    reason text not null,
    on_hand_delta bigint not null,
    reserved_delta bigint not null,
    -- The level's version that this movement made.
    level_version bigint not null,
    order_id uuid,
    app_id uuid not null,
    request_id uuid not null,
    note text,
    occurred_at timestamptz not null,
    constraint inventory_movements_pkey primary key (merchant_id, id),
    constraint inventory_movements_reason check (reason in ('set', 'adjusted', 'reserved', 'released', 'shipped', 'returned')),
    constraint inventory_movements_moves check (on_hand_delta <> 0 or reserved_delta <> 0)
) partition by range (id);
create table inventory_movements_default partition of inventory_movements default;
alter table inventory_movements_default enable row level security, force row level security;
create index inventory_movements_level on inventory_movements (merchant_id, variant_id, location_id, level_version);
alter table inventory_movements enable row level security;
alter table inventory_movements force row level security;
create policy inventory_movements_api on inventory_movements to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert on inventory_movements to stoa_api;

-- Customers: nothing readable. The id is that of the data subject whose key seals the row; the index is an HMAC of the e-mail address, for exact matches.
create table customers (
    merchant_id uuid not null,
    id uuid not null,
    email_index bytea,
    sealed bytea not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint customers_pkey primary key (merchant_id, id),
    constraint customers_email_key unique (merchant_id, email_index)
);
alter table customers enable row level security;
alter table customers force row level security;
create policy customers_api on customers to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on customers to stoa_api;

create table orders (
    merchant_id uuid not null,
    id uuid not null,
    external_id text,
    status text not null,
    currency text not null,
    total_minor bigint not null,
    customer_id uuid,
    -- Contact and shipping address as given with this order, sealed under the customer's key.
    sealed bytea,
    version bigint not null,
    placed_at timestamptz not null,
    updated_at timestamptz not null,
    constraint orders_pkey primary key (merchant_id, id),
    constraint orders_external_id_key unique (merchant_id, external_id),
    constraint orders_customer_fkey foreign key (merchant_id, customer_id) references customers (merchant_id, id),
    constraint orders_status check (status in ('placed', 'partially_fulfilled', 'fulfilled', 'cancelled')),
    constraint orders_total_not_negative check (total_minor >= 0),
    constraint orders_sealed_has_customer check (sealed is null or customer_id is not null)
);
create index orders_updated_at on orders (merchant_id, updated_at, id);
create index orders_customer on orders (merchant_id, customer_id) where customer_id is not null;
alter table orders enable row level security;
alter table orders force row level security;
create policy orders_api on orders to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on orders to stoa_api;

create table order_lines (
    merchant_id uuid not null,
    order_id uuid not null,
    line integer not null,
    variant_id uuid not null,
    location_id uuid not null,
    sku text,
    title text not null,
    quantity bigint not null,
    fulfilled_quantity bigint not null,
    unit_price_minor bigint not null,
    constraint order_lines_pkey primary key (merchant_id, order_id, line),
    constraint order_lines_order_fkey foreign key (merchant_id, order_id) references orders (merchant_id, id),
    constraint order_lines_variant_fkey foreign key (merchant_id, variant_id) references variants (merchant_id, id),
    constraint order_lines_quantities check (quantity > 0 and fulfilled_quantity between 0 and quantity)
);
create index order_lines_location on order_lines (merchant_id, location_id, order_id);
alter table order_lines enable row level security;
alter table order_lines force row level security;
create policy order_lines_api on order_lines to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on order_lines to stoa_api;

-- How an order came to be what it is: who did what, and why. Never changed.
create table order_transitions (
    merchant_id uuid not null,
    order_id uuid not null,
    order_version bigint not null,
    command text not null,
    from_status text,
    to_status text not null,
    reason text,
    app_id uuid not null,
    request_id uuid not null,
    occurred_at timestamptz not null,
    constraint order_transitions_pkey primary key (merchant_id, order_id, order_version),
    constraint order_transitions_order_fkey foreign key (merchant_id, order_id) references orders (merchant_id, id),
    -- The transition table of commerce::order::transition, said once more where nobody gets past it.
    constraint order_transitions_allowed check ((command, coalesce(from_status, ''), to_status) in (
        ('place', '', 'placed'),
        ('cancel', 'placed', 'cancelled'),
        ('fulfill', 'placed', 'partially_fulfilled'),
        ('fulfill', 'placed', 'fulfilled'),
        ('fulfill', 'partially_fulfilled', 'partially_fulfilled'),
        ('fulfill', 'partially_fulfilled', 'fulfilled')
    ))
);
alter table order_transitions enable row level security;
alter table order_transitions force row level security;
create policy order_transitions_api on order_transitions to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert on order_transitions to stoa_api;

create table fulfillments (
    merchant_id uuid not null,
    id uuid not null,
    order_id uuid not null,
    location_id uuid not null,
    status text not null,
    carrier text,
    tracking_number text,
    tracking_url text,
    -- What was shipped: [{"line": 1, "quantity": 2}].
    lines jsonb not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint fulfillments_pkey primary key (merchant_id, id),
    constraint fulfillments_order_fkey foreign key (merchant_id, order_id) references orders (merchant_id, id),
    constraint fulfillments_status check (status in ('shipped', 'delivered', 'failed'))
);
create index fulfillments_order on fulfillments (merchant_id, order_id, id);
alter table fulfillments enable row level security;
alter table fulfillments force row level security;
create policy fulfillments_api on fulfillments to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
grant select, insert, update on fulfillments to stoa_api;
