insert into ceiling.orders
    (merchant_id, id, external_id, status, currency, total_minor, customer_id, sealed, version, placed_at, updated_at)
select '{merchant}', ceiling.new_id(), null, 'placed', 'EUR', sum(price_minor), null, null, 1, now(), now()
from ceiling.skus
where number in ({numbers});
insert into ceiling.order_lines
    (merchant_id, order_id, line, variant_id, location_id, sku, title, quantity, fulfilled_quantity, unit_price_minor)
select merchant_id, lpad(to_hex(currval('ceiling.ids')), 32, '0')::uuid, row_number() over (), variant_id, location_id, sku, title, 1, 0, price_minor
from ceiling.skus
where number in ({numbers});
insert into ceiling.order_transitions
    (merchant_id, order_id, order_version, command, from_status, to_status, reason, app_id, request_id, occurred_at)
select merchant_id, lpad(to_hex(currval('ceiling.ids')), 32, '0')::uuid, 1, command, from_status, to_status, reason, app_id, request_id, now()
from ceiling.sample_transitions;
insert into ceiling.inventory_movements
    (merchant_id, id, variant_id, location_id, reason, on_hand_delta, reserved_delta, level_version, order_id, app_id, request_id, note, occurred_at)
select skus.merchant_id, ceiling.new_id(), skus.variant_id, skus.location_id, 'reserved', 0, 1, 1, order_id, app_id, request_id, null, now()
from ceiling.skus
cross join ceiling.sample_transitions
where number in ({numbers});
