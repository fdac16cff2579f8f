//! What operators see: metrics on a listener of their own, and traces from a request to what it causes.

use std::{
    fmt::Write,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span,
};
use prost::Message;
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, Row};
use tests::{Receiver, Stoa, StoaOptions, new_key, wait_for};

use crate::STOA;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A collector that takes traces by OTLP over HTTP.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let take = |State(Self(spans)): State<Self>, body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            let exported = request.resource_spans.into_iter();
            let exported = exported.flat_map(|resource| resource.scope_spans);
            let mut spans = spans.lock().unwrap();
            spans.extend(exported.flat_map(|scope| scope.spans));
        };
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    /// Waits for the span of this name in the trace of the tests' caller.
    async fn span(&self, name: &str) -> Span {
        wait_for(&format!("the span {name}"), async || {
            let spans = self.0.lock().unwrap();
            let mut spans = spans.iter();
            spans
                .find(|span| span.name == name && hex(&span.trace_id) == TRACE)
                .cloned()
        })
        .await
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Looks at the tables as a worker does.
async fn worker_of(stoa: &Stoa) -> sqlx::PgConnection {
    let database = sqlx::PgConnection::connect(&stoa.database_url()).await;
    let mut database = database.unwrap();
    let worker = sqlx::raw_sql("set role stoa_worker");
    worker.execute(&mut database).await.unwrap();
    database
}

async fn traced(collector_url: String) -> Stoa {
    let options = StoaOptions {
        arguments: vec!["--otlp-endpoint".to_owned(), collector_url],
        // What is traced does not depend on what is logged.
        log: Some("off".to_owned()),
        ..StoaOptions::default()
    };
    Stoa::start_with(STOA, options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_callers_request_to_the_attempts_that_it_causes() {
    let (collector, url) = Collector::start().await;
    let stoa = traced(url).await;
    let client = stoa.client().await;
    let receiver = Receiver::start().await;
    client
        .endpoint(Some(receiver.url()), &["product.created"])
        .await;
    let product = json!({"externalId": "A", "title": "A",
        "variants": [{"sku": "A-1", "price": {"amount": "1.00", "currency": "EUR"}}]});
    let answer = client
        .request(Method::POST, "/v1/products")
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .header("idempotency-key", new_key())
        .json(&product)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    let request = collector.span("POST /v1/products").await;
    assert_eq!(hex(&request.parent_span_id), CALLER);
    // What it caused says so, long after it was answered.
    let mut database = worker_of(&stoa).await;
    let trace_parent = wait_for("the event to be relayed", async || {
        let row = sqlx::raw_sql("select trace_parent from events where type = 'product.created'")
            .fetch_optional(&mut database)
            .await
            .unwrap();
        row.map(|row| row.get::<Option<String>, _>(0))
    })
    .await;
    let own = format!("00-{TRACE}-{}-01", hex(&request.span_id));
    assert_eq!(trace_parent.as_ref(), Some(&own));

    let attempt = collector.span("webhook attempt").await;
    assert_eq!(attempt.parent_span_id, request.span_id);
    let sent = receiver
        .wait_until("the delivery", |deliveries| !deliveries.is_empty())
        .await;
    let passed_on = sent[0].headers["traceparent"].to_str().unwrap();
    assert_eq!(
        passed_on,
        format!("00-{TRACE}-{}-01", hex(&attempt.span_id))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_import_writes_after_its_answer_has_begun_is_in_the_trace_too() {
    /// More than a batch.
    const PRODUCTS: usize = 1_100;
    let (_collector, url) = Collector::start().await;
    let stoa = traced(url).await;
    let client = stoa.client().await;
    let mut lines = String::new();
    for number in 0..PRODUCTS {
        let price = json!({"amount": "1.00", "currency": "EUR"});
        let name = format!("P-{number}");
        let product =
            json!({"externalId": name, "title": name, "variants": [{"sku": name, "price": price}]});
        writeln!(lines, "{product}").unwrap();
    }
    let results = client
        .request(Method::POST, "/v1/catalog-imports")
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .header("idempotency-key", new_key())
        .header("content-type", "application/x-ndjson")
        .body(lines)
        .send()
        .await
        .unwrap();
    assert_eq!(results.status(), 200);
    results.bytes().await.unwrap();
    let mut database = worker_of(&stoa).await;
    let traces = wait_for("the events to be relayed", async || {
        let sql = "select trace_parent from events where type = 'product.created'";
        let rows = sqlx::raw_sql(sql).fetch_all(&mut database).await.unwrap();
        (rows.len() == PRODUCTS).then_some(rows)
    })
    .await;
    for row in traces {
        let trace: Option<String> = row.get(0);
        assert!(trace.is_some_and(|trace| trace.contains(TRACE)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_on_a_listener_of_their_own_and_nowhere_else() {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let options = StoaOptions {
        arguments: vec!["--metrics-listen".to_owned(), address.to_string()],
        ..StoaOptions::default()
    };
    let stoa = Stoa::start_with(STOA, options).await;
    let client = stoa.client().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = client.endpoint(Some(receiver.url()), &["ping"]).await;
    client
        .post(
            &format!("/v1/webhook-endpoints/{endpoint}/ping"),
            &json!(null),
        )
        .await
        .expect(200);
    let expected = [
        "stoa_attempts_total{outcome=\"succeeded\"} 1",
        "stoa_attempt_duration_seconds_count 1",
        "stoa_relayed_events_total ",
        "stoa_delivery_lag_seconds{breaker=\"closed\"} 0",
        "stoa_delivery_lag_seconds{breaker=\"open\"} 0",
        "stoa_relay_lag_seconds 0",
        "stoa_queued_deliveries ",
        "stoa_replays_running 0",
        "stoa_attempts_in_flight 0",
        "stoa_lanes_owned ",
        "stoa_breakers{state=\"open\"} 0",
        "stoa_breakers{state=\"half_open\"} 0",
        "stoa_breakers{state=\"closed\"} ",
    ];
    let text = wait_for("all of it to be counted", async || {
        let shown = client
            .at(&format!("http://{address}"))
            .get("/metrics")
            .await;
        assert_eq!(shown.status, 200);
        let is_all = expected
            .iter()
            .all(|line| shown.text.contains(&format!("\n{line}")));
        is_all.then_some(shown.text)
    })
    .await;
    for private in [endpoint.as_str(), client.credentials.merchant.as_str()] {
        assert!(!text.contains(private), "{private} in\n{text}");
    }
    assert_eq!(client.get("/metrics").await.status, 404);
}
