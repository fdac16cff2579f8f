//! A receiver for many deliveries: it keeps what came when, and can make senders wait for their answers.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
};
use serde::Deserialize;
use tokio::{net::TcpListener, sync::watch, time::Instant};

/// One arrival of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When its body had been read.
    pub at: Instant,
    /// The path it was sent to.
    pub path: String,
    /// Its place in the endpoint's stream.
    pub sequence: i64,
    /// The event's id.
    pub id: String,
}

/// A receiver that answers 200. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Tally {
    base_url: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    answers_after: Duration,
    arrived: Mutex<Arrived>,
    /// Of different events.
    count: watch::Sender<usize>,
    gate: watch::Sender<Gate>,
}

#[derive(Debug, Default)]
struct Arrived {
    all: Vec<Arrival>,
    known: HashSet<(String, i64)>,
}

#[derive(Debug, Clone, Copy)]
enum Gate {
    Open,
    Held,
    /// Those who were held are answered with this; others as ever.
    Released(StatusCode),
}

#[derive(Debug, Deserialize)]
struct Envelope {
    id: String,
    sequence: i64,
}

impl Tally {
    /// Starts one that takes so long for each answer: long enough that some are always on their way.
    pub async fn start(answers_after: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            answers_after,
            arrived: Mutex::default(),
            count: watch::Sender::new(0),
            gate: watch::Sender::new(Gate::Open),
        });
        let router = Router::new()
            .fallback(receive)
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { base_url, inner }
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    /// All arrivals so far, in their order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.inner.arrived.lock().unwrap().all.clone()
    }

    /// How many different events have arrived.
    pub fn count(&self) -> usize {
        *self.inner.count.borrow()
    }

    /// Waits until so many different events have arrived; fails once none more do.
    pub async fn wait_for(&self, wanted: usize) {
        let mut count = self.inner.count.subscribe();
        loop {
            let arrived = *count.borrow_and_update();
            if arrived >= wanted {
                return;
            }
            let more = tokio::time::timeout(crate::PATIENCE, count.changed()).await;
            assert!(
                more.is_ok(),
                "{arrived} of {wanted} events arrived, and no more came"
            );
        }
    }

    /// Answers nothing from now on.
    pub fn hold(&self) {
        self.inner.gate.send_replace(Gate::Held);
    }

    /// Answers those who were held with this status, and 200 to whoever comes from now on.
    pub fn release(&self, status: u16) {
        let status = StatusCode::from_u16(status).unwrap();
        self.inner.gate.send_replace(Gate::Released(status));
    }
}

async fn receive(State(inner): State<Arc<Inner>>, uri: Uri, body: Bytes) -> StatusCode {
    let envelope: Envelope = serde_json::from_slice(&body).unwrap();
    let arrival = Arrival {
        at: Instant::now(),
        path: uri.path().to_owned(),
        sequence: envelope.sequence,
        id: envelope.id,
    };
    let mut gate = inner.gate.subscribe();
    let is_held = matches!(*gate.borrow_and_update(), Gate::Held);
    {
        let mut arrived = inner.arrived.lock().unwrap();
        if arrived
            .known
            .insert((arrival.path.clone(), arrival.sequence))
        {
            inner.count.send_modify(|count| *count += 1);
        }
        arrived.all.push(arrival);
    }
    if is_held {
        let opened = gate.wait_for(|gate| !matches!(gate, Gate::Held)).await;
        return match *opened.unwrap() {
            Gate::Released(status) => status,
            Gate::Open | Gate::Held => StatusCode::OK,
        };
    }
    tokio::time::sleep(inner.answers_after).await;
    StatusCode::OK
}
