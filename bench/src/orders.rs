//! `orders` and `hot_sku`: orders placed one by one over many connections, against the same rows written by pgbench.
//!
//! The ceiling writes what the request's transaction writes, in one round trip (a pipeline of prepared statements), the rows of stock last, so that their locks
//! are held over nothing but the commit. It decides nothing, and relays no events, which the server does meanwhile.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use serde_json::json;
use tests::{new_key, wait_for};
use tokio::time::Instant;

use crate::{
    Options,
    ceiling::Ceiling,
    figure::Figure,
    load::{self, Message, scattered},
    rows,
    world::World,
};

const SETUP: &str = include_str!("../sql/samples.sql");
const OUTBOX: &str = include_str!("../sql/outbox.pgbench.sql");

/// SKUs that orders are spread over.
const SKUS: usize = 10_000;

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Three lines of the 10,000.
    Spread,
    /// One line, always of the same SKU.
    Hot,
}

impl Shape {
    const fn lines(self) -> u64 {
        match self {
            Self::Spread => 3,
            Self::Hot => 1,
        }
    }

    /// The SKUs of an order: each line has its own part of them, so that none comes twice.
    fn skus(self, number: u64) -> Vec<usize> {
        match self {
            Self::Spread => {
                let part = SKUS as u64 / self.lines();
                let place = |line| line * part + scattered(number * self.lines() + line) % part;
                (0..self.lines())
                    .map(|line| usize::try_from(place(line)).unwrap())
                    .collect()
            }
            Self::Hot => vec![0],
        }
    }

    /// The same by pgbench.
    fn script(self, merchant: &str) -> String {
        let (choice, numbers) = match self {
            Self::Spread => {
                let part = SKUS as u64 / self.lines();
                let choice = (0..self.lines()).map(|line| {
                    format!(
                        "\\set sku{line} random({}, {})\n",
                        line * part + 1,
                        (line + 1) * part
                    )
                });
                (choice.collect::<String>(), vec![":sku0", ":sku1", ":sku2"])
            }
            Self::Hot => (String::new(), vec!["1"]),
        };
        // Sorted, because the parts are: transactions that want the same rows wait in the same order.
        let stock = numbers.iter().map(|number| rows::stock("reserved", number));
        let stock = stock.collect::<String>();
        let statements = [&*rows::order(&numbers), rows::KEY, OUTBOX, &stock].concat();
        let statements = statements.replace("{merchant}", merchant);
        format!("{choice}\\startpipeline\nbegin;\n{statements}commit;\n\\endpipeline\n")
    }
}

/// Measures.
pub(crate) async fn run(options: &Options, shape: Shape) -> Figure {
    let world = World::start(None).await;
    let (variants, location) = world.stocked(SKUS).await;
    let ceiling = Ceiling::new(&world.stoa);
    let merchant = ceiling
        .psql("select id from public.merchants")
        .trim()
        .to_owned();
    let place = |number: u64| {
        let lines: Vec<_> = shape
            .skus(number)
            .into_iter()
            .map(|sku| json!({"variantId": variants[sku], "quantity": 1}))
            .collect();
        json!({"lines": lines, "locationId": location})
    };

    // One order, whose rows are the ceiling's samples once it has been relayed.
    world.client.post("/v1/orders", &place(0)).await.expect(201);
    let wanted = shape.lines() + 1;
    wait_for("the order's events", async || {
        let count = ceiling.psql(
            "select count(*) from public.events where request_id = (select request_id from public.order_transitions)",
        );
        (count.trim() == wanted.to_string()).then_some(())
    })
    .await;
    ceiling.psql(
        &SETUP
            .replace("{merchant}", &merchant)
            .replace("{operation}", "order.place"),
    );
    let script = shape.script(&merchant);

    let bodies: Vec<Bytes> = (0..50_000)
        .map(|number| Bytes::from(place(number).to_string()))
        .collect();
    let address = world.address();
    let (mut next, mut token_since) = (0, Instant::now());
    let duration = Duration::from_secs(options.seconds);
    let (name, ceiling_name) = match shape {
        Shape::Spread => (
            "orders",
            "the same rows by pgbench, one transaction an order",
        ),
        Shape::Hot => (
            "hot_sku",
            "the same rows by pgbench, each transaction locking the row",
        ),
    };
    Figure::measure(
        name,
        "orders/s",
        ceiling_name,
        options,
        async || {
            if token_since.elapsed() > Duration::from_mins(5) {
                world.client.refresh().await;
                token_since = Instant::now();
            }
            let (authorization, bodies) = (world.authorization(), bodies.clone());
            let make = move |number: u64| order_request(address, &authorization, &bodies, number);
            let (sample, used) = world
                .load(options.connections, duration, 201, next, make)
                .await;
            next = used;
            // It would go on working in the ceiling's round.
            ceiling.relayed().await;
            sample
        },
        async || ceiling.pgbench(&script, options.connections, duration),
    )
    .await
}

fn order_request(
    address: std::net::SocketAddr,
    authorization: &str,
    bodies: &[Bytes],
    number: u64,
) -> Message {
    let body = bodies[usize::try_from(number).unwrap() % bodies.len()].clone();
    load::request("POST", address, "/v1/orders")
        .header("authorization", authorization)
        .header("content-type", "application/json")
        .header("idempotency-key", new_key())
        .body(Full::new(body))
        .unwrap()
}
