//! What holds for every table, asked of the catalog: whoever adds a table and forgets a rule is told here.

use sqlx::{Executor, PgConnection, Row};

use crate::World;

/// Tables that belong to no merchant. What is not listed here is a tenant table, and must be kept like one.
const GLOBAL: [&str; 29] = [
    "merchants",
    "apps",
    "grants",
    "signing_keys",
    "persons",
    "memberships",
    "invitations",
    "recovery_codes",
    "passkeys",
    "person_identities",
    "sessions",
    "ceremonies",
    "throttles",
    "app_developers",
    "app_secrets",
    "app_keys",
    "client_assertions",
    "token_errors",
    "authorization_requests",
    "refresh_families",
    "refresh_tokens",
    "authorization_codes",
    "grant_uses",
    "relay_hints",
    "lanes",
    "app_endpoints",
    "app_endpoint_keys",
    "replay_hints",
    "_sqlx_migrations",
];

/// Histories: written once, never changed.
const APPEND_ONLY: [&str; 7] = [
    "inventory_movements",
    "order_transitions",
    "events",
    "streams",
    "attempts",
    "attempt_runs",
    "audit_entries",
];

/// What the worker role has no business with.
const NOT_FOR_WORKERS: [&str; 11] = [
    "products",
    "variants",
    "catalog_imports",
    "locations",
    "inventory_levels",
    "inventory_movements",
    "customers",
    "orders",
    "order_lines",
    "order_transitions",
    "fulfillments",
];

/// The one policy by which a transaction that has entered no merchant sees rows: the installation's part of the audit log, under the nil id.
const INSTALLATION_LOG: &str = "audit_entries_installation";

async fn texts(owner: &mut PgConnection, sql: &str) -> Vec<String> {
    owner
        .fetch_all(sqlx::AssertSqlSafe(sql.to_owned()))
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// Every table that holds merchants' rows, without its partitions.
pub(crate) async fn tenant_tables(owner: &mut PgConnection) -> Vec<String> {
    let mut tables = texts(
        owner,
        "select relname::text from pg_class
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
        order by relname",
    )
    .await;
    tables.retain(|table| !GLOBAL.contains(&table.as_str()));
    assert!(tables.len() > 15, "{tables:?}");
    tables
}

fn list(tables: &[impl AsRef<str>]) -> String {
    tables
        .iter()
        .map(|table| format!("'{}'", table.as_ref()))
        .collect::<Vec<_>>()
        .join(", ")
}

#[tokio::test]
async fn every_tenant_table_is_kept_by_row_level_security() {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    for table in tenant_tables(&mut owner).await {
        let unkept = format!(
            "select 'row-level security' from pg_class where oid = '{table}'::regclass and not (relrowsecurity and relforcerowsecurity)
            union all
            select 'merchant_id' where not exists (
                select from pg_attribute where attrelid = '{table}'::regclass and attname = 'merchant_id' and attnotnull and atttypid = 'uuid'::regtype)
            union all
            select 'stoa_api has no policy' where not exists (
                select from pg_policies where tablename = '{table}' and 'stoa_api' = any(roles))
            union all
            select policyname from pg_policies
            where tablename = '{table}'
                and not (roles = '{{stoa_worker}}')
                and not (roles = '{{stoa_api}}' and cmd = 'ALL' and permissive = 'PERMISSIVE'
                    and qual = '(merchant_id = stoa_merchant())' and with_check = qual)
                and not (policyname = '{INSTALLATION_LOG}' and roles = '{{stoa_api}}' and with_check = qual
                    and qual = '((stoa_merchant() IS NULL) AND (merchant_id = ''00000000-0000-0000-0000-000000000000''::uuid))')"
        );
        assert_eq!(texts(&mut owner, &unkept).await, [""; 0], "{table}");
    }
    // A partition is reached through its table, and by itself shows nothing to anybody.
    let open = "select relname::text from pg_class
        where relispartition and relkind = 'r'
            and (not (relrowsecurity and relforcerowsecurity)
                or has_table_privilege('stoa_api', oid, 'select, insert, update, delete')
                or has_table_privilege('stoa_worker', oid, 'select, insert, update, delete'))";
    assert_eq!(texts(&mut owner, open).await, [""; 0]);
}

#[tokio::test]
async fn the_roles_bypass_nothing_and_own_nothing() {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    let powerful = "select rolname::text from pg_roles
        where rolname in ('stoa_api', 'stoa_worker') and (rolsuper or rolbypassrls or rolcanlogin or rolcreaterole or rolcreatedb)
        union all
        select relname::text from pg_class where pg_get_userbyid(relowner) in ('stoa_api', 'stoa_worker')
        union all
        select 'truncate ' || relname from pg_class, unnest(array['stoa_api', 'stoa_worker']) as role
        where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and has_table_privilege(role, oid, 'truncate, trigger, references')";
    assert_eq!(texts(&mut owner, powerful).await, [""; 0]);
    let changeable = format!(
        "select relname || ' by ' || role from pg_class, unnest(array['stoa_api', 'stoa_worker']) as role
        where relname in ({}) and has_table_privilege(role, oid, 'update, delete')",
        list(&APPEND_ONLY)
    );
    assert_eq!(texts(&mut owner, &changeable).await, [""; 0]);
    let reachable = format!(
        "select relname::text from pg_class where relname in ({}) and has_table_privilege('stoa_worker', oid, 'select, insert, update, delete')",
        list(&NOT_FOR_WORKERS)
    );
    assert_eq!(texts(&mut owner, &reachable).await, [""; 0]);
}

#[tokio::test]
async fn keys_of_tenant_tables_begin_with_the_merchant() {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    let tables = tenant_tables(&mut owner).await;
    let tenant = list(&tables);
    let without_key = format!(
        "select relname::text from pg_class where relname in ({tenant})
            and not exists (select from pg_index where indrelid = pg_class.oid and indisprimary)"
    );
    assert_eq!(texts(&mut owner, &without_key).await, [""; 0]);
    let unique = format!(
        "select indexrelid::regclass::text
        from pg_index join pg_class on pg_class.oid = indrelid
        where relname in ({tenant}) and indisunique
            and not exists (select from pg_attribute where attrelid = indrelid and attnum = indkey[0] and attname = 'merchant_id')"
    );
    assert_eq!(texts(&mut owner, &unique).await, [""; 0]);
    let foreign = format!(
        "select conname::text
        from pg_constraint
        join pg_class as here on here.oid = conrelid
        join pg_class as there on there.oid = confrelid
        where contype = 'f' and (
            -- From a global table to a tenant's, or between histories.
            (here.relname not in ({tenant}) and there.relname in ({tenant}))
            or here.relkind = 'p' or there.relkind = 'p'
            -- Between tenant tables, by something other than the merchant first.
            or (here.relname in ({tenant}) and there.relname in ({tenant}) and not exists (
                select from pg_attribute as mine, pg_attribute as theirs
                where mine.attrelid = conrelid and mine.attnum = conkey[1] and mine.attname = 'merchant_id'
                    and theirs.attrelid = confrelid and theirs.attnum = confkey[1] and theirs.attname = 'merchant_id'))
            or confdeltype in ('n', 'd'))"
    );
    assert_eq!(texts(&mut owner, &foreign).await, [""; 0]);
    let banned = "select tgname::text from pg_trigger where not tgisinternal
        union all
        select conname::text from pg_constraint where contype in ('x', 't') and connamespace = 'public'::regnamespace
        union all
        select rulename::text from pg_rewrite join pg_class on pg_class.oid = ev_class where relnamespace = 'public'::regnamespace";
    assert_eq!(texts(&mut owner, banned).await, [""; 0]);
}

#[tokio::test]
async fn every_constraint_is_named_after_its_table() {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    // Errors are told apart by these names; a generated one would change with its columns.
    let unnamed = "select conname::text
        from pg_constraint join pg_class on pg_class.oid = conrelid
        where relnamespace = 'public'::regnamespace and not relispartition and relname <> '_sqlx_migrations'
            and not starts_with(conname, relname || '_')";
    assert_eq!(texts(&mut owner, unnamed).await, [""; 0]);
}
