//! How far a lane has been read, so that no read goes through again what is known or over.
//!
//! It is not only what waits that a read would go through: rows that were taken off the queue stay in its way until PostgreSQL may clear them away, for as long as
//! the longest transaction runs, be it a dump. So a read begins where the one before it ended, and goes back no further than to where something was added or left.

use std::collections::HashSet;

use kernel::clock::Timestamp;

use crate::delivery::{Due, Lease};

/// A place in a lane, of each priority: behind a delivery, in the order of their turns. `None` is the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReadAfter {
    pub(crate) normal: Option<(Timestamp, i64)>,
    pub(crate) bulk: Option<(Timestamp, i64)>,
}

impl ReadAfter {
    pub(crate) const BEGINNING: Self = Self {
        normal: None,
        bulk: None,
    };

    /// Before whatever is due at `time`: sequences begin at 1.
    pub(super) fn before(time: Timestamp) -> Self {
        Self {
            normal: Some((time, 0)),
            bulk: Some((time, 0)),
        }
    }

    /// Behind whatever is due at `time`.
    pub(super) fn behind(time: Timestamp) -> Self {
        Self {
            normal: Some((time, i64::MAX)),
            bulk: Some((time, i64::MAX)),
        }
    }

    fn min(self, other: Self) -> Self {
        Self {
            normal: self.normal.min(other.normal),
            bulk: self.bulk.min(other.bulk),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            normal: self.normal.max(other.normal),
            bulk: self.bulk.max(other.bulk),
        }
    }

    fn of(&mut self, due: &Due) -> &mut Option<(Timestamp, i64)> {
        if due.priority > 0 {
            &mut self.bulk
        } else {
            &mut self.normal
        }
    }
}

/// A lane that wants rows.
#[derive(Debug)]
pub(crate) struct Want {
    pub(crate) lease: Lease,
    pub(crate) rows_max: usize,
    pub(crate) after: ReadAfter,
    /// Sequences that are known here already.
    pub(crate) known: HashSet<i64>,
}

impl Want {
    /// The first rows of a lane of which nothing is known yet.
    pub(crate) fn first(lease: Lease, rows_max: usize) -> Self {
        Self {
            lease,
            rows_max,
            after: ReadAfter::BEGINNING,
            known: HashSet::new(),
        }
    }
}

/// How far a read went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Behind the last row of each priority that it brought: where the next one goes on.
    pub(crate) after: ReadAfter,
    /// Before the first row of each priority that it found and left.
    pub(crate) settled: ReadAfter,
    /// Whether it found all that is due.
    pub(crate) complete: bool,
}

impl Extent {
    /// Of a read that began at `after` and brought these rows, in the order of their turns.
    pub(crate) fn of(after: ReadAfter, rows: &[Due], complete: bool) -> Self {
        let mut reached = after;
        for due in rows {
            *reached.of(due) = Some((due.due_at, due.sequence));
        }
        Self {
            after: reached,
            settled: reached,
            complete,
        }
    }

    /// Leaves a row that has to wait for something: it is found again when the lane is read again.
    pub(crate) fn leave(&mut self, due: &Due) {
        let before = Some((due.due_at, due.sequence.saturating_sub(1)));
        let settled = self.settled.of(due);
        *settled = before.min(*settled);
    }

    /// Leaves a row for which there is no room: the next read goes on with it.
    pub(crate) fn break_off(&mut self, due: &Due) {
        self.leave(due);
        let before = Some((due.due_at, due.sequence.saturating_sub(1)));
        let after = self.after.of(due);
        *after = before.min(*after);
        self.complete = false;
    }
}

/// How far a lane has been read.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// What comes before is known here, or over.
    settled: ReadAfter,
    /// Where the next read begins: further than `settled` if something in between has to wait.
    next: ReadAfter,
    /// What is known here lies before.
    furthest: ReadAfter,
    /// Where the read began that is under way.
    began: Option<ReadAfter>,
    /// Where something was added since, which it may not have seen.
    lowered: Option<ReadAfter>,
    /// Whether the last read found nothing but what has to wait, and has not come to the end.
    goes_on: bool,
    /// Whether what had to wait is to be read again.
    goes_back: bool,
}

impl Reach {
    /// Begins a read; where.
    pub(super) fn begin(&mut self) -> ReadAfter {
        self.began = Some(self.next);
        self.lowered = None;
        self.next
    }

    /// Whether the next read brings again what is known here.
    pub(super) fn repeats(&self) -> bool {
        self.next != self.furthest
    }

    /// The read that was begun went so far, and brought something to send or not. Says whether another one is wanted.
    pub(super) fn end(&mut self, extent: &Extent, has_brought: bool) -> bool {
        let began = self.began.take().unwrap_or(ReadAfter::BEGINNING);
        // Between where it began and what was settled before, something may still wait.
        let settled = |before: Option<(Timestamp, i64)>, began, reached| {
            if before >= began { reached } else { before }
        };
        self.settled = ReadAfter {
            normal: settled(self.settled.normal, began.normal, extent.settled.normal),
            bulk: settled(self.settled.bulk, began.bulk, extent.settled.bulk),
        };
        self.next = extent.after;
        self.furthest = self.furthest.max(extent.after);
        if let Some(lowered) = self.lowered.take() {
            self.settled = self.settled.min(lowered);
            self.next = self.next.min(lowered);
        }
        self.goes_on = !extent.complete && !has_brought;
        let goes_back = self.goes_back && !self.goes_on;
        if goes_back {
            self.go_back();
        }
        goes_back || !extent.complete
    }

    /// Something was added, all of it behind that place.
    pub(super) fn add(&mut self, place: ReadAfter) {
        self.settled = self.settled.min(place);
        self.next = self.next.min(place);
        self.lowered = Some(self.lowered.map_or(place, |before| before.min(place)));
    }

    /// What is known here is not to be relied on: the lane is read from its beginning.
    pub(super) fn forget(&mut self) {
        self.add(ReadAfter::BEGINNING);
    }

    /// What had to wait is to be read again: at once, or once a read has come past all that waits, for that would be in the way of all else.
    pub(super) fn go_back(&mut self) {
        self.goes_back = self.began.is_some() || self.goes_on;
        if !self.goes_back {
            self.next = self.settled;
        }
    }
}

#[cfg(test)]
mod tests;
