-- expand
-- Tenancy: the roles that transactions run as, and the function by which a transaction enters its merchant.
--
-- The login role owns the tables and is a member of both roles without inheriting from them. Row-level security is forced, so that the owner
-- sees no tenant's rows either; every transaction says `set local role` first. Policies read the merchant from a setting that lasts as long
-- as the transaction; outside of one, the setting is '' or null, and `nullif` makes both see nothing.

do $$
begin
    create role stoa_api nologin;
exception
    when duplicate_object or unique_violation then null;
end
$$;

do $$
begin
    create role stoa_worker nologin;
exception
    when duplicate_object or unique_violation then null;
end
$$;

do $$
begin
    if not pg_has_role(current_user, 'stoa_api', 'member') then
        execute format('grant stoa_api to %I', current_user);
    end if;
    if not pg_has_role(current_user, 'stoa_worker', 'member') then
        execute format('grant stoa_worker to %I', current_user);
    end if;
end
$$;

-- Enters a merchant for the rest of the transaction. `set local` inside a function travels to the shards of a distributed database;
-- set_config() does not.
create function stoa_enter(merchant uuid) returns void
language plpgsql as $$
begin
    execute format('set local stoa.merchant_id = %L', merchant);
end
$$;

-- The merchant that this transaction has entered, or null.
create function stoa_merchant() returns uuid
language sql stable parallel safe as $$
    select nullif(current_setting('stoa.merchant_id', true), '')::uuid
$$;

grant execute on function stoa_enter(uuid), stoa_merchant() to stoa_api, stoa_worker;
