//! How a request to the app fails, as whoever uses it is told.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::access::Merchant;

/// What the app's handlers give.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// How a request fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The merchant has ended what it allowed, or it has come to its end.
    Ended(Merchant),
    /// The merchant has not installed the app, or there is no such thing.
    NotFound,
    /// The installation can't go on as it was begun.
    NotInstalled(String),
    /// The server refuses: its status, and what it says.
    Refused(u16, String),
    /// The server can't be reached, or the app's own files can't.
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Ended(merchant) => (
                StatusCode::GONE,
                json!({"error": "access ended, install again", "install": format!("/install?merchant={merchant}")}),
            ),
            Self::NotFound => (StatusCode::NOT_FOUND, json!({"error": "not found"})),
            Self::NotInstalled(reason) => (
                StatusCode::BAD_REQUEST,
                json!({"error": "not installed", "reason": reason, "install": "/install"}),
            ),
            // What the merchant does not allow is not a fault of whoever asked, and nothing to try again.
            Self::Refused(403, detail) => (
                StatusCode::FORBIDDEN,
                json!({"error": "the merchant does not allow this", "detail": detail}),
            ),
            Self::Refused(status, detail) => (
                StatusCode::BAD_GATEWAY,
                json!({"error": format!("Stoa answered {status}"), "detail": detail}),
            ),
            Self::Broken(error) => {
                eprintln!("failed: {error}");
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    json!({"error": "something went wrong; try again"}),
                )
            }
        };
        (status, Json(body)).into_response()
    }
}
