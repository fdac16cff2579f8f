//! Secrets that are shown once: they print as `***`.

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// A secret text. Neither `Debug` nor `Display` shows it; only [`expose`](Self::expose) does.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

/// What a client secret begins with, so that scanners for leaked secrets find it.
const CLIENT_SECRET_PREFIX: &str = "stoa_secret_";

impl Secret {
    /// A new client secret: the prefix and 256 random bits in base64url.
    pub fn generate_for_client() -> Self {
        Self::generate(CLIENT_SECRET_PREFIX)
    }

    /// `prefix` and 256 random bits in base64url.
    pub(crate) fn generate(prefix: &str) -> Self {
        let random = Zeroizing::new(rand::random::<[u8; 32]>());
        let encoded = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_slice()));
        Self::new(format!("{prefix}{}", encoded.as_str()))
    }

    /// What is kept of a secret. Its 256 random bits leave nothing to guess, so there is nothing to salt or to slow down.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Keeps `text` from being printed.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Credentials;

    #[test]
    fn a_secret_prints_as_stars() {
        let client_secret = Secret::generate_for_client();
        assert!(client_secret.expose().starts_with("stoa_secret_"));
        assert_eq!(client_secret.expose().len(), "stoa_secret_".len() + 43);
        assert_eq!(format!("{client_secret} {client_secret:?}"), "*** ***");
        let credentials = Credentials::Secret {
            client_id: "app".to_owned(),
            secret: client_secret.clone(),
        };
        assert!(!format!("{credentials:?}").contains(client_secret.expose()));
        assert_ne!(
            Secret::generate_for_client().expose(),
            client_secret.expose()
        );
    }
}
