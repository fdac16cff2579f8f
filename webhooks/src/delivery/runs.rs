//! Runs: attempts that were accepted, several in a row of the table. They are nearly all there are, and a row with its indexes for each would cost more than
//! sending it.
//!
//! Used by `store`. Pure. Invariants, by which the attempts at one delivery and the newest at one endpoint are found in few runs: a run is of one version of one
//! endpoint, and its attempts lie close together, both in the stream and in time.

use std::time::Duration;

use super::{AttemptId, Made};

/// Attempts of a run at most: as many as fit into a row of a quarter page with their short answers, beyond which PostgreSQL would compress it and put it elsewhere.
const ATTEMPTS_MAX: usize = 20;

/// Numbers of the stream that a run reaches over at most, as the table checks it and `stoa_attempts_of` looks for it.
const SEQUENCES_MAX: i64 = 128;

/// How much later than its oldest attempt the newest of a run began at most.
pub(crate) const SPAN_MAX: Duration = Duration::from_secs(5);

/// Attempts from one place of a list to another that are kept in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The place of the first attempt, counted from 1 as SQL does.
    pub(super) from: usize,
    /// The place of the last one.
    pub(super) to: usize,
    /// The oldest and the newest attempt's.
    pub(super) ids: (AttemptId, AttemptId),
    /// The smallest and the largest number.
    pub(super) sequences: (i64, i64),
}

impl Run {
    fn of(place: usize, made: &Made<'_>) -> Self {
        Self {
            from: place,
            to: place,
            ids: (made.attempt.id, made.attempt.id),
            sequences: (made.sequence, made.sequence),
        }
    }

    /// The run with one more attempt; `None` if it is too far from the others. What comes next has no smaller number.
    fn with(self, made: &Made<'_>) -> Option<Self> {
        let id = made.attempt.id;
        let run = Self {
            from: self.from,
            to: self.to.saturating_add(1),
            ids: (self.ids.0.min(id), self.ids.1.max(id)),
            sequences: (self.sequences.0, made.sequence),
        };
        let (first, last) = run.ids;
        let is_one = run.to.saturating_sub(run.from) < ATTEMPTS_MAX
            && made.sequence.saturating_sub(run.sequences.0) < SEQUENCES_MAX
            && last.made_at().since(first.made_at()) <= SPAN_MAX;
        is_one.then_some(run)
    }
}

/// Puts attempts in the order of their streams, and says which of them are kept together.
pub(super) fn cut(made: &mut [Made<'_>]) -> Vec<Run> {
    made.sort_unstable_by_key(|made| {
        (
            made.merchant,
            made.endpoint,
            made.endpoint_version,
            made.sequence,
            made.attempt.id,
        )
    });
    let mut runs: Vec<Run> = Vec::new();
    let mut before: Option<&Made<'_>> = None;
    for (place, made) in (1..).zip(made.iter()) {
        let is_alike = before.is_some_and(|before| {
            (before.endpoint, before.endpoint_version) == (made.endpoint, made.endpoint_version)
        });
        let longer = runs
            .last()
            .filter(|_| is_alike)
            .and_then(|run| run.with(made));
        match (longer, runs.last_mut()) {
            (Some(longer), Some(last)) => *last = longer,
            _ => runs.push(Run::of(place, made)),
        }
        before = Some(made);
    }
    runs
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]
mod tests {
    use kernel::{
        clock::Timestamp,
        id::{EventId, MerchantId},
    };

    use super::*;
    use crate::{delivery::Attempt, endpoint::EndpointId};

    fn start() -> Timestamp {
        Timestamp::from_unix_millis(1_790_000_000_000)
    }

    /// The numbers of each run of attempts that were made of these numbers of a stream, each so many milliseconds after the start.
    fn runs_of(made: &[(EndpointId, i64, u64)]) -> Vec<(i64, i64)> {
        let merchant = MerchantId::new(start());
        let attempts: Vec<Attempt> = made
            .iter()
            .map(|(.., millis)| {
                let at = start().plus(Duration::from_millis(*millis));
                Attempt::acknowledged(1, at, at)
            })
            .collect();
        let mut made: Vec<Made<'_>> = made
            .iter()
            .zip(&attempts)
            .map(|((endpoint, sequence, _), attempt)| Made {
                merchant,
                endpoint: *endpoint,
                event: EventId::new(start()),
                sequence: *sequence,
                attempt,
                endpoint_version: 1,
                request_bytes: None,
            })
            .collect();
        let runs = cut(&mut made);
        let mut next = 1;
        for run in &runs {
            assert_eq!(run.from, next, "nothing is left out, nor kept twice");
            next = run.to + 1;
            let of_run = &made[run.from - 1..run.to];
            let ids = of_run.iter().map(|made| made.attempt.id);
            assert_eq!(run.ids.0, ids.clone().min().unwrap());
            assert_eq!(run.ids.1, ids.max().unwrap());
        }
        assert_eq!(next, made.len() + 1);
        runs.iter().map(|run| run.sequences).collect()
    }

    #[test]
    fn what_lies_close_together_is_one_run_in_whatever_order_it_ended() {
        let endpoint = EndpointId::new(start());
        let made: Vec<_> = [3, 1, 2].map(|sequence| (endpoint, sequence, 9)).to_vec();
        assert_eq!(runs_of(&made), [(1, 3)]);
        let full = i64::try_from(ATTEMPTS_MAX).unwrap();
        let made: Vec<_> = (1..=full + 1)
            .map(|sequence| (endpoint, sequence, 0))
            .collect();
        assert_eq!(runs_of(&made), [(1, full), (full + 1, full + 1)]);
    }

    #[test]
    fn what_is_far_apart_is_not() {
        let (one, other) = (EndpointId::new(start()), EndpointId::new(start()));
        assert_eq!(
            runs_of(&[(one, 1, 0), (one, SEQUENCES_MAX, 0)]),
            [(1, SEQUENCES_MAX)]
        );
        assert_eq!(
            runs_of(&[(one, 1, 0), (one, SEQUENCES_MAX + 1, 0)]).len(),
            2
        );
        assert_eq!(runs_of(&[(one, 1, 0), (other, 2, 0)]).len(), 2);
        assert_eq!(runs_of(&[(one, 1, 5_000), (one, 2, 0)]), [(1, 2)]);
        assert_eq!(runs_of(&[(one, 1, 5_001), (one, 2, 0)]).len(), 2);
        assert!(runs_of(&[]).is_empty());
    }
}
