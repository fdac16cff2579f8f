//! Extractors: bodies, ids, keys, versions and pages, each with its own problem.

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequestParts, Path, Query, Request},
    http::{HeaderName, header, request::Parts},
};
use kernel::{
    actor::Actor,
    id::{Id, Kind},
    idempotency::{InvalidKey, Key},
    page::PageRequest,
    problem::{self, FieldError, Problem},
    validation::{self, Validate},
    version::Version,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::Fault;

/// The header that names a change.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The largest JSON body; a product with 250 variants and long texts stays below. Imports stream and have no such limit.
pub(crate) const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A JSON body as a valid `T`.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Validate> FromRequest<S> for Body<T> {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Result<Self, Fault> {
        if !is_media_type(
            request.headers().get(header::CONTENT_TYPE),
            "application/json",
        ) {
            return Err(Fault(Problem::new(
                &problem::UNSUPPORTED_MEDIA_TYPE,
                "The body must be JSON, with `Content-Type: application/json`.",
            )));
        }
        let bytes = to_bytes(request.into_body(), BODY_BYTES_MAX)
            .await
            .map_err(|error| {
                let too_large = std::error::Error::source(&error)
                    .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>);
                Fault(if too_large {
                    Problem::new(
                        &problem::PAYLOAD_TOO_LARGE,
                        format!("A body may have {BODY_BYTES_MAX} bytes at most."),
                    )
                } else {
                    Problem::new(&problem::MALFORMED_REQUEST, "The body broke off.")
                })
            })?;
        Ok(Self(validation::from_json(&bytes)?))
    }
}

/// Whether a `Content-Type` is `expected`, whatever its parameters.
pub(crate) fn is_media_type(value: Option<&http::HeaderValue>, expected: &str) -> bool {
    value
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
}

/// The required header `Idempotency-Key`.
#[derive(Debug)]
pub(crate) struct IdempotencyKey(pub(crate) Key);

impl IdempotencyKey {
    /// A key of its own for a change that came without one, where that is allowed.
    pub(crate) fn of_request(actor: &Actor) -> Result<Self, InvalidKey> {
        actor.request.to_string().parse().map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Fault(Problem::new(
                &problem::IDEMPOTENCY_KEY_REQUIRED,
                "This request needs exactly one header `Idempotency-Key`.",
            )));
        };
        let key = value.to_str().unwrap_or_default().parse::<Key>()?;
        Ok(Self(key))
    }
}

/// The version in `If-Match`, if the client sends one.
#[derive(Debug)]
pub(crate) struct IfMatch(pub(crate) Option<Version>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            return Ok(Self(None));
        };
        let version = value
            .to_str()
            .ok()
            .and_then(|text| text.strip_prefix('"')?.strip_suffix('"')?.parse().ok())
            .ok_or_else(|| {
                Problem::new(
                    &problem::MALFORMED_REQUEST,
                    "`If-Match` must be an ETag of this resource, such as \"3\".",
                )
            })?;
        Ok(Self(Some(Version::new(version))))
    }
}

/// A typed id in the path; anything else is not there.
#[derive(Debug)]
pub(crate) struct PathId<T: Kind>(pub(crate) Id<T>);

impl<S: Send + Sync, T: Kind> FromRequestParts<S> for PathId<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let text = <Path<String> as FromRequestParts<S>>::from_request_parts(parts, state).await;
        let text = text.map(|Path(text)| text).unwrap_or_default();
        let id = text.parse().map_err(|error| {
            Problem::new(
                &problem::NOT_FOUND,
                format!("There is no {text:?}: an id here {error}."),
            )
        })?;
        Ok(Self(id))
    }
}

/// A typed id in the path, and a number from 1 on after it; anything else is not there.
#[derive(Debug)]
pub(crate) struct PathSequence<T: Kind>(pub(crate) Id<T>, pub(crate) i64);

impl<S: Send + Sync, T: Kind> FromRequestParts<S> for PathSequence<T> {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Fault> {
        let texts =
            <Path<(String, String)> as FromRequestParts<S>>::from_request_parts(parts, state).await;
        let (id, sequence) = texts.map(|Path(texts)| texts).unwrap_or_default();
        let id = id.parse().map_err(|error| {
            Problem::new(
                &problem::NOT_FOUND,
                format!("There is no {id:?}: an id here {error}."),
            )
        })?;
        let number = sequence.parse().ok().filter(|&number: &i64| number >= 1);
        let number =
            number.ok_or_else(|| Problem::not_found("sequence", format!("{sequence:?}")))?;
        Ok(Self(id, number))
    }
}

/// A page and filters of a list. Unknown parameters are refused like unknown fields.
#[derive(Debug)]
pub(crate) struct Paging<Key, Filters> {
    /// Which page.
    pub(crate) page: PageRequest<Key>,
    /// Which rows.
    pub(crate) filters: Filters,
}

#[derive(Debug, Deserialize)]
struct PagingParameters {
    limit: Option<String>,
    cursor: Option<String>,
}

impl<S, Key, Filters> FromRequestParts<S> for Paging<Key, Filters>
where
    S: Send + Sync,
    Key: DeserializeOwned,
    Filters: DeserializeOwned + Default,
{
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let Query(paging) = Query::<PagingParameters>::try_from_uri(&parts.uri)
            .map_err(|error| invalid_query(&error))?;
        let page = PageRequest::parse(paging.limit.as_deref(), paging.cursor.as_deref())?;
        let filters = without_paging(parts.uri.query().unwrap_or_default())?;
        Ok(Self { page, filters })
    }
}

/// The filters of a query string, `limit` and `cursor` aside. Filters refuse unknown parameters, so each one is named.
fn without_paging<Filters: DeserializeOwned>(query: &str) -> Result<Filters, Fault> {
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .filter(|(name, _)| name != "limit" && name != "cursor")
        .collect();
    let unreadable = pairs.iter().filter(|(_, value)| value.contains('\0'));
    let unreadable: Vec<_> = unreadable
        .map(|(name, _)| FieldError::in_parameter(name, "invalid", "must not have U+0000"))
        .collect();
    if !unreadable.is_empty() {
        return Err(Problem::invalid_fields(unreadable).into());
    }
    let encoded = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(&pairs)
        .finish();
    let uri = format!("/?{encoded}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| {
            Problem::new(
                &problem::MALFORMED_REQUEST,
                format!("The query can't be read: {error}."),
            )
        })?;
    Query::<Filters>::try_from_uri(&uri)
        .map(|Query(filters)| filters)
        .map_err(|error| invalid_query(&error))
}

pub(crate) fn invalid_query(error: &axum::extract::rejection::QueryRejection) -> Fault {
    let text = error.body_text();
    // serde names the parameter in its sentence: `unknown field `colour`, expected …` or `status: unknown variant …`.
    let name = text
        .split_once("unknown field `")
        .or_else(|| text.split_once("duplicate field `"))
        .and_then(|(_, rest)| rest.split('`').next())
        .or_else(|| {
            text.rsplit_once("query string: ")
                .and_then(|(_, rest)| rest.split(':').next())
        })
        .unwrap_or_default();
    let code = if text.contains("unknown field") {
        "unknown_parameter"
    } else {
        "invalid"
    };
    let detail = text
        .rsplit_once("query string: ")
        .map_or(text.as_str(), |(_, detail)| detail);
    Fault(Problem::invalid_fields(vec![FieldError::in_parameter(
        name, code, detail,
    )]))
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for IdempotencyKey {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Fault> {
        if parts.headers.contains_key(IDEMPOTENCY_KEY) {
            <Self as FromRequestParts<S>>::from_request_parts(parts, state)
                .await
                .map(Some)
        } else {
            Ok(None)
        }
    }
}

/// A list without filters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoFilters {}

/// A query parameter that must be given.
pub(crate) fn required<T>(name: &str, value: Option<T>) -> Result<T, Fault> {
    value.ok_or_else(|| {
        Fault(Problem::invalid_fields(vec![FieldError::in_parameter(
            name,
            "required",
            "must be given",
        )]))
    })
}

/// A query parameter that is a number from 0 on.
pub(crate) fn number(name: &str, text: Option<&str>) -> Result<Option<i64>, Fault> {
    let wrong = || FieldError::in_parameter(name, "invalid", "must be a number from 0 on");
    text.map(|text| {
        text.parse()
            .ok()
            .filter(|&number: &i64| number >= 0)
            .ok_or_else(wrong)
    })
    .transpose()
    .map_err(|error| Fault(Problem::invalid_fields(vec![error])))
}
