//! How fast one endpoint is sent to: how many requests it has in flight at once, which follows how it copes, and how many a second, which its owner says.
//!
//! Used by `lanes`. Pure: times are arguments. Both are decisions in memory, because one process owns an endpoint.

use std::time::Duration;

use kernel::clock::Timestamp;

/// The window that an endpoint starts with: enough not to wait for it, few enough to bear it hanging.
pub(super) const WINDOW_START: usize = 8;

/// An endpoint is overloaded when it takes more than twice as long as at its best, and by more than this: below, the difference is the network's.
const SLOWER_BY: Duration = Duration::from_millis(50);

/// How long the shortest time counts; then it is measured anew from the first window, for a receiver that has moved.
const BEST_KEPT_FOR: Duration = Duration::from_mins(5);

/// How much of a second's requests may go at once, so that short waits do not cost the rate.
const BURST_DIVISOR: u32 = 10;

/// Requests that may be in flight to one endpoint: opens while it accepts as fast as at its best, narrows while it gets slower, halves when it fails.
///
/// Additive increase and multiplicative decrease, with the delay as the earlier sign (TCP Vegas, Brakmo and Peterson 1995).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    size: usize,
    /// The shortest that it took, and since when that is measured.
    best: Option<(Duration, Timestamp)>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            size: WINDOW_START,
            best: None,
        }
    }

    /// Requests that may be in flight; at least one, at most `limit`.
    pub(super) fn size(&self, limit: usize) -> usize {
        self.size.min(limit).max(1)
    }

    /// A request was accepted after so long, at `now`.
    pub(super) fn accepted(&mut self, duration: Duration, limit: usize, now: Timestamp) {
        let (best, since) = match self.best {
            Some((best, since)) if now.since(since) < BEST_KEPT_FOR => (best, since),
            Some(_) => {
                self.size = self.size.min(WINDOW_START);
                (duration, now)
            }
            None => (duration, now),
        };
        self.best = Some((duration.min(best), since));
        if duration > best.saturating_mul(2).saturating_add(SLOWER_BY) {
            let narrower = self.size.saturating_sub((self.size / 16).max(1));
            self.size = narrower.max(WINDOW_START.min(self.size));
        } else {
            self.size = self.size.saturating_add(1).min(limit.max(1));
        }
    }

    /// A request failed.
    pub(super) fn failed(&mut self) {
        self.size = (self.size / 2).max(1);
    }
}

/// A limit of requests a second (the generic cell rate algorithm, ITU-T I.371): evenly spaced, with a tenth of a second's requests at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    per_second: u32,
    /// When the next request would be due if all were evenly spaced.
    expected: Timestamp,
}

impl Rate {
    /// A limit of so many a second, of which none was used; at least one.
    pub(super) fn new(per_second: u32, now: Timestamp) -> Self {
        Self {
            per_second: per_second.max(1),
            expected: now,
        }
    }

    pub(super) fn per_second(&self) -> u32 {
        self.per_second
    }

    fn spacing(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }

    /// From when on a request may be sent.
    pub(super) fn free_at(&self) -> Timestamp {
        let burst = (self.per_second / BURST_DIVISOR).max(1);
        self.expected
            .minus(self.spacing().saturating_mul(burst.saturating_sub(1)))
    }

    /// A request is sent at `now`.
    pub(super) fn take(&mut self, now: Timestamp) {
        self.expected = self.expected.max(now).plus(self.spacing());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis)
    }

    #[test]
    fn it_opens_for_a_receiver_that_keeps_its_pace_and_never_beyond_the_limit() {
        let mut window = Window::new();
        for _ in 0..1_000 {
            window.accepted(millis(5), LIMIT, at(0));
        }
        assert_eq!(window.size(LIMIT), LIMIT);
        assert_eq!(window.size(3), 3);
    }

    /// A receiver that works on four at a time, each for a tenth of a second, and lets the others wait.
    #[test]
    fn it_settles_where_a_receiver_begins_to_let_requests_wait() {
        let mut window = Window::new();
        let mut sizes = Vec::new();
        for _ in 0..2_000 {
            let size = window.size(LIMIT);
            sizes.push(size);
            let waits = u64::try_from(size.div_ceil(4)).unwrap_or(u64::MAX);
            window.accepted(millis(100 * waits), LIMIT, at(0));
        }
        let last = sizes.iter().rev().take(500).copied().max();
        assert!(
            last.is_some_and(|most| most <= 4 * WINDOW_START),
            "{last:?}"
        );
    }

    #[test]
    fn a_receiver_that_has_moved_away_is_measured_anew() {
        let mut window = Window::new();
        let mut accept = |duration, at| {
            for _ in 0..200 {
                window.accepted(duration, LIMIT, at);
            }
            window.size(LIMIT)
        };
        assert_eq!(accept(millis(5), at(0)), LIMIT);
        assert_eq!(accept(millis(200), at(1_000)), WINDOW_START);
        let later = at(0).plus(BEST_KEPT_FOR);
        assert_eq!(accept(millis(200), later), LIMIT);
    }

    #[test]
    fn it_narrows_to_one_while_a_receiver_fails() {
        let mut window = Window::new();
        for _ in 0..10 {
            window.failed();
        }
        assert_eq!(window.size(LIMIT), 1);
        window.accepted(millis(5), LIMIT, at(0));
        assert_eq!(window.size(LIMIT), 2);
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_rate_and_a_tenth(
            per_second in 1_u32..500,
            pauses in proptest::collection::vec(0_i64..400, 1..200),
        ) {
            let mut rate = Rate::new(per_second, at(0));
            let (mut now, mut sent) = (at(0), Vec::new());
            for pause in pauses {
                now = now.plus(millis(u64::try_from(pause).unwrap_or(0)));
                while rate.free_at() <= now && sent.len() < 5_000 {
                    rate.take(now);
                    sent.push(now);
                }
            }
            let most = usize::try_from(per_second + (per_second / BURST_DIVISOR).max(1)).unwrap_or(0);
            // The send that is one more than may be within a second comes a second later.
            for (earlier, later) in sent.iter().zip(sent.iter().skip(most)) {
                prop_assert!(later.since(*earlier) >= Duration::from_secs(1));
            }
        }

        #[test]
        fn whoever_is_always_waiting_gets_the_whole_rate(per_second in 1_u32..500) {
            let mut rate = Rate::new(per_second, at(0));
            let mut sent = 0_u32;
            let mut now = at(0);
            while now < at(10_000) {
                if rate.free_at() <= now {
                    rate.take(now);
                    sent += 1;
                } else {
                    now = rate.free_at();
                }
            }
            prop_assert!(sent >= per_second * 10 - 1, "{sent}");
        }
    }
}
