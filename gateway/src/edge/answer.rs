//! Answers: JSON with a version, a replay mark, or a page.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kernel::{idempotency::Answer, page::Page};
use serde::Serialize;

/// Says that an answer is the kept one of an earlier request.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A resource with a version, which becomes its ETag.
pub(crate) trait Versioned: Serialize {
    /// The version.
    fn version(&self) -> i64;
}

/// A resource: 200, or 304 if the client has this version already.
#[derive(Debug)]
pub(crate) struct Resource<T>(pub(crate) T);

impl<T: Versioned> IntoResponse for Resource<T> {
    fn into_response(self) -> Response {
        let tag = etag(self.0.version());
        let mut response = Json(self.0).into_response();
        response.headers_mut().insert(header::ETAG, tag);
        response
    }
}

/// What a mutation made: its status, its ETag, and whether it is a replay.
#[derive(Debug)]
pub(crate) struct Mutated<T> {
    /// The result.
    pub(crate) answer: Answer<T>,
    /// The status: 200 or 201.
    pub(crate) status: StatusCode,
}

impl<T> Mutated<T> {
    /// 200.
    pub(crate) fn ok(answer: Answer<T>) -> Self {
        Self {
            answer,
            status: StatusCode::OK,
        }
    }

    /// 201, also for a replay: a retry gets the answer that it missed.
    pub(crate) fn created(answer: Answer<T>) -> Self {
        Self {
            answer,
            status: StatusCode::CREATED,
        }
    }
}

impl<T: Versioned> IntoResponse for Mutated<T> {
    fn into_response(self) -> Response {
        let tag = etag(self.answer.value.version());
        let mut response = (self.status, Json(self.answer.value)).into_response();
        response.headers_mut().insert(header::ETAG, tag);
        mark_replay(&mut response, self.answer.replayed);
        response
    }
}

/// Marks an answer as replayed.
pub(crate) fn mark_replay(response: &mut Response, replayed: bool) {
    if replayed {
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
    }
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listed<T>(pub(crate) Page<T>);

impl<T: Serialize> IntoResponse for Listed<T> {
    fn into_response(self) -> Response {
        Json(self.0).into_response()
    }
}

/// The ETag of a version: `"3"`.
pub(crate) fn etag(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}

/// What a mutation came to where there is no one resource whose version could be an ETag.
#[derive(Debug)]
pub(crate) struct Done<T> {
    answer: Answer<T>,
    status: StatusCode,
}

impl<T> Done<T> {
    /// 202: it goes on in the background.
    pub(crate) fn accepted(mutated: Mutated<T>) -> Self {
        Self {
            answer: mutated.answer,
            status: StatusCode::ACCEPTED,
        }
    }
}

impl<T> From<Mutated<T>> for Done<T> {
    fn from(mutated: Mutated<T>) -> Self {
        Self {
            answer: mutated.answer,
            status: StatusCode::OK,
        }
    }
}

impl<T: Serialize> IntoResponse for Done<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.answer.value)).into_response();
        mark_replay(&mut response, self.answer.replayed);
        response
    }
}
