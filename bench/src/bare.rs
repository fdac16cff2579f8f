//! Processes that do nothing but what they must: a handler that answers with bytes that it has, and a receiver that counts.
//!
//! Both are this program, started again: what is compared with the server should have a process of its own as the server has.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::Read,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// A started process; ended when dropped.
#[derive(Debug)]
pub(crate) struct Bare {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Bare {
    /// Starts one of this program's hidden commands with this input.
    pub(crate) fn start(command: &str, input: &[u8]) -> Self {
        use std::io::{BufRead, BufReader, Write};
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input).unwrap();
        drop(stdin);
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().parse().unwrap();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            child,
            address,
            http,
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of something there.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// What a receiver has counted.
    pub(crate) async fn counted(&self) -> Counted {
        let answer = self.http.get(self.url("counted")).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Has a receiver count from nothing.
    pub(crate) async fn reset(&self) {
        let answer = self.http.post(self.url("reset")).send().await.unwrap();
        answer.error_for_status().unwrap();
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The answers of the bare handler: bodies by id, and the headers of each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// Names and values.
    pub(crate) headers: Vec<(String, String)>,
    /// Bodies of `GET /v1/products/{id}`.
    pub(crate) bodies: HashMap<String, String>,
}

#[derive(Debug)]
struct Ready {
    headers: HeaderMap,
    bodies: HashMap<String, Bytes>,
}

/// `bench handler`: the answers come by standard input, the address goes to standard output.
pub(crate) async fn serve_answers() {
    let answers: Answers = serde_json::from_slice(&read_input()).unwrap();
    let headers = answers.headers.iter().map(|(name, value)| {
        (
            name.parse::<HeaderName>().unwrap(),
            value.parse::<HeaderValue>().unwrap(),
        )
    });
    let ready = Ready {
        headers: headers.collect(),
        bodies: answers
            .bodies
            .into_iter()
            .map(|(id, body)| (id, Bytes::from(body)))
            .collect(),
    };
    let router = Router::new()
        .route("/v1/products/{id}", get(answer))
        .with_state(Arc::new(ready));
    serve(router).await;
}

async fn answer(
    State(ready): State<Arc<Ready>>,
    Path(id): Path<String>,
) -> Result<(HeaderMap, Bytes), StatusCode> {
    let body = ready
        .bodies
        .get(&id)
        .cloned()
        .ok_or(StatusCode::NOT_FOUND)?;
    Ok((ready.headers.clone(), body))
}

/// What a receiver has counted since it was last reset.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Messages.
    pub(crate) messages: u64,
    /// From the first to the last.
    pub(crate) elapsed: Duration,
    /// The last message's headers that a webhook has, and its body.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

#[derive(Debug, Default)]
struct Received {
    messages: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    headers: HeaderMap,
    body: Bytes,
}

/// How long a slow receiver takes: not quite as long as it is waited for.
const SLOW_ANSWERS_AFTER: Duration = Duration::from_secs(10);

type Shared = Arc<Mutex<Received>>;

/// `bench receiver`.
pub(crate) async fn serve_receiver() {
    let router = Router::new()
        .route("/hook", post(receive))
        .route("/fail", post(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/hang", post(hang))
        .route("/drip", post(drip))
        .route("/slow", post(slow))
        .route("/counted", get(counted))
        .route("/reset", post(reset))
        .with_state(Shared::default());
    serve(router).await;
}

async fn receive(State(received): State<Shared>, headers: HeaderMap, body: Bytes) {
    let now = Instant::now();
    let mut received = received.lock().unwrap();
    received.messages += 1;
    received.first.get_or_insert(now);
    received.last = Some(now);
    received.headers = headers;
    received.body = body;
}

async fn hang() {
    std::future::pending::<()>().await;
}

/// A byte a second, without end.
async fn drip() -> Body {
    let drops = futures_util::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b".")), ()))
    });
    Body::from_stream(drops)
}

async fn slow() {
    tokio::time::sleep(SLOW_ANSWERS_AFTER).await;
}

async fn counted(State(received): State<Shared>) -> Json<Counted> {
    let received = received.lock().unwrap();
    let headers = received
        .headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("webhook-"));
    Json(Counted {
        messages: received.messages,
        elapsed: received
            .first
            .zip(received.last)
            .map(|(first, last)| last - first)
            .unwrap_or_default(),
        headers: headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect(),
        body: String::from_utf8_lossy(&received.body).into_owned(),
    })
}

async fn reset(State(received): State<Shared>) {
    *received.lock().unwrap() = Received::default();
}

async fn serve(router: Router) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    // As the server does.
    axum::serve(listener, router).await.unwrap();
}

fn read_input() -> Vec<u8> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).unwrap();
    input
}
