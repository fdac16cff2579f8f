begin;
insert into ceiling.orders
    (merchant_id, id, external_id, status, currency, total_minor, customer_id, sealed, version, placed_at, updated_at)
select '{merchant}', ceiling.new_id(), null, 'placed', 'EUR', price_minor, null, null, 1, now(), now()
from ceiling.skus
where number = :sku;
insert into ceiling.order_lines
    (merchant_id, order_id, line, variant_id, location_id, sku, title, quantity, fulfilled_quantity, unit_price_minor)
select merchant_id, lpad(to_hex(currval('ceiling.ids')), 32, '0')::uuid, 1, variant_id, location_id, sku, title, 1, 0, price_minor
from ceiling.skus
where number = :sku;
insert into ceiling.order_transitions
    (merchant_id, order_id, order_version, command, from_status, to_status, reason, app_id, request_id, occurred_at)
select merchant_id, lpad(to_hex(currval('ceiling.ids')), 32, '0')::uuid, 1, command, from_status, to_status, reason, app_id, request_id, now()
from ceiling.sample_transitions;
insert into ceiling.inventory_movements
    (merchant_id, id, variant_id, location_id, reason, on_hand_delta, reserved_delta, level_version, order_id, app_id, request_id, note, occurred_at)
select skus.merchant_id, ceiling.new_id(), skus.variant_id, skus.location_id, 'reserved', 0, 1, 1, order_id, app_id, request_id, null, now()
from ceiling.skus
cross join ceiling.sample_transitions
where number = :sku;
insert into ceiling.idempotency_keys
    (merchant_id, app_id, operation, idempotency_key, fingerprint, refused, outcome, created_at)
select merchant_id, app_id, operation, ceiling.new_id()::text, fingerprint, refused, outcome, now()
from ceiling.sample_keys;
insert into ceiling.events
    (merchant_id, id, feed_number, type, resource_type, resource_id, resource_version, scope, locations, data, subject_id, personal, request_id, occurred_at)
select merchant_id, ceiling.new_id(), nextval('ceiling.ids'), type, resource_type, resource_id, resource_version, scope, locations, data, subject_id, personal,
    request_id, now()
from ceiling.sample_events;
insert into ceiling.streams (merchant_id, endpoint_id, event_id, sequence)
select merchant_id, endpoint_id, ceiling.new_id(), nextval('ceiling.ids')
from ceiling.sample_attempts;
insert into ceiling.attempts
    (merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error, answer_excerpt)
select merchant_id, ceiling.new_id(), endpoint_id, ceiling.new_id(), nextval('ceiling.ids'), number, now(), duration_ms, status, error, answer_excerpt
from ceiling.sample_attempts;
update ceiling.inventory_levels as levels
set reserved = reserved + 1, version = version + 1, updated_at = now()
from ceiling.skus
where number = :sku and levels.merchant_id = '{merchant}' and levels.variant_id = skus.variant_id and levels.location_id = skus.location_id;
commit;
