//! What can go wrong in the authorization server, and how the API says so.

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
    /// There is no such merchant, app or grant.
    #[error("there is no {noun} {id}")]
    NotFound {
        /// `merchant`, `app` or `grant`.
        noun: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// Others created and revoked the same grant over and over meanwhile.
    #[error("the grant kept changing under this request")]
    GrantContended,
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
            Error::GrantContended => Self::unavailable(error),
            Error::Keyring(error) => error.into(),
            Error::Database(error) => error.into(),
            Error::SigningKey(_) | Error::Json(_) => Self::internal(error),
        }
    }
}
