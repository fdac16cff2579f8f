-- expand
-- The delivery engine's upkeep.

-- What was leased and acknowledged counts as an attempt that was accepted.
grant insert on attempts to stoa_api;
