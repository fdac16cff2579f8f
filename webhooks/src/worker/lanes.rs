//! The lanes that this process owns, in memory: what is waiting in each, what is in flight, and whose turn it is.
//!
//! Used by the dispatcher alone, which brings leases and rows and carries off what is to be sent. Pure: no clock, no database.
//!
//! Invariants: a delivery is in flight once at most; lanes take turns, so a lane with much to do delays none; an endpoint has no more in
//! flight than its window, which opens while it accepts and closes while it fails, down to one; a merchant has no more than its share. An
//! endpoint that only fails keeps no lane that others may be waiting for: it rests, longer each time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use kernel::id::MerchantId;

use crate::{delivery::Lease, endpoint::EndpointId};

/// What one worker takes on at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lanes owned at once.
    pub lanes: usize,
    /// Lanes owned at once of one merchant, so that its many endpoints leave room for others'.
    pub lanes_per_merchant: usize,
    /// Deliveries in flight at once: open connections, and bodies in memory.
    pub in_flight: usize,
    /// Deliveries in flight at once of one merchant.
    pub in_flight_per_merchant: usize,
    /// Deliveries in flight at once to one endpoint that accepts them all.
    pub in_flight_per_endpoint: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lanes: 512,
            lanes_per_merchant: 128,
            in_flight: 1_024,
            in_flight_per_merchant: 256,
            in_flight_per_endpoint: 64,
        }
    }
}

/// The window that an endpoint starts with: enough not to wait for it, few enough to bear it hanging.
const WINDOW_START: usize = 8;

/// Endpoints of which it is remembered that they failed, after their lane was let go; beyond that they start afresh.
const REMEMBERED_MAX: usize = 10_000;

/// How long a lane rests that gave way; doubled each time up to the most, which is how long a mended endpoint with a backlog waits at worst.
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_mins(1);

/// Rows that one read of a lane brings at most: some tenths of a second of work for a fast receiver.
pub(super) const READ_ROWS_MAX: usize = 256;

/// A lane is read again once fewer rows than this wait in memory.
const READ_BELOW_ROWS: usize = READ_ROWS_MAX / 2;

/// How a delivery ended, as far as the window goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Accepted,
    Failed,
    /// The receiver is gone: its endpoint is disabled, or goes elsewhere by now.
    Gone,
}

#[derive(Debug)]
struct Lane<T> {
    lease: Lease,
    waiting: VecDeque<(i64, T)>,
    waiting_numbers: HashSet<i64>,
    in_flight: HashSet<i64>,
    standing: Standing,
    /// Whether the last delivery that ended failed, at a window of one.
    is_failing: bool,
    /// Whether it gives way to others: nothing more is read or sent, and it is let go once nothing is in flight.
    is_resting: bool,
    /// Whether the table may hold due rows that are not known here.
    unread: bool,
}

impl<T> Lane<T> {
    fn drop_waiting(&mut self) {
        self.waiting.clear();
        self.waiting_numbers.clear();
    }
}

/// What an endpoint's answers have earned it, which outlives its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    window: usize,
    /// How often it gave way since it last accepted something.
    rests: u32,
}

/// All lanes of this process; `T` is what a waiting delivery carries.
#[allow(
    clippy::struct_field_names,
    reason = "there is no better word for them"
)]
#[derive(Debug)]
pub(super) struct Lanes<T> {
    limits: Limits,
    lanes: HashMap<EndpointId, Lane<T>>,
    /// Lanes with something waiting, in the order of their turns.
    turns: VecDeque<EndpointId>,
    in_flight: usize,
    merchants: HashMap<MerchantId, Share>,
    remembered: HashMap<EndpointId, Standing>,
}

#[derive(Debug, Default)]
struct Share {
    lanes: usize,
    in_flight: usize,
}

impl<T> Lanes<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            in_flight: 0,
            merchants: HashMap::new(),
            remembered: HashMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// How many lanes may still be taken.
    pub(super) fn room(&self) -> usize {
        self.limits.lanes.saturating_sub(self.lanes.len())
    }

    /// Merchants whose share of lanes is used up.
    pub(super) fn merchants_at_their_share(&self) -> Vec<MerchantId> {
        let full = self
            .merchants
            .iter()
            .filter(|(_, share)| share.lanes >= self.limits.lanes_per_merchant);
        full.map(|(merchant, _)| *merchant).collect()
    }

    /// Takes in a lane that was just leased.
    pub(super) fn take(&mut self, lease: Lease) {
        self.drop_lane(lease.endpoint);
        self.merchants.entry(lease.merchant).or_default().lanes += 1;
        let mut standing = self.remembered.remove(&lease.endpoint).unwrap_or(Standing {
            window: WINDOW_START,
            rests: 0,
        });
        standing.window = standing
            .window
            .min(self.limits.in_flight_per_endpoint.max(1));
        let lane = Lane {
            lease,
            waiting: VecDeque::new(),
            waiting_numbers: HashSet::new(),
            in_flight: HashSet::new(),
            standing,
            is_failing: false,
            is_resting: false,
            unread: true,
        };
        self.lanes.insert(lease.endpoint, lane);
    }

    /// Notes a lane's signal, and says whether work was added since it was last looked at.
    pub(super) fn raise(&mut self, endpoint: EndpointId, signal: i64) -> bool {
        match self.lanes.get_mut(&endpoint) {
            Some(lane) if lane.lease.signal != signal => {
                lane.lease.signal = signal;
                lane.unread = true;
                true
            }
            _ => false,
        }
    }

    /// Has every lane read again: time has passed, and something may have come due.
    pub(super) fn look_again(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.unread = true;
        }
    }

    /// Every lane that is owned.
    pub(super) fn leases(&self) -> Vec<Lease> {
        self.lanes.values().map(|lane| lane.lease).collect()
    }

    /// The lanes to be read now, and how many rows of theirs are known here and will come again.
    pub(super) fn to_read(&self) -> Vec<(Lease, usize)> {
        let wanting = self
            .lanes
            .values()
            .filter(|lane| lane.unread && !lane.is_resting && lane.waiting.len() < READ_BELOW_ROWS);
        wanting
            .map(|lane| {
                (
                    lane.lease,
                    lane.waiting.len().saturating_add(lane.in_flight.len()),
                )
            })
            .collect()
    }

    /// Whether a delivery waits in a lane, or is on its way.
    pub(super) fn knows(&self, endpoint: EndpointId, sequence: i64) -> bool {
        self.lanes.get(&endpoint).is_some_and(|lane| {
            lane.waiting_numbers.contains(&sequence) || lane.in_flight.contains(&sequence)
        })
    }

    /// Takes in what a read brought, in the order of its turns; `complete` says that nothing else was due.
    pub(super) fn fill(
        &mut self,
        endpoint: EndpointId,
        rows: impl IntoIterator<Item = (i64, T)>,
        complete: bool,
    ) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else {
            return;
        };
        let was_empty = lane.waiting.is_empty();
        for (sequence, row) in rows {
            if !lane.in_flight.contains(&sequence) && lane.waiting_numbers.insert(sequence) {
                lane.waiting.push_back((sequence, row));
            }
        }
        lane.unread = !complete;
        if was_empty && !lane.waiting.is_empty() {
            self.turns.push_back(endpoint);
        }
    }

    /// The next delivery to send, if limits allow one, which is in flight from then on.
    pub(super) fn next(&mut self) -> Option<(Lease, i64, T)> {
        if self.in_flight >= self.limits.in_flight {
            return None;
        }
        for _ in 0..self.turns.len() {
            let endpoint = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&endpoint) else {
                continue;
            };
            let share = self.merchants.entry(lane.lease.merchant).or_default();
            if lane.in_flight.len() >= lane.standing.window
                || share.in_flight >= self.limits.in_flight_per_merchant
            {
                self.turns.push_back(endpoint);
                continue;
            }
            let Some((sequence, row)) = lane.waiting.pop_front() else {
                continue;
            };
            lane.waiting_numbers.remove(&sequence);
            lane.in_flight.insert(sequence);
            share.in_flight += 1;
            self.in_flight += 1;
            if !lane.waiting.is_empty() {
                self.turns.push_back(endpoint);
            }
            return Some((lane.lease, sequence, row));
        }
        None
    }

    /// Notes that a delivery is no longer in flight. One of a former ownership has been counted off already.
    pub(super) fn end(&mut self, lease: Lease, sequence: i64, ending: Ending) {
        let Some(lane) = self.lanes.get_mut(&lease.endpoint) else {
            return;
        };
        if lane.lease.fence != lease.fence || !lane.in_flight.remove(&sequence) {
            return;
        }
        let standing = &mut lane.standing;
        match ending {
            Ending::Accepted => {
                standing.window = standing
                    .window
                    .saturating_add(1)
                    .min(self.limits.in_flight_per_endpoint.max(1));
                standing.rests = 0;
                lane.is_failing = false;
                // It may go on, with what was cleared when it gave way.
                lane.unread |= lane.is_resting;
                lane.is_resting = false;
            }
            Ending::Failed | Ending::Gone => {
                standing.window = (standing.window / 2).max(1);
                lane.is_failing = standing.window == 1;
            }
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(share) = self.merchants.get_mut(&lane.lease.merchant) {
            share.in_flight = share.in_flight.saturating_sub(1);
        }
        if ending == Ending::Gone {
            self.reread(lease.endpoint);
        }
    }

    /// Lanes that have nothing waiting, in flight or unread, or have given way: they can be let go.
    pub(super) fn idle(&self) -> Vec<Lease> {
        let idle = self.lanes.values().filter(|lane| {
            lane.waiting.is_empty()
                && lane.in_flight.is_empty()
                && (!lane.unread || lane.is_resting)
        });
        idle.map(|lane| lane.lease).collect()
    }

    /// Has lanes give way that only fail, if others may be waiting for their room: that of this process, or of their merchant's share.
    pub(super) fn give_way(&mut self) {
        let is_full = self.room() == 0;
        for lane in self.lanes.values_mut() {
            if !lane.is_failing || lane.is_resting {
                continue;
            }
            let share = self.merchants.get(&lane.lease.merchant);
            if is_full || share.is_some_and(|share| share.lanes >= self.limits.lanes_per_merchant) {
                lane.is_resting = true;
                lane.drop_waiting();
                lane.standing.rests = lane.standing.rests.saturating_add(1);
            }
        }
    }

    /// How long a lane is to rest that has given way.
    pub(super) fn rest(&self, endpoint: EndpointId) -> Option<Duration> {
        let lane = self.lanes.get(&endpoint).filter(|lane| lane.is_resting)?;
        let doublings = lane.standing.rests.saturating_sub(1);
        let rest = REST_FIRST.saturating_mul(2_u32.saturating_pow(doublings));
        Some(rest.min(REST_MAX))
    }

    /// Forgets a lane, let go or lost. What it has in flight no longer counts here.
    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        let Some(standing) = self.drop_lane(endpoint) else {
            return;
        };
        if standing.window < WINDOW_START && self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(endpoint, standing);
        }
    }

    /// Forgets what waits in a lane, because its endpoint takes nothing more.
    pub(super) fn clear(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.drop_waiting();
            lane.unread = false;
        }
    }

    /// Has a lane read anew: what waits in it is no longer to be relied on.
    pub(super) fn reread(&mut self, endpoint: EndpointId) {
        self.clear(endpoint);
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.unread = true;
        }
    }

    fn drop_lane(&mut self, endpoint: EndpointId) -> Option<Standing> {
        let lane = self.lanes.remove(&endpoint)?;
        self.turns.retain(|turn| *turn != endpoint);
        self.in_flight = self.in_flight.saturating_sub(lane.in_flight.len());
        if let Some(share) = self.merchants.get_mut(&lane.lease.merchant) {
            share.lanes = share.lanes.saturating_sub(1);
            share.in_flight = share.in_flight.saturating_sub(lane.in_flight.len());
            if share.lanes == 0 {
                self.merchants.remove(&lane.lease.merchant);
            }
        }
        Some(lane.standing)
    }
}

#[cfg(test)]
mod tests;
