#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    io::Cursor,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router, body::Body as AxumBody, extract::Request, http::HeaderMap, response::IntoResponse,
    routing::post,
};
use commerce::catalog_import::CatalogImportId;
use futures_util::StreamExt;
use kernel::clock::Timestamp;
use serde_json::{Value, json};

use super::{
    super::tests::{Stub, problem},
    *,
};
use crate::feed::Feed;

/// A server's side of an import: what is done lasts from request to request.
#[derive(Debug, Default)]
struct Server {
    /// What each request is to do, the first one first; those after the last are served to the end.
    requests: Mutex<VecDeque<Fate>>,
    results: Mutex<Vec<String>>,
    keys: Mutex<Vec<String>>,
    calls: AtomicUsize,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Refused with this status. The lines are read to their end first: an answer may be lost with a connection that is closed while lines come.
    Refused(u16, &'static str),
    /// The connection breaks after so many lines are done, and so many of their results are sent.
    Broken { done: usize, sent: usize },
    /// Ended by a summary that gives this reason.
    Interrupted(&'static str),
}

fn summary_line(done: usize, status: &str, interruption: Option<&str>) -> String {
    let interruption = interruption.map(|reason| json!({"reason": reason, "detail": "So it is."}));
    let id = CatalogImportId::new(Timestamp::from_unix_millis(0)).to_string();
    let summary = json!({
        "importId": id, "status": status, "linesDone": done, "createdCount": done, "updatedCount": 0, "unchangedCount": 0,
        "failedCount": 0, "interruption": interruption,
    });
    format!("{}\n", json!({"summary": summary}))
}

/// The result of a line: it fails with what its member `fail` lists.
fn result_line(number: usize, line: &[u8]) -> String {
    let value: Value = serde_json::from_slice(line).unwrap_or_default();
    let errors = value["fail"].as_array().cloned().unwrap_or_default();
    let errors: Vec<_> = errors
        .iter()
        .map(|pointer| json!({"pointer": pointer, "code": "required", "detail": "must be given"}))
        .collect();
    let status = if errors.is_empty() {
        "created"
    } else {
        "failed"
    };
    format!(
        "{}\n",
        json!({"line": number, "status": status, "externalId": value["externalId"], "productId": null, "errors": errors})
    )
}

impl Server {
    async fn start(requests: impl Into<VecDeque<Fate>>) -> (Arc<Self>, Stub) {
        let server = Arc::new(Self {
            requests: Mutex::new(requests.into()),
            ..Self::default()
        });
        let handler = {
            let server = Arc::clone(&server);
            move |headers: HeaderMap, request: Request| async move {
                server.serve(&headers, request).await
            }
        };
        let stub = Stub::start(600, 0, Router::new().route(PATH, post(handler))).await;
        (server, stub)
    }

    async fn serve(
        self: Arc<Self>,
        headers: &HeaderMap,
        request: Request,
    ) -> axum::response::Response {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert_eq!(headers["content-type"], "application/x-ndjson");
        lock(&self.keys).push(headers["idempotency-key"].to_str().unwrap().to_owned());
        let fate = lock(&self.requests).pop_front();
        if let Some(Fate::Refused(status, slug)) = fate {
            let mut body = request.into_body().into_data_stream();
            while body.next().await.is_some() {}
            return problem(status, slug, "So it is.");
        }
        let (answer, stream) = mpsc::channel::<io::Result<Bytes>>(4);
        tokio::spawn(async move { self.work(fate, request.into_body(), answer).await });
        AxumBody::from_stream(ReceiverStream::new(stream)).into_response()
    }

    /// A line that is done already is skipped, and must be the same again.
    fn keep(&self, number: usize, result: String) {
        let mut results = lock(&self.results);
        if number > results.len() {
            results.push(result);
        } else {
            assert_eq!(results[number - 1], result, "line {number} is another now");
        }
    }

    /// Works on the lines as they come, and answers as they are done.
    async fn work(
        self: Arc<Self>,
        fate: Option<Fate>,
        body: AxumBody,
        answer: mpsc::Sender<io::Result<Bytes>>,
    ) {
        if let Some(Fate::Interrupted(reason)) = fate {
            let done = lock(&self.results).len();
            let _ = answer
                .send(Ok(summary_line(done, "interrupted", Some(reason)).into()))
                .await;
            return;
        }
        let mut body = body.into_data_stream();
        let (mut rest, mut number, mut sent) = (Vec::new(), 0, 0);
        while let Some(chunk) = body.next().await {
            // The client has gone: a body that broke off is no complete import.
            let Ok(chunk) = chunk else { return };
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                number += 1;
                self.keep(number, result_line(number, &line));
                if let Some(Fate::Broken { done, sent: limit }) = fate {
                    if number == done {
                        let _ = answer.send(Err(io::Error::other("broken"))).await;
                        return;
                    }
                    if sent == limit {
                        continue;
                    }
                }
                let result = lock(&self.results)[sent].clone();
                sent += 1;
                let _ = answer.send(Ok(result.into())).await;
            }
        }
        let _ = answer
            .send(Ok(summary_line(number, "completed", None).into()))
            .await;
    }
}

fn lines(count: u64) -> Arc<dyn Source> {
    Arc::new(move || -> Result<Rows, feed::Error> {
        Ok(Box::new((1..=count).map(|number| {
            let json =
                json!({"externalId": number.to_string(), "padding": "x".repeat(500)}).to_string();
            Ok(Row {
                line: number + 1,
                json: json.into_bytes(),
            })
        })))
    })
}

#[tokio::test]
async fn results_are_read_while_lines_are_sent() {
    let (server, stub) = Server::start([]).await;
    // Far more than buffers hold: a client that sent all before it read would wait for ever.
    let report = import_stream(&stub.client(), "k", lines(20_000), &())
        .await
        .unwrap();
    assert_eq!(
        (report.rows, report.created, report.failed, report.continued),
        (20_000, 20_000, 0, 0)
    );
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn whatever_breaks_is_continued_under_the_same_key_and_counted_once() {
    let fates = [
        Fate::Refused(503, "unavailable"),
        Fate::Broken {
            done: 300,
            sent: 120,
        },
        Fate::Interrupted("stopped"),
        Fate::Refused(409, "idempotency_key_in_progress"),
        Fate::Broken {
            done: 700,
            sent: 650,
        },
        Fate::Refused(401, "invalid_token"),
    ];
    let (server, stub) = Server::start(fates).await;
    let report = import_stream(&stub.client(), "the-key", lines(1_000), &())
        .await
        .unwrap();
    assert_eq!(
        (report.rows, report.created, report.continued),
        (1_000, 1_000, 6)
    );
    assert_eq!(*lock(&server.keys), ["the-key"; 7]);
    // The token that was refused was replaced.
    assert_eq!(stub.tokens_given(), 2);
}

#[tokio::test]
async fn what_can_not_be_continued_stops_with_its_key() {
    for (fate, words) in [
        (
            Fate::Refused(422, "idempotency_key_reused"),
            "422 idempotency_key_reused: So it is.",
        ),
        (
            Fate::Refused(403, "insufficient_scope"),
            "403 insufficient_scope",
        ),
        (
            Fate::Interrupted("body_too_short"),
            "the import was interrupted: So it is.",
        ),
        (
            Fate::Interrupted("taken_over"),
            "the import was interrupted: So it is.",
        ),
    ] {
        let (server, stub) = Server::start([fate]).await;
        let broken = import_stream(&stub.client(), "the-key", lines(10), &())
            .await
            .unwrap_err();
        assert!(broken.to_string().contains("--key the-key"));
        assert!(
            broken.failure.to_string().starts_with(words),
            "{}",
            broken.failure
        );
        assert_eq!(server.calls.load(Ordering::SeqCst), 1, "{fate:?}");
    }
}

#[tokio::test]
async fn rows_that_can_not_be_read_are_no_complete_import() {
    let (server, stub) = Server::start([]).await;
    let cut: Arc<dyn Source> = Arc::new(|| -> Result<Rows, feed::Error> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        io::Write::write_all(
            &mut gzip,
            b"{\"externalId\": 1}\n{\"externalId\": 2}\n{\"externalId\": 3}\n",
        )
        .unwrap();
        let mut bytes = gzip.finish().unwrap();
        bytes.truncate(bytes.len() - 12);
        Ok(Box::new(Feed::read(Path::new("feed"), Cursor::new(bytes))?))
    });
    let broken = import_stream(&stub.client(), "k", cut, &())
        .await
        .unwrap_err();
    assert!(
        matches!(broken.failure, Failure::Feed(feed::Error::Read { .. })),
        "{broken:?}"
    );
    assert!(server.calls.load(Ordering::SeqCst) <= 1);
}

#[tokio::test]
async fn reasons_are_counted_with_the_lines_of_the_file() {
    let (_, stub) = Server::start([Fate::Broken { done: 6, sent: 5 }]).await;
    let text = concat!(
        "\n",
        "{\"fail\": [\"/externalId\"]}\n",
        "{}\n",
        "\n\n",
        "{\"fail\": [\"/variants/0/price\", \"/variants/12/price\", \"/title\"]}\n",
        "{\"fail\": [\"/variants/3/price\"]}\n",
        "\n",
        "{}\n",
        "{\"fail\": [\"/title\"]}\n",
    );
    let source: Arc<dyn Source> = Arc::new(move || -> Result<Rows, feed::Error> {
        Ok(Box::new(Feed::read(Path::new("feed"), Cursor::new(text))?))
    });
    let report = import_stream(&stub.client(), "k", source, &())
        .await
        .unwrap();
    let reasons: Vec<_> = report
        .reasons
        .iter()
        .map(|reason| {
            (
                reason.pointer.as_str(),
                reason.rows,
                reason.first_lines.as_slice(),
            )
        })
        .collect();
    let expected: [(&str, u64, &[u64]); 3] = [
        ("/title", 2, &[6, 10]),
        ("/variants/*/price", 2, &[6, 7]),
        ("/externalId", 1, &[2]),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(report.rows, 6);
}

#[test]
fn many_reasons_do_not_fill_the_memory() {
    let mut tally = Tally::default();
    for line in 1..=1_000 {
        let error =
            kernel::problem::FieldError::at(format!("/attributes/x{line}"), "invalid", "no");
        let result = LineResult {
            line,
            status: LineStatus::Failed,
            external_id: None,
            product_id: None,
            errors: vec![error],
        };
        tally.count(&result, &mut Places::default());
    }
    assert_eq!(
        (tally.failed, tally.reasons.len(), tally.other_reasons),
        (1_000, 200, 800)
    );
}
