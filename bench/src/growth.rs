//! `growth`: what PostgreSQL is asked for a delivery, before and after years of attempts, dead letters and endpoints, and beside a transaction that goes on and on.
//!
//! Counted by `pg_stat_statements`: statements of the worker's role and the pages that they touch, which do not depend on how fast the machine is. A backlog of events is
//! relayed and sent; then events trickle, each alone; then nothing happens for a while.

use std::{cell::Cell, time::Duration};

use crate::{
    Options,
    arrivals::Arrivals,
    ceiling::Ceiling,
    cpu::Cpu,
    figure::{Figure, Sample},
    queue::{Lane, Worker, wait_for},
    statements::{self, Totals},
    world::World,
    writes::{Write, Writes},
};

const GROWN: &str = include_str!("../sql/growth.sql");

/// SKUs that are written to.
const SKUS: usize = 1_000;

/// Events of a backlog.
const BACKLOG: u64 = 20_000;

/// Events that trickle, a second.
const TRICKLE_PER_SECOND: f64 = 50.0;

/// How long events trickle, and how long nothing happens.
const WHILE: Duration = Duration::from_secs(10);

/// What was counted in one state of the database.
#[derive(Debug, Default)]
struct Counts {
    backlog: Totals,
    trickle: Totals,
    trickled: u64,
    idle: Totals,
    /// Of server and database together, while nothing happened.
    idle_cpu: f64,
}

/// Measures.
pub(crate) async fn run(options: &Options) -> Figure {
    println!("growth: what a delivery asks, before and after");
    let mut world = World::start(Some("api")).await;
    statements::count(&mut world).await;
    let (variants, location) = world.stocked(SKUS).await;
    let ceiling = Ceiling::new(&world.stoa);
    {
        // What setting up has told goes to nobody.
        let _worker = Worker::start(&world.stoa);
        ceiling.relayed().await;
    }
    let arrivals = Arrivals::start().await;
    world
        .client
        .endpoint(
            Some(arrivals.url()),
            &["order.placed", "inventory.level_changed"],
        )
        .await;
    let lane = Lane::of_url(&ceiling, arrivals.url());
    let writes = Writes::new(
        Write::Order,
        world.address(),
        &world.client,
        &variants,
        &location,
    );
    let bench = Bench {
        world: &world,
        ceiling: &ceiling,
        lane: &lane,
        arrivals: &arrivals,
        variants: &variants,
        location: &location,
        on_hand: Cell::new(1),
        next: Cell::new(0),
    };

    ceiling.psql("vacuum analyze");
    let before = bench.count(&writes).await;
    println!("  beside a long transaction");
    let beside = {
        let _look = ceiling.look_long();
        bench.count(&writes).await
    };
    let merchant = ceiling.psql("select id from public.merchants");
    ceiling.psql(
        &GROWN
            .replace("{merchant}", merchant.trim())
            .replace("{endpoint}", lane.endpoint())
            .replace("{attempts}", &options.grown.to_string())
            .replace("{dead_letters}", &(options.grown / 10).to_string())
            .replace("{endpoints}", &(options.grown / 1_000).to_string()),
    );
    let size = ceiling.psql("select pg_database_size('stoa') / 1e9");
    println!("  grown to {} GB", size.trim());
    world.client.refresh().await;
    let mut writes = writes;
    writes.authorize(&world.client);
    let after = bench.count(&writes).await;

    figure_of(&before, &beside, &after)
}

fn figure_of(before: &Counts, beside: &Counts, after: &Counts) -> Figure {
    let buffers = |counts: &Counts| Sample {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        operations: counts.backlog.buffers as u64,
        elapsed: Duration::from_secs(BACKLOG),
        ..Sample::default()
    };
    let mut figure = Figure::of(
        "growth",
        "buffers/delivery",
        "the same before anything was there",
        &[buffers(after)],
        &[buffers(before)],
    );
    for (state, counts) in [
        ("before", before),
        ("beside a long transaction", beside),
        ("after", after),
    ] {
        let (backlog, trickled) = (BACKLOG as f64, counts.trickled as f64);
        let seconds = WHILE.as_secs_f64();
        for (name, value, unit) in [
            (
                "backlog",
                counts.backlog.calls / backlog,
                "statements/delivery",
            ),
            (
                "backlog",
                counts.backlog.buffers / backlog,
                "buffers/delivery",
            ),
            (
                "backlog",
                counts.backlog.milliseconds / backlog * 1_000.0,
                "us/delivery",
            ),
            (
                "trickle",
                counts.trickle.calls / trickled,
                "statements/delivery",
            ),
            (
                "trickle",
                counts.trickle.buffers / trickled,
                "buffers/delivery",
            ),
            ("idle", counts.idle.calls / seconds, "statements/s"),
            ("idle", counts.idle.buffers / seconds, "buffers/s"),
            ("idle", counts.idle_cpu / seconds * 1_000.0, "ms of CPU/s"),
        ] {
            figure = figure.with(format!("{name}, {state}"), value, unit);
        }
    }
    figure
}

struct Bench<'b> {
    world: &'b World,
    ceiling: &'b Ceiling<'b>,
    lane: &'b Lane<'b>,
    arrivals: &'b Arrivals,
    variants: &'b [String],
    location: &'b str,
    on_hand: Cell<i64>,
    next: Cell<u64>,
}

impl Bench<'_> {
    /// Counts in the present state of the database.
    async fn count(&self, writes: &Writes) -> Counts {
        // Twice: the first time, pages that were just written are pruned and marked.
        self.backlog().await;
        let backlog = self.backlog().await;
        println!(
            "  backlog: {:.1} buffers a delivery",
            backlog.buffers / BACKLOG as f64
        );
        let worker = Worker::start(&self.world.stoa);
        // What it does once, when it starts, is over then.
        self.trickle(writes, Duration::from_secs(1)).await;
        statements::forget(self.ceiling);
        let trickled = self.trickle(writes, WHILE).await;
        let trickle = statements::totals_of_worker(self.ceiling);
        println!(
            "  one by one: {:.1} buffers a delivery",
            trickle.buffers / trickled as f64
        );
        let postmaster = self.world.stoa.postgres_pid().unwrap();
        tokio::time::sleep(2 * Duration::from_secs(1)).await;
        statements::forget(self.ceiling);
        let before = Cpu::of_processes(worker.pid(), postmaster);
        tokio::time::sleep(WHILE).await;
        let cpu = Cpu::of_processes(worker.pid(), postmaster) - before;
        let idle = statements::totals_of_worker(self.ceiling);
        Counts {
            backlog,
            trickle,
            trickled,
            idle,
            idle_cpu: cpu.server + cpu.database,
        }
    }

    /// Events pile up in the outbox, and are relayed and sent.
    async fn backlog(&self) -> Totals {
        let calls = BACKLOG / self.variants.len() as u64;
        for _ in 0..calls {
            self.on_hand.set(self.on_hand.get() + 1);
            self.world
                .set_stock(self.variants, self.location, self.on_hand.get())
                .await;
        }
        statements::forget(self.ceiling);
        let worker = Worker::start(&self.world.stoa);
        self.arrived(BACKLOG).await;
        drop(worker);
        statements::totals_of_worker(self.ceiling)
    }

    /// Events come one by one; each order makes two. Gives how many were delivered.
    async fn trickle(&self, writes: &Writes, duration: Duration) -> u64 {
        let orders = writes
            .send(4, duration, Some(TRICKLE_PER_SECOND), self.next.get())
            .await
            .len() as u64;
        self.next.set(self.next.get() + orders);
        self.arrived(2 * orders).await;
        2 * orders
    }

    async fn arrived(&self, events: u64) {
        wait_for("the arrivals", async || {
            (self.arrivals.count() as u64 >= events).then_some(())
        })
        .await;
        self.lane.drained().await;
        assert_eq!(self.arrivals.take().len() as u64, events);
    }
}
