//! The shared secrets of scheme `v1`.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, digest::Key};
use sha2::Sha256;
use zeroize::Zeroizing;

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

/// HMAC with both of its padded blocks already hashed. Padding the key by hand is what HMAC does, and can't fail as slices can.
pub(super) fn prepare(secret: &Secret) -> Hmac<Sha256> {
    let mut block = Zeroizing::new([0_u8; BLOCK_BYTES]);
    for (place, byte) in block.iter_mut().zip(secret.as_bytes()) {
        *place = *byte;
    }
    let key: &Key<Hmac<Sha256>> = (&*block).into();
    Hmac::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
