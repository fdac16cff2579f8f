//! What PostgreSQL was asked, by its own count: `pg_stat_statements`.
//!
//! The extension must be loaded when PostgreSQL starts, so a server that is to be looked at like this is started twice.

use serde::Serialize;

use crate::{ceiling::Ceiling, world::World};

/// Statements that are shown at most.
const SHOWN_MAX: usize = 25;

/// Letters of each that are shown at most.
const LETTERS_MAX: usize = 150;

/// Counts of all statements since they were last forgotten.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Totals {
    /// Statements, those that begin and end transactions too.
    pub(crate) calls: f64,
    /// Pages of 8 kB that they touched, in memory or not.
    pub(crate) buffers: f64,
    /// Milliseconds that they ran.
    pub(crate) milliseconds: f64,
    /// Bytes of the write-ahead log that they wrote.
    pub(crate) wal_bytes: f64,
}

/// Starts the server again with the extension loaded.
pub(crate) async fn count(world: &mut World) {
    Ceiling::again(&world.stoa)
        .psql("alter system set shared_preload_libraries = 'pg_stat_statements'");
    world.stoa.kill();
    world.stoa.restart().await;
    Ceiling::again(&world.stoa).psql("create extension pg_stat_statements");
}

/// Begins to count from nothing.
pub(crate) fn forget(ceiling: &Ceiling<'_>) {
    ceiling.psql("select pg_stat_statements_reset()");
}

/// The counts since then. Statements of psql, which is `postgres`, do not count.
pub(crate) fn totals(ceiling: &Ceiling<'_>) -> Totals {
    totals_where(ceiling, "userid <> 'postgres'::regrole")
}

/// Those of relay and worker alone, without what begins their transactions.
pub(crate) fn totals_of_worker(ceiling: &Ceiling<'_>) -> Totals {
    totals_where(ceiling, "userid = 'stoa_worker'::regrole")
}

fn totals_where(ceiling: &Ceiling<'_>, condition: &str) -> Totals {
    let row = ceiling.psql(&format!(
        "select sum(calls), sum(shared_blks_hit + shared_blks_read), sum(total_exec_time), sum(wal_bytes)
        from pg_stat_statements where {condition}"
    ));
    let mut numbers = row
        .trim()
        .split('|')
        .map(|number| number.parse().unwrap_or(0.0));
    let mut next = || numbers.next().unwrap();
    Totals {
        calls: next(),
        buffers: next(),
        milliseconds: next(),
        wal_bytes: next(),
    }
}

/// Prints the statements that took the most, for each thousand of `operations`.
pub(crate) fn print(ceiling: &Ceiling<'_>, operations: u64) {
    let rows = ceiling.psql(&format!(
        "select calls, rows, total_exec_time, shared_blks_hit + shared_blks_read, wal_bytes,
            left(regexp_replace(query, '\\s+', ' ', 'g'), {LETTERS_MAX})
        from pg_stat_statements where userid <> 'postgres'::regrole
        order by total_exec_time desc
        limit {SHOWN_MAX}"
    ));
    println!("  statements, for 1,000: calls, rows, milliseconds, buffers, kB of log");
    let thousands = operations as f64 / 1_000.0;
    for row in rows.lines() {
        let columns: Vec<&str> = row.splitn(6, '|').collect();
        let [calls, rows, milliseconds, buffers, wal, text] = columns[..] else {
            continue;
        };
        let each = |number: &str| number.parse::<f64>().unwrap_or(0.0) / thousands;
        println!(
            "  {:>8.2}{:>9.1}{:>9.2}{:>9.1}{:>9.1}  {text}",
            each(calls),
            each(rows),
            each(milliseconds),
            each(buffers),
            each(wal) / 1_000.0,
        );
    }
    let totals = totals(ceiling);
    println!(
        "  {:>8.2}{:>9}{:>9.2}{:>9.1}{:>9.1}  all",
        totals.calls / thousands,
        "",
        totals.milliseconds / thousands,
        totals.buffers / thousands,
        totals.wal_bytes / thousands / 1_000.0,
    );
}
