-- Tables like Stoa's, without row-level security and partitions.
create schema ceiling;

create sequence ceiling.ids cache 100;

-- Ids that grow, as UUIDv7 do.
create function ceiling.new_id() returns uuid language sql as $$
    select lpad(to_hex(nextval('ceiling.ids')), 32, '0')::uuid
$$;

do $$
declare
    copied constant text[] := array[
        'locations', 'products', 'variants', 'inventory_levels', 'inventory_movements', 'customers', 'orders', 'order_lines', 'order_transitions',
        'idempotency_keys', 'outbox', 'refresh_families', 'refresh_tokens', 'events', 'streams', 'attempts'
    ];
    one text;
    reference record;
begin
    foreach one in array copied loop
        execute format('create table ceiling.%I (like public.%I including all)', one, one);
    end loop;
    for reference in
        select conrelid::regclass::text as name, conname, pg_get_constraintdef(oid) as definition
        from pg_constraint
        where contype = 'f' and conrelid = any (select format('public.%I', name)::regclass from unnest(copied) as name)
    loop
        -- What is not copied is referred to where it is.
        perform set_config('search_path', 'ceiling, public', true);
        execute format('alter table %I add constraint %I %s', reference.name, reference.conname, reference.definition);
        perform set_config('search_path', 'public', true);
    end loop;
end
$$;
