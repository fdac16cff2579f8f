//! The commands of who builds against the API: events on a laptop, on the terminal, and what was given up on.

use std::{
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tests::{Client, Receiver, Stoa, wait_for};

use crate::STOA;

/// A command of `client`'s app.
fn command(client: &Client, arguments: &[&str]) -> Command {
    let credentials = &client.credentials;
    let mut command = Command::new(STOA);
    command
        .args(arguments)
        .env("STOA_URL", &credentials.base_url)
        .env("STOA_CLIENT_ID", &credentials.client_id)
        .env("STOA_CLIENT_SECRET", &credentials.client_secret)
        .env("STOA_RESOURCE", client.resource())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    command
}

/// What a command prints, line by line.
fn said(client: &Client, arguments: &[&str]) -> Vec<String> {
    let output = command(client, arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// A command that goes on; killed when dropped.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(client: &Client, arguments: &[&str]) -> Self {
        let mut child = command(client, arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Its next line, as JSON.
    fn json(&mut self) -> Value {
        let line = self.lines.next().expect("another line").unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"))
    }

    fn interrupt(mut self) -> bool {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn make(client: &Client, names: &[&str]) {
    for name in names {
        client.product(name, "1.00").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laptop_is_sent_each_event_once_signed_anew_and_through_a_restart() {
    let mut stoa = Stoa::start(STOA).await;
    let client = stoa.client().await;
    let laptop = Receiver::start().await;
    let listen = [
        "listen",
        "--forward-to",
        laptop.url(),
        "--events",
        "product.created",
        "--json",
    ];
    let mut listening = Running::start(&client, &listen);
    let secret = listening.json()["secret"].as_str().unwrap().to_owned();
    make(&client, &["a", "b"]).await;
    for sequence in 1..=2 {
        let line = listening.json();
        assert_eq!(line["sequence"], sequence);
        assert_eq!(
            (&line["status"], &line["type"]),
            (&json!(200), &json!("product.created"))
        );
    }
    stoa.kill();
    stoa.restart().await;
    client.refresh().await;
    laptop.answer_with(500);
    make(&client, &["c"]).await;
    let line = listening.json();
    assert_eq!(
        (&line["sequence"], &line["status"]),
        (&json!(3), &json!(500))
    );
    let deliveries = laptop.deliveries();
    let names: Vec<_> = deliveries
        .iter()
        .map(|delivery| delivery.json["data"]["externalId"].clone())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(
        deliveries
            .iter()
            .all(|delivery| delivery.is_signed_by(&secret))
    );
    let endpoints = client.get("/v1/webhook-endpoints").await.expect(200);
    assert_eq!(endpoints["data"].as_array().unwrap().len(), 1);
    assert!(listening.interrupt());
    let endpoints = client.get("/v1/webhook-endpoints").await.expect(200);
    assert_eq!(endpoints["data"], json!([]));

    // One that is kept is used again.
    for _ in 0..2 {
        let mut keeping = Running::start(&client, &[&listen[..], &["--keep"]].concat());
        keeping.json();
        assert!(keeping.interrupt());
        let endpoints = client.get("/v1/webhook-endpoints").await.expect(200);
        assert_eq!(endpoints["data"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_prints_what_happens_and_goes_on_from_a_cursor() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    // The feed begins with the event of the grant. The command line made it and announces nothing, so the server finds it by and by.
    let has_fed = async |events: usize| {
        wait_for("the feed", async || {
            let feed = client.get("/v1/events").await.expect(200);
            (feed["data"].as_array().unwrap().len() == events).then_some(())
        })
        .await;
    };
    has_fed(1).await;
    make(&client, &["a", "b", "c"]).await;
    has_fed(4).await;
    let first = client.get("/v1/events?limit=1").await.expect(200);
    let cursor = first["nextCursor"].as_str().unwrap();
    let types = ["--type", "product.updated,product.created"];
    let tail = [
        &["events", "tail", "--count", "2", "--with-cursor"],
        &types[..],
    ]
    .concat();
    let lines = said(&client, &[&tail[..], &["--after", cursor]].concat());
    let event: Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(
        (lines.len(), &event["data"]["externalId"]),
        (2, &json!("b"))
    );
    let cursor = event["cursor"].as_str().unwrap();
    let mut following = Running::start(
        &client,
        &[&["events", "tail", "--after", cursor], &types[..]].concat(),
    );
    assert_eq!(following.json()["data"]["externalId"], "c");
    make(&client, &["d"]).await;
    assert_eq!(following.json()["data"]["externalId"], "d");
    assert!(following.interrupt());
    let wrong = command(&client, &["events", "tail", "--after", "%"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&wrong.stderr);
    assert!(
        !wrong.status.success() && complaint.contains("invalid_fields"),
        "{complaint}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_and_replayed() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let receiver = Receiver::start().await;
    receiver.answer_with(500);
    let (endpoint, _) = client
        .endpoint(Some(receiver.url()), &["product.created"])
        .await;
    make(&client, &["a", "b"]).await;
    let list = ["dead-letters", "list", "--json"];
    let letters: Vec<Value> = wait_for("two dead letters", async || {
        let lines = said(&client, &list);
        (lines.len() == 2).then(|| {
            lines
                .iter()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        })
    })
    .await;
    assert!(
        letters
            .iter()
            .all(|letter| letter["endpointId"] == *endpoint)
    );
    let id = letters[1]["id"].as_str().unwrap();
    let shown = said(&client, &["dead-letters", "show", id]).join("\n");
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 3);
    assert!(
        said(&client, &["dead-letters", "list"])[0].contains("attempts_exhausted after 3 attempts")
    );
    receiver.answer_with(200);
    let queued = format!("queued again as #{}", letters[1]["sequence"]);
    let replay = said(&client, &["dead-letters", "replay", id]);
    assert!(replay[0].contains(&queued), "{replay:?}");
    // All that were not replayed yet: the other one.
    let replayed = said(&client, &["dead-letters", "replay", "--all", "--json"]);
    assert_eq!(replayed.len(), 1, "{replayed:?}");
    wait_for("both to arrive", async || {
        let taken = receiver.deliveries();
        let taken = taken.iter().filter(|delivery| delivery.answer == 200);
        (taken.count() == 2).then_some(())
    })
    .await;
    let unknown = command(
        &client,
        &["dead-letters", "show", "dle_00000000000000000000000000"],
    )
    .stderr(Stdio::piped())
    .output()
    .unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_of_event_can_be_tried_out_and_says_that_it_is_a_test() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let none = command(&client, &["trigger", "order.placed"])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&none.stderr).contains("no enabled webhook endpoint"));
    let receiver = Receiver::start().await;
    let (endpoint, secret) = client
        .endpoint(Some(receiver.url()), &["product.created"])
        .await;
    let sent = said(&client, &["trigger", "order.placed", "--json"]);
    let sent: Value = serde_json::from_str(&sent[0]).unwrap();
    assert_eq!(sent["endpointId"], *endpoint);
    let delivery = wait_for("the test event", async || receiver.deliveries().pop()).await;
    assert!(delivery.is_signed_by(&secret));
    assert_eq!(sent["eventId"], delivery.id());
    let event = &delivery.json;
    assert_eq!(
        (&event["type"], &event["test"]),
        (&json!("order.placed"), &json!(true))
    );
    assert_eq!(event["resource"]["type"], "order");
    assert!(event["data"]["lines"].is_array(), "{event}");
    let feed = client.feed().await;
    assert!(
        feed.iter().all(|event| event["type"] != "order.placed"),
        "{feed:?}"
    );
    // Whatever the document describes with data can be tried out.
    let document = crate::matrix::document::read(&stoa.base_url()).await;
    for (kind, _) in document["webhooks"].as_object().unwrap() {
        let path = format!("/v1/webhook-endpoints/{endpoint}/test-events");
        let answer = client.post(&path, &json!({"type": kind})).await;
        let expected = if kind == "event.withheld" { 422 } else { 200 };
        assert_eq!(answer.status, expected, "{kind}: {}", answer.text);
    }
}
