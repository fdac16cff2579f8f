//! A receiver of webhooks on loopback that does as it is told, and checks signatures by an implementation that is not ours.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::world::PATIENCE;

#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) text: String,
    pub(super) body: Value,
}

impl Received {
    /// Whether the `standardwebhooks` crate accepts it.
    pub(super) fn is_signed_by(&self, secret: &str) -> bool {
        let mut headers = http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, self.headers[name].parse().unwrap());
        }
        standardwebhooks::Webhook::new(secret)
            .unwrap()
            .verify(self.text.as_bytes(), &headers)
            .is_ok()
    }
}

/// How a request is answered.
pub(super) enum Reply {
    Status(u16),
    /// The status, and to come again after so many seconds.
    RetryAfter(u16, u64),
    /// The connection is closed without an answer.
    HangUp,
    /// The status, once somebody lets it go.
    Held(Arc<Semaphore>, u16),
    Never,
}

#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    /// Answers each request by what `reply` says, given the request and how many came before.
    pub(super) async fn start(
        reply: impl Fn(&Received, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (all, reply) = (Arc::clone(&received), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (all, reply) = (Arc::clone(&all), Arc::clone(&reply));
                tokio::spawn(async move {
                    let mut buffer = Vec::new();
                    while let Some(request) = read(&mut stream, &mut buffer).await {
                        let before = {
                            let mut all = all.lock().unwrap();
                            all.push(request.clone());
                            all.len() - 1
                        };
                        let mut more = String::new();
                        let status = match reply(&request, before) {
                            Reply::Never => std::future::pending().await,
                            Reply::HangUp => return,
                            Reply::RetryAfter(status, seconds) => {
                                more = format!("retry-after: {seconds}\r\n");
                                status
                            }
                            Reply::Held(gate, status) => {
                                gate.acquire().await.unwrap().forget();
                                status
                            }
                            Reply::Status(status) => status,
                        };
                        let answer = format!(
                            "HTTP/1.1 {status} Said\r\n{more}content-length: 4\r\n\r\nsaid"
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, received }
    }

    pub(super) async fn accepting() -> Self {
        Self::start(|_, _| Reply::Status(204)).await
    }

    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(super) fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Waits until so many have come, and gives them.
    pub(super) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{} of {count} came", self.count());
        }
        self.received()
    }

    /// The sequences that came, sorted.
    pub(super) fn sequences(&self) -> Vec<i64> {
        let mut sequences: Vec<i64> = self
            .received()
            .iter()
            .map(|one| one.body["sequence"].as_i64().unwrap())
            .collect();
        sequences.sort_unstable();
        sequences
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let mut chunk = [0_u8; 4_096];
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            let mut lines = head.split("\r\n");
            let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
            let headers: HashMap<String, String> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length: usize = headers["content-length"].parse().unwrap();
            if buffer.len() >= end + 4 + length {
                let text = String::from_utf8(buffer[end + 4..end + 4 + length].to_vec()).unwrap();
                buffer.drain(..end + 4 + length);
                let body = serde_json::from_str(&text).unwrap();
                return Some(Received {
                    path,
                    headers,
                    text,
                    body,
                });
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}
