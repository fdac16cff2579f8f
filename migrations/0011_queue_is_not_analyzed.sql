-- expand
-- A queue is not looked through at all: it is never as it was then, and each of its statements has one plan, by which it finds what it looks for whatever is known.
alter table deliveries set (autovacuum_analyze_threshold = 2147483647);
