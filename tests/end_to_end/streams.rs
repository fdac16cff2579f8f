//! Events as they happen: streams that are followed by server-sent events, events that are handed out by lease, and the operator's archive.

use std::{
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{Client, EventStream, Stoa, StoaOptions, new_key, wait_for};

use crate::STOA;

/// How long the end of a grant may take to be felt.
const FELT_WITHIN: Duration = Duration::from_secs(1);

/// A pull consumer's path.
async fn consumer(client: &Client) -> String {
    let input = json!({"eventTypes": ["product.created"]});
    let endpoint = client
        .post("/v1/webhook-endpoints", &input)
        .await
        .expect(201);
    format!("/v1/webhook-endpoints/{}", endpoint["id"].as_str().unwrap())
}

/// Makes that many events.
async fn make(client: &Client, name: &str, count: usize) {
    for number in 0..count {
        client.product(&format!("{name}-{number}"), "1.00").await;
    }
}

async fn sequences(stream: &mut EventStream, count: usize) -> Vec<i64> {
    let mut found = Vec::new();
    while found.len() < count {
        let message = stream.next().await.expect("the stream goes on");
        assert_eq!(message.kind, "", "{message:?}");
        let sequence = message.data["sequence"].as_i64().unwrap();
        assert_eq!(message.id, sequence.to_string());
        found.push(sequence);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_shows_each_event_once_through_broken_connections_and_a_killed_server() {
    let mut stoa = Stoa::start(STOA).await;
    let client = stoa.client().await;
    let path = format!("{}/events/stream", consumer(&client).await);
    let mut stream = client.follow(&path, None).await;
    stream.begun().await;
    assert_eq!(stream.last_id.as_deref(), Some("0"));
    make(&client, "before", 3).await;
    assert_eq!(sequences(&mut stream, 2).await, [1, 2]);
    // Cut off, while more happens.
    let last = stream.last_id.clone();
    drop(stream);
    make(&client, "meanwhile", 3).await;
    let mut stream = client.follow(&path, last.as_deref()).await;
    assert_eq!(sequences(&mut stream, 3).await, [3, 4, 5]);
    stoa.kill();
    // What was under way may still come; then it ends without a word.
    while stream.next().await.is_some() {}
    let last: i64 = stream.last_id.as_deref().unwrap().parse().unwrap();
    stoa.restart().await;
    client.refresh().await;
    make(&client, "after", 2).await;
    let mut again = client.follow(&path, stream.last_id.as_deref()).await;
    let rest = usize::try_from(8 - last).unwrap();
    let expected: Vec<i64> = (last + 1..=8).collect();
    assert_eq!(sequences(&mut again, rest).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_is_followed_by_cursor_also_from_another_process() {
    let stoa = Stoa::start(STOA).await;
    let client = stoa.client().await;
    let mut beside = stoa.start_beside().await;
    beside.kill();
    beside.options_mut().role = Some("api".to_owned());
    beside.restart().await;
    let elsewhere = client.at(&beside.base_url());
    let mut stream = elsewhere.follow("/v1/events/stream", None).await;
    stream.begun().await;
    make(&client, "one", 3).await;
    let first = loop {
        let message = stream.next().await.unwrap();
        // The grant itself may come first.
        if message.data["type"] == "product.created" {
            break message;
        }
    };
    let second = stream.event().await;
    let page = client
        .get(&format!("/v1/events?cursor={}", first.id))
        .await
        .expect(200);
    assert_eq!(page["data"][0]["id"], second["id"]);
    // A cursor of a page is a place of the stream, too.
    let cursor = page["nextCursor"].as_str().unwrap().to_owned();
    let mut later = elsewhere
        .follow(&format!("/v1/events/stream?after={cursor}"), None)
        .await;
    later.begun().await;
    make(&client, "two", 1).await;
    let mut ids = Vec::new();
    while ids.last() != Some(&json!("two-0")) {
        ids.push(later.event().await["data"]["externalId"].clone());
    }
    let refused = elsewhere
        .try_follow("/v1/events/stream?after=%25", None)
        .await;
    assert_eq!(refused.unwrap_err().slug(), "invalid_fields");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_ends_or_narrows_ends_its_streams_within_a_second() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    for narrows in [true, false] {
        let client = stoa
            .client_of(&merchant, "webhooks:write catalog:write events:read", &[])
            .await;
        let path = format!("{}/events/stream", consumer(&client).await);
        let mut streams = [
            client.follow(&path, None).await,
            client.follow("/v1/events/stream", None).await,
        ];
        for stream in &mut streams {
            stream.begun().await;
        }
        if narrows {
            stoa.regrant(&client, "webhooks:read events:read", &[]);
        } else {
            stoa.revoke(&client);
        }
        // The command has committed by now.
        let ended = Instant::now();
        for stream in &mut streams {
            let last = loop {
                let message = stream.next().await.expect("a word on why");
                // The end of the grant is an event, too, for who may still see it.
                if !message.kind.is_empty() {
                    break message;
                }
            };
            assert_eq!(last.kind, "problem");
            assert_eq!(last.data["type"], "urn:stoa:problem:invalid_token");
            assert!(ended.elapsed() < FELT_WITHIN, "{:?}", ended.elapsed());
            assert_eq!(stream.next().await, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_and_waits_for_no_reader() {
    let mut stoa = Stoa::start_with(STOA, StoaOptions::default()).await;
    let client = stoa.client().await;
    let mut stream = client.follow("/v1/events/stream", None).await;
    stream.begun().await;
    let stopping = Instant::now();
    stoa.signal(Signal::SIGTERM);
    let last = stream.next().await.unwrap();
    assert_eq!(
        (last.kind.as_str(), last.data["type"].as_str()),
        ("problem", Some("urn:stoa:problem:unavailable"))
    );
    assert_eq!(stoa.wait().await, Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(15));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_leased_and_come_again_unless_they_are_acknowledged() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let input = json!({"eventTypes": ["product.created"], "settings": {"pull": "lease"}});
    let endpoint = client
        .post("/v1/webhook-endpoints", &input)
        .await
        .expect(201);
    let path = format!("/v1/webhook-endpoints/{}", endpoint["id"].as_str().unwrap());
    let lease = format!("{path}/lease");
    // Somebody who waits is given what comes.
    let wait = json!({"waitSeconds": 20, "leaseSeconds": 600});
    let (leased, ()) = tokio::join!(client.post(&lease, &wait), make(&client, "one", 1));
    let leased = leased.expect(200);
    assert_eq!(leased["data"][0]["sequence"], 1, "{leased}");
    assert_eq!(leased["data"][0]["attempt"], 1);
    assert_eq!(leased["data"][0]["data"]["externalId"], "one-0");
    make(&client, "two", 2).await;
    let two: Value = wait_for("two events", async || {
        let leased = client
            .post(&lease, &json!({"leaseSeconds": 600}))
            .await
            .expect(200);
        let nothing = leased["leaseId"].is_null();
        (!nothing).then_some(leased)
    })
    .await;
    let release = json!({"leaseId": two["leaseId"]});
    let settled = client
        .post(&format!("{path}/release"), &release)
        .await
        .expect(200);
    assert_eq!(
        settled["settledCount"].as_u64(),
        two["data"]
            .as_array()
            .map(|data| data.len().try_into().unwrap())
    );
    let acknowledge = json!({"leaseId": leased["leaseId"], "sequences": [1]});
    let path = format!("{path}/acknowledge");
    client.post(&path, &acknowledge).await.expect(200);
    let again = client.post(&path, &acknowledge).await;
    assert_eq!(
        (again.status.as_u16(), again.slug()),
        (409, "lease_expired")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_tells_the_same_as_the_stream_and_ends_with_the_grant() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    let scopes = "webhooks:write catalog:write events:read";
    let client = stoa.client_of(&merchant, scopes, &[]).await;
    let path = consumer(&client).await;
    let endpoint = path.rsplit('/').next().unwrap();
    let subscribe = async |after: Option<&str>| {
        let query = "subscription($endpoint: ID!, $after: String) {
            events(endpointId: $endpoint, after: $after) { place type event } }";
        client
            .subscribe(query, json!({"endpoint": endpoint, "after": after}))
            .await
    };
    let mut all = subscribe(Some("0")).await;
    make(&client, "one", 2).await;
    let mut stream = client
        .follow(&format!("{path}/events/stream?after=0"), None)
        .await;
    for sequence in 1..=2 {
        let message = all.next().await.unwrap();
        assert_eq!(message.kind, "next");
        let told = &message.data["data"]["events"];
        assert_eq!(told["event"], stream.event().await, "{}", message.data);
        assert_eq!(told["place"], sequence.to_string());
        assert_eq!(told["type"], "product.created");
    }
    let mut rest = subscribe(Some("1")).await;
    let told = rest.next().await.unwrap();
    assert_eq!(told.data["data"]["events"]["event"]["sequence"], 2);
    let mut wrong = subscribe(Some("moon")).await;
    let told = wrong.next().await.unwrap();
    let code = &told.data["errors"][0]["extensions"]["code"];
    assert_eq!(code, "invalid_fields", "{}", told.data);
    stoa.revoke(&client);
    let ended = Instant::now();
    let told = all.next().await.unwrap();
    let code = &told.data["errors"][0]["extensions"]["code"];
    assert_eq!(code, "invalid_token", "{}", told.data);
    assert!(ended.elapsed() < FELT_WITHIN, "{:?}", ended.elapsed());
    assert_eq!(all.next().await, None);
}

/// The events of the one merchant in an archive, in the order of its objects' names, each once.
fn archived(directory: &Path) -> Vec<Value> {
    let entries = |directory: &Path| {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let merchants = entries(directory);
    assert!(merchants.len() <= 1, "{merchants:?}");
    let mut events: Vec<Value> = Vec::new();
    for object in merchants.iter().flat_map(|merchant| entries(merchant)) {
        let mut text = String::new();
        let gzipped = std::fs::File::open(object).unwrap();
        GzDecoder::new(gzipped).read_to_string(&mut text).unwrap();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            if events.iter().all(|known| known["id"] != event["id"]) {
                events.push(event);
            }
        }
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_archive_is_the_feed_though_the_server_is_killed() {
    let name = format!("stoa-archive-{}", new_key());
    let archive = std::env::temp_dir().join(name);
    let url = format!("file://{}?linger_seconds=0", archive.display());
    let options = StoaOptions {
        arguments: vec!["--event-sink".to_owned(), url],
        ..StoaOptions::default()
    };
    let mut stoa = Stoa::start_with(STOA, options).await;
    let client = stoa.client().await;
    make(&client, "before", 3).await;
    wait_for("the archive to begin", async || {
        (!archived(&archive).is_empty()).then_some(())
    })
    .await;
    stoa.kill();
    stoa.restart().await;
    client.refresh().await;
    make(&client, "after", 3).await;
    wait_for("the archive to be the feed", async || {
        let feed = client.feed().await;
        let products = feed
            .iter()
            .filter(|event| event["type"] == "product.created");
        (products.count() == 6 && archived(&archive) == feed).then_some(())
    })
    .await;
    drop(stoa);
    std::fs::remove_dir_all(archive).unwrap();
}
