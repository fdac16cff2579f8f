//! What can go wrong in the authorization server, and how the API says so.

use std::time::Duration;

use kernel::{
    db, keyring,
    problem::{self, FieldError, Problem},
};

/// What can go wrong. The answers of `/oauth/token` have a type of their own: [`Refusal`](crate::token::refusal::Refusal).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The access token is refused.
    #[error("access token refused: {0}")]
    Token(#[from] TokenFault),
    /// Fields of an input are wrong.
    #[error("{}", kernel::problem::sentence(.0))]
    InvalidFields(Vec<FieldError>),
    /// There is no such thing, or none that whoever asks may see.
    #[error("there is no {noun} {id}")]
    NotFound {
        /// `merchant`, `app`, `grant` …
        noun: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// Others created and revoked the same grant over and over meanwhile.
    #[error("the grant kept changing under this request")]
    GrantContended,
    /// Whoever asks may not: a sentence for them.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The person must prove once more who they are.
    #[error("this needs a fresh proof of who you are")]
    StepUpRequired,
    /// What was shown (a password, a code, a passkey) is not right; which part is not said.
    #[error("the sign-in was not accepted")]
    NotAccepted,
    /// Too many wrong guesses.
    #[error("too many attempts; try again in {} s", retry_after.as_secs().max(1))]
    Throttled {
        /// When a try makes sense.
        retry_after: Duration,
    },
    /// A link, a request or a ceremony that is over, was used, or never was.
    #[error("this {0} has expired or has been used")]
    Gone(&'static str),
    /// What was decided upon has changed meanwhile, and must be seen again.
    #[error("this {0} has changed meanwhile")]
    Changed(&'static str),
    /// A password can't be hashed, or what is kept of a second factor can't be read: what the library says.
    #[error("factor: {0}")]
    Factor(String),
    /// The upstream OpenID provider is away, or says what it should not.
    #[error("the sign-on provider: {0}")]
    Upstream(String),
    /// A key can't be made or read, or does not sign.
    #[error("signing key: {0}")]
    SigningKey(&'static str),
    /// A value can't be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The key ring.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
}

/// Why an access token is refused. The sentence is shown to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// The request has no token.
    #[error("There is no access token in the header `Authorization`.")]
    Missing,
    /// It is not one of our tokens: not a JWT, of another type, algorithm or issuer, under an unknown key, or changed.
    #[error("The access token is not valid.")]
    Invalid,
    /// Its time is over.
    #[error("The access token has expired.")]
    Expired,
    /// Its time has not come: the clocks differ by more than is allowed for.
    #[error("The access token is not valid yet.")]
    NotYet,
    /// The merchant has taken something out of the grant since.
    #[error("The grant has been narrowed since this access token was issued.")]
    GrantNarrowed,
    /// The merchant has revoked the grant, or its end has come.
    #[error("The grant of this access token has been revoked or has ended.")]
    GrantEnded,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Token(fault) => Self::new(&problem::INVALID_TOKEN, fault.to_string()),
            Error::InvalidFields(errors) => Self::invalid_fields(errors),
            Error::NotFound { noun, ref id } => Self::not_found(noun, id),
            Error::GrantContended | Error::Upstream(_) => Self::unavailable(error),
            // People's errors: the console answers them with pages of its own.
            Error::Forbidden(_) | Error::StepUpRequired | Error::NotAccepted => {
                Self::new(&problem::INVALID_TOKEN, error.to_string())
            }
            Error::Throttled { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::new(&problem::UNAVAILABLE, error.to_string())
            },
            Error::Gone(noun) => {
                Self::new(&problem::NOT_FOUND, format!("There is no such {noun}."))
            }
            Error::Changed(_) => Self::new(&problem::VERSION_MISMATCH, error.to_string()),
            Error::Keyring(error) => error.into(),
            Error::Database(error) => error.into(),
            Error::SigningKey(_) | Error::Factor(_) | Error::Json(_) => Self::internal(error),
        }
    }
}
