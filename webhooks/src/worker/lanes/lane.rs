//! One lane: what waits in it, what is on its way, and whether it may send now.

use std::collections::{HashMap, HashSet};

use kernel::clock::Timestamp;

use super::{READ_ROWS_MAX, reach::Reach};
use crate::{
    delivery::{Lease, Signal},
    worker::{
        breaker::{self, Breaker},
        limits::{Limits, Wishes},
        pace::{Rate, Window},
        queue::Queue,
    },
};

/// A lane is read again once fewer rows than this wait in memory: so many that they last for as long as a read takes, and so few that it brings as many.
const READ_BELOW_ROWS: usize = READ_ROWS_MAX / 2;

/// A lane that this process owns; `T` is what a waiting delivery carries.
#[derive(Debug)]
pub(super) struct Lane<T> {
    pub(super) lease: Lease,
    pub(super) wishes: Wishes,
    pub(super) queue: Queue<T>,
    /// Deliveries that were handed out and are not recorded yet.
    pub(super) out: HashMap<i64, Out>,
    /// Requests that are not answered yet.
    pub(super) in_flight: usize,
    /// Deliveries that were answered and are not recorded yet.
    pub(super) unrecorded: usize,
    /// Those of them whose receiver said that it is gone: whether anything more is to be sent is known once that is recorded.
    pub(super) gone: usize,
    pub(super) window: Window,
    pub(super) rate: Option<Rate>,
    pub(super) breaker: Breaker,
    /// Whether the table still has it that the breaker is not closed.
    pub(super) is_noted_open: bool,
    /// The receiver asked to be left alone until then.
    pub(super) paused_until: Option<Timestamp>,
    /// Whether it has a place among the turns of its merchant.
    pub(super) has_turn: bool,
    /// Its signal when its endpoint was last read, which may have been changed since if it is another now.
    pub(super) aimed_at: Signal,
    /// Whether the table may hold due rows that are not known here.
    pub(super) unread: bool,
    pub(super) reach: Reach,
    /// While a read is under way: what has changed since it began, which it may not have seen.
    pub(super) reading: Option<Meanwhile>,
}

/// What was recorded while a read was under way.
#[derive(Debug, Default)]
pub(super) struct Meanwhile {
    /// Deliveries that may look due to it, and are not.
    pub(super) recorded: HashSet<i64>,
    /// Resources of which one is to be delivered again, later: what it found behind that one has to wait.
    pub(super) held_back: HashSet<i64>,
}

/// A delivery that was handed out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Out {
    pub(super) bytes: usize,
    pub(super) resource: Option<i64>,
    pub(super) is_answered: bool,
    pub(super) is_gone: bool,
}

impl<T> Lane<T> {
    fn concurrency(&self, limits: &Limits) -> usize {
        let limit = self
            .wishes
            .concurrency_max
            .unwrap_or(limits.in_flight_per_endpoint);
        self.window.size(limit)
    }

    /// Whether a request may be sent now; if that is only a matter of time, when it may.
    pub(super) fn is_free(&self, limits: &Limits, now: Timestamp) -> Result<(), Option<Timestamp>> {
        if self.queue.is_empty()
            || self.gone > 0
            || !self.breaker.lets_pass(self.in_flight)
            || self.in_flight >= self.concurrency(limits)
            || self.unrecorded >= limits.unrecorded_per_endpoint
        {
            return Err(None);
        }
        let free_at = self.rate.map(|rate| rate.free_at()).max(self.paused_until);
        match free_at {
            Some(free_at) if free_at > now => Err(Some(free_at)),
            _ => Ok(()),
        }
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.out
            .values()
            .map(|out| out.bytes)
            .sum::<usize>()
            .saturating_add(self.queue.bytes())
    }

    /// Until when it rests, if its breaker is open.
    pub(super) fn rest_until(&self) -> Option<Timestamp> {
        match self.breaker.state() {
            breaker::State::Open { until } => Some(until),
            breaker::State::Closed { .. } | breaker::State::HalfOpen => None,
        }
    }

    /// Until when nothing is sent, whether its breaker is open or its receiver wants to be left alone.
    pub(super) fn quiet_until(&self, now: Timestamp) -> Option<Timestamp> {
        let paused_until = self.paused_until.filter(|until| *until > now);
        self.rest_until().max(paused_until)
    }

    /// Whether it is quiet and perhaps should not be: its endpoint may have been changed.
    pub(super) fn is_in_doubt(&self, now: Timestamp) -> bool {
        self.aimed_at != self.lease.signal && self.quiet_until(now).is_some()
    }

    /// Whether it wants rows.
    pub(super) fn wants_rows(&self) -> bool {
        self.unread
            && self.reading.is_none()
            && self.rest_until().is_none()
            && self.queue.len() < READ_BELOW_ROWS
            && !(self.breaker.openings() > 0 && self.in_flight > 0)
    }
}
