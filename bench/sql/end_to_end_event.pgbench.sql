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
