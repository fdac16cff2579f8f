//! Imports: streamed both ways at once, continued after a crash, and honest about every line.

use std::{
    collections::HashSet,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Stoa, StoaOptions, new_key, wait_for};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::STOA;

/// Where imports are made.
const PATH: &str = "/v1/catalog-imports";

pub(crate) fn product(external_id: &str, description_length: usize) -> Value {
    json!({
        "externalId": external_id,
        "title": format!("Product {external_id}"),
        "description": "d".repeat(description_length),
        "variants": [{"sku": external_id, "price": {"amount": "12.50", "currency": "EUR"}}],
    })
}

pub(crate) fn lines_of(products: impl IntoIterator<Item = Value>) -> String {
    products
        .into_iter()
        .fold(String::new(), |mut text, product| {
            writeln!(text, "{product}").unwrap();
            text
        })
}

/// An import whose body is written while its results are read.
pub(crate) struct Conversation {
    lines: mpsc::Sender<Result<Bytes, std::io::Error>>,
    results: futures_util::stream::BoxStream<'static, Result<Bytes, reqwest::Error>>,
    replayed: bool,
    unread: Vec<u8>,
}

impl Conversation {
    pub(crate) async fn begin(client: &Client, key: &str) -> Self {
        let (lines, body) = mpsc::channel(1);
        let request = client
            .request(Method::POST, PATH)
            .header("idempotency-key", key)
            .header("content-type", "application/x-ndjson")
            .body(reqwest::Body::wrap_stream(ReceiverStream::new(body)));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let replayed = answer.headers().contains_key("idempotent-replayed");
        Self {
            lines,
            results: answer.bytes_stream().boxed(),
            replayed,
            unread: Vec::new(),
        }
    }

    pub(crate) async fn send(&self, text: impl Into<Bytes>) {
        self.lines.send(Ok(text.into())).await.unwrap();
    }

    /// The same to somebody who may not be listening any more.
    pub(crate) async fn try_send(&self, text: impl Into<Bytes>) {
        let _ = self.lines.send(Ok(text.into())).await;
    }

    /// The next result; none if the stream has ended or broken off.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.unread.extend(self.results.next().await?.ok()?);
        }
    }

    /// Says that there is no more, and gives the results that are left, the summary last.
    async fn finish(mut self) -> Vec<Value> {
        let (nobody, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.lines, nobody));
        let mut rest = Vec::new();
        while let Some(result) = self.next().await {
            rest.push(result);
        }
        rest
    }
}

/// Sends a whole body and gives its results, the summary last, and whether the import was there already.
async fn import(client: &Client, key: &str, body: impl Into<Bytes>) -> (Vec<Value>, bool) {
    let conversation = Conversation::begin(client, key).await;
    let replayed = conversation.replayed;
    conversation.send(body).await;
    (conversation.finish().await, replayed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_all_before_it_reads_does_not_stall() {
    /// Lines that become products.
    const GOOD: usize = 1_500;
    /// Lines that are wrong in a hundred places, so that the results are larger than any buffer between server and client.
    const BAD: usize = 800;
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let mut body = lines_of((0..GOOD).map(|number| product(&format!("P-{number}"), 2_000)));
    let price = json!({"amount": "1.00", "currency": "EUR"});
    let variants = vec![json!({"sku": "", "price": price}); 100];
    for number in 0..BAD {
        let wrong =
            json!({"externalId": format!("B-{number}"), "title": "B", "variants": variants});
        writeln!(body, "{wrong}").unwrap();
    }
    assert!(body.len() > 3_000_000);

    let address = client
        .credentials
        .base_url
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(65_536).unwrap();
    let mut connection = socket.connect(address.parse().unwrap()).await.unwrap();
    // HTTP/1.0, so that the answer ends with the connection and has no chunks.
    let head = format!(
        "POST {PATH} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nIdempotency-Key: {}\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
        client.token(),
        new_key(),
        body.len()
    );
    let sent_and_read = async {
        connection.write_all(head.as_bytes()).await.unwrap();
        connection.write_all(body.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = tokio::time::timeout(tests::PATIENCE, sent_and_read)
        .await
        .expect("the import stalled");
    let (head, results) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    assert!(
        results.len() > 6_000_000,
        "the results would fit into buffers: {} bytes",
        results.len()
    );
    let results: Vec<Value> = results
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(results.len(), GOOD + BAD + 1);
    let summary = &results[GOOD + BAD]["summary"];
    assert_eq!(
        (
            &summary["status"],
            &summary["createdCount"],
            &summary["failedCount"]
        ),
        (&json!("completed"), &json!(GOOD), &json!(BAD))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_while_the_client_is_still_sending() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let mut conversation = Conversation::begin(&client, &new_key()).await;
    let mut line = 0;
    for batch in 0..4 {
        conversation
            .send(lines_of(
                (0..3).map(|number| product(&format!("P-{batch}-{number}"), 10)),
            ))
            .await;
        // The next batch is not sent before these results are here.
        for number in 0..3 {
            line += 1;
            let result = conversation.next().await.unwrap();
            assert_eq!(
                (&result["line"], &result["status"]),
                (&json!(line), &json!("created"))
            );
            assert_eq!(result["externalId"], format!("P-{batch}-{number}"));
            client
                .get(&format!(
                    "/v1/products/{}",
                    result["productId"].as_str().unwrap()
                ))
                .await
                .expect(200);
        }
    }
    let rest = conversation.finish().await;
    assert_eq!(rest.len(), 1);
    assert_eq!(
        (
            &rest[0]["summary"]["status"],
            &rest[0]["summary"]["linesDone"]
        ),
        (&json!("completed"), &json!(12))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_line_harms_no_other() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let mut unknown = product("C", 1);
    unknown["colour"] = json!("red");
    let mut worthless = product("D", 1);
    worthless["variants"][0]["price"]["amount"] = json!("twelve");
    let mut nameless = product("E", 1);
    nameless["title"] = json!("");
    nameless["variants"][0]
        .as_object_mut()
        .unwrap()
        .remove("price");
    let too_long = product("F", 3_000_000);
    let body = format!(
        "{}\n\nnot json\n{{\"externalId\": \"B\"\n{unknown}\n{worthless}\n{nameless}\n{too_long}\n{}\n[]\n{}",
        product("A", 1),
        product("A", 1),
        product("G", 1),
    );
    let (results, _) = import(&client, &new_key(), body).await;
    let lines: Vec<(i64, &str)> = results[..results.len() - 1]
        .iter()
        .map(|result| {
            (
                result["line"].as_i64().unwrap(),
                result["status"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        (1, "created"),
        (3, "failed"),
        (4, "failed"),
        (5, "failed"),
        (6, "failed"),
        (7, "failed"),
        (8, "failed"),
        (9, "unchanged"),
        (10, "failed"),
        (11, "created"),
    ];
    assert_eq!(lines, expected);
    let faults = |line: i64| {
        let result = results
            .iter()
            .find(|result| result["line"] == line)
            .unwrap();
        let errors = result["errors"].as_array().unwrap().iter();
        errors
            .map(|error| {
                (
                    error["pointer"].as_str().unwrap(),
                    error["code"].as_str().unwrap(),
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(faults(3), [("", "malformed_json")]);
    assert_eq!(faults(4), [("", "malformed_json")]);
    assert_eq!(faults(5), [("/colour", "unknown_field")]);
    assert!(
        faults(6)
            .iter()
            .all(|(pointer, _)| pointer.starts_with("/variants/0/price")),
        "{:?}",
        faults(6)
    );
    assert_eq!(faults(8), [("", "line_too_long")]);
    assert!(!faults(7).is_empty());
    assert!(!faults(10).is_empty());
    let summary = &results[results.len() - 1]["summary"];
    assert_eq!(
        (
            &summary["createdCount"],
            &summary["unchangedCount"],
            &summary["failedCount"]
        ),
        (&json!(2), &json!(1), &json!(7))
    );
    let products = client.all("/v1/products").await;
    assert_eq!(
        products
            .iter()
            .map(|product| product["externalId"].as_str().unwrap())
            .collect::<HashSet<_>>(),
        HashSet::from(["A", "G"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_cut_off_by_kill_9_continues_under_its_key_with_each_line_once() {
    const LINES: usize = 3_000;
    let options = StoaOptions {
        log: Some("off".to_owned()),
        ..StoaOptions::default()
    };
    let mut stoa = Stoa::start_with(STOA, options).await;
    let client = stoa.client().await;
    let key = new_key();
    let body = lines_of((0..LINES).map(|number| product(&format!("P-{number}"), 100)));

    let mut conversation = Conversation::begin(&client, &key).await;
    let middle = body.len() / 2;
    let first_half = Bytes::copy_from_slice(&body.as_bytes()[..middle]);
    conversation.send(first_half).await;
    // A part is committed, another is on its way, and the rest was never sent.
    let mut before = Vec::new();
    for _ in 0..600 {
        before.push(conversation.next().await.unwrap());
    }
    stoa.kill();
    while let Some(result) = conversation.next().await {
        assert!(
            result.get("summary").is_none(),
            "a stream that was cut off has no summary"
        );
        before.push(result);
    }
    assert!(before.len() < LINES);
    stoa.restart().await;

    let (mut results, replayed) = import(&client, &key, body.clone()).await;
    assert!(replayed, "the import was there already");
    let summary = results.pop().unwrap()["summary"].clone();
    assert_eq!(
        (
            &summary["status"],
            &summary["createdCount"],
            &summary["linesDone"]
        ),
        (&json!("completed"), &json!(LINES), &json!(LINES))
    );
    assert!(
        results
            .iter()
            .map(|result| result["line"].as_i64().unwrap())
            .eq(1..=i64::try_from(LINES).unwrap())
    );
    assert_eq!(
        results[..before.len()],
        before,
        "what was answered before the crash is still so"
    );
    // A line that was done twice would have found its product there.
    assert!(results.iter().all(|result| result["status"] == "created"));
    let products = client.all("/v1/products").await;
    assert_eq!(products.len(), LINES);
    assert!(products.iter().all(|product| product["version"] == 1));

    // Sent once more, it gives the same answer and does nothing.
    let (mut again, replayed) = import(&client, &key, body).await;
    assert!(replayed);
    assert_eq!(again.pop().unwrap()["summary"], summary);
    assert_eq!(again, results);
    // And every product was announced once.
    let created = wait_for("the events of all products", async || {
        let feed = client.feed().await;
        let created: Vec<_> = feed
            .iter()
            .filter(|event| event["type"] == "product.created")
            .map(|event| event["resource"]["id"].clone())
            .collect();
        (created.len() >= LINES).then_some(created)
    })
    .await;
    assert_eq!(
        (created.len(), created.iter().collect::<HashSet<_>>().len()),
        (LINES, LINES)
    );
}

/// A file in the system's temporary directory that goes with its test.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("stoa-{}-{name}", new_key()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `stoa import`, as a merchant's developer runs it.
fn stoa_import(client: &Client, file: &Path, arguments: &[&str]) -> Output {
    Command::new(STOA)
        .arg("import")
        .arg(file)
        .args(arguments)
        .args(["--log", "off"])
        .env("STOA_URL", &client.credentials.base_url)
        .env("STOA_CLIENT_ID", &client.credentials.client_id)
        .env("STOA_CLIENT_SECRET", &client.credentials.client_secret)
        .env("STOA_RESOURCE", client.resource())
        .output()
        .unwrap()
}

/// The same with `--json`: what it came to.
fn report_of(client: &Client, file: &Path, arguments: &[&str]) -> Value {
    let report = File::new("report.json", "");
    let path = report.0.to_string_lossy().into_owned();
    let output = stoa_import(
        client,
        file,
        &[arguments, &["--json", path.as_str()]].concat(),
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&std::fs::read(&report.0).unwrap()).unwrap()
}

fn counts(report: &Value) -> [i64; 5] {
    ["rows", "created", "updated", "unchanged", "failed"].map(|name| {
        report[name]
            .as_i64()
            .unwrap_or_else(|| panic!("{name} in {report}"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_imports_ndjson_and_says_by_its_exit_code_how_it_went() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let mut text = lines_of((0..60).map(|number| product(&format!("P-{number}"), 30)));
    text.push_str("{\"externalId\": \"broken\"\n");
    writeln!(
        text,
        "{}",
        json!({"externalId": "priceless", "title": "T", "variants": [{}]})
    )
    .unwrap();
    let file = File::new("catalog.ndjson", &text);

    let report = report_of(&client, &file.0, &[]);
    assert_eq!(counts(&report), [62, 60, 0, 0, 2]);
    let reasons = report["reasons"].as_array().unwrap();
    assert!(reasons.iter().any(|reason| reason["code"] == "malformed_json" && reason["firstLines"] == json!([61])), "{report}");
    assert!(
        reasons
            .iter()
            .any(|reason| reason["pointer"] == "/variants/*/price"
                && reason["firstLines"] == json!([62])),
        "{report}"
    );
    assert_eq!(client.all("/v1/products").await.len(), 60);

    // Again: another key, nothing to do. And strictly: two rows are wrong.
    let report = report_of(&client, &file.0, &[]);
    assert_eq!(counts(&report), [62, 0, 0, 60, 2]);
    let strict = stoa_import(&client, &file.0, &["--strict"]);
    assert_eq!(strict.status.code(), Some(1));
    let shown = String::from_utf8_lossy(&strict.stdout);
    assert!(
        shown.contains("60 unchanged, 2 failed") && shown.contains("malformed_json"),
        "{shown}"
    );
    assert!(String::from_utf8_lossy(&strict.stderr).contains("2 of 62 rows failed"));

    // What can't be read, or may not be done, is a failure with a sentence.
    let missing = stoa_import(&client, Path::new("/nowhere/catalog.ndjson"), &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/catalog.ndjson"));
    let xml = File::new("catalog.xml", "<rss/>");
    let refused = stoa_import(&client, &xml.0, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("XML"));
    let poor = stoa
        .client_of(&client.credentials.merchant, "orders:read", &[])
        .await;
    assert_eq!(stoa_import(&poor, &file.0, &[]).status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_imports_a_messy_google_feed() {
    const FEED: &str = "\u{feff}id\ttitle\tdescription\tprice\tsale_price\tgtin\tbrand\timage_link\tcolour\r\n\
        1\tLinen shirt\tIt's \"fine\"\t49.00 EUR\t39.00 EUR\t4006381333931\tHalden\thttps://example.com/1.jpg\twhite\r\n\
        2\t\"Quoted \"\"title\"\"\"\tplain\tEUR 1,299.00\t\tnot-a-gtin\t\t\t\r\n\
        \t no id\tx\t5.00 EUR\t\t\t\t\t\r\n\
        4\t\tno title\t5.00 EUR\t\t\t\t\t\r\n\
        5\tNo price\tx\t\t\t\t\t\t\r\n\
        6\tUnreadable price\tx\tfree!\t\t\t\t\t\r\n\
        \r\n\
        1\tLinen shirt, again\tthe same id\t45.00 EUR\t\t\t\t\t\r\n\
        7\tRagged\tx\t5.00 EUR\r\n";
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let file = File::new("feed.tsv", FEED);
    let report = report_of(&client, &file.0, &[]);
    assert_eq!(counts(&report), [8, 3, 1, 0, 4], "{report}");
    let lines: HashSet<i64> = report["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|reason| reason["firstLines"].as_array().unwrap())
        .map(|line| line.as_i64().unwrap())
        .collect();
    assert_eq!(lines, HashSet::from([4, 5, 6, 7]), "{report}");

    let products = client.all("/v1/products").await;
    let found = |external_id: &str| {
        products
            .iter()
            .find(|product| product["externalId"] == external_id)
            .unwrap()
    };
    assert_eq!(products.len(), 3);
    assert_eq!(found("1")["title"], "Linen shirt, again");
    assert_eq!(found("2")["title"], "Quoted \"title\"");
    assert_eq!(
        found("2")["variants"][0]["barcode"],
        "not-a-gtin",
        "an invalid GTIN is kept as given"
    );
    assert_eq!(
        found("2")["variants"][0]["price"],
        json!({"amount": "1299.00", "currency": "EUR"})
    );
    assert_eq!(found("7")["variants"][0]["price"]["amount"], "5.00");
}

/// What a proxy does when its own client goes away: over HTTP/2, a reset that bears no error.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_broken_off_without_an_error_is_not_taken_for_the_whole() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let text = lines_of((0..3).map(|number| product(&format!("H2-{number}"), 10)));
    let key = new_key();
    let url = format!("{}{PATH}", stoa.base_url());
    let base_url = stoa.base_url();
    let address = base_url.strip_prefix("http://").unwrap();
    let connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(connection).await.unwrap();
    tokio::spawn(connection);
    let request = |method: Method, url: &str| {
        http::Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {}", client.token()))
            .header("idempotency-key", &key)
            .header("content-type", "application/x-ndjson")
            .body(())
            .unwrap()
    };
    let mut sender = sender.ready().await.unwrap();
    let (answer, mut body) = sender
        .send_request(request(Method::POST, &url), false)
        .unwrap();
    let broken_off = Bytes::copy_from_slice(&text.as_bytes()[..text.len() - 20]);
    body.send_data(broken_off, false).unwrap();
    let answer = answer.await.unwrap();
    let import = answer.headers()["location"].to_str().unwrap().to_owned();
    let mut results = answer.into_body();
    let mut seen = String::new();
    while !seen.contains(r#""line":2"#) {
        let piece = results.data().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
    body.send_reset(h2::Reason::NO_ERROR);
    // Frames of a connection are read in order: once this is answered, the reset has arrived.
    let mut sender = sender.ready().await.unwrap();
    let import = format!("{}{import}", stoa.base_url());
    let (asked, _) = sender
        .send_request(request(Method::GET, &import), true)
        .unwrap();
    assert_eq!(asked.await.unwrap().status(), 200);

    let whole = client
        .request(Method::POST, PATH)
        .header("idempotency-key", &key)
        .header("content-type", "application/x-ndjson")
        .body(text)
        .send()
        .await
        .unwrap();
    assert_eq!(whole.headers()["idempotent-replayed"], "true");
    let results = whole.text().await.unwrap();
    assert_eq!(
        results.matches(r#""status":"created""#).count(),
        3,
        "{results}"
    );
    let summary: Value = serde_json::from_str(results.lines().last().unwrap()).unwrap();
    assert_eq!(summary["summary"]["status"], "completed");
}
