//! The key pairs of scheme `v1a`: Ed25519 (RFC 8032), by AWS-LC.

use std::fmt;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// What a private key's text begins with, so that secret scanners recognise one.
const PRIVATE_PREFIX: &str = "whsk_";

/// What a public key's text begins with.
const PUBLIC_PREFIX: &str = "whpk_";

/// Bytes of a private key: RFC 8032's, from which everything else follows.
const SEED_BYTES: usize = 32;

/// Bytes of a public key.
const PUBLIC_BYTES: usize = 32;

/// A private key and the public key that belongs to it.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey {
    /// The seed and the public key, one after the other: how the specification's libraries write a private key.
    both: Zeroizing<[u8; SEED_BYTES + PUBLIC_BYTES]>,
}

/// What receivers verify with. Its text is `whpk_` and base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; PUBLIC_BYTES]);

/// Why a text or bytes are not a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a private key for webhooks is whsk_ and the base64 of Ed25519's 32 bytes, or of them and the public key's"
)]
pub struct InvalidPrivateKey;

/// Why a text or bytes are not a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public key for webhooks is whpk_ and the base64 of Ed25519's 32 bytes")]
pub struct InvalidPublicKey;

impl PrivateKey {
    /// A new key of 32 random bytes.
    pub fn generate() -> Result<Self, InvalidPrivateKey> {
        let seed = Zeroizing::new(rand::random::<[u8; SEED_BYTES]>());
        Self::from_bytes(&*seed)
    }

    /// The key that has these bytes, as the key ring gives them back: the seed, or the seed and its public key.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidPrivateKey> {
        let (seed, given) = bytes
            .split_first_chunk::<SEED_BYTES>()
            .ok_or(InvalidPrivateKey)?;
        // The error says no more than that it is none.
        let pair = Ed25519KeyPair::from_seed_unchecked(seed)
            .ok()
            .ok_or(InvalidPrivateKey)?;
        let public = pair.public_key().as_ref();
        // A signature made with another's public key would give the private key away.
        if !given.is_empty() && given != public {
            return Err(InvalidPrivateKey);
        }
        let mut both = Zeroizing::new([0_u8; SEED_BYTES + PUBLIC_BYTES]);
        for (place, byte) in both.iter_mut().zip(seed.iter().chain(public)) {
            *place = *byte;
        }
        Ok(Self { both })
    }

    /// The key that is written as `whsk_` and base64.
    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPrivateKey> {
        let encoded = text.strip_prefix(PRIVATE_PREFIX).ok_or(InvalidPrivateKey)?;
        match STANDARD.decode(encoded) {
            Ok(bytes) => Self::from_bytes(&Zeroizing::new(bytes)),
            // The cause would quote a character of the key.
            Err(_) => Err(InvalidPrivateKey),
        }
    }

    /// The bytes, for the key ring to encrypt: 64, the seed and the public key.
    pub fn as_bytes(&self) -> &[u8] {
        &*self.both
    }

    /// The key as text.
    pub fn reveal(&self) -> String {
        format!("{PRIVATE_PREFIX}{}", STANDARD.encode(self.as_bytes()))
    }

    /// What receivers verify with.
    pub fn public_key(&self) -> PublicKey {
        let mut public = [0_u8; PUBLIC_BYTES];
        for (place, byte) in public.iter_mut().zip(self.both.iter().skip(SEED_BYTES)) {
            *place = *byte;
        }
        PublicKey(public)
    }

    /// The key as AWS-LC signs with it.
    pub(super) fn prepare(&self) -> Result<Ed25519KeyPair, InvalidPrivateKey> {
        let (seed, _) = self
            .both
            .split_first_chunk::<SEED_BYTES>()
            .ok_or(InvalidPrivateKey)?;
        Ed25519KeyPair::from_seed_unchecked(seed)
            .ok()
            .ok_or(InvalidPrivateKey)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Display for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl PublicKey {
    /// The key that has these 32 bytes, as its column holds them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidPublicKey> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(InvalidPublicKey),
        }
    }

    /// The key that is written as `whpk_` and base64.
    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPublicKey> {
        let encoded = text.strip_prefix(PUBLIC_PREFIX).ok_or(InvalidPublicKey)?;
        Self::from_bytes(&STANDARD.decode(encoded).ok().ok_or(InvalidPublicKey)?)
    }

    /// The bytes, as a JWK's `x` has them in base64url.
    pub const fn as_bytes(&self) -> &[u8; PUBLIC_BYTES] {
        &self.0
    }

    /// Whether `signature` is this key's over `message`.
    #[cfg(test)]
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PUBLIC_PREFIX}{}", STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_private_key_survives_its_text_its_bytes_and_its_seed() {
        let key = PrivateKey::generate().unwrap();
        assert!(key.reveal().starts_with("whsk_"));
        assert_eq!(PrivateKey::parse(&key.reveal()), Ok(key.clone()));
        assert_eq!(PrivateKey::from_bytes(key.as_bytes()), Ok(key.clone()));
        let seed = key.as_bytes().get(..32).unwrap();
        assert_eq!(PrivateKey::from_bytes(seed), Ok(key.clone()));
        assert_eq!(format!("{key} {key:?}"), "*** ***");
        let public = key.public_key();
        assert!(public.to_string().starts_with("whpk_"));
        assert_eq!(PublicKey::parse(&public.to_string()), Ok(public));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let key = PrivateKey::generate().unwrap();
        let other = PrivateKey::generate().unwrap();
        let mut mixed = key.as_bytes().get(..32).unwrap().to_vec();
        mixed.extend_from_slice(other.public_key().as_bytes());
        for bytes in [&[][..], &[7; 31], &[7; 33], &[7; 65], &mixed] {
            assert_eq!(PrivateKey::from_bytes(bytes), Err(InvalidPrivateKey));
        }
        let public_text = key.public_key().to_string();
        for text in ["", "whsk_", "whsk_!!!", &public_text] {
            assert_eq!(PrivateKey::parse(text), Err(InvalidPrivateKey), "{text}");
        }
        for text in ["", "whpk_", "whpk_AAAA", &key.reveal()] {
            assert_eq!(PublicKey::parse(text), Err(InvalidPublicKey));
        }
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn the_vector_of_the_standard_comes_out() {
        let seed: [u8; 32] = [
            0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11,
            0x4e, 0x0f, 0x5b, 0x8a, 0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed,
            0x4f, 0xb8, 0xa6, 0xfb,
        ];
        let key = PrivateKey::from_bytes(&seed).unwrap();
        let public: [u8; 4] = [0x3d, 0x40, 0x17, 0xc3];
        assert!(key.public_key().as_bytes().starts_with(&public));
        let signature = key.prepare().unwrap().sign(&[0x72]);
        assert!(signature.as_ref().starts_with(&[0x92, 0xa0, 0x09, 0xa9]));
        assert!(key.public_key().verifies(&[0x72], signature.as_ref()));
        assert!(!key.public_key().verifies(&[0x73], signature.as_ref()));
    }

    #[test]
    fn the_documented_public_key_is_one_and_the_same_as_in_the_documented_set() {
        use utoipa::PartialSchema;
        let example = |schema, name: &str| {
            let schema = serde_json::to_value(schema).unwrap();
            let example = schema.pointer(&format!("/properties/{name}/example"));
            example.unwrap().as_str().unwrap().to_owned()
        };
        let shown = example(crate::endpoint::key::EndpointKey::schema(), "publicKey");
        let in_set = example(crate::endpoint::key::Jwk::schema(), "x");
        let key = PublicKey::parse(&shown).unwrap();
        assert_eq!(key.to_string(), shown);
        let text = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(key.as_bytes());
        assert_eq!(text, in_set);
    }
}
