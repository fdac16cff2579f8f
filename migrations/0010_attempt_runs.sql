-- expand
-- What keeping a delivery's outcome costs: attempts that were accepted are several in a row of the table, for they are nearly all there are, and a row with its
-- indexes for each cost more than sending it; and histories are not looked through for their statistics all the time.

-- Accepted attempts at one endpoint that were recorded together. Append-only; retention drops partitions. What was not accepted is a row of `attempts`, and so is
-- what older binaries wrote.
create table attempt_runs (
    merchant_id uuid not null,
    endpoint_id uuid not null,
    -- The newest and the oldest attempt's; at most five seconds lie between them.
    id uuid not null,
    first_id uuid not null,
    -- The smallest and the largest number in the endpoint's stream; fewer than 128 lie between them.
    first_sequence bigint not null,
    last_sequence bigint not null,
    endpoint_version bigint not null,
    -- An element for each attempt, as the columns of `attempts` have it.
    ids uuid[] not null,
    event_ids uuid[] not null,
    sequences bigint[] not null,
    numbers integer[] not null,
    started_at timestamptz[] not null,
    durations_ms integer[] not null,
    statuses integer[] not null,
    answer_excerpts text[] not null,
    request_bytes integer[] not null,
    constraint attempt_runs_pkey primary key (merchant_id, endpoint_id, id),
    constraint attempt_runs_ids check (first_id <= id and cardinality(ids) > 0),
    constraint attempt_runs_sequences check (last_sequence - first_sequence between 0 and 127)
) partition by range (id);
create table attempt_runs_default partition of attempt_runs default;
alter table attempt_runs_default enable row level security, force row level security;
-- By which the run is found that has an event's attempt.
create index attempt_runs_sequence on attempt_runs (merchant_id, endpoint_id, last_sequence, first_sequence);
alter table attempt_runs enable row level security;
alter table attempt_runs force row level security;
create policy attempt_runs_api on attempt_runs to stoa_api
    using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
create policy attempt_runs_worker on attempt_runs to stoa_worker using (true) with check (true);
grant select, insert on attempt_runs to stoa_api, stoa_worker;

-- The attempts at one delivery, wherever they are kept, from the id `since` on. Inlined where it is called, so that each part is a range of its index.
create function stoa_attempts_of(merchant uuid, endpoint uuid, event uuid, number_in_stream bigint, since uuid)
returns table (
    id uuid,
    sequence bigint,
    number integer,
    started_at timestamptz,
    duration_ms integer,
    status integer,
    error text,
    answer_excerpt text,
    endpoint_version bigint,
    request_bytes integer
)
language sql stable parallel safe as $$
    select id, sequence, number, started_at, duration_ms, status, error, answer_excerpt, endpoint_version, request_bytes
    from attempts
    where attempts.merchant_id = merchant
        and attempts.endpoint_id = endpoint
        and attempts.event_id = event
        and attempts.id >= since
    union all
    select made.id, made.sequence, made.number, made.started_at, made.duration_ms, made.status, null::text, made.answer_excerpt, run.endpoint_version,
        made.request_bytes
    from attempt_runs as run
    cross join unnest(run.ids, run.event_ids, run.sequences, run.numbers, run.started_at, run.durations_ms, run.statuses, run.answer_excerpts, run.request_bytes)
        as made (id, event_id, sequence, number, started_at, duration_ms, status, answer_excerpt, request_bytes)
    where run.merchant_id = merchant
        and run.endpoint_id = endpoint
        and run.last_sequence >= number_in_stream
        and run.last_sequence < number_in_stream + 128
        and run.first_sequence <= number_in_stream
        and run.id >= since
        and made.event_id = event
$$;
grant execute on function stoa_attempts_of(uuid, uuid, uuid, bigint, uuid) to stoa_api, stoa_worker;

-- A history is looked through when it has doubled, as new partitions are.
do $$
declare
    partition regclass;
begin
    for partition in
        select inhrelid::regclass
        from pg_inherits
        where inhparent in
            ('inventory_movements'::regclass, 'events'::regclass, 'streams'::regclass, 'attempts'::regclass, 'attempt_runs'::regclass, 'audit_entries'::regclass)
    loop
        execute format('alter table %s set (autovacuum_analyze_scale_factor = 1)', partition);
    end loop;
end
$$;
