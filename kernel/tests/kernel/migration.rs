//! The schema comes about once, however many start at once, and its histories have a partition for each day.

use std::time::Duration;

use futures_util::future::join_all;
use kernel::{
    clock::Timestamp,
    id::{EventId, MerchantId},
    migration::{self, MIGRATOR, MigrationError, drop_partitions, ensure_partitions},
    test_database::TestDatabase,
};
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};

use crate::{World, soon};

const DAY: Duration = Duration::from_hours(24);

/// What a UUIDv7 counts.
const MILLISECOND: Duration = Duration::from_millis(1);

/// Days that have a partition: the one of the start, and fourteen ahead.
const DAYS: usize = 15;

/// Tables with partitions.
const HISTORIES: usize = 6;

/// Histories of which nothing is dropped.
const KEPT: [&str; 2] = ["inventory_movements", "audit_entries"];

async fn empty_database() -> PgConnectOptions {
    let beside = TestDatabase::create().await.unwrap();
    let name = format!("stoa_test_{}", uuid::Uuid::now_v7().simple());
    let create = format!("create database {name}");
    beside
        .owner()
        .await
        .unwrap()
        .execute(sqlx::AssertSqlSafe(create))
        .await
        .unwrap();
    beside.options().clone().database(&name)
}

/// Midnight of some day long before anybody runs this, so that no real partition is met.
fn midnight() -> Timestamp {
    "2001-01-01T00:00:00Z".parse().unwrap()
}

/// The partitions by name and identity, without those by default.
async fn partitions(connection: &mut PgConnection) -> Vec<(String, i64)> {
    let sql = "select relname::text, oid::bigint from pg_class
        where relispartition and relkind = 'r' and relname not like '%_default'
        order by relname";
    connection
        .fetch_all(sql)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_that_start_at_once_migrate_once_and_a_later_start_changes_nothing() {
    let options = empty_database().await;
    let now = midnight();
    for result in join_all((0..4).map(|_| migration::run(&options, now))).await {
        result.unwrap();
    }
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    let applied =
        "select version, installed_on::text from _sqlx_migrations where success order by version";
    let applied = async |connection: &mut PgConnection| {
        let rows = connection.fetch_all(applied).await.unwrap();
        rows.iter()
            .map(|row| (row.get::<i64, _>(0), row.get::<String, _>(1)))
            .collect::<Vec<_>>()
    };
    let first = applied(&mut connection).await;
    assert_eq!(
        first.iter().map(|row| row.0).collect::<Vec<_>>(),
        MIGRATOR
            .iter()
            .map(|migration| migration.version)
            .collect::<Vec<_>>()
    );
    let made = partitions(&mut connection).await;
    assert_eq!(made.len(), DAYS * HISTORIES);
    migration::run(&options, now).await.unwrap();
    assert_eq!(applied(&mut connection).await, first);
    assert_eq!(
        partitions(&mut connection).await,
        made,
        "the same ones: none was made anew"
    );
}

#[tokio::test]
async fn a_schema_of_a_newer_binary_serves_this_one_and_a_changed_migration_is_refused() {
    let options = empty_database().await;
    migration::run(&options, midnight()).await.unwrap();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    connection
        .execute("insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'newer', true, '\\x00', 0)")
        .await
        .unwrap();
    migration::run(&options, midnight()).await.unwrap();
    connection
        .execute("update _sqlx_migrations set checksum = '\\x00' where version = 1")
        .await
        .unwrap();
    assert!(matches!(
        migration::run(&options, midnight()).await,
        Err(MigrationError::Migrate(_))
    ));
}

/// Somebody who uses `table` for as long as its connection is kept, as a dump does.
async fn reader_of(options: &PgConnectOptions, table: &str) -> PgConnection {
    let mut reader = PgConnection::connect_with(options).await.unwrap();
    let lock = format!("begin; lock table {table} in access share mode");
    reader.execute(sqlx::AssertSqlSafe(lock)).await.unwrap();
    reader
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_migration_waits_for_a_dump_and_nobody_waits_for_the_migration() {
    let options = empty_database().await;
    migration::run(&options, midnight()).await.unwrap();
    let mut other = PgConnection::connect_with(&options).await.unwrap();
    // As if the one that adds columns to lanes were new.
    other
        .execute(
            "delete from _sqlx_migrations where version = 12;
            alter table relay_hints drop column since;
            alter table lanes drop column added_at, drop column unordered_signal",
        )
        .await
        .unwrap();
    let reader = reader_of(&options, "lanes").await;
    let migrated = tokio::spawn({
        let options = options.clone();
        async move { migration::run(&options, midnight()).await }
    });
    let waiting = "select count(*) from pg_locks where not granted";
    while other.fetch_one(waiting).await.unwrap().get::<i64, _>(0) == 0 {
        tokio::task::yield_now().await;
    }
    // Behind the migration in the queue for the table.
    soon(other.execute("select count(*) from lanes"))
        .await
        .unwrap();
    assert!(!migrated.is_finished());
    reader.close().await.unwrap();
    soon(migrated).await.unwrap().unwrap();
    other
        .execute("select unordered_signal from lanes")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_start_beside_a_dump_leaves_new_partitions_to_the_next_sweep() {
    let options = empty_database().await;
    migration::run(&options, midnight()).await.unwrap();
    let mut owner = PgConnection::connect_with(&options).await.unwrap();
    let before = partitions(&mut owner).await.len();
    let reader = reader_of(&options, "events").await;
    let tomorrow = midnight().plus(DAY);
    soon(migration::run(&options, tomorrow)).await.unwrap();
    ensure_partitions(&mut owner, tomorrow).await.unwrap_err();
    assert_eq!(partitions(&mut owner).await.len(), before);
    reader.close().await.unwrap();
    ensure_partitions(&mut owner, tomorrow).await.unwrap();
    assert_eq!(partitions(&mut owner).await.len(), before + HISTORIES);
}

#[tokio::test]
async fn each_day_makes_one_more_and_rows_lie_where_their_day_is() {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    let start = midnight();
    let before = partitions(&mut owner).await.len();
    ensure_partitions(&mut owner, start.plus(DAY).minus(MILLISECOND))
        .await
        .unwrap();
    let made = partitions(&mut owner).await;
    assert_eq!(made.len(), before + DAYS * HISTORIES);
    ensure_partitions(&mut owner, start).await.unwrap();
    assert_eq!(partitions(&mut owner).await, made);

    let mut tx = world.database.worker().begin().await.unwrap();
    let mut lies_in = async |at: Timestamp| {
        let insert = "insert into streams (merchant_id, endpoint_id, event_id, sequence) values ($1, $1, $2, 1) returning tableoid::regclass::text";
        let row = sqlx::query(insert)
            .bind(MerchantId::new(at))
            .bind(EventId::new(at))
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        row.get::<String, _>(0)
    };
    for (day, name) in [
        (0, "streams_20010101"),
        (1, "streams_20010102"),
        (14, "streams_20010115"),
        (15, "streams_default"),
    ] {
        let first = start.plus(DAY * day);
        assert_eq!(lies_in(first).await, name);
        assert_eq!(lies_in(first.plus(DAY).minus(MILLISECOND)).await, name);
    }
    assert_eq!(lies_in(start.minus(MILLISECOND)).await, "streams_default");
    tx.commit().await.unwrap();

    // What lies in the partition by default keeps its day from having one, and keeps nobody from starting.
    ensure_partitions(&mut owner, start.plus(DAY))
        .await
        .unwrap();
    let made = partitions(&mut owner).await;
    let has = |name: &str| made.iter().any(|(made, _)| made == name);
    assert!(
        has("events_20010116") && has("attempts_20010116") && has("inventory_movements_20010116")
    );
    assert!(!has("streams_20010116"));
    ensure_partitions(&mut owner, start.plus(DAY * 2))
        .await
        .unwrap();
    assert!(
        partitions(&mut owner)
            .await
            .iter()
            .any(|(made, _)| made == "streams_20010117")
    );
}

#[tokio::test]
async fn retention_drops_histories_by_the_day_and_keeps_ledgers() {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    let start = midnight();
    ensure_partitions(&mut owner, start).await.unwrap();
    let before = partitions(&mut owner).await;

    drop_partitions(&mut owner, start.plus(DAY).minus(MILLISECOND))
        .await
        .unwrap();
    assert_eq!(
        partitions(&mut owner).await,
        before,
        "its first day is not over"
    );

    let mut reader = world.database.owner().await.unwrap();
    reader
        .execute("begin; lock table streams_20010101 in access share mode")
        .await
        .unwrap();
    drop_partitions(&mut owner, start.plus(DAY * 2))
        .await
        .unwrap_err();
    reader.execute("rollback").await.unwrap();
    drop_partitions(&mut owner, start.plus(DAY * 2))
        .await
        .unwrap();
    let dropped: Vec<_> = before
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.ends_with("_20010101") || name.ends_with("_20010102"))
        .filter(|name| !KEPT.iter().any(|kept| name.starts_with(kept)))
        .collect();
    assert_eq!(dropped.len(), 2 * (HISTORIES - KEPT.len()));
    let mut kept = before.clone();
    kept.retain(|(name, _)| !dropped.contains(&name.as_str()));
    assert_eq!(partitions(&mut owner).await, kept);
}

#[tokio::test]
async fn a_start_that_has_nothing_to_make_waits_for_no_reader_or_writer() {
    let world = World::create().await;
    ensure_partitions(&mut world.database.owner().await.unwrap(), midnight())
        .await
        .unwrap();
    let mut busy = world.database.owner().await.unwrap();
    busy.execute(
        "begin; lock table events, streams, attempts, inventory_movements in row exclusive mode",
    )
    .await
    .unwrap();
    soon(ensure_partitions(
        &mut world.database.owner().await.unwrap(),
        midnight(),
    ))
    .await
    .unwrap();
    busy.execute("rollback").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partitions_are_made_once_by_those_who_start_at_once() {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    let before = partitions(&mut owner).await.len();
    let starters = (0..4).map(|_| async {
        let mut connection = world.database.owner().await.unwrap();
        ensure_partitions(&mut connection, midnight()).await
    });
    for result in join_all(starters).await {
        result.unwrap();
    }
    assert_eq!(
        partitions(&mut owner).await.len(),
        before + DAYS * HISTORIES
    );
}
