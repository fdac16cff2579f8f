//! The load: keep-alive connections that each send one request after another.
//!
//! On the bare connection of hyper, because this process takes its CPU time from the same cores as what it measures.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

use crate::figure::Sample;

/// A request with its body.
pub(crate) type Message = Request<Full<Bytes>>;

/// Sends requests to `address` over so many connections for so long. `make` makes them, numbered from `first` on; every answer must have the `expected` status.
/// Gives the sample without CPU times, and the first number that was not used.
pub(crate) async fn send(
    address: SocketAddr,
    connections: u32,
    duration: Duration,
    expected: StatusCode,
    first: u64,
    make: impl Fn(u64) -> Message + Send + Sync + 'static,
) -> (Sample, u64) {
    let (next, make) = (Arc::new(AtomicU64::new(first)), Arc::new(make));
    let mut senders = Vec::new();
    for _ in 0..connections {
        senders.push(connect(address).await);
    }
    let started = Instant::now();
    let until = started + duration;
    let mut sending = JoinSet::new();
    for mut sender in senders {
        let (next, make) = (Arc::clone(&next), Arc::clone(&make));
        sending.spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < until {
                let request = make(next.fetch_add(1, Ordering::Relaxed));
                let sent = Instant::now();
                exchange(&mut sender, request, expected).await;
                latencies.push(sent.elapsed());
            }
            latencies
        });
    }
    let latencies: Vec<Duration> = sending.join_all().await.into_iter().flatten().collect();
    let sample = Sample {
        operations: latencies.len() as u64,
        elapsed: started.elapsed(),
        latencies,
        ..Sample::default()
    };
    (sample, next.load(Ordering::Relaxed))
}

/// A connection to `address`.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Message, expected: StatusCode) {
    sender.ready().await.unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    let mut body = answer.into_body();
    if status != expected {
        let text = body.collect().await.unwrap().to_bytes();
        panic!(
            "answered {status} instead of {expected}: {}",
            String::from_utf8_lossy(&text)
        );
    }
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
}

/// A request's beginning, with what every request has.
pub(crate) fn request(method: &str, address: SocketAddr, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address.to_string())
}

/// A number that looks random, and is the same for the same `seed`: `SplitMix64`.
pub(crate) fn scattered(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
