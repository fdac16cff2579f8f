//! Orders of one line, each a write over HTTP that makes one event for an endpoint; and how long the events took from the answer to their arrival.

use std::{
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
use tests::{Client, new_key};
use tokio::{task::JoinSet, time::Instant};

use crate::load;

/// Different orders; after that they come again, under new keys.
const BODIES: u64 = 50_000;

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    at: Instant,
    body: Bytes,
}

/// What makes one event of the type `order.placed` each time.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    address: SocketAddr,
    authorization: String,
    bodies: Arc<Vec<Bytes>>,
}

impl Writes {
    /// Orders of these variants.
    pub(crate) fn new(
        address: SocketAddr,
        client: &Client,
        variants: &[String],
        location: &str,
    ) -> Self {
        let bodies = (0..BODIES).map(|number| {
            let sku = usize::try_from(load::scattered(number) % variants.len() as u64).unwrap();
            let order = json!({
                "lines": [{"variantId": variants[sku], "quantity": 1}],
                "locationId": location
            });
            Bytes::from(order.to_string())
        });
        Self {
            address,
            authorization: format!("Bearer {}", client.token()),
            bodies: Arc::new(bodies.collect()),
        }
    }

    /// Shows the client's present token from now on.
    pub(crate) fn authorize(&mut self, client: &Client) {
        self.authorization = format!("Bearer {}", client.token());
    }

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
    pub(crate) async fn send(
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

/// From each answer to the arrival of its event; nothing where that was faster.
pub(crate) fn times(answered: &[Answered], arrived: &[(Instant, Bytes)]) -> Vec<Duration> {
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
