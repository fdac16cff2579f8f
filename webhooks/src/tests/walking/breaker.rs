//! How an endpoint's breaker should behave: a part of the model.

use std::time::Duration;

use kernel::clock::Timestamp;

use super::seen::{Lane, Said, Seen, Sent};

/// Failures in a row that open it.
const FAILURES: usize = 10;

/// How long it rests at first, and at most.
const REST_FIRST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_mins(5);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breaker {
    /// Failures since something was taken.
    row: usize,
    /// How often it has opened since then.
    openings: u32,
    /// How long it rests, since it last opened.
    until: Option<Timestamp>,
}

impl Breaker {
    /// Until when nothing is sent, if that is to come.
    pub(super) fn rests_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| *until > now)
    }

    /// Whoever has the lane next goes by what was written down of it.
    pub(super) fn owner_died(&mut self, lane: &Lane) {
        self.openings = lane.breaker_count;
        self.until = lane.rest_until;
    }

    fn open(&mut self, now: Timestamp) {
        let rest = REST_FIRST.saturating_mul(2_u32.saturating_pow(self.openings));
        self.until = Some(now.plus(rest.min(REST_MAX)));
        self.openings += 1;
    }

    /// What should come of what was sent at `now`, when it did not rest. Gives what has happened, for the tally.
    pub(super) fn observe(
        &mut self,
        sent: &[Sent],
        seen: &Seen,
        concurrency: usize,
        now: Timestamp,
    ) -> Result<Vec<&'static str>, String> {
        let mut whats = Vec::new();
        // Who says that it is gone says nothing of whether it copes.
        let sent: Vec<Sent> = sent
            .iter()
            .copied()
            .filter(|one| one.said != Said::Status(410, None))
            .collect();
        let taken = sent.iter().filter(|one| one.said.is_taken()).count();
        let failed = sent.len() - taken;
        let is_seen_open = seen.lane.breaker_count > 0;
        if let Some(probe) = sent.first().filter(|_| self.openings > 0) {
            whats.push("probe");
            if !probe.said.is_taken() {
                if sent.len() > 1 {
                    return Err(format!("more than a probe was sent: {sent:?}"));
                }
                self.open(now);
                return self.agrees_with(seen, now).map(|()| whats);
            }
            whats.push("probe that was taken");
        }
        if !sent.is_empty() && (taken > 0 || self.openings == 0) {
            let before = if taken > 0 { 0 } else { self.row };
            let row = before + failed;
            let may_open = self.row + failed >= FAILURES;
            let has_to_open = taken == 0 && failed >= FAILURES && seen.off.is_none();
            if is_seen_open && !may_open || has_to_open && !is_seen_open {
                return Err(format!("after {sent:?}, {self:?} is {:?}", seen.lane));
            }
            if taken == 0 && failed >= FAILURES + concurrency {
                return Err(format!("{failed} failed before it opened"));
            }
            *self = Self {
                row,
                ..Self::default()
            };
            if is_seen_open {
                whats.push("breaker opened");
                self.open(now);
            }
        }
        self.agrees_with(seen, now).map(|()| whats)
    }

    fn agrees_with(&self, seen: &Seen, now: Timestamp) -> Result<(), String> {
        // A lane that is held has not been written back.
        if seen.lane.is_held || seen.off.is_some() {
            return Ok(());
        }
        let rests = self.rests_until(now);
        let is_kept = rests.is_none() || rests <= seen.lane.rest_until;
        if self.openings != seen.lane.breaker_count || !is_kept {
            return Err(format!("{self:?} is {:?}", seen.lane));
        }
        Ok(())
    }
}
