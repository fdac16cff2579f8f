//! What bounds a worker, and what the owner of an endpoint asks of it.

use std::time::Duration;

/// What one worker takes on at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lanes owned at once.
    pub lanes: usize,
    /// Lanes owned at once of one merchant, so that its many endpoints leave room for others'.
    pub lanes_per_merchant: usize,
    /// Requests in flight at once: open connections, and bodies in memory.
    pub in_flight: usize,
    /// Requests in flight at once of one merchant.
    pub in_flight_per_merchant: usize,
    /// Requests in flight at once to one endpoint that accepts them all.
    pub in_flight_per_endpoint: usize,
    /// Deliveries that were answered and are not yet recorded; after a crash these are sent again, as are those in flight.
    pub unrecorded: usize,
    /// The same of one endpoint.
    pub unrecorded_per_endpoint: usize,
    /// Bytes of events held at once, waiting or on their way.
    pub held_bytes: usize,
    /// How long an idle lane is kept while there is room: an endpoint with a steady trickle is not leased anew for each event.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lanes: 512,
            lanes_per_merchant: 128,
            in_flight: 1_024,
            in_flight_per_merchant: 512,
            in_flight_per_endpoint: 64,
            unrecorded: 4_096,
            unrecorded_per_endpoint: 1_024,
            held_bytes: 16 * 1_024 * 1_024,
            linger: Duration::from_secs(10),
        }
    }
}

/// What an endpoint's owner has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wishes {
    /// Requests a second.
    pub(super) rate_per_second: Option<u32>,
    /// Requests in flight at once.
    pub(super) concurrency_max: Option<usize>,
    /// Events in one request.
    pub(super) batch_events_max: usize,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            rate_per_second: None,
            concurrency_max: None,
            batch_events_max: 1,
        }
    }
}
