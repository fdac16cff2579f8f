//! What the domain refuses, and how that is shown.

use kernel::{
    actor::MissingScope,
    db, idempotency, keyring,
    problem::{self, FieldError, Problem},
};
use serde::{Deserialize, Serialize};

/// The problem types of the domain, for docs/errors.md.
pub use problems::ALL as PROBLEM_TYPES;

mod problems {
    kernel::problem_types! {
        INSUFFICIENT_STOCK, 409, "insufficient_stock", "There is not enough stock.",
            "`errors` names each line that can't be filled and what is available. Nothing was reserved.";
        INVALID_TRANSITION, 409, "invalid_transition", "The resource's state does not allow this.",
            "`detail` names the state and the command. Read the resource again and decide anew.";
        EXTERNAL_ID_TAKEN, 409, "external_id_taken", "Another resource has this external id.",
            "Use the resource that has it, or another external id.";
        STOCK_OUT_OF_RANGE, 409, "stock_out_of_range", "The stock would be less than is reserved, or more than can be counted.",
            "`errors` names each entry and what its level may be. Nothing was changed.";
        QUANTITY_EXCEEDED, 409, "quantity_exceeded", "There is less left to ship than that.",
            "`errors` names each line and what is left of it. Nothing was shipped. Read the order again and decide anew.";
    }
}

/// How a domain function fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input breaks rules that the request alone decides.
    #[error("invalid input")]
    Invalid(Vec<FieldError>),
    /// The actor may not.
    #[error(transparent)]
    MissingScope(#[from] MissingScope),
    /// The thing is not there, or not visible to the actor: another merchant's is never visible.
    #[error("there is no {noun} {id}")]
    NotFound {
        /// What was asked for: `order`.
        noun: &'static str,
        /// Its id as the client wrote it.
        id: String,
    },
    /// The resource is at another version than the client expects (`If-Match`).
    #[error("the version is {current}, not {expected}")]
    VersionMismatch {
        /// What the client expects.
        expected: i64,
        /// What it is.
        current: i64,
    },
    /// The stored state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Idempotency's own refusals.
    #[error(transparent)]
    Idempotency(#[from] idempotency::Error),
    /// Keys.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
}

/// A refusal that depends on stored state; kept under the idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(
    tag = "refusal",
    rename_all = "snake_case",
    rename_all_fields = "camelCase"
)]
pub enum Refusal {
    /// Some lines ask for more than there is.
    #[error("not enough stock")]
    InsufficientStock {
        /// Each line that can't be filled.
        lines: Vec<InsufficientLine>,
    },
    /// The transition table has no such step.
    #[error("the {noun} is {status}, which does not allow {command}")]
    InvalidTransition {
        /// `order`.
        noun: String,
        /// The state that it is in.
        status: String,
        /// What was asked.
        command: String,
    },
    /// Another resource of the merchant has this external id.
    #[error("another {noun} has the external id {external_id}")]
    ExternalIdTaken {
        /// `order`.
        noun: String,
        /// The external id.
        external_id: String,
    },
    /// Some levels would be less than is reserved, or more than can be counted.
    #[error("the stock would be out of range")]
    StockOutOfRange {
        /// Each entry that can't be done.
        entries: Vec<OutOfRangeEntry>,
    },
    /// Some lines have less left to ship, or nothing is left at all.
    #[error("there is less left to ship than that")]
    QuantityExceeded {
        /// Each line that can't be shipped; empty if nothing was left to ship.
        lines: Vec<InsufficientLine>,
    },
}

/// An entry of a change of stock that can't be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutOfRangeEntry {
    /// The entry's place in the input, from 0.
    pub index: usize,
    /// The field that asks for it: `onHand` or `delta`.
    pub field: String,
    /// What would lie there.
    pub on_hand: i64,
    /// What is reserved of it, and therefore has to lie there.
    pub reserved: i64,
    /// What may lie there at most.
    pub maximum: i64,
}

/// A line of an order that can't be filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InsufficientLine {
    /// The line's place in the input, from 0.
    pub index: usize,
    /// What was asked for.
    pub requested: i64,
    /// What one location can give at most.
    pub available: i64,
}

impl Error {
    /// The thing is not there.
    pub fn not_found(noun: &'static str, id: impl std::fmt::Display) -> Self {
        Self::NotFound {
            noun,
            id: id.to_string(),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
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
        match self {
            Self::Database(error)
            | Self::Keyring(keyring::Error::Database(error))
            | Self::Idempotency(idempotency::Error::Database(error)) => error.is_retryable(),
            _ => false,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(errors) => Self::invalid_fields(errors),
            Error::MissingScope(error) => error.into(),
            Error::NotFound { noun, id } => Self::not_found(noun, id),
            Error::VersionMismatch { expected, current } => Self::new(
                &problem::VERSION_MISMATCH,
                format!(
                    "`If-Match` expects version {expected}; the resource is at version {current}."
                ),
            ),
            Error::Refused(refusal) => refusal.into(),
            Error::Idempotency(error) => error.into(),
            Error::Keyring(error) => error.into(),
            Error::Database(error) => error.into(),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let kind = match &refusal {
            Refusal::InsufficientStock { .. } => &problems::INSUFFICIENT_STOCK,
            Refusal::InvalidTransition { .. } => &problems::INVALID_TRANSITION,
            Refusal::ExternalIdTaken { .. } => &problems::EXTERNAL_ID_TAKEN,
            Refusal::StockOutOfRange { .. } => &problems::STOCK_OUT_OF_RANGE,
            Refusal::QuantityExceeded { .. } => &problems::QUANTITY_EXCEEDED,
        };
        let mut problem = Self::new(kind, format!("{}.", capitalised(&refusal.to_string())));
        problem.errors = match refusal {
            Refusal::InsufficientStock { lines } => lines
                .into_iter()
                .map(|line| {
                    FieldError::at(
                        format!("/lines/{}/quantity", line.index),
                        "insufficient_stock",
                        format!("{} requested, {} available", line.requested, line.available),
                    )
                })
                .collect(),
            Refusal::QuantityExceeded { lines } => lines
                .into_iter()
                .map(|line| {
                    FieldError::at(
                        format!("/lines/{}/quantity", line.index),
                        "quantity_exceeded",
                        format!(
                            "{} requested, {} left to ship",
                            line.requested, line.available
                        ),
                    )
                })
                .collect(),
            Refusal::StockOutOfRange { entries } => entries
                .into_iter()
                .map(|entry| {
                    FieldError::at(
                        format!("/entries/{}/{}", entry.index, entry.field),
                        "stock_out_of_range",
                        format!(
                            "{} would lie there; it may be from {} (reserved) to {}",
                            entry.on_hand, entry.reserved, entry.maximum
                        ),
                    )
                })
                .collect(),
            Refusal::InvalidTransition { .. } | Refusal::ExternalIdTaken { .. } => Vec::new(),
        };
        problem
    }
}

fn capitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters).collect()
    })
}
