//! What goes wrong, as a page that says what happened and what to do.

use std::{sync::Arc, time::Duration};

use auth::Error;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kernel::{db, problem::Problem};

use crate::{component, page};

/// Why a handler gives no page of its own.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A form that was not sent by a page of ours.
    ForeignForm,
    /// A form of ours, of another session or an ended one.
    StaleForm,
    /// A form that is too long.
    TooLarge,
    /// Nobody has signed in.
    SignedOut,
    /// There is no such page.
    NoPage,
    /// What a field or an address says can't be read.
    Unreadable,
    /// What the domain says.
    Domain(Error),
}

/// Nobody has signed in: the way out leads to the sign-in, and back here afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SignInNeeded;

/// A fresh proof is needed: the way out leads there, and back here afterwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepUpNeeded;

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Domain(error.into())
    }
}

impl Failure {
    /// The same for what came from the database itself.
    pub(crate) fn of_database(error: db::Error) -> Self {
        Self::Domain(Error::Database(error))
    }
}

/// A page that says what went wrong.
pub(crate) struct Words {
    pub(crate) status: StatusCode,
    pub(crate) title: &'static str,
    pub(crate) sentences: Vec<String>,
    /// Where to go from here; `None`: to the beginning.
    pub(crate) way_out: Option<(&'static str, &'static str)>,
}

impl Words {
    fn new(status: StatusCode, title: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            status,
            title,
            sentences: vec![sentence.into()],
            way_out: None,
        }
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "There is nothing here",
            "The address is wrong, or what it names is gone, or it is not yours to see.",
        )
    }

    pub(crate) fn foreign_form() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "This was not sent from here",
            "Your browser says that this form was sent by another site, so nothing was done. If you meant to do it, do it from the console.",
        )
    }

    pub(crate) fn stale_form() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "This page was out of date",
            "You have signed in or out since the page was opened, so nothing was done. Go back, reload the page, and try again.",
        )
    }

    pub(crate) fn throttled(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "Too many attempts",
            component::throttled_words(retry_after),
        )
    }

    pub(crate) fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "The console can't answer now",
            "The database can't be reached at the moment. Nothing is lost. Please try again shortly.",
        )
    }

    pub(crate) fn broken() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Something went wrong on our side",
            "Please try again. If it goes wrong again, tell whoever runs this installation at what time it happened.",
        )
    }

    pub(crate) fn gone(noun: &str) -> Self {
        let (title, sentence) = match noun {
            "authorization request" | "request" => (
                "This request is over",
                "It has expired or has been decided already. Nothing was changed. Go back to the app and begin again from there.",
            ),
            "invitation" => (
                "This invitation is over",
                "It has expired, has been used, or was withdrawn. Ask whoever sent it for a new one.",
            ),
            "grant" => (
                "This access has ended",
                "The app has no access any more, so there is nothing to change.",
            ),
            _ => (
                "This has expired",
                "It took too long, or was used before. Please begin again.",
            ),
        };
        Self::new(StatusCode::GONE, title, sentence)
    }

    /// An authorization request that must not be answered by a redirect.
    pub(crate) fn unredirectable(status: StatusCode, reason: &str) -> Self {
        if status != StatusCode::BAD_REQUEST {
            return Self::unavailable();
        }
        let mut words = Self::new(
            status,
            "This app's request can't be used",
            "An app has sent you here to ask for access, and something in its request is wrong. Nothing was given, and you were not sent back, because we can't tell whether that address is the app's.",
        );
        words
            .sentences
            .push(format!("For whoever makes the app: {reason}"));
        words
    }

    pub(crate) fn forbidden(sentence: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "This is not yours to do", sentence)
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::NotFound { .. } => Self::not_found(),
            Error::Forbidden(sentence) => Self::forbidden(sentence),
            Error::Throttled { retry_after } => Self::throttled(*retry_after),
            Error::Gone(noun) => Self::gone(noun),
            Error::NotAccepted => Self::new(
                StatusCode::FORBIDDEN,
                "That was not accepted",
                "What you entered is not right, or was used before. Please begin again.",
            ),
            Error::Changed(noun) => Self::new(
                StatusCode::CONFLICT,
                "This has changed meanwhile",
                format!(
                    "The {noun} has changed since the page was opened, so nothing was done. Go back, reload the page, and decide again."
                ),
            ),
            Error::InvalidFields(errors) => Self {
                sentences: errors
                    .iter()
                    .map(|error| format!("{}.", component::capital(&error.detail)))
                    .collect(),
                ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "This can't be used", "")
            },
            _ => Self::broken(),
        }
    }

    /// The page.
    pub(crate) fn answer(&self) -> Response {
        (self.status, page::failure::view(self)).into_response()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = match self {
            Self::ForeignForm => return Words::foreign_form().answer(),
            Self::StaleForm => return Words::stale_form().answer(),
            Self::TooLarge => {
                return Words::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "This is too long",
                    "A form may have 64 KiB at most. Nothing was done.",
                )
                .answer();
            }
            Self::Unreadable => {
                return Words::new(
                    StatusCode::BAD_REQUEST,
                    "This can't be read",
                    "The address or the form has a value that can't be one. Go back, reload the page, and try again.",
                )
                .answer();
            }
            Self::NoPage => return Words::not_found().answer(),
            Self::SignedOut => {
                let mut response = StatusCode::UNAUTHORIZED.into_response();
                response.extensions_mut().insert(SignInNeeded);
                return response;
            }
            Self::Domain(Error::StepUpRequired) => {
                let mut response = StatusCode::UNAUTHORIZED.into_response();
                response.extensions_mut().insert(StepUpNeeded);
                return response;
            }
            Self::Domain(error) => error,
        };
        let words = Words::of(&error);
        if words.status != StatusCode::INTERNAL_SERVER_ERROR {
            let mut response = words.answer();
            say_when(&mut response, &error);
            return response;
        }
        of_problem(Arc::new(error.into()))
    }
}

/// Says when a try makes sense again.
pub(crate) fn say_when(response: &mut Response, error: &Error) {
    if let Error::Throttled { retry_after } = error {
        response.headers_mut().insert(
            header::RETRY_AFTER,
            HeaderValue::from(retry_after.as_secs().max(1)),
        );
    }
}

/// A problem as a page. The problem goes along, so that the way out logs it with its cause.
pub(crate) fn of_problem(problem: Arc<Problem>) -> Response {
    let words = match problem.kind.status {
        503 => Words::unavailable(),
        404 => Words::not_found(),
        status if status >= 500 => Words::broken(),
        status => Words {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
            ..Words::new(
                StatusCode::BAD_REQUEST,
                "This can't be done",
                problem.detail.clone(),
            )
        },
    };
    let mut response = words.answer();
    if let Some(after) = problem.retry_after {
        response.headers_mut().insert(
            header::RETRY_AFTER,
            HeaderValue::from(after.as_secs().max(1)),
        );
    }
    response.extensions_mut().insert(problem);
    response
}
