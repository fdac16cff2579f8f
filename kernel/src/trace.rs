//! Traces (W3C Trace Context, OpenTelemetry): which one a request belongs to, and what it causes later.
//!
//! The edge joins a request's span to the trace that its client names, and [carries](carry) it for as long as the request is worked on; the outbox asks by
//! the request's id, because what appends an event may be another task, which works for several requests at once. The event's row takes the trace on, to
//! the attempts of its deliveries.
//!
//! Off unless somebody exports: nothing is then carried, and each question costs one load of an atomic.

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::id::RequestId;

/// The header by which a trace is passed on.
pub const HEADER: &str = "traceparent";

/// The one version of the header that there is.
const VERSION: &str = "00";

/// Whether spans are exported by this process.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// The traces of the requests that are being worked on.
static CARRIED: LazyLock<Mutex<HashMap<RequestId, TraceParent>>> = LazyLock::new(Mutex::default);

/// Whether spans are exported by this process.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Says that spans are exported by this process from now on. Called by the composition.
pub fn turn_on() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// A span in a trace, as the header `traceparent` names it: `00-{trace}-{span}-{flags}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(SpanContext);

/// Not a `traceparent` of the version that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct InvalidTraceParent;

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.trim().split('-');
        let (Some(VERSION), Some(trace), Some(span), Some(flags), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Err(InvalidTraceParent);
        };
        let is_hex = |text: &str, length| {
            text.len() == length
                && text
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !(is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2)) {
            return Err(InvalidTraceParent);
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).map_err(|_length| InvalidTraceParent)?,
            SpanId::from_hex(span).map_err(|_length| InvalidTraceParent)?,
            TraceFlags::new(u8::from_str_radix(flags, 16).map_err(|_digit| InvalidTraceParent)?),
            true,
            TraceState::NONE,
        );
        // All zeros are no trace, and no span.
        if context.is_valid() {
            Ok(Self(context))
        } else {
            Err(InvalidTraceParent)
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{VERSION}-{}-{}-{:02x}",
            self.0.trace_id(),
            self.0.span_id(),
            self.0.trace_flags() & TraceFlags::SAMPLED
        )
    }
}

impl TraceParent {
    /// Makes `span` a child of this one, which another process may have made. Before anything is asked of `span`.
    pub fn adopt(&self, span: &Span) {
        // It fails where nobody exports, which takes nothing from the span itself.
        let _ = span.set_parent(Context::new().with_remote_span_context(self.0.clone()));
    }

    /// Where `span` is in its trace; `None` if it is in none.
    pub fn of(span: &Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| Self(context.clone()))
    }
}

/// Carries the trace of a request until what is given back is dropped.
pub fn carry(request: RequestId, parent: TraceParent) -> Carried {
    carried().insert(request, parent);
    Carried(request)
}

/// Keeps the trace of a request known.
#[derive(Debug)]
#[must_use = "the trace is known for as long as this is kept"]
pub struct Carried(RequestId);

impl Drop for Carried {
    fn drop(&mut self) {
        carried().remove(&self.0);
    }
}

fn carried() -> std::sync::MutexGuard<'static, HashMap<RequestId, TraceParent>> {
    CARRIED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The traces of these requests, as their events keep them; `None` where one is in none.
pub(crate) fn of_requests(requests: &[RequestId]) -> Vec<Option<String>> {
    if !is_on() {
        return vec![None; requests.len()];
    }
    let carried = carried();
    requests
        .iter()
        .map(|request| carried.get(request).map(ToString::to_string))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::clock::Timestamp;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_survives_its_text_and_nothing_else_is_one() {
        let parent: TraceParent = PARENT.parse().unwrap();
        assert_eq!(parent.to_string(), PARENT);
        for text in [
            "",
            "00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-extra",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(text.parse::<TraceParent>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_joins_the_trace_of_its_caller_and_has_a_place_of_its_own_in_it() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            PARENT.parse::<TraceParent>().unwrap().adopt(&span);
            let joined = TraceParent::of(&span).unwrap().to_string();
            assert!(joined.starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
            assert!(joined.ends_with("-01") && joined != PARENT, "{joined}");
            assert!(TraceParent::of(&tracing::info_span!("other")).is_some());
        });
        assert_eq!(TraceParent::of(&Span::none()), None);
    }

    #[test]
    fn the_trace_of_a_request_is_known_while_it_is_answered() {
        turn_on();
        let now = Timestamp::from_unix_millis(1_700_000_000_000);
        let (request, other) = (RequestId::new(now), RequestId::new(now));
        let carried = carry(request, PARENT.parse().unwrap());
        assert_eq!(
            of_requests(&[other, request]),
            [None, Some(PARENT.to_owned())]
        );
        drop(carried);
        assert_eq!(of_requests(&[request]), [None]);
    }
}
