//! Signatures as Standard Webhooks 1.0 describes them: HMAC-SHA256 over `{id}.{timestamp}.{body}`, shown as `v1,` and base64.
//!
//! Called by the worker for each attempt, and by endpoint when it makes a secret. Nothing here reads a clock or touches a network.
//! Invariant: a secret is shown by [`Secret::reveal`] alone; printed by any other way it is `***`.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac, digest::Key};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The header that carries the event's id; the same for every attempt and replay.
pub const ID_HEADER: &str = "webhook-id";

/// The header that carries the time of the attempt, in whole seconds since the epoch.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";

/// The header that carries the signatures, parted by spaces.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// What a secret's text begins with, so that secret scanners recognise one.
const SECRET_PREFIX: &str = "whsec_";

/// Bytes of a secret that we make: as many as SHA-256 puts out.
const GENERATED_SECRET_BYTES: usize = 32;

/// Fewest and most bytes of a secret, by the specification. The most is SHA-256's block as well: no key is ever hashed first.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Bytes of SHA-256's block, to which HMAC pads its key with zeros.
const BLOCK_BYTES: usize = 64;

/// The key that an endpoint and we share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// Why a text or bytes are not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ and the base64 of 24 to 64 bytes")]
pub struct InvalidSecret;

impl Secret {
    /// A new secret of 32 random bytes.
    pub fn generate() -> Self {
        let bytes: [u8; GENERATED_SECRET_BYTES] = rand::random();
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The secret that has these bytes, as the key ring gives them back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSecret> {
        if SECRET_BYTES.contains(&bytes.len()) {
            Ok(Self(Zeroizing::new(bytes.to_vec())))
        } else {
            Err(InvalidSecret)
        }
    }

    /// The secret that is written as `whsec_` and base64.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let encoded = text.strip_prefix(SECRET_PREFIX).ok_or(InvalidSecret)?;
        match STANDARD.decode(encoded) {
            Ok(bytes) => Self::from_bytes(&Zeroizing::new(bytes)),
            // The cause would quote a character of the secret.
            Err(_) => Err(InvalidSecret),
        }
    }

    /// The bytes, for the key ring to encrypt.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as text, for the one answer that shows it.
    pub fn reveal(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&*self.0))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// The secrets of one endpoint, prepared once and used for all its deliveries.
///
/// There is one while nothing is being rotated. While there are two, each delivery bears a signature by each, and a receiver that knows
/// either accepts it.
#[derive(Clone)]
pub struct Signer(Vec<Hmac<Sha256>>);

impl Signer {
    /// The signer of these secrets; signatures come in their order.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self(secrets.into_iter().map(prepare).collect())
    }

    /// The value of [`SIGNATURE_HEADER`] for a message sent at `timestamp_seconds`.
    pub fn sign(&self, id: &str, timestamp_seconds: i64, body: &[u8]) -> String {
        let timestamp = timestamp_seconds.to_string();
        let mut value = String::with_capacity(self.0.len().saturating_mul(48));
        for prepared in &self.0 {
            let mut mac = prepared.clone();
            for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
                mac.update(part);
            }
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str("v1,");
            STANDARD.encode_string(mac.finalize().into_bytes(), &mut value);
        }
        value
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Signer(*** × {})", self.0.len())
    }
}

/// HMAC with both of its padded blocks already hashed. Padding the key by hand is what HMAC does, and can't fail as slices can.
fn prepare(secret: &Secret) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0_u8; BLOCK_BYTES]);
    for (place, byte) in block.iter_mut().zip(secret.as_bytes()) {
        *place = *byte;
    }
    let key: &Key<Hmac<Sha256>> = (&*block).into();
    Hmac::new(key)
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

    fn headers(id: &str, timestamp: i64, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, id.parse().unwrap());
        headers.insert(TIMESTAMP_HEADER, timestamp.to_string().parse().unwrap());
        headers.insert(SIGNATURE_HEADER, signature.parse().unwrap());
        headers
    }

    #[test]
    fn the_published_vector_comes_out() {
        let signer = Signer::new([&Secret::parse(SECRET).unwrap()]);
        assert_eq!(
            signer.sign(ID, 1_649_367_553, BODY),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn while_secrets_rotate_a_receiver_with_either_accepts() {
        let (old, new, other) = (Secret::generate(), Secret::generate(), Secret::generate());
        let now = Clock::system().now().unix_seconds();
        let signature = Signer::new([&new, &old]).sign(ID, now, BODY);
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
    fn a_secret_is_printed_as_stars() {
        let secret = Secret::generate();
        let signer = Signer::new([&secret]);
        assert_eq!(
            format!("{secret} {secret:?} {signer:?}"),
            "*** *** Signer(*** × 1)"
        );
    }

    #[test]
    fn a_secret_survives_its_text_and_its_bytes() {
        let secret = Secret::generate();
        assert_eq!(secret.as_bytes().len(), 32);
        assert_eq!(Secret::parse(&secret.reveal()), Ok(secret.clone()));
        assert_eq!(Secret::from_bytes(secret.as_bytes()), Ok(secret));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let short = format!("whsec_{}", STANDARD.encode([7_u8; 23]));
        let long = format!("whsec_{}", STANDARD.encode([7_u8; 65]));
        for text in [
            "",
            "whsec_",
            "whsec_!!!",
            "C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            &short,
            &long,
        ] {
            assert_eq!(Secret::parse(text), Err(InvalidSecret), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_independent_implementation_signs_alike(
            key in proptest::collection::vec(any::<u8>(), 24..=64),
            body in "\\PC{0,200}",
            timestamp in 0_i64..4_000_000_000,
        ) {
            let ours = Signer::new([&Secret::from_bytes(&key).unwrap()]).sign(ID, timestamp, body.as_bytes());
            let theirs = standardwebhooks::Webhook::from_bytes(key).unwrap().sign(ID, timestamp, body.as_bytes()).unwrap();
            prop_assert_eq!(ours, theirs);
        }
    }
}
