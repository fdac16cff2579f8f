//! The HTTP client that webhooks are sent with: bounded in time and size, and kept away from our own network.
//!
//! Called by the worker, once for each attempt. Invariants: one deadline covers connecting, sending and reading the answer; no more than
//! [`ANSWER_BYTES_MAX`] of an answer are read; redirects are not followed, since a signed body is not for whoever an endpoint names; the
//! environment's proxies are not used; every connection goes to an address that [`AddressPolicy`] allows.

mod address;

use std::{error::Error as StdError, fmt, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use kernel::clock::Timestamp;
use reqwest::{
    Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde::{Deserialize, Serialize};

pub use address::{AddressPolicy, URL_BYTES_MAX, UrlError, check_url};
use address::{GuardedResolver, Lookup, RefusedAddresses, check_parsed, system_lookup};

use crate::sign::{ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER};

/// One deadline for a whole attempt. A receiver that needs longer should take the event in and answer first.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Most time for resolving a name, connecting and TLS: a machine that is not there is told apart from one that is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of an answer's body that are read; the connection is closed if there are more, and used again if there are not.
pub const ANSWER_BYTES_MAX: usize = 16 * 1_024;

/// Most bytes of an answer's body that an attempt keeps for people to look at.
pub const EXCERPT_BYTES_MAX: usize = 1_024;

/// Most idle connections kept to one host; more would be a burden to the receiver rather than a help.
const IDLE_CONNECTIONS_PER_HOST_MAX: usize = 16;

/// How long a connection stays open unused: shorter than the minute after which common load balancers close theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// What the client is made from.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Where webhooks may go.
    pub policy: AddressPolicy,
    /// See [`DEADLINE`].
    pub deadline: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: AddressPolicy::default(),
            deadline: DEADLINE,
        }
    }
}

/// The client could not be made; there is no TLS without it, so the process should not start.
#[derive(Debug, thiserror::Error)]
#[error("the client for webhooks can't be made")]
pub struct BuildError(#[source] reqwest::Error);

/// Sends webhooks. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    config: Config,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// One signed message.
#[derive(Debug, Clone)]
pub struct Request {
    /// The endpoint's URL.
    pub url: Url,
    /// The value of `webhook-id`.
    pub id: String,
    /// The value of `webhook-timestamp`.
    pub timestamp_seconds: i64,
    /// The value of `webhook-signature`.
    pub signature: String,
    /// The JSON that was signed.
    pub body: Bytes,
}

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
    /// The deadline passed.
    Timeout,
    /// The connection broke, or what came back was not HTTP.
    Protocol,
    /// The attempt could not be made for a reason of ours, which is in our log.
    Internal,
}

impl FailureKind {
    /// The word that is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::RefusedAddress => "refused_address",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
            Self::Internal => "internal",
        }
    }
}

impl Client {
    /// A client that asks the system's resolver.
    pub fn new(config: Config) -> Result<Self, BuildError> {
        Self::with_lookup(config, system_lookup())
    }

    fn with_lookup(config: Config, lookup: Lookup) -> Result<Self, BuildError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("Stoa/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(config.deadline))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST_MAX)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .dns_resolver(GuardedResolver {
                policy: config.policy,
                lookup,
            })
            .build()
            .map_err(BuildError)?;
        Ok(Self { http, config })
    }

    /// The policy that this client keeps, for checking URLs before they are saved.
    pub fn policy(&self) -> AddressPolicy {
        self.config.policy
    }

    /// Sends one message and reads the answer. Never fails otherwise than by its outcome, and never takes longer than the deadline.
    pub async fn post(&self, request: Request) -> Outcome {
        let started = tokio::time::Instant::now();
        let result = match check_parsed(&request.url, self.config.policy) {
            Err(error) => Err(Failure {
                kind: FailureKind::RefusedAddress,
                detail: error.to_string(),
            }),
            Ok(()) => {
                match tokio::time::timeout(self.config.deadline, self.exchange(request)).await {
                    Ok(result) => result,
                    Err(elapsed) => Err(Failure {
                        kind: FailureKind::Timeout,
                        detail: elapsed.to_string(),
                    }),
                }
            }
        };
        Outcome {
            result,
            duration: started.elapsed(),
        }
    }

    async fn exchange(&self, request: Request) -> Result<Answer, Failure> {
        let Request {
            url,
            id,
            timestamp_seconds,
            signature,
            body,
        } = request;
        let mut response = self
            .http
            .post(url)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ID_HEADER, id)
            .header(TIMESTAMP_HEADER, HeaderValue::from(timestamp_seconds))
            .header(SIGNATURE_HEADER, signature)
            .body(body)
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut excerpt = Vec::new();
        let mut read_bytes = 0_usize;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let wanted = EXCERPT_BYTES_MAX
                        .saturating_sub(excerpt.len())
                        .min(chunk.len());
                    excerpt.extend_from_slice(chunk.get(..wanted).unwrap_or_default());
                    read_bytes = read_bytes.saturating_add(chunk.len());
                    if read_bytes > ANSWER_BYTES_MAX {
                        break;
                    }
                }
                Ok(None) => break,
                // The status has been given, and is what counts; that its body broke off changes nothing about it.
                Err(error) => {
                    tracing::debug!(error = %chain(&error), http.status = status, "an answer's body broke off");
                    break;
                }
            }
        }
        Ok(Answer {
            status,
            retry_after,
            excerpt: readable(&excerpt),
        })
    }
}

/// Text as it can be stored and shown: PostgreSQL takes no NUL.
fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

fn retry_after(headers: &HeaderMap) -> Option<RetryAfter> {
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

fn classify(error: &reqwest::Error) -> Failure {
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
fn chain(error: &reqwest::Error) -> String {
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

#[cfg(test)]
mod tests;
