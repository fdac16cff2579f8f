//! Sinks: what reaches them, whatever fails on the way.

use std::{
    collections::{BTreeMap, HashSet},
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use flate2::read::GzDecoder;
use kernel::{actor::Access, scope::Scope};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::{
    nats::NatsServer,
    world::{Made, PATIENCE, World, made},
};
use crate::{
    event::{Receiver, envelope, select},
    sink::{Config, Credentials, Follower},
};

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let name = format!("stoa-sink-{}", uuid::Uuid::now_v7().simple());
        Self(std::env::temp_dir().join(name))
    }

    fn url(&self) -> String {
        format!("file://{}?linger_seconds=0", self.0.display())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn follower(world: &World, url: &str) -> Follower {
    let config = Config::parse(url, credentials()).unwrap();
    Follower::new(world.worker.clone(), world.clock.clone(), vec![config]).unwrap()
}

fn credentials() -> Credentials {
    Credentials::default()
}

/// A follower under way, as a process would run it.
struct Following {
    follower: Follower,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Following {
    fn start(follower: Follower) -> Self {
        let stop = CancellationToken::new();
        let (running, until) = (follower.clone(), stop.clone());
        let task = tokio::spawn(async move { running.run(until).await });
        Self {
            follower,
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        let stopped = tokio::time::timeout(PATIENCE, self.task).await;
        stopped.expect("stops in time").unwrap();
    }

    /// Ends it where it stands, as a kill would.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn append_and_relay(world: &World, resource: &str, versions: std::ops::RangeInclusive<i64>) {
    let events: Vec<Made> = versions.map(|version| made(resource, version)).collect();
    world.append(&events).await;
    world.relay_all().await;
}

async fn until_position(world: &World, position: i64) {
    let sql = "select coalesce(max(position), 0) from sink_positions";
    world.until(sql, position).await;
}

/// The objects of an archive by name, each with its lines.
fn objects(directory: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut objects = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            objects.insert(name, lines(&std::fs::read(path).unwrap()));
        }
    }
    objects
}

fn lines(gzipped: &[u8]) -> Vec<Value> {
    let mut text = String::new();
    GzDecoder::new(gzipped).read_to_string(&mut text).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The versions of the events, in order.
fn versions<'a>(events: impl IntoIterator<Item = &'a Value>) -> Vec<i64> {
    events
        .into_iter()
        .map(|event| event["resource"]["version"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn an_archive_holds_the_feed_without_personal_parts() {
    let world = World::new().await;
    let directory = Directory::new();
    let ids = world
        .append(&[
            Made {
                personal: Some(json!({"email": "ada@example.com"})),
                ..made("ord_1", 1)
            },
            Made {
                scope: Scope::CatalogRead,
                ..made("ord_1", 2)
            },
        ])
        .await;
    world.relay_all().await;
    let following = Following::start(follower(&world, &directory.url()));
    until_position(&world, 2).await;
    following.stop().await;

    let mut tx = world.worker.begin().await.unwrap();
    let events = select(&mut tx, &[world.merchant], &ids).await.unwrap();
    let everything = Receiver(Some(Access::full()));
    let feed: Vec<Value> = ids
        .iter()
        .map(|id| {
            let shown = envelope(&events[id], world.merchant, None, &everything, None).unwrap();
            serde_json::to_value(shown).unwrap()
        })
        .collect();
    let name = format!(
        "{}/00000000000000000001-00000000000000000002.ndjson.gz",
        world.merchant
    );
    assert_eq!(objects(&directory.0), BTreeMap::from([(name, feed)]));
}

#[tokio::test]
async fn what_is_announced_follows_at_once_and_another_process_goes_on() {
    let world = World::new().await;
    let directory = Directory::new();
    let following = Following::start(follower(&world, &directory.url()));
    append_and_relay(&world, "ord_1", 1..=3).await;
    following.follower.announce(world.merchant);
    until_position(&world, 3).await;
    following.stop().await;

    append_and_relay(&world, "ord_1", 4..=5).await;
    // Nobody announces: it finds them by itself.
    let following = Following::start(follower(&world, &directory.url()));
    until_position(&world, 5).await;
    following.stop().await;
    let objects = objects(&directory.0);
    assert_eq!(versions(objects.values().flatten()), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn two_processes_write_every_event_once() {
    let world = World::new().await;
    let directory = Directory::new();
    let both = [
        Following::start(follower(&world, &directory.url())),
        Following::start(follower(&world, &directory.url())),
    ];
    for step in 0..20 {
        append_and_relay(&world, "ord_1", step * 5 + 1..=step * 5 + 5).await;
        for one in &both {
            one.follower.announce(world.merchant);
        }
    }
    until_position(&world, 100).await;
    for one in both {
        one.stop().await;
    }
    let objects = objects(&directory.0);
    let expected: Vec<i64> = (1..=100).collect();
    assert_eq!(versions(objects.values().flatten()), expected);
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let world = World::new().await;
    let directory = Directory::new();
    for step in 0..10 {
        append_and_relay(&world, "ord_1", step * 5 + 1..=step * 5 + 5).await;
        let following = Following::start(follower(&world, &directory.url()));
        following.follower.announce(world.merchant);
        for _ in 0..step {
            tokio::task::yield_now().await;
        }
        following.kill().await;
        // The lease of a process that is gone runs out; here it is ended rather than waited for.
        let mut tx = world.worker.begin().await.unwrap();
        sqlx::query("update sink_positions set lease_until = updated_at where owner is not null")
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
    let following = Following::start(follower(&world, &directory.url()));
    until_position(&world, 50).await;
    following.stop().await;
    let mut seen = versions(objects(&directory.0).values().flatten());
    seen.sort_unstable();
    seen.dedup();
    let expected: Vec<i64> = (1..=50).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_merchant_whom_another_process_follows_is_left_to_it() {
    let world = World::new().await;
    let directory = Directory::new();
    append_and_relay(&world, "ord_1", 1..=1).await;
    let sink = Config::parse(&directory.url(), credentials())
        .unwrap()
        .name();
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("insert into sink_positions (merchant_id, sink, position, owner, lease_until, updated_at) values ($1, $2, 0, $3, $4, $5)")
        .bind(world.merchant)
        .bind(sink)
        .bind(uuid::Uuid::now_v7())
        .bind(world.clock.now().plus(Duration::from_hours(1)))
        .bind(world.clock.now())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let following = Following::start(follower(&world, &directory.url()));
    following.follower.announce(world.merchant);
    // Another merchant is followed meanwhile, so it has looked at both.
    let keyring = &world.keyring;
    let now = world.clock.now();
    let other = world.database.merchant(keyring, now).await.unwrap();
    let mut tx = world.api.enter(other).await.unwrap();
    let event = kernel::event::NewEvent {
        kind: "order.placed",
        resource: kernel::event::ResourceRef {
            kind: "order",
            id: "ord_2".to_owned(),
            version: 1,
        },
        scope: Scope::OrdersRead,
        locations: vec![],
        data: serde_json::value::to_raw_value(&json!({})).unwrap(),
        personal: None,
    };
    kernel::event::append(&mut tx, other, world.actor.request, now, &[event])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    world.relay().pass(other).await.unwrap();
    following.follower.announce(other);
    until_position(&world, 1).await;
    assert_eq!(objects(&directory.0).len(), 1);

    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("update sink_positions set lease_until = updated_at where owner is not null")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    world
        .until("select count(*) from sink_positions where position = 1", 2)
        .await;
    following.stop().await;
}

#[tokio::test]
async fn a_stream_has_every_event_once_though_its_server_is_killed() {
    let world = World::new().await;
    let mut server = NatsServer::start(1_500).await;
    let url = format!("{}?stream=STOA&subject_prefix=shop", server.url());
    let following = Following::start(follower(&world, &url));
    for step in 0..4 {
        append_and_relay(&world, "ord_1", step * 10 + 1..=step * 10 + 10).await;
        following.follower.announce(world.merchant);
        if step % 2 == 0 {
            until_position(&world, step * 11 + 10).await;
        }
        server.kill();
        append_and_relay(&world, "ord_2", step + 1..=step + 1).await;
        following.follower.announce(world.merchant);
        server.restart().await;
    }
    // An event that is larger than the server takes.
    let large = format!("ord_{}", "x".repeat(600));
    append_and_relay(&world, &large, 1..=1).await;
    following.follower.announce(world.merchant);
    until_position(&world, 45).await;
    following.stop().await;

    let messages = server.messages("STOA").await;
    let numbers: Vec<i64> = messages
        .iter()
        .map(|message| message.header("Stoa-Feed-Number").parse().unwrap())
        .collect();
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    let expected: Vec<i64> = (1..=45).collect();
    assert_eq!(sorted, expected);
    let subject = format!("shop.{}.order.placed", world.merchant);
    let mut ids = HashSet::new();
    for message in &messages {
        assert_eq!(message.subject, subject);
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(event["id"], message.header("Nats-Msg-Id"));
        ids.insert(event["id"].to_string());
        let is_large = event["resource"]["id"] == large;
        assert_eq!(event.get("data").is_none(), is_large);
        assert_eq!(message.header("Stoa-Data") == "omitted", is_large);
    }
    assert_eq!(ids.len(), 45);
}

#[tokio::test]
async fn what_is_too_large_for_a_stream_goes_there_without_its_data() {
    let world = World::new().await;
    let server = NatsServer::start(1_000_000).await;
    server.make_stream("STOA", "shop.>", 1_500).await;
    let large = format!("ord_{}", "x".repeat(600));
    append_and_relay(&world, &large, 1..=1).await;
    append_and_relay(&world, "ord_1", 1..=1).await;
    let url = format!("{}?stream=STOA&subject_prefix=shop", server.url());
    let following = Following::start(follower(&world, &url));
    until_position(&world, 2).await;
    following.stop().await;
    let messages = server.messages("STOA").await;
    let omitted: HashSet<(String, String)> = messages
        .iter()
        .map(|message| {
            (
                message.header("Stoa-Feed-Number"),
                message.header("Stoa-Data"),
            )
        })
        .collect();
    let expected = [("1", "omitted"), ("2", "")].map(|(n, d)| (n.to_owned(), d.to_owned()));
    assert_eq!(omitted, HashSet::from(expected));
}

#[tokio::test]
async fn an_object_goes_to_a_bucket_signed() {
    let world = World::new().await;
    append_and_relay(&world, "ord_1", 1..=2).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let credentials = Credentials {
        s3_access_key_id: Some("key".to_owned()),
        s3_secret_access_key: Some("secret".to_owned()),
        s3_endpoint: Some(endpoint),
        ..Credentials::default()
    };
    let config = Config::parse("s3://archive/stoa?linger_seconds=0", credentials).unwrap();
    let follower = Follower::new(world.worker.clone(), world.clock.clone(), vec![config]).unwrap();
    let following = Following::start(follower);

    let (mut connection, _) = tokio::time::timeout(PATIENCE, listener.accept())
        .await
        .unwrap()
        .unwrap();
    let mut request = Vec::new();
    let body_at = loop {
        assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0);
        if let Some(at) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8_lossy(&request[..body_at]).to_lowercase();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    while request.len() < body_at + length {
        assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0);
    }
    assert_eq!(
        world
            .count("select position from sink_positions where owner is not null")
            .await,
        0,
        "not before it is acknowledged"
    );
    connection
        .write_all(b"HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    until_position(&world, 2).await;
    following.stop().await;

    let path = format!(
        "put /archive/stoa/{}/00000000000000000001-00000000000000000002.ndjson.gz http/1.1",
        world.merchant
    );
    assert_eq!(head.lines().next().unwrap(), path);
    assert!(head.contains("authorization: aws4-hmac-sha256 credential=key/"));
    assert_eq!(versions(&lines(&request[body_at..])), [1, 2]);
}
