//! `end_to_end`: events that are written one by one over HTTP, each sent to one endpoint, against the same rows by pgbench.
//!
//! First as many as go, which gives the rate and what a thousand cost, from the first request to the last arrival. Then 200 a second and half of that rate, which
//! gives how long it takes from the API's answer, which comes after the commit, to the arrival.

use std::{
    cell::Cell,
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tests::new_key;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Options,
    arrivals::Arrivals,
    ceiling::Ceiling,
    cpu::Cpu,
    figure::{Figure, Sample, percentile_ms},
    load,
    queue::{Lane, wait_for},
    statements,
    world::World,
};

const SETUP: &str = include_str!("../sql/orders_setup.sql");
const EVENT: &str = include_str!("../sql/end_to_end.pgbench.sql");

/// SKUs that are written to.
const SKUS: usize = 10_000;

/// The quieter of the two rates at which times are taken.
const QUIET_PER_SECOND: f64 = 200.0;

/// Requests that were answered, in the order of nothing.
#[derive(Debug)]
struct Answered {
    at: Instant,
    body: Bytes,
}

/// What makes one event for the endpoint.
#[derive(Debug, Clone)]
struct Writes {
    address: SocketAddr,
    authorization: String,
    bodies: Arc<Vec<Bytes>>,
}

impl Writes {
    fn request(&self, number: u64) -> load::Message {
        let place = usize::try_from(number).unwrap() % self.bodies.len();
        load::request("POST", self.address, "/v1/orders")
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .header("idempotency-key", new_key())
            .body(Full::new(self.bodies[place].clone()))
            .unwrap()
    }

    /// Sends requests from `connections` at once for so long, as fast as they are answered or so many a second.
    async fn send(
        &self,
        connections: u32,
        duration: Duration,
        per_second: Option<f64>,
        first: u64,
    ) -> Vec<Answered> {
        let mut senders = Vec::new();
        for _ in 0..connections {
            senders.push(load::connect(self.address).await);
        }
        let (started, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut sending = JoinSet::new();
        for mut sender in senders {
            let (writes, next) = (self.clone(), Arc::clone(&next));
            sending.spawn(async move {
                let mut answered = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let due = per_second.map_or(started, |rate| {
                        started + Duration::from_secs_f64(number as f64 / rate)
                    });
                    if due.max(Instant::now()) >= started + duration {
                        return answered;
                    }
                    if per_second.is_some() {
                        tokio::time::sleep_until(due).await;
                    }
                    let request = writes.request(first + number);
                    sender.ready().await.unwrap();
                    let answer = sender.send_request(request).await.unwrap();
                    let status = answer.status();
                    let body = answer.into_body().collect().await.unwrap().to_bytes();
                    let at = Instant::now();
                    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
                    answered.push(Answered { at, body });
                }
            });
        }
        sending.join_all().await.into_iter().flatten().collect()
    }
}

/// Measures.
pub(crate) async fn run(options: &Options) -> Figure {
    let mut world = World::start(None).await;
    if options.statements {
        statements::count(&mut world).await;
    }
    let (variants, location) = world.stocked(SKUS).await;
    let ceiling = Ceiling::new(&world.stoa);
    let arrivals = Arrivals::start().await;
    world
        .client
        .endpoint(Some(arrivals.url()), &["order.placed"])
        .await;
    let lane = Lane::of_url(&ceiling, arrivals.url());
    let bodies = (0..50_000_u64).map(|number| {
        let sku = usize::try_from(load::scattered(number) % SKUS as u64).unwrap();
        let order = json!({
            "lines": [{"variantId": variants[sku], "quantity": 1}],
            "locationId": location
        });
        Bytes::from(order.to_string())
    });
    let mut writes = Writes {
        address: world.address(),
        authorization: world.authorization(),
        bodies: Arc::new(bodies.collect()),
    };

    // One order, whose rows are the ceiling's samples once it has come through.
    writes.send(1, Duration::from_millis(1), None, 0).await;
    wait_for("the first event", async || {
        (arrivals.count() > 0).then_some(())
    })
    .await;
    lane.drained().await;
    arrivals.take();
    let merchant = ceiling.psql("select id from public.merchants");
    ceiling.psql(&SETUP.replace("{merchant}", merchant.trim()));
    ceiling.psql(&format!(
        "create table ceiling.sample_attempts as select * from public.attempts where merchant_id = '{}' limit 1",
        merchant.trim()
    ));
    let script = format!(
        "\\set sku random(1, {SKUS})\n\\startpipeline\n{}\\endpipeline\n",
        EVENT.replace("{merchant}", merchant.trim())
    );

    let duration = Duration::from_secs(options.seconds);
    let next = Cell::new(1_u64);
    let world_cell = &world;
    let mut ours = async || {
        world_cell.client.refresh().await;
        writes.authorization = world_cell.authorization();
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
            latencies: times(&answered, &arrived),
        }
    };
    let figure = Figure::measure(
        "end_to_end",
        "events/s",
        "the same rows by pgbench, one transaction an event",
        options,
        &mut ours,
        async || ceiling.pgbench(&script, options.connections, duration),
    )
    .await;

    let mut figure = figure;
    let half = figure.value() / 2.0;
    for (name, rate) in [("200/s", QUIET_PER_SECOND), ("half of the rate", half)] {
        world.client.refresh().await;
        writes.authorization = world.authorization();
        let answered = writes
            .send(options.connections, 3 * duration, Some(rate), next.get())
            .await;
        next.set(next.get() + answered.len() as u64);
        wait_for("the arrivals", async || {
            (arrivals.count() >= answered.len()).then_some(())
        })
        .await;
        let mut times = times(&answered, &arrivals.take());
        times.sort_unstable();
        for percent in [50, 99] {
            let value = percentile_ms(&times, percent).unwrap();
            figure = figure.with(
                format!("answer to arrival at {name}, p{percent}"),
                value,
                "ms",
            );
        }
        lane.drained().await;
    }
    figure
}

/// From each answer to the arrival of its event; nothing where that was faster.
fn times(answered: &[Answered], arrived: &[(Instant, Bytes)]) -> Vec<Duration> {
    let arrivals: HashMap<String, Instant> = arrived
        .iter()
        .map(|(at, body)| {
            let event: Value = serde_json::from_slice(body).unwrap();
            (event["data"]["id"].as_str().unwrap().to_owned(), *at)
        })
        .collect();
    answered
        .iter()
        .map(|answered| {
            let order: Value = serde_json::from_slice(&answered.body).unwrap();
            let at = arrivals[order["id"].as_str().unwrap()];
            at.saturating_duration_since(answered.at)
        })
        .collect()
}
