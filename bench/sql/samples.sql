-- The merchant's goods, and what one write of Stoa's has come to, as samples of the rows that are wide.
insert into ceiling.locations select * from public.locations where merchant_id = '{merchant}';
insert into ceiling.products select * from public.products where merchant_id = '{merchant}';
insert into ceiling.variants select * from public.variants where merchant_id = '{merchant}';
insert into ceiling.inventory_levels select * from public.inventory_levels where merchant_id = '{merchant}';

create table ceiling.skus (
    number bigint primary key,
    merchant_id uuid not null,
    variant_id uuid not null,
    location_id uuid not null,
    sku text,
    title text not null,
    price_minor bigint not null,
    currency text not null
);
insert into ceiling.skus
select row_number() over (order by variants.id), variants.merchant_id, variants.id, levels.location_id, variants.sku, products.title, variants.price_minor,
    variants.currency
from ceiling.variants as variants
join ceiling.products as products on products.merchant_id = variants.merchant_id and products.id = variants.product_id
join ceiling.inventory_levels as levels on levels.merchant_id = variants.merchant_id and levels.variant_id = variants.id;

-- The newest change of stock is of the write that is the sample.
create table ceiling.sample_movements as
select * from public.inventory_movements where merchant_id = '{merchant}' order by id desc limit 1;
create table ceiling.sample_keys as
select * from public.idempotency_keys where merchant_id = '{merchant}' and operation = '{operation}' order by created_at desc limit 1;
create table ceiling.sample_transitions as
select transitions.*
from public.order_transitions as transitions
join ceiling.sample_movements on sample_movements.request_id = transitions.request_id
where transitions.merchant_id = '{merchant}';
create table ceiling.sample_events as
select events.*
from public.events
join ceiling.sample_movements on sample_movements.request_id = events.request_id
where events.merchant_id = '{merchant}';
-- A row of its own, as a sender would write that records each by itself.
create table ceiling.sample_attempts as
select merchant_id, endpoint_id, numbers[1] as number, durations_ms[1] as duration_ms, statuses[1] as status, null::text as error,
    answer_excerpts[1] as answer_excerpt
from public.attempt_runs
where merchant_id = '{merchant}'
limit 1;
vacuum analyze;
