insert into ceiling.outbox
    (merchant_id, id, type, resource_type, resource_id, resource_version, scope, locations, data, subject_id, personal, request_id, occurred_at)
select merchant_id, ceiling.new_id(), type, resource_type, resource_id, resource_version, scope, locations, data, subject_id, personal, request_id, now()
from ceiling.sample_events;
