//! The client against receivers on loopback that behave as badly as receivers do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use kernel::clock::Clock;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::*;
use crate::endpoint::settings::{
    Authentication, Credentials, Settings, SignatureScheme, SignatureSettings,
};

mod authentication;
mod limits;
mod names;

const INSIDE: AddressPolicy = AddressPolicy {
    allow_private: true,
    allow_link_local: false,
    allow_http: true,
};
const OUTSIDE: AddressPolicy = AddressPolicy {
    allow_private: false,
    allow_link_local: false,
    allow_http: true,
};

/// A deadline that tests can afford to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// One that no test is meant to wait for.
const LONG: Duration = Duration::from_secs(20);

fn config(policy: AddressPolicy, deadline: Duration) -> Config {
    Config {
        policy,
        deadline,
        proxy: None,
    }
}

fn client(policy: AddressPolicy) -> Client {
    Client::new(config(policy, SHORT)).unwrap()
}

fn patient(policy: AddressPolicy) -> Client {
    Client::new(config(policy, LONG)).unwrap()
}

/// A client whose names lead where `lookup` says.
fn looking_up(config: Config, lookup: Lookup) -> Client {
    Client::with_parts(config, lookup, Tls::of_system().unwrap()).unwrap()
}

fn endpoint() -> EndpointId {
    EndpointId::new(Clock::system().now())
}

fn destination(url: &str, settings: &Settings, credentials: &Credentials) -> Arc<Destination> {
    Arc::new(Destination::new(endpoint(), url, settings, credentials).unwrap())
}

fn request(url: &str) -> Request {
    request_to(destination(
        url,
        &Settings::default(),
        &Credentials::default(),
    ))
}

fn request_to(destination: Arc<Destination>) -> Request {
    Request {
        destination,
        id: "evt_1".to_owned(),
        timestamp_seconds: 1_700_000_000,
        signature: "v1,abc".to_owned(),
        content_encoding: None,
        body: Bytes::from_static(b"{\"a\":1}"),
    }
}

/// A receiver that reads a request's head and body, and then does as it is told with the connection.
async fn receiver<F, Fut>(behave: F) -> (String, Arc<AtomicUsize>)
where
    F: Fn(TcpStream, String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let behave = Arc::new(behave);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let behave = Arc::clone(&behave);
            tokio::spawn(async move {
                let mut seen = Vec::new();
                let mut buffer = [0_u8; 1_024];
                while !seen.ends_with(b"{\"a\":1}") {
                    match stream.read(&mut buffer).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => seen.extend_from_slice(buffer.get(..read).unwrap()),
                    }
                }
                behave(stream, String::from_utf8(seen).unwrap()).await;
            });
        }
    });
    (url, connections)
}

/// A receiver that always gives this answer.
async fn answering(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    receiver(move |mut stream, _| async move {
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

fn kind(outcome: &Outcome) -> FailureKind {
    match &outcome.result {
        Err(failure) => failure.kind,
        Ok(answer) => panic!("an answer: {answer:?}"),
    }
}

#[tokio::test]
async fn the_message_arrives_with_its_headers_and_the_answer_comes_back() {
    let (heard, mut hearing) = tokio::sync::mpsc::unbounded_channel();
    let (url, _) = receiver(move |mut stream, request| {
        heard.send(request).unwrap();
        async move {
            stream
                .write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\n\r\nth\0nk")
                .await
                .unwrap();
        }
    })
    .await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert_eq!(
        answer,
        Answer {
            status: 202,
            retry_after: None,
            excerpt: "th\u{fffd}nk".to_owned()
        }
    );
    let heard = hearing.recv().await.unwrap().to_ascii_lowercase();
    for line in [
        "post /hook http/1.1",
        "content-type: application/json",
        "webhook-id: evt_1",
        "webhook-timestamp: 1700000000",
        "webhook-signature: v1,abc",
        "user-agent: stoa/",
    ] {
        assert!(heard.contains(line), "{line} is missing in {heard}");
    }
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_no_more_than_the_deadline() {
    let (url, _) = receiver(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let outcome = client(INSIDE).post(request(&url)).await;
    assert_eq!(kind(&outcome), FailureKind::Timeout);
    assert!(outcome.duration >= SHORT);
}

#[tokio::test]
async fn a_receiver_that_drips_headers_or_body_costs_no_more_than_the_deadline() {
    for start in [
        "HTTP/1.1 200 OK\r\nx: ",
        "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n",
    ] {
        let (url, _) = receiver(move |mut stream, _| async move {
            let mut next = start.as_bytes();
            while stream.write_all(next).await.is_ok() {
                next = b"a";
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(
            kind(&client(INSIDE).post(request(&url)).await),
            FailureKind::Timeout,
            "{start}"
        );
    }
}

#[tokio::test]
async fn an_endless_body_is_read_up_to_the_bound_and_its_excerpt_kept() {
    let (url, _) = receiver(|mut stream, _| async move {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        let chunk = format!("400\r\n{}\r\n", "x".repeat(1_024));
        while stream.write_all(chunk.as_bytes()).await.is_ok() {}
    })
    .await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.excerpt, "x".repeat(EXCERPT_BYTES_MAX));
}

#[tokio::test]
async fn an_answer_whose_body_breaks_off_counts_by_its_status() {
    let (url, _) = answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert_eq!((answer.status, answer.excerpt.as_str()), (200, "half"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (target, visits) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let (url, _) = receiver(move |mut stream, _| {
        let answer = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n"
        );
        async move {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    assert_eq!(
        patient(INSIDE)
            .post(request(&url))
            .await
            .result
            .unwrap()
            .status,
        307
    );
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn retry_after_is_read_in_both_of_its_forms() {
    let (url, _) =
        answering("HTTP/1.1 503 Unavailable\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n")
            .await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert_eq!(
        answer.retry_after,
        Some(RetryAfter::In(Duration::from_mins(2)))
    );
    let (url, _) = answering("HTTP/1.1 429 Slow\r\nretry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n").await;
    let answer = patient(INSIDE).post(request(&url)).await.result.unwrap();
    assert_eq!(
        answer.retry_after,
        Some(RetryAfter::At("1994-11-06T08:49:37Z".parse().unwrap()))
    );
}

#[test]
fn a_retry_after_that_makes_no_sense_is_passed_over() {
    for (value, expected) in [
        ("0", Some(RetryAfter::In(Duration::ZERO))),
        (" 7 ", Some(RetryAfter::In(Duration::from_secs(7)))),
        (
            "99999999999999999999999",
            Some(RetryAfter::In(Duration::from_secs(u64::from(u32::MAX)))),
        ),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\u{7f}", None),
    ] {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(RETRY_AFTER, value);
        }
        assert_eq!(retry_after(&headers), expected, "{value}");
    }
}

#[tokio::test]
async fn what_breaks_on_the_way_is_told_apart() {
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let refused = client(INSIDE)
        .post(request(&format!("http://{gone}/")))
        .await;
    assert_eq!(kind(&refused), FailureKind::Connect);

    let (url, _) = answering("SMTP ready\r\n\r\n").await;
    assert_eq!(
        kind(&patient(INSIDE).post(request(&url)).await),
        FailureKind::Protocol
    );

    let (url, _) = receiver(|stream, _| async move { drop(stream) }).await;
    assert_eq!(
        kind(&patient(INSIDE).post(request(&url)).await),
        FailureKind::Protocol
    );

    // A receiver that speaks plain HTTP where TLS is expected: it never sees a whole request, so it answers at once.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let outcome = patient(INSIDE)
        .post(request(&format!("https://{address}/")))
        .await;
    assert_eq!(kind(&outcome), FailureKind::Tls);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_apart() {
    let lookup: Lookup =
        Arc::new(|_| Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::NotFound)) }));
    let client = looking_up(config(OUTSIDE, SHORT), lookup);
    assert_eq!(
        kind(&client.post(request("http://hooks.example/")).await),
        FailureKind::Dns
    );
}

#[tokio::test]
async fn neither_a_literal_nor_a_name_reaches_our_own_network() {
    let (url, visits) = answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = Url::parse(&url).unwrap().port().unwrap();
    for host in ["127.0.0.1", "127.1", "2130706433", "[::ffff:127.0.0.1]"] {
        let outcome = patient(OUTSIDE)
            .post(request(&format!("http://{host}:{port}/hook")))
            .await;
        assert_eq!(kind(&outcome), FailureKind::RefusedAddress, "{host}");
    }
    let inside: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let lookup: Lookup = Arc::new(move |_| Box::pin(async move { Ok(vec![inside]) }));
    let named = |policy| looking_up(config(policy, LONG), Arc::clone(&lookup));
    let rebound = request(&format!("http://hooks.example:{port}/hook"));
    assert_eq!(
        kind(&named(OUTSIDE).post(rebound.clone()).await),
        FailureKind::RefusedAddress
    );
    assert_eq!(visits.load(Ordering::SeqCst), 0);
    // The same name is dialled where the operator allows it, so it was the policy that kept it away.
    assert_eq!(
        named(INSIDE).post(rebound).await.result.unwrap().status,
        200
    );
}

#[tokio::test]
async fn connections_are_used_again() {
    let (url, connections) = receiver(|mut stream, _| async move {
        loop {
            if stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .is_err()
            {
                return;
            }
            let mut seen = Vec::new();
            let mut buffer = [0_u8; 1_024];
            while !seen.ends_with(b"{\"a\":1}") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => seen.extend_from_slice(buffer.get(..read).unwrap()),
                }
            }
        }
    })
    .await;
    let client = patient(INSIDE);
    for _ in 0..5 {
        assert_eq!(client.post(request(&url)).await.result.unwrap().status, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}
