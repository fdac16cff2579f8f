//! The test vectors that receivers can check their own code with: docs/webhook-signature-vectors.json, which is what this says it is.
//!
//! Written anew by `cargo test -p webhooks write_the_vectors -- --ignored`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{PrivateKey, Secret, Signer};
use crate::endpoint::settings::{SignatureScheme, SignatureSettings};

/// The committed file.
const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/webhook-signature-vectors.json"
);

/// Seconds that a receiver should allow clocks to differ by.
const TOLERANCE_SECONDS: i64 = 300;

const NOW: i64 = 1_795_000_000;
const ID: &str = "evt_01kzbq6p4cfgns3jv3x5s0q2e7";
const BODY: &str = r#"{"id":"evt_01kzbq6p4cfgns3jv3x5s0q2e7","type":"order.placed","sequence":4711,"data":{"number":"1001"}}"#;

/// A key of a vector.
enum Key {
    Secret(Secret),
    Pair(PrivateKey),
}

impl Key {
    fn secret(byte: u8, bytes: usize) -> Self {
        Self::Secret(Secret::from_bytes(&counting(byte, bytes)).unwrap())
    }

    fn pair(byte: u8) -> Self {
        Self::Pair(PrivateKey::from_bytes(&counting(byte, 32)).unwrap())
    }

    fn part(&self) -> (SignatureScheme, &[u8]) {
        match self {
            Self::Secret(secret) => (SignatureScheme::V1, secret.as_bytes()),
            Self::Pair(pair) => (SignatureScheme::V1a, pair.as_bytes()),
        }
    }

    /// What the receiver has of it.
    fn shown(&self) -> String {
        match self {
            Self::Secret(secret) => secret.reveal(),
            Self::Pair(pair) => pair.public_key().to_string(),
        }
    }
}

/// Bytes that count up from `first`: keys that nobody takes for real ones.
fn counting(first: u8, count: usize) -> Vec<u8> {
    std::iter::successors(Some(first), |byte| Some(byte.wrapping_add(1)))
        .take(count)
        .collect()
}

/// One vector. As it is made, it is a message that a receiver accepts.
struct Vector {
    name: &'static str,
    names: SignatureSettings,
    timestamp: i64,
    body: Vec<u8>,
    signed_with: Vec<Key>,
    /// What the receiver knows; as many as it likes.
    known: Vec<String>,
    /// What has happened to the body on its way.
    received_body: Option<Vec<u8>>,
    signature: Option<String>,
    accepted: bool,
}

impl Vector {
    fn new(name: &'static str, body: impl Into<Vec<u8>>, signed_with: Vec<Key>) -> Self {
        Self {
            name,
            names: SignatureSettings::default(),
            timestamp: NOW,
            body: body.into(),
            known: signed_with.iter().map(Key::shown).collect(),
            signed_with,
            received_body: None,
            signature: None,
            accepted: true,
        }
    }

    fn named(mut self, id: &str, timestamp: &str, signature: &str) -> Self {
        id.clone_into(&mut self.names.id_header);
        timestamp.clone_into(&mut self.names.timestamp_header);
        signature.clone_into(&mut self.names.signature_header);
        self
    }

    fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }

    fn known(mut self, key: &Key) -> Self {
        self.known = vec![key.shown()];
        self
    }

    fn received(mut self, body: &str) -> Self {
        self.received_body = Some(body.as_bytes().to_vec());
        self
    }

    fn with_signature(mut self, signature: &str) -> Self {
        self.signature = Some(signature.to_owned());
        self
    }

    fn refused(mut self) -> Self {
        self.accepted = false;
        self
    }

    fn into_json(self) -> Value {
        let signer = Signer::new(self.signed_with.iter().map(Key::part)).unwrap();
        let signature = self
            .signature
            .unwrap_or_else(|| signer.sign(ID, self.timestamp, &self.body));
        let body = self.received_body.unwrap_or(self.body);
        let signed_with: Vec<Value> = self
            .signed_with
            .iter()
            .map(|key| match key {
                Key::Secret(secret) => json!(secret.reveal()),
                Key::Pair(pair) => json!(pair.reveal()),
            })
            .collect();
        json!({
            "name": self.name,
            "accepted": self.accepted,
            "now": NOW,
            "headerNames": {
                "id": self.names.id_header,
                "timestamp": self.names.timestamp_header,
                "signature": self.names.signature_header,
            },
            "headers": {
                self.names.id_header: ID,
                self.names.timestamp_header: self.timestamp.to_string(),
                self.names.signature_header: signature,
            },
            "bodyBase64": STANDARD.encode(&body),
            "bodyText": String::from_utf8(body).ok(),
            "signedWith": signed_with,
            "receiverKeys": self.known,
        })
    }
}

fn accepted() -> Vec<Vector> {
    vec![
        Vector::new("v1", BODY, vec![Key::secret(0, 32)]),
        Vector::new("v1, the shortest secret", BODY, vec![Key::secret(1, 24)]),
        Vector::new("v1, the longest secret", BODY, vec![Key::secret(2, 64)]),
        Vector::new("v1, an empty body", "", vec![Key::secret(3, 32)]),
        Vector::new(
            "v1, a body beyond ASCII",
            r#"{"note":"Grüße aus Köln, 東京 und 🛒","price":"€ 12,34"}"#,
            vec![Key::secret(4, 32)],
        ),
        Vector::new(
            "v1, a body that is no text, as a compressed one is",
            [0x1f, 0x8b, 0x08, 0x00, 0xff, 0xfe, 0x00, 0x0a, 0x0d],
            vec![Key::secret(5, 32)],
        ),
        Vector::new(
            "v1, two secrets while they rotate: a receiver that has the new one",
            BODY,
            vec![Key::secret(6, 32), Key::secret(7, 32)],
        )
        .known(&Key::secret(6, 32)),
        Vector::new(
            "v1, two secrets while they rotate: a receiver that has the old one",
            BODY,
            vec![Key::secret(6, 32), Key::secret(7, 32)],
        )
        .known(&Key::secret(7, 32)),
        Vector::new(
            "v1, the names of another sender's headers",
            BODY,
            vec![Key::secret(8, 32)],
        )
        .named("svix-id", "svix-timestamp", "svix-signature"),
        Vector::new("v1, as old as is allowed", BODY, vec![Key::secret(9, 32)])
            .at(NOW - TOLERANCE_SECONDS),
        Vector::new("v1a", BODY, vec![Key::pair(10)]),
        Vector::new("v1a, an empty body", "", vec![Key::pair(11)]),
        Vector::new(
            "v1a, a body beyond ASCII",
            r#"{"note":"Grüße aus Köln, 東京 und 🛒"}"#,
            vec![Key::pair(12)],
        ),
        Vector::new(
            "v1a, two keys while they rotate: a receiver that has the old one",
            BODY,
            vec![Key::pair(13), Key::pair(14)],
        )
        .known(&Key::pair(14)),
        Vector::new(
            "both schemes: a receiver of v1",
            BODY,
            vec![Key::secret(15, 32), Key::pair(15)],
        )
        .known(&Key::secret(15, 32)),
        Vector::new(
            "both schemes: a receiver of v1a",
            BODY,
            vec![Key::secret(15, 32), Key::pair(15)],
        )
        .known(&Key::pair(15)),
        Vector::new(
            "v1a, the names of another sender's headers",
            BODY,
            vec![Key::pair(16)],
        )
        .named("x-shop-delivery", "x-shop-time", "x-shop-signature-256"),
    ]
}

fn refused() -> Vec<Vector> {
    let v1_alone =
        Signer::new([Key::secret(26, 32).part()])
            .unwrap()
            .sign(ID, NOW, BODY.as_bytes());
    let vectors = vec![
        Vector::new(
            "refused: a changed byte, v1",
            BODY,
            vec![Key::secret(20, 32)],
        )
        .received(&BODY.replace("4711", "4712")),
        Vector::new("refused: a changed byte, v1a", BODY, vec![Key::pair(20)])
            .received(&BODY.replace("4711", "4712")),
        Vector::new("refused: another secret", BODY, vec![Key::secret(21, 32)])
            .known(&Key::secret(22, 32)),
        Vector::new("refused: another key pair", BODY, vec![Key::pair(21)]).known(&Key::pair(22)),
        Vector::new(
            "refused: older than is allowed",
            BODY,
            vec![Key::secret(23, 32)],
        )
        .at(NOW - TOLERANCE_SECONDS - 1),
        Vector::new("refused: from the future", BODY, vec![Key::secret(24, 32)])
            .at(NOW + TOLERANCE_SECONDS + 1),
        Vector::new("refused: no signature", BODY, vec![Key::secret(25, 32)]).with_signature(""),
        Vector::new(
            "refused: a signature that is cut short",
            BODY,
            vec![Key::secret(26, 32)],
        )
        .with_signature(v1_alone.get(..20).unwrap()),
        Vector::new(
            "refused: v1's signature under the name of v1a",
            BODY,
            vec![Key::secret(26, 32)],
        )
        .with_signature(&v1_alone.replace("v1,", "v1a,")),
    ];
    vectors.into_iter().map(Vector::refused).collect()
}

fn file() -> Value {
    let vectors: Vec<Value> = accepted()
        .into_iter()
        .chain(refused())
        .map(Vector::into_json)
        .collect();
    json!({
        "specification": "Standard Webhooks 1.0.0",
        "signed": "the bytes {id}.{timestamp}.{body}",
        "toleranceSeconds": TOLERANCE_SECONDS,
        "vectors": vectors,
    })
}

#[test]
fn the_published_vectors_are_what_the_signer_makes() {
    let committed = std::fs::read(FILE).unwrap();
    let committed: Value = serde_json::from_slice(&committed).unwrap();
    assert!(
        committed == file(),
        "docs/webhook-signature-vectors.json differs: cargo test -p webhooks write_the_vectors -- --ignored"
    );
    assert!(accepted().len() >= 12);
}

/// What docs tells receivers to write, judged by the vectors. Its siblings in other languages are run by the end-to-end tests.
#[allow(missing_docs, unreachable_pub, reason = "it is shown as it is")]
#[path = "../../../docs/verifying-webhooks/verify.rs"]
mod published;

#[test]
fn the_published_verification_judges_each_vector_rightly() {
    let file = file();
    for vector in file["vectors"].as_array().unwrap() {
        let header = |part: &str| {
            let name = vector["headerNames"][part].as_str().unwrap();
            vector["headers"][name].as_str().unwrap()
        };
        let headers = published::Headers {
            id: header("id"),
            timestamp: header("timestamp"),
            signature: header("signature"),
        };
        let body = STANDARD
            .decode(vector["bodyBase64"].as_str().unwrap())
            .unwrap();
        let keys = vector["receiverKeys"].as_array().unwrap();
        let keys: Vec<&str> = keys.iter().filter_map(Value::as_str).collect();
        assert_eq!(
            published::is_trusted(&headers, &body, &keys, NOW),
            vector["accepted"].as_bool().unwrap(),
            "{}",
            vector["name"]
        );
    }
}

#[test]
#[ignore = "writes docs/webhook-signature-vectors.json"]
fn write_the_vectors() {
    let text = format!("{}\n", serde_json::to_string_pretty(&file()).unwrap());
    std::fs::write(FILE, text).unwrap();
}
