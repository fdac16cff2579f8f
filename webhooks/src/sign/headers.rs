//! The names of the headers that a delivery bears, checked once.

use reqwest::header::{self, HeaderName};

use super::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};
use crate::endpoint::settings::SignatureSettings;

/// Longest name of a header, in bytes: several times as long as any in use.
pub const HEADER_NAME_BYTES_MAX: usize = 100;

/// Headers of the connection (RFC 9110, section 7.6.1), and those that say where a message goes, how long it is and what it is made of: the client's own to
/// set.
const RESERVED: [&str; 14] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a text can't be the name of a header that deliveries bear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeaderName {
    /// Not a name by RFC 9110, section 5.1, or longer than [`HEADER_NAME_BYTES_MAX`].
    #[error("must be a header's name of at most {HEADER_NAME_BYTES_MAX} characters")]
    Malformed,
    /// The name of a header that requests need for themselves.
    #[error("is a header of the connection or the message itself")]
    Reserved,
    /// The same name for two things.
    #[error("must differ from the other headers")]
    Repeated,
}

impl InvalidHeaderName {
    /// A stable word for the reason, as problems name it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "invalid",
            Self::Reserved => "reserved",
            Self::Repeated => "repeated",
        }
    }
}

/// The name of a header that a delivery may bear beside what a request needs for itself. Upper and lower case are the same.
pub fn header_name(text: &str) -> Result<HeaderName, InvalidHeaderName> {
    if text.len() > HEADER_NAME_BYTES_MAX {
        return Err(InvalidHeaderName::Malformed);
    }
    // The error says no more than that it is none.
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        return Err(InvalidHeaderName::Malformed);
    };
    if RESERVED.contains(&name.as_str()) {
        return Err(InvalidHeaderName::Reserved);
    }
    Ok(name)
}

/// Under which names id, time and signatures are sent: those of the specification, or those of the sender that a receiver comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// The event's id.
    pub(crate) id: HeaderName,
    /// The attempt's time.
    pub(crate) timestamp: HeaderName,
    /// The signatures.
    pub(crate) signature: HeaderName,
}

impl SignatureHeaders {
    /// The names that an endpoint's settings ask for.
    pub fn new(settings: &SignatureSettings) -> Result<Self, InvalidHeaderName> {
        let headers = Self {
            id: signature_header_name(&settings.id_header)?,
            timestamp: signature_header_name(&settings.timestamp_header)?,
            signature: signature_header_name(&settings.signature_header)?,
        };
        if headers.id == headers.timestamp
            || headers.id == headers.signature
            || headers.timestamp == headers.signature
        {
            return Err(InvalidHeaderName::Repeated);
        }
        Ok(headers)
    }

    /// Whether one of the three has this name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        [&self.id, &self.timestamp, &self.signature].contains(&name)
    }
}

/// A signature is not what `Authorization` is for, and that may be needed beside it.
fn signature_header_name(text: &str) -> Result<HeaderName, InvalidHeaderName> {
    let name = header_name(text)?;
    if name == header::AUTHORIZATION {
        return Err(InvalidHeaderName::Reserved);
    }
    Ok(name)
}

impl Default for SignatureHeaders {
    fn default() -> Self {
        Self {
            id: HeaderName::from_static(ID_HEADER),
            timestamp: HeaderName::from_static(TIMESTAMP_HEADER),
            signature: HeaderName::from_static(SIGNATURE_HEADER),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn settings(id: &str, timestamp: &str, signature: &str) -> SignatureSettings {
        SignatureSettings {
            id_header: id.to_owned(),
            timestamp_header: timestamp.to_owned(),
            signature_header: signature.to_owned(),
            ..SignatureSettings::default()
        }
    }

    #[test]
    fn the_names_of_other_senders_can_be_used() {
        let default = SignatureHeaders::new(&SignatureSettings::default()).unwrap();
        assert_eq!(default, SignatureHeaders::default());
        let svix = settings("svix-id", "Svix-Timestamp", "SVIX-SIGNATURE");
        let svix = SignatureHeaders::new(&svix).unwrap();
        assert_eq!(svix.timestamp, "svix-timestamp");
        assert!(svix.contains(&HeaderName::from_static("svix-signature")));
        let hub = settings("x-hub-delivery", "x-hub-timestamp", "x-hub-signature-256");
        assert!(SignatureHeaders::new(&hub).is_ok());
    }

    #[test]
    fn names_that_are_none_or_serve_something_else_are_refused() {
        for (name, error) in [
            ("", InvalidHeaderName::Malformed),
            ("with space", InvalidHeaderName::Malformed),
            ("line\r\nbreak", InvalidHeaderName::Malformed),
            ("gemütlich", InvalidHeaderName::Malformed),
            (&"x".repeat(101), InvalidHeaderName::Malformed),
            ("Host", InvalidHeaderName::Reserved),
            ("content-length", InvalidHeaderName::Reserved),
            ("Transfer-Encoding", InvalidHeaderName::Reserved),
            ("content-type", InvalidHeaderName::Reserved),
            ("connection", InvalidHeaderName::Reserved),
            ("keep-alive", InvalidHeaderName::Reserved),
            ("proxy-connection", InvalidHeaderName::Reserved),
            ("upgrade", InvalidHeaderName::Reserved),
        ] {
            assert_eq!(header_name(name), Err(error), "{name}");
            let asked = settings("a", "b", name);
            assert_eq!(SignatureHeaders::new(&asked), Err(error), "{name}");
        }
        // As a header of the receiver's own it may be.
        assert!(header_name("authorization").is_ok());
        let authorization = settings("a", "b", "Authorization");
        let refused = SignatureHeaders::new(&authorization);
        assert_eq!(refused, Err(InvalidHeaderName::Reserved));
        let twice = settings("a", "b", "A");
        let refused = SignatureHeaders::new(&twice);
        assert_eq!(refused, Err(InvalidHeaderName::Repeated));
    }
}
