//! What can go wrong with webhooks, and the one place where that gets its status and code.

use std::time::Duration;

use kernel::{
    actor::MissingScope,
    clock::Timestamp,
    db, idempotency, keyring,
    problem::{self, FieldError, Problem},
    problem_types,
};
use serde::{Deserialize, Serialize};

use crate::{
    app_endpoint::AppEndpointId, dead_letter::DeadLetterId, endpoint::EndpointId, replay::ReplayId,
};

/// The problem types of webhooks.
pub mod problems {
    use super::problem_types;

    problem_types! {
        ENDPOINT_DISABLED, 409, "endpoint_disabled", "The webhook endpoint is disabled.",
            "Enable it first, by a PATCH with `status: enabled`.";
        ENDPOINT_WITHOUT_URL, 409, "endpoint_without_url", "The webhook endpoint has no URL.",
            "Nothing is sent to a pull consumer: read its stream, or give it a URL.";
        TOO_MANY_ENDPOINTS, 409, "too_many_endpoints", "There are too many webhook endpoints.",
            "Delete endpoints that are no longer used. `detail` names the limit.";
        ENDPOINT_OF_APP, 409, "endpoint_of_app", "The webhook endpoint is a part of an app's endpoint.",
            "It may be enabled and disabled here; anything else is changed at the app's endpoint, for all merchants.";
        ENDPOINT_NOT_LEASED, 409, "endpoint_not_leased", "The webhook endpoint is not read by lease.",
            "Only an endpoint without a URL whose settings have `pull: lease` hands its events out. Others are posted to, or read by number.";
        LEASE_EXPIRED, 409, "lease_expired", "The lease holds nothing any more.",
            "It has expired, or all of it was acknowledged or released: nothing was changed. What was not acknowledged in time is leased again.";
        TOO_MANY_STREAMS, 429, "too_many_streams", "Too many streams are open.",
            "Close streams that are no longer read, or read several endpoints' events by one. `detail` names the limit.";
        TOO_MANY_KEYS, 409, "too_many_keys", "The webhook endpoint has too many living keys.",
            "Wait until older keys have ended, or end them at once: rotate with `overlapSeconds: 0`.";
        TOO_MANY_REPLAYS, 409, "too_many_replays", "There are too many replays of this webhook endpoint running.",
            "Wait until one of them is completed, or cancel one.";
        EVENTS_EXPIRED, 410, "events_expired", "Events that old are no longer kept.",
            "`detail` names the oldest sequence that is still there. Read the resources themselves, then continue from there.";
    }
}

/// When somebody who has too many streams may look whether one has ended: they last for minutes.
const STREAMS_RETRY_AFTER: Duration = Duration::from_secs(10);

/// What can go wrong with webhooks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token lacks a scope.
    #[error(transparent)]
    MissingScope(#[from] MissingScope),
    /// There is no such endpoint for this actor.
    #[error("there is no webhook endpoint {0}")]
    EndpointNotFound(EndpointId),
    /// The app has no such endpoint.
    #[error("there is no app webhook endpoint {0}")]
    AppEndpointNotFound(AppEndpointId),
    /// There is no such dead letter for this actor.
    #[error("there is no dead letter {0}")]
    DeadLetterNotFound(DeadLetterId),
    /// There is no such replay for this actor.
    #[error("there is no replay {0}")]
    ReplayNotFound(ReplayId),
    /// The endpoint's stream has no such number, or no longer.
    #[error("there is no event with sequence {0} in this endpoint's stream")]
    SequenceNotFound(i64),
    /// The endpoint has changed since the version that the client named.
    #[error("the webhook endpoint has changed meanwhile")]
    VersionMismatch,
    /// What depends on stored state, and is kept for a retry.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Fields that are wrong by what the operator allows, each with its pointer.
    #[error("{}", kernel::problem::sentence(.0))]
    InvalidFields(Vec<FieldError>),
    /// The stream no longer holds what was asked for.
    #[error("the oldest sequence still kept is {oldest}")]
    EventsExpired {
        /// The oldest that is still there, or the next one that will be.
        oldest: i64,
    },
    /// The feed no longer holds what followed the cursor.
    #[error("the feed no longer holds what followed the cursor")]
    FeedExpired,
    /// Nothing of the endpoint can be leased now; never kept under a key, so that the same request may lease something later.
    #[error("nothing is due")]
    NothingDue {
        /// When something will be due by itself, as far as is known.
        next_due_at: Option<Timestamp>,
        /// What is due, but was leased as often as it may be.
        exhausted: Vec<i64>,
    },
    /// The app has as many streams open as it may have, or the process has.
    #[error("too many streams are open")]
    TooManyStreams {
        /// Streams that may be open at once.
        limit: u32,
    },
    /// Whoever asks may no longer do so: found out while they waited.
    #[error(transparent)]
    NoLonger(Box<Problem>),
    /// A key.
    #[error(transparent)]
    Keyring(keyring::Error),
    /// JSON of ours that does not serialize.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A task of ours that panicked or was aborted.
    #[error("a task broke off: {0}")]
    Broken(String),
    /// The idempotency key.
    #[error(transparent)]
    Idempotency(#[from] idempotency::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
}

/// Refusals that depend on stored state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Nothing is sent to a disabled endpoint.
    #[error("the webhook endpoint is disabled")]
    EndpointDisabled,
    /// Nothing is sent to a pull consumer.
    #[error("the webhook endpoint has no URL")]
    EndpointWithoutUrl,
    /// The app has as many endpoints as it may have.
    #[error("there are too many webhook endpoints")]
    TooManyEndpoints,
    /// The app has as many endpoints of its own as it may have.
    #[error("there are too many webhook endpoints of the app")]
    TooManyAppEndpoints,
    /// What follows an app's endpoint is not changed by itself.
    #[error("the webhook endpoint is a part of an app's endpoint")]
    EndpointOfApp,
    /// Only endpoints that are read by lease hand events out.
    #[error("the webhook endpoint is not read by lease")]
    EndpointNotLeased,
    /// The lease holds nothing any more.
    #[error("the lease holds nothing any more")]
    LeaseExpired,
    /// The endpoint has as many living keys as it may have.
    #[error("the webhook endpoint has too many living keys")]
    TooManyKeys,
    /// The endpoint has as many replays running as it may have.
    #[error("there are too many replays of this webhook endpoint running")]
    TooManyReplays,
}

impl Error {
    /// Whether what was read is at fault, rather than the database: it fails as often as it is read.
    pub(crate) fn is_of_what_was_read(&self) -> bool {
        matches!(
            self,
            Self::Keyring(_)
                | Self::Json(_)
                | Self::Database(
                    db::Error::Corrupt { .. }
                        | db::Error::Sqlx(
                            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)
                        )
                )
        )
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<keyring::Error> for Error {
    fn from(error: keyring::Error) -> Self {
        match error {
            keyring::Error::Database(error) => Self::Database(error),
            other => Self::Keyring(other),
        }
    }
}

impl idempotency::Failure for Error {
    type Refusal = Refusal;

    fn into_refusal(self) -> Result<Refusal, Self> {
        match self {
            Self::Refused(refusal) => Ok(refusal),
            other => Err(other),
        }
    }

    fn from_refusal(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::MissingScope(error) => error.into(),
            Error::EndpointNotFound(id) => Self::not_found("webhook endpoint", id),
            Error::AppEndpointNotFound(id) => Self::not_found("app webhook endpoint", id),
            Error::DeadLetterNotFound(id) => Self::not_found("dead letter", id),
            Error::ReplayNotFound(id) => Self::not_found("replay", id),
            Error::SequenceNotFound(sequence) => {
                Self::not_found("event in this endpoint's stream with sequence", sequence)
            }
            Error::VersionMismatch => Self::new(
                &problem::VERSION_MISMATCH,
                "The webhook endpoint has changed since the version in If-Match.",
            ),
            Error::Refused(Refusal::EndpointDisabled) => Self::new(
                &problems::ENDPOINT_DISABLED,
                "Nothing is sent to this webhook endpoint while it is disabled.",
            ),
            Error::Refused(Refusal::EndpointWithoutUrl) => Self::new(
                &problems::ENDPOINT_WITHOUT_URL,
                "This webhook endpoint has no URL that something could be sent to.",
            ),
            Error::Refused(Refusal::TooManyEndpoints) => Self::new(
                &problems::TOO_MANY_ENDPOINTS,
                format!(
                    "An app may have {} webhook endpoints at a merchant.",
                    crate::endpoint::PER_APP_MAX
                ),
            ),
            Error::Refused(Refusal::TooManyAppEndpoints) => Self::new(
                &problems::TOO_MANY_ENDPOINTS,
                format!(
                    "An app may have {} webhook endpoints for all of its merchants.",
                    crate::app_endpoint::PER_APP_MAX
                ),
            ),
            Error::Refused(Refusal::EndpointOfApp) => Self::new(
                &problems::ENDPOINT_OF_APP,
                "This webhook endpoint follows its app's endpoint: only its status can be changed here.",
            ),
            Error::Refused(Refusal::EndpointNotLeased) => Self::new(
                &problems::ENDPOINT_NOT_LEASED,
                "Events of this webhook endpoint are not handed out by lease.",
            ),
            Error::Refused(Refusal::LeaseExpired) => Self::new(
                &problems::LEASE_EXPIRED,
                "The lease has expired, or all of it was acknowledged or released. Nothing was changed.",
            ),
            Error::TooManyStreams { limit } => Self {
                retry_after: Some(STREAMS_RETRY_AFTER),
                ..Self::new(
                    &problems::TOO_MANY_STREAMS,
                    format!("{limit} streams may be open at once."),
                )
            },
            Error::NoLonger(problem) => *problem,
            Error::Refused(Refusal::TooManyKeys) => Self::new(
                &problems::TOO_MANY_KEYS,
                format!(
                    "A webhook endpoint may have {} living keys of a scheme.",
                    crate::endpoint::key::LIVING_PER_SCHEME_MAX
                ),
            ),
            Error::Refused(Refusal::TooManyReplays) => Self::new(
                &problems::TOO_MANY_REPLAYS,
                format!(
                    "A webhook endpoint may have {} replays running.",
                    crate::replay::RUNNING_MAX
                ),
            ),
            Error::InvalidFields(errors) => Self::invalid_fields(errors),
            Error::EventsExpired { oldest } => Self::new(
                &problems::EVENTS_EXPIRED,
                format!("The oldest sequence that is still there is {oldest}."),
            ),
            Error::FeedExpired => Self::new(
                &problems::EVENTS_EXPIRED,
                "Events after this cursor are no longer kept. Start again without a cursor to read what there is.",
            ),
            Error::Idempotency(error) => error.into(),
            Error::Database(error) => error.into(),
            error @ (Error::Keyring(_)
            | Error::Json(_)
            | Error::NothingDue { .. }
            | Error::Broken(_)) => Self::internal(error),
        }
    }
}
