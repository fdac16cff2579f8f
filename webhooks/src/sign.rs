//! Signatures as Standard Webhooks 1.0 describes them, over `{id}.{timestamp}.{body}`: HMAC-SHA256, shown as `v1,` and base64, and Ed25519, shown as `v1a,`
//! and base64.
//!
//! Called by the worker for each attempt, and by endpoint when it makes a key. Nothing here reads a clock or touches a network.
//! Invariant: a secret is shown by [`Secret::reveal`] and [`PrivateKey::reveal`] alone; printed by any other way it is `***`.

use std::{fmt, sync::Arc};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::endpoint::settings::SignatureScheme;

mod headers;
mod key_pair;
mod secret;
#[cfg(test)]
mod vectors;

pub use headers::{HEADER_NAME_BYTES_MAX, InvalidHeaderName, SignatureHeaders, header_name};
pub use key_pair::{InvalidPrivateKey, InvalidPublicKey, PrivateKey, PublicKey};
pub use secret::{InvalidSecret, Secret};

/// The header that carries the event's id; the same for every attempt and replay.
pub const ID_HEADER: &str = "webhook-id";

/// The header that carries the time of the attempt, in whole seconds since the epoch.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";

/// The header that carries the signatures, parted by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// Bytes of the longest signature in a header: `v1a,`, 88 characters, and the space before it.
const SIGNATURE_TEXT_BYTES_MAX: usize = 96;

/// Why something is no key of its scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Of scheme `v1`.
    #[error(transparent)]
    V1(#[from] InvalidSecret),
    /// Of scheme `v1a`.
    #[error(transparent)]
    V1a(#[from] InvalidPrivateKey),
}

/// The keys of one endpoint, prepared once and used for all its deliveries. Clones share them.
///
/// There is one of a scheme while nothing is being rotated. While there are two, each delivery bears a signature by each, and a receiver that knows
/// either accepts it.
#[derive(Clone)]
pub struct Signer(Arc<[Prepared]>);

enum Prepared {
    V1(Hmac<Sha256>),
    V1a(Ed25519KeyPair),
}

impl Signer {
    /// The signer of these keys, given as the key ring gives them back; signatures come in their order, so the newest key of each scheme goes first.
    pub fn new<'k>(
        keys: impl IntoIterator<Item = (SignatureScheme, &'k [u8])>,
    ) -> Result<Self, InvalidKey> {
        let prepared: Result<Vec<Prepared>, InvalidKey> = keys
            .into_iter()
            .map(|(scheme, bytes)| match scheme {
                SignatureScheme::V1 => {
                    Ok(Prepared::V1(secret::prepare(&Secret::from_bytes(bytes)?)))
                }
                SignatureScheme::V1a => {
                    Ok(Prepared::V1a(PrivateKey::from_bytes(bytes)?.prepare()?))
                }
            })
            .collect();
        Ok(Self(prepared?.into()))
    }

    /// Whether there is no key at all: what it would send, no receiver could verify.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of [`SIGNATURE_HEADER`] for a message sent at `timestamp_seconds`.
    pub fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
        let timestamp = timestamp_seconds.to_string();
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        let mut value =
            String::with_capacity(self.0.len().saturating_mul(SIGNATURE_TEXT_BYTES_MAX));
        // Ed25519 goes over its message twice, so it takes it in one piece; HMAC takes it as it lies.
        let mut whole: Option<Vec<u8>> = None;
        for prepared in &*self.0 {
            if !value.is_empty() {
                value.push(' ');
            }
            match prepared {
                Prepared::V1(prepared) => {
                    let mut mac = prepared.clone();
                    for part in parts {
                        mac.update(part);
                    }
                    value.push_str("v1,");
                    STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
                }
                Prepared::V1a(pair) => {
                    let whole = whole.get_or_insert_with(|| parts.concat());
                    value.push_str("v1a,");
                    STANDARD.encode_string(pair.sign(whole), &mut value);
                }
            }
        }
        value
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signer(*** × {})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http::HeaderMap;
    use kernel::clock::Clock;
    use proptest::prelude::*;

    use super::*;

    /// The vector that the specification's reference libraries share.
    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
    const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;

    fn of_secrets(secrets: &[&Secret]) -> Signer {
        let keys = secrets.iter().map(|secret| secret.as_bytes());
        Signer::new(keys.map(|bytes| (SignatureScheme::V1, bytes))).unwrap()
    }

    fn headers(id: &str, timestamp: i64, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, id.parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, timestamp.to_string().parse().unwrap());
        headers.insert(SIGNATURE_HEADER, signature.parse().unwrap());
        headers
    }

    #[test]
    fn the_published_vector_comes_out() {
        let secret = Secret::parse(SECRET).unwrap();
        let expected = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
        let signer = Signer::new([(SignatureScheme::V1, secret.as_bytes())]).unwrap();
        assert_eq!(signer.sign(ID, 1_649_367_553, BODY), expected);
    }

    #[test]
    fn while_secrets_rotate_a_receiver_with_either_accepts() {
        let (old, new, other) = (Secret::generate(), Secret::generate(), Secret::generate());
        let now = Clock::system().now().unix_seconds();
        let signature = of_secrets(&[&new, &old]).sign(ID, now, BODY);
        assert_eq!(signature.split(' ').count(), 2);
        let accepts = |secret: &Secret| {
            let receiver = standardwebhooks::Webhook::new(&secret.reveal()).unwrap();
            receiver.verify(BODY, &headers(ID, now, &signature)).is_ok()
        };
        assert!(accepts(&old));
        assert!(accepts(&new));
        assert!(!accepts(&other));
    }

    #[test]
    fn keys_of_both_schemes_sign_side_by_side_in_their_order() {
        let secret = Secret::generate();
        let (new, old) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let signer = Signer::new([
            (SignatureScheme::V1a, new.as_bytes()),
            (SignatureScheme::V1, secret.as_bytes()),
            (SignatureScheme::V1a, old.as_bytes()),
        ])
        .unwrap();
        let now = Clock::system().now().unix_seconds();
        let signature = signer.sign(ID, now, BODY);
        let mut parts = signature.split(' ');
        let message = [format!("{ID}.{now}.").as_bytes(), BODY].concat();
        for (key, at) in [(&new, 0), (&old, 2)] {
            let part = signature.split(' ').nth(at).unwrap();
            let bytes = STANDARD.decode(part.strip_prefix("v1a,").unwrap()).unwrap();
            assert!(key.public_key().verifies(&message, &bytes));
        }
        assert!(parts.nth(1).unwrap().starts_with("v1,"));
        // Who knows only v1 passes over what it does not know.
        let receiver = standardwebhooks::Webhook::new(&secret.reveal()).unwrap();
        receiver
            .verify(BODY, &headers(ID, now, &signature))
            .unwrap();
    }

    #[test]
    fn what_is_no_key_of_its_scheme_makes_no_signer() {
        let seed = [7_u8; 32];
        assert!(Signer::new([(SignatureScheme::V1a, &seed[..])]).is_ok());
        let short = Signer::new([(SignatureScheme::V1, &[7_u8; 23][..])]);
        assert_eq!(short.unwrap_err(), InvalidKey::V1(InvalidSecret));
        let short = Signer::new([(SignatureScheme::V1a, &[7_u8; 31][..])]);
        assert_eq!(short.unwrap_err(), InvalidKey::V1a(InvalidPrivateKey));
        assert!(Signer::new([]).unwrap().is_empty());
    }

    #[test]
    fn a_secret_is_printed_as_stars() {
        let secret = Secret::generate();
        let signer = of_secrets(&[&secret]);
        assert_eq!(
            format!("{secret} {secret:?} {signer:?}"),
            "*** *** Signer(*** × 1)"
        );
    }

    proptest! {
        #[test]
        fn an_independent_implementation_signs_alike(
            key in proptest::collection::vec(any::<u8>(), 24..=64),
            body in "\\PC{0,200}",
            timestamp in 0_i64..4_000_000_000,
        ) {
            let ours = Signer::new([(SignatureScheme::V1, &key[..])]).unwrap().sign(ID, timestamp, body.as_bytes());
            let theirs = standardwebhooks::Webhook::from_bytes(key).unwrap().sign(ID, timestamp, body.as_bytes()).unwrap();
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn each_signature_is_over_id_time_and_every_byte_of_the_body(
            seed: [u8; 32],
            body in proptest::collection::vec(any::<u8>(), 1..200),
            timestamp in 0_i64..4_000_000_000,
            changed: proptest::sample::Index,
        ) {
            let value = Signer::new([(SignatureScheme::V1a, &seed[..])]).unwrap().sign(ID, timestamp, &body);
            let signature = STANDARD.decode(value.strip_prefix("v1a,").unwrap()).unwrap();
            let public = PrivateKey::from_bytes(&seed).unwrap().public_key();
            let mut message = [format!("{ID}.{timestamp}.").as_bytes(), &body].concat();
            prop_assert!(public.verifies(&message, &signature));
            let at = changed.index(message.len());
            if let Some(byte) = message.get_mut(at) {
                *byte = byte.wrapping_add(1);
            }
            prop_assert!(!public.verifies(&message, &signature));
        }
    }
}
