-- What years leave behind: attempts on past days, dead letters, and endpoints that nothing is due for. Half of the attempts and dead letters are those of the
-- endpoint that is measured. Of twenty attempts one was not accepted.
create function ceiling.merchant_of(number bigint) returns uuid language sql immutable as $$
    select case when number % 2 = 0 then '{merchant}'::uuid else lpad(to_hex(number / 2 % 1000 + 1), 32, '0')::uuid end
$$;
create function ceiling.endpoint_of(number bigint) returns uuid language sql immutable as $$
    select case when number % 2 = 0 then '{endpoint}'::uuid else lpad(to_hex(number / 2 % {endpoints} + 1), 32, '0')::uuid end
$$;

do $$
declare
    days constant integer := 20;
    -- Attempts of a day that were accepted, in rows of 19, and those that were not, in as many rows.
    rows constant bigint := {attempts} / days / 20;
    day date;
    one text;
    name text;
    first_ms bigint;
begin
    for ago in 1..days loop
        day := (now() at time zone 'utc')::date - ago;
        first_ms := extract(epoch from day)::bigint * 1000;
        foreach one in array array['attempts', 'attempt_runs'] loop
            execute format(
                'create table public.%I (like public.%I including defaults including constraints)', one || '_' || to_char(day, 'YYYYMMDD'), one
            );
        end loop;
        execute format(
            $insert$
            insert into public.%I
                (merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, answer_excerpt)
            select ceiling.merchant_of(number), (lpad(to_hex(%s + number * 86400000 / %s), 12, '0') || '70008000' || lpad(to_hex(number), 12, '0'))::uuid,
                ceiling.endpoint_of(number), (lpad(to_hex(%s + number * 86400000 / %s), 12, '0') || '70009000' || lpad(to_hex(number), 12, '0'))::uuid,
                number, 1, to_timestamp((%s + number * 86400000 / %s) / 1000.0), 3, 503, ''
            from generate_series(0::bigint, %s - 1) as number
            $insert$,
            'attempts_' || to_char(day, 'YYYYMMDD'), first_ms, rows, first_ms, rows, first_ms, rows, rows
        );
        execute format(
            $insert$
            insert into public.%I
                (merchant_id, endpoint_id, endpoint_version, first_id, id, first_sequence, last_sequence,
                 ids, event_ids, sequences, numbers, started_at, durations_ms, statuses, answer_excerpts, request_bytes)
            select ceiling.merchant_of(number), ceiling.endpoint_of(number), 1, run.ids[1], run.ids[19], run.sequences[1], run.sequences[19],
                run.ids, run.event_ids, run.sequences, array_fill(1, array[19]), array_fill(to_timestamp((%s + number * 86400000 / %s) / 1000.0), array[19]),
                array_fill(3, array[19]), array_fill(200, array[19]), array_fill(''::text, array[19]), array_fill(700, array[19])
            from generate_series(0::bigint, %s - 1) as number
            cross join lateral (
                select
                    array_agg((lpad(to_hex(%s + number * 86400000 / %s), 12, '0') || '70008000' || lpad(to_hex(number * 19 + place), 12, '0'))::uuid order by place)
                        as ids,
                    array_agg((lpad(to_hex(%s + number * 86400000 / %s), 12, '0') || '70009000' || lpad(to_hex(number * 19 + place), 12, '0'))::uuid order by place)
                        as event_ids,
                    array_agg(number * 19 + place order by place) as sequences
                from generate_series(0, 18) as place
            ) as run
            $insert$,
            'attempt_runs_' || to_char(day, 'YYYYMMDD'), first_ms, rows, rows, first_ms, rows, first_ms, rows
        );
        foreach one in array array['attempts', 'attempt_runs'] loop
            name := one || '_' || to_char(day, 'YYYYMMDD');
            execute format('alter table public.%I owner to stoa', name);
            execute format(
                'alter table public.%I attach partition public.%I for values from (%L) to (%L)',
                one, name, rpad(lpad(to_hex(first_ms), 12, '0'), 32, '0')::uuid, rpad(lpad(to_hex(first_ms + 86400000), 12, '0'), 32, '0')::uuid
            );
            execute format('alter table public.%I enable row level security, force row level security', name);
        end loop;
        commit;
    end loop;
end
$$;

insert into public.dead_letters (merchant_id, id, endpoint_id, sequence, event_id, reason, event, attempts, created_at)
select ceiling.merchant_of(number), ceiling.new_id(), ceiling.endpoint_of(number), number, ceiling.new_id(), 'exhausted',
    '{"type": "order.placed", "data": {"id": "ord_00000000000000000000000000"}}', '[{"number": 1, "status": 500}, {"number": 2, "status": 500}]',
    now() - interval '30 days'
from generate_series(1::bigint, {dead_letters}) as number;

insert into public.endpoints (merchant_id, id, app_id, url, event_types, status, sealed_secrets, version, created_at, updated_at)
select lpad(to_hex(number % 1000 + 1), 32, '0')::uuid, lpad(to_hex(number + 1), 32, '0')::uuid, ceiling.new_id(), 'https://erp.example/hook', null, 'enabled',
    array['\x00'::bytea], 1, now(), now()
from generate_series(0::bigint, {endpoints} - 1) as number;
insert into public.endpoint_cursors (merchant_id, endpoint_id, last_sequence)
select merchant_id, id, 1000 from public.endpoints where id not in (select endpoint_id from public.endpoint_cursors);
insert into public.lanes (endpoint_id, merchant_id, due_at, signal, owner, lease_until, fence)
select id, merchant_id, null, 1000, null, null, 1000 from public.endpoints where id not in (select endpoint_id from public.lanes);
vacuum analyze;
checkpoint;
