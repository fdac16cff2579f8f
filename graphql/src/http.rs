//! `/graphql`: GraphQL over HTTP (the draft of the GraphQL foundation).
//!
//! POST with a JSON body, or an array of them; GET for queries alone. Answers are `application/graphql-response+json`, where a request that is not
//! executed has a status of 4xx, unless the client asks for `application/json`, where it has 200. What is no GraphQL request at all is 4xx in both.
//!
//! Subscriptions are GraphQL over server-sent events in its distinct connections mode: the same request with `Accept: text/event-stream`, answered by a message
//! `next` for each answer and `complete` at the end.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Query, Request as HttpRequest, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::any,
};
use futures_util::stream::{BoxStream, StreamExt};
use kernel::{
    actor::Actor,
    problem::{self, Problem},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    fault::{finish, request_error},
    limits::{BODY_BYTES_MAX, HEARTBEAT_EVERY},
    schema::{Allowed, Answer, Request, Schema},
    subscription::{Events, Source},
};

/// The media type of GraphQL answers.
pub const GRAPHQL_RESPONSE_JSON: &str = "application/graphql-response+json";

/// `/graphql`. Whoever mounts it has authenticated the request, and put the [`Actor`] into its extensions.
pub fn router(schema: Schema) -> Router {
    Router::new()
        .route("/graphql", any(handle))
        .with_state(schema)
}

async fn handle(State(schema): State<Schema>, request: HttpRequest) -> Response {
    let form = Form::wanted(request.headers());
    let Some(actor) = request.extensions().get::<Actor>().cloned() else {
        return form.refusal(
            Problem::new(&problem::INVALID_TOKEN, "The request has no access token."),
            None,
        );
    };
    let source = wants_stream(request.headers()).then(|| Source {
        events: request.extensions().get::<Arc<dyn Events>>().cloned(),
        extensions: request.extensions().clone(),
    });
    match (read(request).await, source) {
        (
            Ok(Asked {
                mut requests,
                batch: false,
                allowed,
            }),
            Some(source),
        ) if requests.len() == 1 => {
            match schema.stream(&actor, requests.remove(0), allowed, source) {
                Ok(answers) => stream(answers),
                Err(answer) => form.response(vec![*answer], false),
            }
        }
        (Ok(_), Some(_)) => form.refusal(malformed("A stream is of one operation."), Some(&actor)),
        (read, None) => respond(&schema, form, &actor, read).await,
        (Err(problem), Some(_)) => form.refusal(problem, Some(&actor)),
    }
}

async fn respond(
    schema: &Schema,
    form: Form,
    actor: &Actor,
    read: Result<Asked, Problem>,
) -> Response {
    match read {
        Ok(Asked {
            requests,
            batch,
            allowed,
        }) => {
            let answers = schema.execute_all(actor, requests, allowed).await;
            form.response(answers, batch)
        }
        Err(problem) => form.refusal(problem, Some(actor)),
    }
}

/// Whether the client wants a stream of answers.
fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Answers as server-sent events, one connection an operation ("distinct connections mode" of GraphQL over SSE).
fn stream(answers: BoxStream<'static, Answer>) -> Response {
    let next = answers.map(|answer| {
        Event::default()
            .event("next")
            .json_data(&answer)
            .unwrap_or_else(|_| Event::default().event("next").data("{}"))
    });
    let complete =
        futures_util::stream::once(async { Event::default().event("complete").data("") });
    let messages = next.chain(complete).map(Ok::<_, Infallible>);
    let alive = KeepAlive::new().interval(HEARTBEAT_EVERY);
    let mut response = Sse::new(messages).keep_alive(alive).into_response();
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// What an HTTP request asks for.
struct Asked {
    requests: Vec<Request>,
    batch: bool,
    allowed: Allowed,
}

async fn read(request: HttpRequest) -> Result<Asked, Problem> {
    match *request.method() {
        Method::GET | Method::HEAD => {
            let request = from_query(&request)?;
            Ok(Asked {
                requests: vec![request],
                batch: false,
                allowed: Allowed::Queries,
            })
        }
        Method::POST => {
            let (requests, batch) = from_body(request).await?;
            Ok(Asked {
                requests,
                batch,
                allowed: Allowed::QueriesAndMutations,
            })
        }
        _ => Err(Problem::new(
            &problem::METHOD_NOT_ALLOWED,
            "GraphQL is asked by POST, or by GET for queries.",
        )),
    }
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(&problem::MALFORMED_REQUEST, detail)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    query: Option<String>,
    variables: Option<String>,
    operation_name: Option<String>,
    extensions: Option<String>,
}

fn from_query(request: &HttpRequest) -> Result<Request, Problem> {
    let Query(parameters) = Query::<Parameters>::try_from_uri(request.uri())
        .map_err(|error| malformed(format!("The query string can't be read: {error}.")))?;
    let json = |name: &str, text: Option<String>| match text.as_deref() {
        None | Some("") => Ok(Value::Null),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| malformed(format!("`{name}` is not JSON: {error}."))),
    };
    let mut members = serde_json::Map::new();
    members.insert(
        "query".to_owned(),
        parameters.query.map_or(Value::Null, Value::String),
    );
    members.insert(
        "variables".to_owned(),
        json("variables", parameters.variables)?,
    );
    members.insert(
        "operationName".to_owned(),
        parameters
            .operation_name
            .filter(|name| !name.is_empty())
            .map_or(Value::Null, Value::String),
    );
    members.insert(
        "extensions".to_owned(),
        json("extensions", parameters.extensions)?,
    );
    from_members(members)
}

async fn from_body(request: HttpRequest) -> Result<(Vec<Request>, bool), Problem> {
    let content_type = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !is_json(content_type) {
        return Err(Problem::new(
            &problem::UNSUPPORTED_MEDIA_TYPE,
            "The body must be JSON in UTF-8, with `Content-Type: application/json`.",
        ));
    }
    let bytes = to_bytes(request.into_body(), BODY_BYTES_MAX)
        .await
        .map_err(|error| {
            if std::error::Error::source(&error)
                .is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
            {
                Problem::new(
                    &problem::PAYLOAD_TOO_LARGE,
                    format!("A body may have {BODY_BYTES_MAX} bytes at most."),
                )
            } else {
                malformed("The body broke off.")
            }
        })?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok((vec![from_members(members)?], false)),
        Ok(Value::Array(elements)) if !elements.is_empty() => {
            let requests = elements.into_iter().map(|element| match element {
                Value::Object(members) => from_members(members),
                _ => Err(malformed(
                    "Each element of a batch must be an object with a `query`.",
                )),
            });
            Ok((requests.collect::<Result<_, _>>()?, true))
        }
        Ok(_) => Err(malformed(
            "The body must be an object with a `query`, or an array of them.",
        )),
        Err(error) => Err(malformed(format!("The body is not JSON: {error}."))),
    }
}

fn from_members(mut members: serde_json::Map<String, Value>) -> Result<Request, Problem> {
    let Some(Value::String(query)) = members.remove("query") else {
        return Err(malformed("`query` must be a string: the GraphQL document."));
    };
    let operation_name = match members.remove("operationName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => return Err(malformed("`operationName` must be a string.")),
    };
    let variables = match members.remove("variables") {
        None | Some(Value::Null) => serde_json::Map::new(),
        Some(Value::Object(variables)) => variables,
        Some(_) => return Err(malformed("`variables` must be an object.")),
    };
    match members.remove("extensions") {
        None | Some(Value::Null | Value::Object(_)) => Ok(Request {
            query,
            operation_name,
            variables,
        }),
        Some(_) => Err(malformed("`extensions` must be an object.")),
    }
}

/// Whether a content type is JSON; it is UTF-8 where it does not say.
fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let charset = parts.find_map(|part| {
        part.split_once('=')
            .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
    });
    essence.eq_ignore_ascii_case("application/json")
        && charset.is_none_or(|(_, charset)| {
            charset
                .trim()
                .trim_matches('"')
                .eq_ignore_ascii_case("utf-8")
        })
}

/// The form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `application/graphql-response+json`: statuses mean what they say.
    GraphqlResponse,
    /// `application/json`: 200 for every GraphQL request that could be read.
    Json,
}

impl Form {
    /// What `Accept` prefers; the draft's own type if it says nothing that is known here.
    fn wanted(headers: &HeaderMap) -> Self {
        let mut best: Option<(u16, Self)> = None;
        let ranges = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase()
                .as_str()
            {
                GRAPHQL_RESPONSE_JSON | "*/*" | "application/*" => Self::GraphqlResponse,
                "application/json" => Self::Json,
                _ => continue,
            };
            let weight = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1000, per_mille);
            // Of two that are equally welcome, the one named first.
            if weight > 0 && best.is_none_or(|(heaviest, _)| weight > heaviest) {
                best = Some((weight, form));
            }
        }
        best.map_or(Self::GraphqlResponse, |(_, form)| form)
    }

    fn content_type(self) -> HeaderValue {
        match self {
            Self::GraphqlResponse => {
                HeaderValue::from_static("application/graphql-response+json; charset=utf-8")
            }
            Self::Json => HeaderValue::from_static("application/json; charset=utf-8"),
        }
    }

    fn response(self, mut answers: Vec<Answer>, batch: bool) -> Response {
        let refused = answers.iter().map(|answer| answer.refused).min().flatten();
        let status = match refused {
            // A method that is not allowed is so in either form.
            Some(405) => 405,
            Some(status) if self == Self::GraphqlResponse => status,
            _ => 200,
        };
        if batch {
            self.render(status, &answers)
        } else {
            match answers.pop() {
                Some(answer) => self.render(status, &answer),
                None => self.render(status, &answers),
            }
        }
    }

    /// What is no GraphQL request at all, or nobody's.
    fn refusal(self, problem: Problem, actor: Option<&Actor>) -> Response {
        let status = problem.kind.status;
        let mut errors = vec![request_error(problem, &[])];
        if let Some(actor) = actor {
            finish(&mut errors, actor.request);
        }
        self.render(
            status,
            &Answer {
                data: None,
                errors,
                cost: None,
                refused: Some(status),
            },
        )
    }

    fn render(self, status: u16, body: &impl Serialize) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = serde_json::to_vec(body).unwrap_or_default();
        let mut response = (status, Body::from(json)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.content_type());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    }
}

/// A quality value (RFC 9110, section 12.4.2) in thousandths; what is none counts as 1.
fn per_mille(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(3);
    let thousandths = digits.fold(0_u16, |sum, digit| {
        sum * 10 + u16::from(digit.saturating_sub(b'0').min(9))
    });
    match whole {
        "0" => thousandths,
        _ => 1000,
    }
}
