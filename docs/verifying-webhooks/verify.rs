//! Verifies webhooks by Standard Webhooks, with the crates `hmac` and `sha2`, `base64`, and for v1a `aws-lc-rs` (`ring` has the same names).
//!
//! Give it the body's bytes as they came, and every key that is valid at the moment: `whsec_…` (v1) or `whpk_…` (v1a). Then look whether you have seen the
//! `webhook-id` before: deliveries may come more than once.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How far clocks may differ, and how long a delivery may have been on its way.
const TOLERANCE_SECONDS: u64 = 300;

/// The values of `webhook-id`, `webhook-timestamp` and `webhook-signature`.
pub struct Headers<'h> {
    pub id: &'h str,
    pub timestamp: &'h str,
    pub signature: &'h str,
}

/// Whether a webhook is to be trusted, at `now_seconds` since the epoch.
pub fn is_trusted(headers: &Headers<'_>, body: &[u8], keys: &[&str], now_seconds: i64) -> bool {
    let is_recent = headers
        .timestamp
        .parse::<i64>()
        .is_ok_and(|seconds| now_seconds.abs_diff(seconds) <= TOLERANCE_SECONDS);
    if !is_recent {
        return false;
    }
    let start = format!("{}.{}.", headers.id, headers.timestamp);
    let message = [start.as_bytes(), body].concat();
    keys.iter().any(|key| {
        headers
            .signature
            .split(' ')
            .any(|signature| is_signed_by(key, &message, signature))
    })
}

fn is_signed_by(key: &str, message: &[u8], signature: &str) -> bool {
    let (Some((kind, key)), Some((scheme, signature))) =
        (key.split_once('_'), signature.split_once(','))
    else {
        return false;
    };
    let (Ok(key), Ok(signature)) = (STANDARD.decode(key), STANDARD.decode(signature)) else {
        return false;
    };
    match (scheme, kind) {
        ("v1", "whsec") => Hmac::<Sha256>::new_from_slice(&key)
            // In constant time.
            .is_ok_and(|mac| mac.chain_update(message).verify_slice(&signature).is_ok()),
        ("v1a", "whpk") => UnparsedPublicKey::new(&ED25519, key)
            .verify(message, &signature)
            .is_ok(),
        _ => false,
    }
}
