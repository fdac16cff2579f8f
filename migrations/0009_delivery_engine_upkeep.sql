-- expand
-- The delivery engine's upkeep.

-- What was leased and acknowledged counts as an attempt that was accepted.
grant insert on attempts to stoa_api;

-- By which lanes are counted whose breaker is not closed and that have something to send, however many others there are.
create index lanes_breaker on lanes (rest_until) where breaker_count > 0 and due_at is not null;
