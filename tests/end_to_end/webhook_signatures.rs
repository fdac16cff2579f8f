//! Webhooks' signatures, verified by libraries that are not ours (npm's and `PyPI`'s standardwebhooks and svix, `@noble/ed25519`, node's crypto, Python's
//! cryptography) and by what docs/verifying-webhooks tells receivers to write.

use std::path::{Path, PathBuf};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rand::Rng;
use serde_json::{Value, json};
use tests::{Receiver, Stoa, TestClients};
use webhooks::{
    endpoint::settings::SignatureScheme,
    sign::{PrivateKey, PublicKey, Secret, Signer},
};

use crate::STOA;

const BY_NODE: &str = "interop/verify_webhooks.mjs";
const BY_PYTHON: &str = "interop/verify_webhooks.py";

/// Messages that are made up anew each time.
const RANDOM_MESSAGES: usize = 300;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn published() -> PathBuf {
    docs().join("webhook-signature-vectors.json")
}

/// A file of vectors for the scripts.
fn written(name: &str, vectors: &[Value]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, json!({"vectors": vectors}).to_string()).unwrap();
    path
}

/// Has each library judge the vectors, and gives how many each has.
async fn judged(file: &Path) -> Vec<(String, u64)> {
    let clients = TestClients::of(STOA);
    let input = json!({"file": file});
    let mut counts = Vec::new();
    for script in [BY_NODE, BY_PYTHON] {
        let said = clients.run(script, &input).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        for (library, count) in said.as_object().unwrap() {
            counts.push((format!("{script}: {library}"), count.as_u64().unwrap()));
        }
    }
    assert_eq!(counts.len(), 9, "{counts:?}");
    counts
}

/// The names of another sender's headers.
const ANOTHER_SENDERS: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];

/// A message as the vectors have it.
fn vector(
    name: &str,
    headers: &[(&str, &str); 3],
    body: &str,
    key: &str,
    now: i64,
    accepted: bool,
) -> Value {
    let [id, timestamp, signature] = headers;
    json!({
        "name": name,
        "accepted": accepted,
        "now": now,
        "headerNames": {"id": id.0, "timestamp": timestamp.0, "signature": signature.0},
        "headers": {id.0: id.1, timestamp.0: timestamp.1, signature.0: signature.1},
        "bodyBase64": STANDARD.encode(body),
        "bodyText": body,
        "receiverKeys": [key],
    })
}

/// The body with one character changed to another, wherever.
fn with_a_changed_byte(body: &str) -> String {
    let places: Vec<usize> = (0..body.len())
        .filter(|at| body.as_bytes()[*at].is_ascii_alphanumeric())
        .collect();
    let at = places[rand::rng().random_range(0..places.len())];
    let other = if body.as_bytes()[at] == b'x' {
        "y"
    } else {
        "x"
    };
    format!("{}{other}{}", &body[..at], &body[at + 1..])
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_libraries_judge_the_published_vectors_as_they_say() {
    for (library, count) in judged(&published()).await {
        assert!(count >= 8, "{library} has judged {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_libraries_accept_what_we_sign_and_refuse_it_changed() {
    let mut vectors = Vec::new();
    for number in 0..RANDOM_MESSAGES {
        let mut random = rand::rng();
        let text: String = (0..random.random_range(0..200))
            .map(|_| random.random::<char>())
            .collect();
        let body = json!({"number": number, "text": text}).to_string();
        let (secret, pair) = (Secret::generate(), PrivateKey::generate().unwrap());
        let older = Secret::generate();
        let keys = [
            (SignatureScheme::V1, secret.as_bytes()),
            (SignatureScheme::V1a, pair.as_bytes()),
            (SignatureScheme::V1, older.as_bytes()),
        ];
        let now = random.random_range(1_500_000_000..4_000_000_000_i64);
        let id = format!("evt_{number}");
        let signature = Signer::new(keys).unwrap().sign(&id, now, body.as_bytes());
        let timestamp = now.to_string();
        let headers = [
            ("webhook-id", &*id),
            ("webhook-timestamp", &*timestamp),
            ("webhook-signature", &*signature),
        ];
        let changed = with_a_changed_byte(&body);
        for key in [
            secret.reveal(),
            older.reveal(),
            pair.public_key().to_string(),
        ] {
            vectors.push(vector(&id, &headers, &body, &key, now, true));
            vectors.push(vector(&id, &headers, &changed, &key, now, false));
        }
    }
    let file = written("random-webhooks.json", &vectors);
    let least = u64::try_from(RANDOM_MESSAGES * 2).unwrap();
    for (library, count) in judged(&file).await {
        assert!(count >= least, "{library} has judged {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_libraries_accept_a_delivery_and_refuse_it_changed() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let (_, variant) = stoa.stocked(&client, 10).await;
    let receiver = Receiver::start().await;
    let [id, timestamp, signature] = ANOTHER_SENDERS;
    let input = json!({
        "url": receiver.url(),
        "eventTypes": ["order.placed"],
        "settings": {"signature": {
            "schemes": ["v1", "v1a"],
            "idHeader": id, "timestampHeader": timestamp, "signatureHeader": signature,
        }},
    });
    let made = client.post("/v1/webhook-endpoints", &input).await;
    let made = made.expect(201);
    let secret = made["secret"].as_str().unwrap();
    let keys = format!("/webhook-keys/{}", made["id"].as_str().unwrap());
    let keys = client.get(&keys).await.expect(200);
    let public = keys["keys"][0]["x"].as_str().unwrap();
    let public = URL_SAFE_NO_PAD.decode(public).unwrap();
    let public = PublicKey::from_bytes(&public).unwrap().to_string();

    client.place(&variant, 1).await;
    let delivery = receiver
        .wait_until("the order's event", |deliveries| !deliveries.is_empty())
        .await
        .remove(0);
    assert!(delivery.headers.get("webhook-id").is_none());
    let header = |name: &str| delivery.headers[name].to_str().unwrap();
    let headers = ANOTHER_SENDERS.map(|name| (name, header(name)));
    let now: i64 = header(timestamp).parse().unwrap();
    let body = std::str::from_utf8(&delivery.body).unwrap();
    let changed = with_a_changed_byte(body);
    let mut vectors = Vec::new();
    for key in [secret, &*public] {
        vectors.push(vector("as it came", &headers, body, key, now, true));
        vectors.push(vector("changed", &headers, &changed, key, now, false));
    }
    for (library, count) in judged(&written("delivered-webhook.json", &vectors)).await {
        assert_eq!(count, 2, "{library}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_receivers_are_told_to_write_judges_the_vectors_rightly() {
    let clients = TestClients::of(STOA);
    let published = published();
    let vectors: Value = serde_json::from_slice(&std::fs::read(&published).unwrap()).unwrap();
    let count = vectors["vectors"].as_array().unwrap().len();
    // verify.rs is compiled and run by the tests of webhooks. PHP and Go are not installed for the tests, and are run where they are.
    for (file, needed) in [
        ("verify.mjs", true),
        ("verify.py", true),
        ("verify.php", false),
        ("verify.go", false),
    ] {
        let script = docs().join("verifying-webhooks").join(file);
        let said = clients.run_file(&script, &published).await;
        match said {
            Some(said) => assert_eq!(said.trim(), format!("{count} vectors"), "{file}"),
            None => assert!(!needed, "nothing runs {file}"),
        }
    }
}
