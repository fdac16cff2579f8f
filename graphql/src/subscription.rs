//! The fields of `Subscription`, and who gives them what they tell: the streams that REST sends as server-sent events.
//!
//! This crate does not know how events are followed. Whoever mounts it puts an [`Events`] into the extensions of each request; it is handed
//! these again, for what it has put there itself, such as the token.

use std::sync::Arc;

use async_graphql::{Context, ID, Json, SimpleObject, Subscription};
use axum::http::Extensions;
use futures_util::{
    future::BoxFuture,
    stream::{BoxStream, StreamExt},
};
use kernel::problem::{self, Problem};
use serde_json::Value;

use crate::fault::Fault;

/// Follows events.
pub trait Events: Send + Sync {
    /// Begins to follow on behalf of the request that these extensions are of. A problem in the stream is its last item.
    fn follow(&self, request: &Extensions, wanted: EventsWanted) -> Following;
}

/// A stream of events that begins, or the problem why it does not.
pub type Following =
    BoxFuture<'static, Result<BoxStream<'static, Result<EventMessage, Problem>>, Problem>>;

/// Which events, and from where on.
#[derive(Debug, Clone)]
pub struct EventsWanted {
    /// An endpoint's own stream; the merchant's feed if `None`.
    pub endpoint_id: Option<String>,
    /// The place after which to begin; now if `None`.
    pub after: Option<String>,
}

/// An event as it happens.
#[derive(Debug, Clone, SimpleObject)]
pub struct EventMessage {
    /// The place after it: give it as `after` to go on from here without gap or repeat.
    place: String,
    /// The event's id.
    id: ID,
    /// What happened, such as `order.placed`.
    #[graphql(name = "type")]
    kind: String,
    /// The event, the same JSON that REST and webhooks give.
    event: Json<Value>,
}

impl EventMessage {
    /// An event of this id and type, and the place after it.
    pub fn new(place: String, id: String, kind: String, event: Value) -> Self {
        Self {
            place,
            id: ID(id),
            kind,
            event: Json(event),
        }
    }
}

/// What the fields of one request follow with.
pub(crate) struct Source {
    pub(crate) events: Option<Arc<dyn Events>>,
    pub(crate) extensions: Extensions,
}

/// What can be followed, by server-sent events: POST with `Accept: text/event-stream`.
#[derive(Debug)]
pub(crate) struct Subscription;

#[Subscription]
impl Subscription {
    /// Events as they happen: the merchant's feed, which needs `events:read`, or an endpoint's own stream, which needs `webhooks:read`.
    async fn events(
        &self,
        context: &Context<'_>,
        #[graphql(desc = "The endpoint whose stream it is; the merchant's feed if left out.")]
        endpoint_id: Option<ID>,
        #[graphql(
            desc = "The `place` of the last event that you have; from now on if left out. What is no longer kept is `events_expired`."
        )]
        after: Option<String>,
    ) -> Result<BoxStream<'static, Result<EventMessage, Fault>>, Fault> {
        let source = context.data_opt::<Source>();
        let following = source.and_then(|source| {
            let wanted = EventsWanted {
                endpoint_id: endpoint_id.map(|id| id.0),
                after,
            };
            Some(source.events.as_ref()?.follow(&source.extensions, wanted))
        });
        let Some(following) = following else {
            return Err(
                Problem::new(&problem::UNAVAILABLE, "Events can't be followed here.").into(),
            );
        };
        let events = following.await?;
        Ok(events.map(|event| event.map_err(Fault::from)).boxed())
    }
}
