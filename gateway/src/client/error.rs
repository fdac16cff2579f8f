//! How a call fails, in words for the person who made it.

use std::{fmt, time::Duration};

use http::{StatusCode, header};
use kernel::problem::{self, FieldError, ProblemType};
use serde::Deserialize;

use super::Answer;

/// How a call fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server can't be reached, or the connection broke.
    #[error("the server can't be reached or broke off")]
    Transport(#[from] reqwest::Error),
    /// The server's metadata is not what it should be.
    #[error("{0}")]
    Metadata(String),
    /// No token was given: a code and perhaps a description (RFC 6749, section 5.2).
    #[error("no token: {code}{}", description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Token {
        /// The code: `invalid_client`.
        code: String,
        /// What the server adds to it.
        description: Option<String>,
    },
    /// The server says what went wrong.
    #[error("{0}")]
    Problem(Box<ProblemDocument>),
    /// An answer that is neither a success nor a problem; something between here and Stoa may have given it.
    #[error("the server answered {status} without saying why")]
    Status {
        /// The status.
        status: StatusCode,
        /// When a retry makes sense.
        retry_after: Option<Duration>,
    },
    /// Something that should be readable is not.
    #[error("can't read {what}")]
    Unreadable {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The login can't be used.
    #[error(transparent)]
    Login(#[from] super::login::Error),
    /// The answer goes on and on.
    #[error("the answer has more than {limit} bytes")]
    TooLarge {
        /// What is read at most.
        limit: usize,
    },
}

/// What a server says of a failure (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDocument {
    /// The kind of problem: an address that ends in its slug.
    pub r#type: String,
    /// A short sentence that is the same each time.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    #[serde(default)]
    pub detail: String,
    /// The request, as the server's logs know it.
    #[serde(default)]
    pub request_id: Option<String>,
    /// Every field that is wrong.
    #[serde(default)]
    pub errors: Vec<FieldError>,
    /// When a retry makes sense, from the header.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl ProblemDocument {
    /// The last part of the type: `insufficient_stock`.
    pub fn slug(&self) -> &str {
        self.r#type
            .rsplit([':', '/', '#'])
            .next()
            .unwrap_or_default()
    }

    /// Whether this is of a kind.
    pub fn is(&self, kind: &ProblemType) -> bool {
        self.slug() == kind.slug
    }
}

impl fmt::Display for ProblemDocument {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let detail = if self.detail.is_empty() {
            &self.title
        } else {
            &self.detail
        };
        write!(formatter, "{} {}: {detail}", self.status, self.slug())?;
        for error in &self.errors {
            let place = error
                .pointer
                .as_deref()
                .or(error.parameter.as_deref())
                .unwrap_or_default();
            write!(formatter, "\n  {place}: {} ({})", error.detail, error.code)?;
        }
        match &self.request_id {
            Some(request) => write!(formatter, " [request {request}]"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// Something that should be readable is not.
    pub(super) fn unreadable(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable {
            what,
            source: source.into(),
        }
    }

    /// The failure that an answer tells of.
    pub(super) fn of_answer(answer: &Answer) -> Self {
        let retry_after = answer
            .headers
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        match serde_json::from_slice::<ProblemDocument>(&answer.body) {
            Ok(document) => Self::Problem(Box::new(ProblemDocument {
                retry_after,
                ..document
            })),
            // Not a problem document; the status has to do.
            Err(_) => Self::Status {
                status: answer.status,
                retry_after,
            },
        }
    }

    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Problem(document) => StatusCode::from_u16(document.status).ok(),
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same call may succeed later. With the same key it is safe to make again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport(error) => !error.is_builder(),
            Self::Problem(document) if document.is(&problem::IDEMPOTENCY_KEY_IN_PROGRESS) => true,
            Self::Problem(_) | Self::Status { .. } => self.status().is_some_and(|status| {
                status.is_server_error()
                    || matches!(
                        status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }),
            Self::Metadata(_)
            | Self::Token { .. }
            | Self::Unreadable { .. }
            | Self::Login(_)
            | Self::TooLarge { .. } => false,
        }
    }

    /// When the server says that a retry makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(document) => document.retry_after,
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
