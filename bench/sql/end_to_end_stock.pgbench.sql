insert into ceiling.inventory_movements
    (merchant_id, id, variant_id, location_id, reason, on_hand_delta, reserved_delta, level_version, order_id, app_id, request_id, note, occurred_at)
select skus.merchant_id, ceiling.new_id(), skus.variant_id, skus.location_id, 'set', 1, 0, 1, null, app_id, request_id, null, now()
from ceiling.skus
cross join ceiling.sample_movements
where number = :sku;
