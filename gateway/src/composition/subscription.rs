//! What GraphQL's subscriptions tell: the streams that REST sends as server-sent events.

use axum::http::Extensions;
use futures_util::stream::{self, StreamExt};
use graphql::{EventMessage, Events, EventsWanted, Following};
use kernel::{
    actor::Actor,
    problem::{self, FieldError, Problem},
};
use webhooks::follow::{self, Item, Live, Source, Start, Streams};

use crate::edge::authenticate::Pass;

/// Follows streams for GraphQL.
#[derive(Debug)]
pub(super) struct Subscribed(pub(super) Streams);

impl Events for Subscribed {
    fn follow(&self, request: &Extensions, wanted: EventsWanted) -> Following {
        let caller = request
            .get::<Actor>()
            .cloned()
            .zip(request.get::<Pass>().cloned());
        let streams = self.0.clone();
        Box::pin(async move {
            let (actor, pass) = caller.ok_or_else(|| {
                Problem::new(
                    &problem::INVALID_TOKEN,
                    "This request is not authenticated.",
                )
            })?;
            let source = match &wanted.endpoint_id {
                Some(id) => Source::Endpoint(id.parse().map_err(|error| {
                    let detail = format!("There is no {id:?}: an id here {error}.");
                    Problem::new(&problem::NOT_FOUND, detail)
                })?),
                None => Source::Feed,
            };
            let start = match &wanted.after {
                Some(place) => {
                    Start::After(follow::parse_place(source, place).ok_or_else(|| {
                        let detail = "must be the `place` of an event of this stream, unchanged";
                        Problem::invalid_fields(vec![FieldError::at("/after", "invalid", detail)])
                    })?)
                }
                None => Start::Now,
            };
            let live = streams.follow(actor, Box::new(pass), source, start).await?;
            Ok(stream::unfold(live, next).boxed())
        })
    }
}

/// The next event; signs of life are the transport's.
async fn next(mut live: Live) -> Option<(Result<EventMessage, Problem>, Live)> {
    loop {
        let message = match live.next().await? {
            Ok(Item::Place(_)) => continue,
            Ok(Item::Event { place, event }) => message(place, &event),
            Err(problem) => Err(problem),
        };
        return Some((message, live));
    }
}

fn message(place: String, event: &webhooks::event::Envelope) -> Result<EventMessage, Problem> {
    let json = serde_json::to_value(event).map_err(Problem::internal)?;
    Ok(EventMessage::new(
        place,
        event.id.to_string(),
        event.kind.clone(),
        json,
    ))
}
