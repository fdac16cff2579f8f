//! The schema: migrations, and the partitions of the histories.

use std::{collections::HashSet, sync::LazyLock, time::Duration};

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, Row,
    migrate::{MigrateError, Migrator},
    postgres::PgConnectOptions,
};
use uuid::Uuid;

use crate::{clock::Timestamp, db::Error};

/// Every migration, in order, compiled in. Those of a newer binary that the schema has already are left alone: migrations expand before they contract, so that
/// this binary runs on it too.
pub static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrator = sqlx::migrate!("../migrations");
    migrator.set_ignore_missing(true);
    migrator
});

/// Histories, partitioned by the day in their UUIDv7.
const PARTITIONED: [&str; 6] = [
    "inventory_movements",
    "events",
    "streams",
    "attempts",
    "attempt_runs",
    "audit_entries",
];

/// Those of which old partitions are dropped. Ledgers are kept.
const DROPPED: [&str; 4] = ["events", "streams", "attempts", "attempt_runs"];

/// How long a change of the schema waits for who uses the table, a dump say, and holds up whoever comes after.
const LOCK_TIMEOUT: &str = "2s";

/// The pause before a migration that had to wait for too long is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// Partitions are made this many days ahead, so that a sweeper that has been away for a week harms nobody.
const DAYS_AHEAD: u64 = 14;

/// How a partition's name ends.
const DAY_FORMAT: &str = "%Y%m%d";

/// What can go wrong while the schema is brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The database can't be reached, or refuses a statement.
    #[error(transparent)]
    Database(#[from] Error),
    /// A migration fails, or one that was applied has been changed since.
    #[error("migration failed: {0}")]
    Migrate(#[from] MigrateError),
}

impl From<sqlx::Error> for MigrationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// Applies what is missing, one process at a time (sqlx takes an advisory lock), and makes the partitions that are needed from `now` on. A migration waits for
/// whoever uses its tables, and is not in the way of others meanwhile. Partitions are made by the next sweep if they can't be made now: until they are
/// needed, or longer, the one by default takes their rows.
pub async fn run(options: &PgConnectOptions, now: Timestamp) -> Result<(), MigrationError> {
    let mut connection = PgConnection::connect_with(options).await?;
    let timeout = format!("set lock_timeout = '{LOCK_TIMEOUT}'");
    connection.execute(AssertSqlSafe(timeout)).await?;
    while let Err(error) = MIGRATOR.run_direct(None, &mut connection, false).await {
        match error {
            MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)
                if is_lock_timeout(&cause) =>
            {
                tracing::warn!(error = %cause, "a migration waits for another process that migrates, or for a transaction that uses its tables; trying again");
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            error => return Err(error.into()),
        }
    }
    connection.execute("reset lock_timeout").await?;
    match ensure_partitions(&mut connection, now).await {
        Err(Error::Sqlx(error)) if is_lock_timeout(&error) => {
            tracing::warn!(error = %error, "partitions could not be made yet");
        }
        made => made?,
    }
    connection.close().await?;
    Ok(())
}

/// Whether a lock was not to be had in time.
fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some("55P03"))
}

/// Makes the daily partitions from the day of `now` to [`DAYS_AHEAD`] days later. Needs the tables' owner. Fails if somebody uses a history for so long that
/// everybody else would have to wait; the next sweep tries again.
pub async fn ensure_partitions(connection: &mut PgConnection, now: Timestamp) -> Result<(), Error> {
    let today = DateTime::<Utc>::from(now).date_naive();
    let mut tx = connection.begin().await?;
    // Two processes that start at once would both find a partition missing.
    tx.execute("select pg_advisory_xact_lock(hashtext('stoa.partitions'))")
        .await?;
    let timeout = format!("set local lock_timeout = '{LOCK_TIMEOUT}'");
    tx.execute(AssertSqlSafe(timeout)).await?;
    let existing = partitions(&mut tx).await?;
    for day in (0..=DAYS_AHEAD).filter_map(|ahead| today.checked_add_days(Days::new(ahead))) {
        for table in PARTITIONED {
            let partition = name_of(table, day);
            if !existing.contains(&partition) {
                create_partition(&mut tx, table, &partition, day).await?;
            }
        }
    }
    tx.commit().await?;
    Ok(())
}

/// Makes one partition, unless the one by default has rows of that day: those must be moved first, and nothing may keep a process from starting.
async fn create_partition(
    tx: &mut PgConnection,
    table: &str,
    partition: &str,
    day: NaiveDate,
) -> Result<(), Error> {
    let Some(next) = day.succ_opt() else {
        return Ok(());
    };
    let (from, to) = (first_id_of(day), first_id_of(next));
    let mut savepoint = tx.begin().await?;
    // Policies are the parent's; asked by its own name, a partition shows nothing, not even to its owner.
    // A history is looked through for its statistics when it has doubled: by default that is done for each tenth more, and costs a busy day more than its writes.
    let statement = format!(
        "create table {partition} partition of {table} for values from ('{from}') to ('{to}') with (autovacuum_analyze_scale_factor = 1);
        alter table {partition} enable row level security, force row level security"
    );
    match savepoint.execute(AssertSqlSafe(statement)).await {
        Err(sqlx::Error::Database(error)) if error.is_check_violation() => {
            savepoint.rollback().await?;
            tracing::warn!(partition.name = partition, error = %error, "a partition is missing: its rows lie in the one by default");
        }
        made => {
            made?;
            savepoint.commit().await?;
        }
    }
    Ok(())
}

/// Drops the partitions of days before the day of `before`, but none of a ledger. Needs the tables' owner. Each is a transaction of its own.
pub async fn drop_partitions(
    connection: &mut PgConnection,
    before: Timestamp,
) -> Result<(), Error> {
    let first_kept = DateTime::<Utc>::from(before).date_naive();
    for partition in partitions(connection).await? {
        let is_old = DROPPED
            .iter()
            .any(|table| day_of(table, &partition).is_some_and(|day| day < first_kept));
        if is_old {
            let statement =
                format!("set local lock_timeout = '{LOCK_TIMEOUT}'; drop table {partition}");
            let mut tx = connection.begin().await?;
            tx.execute(AssertSqlSafe(statement)).await?;
            tx.commit().await?;
            tracing::info!(
                partition.name = partition,
                "a partition past its retention was dropped"
            );
        }
    }
    Ok(())
}

/// The names of all partitions.
async fn partitions(connection: &mut PgConnection) -> Result<HashSet<String>, Error> {
    let rows = connection
        .fetch_all(
            "select relname::text from pg_catalog.pg_class where relispartition and relkind = 'r'",
        )
        .await?;
    let names = rows.iter().map(|row| row.try_get(0));
    Ok(names.collect::<Result<_, _>>()?)
}

/// The name of a day's partition.
fn name_of(table: &str, day: NaiveDate) -> String {
    format!("{table}_{}", day.format(DAY_FORMAT))
}

/// The day of a partition of `table`.
fn day_of(table: &str, partition: &str) -> Option<NaiveDate> {
    let day = partition.strip_prefix(table)?.strip_prefix('_')?;
    NaiveDate::parse_from_str(day, DAY_FORMAT).ok()
}

/// The smallest UUIDv7 of a day.
fn first_id_of(day: NaiveDate) -> Uuid {
    let millis = day.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
    Uuid::from_u128(u128::try_from(millis).unwrap_or(0) << 80)
}
