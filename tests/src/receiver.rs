//! A receiver of webhooks: an HTTP server on loopback that keeps what it was sent, and answers as it is told.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

/// What a receiver was sent.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// The body as JSON.
    pub json: Value,
    /// What the receiver answered.
    pub answer: StatusCode,
}

impl Delivery {
    /// Whether an implementation that is not ours finds the signature right.
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let webhook = standardwebhooks::Webhook::new(secret).unwrap();
        webhook.verify(&self.body, &self.headers).is_ok()
    }

    /// The event's id.
    pub fn id(&self) -> &str {
        self.json["id"].as_str().unwrap_or_default()
    }

    /// Its place in the endpoint's stream.
    pub fn sequence(&self) -> i64 {
        self.json["sequence"].as_i64().unwrap_or_default()
    }
}

/// A receiver.
#[derive(Debug, Clone)]
pub struct Receiver {
    url: String,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    answer: Mutex<(StatusCode, HeaderMap)>,
    refuse_first_of_every: AtomicI64,
    deliveries: Mutex<Vec<Delivery>>,
    count: watch::Sender<usize>,
}

impl Receiver {
    /// Starts one that answers 200.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            answer: Mutex::default(),
            refuse_first_of_every: AtomicI64::new(0),
            deliveries: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let router = Router::new()
            .fallback(receive)
            .with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, inner }
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.set_answer(status, HeaderMap::new());
    }

    /// Asks to be left alone for so long, by a 503 with `Retry-After`, from now on.
    pub fn answer_retry_after(&self, seconds: u64) {
        self.set_answer(503, HeaderMap::from_iter([(RETRY_AFTER, seconds.into())]));
    }

    /// From now on answers 500 when it sees each `nth` event of its stream for the first time.
    pub fn refuse_first_of_every(&self, nth: i64) {
        self.inner
            .refuse_first_of_every
            .store(nth, Ordering::Relaxed);
    }

    fn set_answer(&self, status: u16, headers: HeaderMap) {
        *self.inner.answer.lock().unwrap() = (StatusCode::from_u16(status).unwrap(), headers);
    }

    /// All that it was sent so far.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.inner.deliveries.lock().unwrap().clone()
    }

    /// Waits until what it was sent satisfies `condition`, and gives all of it.
    pub async fn wait_until(
        &self,
        what: &str,
        condition: impl Fn(&[Delivery]) -> bool,
    ) -> Vec<Delivery> {
        let mut count = self.inner.count.subscribe();
        let waiting = async {
            loop {
                count.borrow_and_update();
                let deliveries = self.deliveries();
                if condition(&deliveries) {
                    return deliveries;
                }
                count.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(crate::PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| {
            panic!(
                "waited in vain for {what}; {} deliveries came",
                self.deliveries().len()
            )
        })
    }
}

async fn receive(
    State(inner): State<Arc<Inner>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap) {
    let json = serde_json::from_slice(&body).unwrap_or_default();
    let (status, answer_headers) = inner.answer.lock().unwrap().clone();
    let mut delivery = Delivery {
        headers,
        body,
        json,
        answer: status,
    };
    let mut deliveries = inner.deliveries.lock().unwrap();
    let nth = inner.refuse_first_of_every.load(Ordering::Relaxed);
    let is_new = || {
        deliveries
            .iter()
            .all(|earlier| earlier.id() != delivery.id())
    };
    if nth > 0 && delivery.sequence() % nth == 0 && is_new() {
        delivery.answer = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let status = delivery.answer;
    deliveries.push(delivery);
    inner.count.send_modify(|count| *count += 1);
    (status, answer_headers)
}
