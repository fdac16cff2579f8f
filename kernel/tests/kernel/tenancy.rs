//! Tenants never meet: not through a connection that somebody left inside a transaction, and not through a filter that somebody forgot.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
};

use futures_util::future::join_all;
use kernel::{
    db::{Database, Error, Role, Transaction},
    id::MerchantId,
};
use sqlx::{Executor, Row};

use crate::World;

/// Replaces `stoa_enter` by one that is slow while the test holds [`SLOW`], and fails for merchants whose id ends in `ff`, both
/// after the merchant has been set.
async fn make_entering_fragile(world: &World) {
    let sql = format!(
        "create or replace function stoa_enter(merchant uuid) returns void
        language plpgsql as $$
        begin
            execute format('set local stoa.merchant_id = %L', merchant);
            perform pg_advisory_xact_lock_shared({SLOW});
            if merchant::text like '%ff' then
                raise exception 'this merchant can not be entered';
            end if;
        end
        $$"
    );
    world
        .database
        .owner()
        .await
        .unwrap()
        .execute(sqlx::AssertSqlSafe(sql))
        .await
        .unwrap();
}

/// The advisory lock that makes entering slow.
const SLOW: i64 = 42;

fn merchant_ending_in(world: &World, last: u8) -> MerchantId {
    let mut bytes = *world.a.uuid().as_bytes();
    bytes[15] = last;
    MerchantId::from_uuid(uuid::Uuid::from_bytes(bytes))
}

fn pool(world: &World, connections_max: u32) -> Database {
    Database::new(world.database.options().clone(), Role::Api, connections_max)
}

/// As whom a transaction runs: merchant, role, and backend.
async fn identity(tx: &mut Transaction) -> (Option<MerchantId>, String, i32) {
    let row = tx
        .fetch_one("select stoa_merchant(), current_user::text, pg_backend_pid()")
        .await
        .unwrap();
    (
        row.get::<Option<uuid::Uuid>, _>(0)
            .map(MerchantId::from_uuid),
        row.get(1),
        row.get(2),
    )
}

/// Checks that a transaction sees `merchant` and nothing of anybody else.
async fn check(mut tx: Transaction, merchant: Option<MerchantId>) {
    let (entered, role, _) = identity(&mut tx).await;
    assert_eq!((entered, role.as_str()), (merchant, "stoa_api"));
    let visible = tx
        .fetch_all("select merchant_id from merchant_keys")
        .await
        .unwrap();
    let visible: Vec<_> = visible
        .iter()
        .map(|row| MerchantId::from_uuid(row.get(0)))
        .collect();
    assert_eq!(visible, merchant.into_iter().collect::<Vec<_>>());
    match rand::random_range(0..3) {
        0 => tx.commit().await.unwrap(),
        1 => tx.rollback().await.unwrap(),
        _ => drop(tx),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn begins_that_are_cancelled_or_fail_under_load_lend_nobody_their_merchant() {
    const CANCELLERS: usize = 4;
    const BEGINS: usize = 400;
    let world = Arc::new(World::create().await);
    make_entering_fragile(&world).await;
    let database = pool(&world, 3);
    let poisoned = merchant_ending_in(&world, 0xff);
    let (unfinished, failed, checked) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let over = Arc::new(AtomicBool::new(false));

    let mut troublemakers = tokio::task::JoinSet::new();
    for _ in 0..CANCELLERS {
        let (database, unfinished, merchant) = (database.clone(), Arc::clone(&unfinished), world.b);
        troublemakers.spawn(async move {
            for turn in 0..BEGINS {
                let mut begin = Box::pin(async {
                    if turn % 4 == 0 {
                        database.begin().await
                    } else {
                        database.enter(merchant).await
                    }
                    .is_ok()
                });
                let mut polls = rand::random_range(1..40);
                let done = std::future::poll_fn(|context| match begin.as_mut().poll(context) {
                    Poll::Ready(_) => Poll::Ready(true),
                    Poll::Pending if polls == 0 => Poll::Ready(false),
                    Poll::Pending => {
                        polls -= 1;
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                });
                if !done.await {
                    unfinished.fetch_add(1, Ordering::SeqCst);
                }
                drop(begin);
            }
        });
    }
    {
        let (database, failed) = (database.clone(), Arc::clone(&failed));
        troublemakers.spawn(async move {
            for _ in 0..BEGINS / 2 {
                database.enter(poisoned).await.unwrap_err();
                failed.fetch_add(1, Ordering::SeqCst);
            }
        });
    }

    let mut innocents = tokio::task::JoinSet::new();
    for turn in 0..4 {
        let (database, over, checked, merchant) = (
            database.clone(),
            Arc::clone(&over),
            Arc::clone(&checked),
            world.a,
        );
        innocents.spawn(async move {
            while !over.load(Ordering::SeqCst) {
                if turn % 2 == 0 {
                    check(database.begin().await.unwrap(), None).await;
                } else {
                    check(database.enter(merchant).await.unwrap(), Some(merchant)).await;
                }
                checked.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    // An innocent that saw a stranger ends early, by its panic.
    tokio::select! {
        () = async { while let Some(ended) = troublemakers.join_next().await { ended.unwrap(); } } => {}
        Some(ended) = innocents.join_next() => ended.unwrap(),
    }
    over.store(true, Ordering::SeqCst);
    while let Some(ended) = innocents.join_next().await {
        ended.unwrap();
    }
    let cancelled = unfinished.load(Ordering::SeqCst);
    assert!(
        cancelled > BEGINS / 4,
        "only {cancelled} begins were cancelled: this proves nothing"
    );
    assert_eq!(failed.load(Ordering::SeqCst), BEGINS / 2);
    assert!(checked.load(Ordering::SeqCst) > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_is_cancelled_inside_the_database_leaves_no_open_transaction_in_the_pool() {
    let world = World::create().await;
    make_entering_fragile(&world).await;
    let database = pool(&world, 1);
    let healthy = identity(&mut database.begin().await.unwrap()).await.2;
    let mut owner = world.database.owner().await.unwrap();
    owner
        .execute(sqlx::AssertSqlSafe(format!(
            "select pg_advisory_lock({SLOW})"
        )))
        .await
        .unwrap();
    {
        let mut entering = pin!(database.enter(world.b));
        let mut waiting = pin!(crate::until(async || {
            let waits =
                "select count(*) from pg_stat_activity where pid = $1 and wait_event_type = 'Lock'";
            sqlx::query(waits)
                .bind(healthy)
                .fetch_one(&mut world.database.owner().await.unwrap())
                .await
                .unwrap()
                .get::<i64, _>(0)
                == 1
        }));
        tokio::select! {
            _ = &mut entering => panic!("the lock should have kept it"),
            () = &mut waiting => {}
        }
        // Here the future is dropped: the server has begun, and has entered merchant B.
    }
    owner
        .execute(sqlx::AssertSqlSafe(format!(
            "select pg_advisory_unlock({SLOW})"
        )))
        .await
        .unwrap();
    let mut next = database.begin().await.unwrap();
    let (merchant, role, backend) = identity(&mut next).await;
    assert_eq!((merchant, role.as_str()), (None, "stoa_api"));
    assert_ne!(
        backend, healthy,
        "the connection was closed and not lent on"
    );
}

#[tokio::test]
async fn a_begin_that_fails_after_begin_is_not_the_next_ones_transaction() {
    let world = World::create().await;
    make_entering_fragile(&world).await;
    let database = pool(&world, 1);
    for _ in 0..20 {
        let error = database
            .enter(merchant_ending_in(&world, 0xff))
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::Sqlx(sqlx::Error::Database(_))),
            "{error:?}"
        );
        check(database.begin().await.unwrap(), None).await;
        check(database.enter(world.a).await.unwrap(), Some(world.a)).await;
    }
}

#[tokio::test]
async fn a_healthy_connection_stays_in_the_pool_however_its_transaction_ends() {
    let world = World::create().await;
    let database = pool(&world, 1);
    let backend = identity(&mut database.begin().await.unwrap()).await.2;
    for turn in 0..60 {
        let mut tx = if turn % 2 == 0 {
            database.begin().await
        } else {
            database.enter(world.a).await
        }
        .unwrap();
        assert_eq!(identity(&mut tx).await.2, backend, "turn {turn}");
        match turn % 4 {
            0 => tx.commit().await.unwrap(),
            1 => tx.rollback().await.unwrap(),
            2 => drop(tx),
            _ => {
                tx.execute("select 1 / 0").await.unwrap_err();
            }
        }
    }
}

#[tokio::test]
async fn connections_that_the_server_has_closed_fail_nobodys_begin() {
    const CONNECTIONS: u32 = 8;
    let world = World::create().await;
    let database = pool(&world, CONNECTIONS);
    let mut owner = world.database.owner().await.unwrap();
    for turn in 0..3 {
        let begun = join_all((0..CONNECTIONS).map(|_| database.enter(world.a))).await;
        let mut backends = Vec::new();
        for tx in begun {
            let mut tx = tx.unwrap();
            backends.push(identity(&mut tx).await.2);
            tx.commit().await.unwrap();
        }
        for backend in backends {
            sqlx::query("select pg_terminate_backend($1, 10000)")
                .bind(backend)
                .execute(&mut owner)
                .await
                .unwrap();
        }
        if turn % 2 == 0 {
            database.ping().await.unwrap();
        }
        for _ in 0..CONNECTIONS * 2 {
            check(database.enter(world.a).await.unwrap(), Some(world.a)).await;
        }
    }
}

#[tokio::test]
async fn a_statement_without_a_filter_sees_nothing_of_another_merchant() {
    let world = World::create().await;
    fill(&world, world.b).await;
    let api = world.database.api();
    let mut owner = world.database.owner().await.unwrap();
    let tables = crate::schema::tenant_tables(&mut owner).await;
    for table in &tables {
        let count = || sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        let mut tx = api.enter(world.b).await.unwrap();
        let own: i64 = tx.fetch_one(count()).await.unwrap().get(0);
        assert_eq!(
            own,
            i64::from(FILLED.contains(&table.as_str())),
            "{table} as B"
        );
        let count_of_b = || {
            sqlx::AssertSqlSafe(format!(
                "select count(*) from {table} where merchant_id = '{}'",
                world.b.uuid()
            ))
        };
        for (merchant, expected) in [
            (Some(world.a), i64::from(table == "merchant_keys")),
            (None, 0),
        ] {
            let mut tx = match merchant {
                Some(merchant) => api.enter(merchant).await.unwrap(),
                None => api.begin().await.unwrap(),
            };
            let seen: i64 = tx.fetch_one(count()).await.unwrap().get(0);
            assert_eq!(seen, expected, "{table}, having entered {merchant:?}");
            let seen: i64 = tx.fetch_one(count_of_b()).await.unwrap().get(0);
            assert_eq!(
                seen, 0,
                "{table}: B asked for by name, having entered {merchant:?}"
            );
        }
        // The login role owns the tables, and sees nothing either, whomever it enters.
        let seen: i64 = owner.fetch_one(count()).await.unwrap().get(0);
        assert_eq!(seen, 0, "{table} as its owner");
        let entered = format!("begin; select stoa_enter('{}')", world.b.uuid());
        owner.execute(sqlx::AssertSqlSafe(entered)).await.unwrap();
        let seen: i64 = owner.fetch_one(count()).await.unwrap().get(0);
        assert_eq!(seen, 0, "{table} as its owner, having entered B");
        owner.execute("rollback").await.unwrap();
    }
    for filled in FILLED {
        assert!(
            tables.iter().any(|table| table == filled),
            "{filled} is a tenant table"
        );
    }
}

/// Tables of which [`fill`] gives a merchant one row.
const FILLED: [&str; 7] = [
    "merchant_keys",
    "data_subject_keys",
    "idempotency_keys",
    "outbox",
    "locations",
    "feeds",
    "streams",
];

async fn fill(world: &World, merchant: MerchantId) {
    let id = merchant.uuid();
    let mut tx = world.database.api().enter(merchant).await.unwrap();
    for sql in [
        format!("insert into data_subject_keys values ('{id}', '{id}', '\\x00', now())"),
        format!("insert into idempotency_keys values ('{id}', '{id}', 'test', 'k', '\\x00', false, '{{}}', now())"),
        format!(
            "insert into outbox (merchant_id, id, type, resource_type, resource_id, resource_version, scope, locations, data, occurred_at)
            values ('{id}', '{id}', 'test', 'test', '1', 1, 'orders:read', '{{}}', '{{}}', now())"
        ),
        format!(
            "insert into locations (merchant_id, id, external_id, name, version, created_at, updated_at)
            values ('{id}', '{id}', '1', 'One', 1, now(), now())"
        ),
    ] {
        tx.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = world.database.worker().begin().await.unwrap();
    for sql in [
        format!("insert into feeds (merchant_id, last_number) values ('{id}', 1)"),
        format!(
            "insert into streams (merchant_id, endpoint_id, event_id, sequence) values ('{id}', '{id}', '{id}', 1)"
        ),
    ] {
        tx.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn writes_for_another_merchant_are_refused() {
    let world = World::create().await;
    fill(&world, world.a).await;
    fill(&world, world.b).await;
    let (api, b) = (world.database.api(), world.b.uuid());
    let other = uuid::Uuid::now_v7();
    for sql in [
        format!("insert into merchant_keys values ('{b}', '\\x00', now()) on conflict do nothing"),
        format!("insert into data_subject_keys values ('{b}', '{other}', '\\x00', now())"),
        format!("insert into idempotency_keys values ('{b}', '{other}', 'test', 'k2', '\\x00', false, '{{}}', now())"),
        format!(
            "insert into outbox (merchant_id, id, type, resource_type, resource_id, resource_version, scope, locations, data, occurred_at)
            values ('{b}', '{other}', 'test', 'test', '1', 1, 'orders:read', '{{}}', '{{}}', now())"
        ),
        format!("update locations set merchant_id = '{b}', id = '{other}', external_id = '2'"),
    ] {
        for merchant in [Some(world.a), None] {
            let mut tx = match merchant {
                Some(merchant) => api.enter(merchant).await.unwrap(),
                None => api.begin().await.unwrap(),
            };
            match tx.execute(sqlx::AssertSqlSafe(sql.clone())).await {
                Err(sqlx::Error::Database(error)) => assert_eq!(error.code().as_deref(), Some("42501"), "{sql}"),
                // Nobody's row was found to be moved.
                Ok(done) => assert!(merchant.is_none() && done.rows_affected() == 0 && sql.starts_with("update"), "{sql}"),
                Err(error) => panic!("{sql}: {error}"),
            }
        }
    }
    for sql in [
        "update locations set name = 'Taken'",
        "delete from data_subject_keys",
    ] {
        let mut tx = api.enter(world.a).await.unwrap();
        assert_eq!(tx.execute(sql).await.unwrap().rows_affected(), 1, "{sql}");
        tx.commit().await.unwrap();
    }
    let mut tx = api.enter(world.b).await.unwrap();
    assert_eq!(
        tx.fetch_one("select name from locations")
            .await
            .unwrap()
            .get::<String, _>(0),
        "One"
    );
    assert_eq!(
        tx.fetch_one("select count(*) from data_subject_keys")
            .await
            .unwrap()
            .get::<i64, _>(0),
        1
    );
}

#[tokio::test]
async fn a_role_and_a_merchant_last_no_longer_than_their_transaction() {
    let world = World::create().await;
    let database = pool(&world, 1);
    let backend = {
        let mut tx = database.enter(world.a).await.unwrap();
        let backend = identity(&mut tx).await.2;
        tx.commit().await.unwrap();
        backend
    };
    let mut tx = database.begin().await.unwrap();
    // `begin` names the role anew; the setting below is what the transaction before has left.
    let row = tx.fetch_one("select current_setting('stoa.merchant_id', true), session_user::text, pg_backend_pid()").await.unwrap();
    assert!(
        row.get::<Option<String>, _>(0)
            .is_none_or(|left| left.is_empty())
    );
    assert_eq!(row.get::<i32, _>(2), backend);
    tx.execute("reset role").await.unwrap();
    assert_eq!(
        tx.fetch_one("select current_user::text")
            .await
            .unwrap()
            .get::<String, _>(0),
        row.get::<String, _>(1)
    );
}
