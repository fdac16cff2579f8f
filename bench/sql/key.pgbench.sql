insert into ceiling.idempotency_keys
    (merchant_id, app_id, operation, idempotency_key, fingerprint, refused, outcome, created_at)
select merchant_id, app_id, operation, ceiling.new_id()::text, fingerprint, refused, outcome, now()
from ceiling.sample_keys;
