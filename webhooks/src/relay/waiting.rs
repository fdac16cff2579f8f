//! Whose events wait in the outbox, and from which on.

use std::collections::{HashMap, VecDeque};

use kernel::{
    clock::Timestamp,
    id::{EventId, MerchantId},
};
use uuid::Uuid;

/// From which event on a merchant's outbox is read, of each priority.
///
/// Rows that were moved stay in the way of who reads from the beginning, until PostgreSQL may clear them away: for as long as the longest transaction runs. So a
/// read begins where who found the events says that they begin, or where the read before it was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) normal: EventId,
    pub(super) bulk: EventId,
}

impl Start {
    pub(super) const BEGINNING: Self = Self::at(EventId::from_uuid(Uuid::nil()));

    /// At an event, or where it would be.
    pub(super) const fn at(event: EventId) -> Self {
        Self {
            normal: event,
            bulk: event,
        }
    }

    /// At the events that were made from `time` on.
    pub(super) fn since(time: Timestamp) -> Self {
        Self::at(EventId::least(time))
    }

    /// The earlier one of each priority.
    fn min(self, other: Self) -> Self {
        Self {
            normal: self.normal.min(other.normal),
            bulk: self.bulk.min(other.bulk),
        }
    }

    /// Where a read of the time `now` goes on that was full with this event as its last.
    pub(super) fn behind(self, last: EventId, is_bulk: bool, now: Timestamp) -> Self {
        if is_bulk {
            // Of normal priority it found all that was there.
            Self {
                normal: EventId::least(now),
                bulk: last,
            }
        } else {
            Self {
                normal: last,
                ..self
            }
        }
    }
}

/// The merchants that wait for their turn, each once, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    order: VecDeque<MerchantId>,
    starts: HashMap<MerchantId, Start>,
}

impl Waiting {
    /// Adds a merchant; one that waits already keeps its place, and is read from the earlier start.
    pub(super) fn add(&mut self, merchant: MerchantId, start: Start) {
        let order = &mut self.order;
        self.starts
            .entry(merchant)
            .and_modify(|waiting| *waiting = waiting.min(start))
            .or_insert_with(|| {
                order.push_back(merchant);
                start
            });
    }

    /// Takes the first merchant of whom `is_free` holds.
    pub(super) fn take(
        &mut self,
        is_free: impl Fn(MerchantId) -> bool,
    ) -> Option<(MerchantId, Start)> {
        let place = self.order.iter().position(|merchant| is_free(*merchant))?;
        let merchant = self.order.remove(place)?;
        let start = self.starts.remove(&merchant)?;
        Some((merchant, start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(millis: i64) -> EventId {
        EventId::least(Timestamp::from_unix_millis(millis))
    }

    fn merchant(millis: i64) -> MerchantId {
        MerchantId::least(Timestamp::from_unix_millis(millis))
    }

    #[test]
    fn a_merchant_waits_once_and_is_read_from_the_earliest_start() {
        let mut waiting = Waiting::default();
        waiting.add(merchant(1), Start::at(event(20)));
        waiting.add(merchant(2), Start::BEGINNING);
        waiting.add(merchant(1), Start::at(event(10)));
        waiting.add(merchant(1), Start::at(event(30)));

        let taken = waiting.take(|one| one != merchant(2));
        assert_eq!(taken, Some((merchant(1), Start::at(event(10)))));
        assert_eq!(waiting.take(|one| one != merchant(2)), None);
        assert_eq!(
            waiting.take(|_| true),
            Some((merchant(2), Start::BEGINNING))
        );
        assert_eq!(waiting.take(|_| true), None);
    }

    #[test]
    fn a_full_read_goes_on_behind_its_last_event_and_before_what_was_found_meanwhile() {
        let start = Start::at(event(10));
        let now = Timestamp::from_unix_millis(30);
        let among_normal = start.behind(event(20), false, now);
        assert_eq!(
            (among_normal.normal, among_normal.bulk),
            (event(20), event(10))
        );
        // No event of normal priority was left.
        let among_bulk = among_normal.behind(event(15), true, now);
        assert_eq!((among_bulk.normal, among_bulk.bulk), (event(30), event(15)));
        let with_found = among_bulk.min(Start::at(event(25)));
        assert_eq!((with_found.normal, with_found.bulk), (event(25), event(15)));
    }
}
