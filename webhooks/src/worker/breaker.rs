//! The circuit breaker of one endpoint: after a row of failures nothing is sent to it for a while, then one probe, and more once that is accepted.
//!
//! Used by `lanes`. Pure: the time is an argument. While it is open no delivery is attempted, so none uses up its attempts; the pauses double, and an
//! endpoint that was mended is noticed after [`REST_MAX`] at the latest.

use std::time::Duration;

use kernel::clock::Timestamp;

pub(super) mod store;

/// Failures in a row that open a closed breaker: more than a passing fault makes, few enough to spare a receiver that is down.
const FAILURES_MAX: u32 = 10;

/// How long it stays open at first; doubled each time that a probe fails, up to the most.
const REST_FIRST: Duration = Duration::from_secs(1);

/// The longest that it stays open: how long a receiver that was mended waits at worst for its next event.
pub(super) const REST_MAX: Duration = Duration::from_mins(5);

/// Whether an endpoint is sent anything, and how often it has not been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Breaker {
    state: State,
    /// How often it has opened since something was accepted.
    openings: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Everything passes.
    Closed {
        /// Failures since something was accepted.
        failures: u32,
    },
    /// Nothing passes until then.
    Open {
        /// When it is half open.
        until: Timestamp,
    },
    /// One probe passes.
    HalfOpen,
}

impl Breaker {
    /// The breaker of an endpoint that had opened so often when it was last seen: one that had is probed first.
    pub(super) fn new(openings: u32) -> Self {
        let state = if openings == 0 {
            State::Closed { failures: 0 }
        } else {
            State::HalfOpen
        };
        Self { state, openings }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// How often it has opened since something was accepted, for the next owner.
    pub(super) fn openings(&self) -> u32 {
        self.openings
    }

    /// Whether a request may be sent beside so many that are in flight.
    pub(super) fn lets_pass(&self, in_flight: usize) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::HalfOpen => in_flight == 0,
            State::Open { .. } => false,
        }
    }

    /// Something was accepted.
    pub(super) fn accepted(&mut self) {
        *self = Self::new(0);
    }

    /// Something failed, at `now`. What fails after it has opened was sent before, and says nothing new.
    pub(super) fn failed(&mut self, now: Timestamp) {
        match self.state {
            State::Closed { failures } if failures.saturating_add(1) < FAILURES_MAX => {
                self.state = State::Closed {
                    failures: failures.saturating_add(1),
                };
            }
            State::Closed { .. } | State::HalfOpen => {
                self.state = State::Open {
                    until: now.plus(rest(self.openings)),
                };
                self.openings = self.openings.saturating_add(1);
            }
            State::Open { .. } => {}
        }
    }
}

/// How long it rests that had opened so often before.
fn rest(openings: u32) -> Duration {
    REST_FIRST
        .saturating_mul(2_u32.saturating_pow(openings))
        .min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(seconds.saturating_mul(1_000))
    }

    #[test]
    fn a_row_of_failures_opens_it_and_one_success_between_does_not() {
        let mut breaker = Breaker::new(0);
        for _ in 0..3 {
            for _ in 1..FAILURES_MAX {
                breaker.failed(at(0));
            }
            assert!(breaker.lets_pass(5));
            breaker.accepted();
        }
        for _ in 0..FAILURES_MAX {
            breaker.failed(at(7));
        }
        assert_eq!(breaker.state(), State::Open { until: at(8) });
        assert!(!breaker.lets_pass(0));
        // Those that were on their way.
        breaker.failed(at(9));
        assert_eq!(
            (breaker.state(), breaker.openings()),
            (State::Open { until: at(8) }, 1)
        );
    }

    #[test]
    fn it_is_probed_by_one_at_a_time_and_rests_longer_each_time_up_to_a_bound() {
        let mut expected = REST_FIRST;
        for openings in 1..40 {
            let mut breaker = Breaker::new(openings);
            assert!(breaker.lets_pass(0) && !breaker.lets_pass(1));
            breaker.failed(at(0));
            expected = (expected * 2).min(REST_MAX);
            assert_eq!(
                breaker.state(),
                State::Open {
                    until: at(0).plus(expected)
                }
            );
            assert_eq!(breaker.openings(), openings + 1);
        }
        assert_eq!(expected, REST_MAX);
    }

    #[test]
    fn a_probe_that_is_accepted_closes_it() {
        let mut breaker = Breaker::new(5);
        breaker.accepted();
        assert_eq!(
            (breaker.state(), breaker.openings()),
            (State::Closed { failures: 0 }, 0)
        );
    }
}
