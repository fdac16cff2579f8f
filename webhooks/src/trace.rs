//! The spans of attempts, each in the trace of the request that caused its event.
//!
//! Called by the worker around each attempt: [`attempt`] before it sends, [`header`] for what the receiver is told, [`ended`] when it knows what came of it.
//! An event whose request was not traced has attempts without spans.

use kernel::{
    id::EventId,
    trace::{self, TraceParent},
};
use tracing::{Span, field::Empty};

use crate::{delivery::is_accepted, endpoint::EndpointId};

/// A span for an attempt at an event that has this `trace_parent`; a span that is none if the event has no trace, or nobody exports.
pub(crate) fn attempt(
    trace_parent: Option<&str>,
    event: EventId,
    endpoint: EndpointId,
    number: i32,
) -> Span {
    let parent = trace_parent
        .filter(|_| trace::is_on())
        .and_then(|text| text.parse::<TraceParent>().ok());
    let Some(parent) = parent else {
        return Span::none();
    };
    // A root of its own among tracing's spans: the worker's belong to no event.
    let span = tracing::info_span!(
        parent: None,
        "webhook attempt",
        otel.kind = "client",
        otel.status_code = Empty,
        event.id = %event,
        endpoint.id = %endpoint,
        attempt.number = number,
        http.response.status_code = Empty,
        error.type = Empty,
    );
    parent.adopt(&span);
    span
}

/// The value of the header `traceparent` for what an attempt sends; `None` if its span is in no trace.
pub(crate) fn header(span: &Span) -> Option<String> {
    if span.is_none() {
        return None;
    }
    TraceParent::of(span).map(|parent| parent.to_string())
}

/// Notes on an attempt's span what came of it: the status of the answer, or the word of its error.
pub(crate) fn ended(span: &Span, status: Option<i32>, error: Option<&str>) {
    if span.is_none() {
        return;
    }
    if let Some(status) = status {
        span.record("http.response.status_code", status);
    }
    if let Some(error) = error {
        span.record("error.type", error);
    }
    if !is_accepted(status) {
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use kernel::clock::Timestamp;
    use opentelemetry::trace::{SpanKind, Status, TracerProvider};
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn an_attempt_is_a_child_of_the_request_that_caused_its_event() {
        trace::turn_on();
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let (event, endpoint) = (EventId::new(now), EndpointId::new(now));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for nothing in [None, Some("nonsense")] {
                let span = attempt(nothing, event, endpoint, 1);
                assert!(span.is_none() && header(&span).is_none());
            }
            let span = attempt(Some(PARENT), event, endpoint, 2);
            let sent = header(&span).unwrap();
            assert!(
                sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-"),
                "{sent}"
            );
            assert_ne!(sent, PARENT);
            ended(&span, Some(503), None);
        });
        let spans = exporter.get_finished_spans().unwrap();
        assert_eq!(spans.len(), 1);
        let span = spans.first().unwrap();
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(span.span_kind, SpanKind::Client);
        assert!(matches!(span.status, Status::Error { .. }));
        let shown = format!("{:?}", span.attributes);
        assert!(
            shown.contains(&event.to_string()) && shown.contains("503"),
            "{shown}"
        );
    }
}
