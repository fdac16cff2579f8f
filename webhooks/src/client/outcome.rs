//! What came of an attempt: an answer, or a failure of a known sort.

use std::{error::Error as StdError, time::Duration};

use chrono::DateTime;
use kernel::clock::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::EXCERPT_BYTES_MAX;
use super::address::RefusedAddresses;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The receiver's answer, or why there is none.
    pub result: Result<Answer, Failure>,
    /// From before the name was resolved until the answer was read or given up on.
    pub duration: Duration,
}

/// A receiver's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// What `Retry-After` asked for, where there was one that can be read.
    pub retry_after: Option<RetryAfter>,
    /// The beginning of the body, up to [`EXCERPT_BYTES_MAX`], with what is not text replaced.
    pub excerpt: String,
}

/// What an answer's `Retry-After` (RFC 9110, section 10.2.3) asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// So long after the answer.
    In(Duration),
    /// At this time.
    At(Timestamp),
}

impl RetryAfter {
    /// Until when, for an answer that came at `now`.
    pub fn until(self, now: Timestamp) -> Timestamp {
        match self {
            Self::In(wait) => now.plus(wait),
            Self::At(time) => time,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The sort of failure, by which people and programs tell them apart.
    pub kind: FailureKind,
    /// The error's own words, for the log; it may name addresses, so it is not shown to whoever owns the endpoint.
    pub detail: String,
}

/// Sorts of failure, as attempts record them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The name did not resolve.
    Dns,
    /// The URL or what its name resolved to is not allowed.
    RefusedAddress,
    /// No connection came about.
    Connect,
    /// The connection came about, but TLS failed: a certificate, most often.
    Tls,
    /// The receiver's authorization server gave no token, or the client certificate can't be used.
    Authentication,
    /// The deadline passed.
    Timeout,
    /// The connection broke, or what came back was not HTTP.
    Protocol,
    /// The endpoint's template made no body of the event; nothing was sent.
    Transformation,
    /// The attempt could not be made for a reason of ours, which is in our log.
    Internal,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Dns,
        Self::RefusedAddress,
        Self::Connect,
        Self::Tls,
        Self::Authentication,
        Self::Timeout,
        Self::Protocol,
        Self::Transformation,
        Self::Internal,
    ];

    /// The word that is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::RefusedAddress => "refused_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Authentication => "authentication",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Transformation => "transformation",
            Self::Internal => "internal",
        }
    }
}

impl Failure {
    /// A failure of this sort, in these words.
    pub fn new(kind: FailureKind, detail: &(impl ToString + ?Sized)) -> Self {
        Self {
            kind,
            detail: detail.to_string(),
        }
    }
}

/// Text as it can be stored and shown: PostgreSQL takes no NUL.
pub(super) fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

pub(super) fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than fit are as good as the most that do: the schedule has a bound of its own.
        return Some(RetryAfter::In(Duration::from_secs(
            value.parse().unwrap_or(u64::from(u32::MAX)),
        )));
    }
    // HTTP's preferred date is one that RFC 2822 allows. Its two obsolete forms are not understood, and then the schedule decides.
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    Some(RetryAfter::At(date.to_utc().into()))
}

pub(super) fn classify(error: &reqwest::Error) -> Failure {
    let kind = if find::<RefusedAddresses>(error) {
        FailureKind::RefusedAddress
    } else if error.is_dns() {
        FailureKind::Dns
    } else if error.is_timeout() {
        FailureKind::Timeout
    } else if find::<rustls::Error>(error) {
        FailureKind::Tls
    } else if error.is_connect() {
        FailureKind::Connect
    } else if error.is_builder() {
        FailureKind::Internal
    } else {
        FailureKind::Protocol
    };
    Failure {
        kind,
        detail: chain(error),
    }
}

/// Whether an `E` is among the causes. An I/O error hides what it wraps from `source`, so it is asked by itself.
fn find<E: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.is::<E>() {
            return true;
        }
        let wrapped = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if let Some(wrapped) = wrapped
            && find::<E>(wrapped)
        {
            return true;
        }
        next = cause.source();
    }
    false
}

/// An error and its causes in one line, without the URL that the client puts in: its path may be a secret of the receiver's.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
