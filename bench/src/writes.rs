//! Writes over HTTP, each of which makes one event for an endpoint; and how long the events took from the answer to their arrival.

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

/// Different bodies; after that they come again, under new keys.
const BODIES: u64 = 50_000;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// The stock of one SKU is set. One SKU after the other, so that each write has an event of its own.
    Stock,
    /// An order of one line is placed.
    Order,
}

impl Write {
    /// The type of the event that it makes.
    pub(crate) fn event_type(self) -> &'static str {
        match self {
            Self::Stock => "inventory.level_changed",
            Self::Order => "order.placed",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Stock => "/v1/inventory-levels/set",
            Self::Order => "/v1/orders",
        }
    }

    fn body(self, number: u64, variants: &[String], location: &str) -> Value {
        let place = |number: u64| usize::try_from(number % variants.len() as u64).unwrap();
        match self {
            Self::Stock => {
                let variant = &variants[place(number)];
                // Never what it was before.
                let on_hand = 1_000 + number / variants.len() as u64;
                json!({"entries": [{"variantId": variant, "locationId": location, "onHand": on_hand}]})
            }
            Self::Order => {
                let variant = &variants[place(load::scattered(number))];
                json!({"lines": [{"variantId": variant, "quantity": 1}], "locationId": location})
            }
        }
    }

    /// What the answer and the event's data have in common, and no other's.
    fn name(self, resource: &Value) -> String {
        match self {
            Self::Stock => format!("{} {}", resource["variantId"], resource["version"]),
            Self::Order => resource["id"].to_string(),
        }
    }

    /// From each answer to the arrival of its event; nothing where that was faster.
    pub(crate) fn times(
        self,
        answered: &[Answered],
        arrived: &[(Instant, Bytes)],
    ) -> Vec<Duration> {
        let arrivals: HashMap<String, Instant> = arrived
            .iter()
            .map(|(at, body)| {
                let event: Value = serde_json::from_slice(body).unwrap();
                (self.name(&event["data"]), *at)
            })
            .collect();
        answered
            .iter()
            .map(|answered| {
                let answer: Value = serde_json::from_slice(&answered.body).unwrap();
                let resource = match self {
                    Self::Stock => &answer["levels"][0],
                    Self::Order => &answer,
                };
                arrivals[&self.name(resource)].saturating_duration_since(answered.at)
            })
            .collect()
    }
}

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    at: Instant,
    body: Bytes,
}

/// Many of them.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    write: Write,
    address: SocketAddr,
    authorization: String,
    bodies: Arc<Vec<Bytes>>,
}

impl Writes {
    /// Writes about these variants.
    pub(crate) fn new(
        write: Write,
        address: SocketAddr,
        client: &Client,
        variants: &[String],
        location: &str,
    ) -> Self {
        let bodies = (0..BODIES)
            .map(|number| Bytes::from(write.body(number, variants, location).to_string()));
        Self {
            write,
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
        load::request("POST", self.address, self.write.path())
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
                    assert!(status.is_success(), "{}", String::from_utf8_lossy(&body));
                    answered.push(Answered { at, body });
                }
            });
        }
        sending.join_all().await.into_iter().flatten().collect()
    }
}
