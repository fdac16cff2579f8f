//! Server-sent events: an endpoint's stream and the merchant's feed, as they grow.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Query, State},
    http::{HeaderName, HeaderValue, request::Parts},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures_util::stream;
use kernel::{
    actor::Actor,
    problem::{FieldError, Problem},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::{
    endpoint::{Endpoint, EndpointId},
    follow::{self, Item, Live, Source, Start},
};

use super::Services;
use crate::edge::{
    Authenticated, PathId,
    authenticate::Pass,
    extract::invalid_query,
    fault::{Fault, ProblemBody, TYPE_BASE},
};

/// The header by which a client that was cut off says what it had last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Keeps proxies that would collect an answer before they pass it on from doing so.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Milliseconds after which a client that was cut off should be back.
const RECONNECT_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .routes(routes!(stream_webhook_endpoint_events))
        .routes(routes!(stream_events))
}

/// Where a stream begins.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes a header too; the extractor reads it")]
pub(super) struct StreamParameters {
    /// The `id` of the last event that you have; from now on if absent. `Last-Event-ID` goes before it.
    after: Option<String>,
}

/// The header of a client that comes back.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes a header; the extractor reads it")]
struct LastEventIdHeader {
    /// The `id` of the last event that you have, as browsers' `EventSource` sends it by itself.
    #[param(rename = "Last-Event-ID", example = "4711")]
    last_event_id: Option<String>,
}

/// Where a client wants to begin: what it had last, or nothing.
#[derive(Debug)]
struct Begin {
    /// The name of what says so, and its text.
    after: Option<(&'static str, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Begin {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let Query(parameters) = Query::<StreamParameters>::try_from_uri(&parts.uri)
            .map_err(|error| invalid_query(&error))?;
        let header = parts.headers.get(LAST_EVENT_ID);
        let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let header = header.map(|text| ("Last-Event-ID", text));
        Ok(Self {
            after: header.or_else(|| Some(("after", parameters.after?))),
        })
    }
}

impl Begin {
    fn start(self, source: Source) -> Result<Start, Problem> {
        let Some((name, text)) = self.after else {
            return Ok(Start::Now);
        };
        let place = follow::parse_place(source, &text);
        place.map(Start::After).ok_or_else(|| {
            Problem::invalid_fields(vec![FieldError::in_parameter(
                name,
                "invalid",
                "must be the `id` of an event of this stream, unchanged",
            )])
        })
    }
}

/// Follow an endpoint's stream
///
/// Server-sent events: exactly what the endpoint was or will be sent, in the order of `sequence`, which is each event's `id`. A client that was cut off sends the
/// last one as `Last-Event-ID`, and goes on without gap or repeat; browsers' `EventSource` does so by itself. The first message has an `id` and no data: the
/// place at which the stream begins. A comment every 15 seconds shows that a quiet stream lives.
///
/// The last message has the type `problem` and says, as the body of an error would, why the stream ends: `invalid_token` when the token or its grant has ended
/// or was narrowed (within a second), `unavailable` when the server stops, `events_expired` when what follows is no longer kept.
#[utoipa::path(
    get, path = "/v1/webhook-endpoints/{endpointId}/events/stream", operation_id = "streamWebhookEndpointEvents", tag = "Webhook endpoints",
    params(("endpointId" = EndpointId, Path, description = "The endpoint."), StreamParameters, LastEventIdHeader),
    responses((status = 200, description = "The stream.", content_type = "text/event-stream", body = String,
        example = "id: 41\n\nid: 42\ndata: {\"id\":\"evt_01jd3x5k8vfm7b2c9q0r4t6w8y\",\"type\":\"order.placed\",\"sequence\":42}\n\n")),
    extensions(("x-problem-types" = json!(["events_expired", "too_many_streams"]))),
    security(("oauth" = ["webhooks:read"])),
)]
async fn stream_webhook_endpoint_events(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    pass: Pass,
    PathId(id): PathId<Endpoint>,
    begin: Begin,
) -> Result<Response, Fault> {
    follow(&services, actor, pass, Source::Endpoint(id), begin).await
}

/// Follow the merchant's feed
///
/// Server-sent events: every event that this token may see, as it happens. Each one's `id` is a cursor of the feed: what `GET /v1/events` takes as `cursor`, and
/// what a client that was cut off sends as `Last-Event-ID`. Otherwise as an endpoint's stream.
#[utoipa::path(
    get, path = "/v1/events/stream", operation_id = "streamEvents", tag = "Events",
    params(StreamParameters, LastEventIdHeader),
    responses((status = 200, description = "The stream.", content_type = "text/event-stream", body = String,
        example = "id: NDE\n\nid: NDI\ndata: {\"id\":\"evt_01jd3x5k8vfm7b2c9q0r4t6w8y\",\"type\":\"order.placed\"}\n\n")),
    extensions(("x-problem-types" = json!(["events_expired", "too_many_streams"]))),
    security(("oauth" = ["events:read"])),
)]
async fn stream_events(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    pass: Pass,
    begin: Begin,
) -> Result<Response, Fault> {
    follow(&services, actor, pass, Source::Feed, begin).await
}

async fn follow(
    services: &Services,
    actor: Actor,
    pass: Pass,
    source: Source,
    begin: Begin,
) -> Result<Response, Fault> {
    let start = begin.start(source)?;
    let request = actor.request;
    let live = services
        .streams
        .follow(actor, Box::new(pass), source, start)
        .await?;
    let messages = stream::unfold(live, move |mut live: Live| async move {
        let message = match live.next().await? {
            Ok(item) => message(item),
            Err(problem) => last_message(&problem, request),
        };
        Some((Ok::<_, Infallible>(message), live))
    });
    let mut response = Sse::new(messages).into_response();
    response
        .headers_mut()
        .insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

fn message(item: Item) -> Event {
    match item {
        Item::Event { place, event } => {
            let event = Event::default().id(place).json_data(&event);
            // An envelope has no map with keys other than texts, which alone would fail.
            event.unwrap_or_else(|_| Event::default().comment("unreadable"))
        }
        Item::Place(place) => Event::default()
            .id(place)
            .retry(RECONNECT_AFTER)
            .comment("alive"),
    }
}

/// Says why the stream ends.
fn last_message(problem: &Problem, request: kernel::id::RequestId) -> Event {
    if let Some(cause) = &problem.source {
        tracing::warn!(request.id = %request, problem = problem.kind.slug, cause = %cause, "a stream ended");
    }
    let body = ProblemBody {
        r#type: format!("{TYPE_BASE}{}", problem.kind.slug),
        title: problem.kind.title,
        status: problem.kind.status,
        detail: &problem.detail,
        request_id: request,
        errors: &problem.errors,
    };
    let event = Event::default().event("problem").json_data(&body);
    event.unwrap_or_else(|_| Event::default().event("problem").data("{}"))
}
