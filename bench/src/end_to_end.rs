//! `end_to_end` and `end_to_end_orders`: events that are written one by one over HTTP, each sent to one endpoint, against the same rows by pgbench.
//!
//! What is written makes the two: the stock of one SKU, which is a change and its event, or an order of one line, which changes stock as well and tells of both.
//!
//! First as many as go, which gives the rate and what a thousand cost, from the first request to the last arrival. Then 200 a second and half of that rate, which
//! gives how long it takes from the API's answer, which comes after the commit, to the arrival.

use std::{cell::Cell, time::Duration};

use tokio::time::Instant;

use crate::{
    Options,
    arrivals::Arrivals,
    ceiling::Ceiling,
    cpu::Cpu,
    figure::{Figure, Sample, percentile_ms},
    queue::{Lane, wait_for},
    rows, statements,
    world::World,
    writes::{Answered, Write, Writes},
};

const SETUP: &str = include_str!("../sql/samples.sql");

impl Write {
    fn figure(self) -> &'static str {
        match self {
            Self::Stock => "end_to_end",
            Self::Order => "end_to_end_orders",
        }
    }

    /// The operation's name.
    fn operation(self) -> &'static str {
        match self {
            Self::Stock => "inventory.set",
            Self::Order => "order.place",
        }
    }

    /// The rows that it comes to, as a transaction of pgbench's: those of the change, those of the event and its delivery, and the stock.
    fn rows(self) -> String {
        let (change, column) = match self {
            Self::Stock => {
                let movement = include_str!("../sql/end_to_end_stock.pgbench.sql");
                (movement.to_owned(), "on_hand")
            }
            Self::Order => (rows::order(&[":sku"]), "reserved"),
        };
        let event = include_str!("../sql/end_to_end_event.pgbench.sql");
        let statements = [&*change, rows::KEY, event, &rows::stock(column, ":sku")].concat();
        format!("begin;\n{statements}commit;\n")
    }
}

/// SKUs that are written to.
const SKUS: usize = 10_000;

/// The quieter of the two rates at which times are taken.
const QUIET_PER_SECOND: f64 = 200.0;

/// Measures.
pub(crate) async fn run(options: &Options, write: Write) -> Figure {
    let mut world = World::start(None).await;
    if options.statements {
        statements::count(&mut world).await;
    }
    let (variants, location) = world.stocked(SKUS).await;
    let ceiling = Ceiling::new(&world.stoa);
    let arrivals = Arrivals::start().await;
    // What setting up has told goes to nobody.
    ceiling.relayed().await;
    world
        .client
        .endpoint(Some(arrivals.url()), &[write.event_type()])
        .await;
    let lane = Lane::of_url(&ceiling, arrivals.url());
    let mut writes = Writes::new(write, world.address(), &world.client, &variants, &location);

    // One write, whose rows are the ceiling's samples once it has come through.
    writes.send(1, Duration::from_millis(1), None, 0).await;
    wait_for("the first event", async || {
        (arrivals.count() > 0).then_some(())
    })
    .await;
    lane.drained().await;
    arrivals.take();
    let merchant = ceiling.psql("select id from public.merchants");
    let merchant = merchant.trim();
    ceiling.psql(
        &SETUP
            .replace("{merchant}", merchant)
            .replace("{operation}", write.operation()),
    );
    let script = format!(
        "\\set sku random(1, {SKUS})\n\\startpipeline\n{}\\endpipeline\n",
        write.rows().replace("{merchant}", merchant)
    );

    let duration = Duration::from_secs(options.seconds);
    let next = Cell::new(1_u64);
    let world_cell = &world;
    let mut ours = async || {
        world_cell.client.refresh().await;
        writes.authorize(&world_cell.client);
        if options.statements {
            statements::forget(&ceiling);
        }
        let (before, started) = (Cpu::of(&world_cell.stoa), Instant::now());
        let answered = writes
            .send(options.connections, duration, None, next.get())
            .await;
        next.set(next.get() + answered.len() as u64);
        let last = wait_for("the arrivals", async || {
            (arrivals.count() >= answered.len()).then(Instant::now)
        })
        .await;
        lane.drained().await;
        ceiling.relayed().await;
        let cpu = Cpu::of(&world_cell.stoa) - before;
        if options.statements {
            statements::print(&ceiling, answered.len() as u64);
        }
        let arrived = arrivals.take();
        assert_eq!(arrived.len(), answered.len(), "each event comes once");
        let elapsed = arrived.iter().map(|(at, _)| *at).max().unwrap_or(last) - started;
        Sample {
            operations: answered.len() as u64,
            elapsed,
            cpu,
            latencies: write.times(&answered, &arrived),
        }
    };
    let figure = Figure::measure(
        write.figure(),
        "events/s",
        "the same rows by pgbench, one transaction an event",
        options,
        &mut ours,
        async || ceiling.pgbench(&script, options.connections, duration),
    )
    .await;

    let half = figure.value() / 2.0;
    let mut figure = figure;
    for (name, rate) in [("200/s", QUIET_PER_SECOND), ("half of the rate", half)] {
        world.client.refresh().await;
        writes.authorize(&world.client);
        let answered = writes
            .send(options.connections, 3 * duration, Some(rate), next.get())
            .await;
        next.set(next.get() + answered.len() as u64);
        figure = with_times(figure, write, name, &arrivals, &answered).await;
        lane.drained().await;
    }
    figure
}

/// The figure with the times from these answers to the arrivals.
async fn with_times(
    mut figure: Figure,
    write: Write,
    name: &str,
    arrivals: &Arrivals,
    answered: &[Answered],
) -> Figure {
    wait_for("the arrivals", async || {
        (arrivals.count() >= answered.len()).then_some(())
    })
    .await;
    let mut times = write.times(answered, &arrivals.take());
    times.sort_unstable();
    for percent in [50, 99] {
        let value = percentile_ms(&times, percent).unwrap();
        figure = figure.with(
            format!("answer to arrival at {name}, p{percent}"),
            value,
            "ms",
        );
    }
    figure
}
