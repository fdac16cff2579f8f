//! Random tokens that people's browsers hold: of sessions, ceremonies and invitations. Only their hashes are kept.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::client::secret::Secret;

/// What is kept of a token. Its 256 random bits leave nothing to guess, so there is nothing to salt or to slow down.
pub(super) type Hash = [u8; 32];

/// 256 random bits in base64url.
pub(super) fn generate() -> Secret {
    let random = Zeroizing::new(rand::random::<[u8; 32]>());
    Secret::new(BASE64_URL_SAFE_NO_PAD.encode(random.as_slice()))
}

/// The hash of a token.
pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}
