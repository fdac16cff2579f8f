//! Proof Key for Code Exchange (RFC 7636), by S256 alone: a code is good only for whoever began the request that it answers.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The only value of `code_challenge_method`: `plain`, which is also what its absence means, protects nothing.
pub const METHOD: &str = "S256";

/// Characters of a verifier (RFC 7636, section 4.1).
const VERIFIER_LENGTH_MIN: usize = 43;
const VERIFIER_LENGTH_MAX: usize = 128;

/// The hash of a verifier, as the client sends it ahead: 43 characters of base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// Reads a challenge (RFC 7636, section 4.2); `None` if it is not 32 bytes in base64url without padding.
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).map(|_| Self(text.to_owned()))
    }

    /// The text, as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `verifier` is the one (RFC 7636, section 4.6). One that is none, by its length or its characters, is not.
    pub fn is_met_by(&self, verifier: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(verifier.as_bytes()).into();
        decode(&self.0).is_some_and(|wanted| {
            is_verifier(verifier) && bool::from(given.as_slice().ct_eq(wanted.as_slice()))
        })
    }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// 43 to 128 unreserved characters.
fn is_verifier(text: &str) -> bool {
    (VERIFIER_LENGTH_MIN..=VERIFIER_LENGTH_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_example_of_the_rfc_holds() {
        // RFC 7636, appendix B.
        let challenge = Challenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap();
        assert!(challenge.is_met_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
        assert!(!challenge.is_met_by("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXK"));
        // What `plain` would take.
        assert!(!challenge.is_met_by(challenge.as_str()));
        assert!(!challenge.is_met_by(""));
    }

    #[test]
    fn a_challenge_is_32_bytes_in_base64url() {
        for text in [
            "",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-c",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cMA",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw cM",
        ] {
            assert_eq!(Challenge::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_verifier_has_43_to_128_unreserved_characters() {
        let met = |verifier: &str| {
            let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
            Challenge::parse(&challenge).unwrap().is_met_by(verifier)
        };
        for (verifier, expected) in [
            ("a".repeat(42), false),
            ("a".repeat(43), true),
            ("~".repeat(128), true),
            ("a".repeat(129), false),
            ("a".repeat(42) + "+", false),
            ("a".repeat(42) + " ", false),
            ("a".repeat(42) + "é", false),
        ] {
            assert_eq!(met(&verifier), expected, "{verifier}");
        }
    }
}
