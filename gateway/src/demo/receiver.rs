//! A receiver of webhooks, as an ERP would have one: it verifies, keeps, and answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

/// How long a step of the demo waits for its webhooks.
const PATIENCE: Duration = Duration::from_mins(1);

/// A receiver on loopback.
#[derive(Debug, Clone)]
pub(super) struct Receiver {
    url: String,
    state: Arc<Kept>,
}

#[derive(Debug)]
struct Kept {
    inner: Mutex<Inner>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    secret: String,
    fails: bool,
    /// What was verified, by its sequence.
    verified: BTreeMap<i64, Value>,
    forged: usize,
    requests: usize,
}

/// What a receiver has seen so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// The verified events by their sequence.
    pub(super) verified: BTreeMap<i64, Value>,
    /// Requests whose signature was wrong.
    pub(super) forged: usize,
    /// All requests.
    pub(super) requests: usize,
}

impl Receiver {
    /// Starts to listen.
    pub(super) async fn start() -> Result<Self, std::io::Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/webhooks", listener.local_addr()?);
        let state = Arc::new(Kept {
            inner: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let router = Router::new()
            .fallback(receive)
            .with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, state })
    }

    /// Where it listens.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The secret to verify with.
    pub(super) fn trust(&self, secret: &str) {
        secret.clone_into(&mut self.state.lock().secret);
    }

    /// Answers 500 from now on, or 200 again.
    pub(super) fn fail(&self, fails: bool) {
        self.state.lock().fails = fails;
    }

    /// What it has seen so far.
    pub(super) fn seen(&self) -> Seen {
        let inner = self.state.lock();
        Seen {
            verified: inner.verified.clone(),
            forged: inner.forged,
            requests: inner.requests,
        }
    }

    /// Waits until it has seen enough.
    pub(super) async fn wait_until(
        &self,
        what: &str,
        enough: impl Fn(&Seen) -> bool,
    ) -> Result<Seen, String> {
        let mut changed = self.state.changed.subscribe();
        let waiting = async {
            loop {
                changed.borrow_and_update();
                let seen = self.seen();
                if enough(&seen) {
                    return seen;
                }
                if changed.changed().await.is_err() {
                    return seen;
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.map_err(|_elapsed| format!("{what} did not arrive within {} s", PATIENCE.as_secs()))
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(State(state): State<Arc<Kept>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut inner = state.lock();
    inner.requests += 1;
    let verified = standardwebhooks::Webhook::new(&inner.secret)
        .is_ok_and(|webhook| webhook.verify(&body, &headers).is_ok());
    let status = if !verified {
        inner.forged += 1;
        StatusCode::UNAUTHORIZED
    } else if inner.fails {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        let event: Value = serde_json::from_slice(&body).unwrap_or_default();
        let sequence = event
            .get("sequence")
            .and_then(Value::as_i64)
            .unwrap_or_default();
        inner.verified.insert(sequence, event);
        StatusCode::OK
    };
    drop(inner);
    state.changed.send_replace(());
    status
}
