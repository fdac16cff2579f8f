//! A receiver in this process, which knows when each event came: on the same clock as what has sent the requests.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use tokio::{net::TcpListener, time::Instant};

/// A receiver. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    url: String,
    arrived: Arc<Mutex<Vec<(Instant, Bytes)>>>,
}

impl Arrivals {
    /// Starts one, which lives as long as this process.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let arrivals = Self {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            arrived: Arc::default(),
        };
        let router = Router::new()
            .route("/hook", post(arrive))
            .with_state(arrivals.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        arrivals
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many have come since they were last taken.
    pub(crate) fn count(&self) -> usize {
        self.arrived.lock().unwrap().len()
    }

    /// Takes all that have come, with the times of their arrival.
    pub(crate) fn take(&self) -> Vec<(Instant, Bytes)> {
        std::mem::take(&mut self.arrived.lock().unwrap())
    }
}

async fn arrive(State(arrivals): State<Arrivals>, body: Bytes) {
    let now = Instant::now();
    arrivals.arrived.lock().unwrap().push((now, body));
}
