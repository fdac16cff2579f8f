//! What is done once: an operation, its callers, and what it comes to.

use std::{borrow::Cow, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Connection, PgConnection};

use super::Key;
use crate::{
    actor::{Access, Actor, MissingScope},
    clock::Timestamp,
    db,
    problem::{self, Problem},
    scope::Scope,
};

/// Who does an operation, and when.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// On whose behalf.
    pub actor: &'c Actor,
    /// The time of the request.
    pub now: Timestamp,
}

/// A result that may be kept for a retry.
pub trait Kept: Serialize + DeserializeOwned + Clone + Send + Sync {
    /// Whether somebody with this access may be shown it. Asked before each replay: a grant may have been narrowed since.
    fn visible_to(&self, access: &Access) -> bool;

    /// What is kept of it: everything but personal data and secrets.
    fn without_secrets(&self) -> Cow<'_, Self> {
        Cow::Borrowed(self)
    }
}

/// The error of an operation.
pub trait Failure: From<db::Error> + From<Error> + From<MissingScope> + Send {
    /// Refusals that depend on stored state, and are kept.
    type Refusal: Serialize + DeserializeOwned + Send + Sync;

    /// The refusal that this is, or the error itself if it is something else.
    fn into_refusal(self) -> Result<Self::Refusal, Self>;

    /// The error that a kept refusal is.
    fn from_refusal(refusal: Self::Refusal) -> Self;

    /// Whether the transaction, run again, may succeed.
    fn is_retryable(&self) -> bool;
}

/// A mutation: what `POST /v1/orders` and `orderPlace` both are.
pub trait Operation: Send + Sync {
    /// The domain's name: `order.place`.
    const NAME: &'static str;
    /// The scope that it needs; checked before anything else.
    const SCOPE: Scope;
    /// What the client asks for. Two calls with equal JSON are equal calls.
    type Input: Serialize + Sync;
    /// What it returns.
    type Output: Kept;
    /// How it fails.
    type Error: Failure;

    /// The input.
    fn input(&self) -> &Self::Input;

    /// Rows that it touches, about: by which groups are bounded.
    fn weight(&self) -> usize {
        1
    }

    /// Does it, in a transaction that has entered the actor's merchant. May be run again after a rollback.
    fn run(
        &self,
        tx: &mut PgConnection,
        call: Call<'_>,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;

    /// Does several in one transaction, in the order of arrival. One that is refused leaves nothing behind; an error of the whole makes the caller
    /// run them singly. An operation that can decide a group at once replaces this.
    #[allow(
        clippy::type_complexity,
        reason = "results of members within the result of the whole are what it is"
    )]
    fn run_many<'m>(
        tx: &'m mut PgConnection,
        members: &'m [(&'m Self, Call<'m>)],
    ) -> impl Future<Output = Result<Vec<Result<Self::Output, Self::Error>>, Self::Error>> + Send + 'm
    {
        async move {
            let mut results = Vec::with_capacity(members.len());
            for (operation, call) in members {
                let mut savepoint = tx.begin().await.map_err(db::Error::from)?;
                match operation.run(&mut savepoint, *call).await {
                    Ok(output) => {
                        savepoint.commit().await.map_err(db::Error::from)?;
                        results.push(Ok(output));
                    }
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(error) => {
                        savepoint.rollback().await.map_err(db::Error::from)?;
                        results.push(Err(error));
                    }
                }
            }
            Ok(results)
        }
    }
}

/// What idempotency itself refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key was used with another input.
    #[error("the idempotency key was used with another input")]
    KeyReused,
    /// A twin in another process is at it.
    #[error("a request with this idempotency key is in progress")]
    InProgress,
    /// The kept answer is no longer visible to this token.
    #[error("the kept answer is not visible to this token")]
    NotVisible,
    /// The input does not serialize: a fault of ours.
    #[error("the input has no JSON: {0}")]
    Input(#[source] serde_json::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::KeyReused => Self::new(
                &problem::IDEMPOTENCY_KEY_REUSED,
                "This idempotency key was used with another input within the last 72 hours.",
            ),
            Error::InProgress => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    &problem::IDEMPOTENCY_KEY_IN_PROGRESS,
                    "A request with this idempotency key is still being worked on.",
                )
            },
            Error::NotVisible => Self::new(
                &problem::NOT_FOUND,
                "What this idempotency key made is not visible to this token.",
            ),
            Error::Database(error) => error.into(),
            error @ Error::Input(_) => Self::internal(error),
        }
    }
}

/// An operation's result, and whether it was made just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The result.
    pub value: T,
    /// Whether it is the kept result of an earlier call: `Idempotent-Replayed: true`.
    pub replayed: bool,
}

/// What an operation with a key comes to: a result or a refusal, each perhaps replayed.
pub type Outcome<O> = Result<Answer<<O as Operation>::Output>, Failed<<O as Operation>::Error>>;

/// An operation's error, and whether it is the kept refusal of an earlier call.
#[derive(Debug)]
pub struct Failed<E> {
    /// The error.
    pub error: E,
    /// Whether it was kept.
    pub replayed: bool,
}

impl<E: Failure> Failed<E> {
    pub(super) fn now(error: impl Into<E>) -> Self {
        Self {
            error: error.into(),
            replayed: false,
        }
    }
}

impl<E: Failure> From<Error> for Failed<E> {
    fn from(error: Error) -> Self {
        Self::now(error)
    }
}

impl<E: Failure> From<db::Error> for Failed<E> {
    fn from(error: db::Error) -> Self {
        Self::now(error)
    }
}

impl<E: Failure> From<MissingScope> for Failed<E> {
    fn from(error: MissingScope) -> Self {
        Self::now(error)
    }
}

/// One call with its key.
#[derive(Debug)]
pub struct Member<'m, O> {
    /// Who calls.
    pub actor: &'m Actor,
    /// The client's key.
    pub key: &'m Key,
    /// What is to be done.
    pub operation: &'m O,
}

impl<O> Clone for Member<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<O> Copy for Member<'_, O> {}
