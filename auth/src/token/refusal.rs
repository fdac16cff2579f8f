//! Why no token is issued (RFC 6749, section 5.2; RFC 8707, section 2).

use std::time::Duration;

use kernel::{
    db,
    problem::{self, Problem},
};

use crate::Error;

/// What is said of a code or a refresh token that is not good, whatever is wrong with it.
const INVALID_GRANT: &str = "The code or the refresh token is wrong, was used, is over, or belongs to another client, redirect URI or verifier; or its grant has ended.";

/// Why no token is issued. The sentence is shown to the client.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request lacks a parameter, repeats one, or proves the client in two ways.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// There is no such client, or it does not prove that it is this one.
    #[error("The client id is wrong, or the secret or assertion that came with it.")]
    InvalidClient,
    /// The client is known, and this grant is not for its kind.
    #[error("This grant is for confidential clients alone.")]
    UnauthorizedClient,
    /// Another grant than those of the metadata.
    #[error("The grant type must be authorization_code, refresh_token or client_credentials.")]
    UnsupportedGrantType,
    /// The code or the refresh token was this client's and is not good any more: used, over, or its grant has ended.
    #[error("{INVALID_GRANT}")]
    InvalidGrant,
    /// The code or the refresh token is none, or another client's, or comes with a wrong verifier or redirect URI: what whoever guesses sends. The client is
    /// told the same.
    #[error("{INVALID_GRANT}")]
    UnknownGrant,
    /// No resource, none of ours, more than one, or one whose merchant has granted nothing to this client.
    #[error(
        "The resource must be one merchant, as {{issuer}}/merchants/{{merchantId}} with the issuer of /.well-known/oauth-authorization-server, who has a living grant for this client."
    )]
    InvalidTarget,
    /// A scope that does not exist, or none that is granted.
    #[error("The scope is unknown, or nothing of it is granted.")]
    InvalidScope,
    /// Whoever asks was wrong too often lately. RFC 6749 has no code for it: `temporarily_unavailable` is what clients know as "later", where
    /// `invalid_client` would have them throw away a secret that may be right, and `slow_down` (RFC 8628) is about polling.
    #[error("There were too many failures from here; try again in {} s.", seconds(*retry_after))]
    Throttled {
        /// When a try makes sense.
        retry_after: Duration,
    },
    /// The database is away.
    #[error("The token can't be issued at the moment.")]
    Unavailable(#[source] Box<Problem>),
    /// Something is wrong on our side.
    #[error("The token can't be issued.")]
    Server(#[source] Box<Problem>),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let problem = Box::new(Problem::from(error));
        if *problem.kind == problem::UNAVAILABLE {
            Self::Unavailable(problem)
        } else {
            Self::Server(problem)
        }
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        Error::from(error).into()
    }
}

impl Refusal {
    /// The value of `error`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidGrant | Self::UnknownGrant => "invalid_grant",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidScope => "invalid_scope",
            Self::Throttled { .. } | Self::Unavailable(_) => "temporarily_unavailable",
            Self::Server(_) => "server_error",
        }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidClient => 401,
            Self::Throttled { .. } => 429,
            Self::Unavailable(problem) | Self::Server(problem) => problem.kind.status,
            _ => 400,
        }
    }

    /// Whether something is wrong on our side, so that nothing was decided.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Server(_))
    }

    /// Whether something that was shown is none of ours: what whoever guesses hears. The [limiter](crate::client::limiter) counts those, and not what was
    /// good once: an app may find at any time that many merchants have ended their grants.
    pub fn is_wrong_guess(&self) -> bool {
        matches!(self, Self::InvalidClient | Self::UnknownGrant)
    }

    /// The value of `Retry-After`, in whole seconds.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Throttled { retry_after } => Some(seconds(*retry_after)),
            Self::Unavailable(problem) | Self::Server(problem) => problem.retry_after.map(seconds),
            _ => None,
        }
    }

    /// The problem on our side, for the log; `None` if the fault is the client's.
    pub fn into_problem(self) -> Option<Box<Problem>> {
        match self {
            Self::Unavailable(problem) | Self::Server(problem) => Some(problem),
            _ => None,
        }
    }
}

/// Rounded up: who comes back then is not too early.
fn seconds(wait: Duration) -> u64 {
    let whole = wait.as_secs();
    let started = u64::from(wait.subsec_nanos() > 0);
    whole.saturating_add(started).max(1)
}
