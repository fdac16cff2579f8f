//! The lanes that this process owns, in memory: what is waiting in each, what is on its way, and whose turn it is.
//!
//! Used by the dispatcher alone, which brings leases and rows and carries off what is to be sent. Pure: no clock, no database.
//!
//! Invariants: a delivery is on its way once at most. Merchants take turns, and a merchant's lanes do, so a lane with much to do delays none. An endpoint
//! has no more in flight than its window, its owner's limits and its breaker allow; a merchant has no more than half of what would then still be free (the dynamic thresholds of
//! Choudhury and Hahne 1998), so that however many are slow there is room for another. What is held in memory is bounded in bytes.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use kernel::{clock::Timestamp, id::MerchantId};

use super::{
    breaker::{self, Breaker},
    limits::{Limits, Wishes},
    pace::{Rate, Window},
    queue::{Queue, Row},
};
use crate::{
    delivery::{Lease, Signal},
    endpoint::EndpointId,
};

mod lane;
mod reach;

use lane::{Lane, Meanwhile, Out};
use reach::Reach;
pub(crate) use reach::{Extent, ReadAfter, Want};

/// Bytes of events that one request carries, unless a single one has more.
const BATCH_BYTES_MAX: usize = 1_024 * 1_024;

/// Endpoints whose window is remembered after their lane was let go; beyond that they start afresh.
const REMEMBERED_MAX: usize = 10_000;

/// Rows that one read of a lane brings at most: some hundredths of a second of work for a fast receiver.
pub(super) const READ_ROWS_MAX: usize = 1_000;

/// Rows that a probe of an endpoint needs.
const PROBE_ROWS: usize = 1;

/// The longest that an endpoint's own `Retry-After` holds back its other deliveries; each delivery waits for itself as long as was asked.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// How a request ended, as far as its endpoint goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Accepted,
    /// It failed; the receiver may have asked for a pause until then.
    Failed(Option<Timestamp>),
    /// The receiver is gone: its endpoint is disabled, or goes elsewhere by now.
    Gone,
}

#[derive(Debug, Default)]
struct Share {
    lanes: usize,
    in_flight: usize,
    /// Lanes that may send, in the order of their turns.
    turns: VecDeque<EndpointId>,
    has_turn: bool,
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
    merchants: HashMap<MerchantId, Share>,
    /// Merchants with lanes that may send, in the order of their turns.
    turns: VecDeque<MerchantId>,
    /// Merchants that had their share when it was their turn.
    stalled: Vec<MerchantId>,
    /// When lanes that wait for their rate or a pause may send again.
    timers: BTreeSet<(Timestamp, EndpointId)>,
    in_flight: usize,
    unrecorded: usize,
    held_bytes: usize,
    remembered: HashMap<EndpointId, Window>,
}

/// What the lanes of this process are about, for the metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) lanes: usize,
    pub(super) in_flight: usize,
}

impl<T> Lanes<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lanes: HashMap::new(),
            merchants: HashMap::new(),
            turns: VecDeque::new(),
            stalled: Vec::new(),
            timers: BTreeSet::new(),
            in_flight: 0,
            unrecorded: 0,
            held_bytes: 0,
            remembered: HashMap::new(),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// How many lanes may still be taken.
    pub(super) fn room(&self) -> usize {
        self.limits.lanes.saturating_sub(self.lanes.len())
    }

    /// Bytes of events that may still be taken in. Something is always taken in when nothing is held.
    pub(super) fn room_bytes(&self) -> usize {
        self.limits.held_bytes.saturating_sub(self.held_bytes)
    }

    /// Merchants whose share of lanes is used up.
    pub(super) fn merchants_at_their_share(&self) -> Vec<MerchantId> {
        let full = self
            .merchants
            .iter()
            .filter(|(_, share)| share.lanes >= self.limits.lanes_per_merchant);
        full.map(|(merchant, _)| *merchant).collect()
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            lanes: self.lanes.len(),
            in_flight: self.in_flight,
        }
    }

    /// Lanes whose breaker has closed and of which the table has it otherwise.
    pub(super) fn recovered(&self) -> Vec<Lease> {
        let lanes = self.lanes.values();
        let recovered = lanes.filter(|lane| lane.is_noted_open && lane.breaker.openings() == 0);
        recovered.map(|lane| lane.lease).collect()
    }

    /// Notes that the table knows of these.
    pub(super) fn told_recovered(&mut self, leases: &[Lease]) {
        for lease in leases {
            if let Some(lane) = self.lanes.get_mut(&lease.endpoint) {
                lane.is_noted_open &= lane.lease.fence != lease.fence;
            }
        }
    }

    /// Takes in a lane that was just leased, whose breaker had opened so often.
    pub(super) fn take(&mut self, lease: Lease, breaker_openings: u32) {
        self.drop_lane(lease.endpoint);
        self.merchants.entry(lease.merchant).or_default().lanes += 1;
        let lane = Lane {
            lease,
            wishes: Wishes::default(),
            queue: Queue::new(),
            out: HashMap::new(),
            in_flight: 0,
            unrecorded: 0,
            gone: 0,
            window: self
                .remembered
                .remove(&lease.endpoint)
                .unwrap_or_else(Window::new),
            rate: None,
            breaker: Breaker::new(breaker_openings),
            is_noted_open: breaker_openings > 0,
            paused_until: None,
            has_turn: false,
            aimed_at: lease.signal,
            unread: true,
            reach: Reach::default(),
            reading: None,
        };
        self.lanes.insert(lease.endpoint, lane);
    }

    /// Does as the endpoint's owner asks, who was just asked, from now on.
    pub(super) fn heed(&mut self, endpoint: EndpointId, wishes: Wishes, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else {
            return;
        };
        lane.aimed_at = lane.lease.signal;
        if lane.wishes == wishes {
            return;
        }
        lane.wishes = wishes;
        if lane.rate.map(|rate| rate.per_second()) != wishes.rate_per_second {
            lane.rate = wishes
                .rate_per_second
                .map(|per_second| Rate::new(per_second, now));
        }
        self.offer(endpoint, now);
    }

    /// Whether a lane is quiet and perhaps should not be: its endpoint may have been changed.
    pub(super) fn is_in_doubt(&self, endpoint: EndpointId, now: Timestamp) -> bool {
        let lane = self.lanes.get(&endpoint);
        lane.is_some_and(|lane| lane.is_in_doubt(now))
    }

    /// Whether any lane is.
    pub(super) fn is_any_in_doubt(&self, now: Timestamp) -> bool {
        self.lanes.values().any(|lane| lane.is_in_doubt(now))
    }

    /// Forgets how an endpoint has fared, and what was read for it as it was: it was changed.
    pub(super) fn trust(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.window = Window::new();
            lane.breaker = Breaker::new(0);
            lane.paused_until = None;
        }
        self.reread(endpoint);
    }

    /// Notes a lane's signal, and says whether work was added since it was last looked at.
    pub(super) fn raise(&mut self, endpoint: EndpointId, signal: Signal) -> bool {
        match self.lanes.get_mut(&endpoint) {
            Some(lane) if lane.lease.signal != signal => {
                let added_after = signal.added_after(lane.lease.signal);
                lane.reach
                    .add(added_after.map_or(ReadAfter::BEGINNING, ReadAfter::behind));
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
            lane.reach.go_back();
        }
    }

    /// Has every lane read again as if nothing were known of it.
    pub(super) fn look_from_the_beginning(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.unread = true;
            lane.reach.forget();
        }
    }

    /// Every lane that is owned.
    pub(super) fn leases(&self) -> Vec<Lease> {
        self.lanes.values().map(|lane| lane.lease).collect()
    }

    /// Whether this ownership of a lane is the present one.
    pub(super) fn owns(&self, lease: Lease) -> bool {
        self.lanes
            .get(&lease.endpoint)
            .is_some_and(|lane| lane.lease.fence == lease.fence)
    }

    /// Whether a lane wants rows.
    pub(super) fn wants_rows(&self) -> bool {
        let has_room = self.room_bytes() > 0;
        has_room && self.lanes.values().any(Lane::wants_rows)
    }

    /// The lanes to be read now. Until [`fill`](Self::fill) they are being read.
    pub(super) fn begin_read(&mut self) -> Vec<Want> {
        let mut wants = Vec::new();
        for lane in self.lanes.values_mut().filter(|lane| lane.wants_rows()) {
            let known: HashSet<i64> = lane
                .queue
                .sequences()
                .chain(lane.out.keys().copied())
                .collect();
            let repeated = if lane.reach.repeats() { known.len() } else { 0 };
            let rows_max = match lane.breaker.state() {
                breaker::State::HalfOpen => PROBE_ROWS.max(lane.wishes.batch_events_max),
                _ => READ_ROWS_MAX.saturating_sub(lane.queue.len()),
            };
            lane.reading = Some(Meanwhile::default());
            // What is added from here on is seen by the next read, if not by this one.
            lane.unread = false;
            wants.push(Want {
                lease: lane.lease,
                rows_max: rows_max.saturating_add(repeated),
                after: lane.reach.begin(),
                known,
            });
        }
        wants
    }

    /// Notes that a lane that was just taken is being read already.
    pub(super) fn is_being_read(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.reading = Some(Meanwhile::default());
            lane.reach.begin();
            lane.unread = false;
        }
    }

    /// Rows that the first read of a lane brings at most, whose breaker had opened so often.
    pub(super) fn first_rows(breaker_openings: u32) -> usize {
        if breaker_openings == 0 {
            READ_ROWS_MAX
        } else {
            PROBE_ROWS
        }
    }

    /// Gives up the reads that are under way: they failed.
    pub(super) fn abandon_reads(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.unread |= lane.reading.take().is_some();
        }
    }

    /// Takes in what a read brought, in the order of its turns.
    pub(super) fn fill(
        &mut self,
        lease: Lease,
        rows: impl IntoIterator<Item = Row<T>>,
        extent: &Extent,
        now: Timestamp,
    ) {
        let Some(lane) = self
            .lanes
            .get_mut(&lease.endpoint)
            .filter(|lane| lane.lease.fence == lease.fence)
        else {
            return;
        };
        let Some(meanwhile) = lane.reading.take() else {
            // It was cleared meanwhile.
            return;
        };
        let before = lane.queue.bytes();
        let mut has_brought = false;
        for row in rows {
            let is_held_back = row
                .resource
                .is_some_and(|key| meanwhile.held_back.contains(&key));
            if !lane.out.contains_key(&row.sequence)
                && !meanwhile.recorded.contains(&row.sequence)
                && !is_held_back
            {
                lane.queue.push(row);
                has_brought = true;
            }
        }
        self.held_bytes = self
            .held_bytes
            .saturating_add(lane.queue.bytes().saturating_sub(before));
        lane.unread |= lane.reach.end(extent, has_brought);
        self.offer(lease.endpoint, now);
    }

    /// The next request to send, if limits allow one, which is in flight from then on.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<(Lease, Vec<Row<T>>)> {
        while let Some(&(at, endpoint)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, endpoint));
            self.offer(endpoint, now);
        }
        if self.in_flight >= self.limits.in_flight || self.unrecorded >= self.limits.unrecorded {
            return None;
        }
        while let Some(merchant) = self.turns.pop_front() {
            let free = self.limits.in_flight.saturating_sub(self.in_flight);
            let allowed = self.limits.in_flight_per_merchant.min(free / 2).max(1);
            let Some(share) = self.merchants.get_mut(&merchant) else {
                continue;
            };
            if share.in_flight >= allowed {
                self.stalled.push(merchant);
                continue;
            }
            share.has_turn = false;
            let Some(endpoint) = share.turns.pop_front() else {
                continue;
            };
            let taken = self.send_from(endpoint, now);
            self.offer(endpoint, now);
            self.give_turn(merchant);
            if taken.is_some() {
                return taken;
            }
        }
        None
    }

    fn send_from(&mut self, endpoint: EndpointId, now: Timestamp) -> Option<(Lease, Vec<Row<T>>)> {
        let lane = self.lanes.get_mut(&endpoint)?;
        lane.has_turn = false;
        match lane.is_free(&self.limits, now) {
            Ok(()) => {}
            Err(at) => {
                self.timers.extend(at.map(|at| (at, endpoint)));
                return None;
            }
        }
        let rows = lane
            .queue
            .pop(lane.wishes.batch_events_max.max(1), BATCH_BYTES_MAX);
        if rows.is_empty() {
            return None;
        }
        for row in &rows {
            let out = Out {
                bytes: row.bytes,
                resource: row.resource,
                is_answered: false,
                is_gone: false,
            };
            lane.out.insert(row.sequence, out);
        }
        if let Some(rate) = &mut lane.rate {
            rate.take(now);
        }
        lane.in_flight = lane.in_flight.saturating_add(1);
        self.in_flight = self.in_flight.saturating_add(1);
        if let Some(share) = self.merchants.get_mut(&lane.lease.merchant) {
            share.in_flight = share.in_flight.saturating_add(1);
        }
        Some((lane.lease, rows))
    }

    /// Gives a lane a turn if it may send.
    fn offer(&mut self, endpoint: EndpointId, now: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&endpoint).filter(|lane| !lane.has_turn) else {
            return;
        };
        match lane.is_free(&self.limits, now) {
            // All that waits may wait for what is out of its resource: then it has no turn until something returns.
            Ok(()) if !lane.queue.is_blocked() => {
                lane.has_turn = true;
                let merchant = lane.lease.merchant;
                self.merchants
                    .entry(merchant)
                    .or_default()
                    .turns
                    .push_back(endpoint);
                self.give_turn(merchant);
            }
            Ok(()) => {}
            Err(at) => self.timers.extend(at.map(|at| (at, endpoint))),
        }
    }

    fn give_turn(&mut self, merchant: MerchantId) {
        if let Some(share) = self.merchants.get_mut(&merchant)
            && !share.has_turn
            && !share.turns.is_empty()
        {
            share.has_turn = true;
            self.turns.push_back(merchant);
        }
    }

    /// When a lane that waits for its rate or a pause may send again.
    pub(super) fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Notes that a request of these deliveries was answered, or failed, after `duration`. One of a former ownership has been counted off already.
    pub(super) fn answered(
        &mut self,
        lease: Lease,
        sequences: &[i64],
        ending: Ending,
        duration: Duration,
        now: Timestamp,
    ) {
        let Some(lane) = self
            .lanes
            .get_mut(&lease.endpoint)
            .filter(|lane| lane.lease.fence == lease.fence)
        else {
            return;
        };
        let mut answered = 0_usize;
        for sequence in sequences {
            if let Some(out) = lane.out.get_mut(sequence).filter(|out| !out.is_answered) {
                out.is_answered = true;
                out.is_gone = ending == Ending::Gone;
                lane.gone = lane.gone.saturating_add(usize::from(out.is_gone));
                answered = answered.saturating_add(1);
            }
        }
        if answered == 0 {
            return;
        }
        lane.in_flight = lane.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        lane.unrecorded = lane.unrecorded.saturating_add(answered);
        self.unrecorded = self.unrecorded.saturating_add(answered);
        if let Some(share) = self.merchants.get_mut(&lane.lease.merchant) {
            share.in_flight = share.in_flight.saturating_sub(1);
        }
        match ending {
            Ending::Accepted => {
                let limit = lane
                    .wishes
                    .concurrency_max
                    .unwrap_or(self.limits.in_flight_per_endpoint);
                lane.window.accepted(duration, limit, now);
                if lane.breaker.openings() > 0 {
                    // It was read for a probe only.
                    lane.unread = true;
                }
                lane.breaker.accepted();
            }
            Ending::Failed(pause) => {
                lane.window.failed();
                lane.breaker.failed(now);
                lane.paused_until = pause
                    .map(|until| until.min(now.plus(PAUSE_MAX)))
                    .max(lane.paused_until);
                if lane.rest_until().is_some() {
                    // What waits here is due again once the breaker lets it pass, in whichever process.
                    self.held_bytes = self.held_bytes.saturating_sub(lane.queue.bytes());
                    lane.queue.clear();
                    lane.reading = None;
                    lane.unread = true;
                    lane.reach.forget();
                }
            }
            Ending::Gone => self.reread(lease.endpoint),
        }
        self.offer(lease.endpoint, now);
        for merchant in std::mem::take(&mut self.stalled) {
            self.turns.push_back(merchant);
        }
    }

    /// Notes that what came of a delivery is recorded, which is due again no earlier than at `again_at`, if at all. Says whether its receiver was gone, so that where
    /// the endpoint goes has to be read again before anything is sent there.
    pub(super) fn recorded(
        &mut self,
        lease: Lease,
        sequence: i64,
        again_at: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let Some(lane) = self
            .lanes
            .get_mut(&lease.endpoint)
            .filter(|lane| lane.lease.fence == lease.fence)
        else {
            return false;
        };
        let Some(out) = lane.out.remove(&sequence) else {
            return false;
        };
        lane.gone = lane.gone.saturating_sub(usize::from(out.is_gone));
        if out.is_answered {
            lane.unrecorded = lane.unrecorded.saturating_sub(1);
            self.unrecorded = self.unrecorded.saturating_sub(1);
        }
        if let Some(meanwhile) = &mut lane.reading {
            meanwhile.recorded.insert(sequence);
            meanwhile
                .held_back
                .extend(out.resource.filter(|_| again_at.is_some()));
        }
        let waiting_bytes = lane.queue.bytes();
        if let Some(again_at) = again_at {
            lane.reach.add(ReadAfter::before(again_at));
        }
        if let Some(key) = out.resource {
            lane.queue.returned(key, again_at.is_none());
            lane.unread = true;
            match again_at {
                // What waits behind it in the table may go.
                None => lane.reach.go_back(),
                // What waited behind it here was dropped.
                Some(_) => lane.reach.forget(),
            }
        }
        let dropped = waiting_bytes.saturating_sub(lane.queue.bytes());
        self.held_bytes = self
            .held_bytes
            .saturating_sub(out.bytes.saturating_add(dropped));
        self.offer(lease.endpoint, now);
        out.is_gone
    }

    /// Whether anything waits in a lane, or is on its way.
    pub(super) fn has_work(&self, endpoint: EndpointId) -> bool {
        let lane = self.lanes.get(&endpoint);
        lane.is_some_and(|lane| !lane.queue.is_empty() || !lane.out.is_empty())
    }

    /// Whether anything waits to be sent.
    pub(super) fn has_waiting(&self) -> bool {
        self.lanes.values().any(|lane| !lane.queue.is_empty())
    }

    /// Lanes that have nothing waiting, on its way or unread, or are resting: they can be let go.
    pub(super) fn idle(&self) -> Vec<Lease> {
        let idle = self.lanes.values().filter(|lane| {
            lane.queue.is_empty()
                && lane.out.is_empty()
                && lane.reading.is_none()
                && (!lane.unread || lane.rest_until().is_some())
        });
        idle.map(|lane| lane.lease).collect()
    }

    /// Until when a lane rests whose breaker is open.
    pub(super) fn rest_until(&self, endpoint: EndpointId) -> Option<Timestamp> {
        self.lanes.get(&endpoint)?.rest_until()
    }

    /// Until when nothing is sent to a lane: while its breaker is open, and while its receiver wants to be left alone. Its next owner keeps to that too.
    pub(super) fn quiet_until(&self, endpoint: EndpointId, now: Timestamp) -> Option<Timestamp> {
        self.lanes.get(&endpoint)?.quiet_until(now)
    }

    /// How often a lane's breaker has opened since its endpoint last accepted something.
    pub(super) fn breaker_openings(&self, endpoint: EndpointId) -> u32 {
        self.lanes
            .get(&endpoint)
            .map_or(0, |lane| lane.breaker.openings())
    }

    /// Forgets a lane, let go or lost. What it has on its way no longer counts here.
    pub(super) fn forget(&mut self, endpoint: EndpointId) {
        let Some(window) = self.drop_lane(endpoint) else {
            return;
        };
        if window != Window::new() && self.remembered.len() < REMEMBERED_MAX {
            self.remembered.insert(endpoint, window);
        }
    }

    /// Forgets what waits in a lane, because its endpoint takes nothing more.
    pub(super) fn clear(&mut self, endpoint: EndpointId) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            self.held_bytes = self.held_bytes.saturating_sub(lane.queue.bytes());
            lane.queue.clear();
            lane.reading = None;
            lane.unread = false;
            lane.reach.forget();
        }
    }

    /// Has a lane read anew: what waits in it is no longer to be relied on.
    pub(super) fn reread(&mut self, endpoint: EndpointId) {
        self.clear(endpoint);
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.unread = true;
        }
    }

    fn drop_lane(&mut self, endpoint: EndpointId) -> Option<Window> {
        let lane = self.lanes.remove(&endpoint)?;
        self.held_bytes = self.held_bytes.saturating_sub(lane.held_bytes());
        self.in_flight = self.in_flight.saturating_sub(lane.in_flight);
        self.unrecorded = self.unrecorded.saturating_sub(lane.unrecorded);
        self.timers.retain(|(_, waiting)| *waiting != endpoint);
        if let Some(share) = self.merchants.get_mut(&lane.lease.merchant) {
            share.lanes = share.lanes.saturating_sub(1);
            share.in_flight = share.in_flight.saturating_sub(lane.in_flight);
            share.turns.retain(|turn| *turn != endpoint);
            if share.lanes == 0 {
                self.merchants.remove(&lane.lease.merchant);
                self.turns.retain(|turn| *turn != lane.lease.merchant);
                self.stalled
                    .retain(|merchant| *merchant != lane.lease.merchant);
            }
        }
        Some(lane.window)
    }
}

#[cfg(test)]
mod tests;
