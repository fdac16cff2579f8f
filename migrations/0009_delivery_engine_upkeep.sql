-- expand
-- The delivery engine's upkeep.

-- What was leased and acknowledged counts as an attempt that was accepted.
grant insert on attempts to stoa_api;

-- By which lanes are counted whose breaker is not closed and that have something to send, however many others there are.
create index lanes_breaker on lanes (rest_until) where breaker_count > 0 and due_at is not null;

-- By which counts of more than a month are found when they are swept.
create index endpoint_hours_hour on endpoint_hours (hour);
