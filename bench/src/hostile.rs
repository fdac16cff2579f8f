//! `hostile`: a healthy merchant beside five others whose endpoints hang, fail, drip, take ten seconds, or have a backlog of a million.
//!
//! Alone first: how many events a second the healthy one can write and have delivered. Then it is offered a fifth of that, alone and beside the others, whose
//! lanes are freed in between. What counts is how much of what was offered had arrived when its time was over.

use std::time::Duration;

use tests::{ALL_SCOPES, Client};
use tokio::time::Instant;

use crate::{
    Options,
    arrivals::Arrivals,
    bare::Bare,
    ceiling::Ceiling,
    figure::{Figure, Sample, percentile_ms},
    memory::{self, Memory},
    queue::{Lane, wait_for},
    world::{World, set_stock, stocked},
    writes::{Write, Writes},
};

/// How the others' endpoints behave: paths of the bare receiver.
const OTHERS: [&str; 5] = ["hang", "fail", "drip", "slow", "hook"];

/// The one of them that only floods.
const FLOODING: &str = "hook";

/// Deliveries that wait for each of the others.
const BACKLOG: u64 = 10_000;

/// Real events of each of the others, which their deliveries repeat.
const EVENTS: usize = 5_000;

/// SKUs that the healthy one sells.
const SKUS: usize = 10_000;

/// What part of its own rate the healthy one is offered.
const OFFERED_PART: f64 = 0.2;

/// How long it is: every slow answer and every deadline comes round twice.
const DURATION: Duration = Duration::from_secs(30);

/// How long the others are let go before the healthy one begins.
const AHEAD: Duration = Duration::from_secs(3);

/// What came of an offer.
struct Fared {
    /// What was delivered within the time.
    delivered: Sample,
    /// What was offered.
    offered: Sample,
    /// From answer to arrival, sorted.
    times: Vec<Duration>,
}

/// Measures.
pub(crate) async fn run(options: &Options) -> Figure {
    println!("hostile: a healthy merchant beside five others");
    let world = World::start(None).await;
    let ceiling = Ceiling::new(&world.stoa);
    let receiver = Bare::start("receiver", b"");
    let arrivals = Arrivals::start().await;
    let (variants, location) = world.stocked(SKUS).await;
    let mut others = Vec::new();
    for path in OTHERS {
        let url = receiver.url(path);
        let backlog = if path == FLOODING {
            options.flood
        } else {
            BACKLOG
        };
        others.push(other(&world, &ceiling, &url, backlog).await);
    }
    world
        .client
        .endpoint(Some(arrivals.url()), &[Write::Order.event_type()])
        .await;
    let lane = Lane::of_url(&ceiling, arrivals.url());
    ceiling.psql("vacuum analyze");
    receiver.reset().await;
    world.client.refresh().await;
    let mut writes = Writes::new(
        Write::Order,
        world.address(),
        &world.client,
        &variants,
        &location,
    );
    let stoa = world.stoa.pid();
    memory::forget(stoa);

    let alone = Duration::from_secs(options.seconds);
    let started = Instant::now();
    let answered = writes.send(options.connections, alone, None, 0).await;
    wait_for("the arrivals", async || {
        (arrivals.count() >= answered.len()).then_some(())
    })
    .await;
    let rate = answered.len() as f64 / started.elapsed().as_secs_f64();
    lane.drained().await;
    arrivals.take();
    let offered = rate * OFFERED_PART;
    println!("  alone {rate:.0} events/s; offered {offered:.0}");
    let mut next = answered.len() as u64;
    let quiet = offer(options, &writes, &arrivals, offered, &mut next).await;
    lane.drained().await;

    for lane in &others {
        lane.free();
    }
    tokio::time::sleep(AHEAD).await;
    world.client.refresh().await;
    writes.authorize(&world.client);
    let (flooded_before, since) = (receiver.counted().await.messages, Instant::now());
    let beside = offer(options, &writes, &arrivals, offered, &mut next).await;
    let flooded =
        (receiver.counted().await.messages - flooded_before) as f64 / since.elapsed().as_secs_f64();
    let memory = Memory::of(stoa);

    let p = |fared: &Fared, percent| percentile_ms(&fared.times, percent).unwrap();
    let (rate_offered, operations) = (offered, beside.offered.operations);
    let share = beside.delivered.operations as f64 / operations as f64;
    Figure::of(
        "hostile",
        "events/s",
        "what the healthy merchant is offered: a fifth of its rate alone",
        std::slice::from_ref(&beside.delivered),
        std::slice::from_ref(&beside.offered),
    )
    .with("rate alone", rate, "events/s")
    .with("offered", rate_offered, "events/s")
    .with("delivered in the same time", share * 100.0, "%")
    .with("answer to arrival alone, p50", p(&quiet, 50), "ms")
    .with("answer to arrival alone, p99", p(&quiet, 99), "ms")
    .with(
        "answer to arrival beside the others, p50",
        p(&beside, 50),
        "ms",
    )
    .with(
        "answer to arrival beside the others, p99",
        p(&beside, 99),
        "ms",
    )
    .with("the flooding one's deliveries meanwhile", flooded, "/s")
    .with("resident memory at the end", memory.resident_mb, "MB")
    .with("resident memory at most", memory.peak_mb, "MB")
}

/// A merchant with an endpoint at `url` and so many deliveries that wait for it, its lane held.
async fn other<'c>(world: &World, ceiling: &'c Ceiling<'c>, url: &str, backlog: u64) -> Lane<'c> {
    let client: Client = world
        .stoa
        .client_of(&world.stoa.merchant(), ALL_SCOPES, &[])
        .await;
    let (variants, location) = stocked(&client, EVENTS).await;
    client
        .endpoint(Some(url), &["inventory.level_changed"])
        .await;
    let lane = Lane::of_url(ceiling, url);
    lane.hold();
    set_stock(&client, &variants, &location, 1).await;
    ceiling.relayed().await;
    lane.multiply(backlog);
    lane
}

/// Offers so many events a second for [`DURATION`], and waits for the rest.
async fn offer(
    options: &Options,
    writes: &Writes,
    arrivals: &Arrivals,
    per_second: f64,
    next: &mut u64,
) -> Fared {
    let until = Instant::now() + DURATION;
    let answered = writes
        .send(options.connections, DURATION, Some(per_second), *next)
        .await;
    *next += answered.len() as u64;
    wait_for("the arrivals", async || {
        (arrivals.count() >= answered.len()).then_some(())
    })
    .await;
    let arrived = arrivals.take();
    let mut times = Write::Order.times(&answered, &arrived);
    times.sort_unstable();
    let sample = |operations| Sample {
        operations,
        elapsed: DURATION,
        ..Sample::default()
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count"
    )]
    let offered = (per_second * DURATION.as_secs_f64()) as u64;
    let in_time = arrived.iter().filter(|(at, _)| *at <= until).count();
    Fared {
        delivered: sample(in_time as u64),
        offered: sample(offered),
        times,
    }
}
