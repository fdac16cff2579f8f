-- expand
-- A row that was deleted stays in the way of who reads from the beginning until nothing that runs can still see it: with one long transaction, a dump or an
-- analyst's query, the whole of what was drained since it began. So who adds says from where on to read.

-- Of a hint, the time from which on the merchant's events were made; null: from the beginning.
alter table relay_hints add column since timestamptz;
grant update on relay_hints to stoa_api, stoa_worker;

-- Of a lane, the latest time at which something that was added to it was due, and the last signal by which something was added that was not due after that. So
-- for who has seen a signal that is not before `unordered_signal`, whatever was added since is due after `added_at` as it was seen.
alter table lanes add column added_at timestamptz;
alter table lanes add column unordered_signal bigint not null default 0;
