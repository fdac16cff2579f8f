//! What comes after an attempt: a pure function of its outcome.
//!
//! Called by the worker when an attempt is over. Nothing here reads a clock, a random number or a database, so that a table of inputs is
//! the whole test.

use std::time::Duration;

use kernel::clock::Timestamp;

use crate::client::{Outcome, RetryAfter};

/// Longest wait that a receiver's `Retry-After` is granted: as long as the schedule's own longest.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// How far a delay may differ from the schedule's, in hundredths, so that what failed together does not come back together.
const JITTER_PERCENT: u64 = 20;

/// The waits between attempts: after the first attempt the first, and so on. One attempt more than there are waits is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    waits: Vec<Duration>,
}

impl Schedule {
    /// A schedule of these waits; none at all means a single attempt.
    pub fn new(waits: Vec<Duration>) -> Self {
        Self { waits }
    }

    /// How many attempts are made before a delivery is given up on.
    pub fn attempts_max(&self) -> u32 {
        u32::try_from(self.waits.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1)
    }

    fn wait_after(&self, attempt: u32) -> Option<Duration> {
        let place = usize::try_from(attempt.checked_sub(1)?).ok()?;
        self.waits.get(place).copied()
    }
}

impl Default for Schedule {
    /// Twelve attempts over three days and four hours. The short waits at first are for restarts and passing faults, the long ones for a
    /// weekend without anybody at work; no wait is longer than a day, so a receiver that was mended hears of it the next day at the latest.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let seconds = [
            5,
            30,
            2 * MINUTE,
            10 * MINUTE,
            30 * MINUTE,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ];
        Self::new(seconds.into_iter().map(Duration::from_secs).collect())
    }
}

/// Where between its bounds a delay falls: 0 for the shortest, `u32::MAX` for the longest. An integer in place of a fraction from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jitter(pub u32);

impl Jitter {
    /// A random one.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

/// What is to be done with a delivery after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The receiver has taken it: it leaves the queue.
    Delivered,
    /// It is due again at this time.
    RetryAt(Timestamp),
    /// It is given up on.
    DeadLetter(DeadLetterReason),
    /// The receiver is gone for good (410): its endpoint is disabled, and this delivery given up on.
    DisableEndpoint,
}

/// Why a delivery was given up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterReason {
    /// The schedule's last attempt failed.
    AttemptsExhausted,
    /// The receiver answered 410.
    EndpointGone,
}

impl DeadLetterReason {
    /// The word that is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::EndpointGone => "endpoint_gone",
        }
    }
}

/// Decides after attempt number `attempt` (the first is 1) ended with `outcome` at `now`.
///
/// Any 2xx is a delivery. Everything else is tried again, 4xx as well: a receiver under repair answers what it will, and only 410 says
/// that it won't be back. `Retry-After` can put the next attempt off, up to [`RETRY_AFTER_MAX`], but not forward, and adds no attempts.
pub fn decide(
    schedule: &Schedule,
    attempt: u32,
    outcome: &Outcome,
    now: Timestamp,
    jitter: Jitter,
) -> Decision {
    let retry_after = match &outcome.result {
        Ok(answer) if (200..300).contains(&answer.status) => return Decision::Delivered,
        Ok(answer) if answer.status == 410 => return Decision::DisableEndpoint,
        Ok(answer) => answer.retry_after,
        Err(_) => None,
    };
    let Some(wait) = schedule.wait_after(attempt) else {
        return Decision::DeadLetter(DeadLetterReason::AttemptsExhausted);
    };
    let asked = match retry_after {
        None => Duration::ZERO,
        Some(RetryAfter::In(wait)) => wait,
        Some(RetryAfter::At(time)) => time.since(now),
    };
    Decision::RetryAt(now.plus(jittered(wait, jitter).max(asked.min(RETRY_AFTER_MAX))))
}

/// From 80% to 120% of the wait.
fn jittered(wait: Duration, jitter: Jitter) -> Duration {
    let micros = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
    let spread = u128::from(micros).saturating_mul(u128::from(JITTER_PERCENT)) / 100;
    let lowest = u128::from(micros).saturating_sub(spread);
    let above = spread
        .saturating_mul(2)
        .saturating_mul(u128::from(jitter.0))
        / u128::from(u32::MAX);
    Duration::from_micros(u64::try_from(lowest.saturating_add(above)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use proptest::prelude::*;

    use super::*;
    use crate::client::{Answer, Failure, FailureKind};

    const MIDDLE: Jitter = Jitter(u32::MAX / 2 + 1);
    const NOW_MILLIS: i64 = 1_700_000_000_000;

    fn now() -> Timestamp {
        Timestamp::from_unix_millis(NOW_MILLIS)
    }

    fn answered(status: u16, retry_after: Option<RetryAfter>) -> Outcome {
        Outcome {
            result: Ok(Answer {
                status,
                retry_after,
                excerpt: String::new(),
            }),
            duration: Duration::ZERO,
        }
    }

    fn failed(kind: FailureKind) -> Outcome {
        Outcome {
            result: Err(Failure {
                kind,
                detail: String::new(),
            }),
            duration: Duration::ZERO,
        }
    }

    fn wait(decision: Decision) -> Duration {
        match decision {
            Decision::RetryAt(at) => at.since(now()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_schedule_spans_about_three_days() {
        let schedule = Schedule::default();
        assert_eq!(schedule.attempts_max(), 12);
        let total: Duration = schedule.waits.iter().sum();
        assert!((70..=80).contains(&(total.as_secs() / 3_600)), "{total:?}");
        assert!(schedule.waits.is_sorted());
    }

    #[test]
    fn each_outcome_has_its_decision() {
        let schedule = Schedule::new(vec![Duration::from_secs(10), Duration::from_secs(100)]);
        let seconds = |seconds| Decision::RetryAt(now().plus(Duration::from_secs(seconds)));
        let exhausted = Decision::DeadLetter(DeadLetterReason::AttemptsExhausted);
        let after = |seconds| Some(RetryAfter::In(Duration::from_secs(seconds)));
        let at = |seconds| Some(RetryAfter::At(now().plus(Duration::from_secs(seconds))));
        let past = Some(RetryAfter::At(now().minus(Duration::from_mins(1))));
        for (attempt, outcome, expected) in [
            (1, answered(200, None), Decision::Delivered),
            (1, answered(204, None), Decision::Delivered),
            (3, answered(299, None), Decision::Delivered),
            (1, answered(410, None), Decision::DisableEndpoint),
            (3, answered(410, None), Decision::DisableEndpoint),
            (1, answered(301, None), seconds(10)),
            (1, answered(400, None), seconds(10)),
            (2, answered(404, None), seconds(100)),
            (2, answered(500, None), seconds(100)),
            (3, answered(500, None), exhausted),
            (4, answered(500, None), exhausted),
            (3, answered(503, after(5)), exhausted),
            (1, answered(503, after(5)), seconds(10)),
            (1, answered(503, after(60)), seconds(60)),
            (1, answered(429, at(61)), seconds(61)),
            (1, answered(429, past), seconds(10)),
            (
                1,
                answered(503, after(u64::MAX)),
                Decision::RetryAt(now().plus(RETRY_AFTER_MAX)),
            ),
            (1, failed(FailureKind::Timeout), seconds(10)),
            (2, failed(FailureKind::RefusedAddress), seconds(100)),
            (3, failed(FailureKind::Connect), exhausted),
        ] {
            let decision = decide(&schedule, attempt, &outcome, now(), MIDDLE);
            assert_eq!(decision, expected, "attempt {attempt}, {outcome:?}");
        }
    }

    #[test]
    fn jitter_spans_a_fifth_to_either_side() {
        let schedule = Schedule::new(vec![Duration::from_secs(100)]);
        let with = |jitter| {
            wait(decide(
                &schedule,
                1,
                &failed(FailureKind::Dns),
                now(),
                Jitter(jitter),
            ))
        };
        assert_eq!(with(0), Duration::from_secs(80));
        assert_eq!(with(u32::MAX), Duration::from_mins(2));
    }

    proptest! {
        #[test]
        fn a_retry_is_never_sooner_than_asked_nor_later_than_both_bounds(
            attempt in 1_u32..=11,
            status in prop_oneof![300_u16..410, 411_u16..=599],
            asked in proptest::option::of(0_u64..200_000),
            jitter: u32,
        ) {
            let schedule = Schedule::default();
            let outcome = answered(status, asked.map(|seconds| RetryAfter::In(Duration::from_secs(seconds))));
            let waited = wait(decide(&schedule, attempt, &outcome, now(), Jitter(jitter)));
            let planned = schedule.wait_after(attempt).unwrap();
            let asked = Duration::from_secs(asked.unwrap_or(0)).min(RETRY_AFTER_MAX);
            prop_assert!(waited >= asked);
            prop_assert!(waited >= planned * 4 / 5);
            prop_assert!(waited <= asked.max(planned * 6 / 5));
        }

        #[test]
        fn every_delivery_comes_to_an_end(jitter: u32, status in 300_u16..=599) {
            let schedule = Schedule::default();
            let ended = (1..=schedule.attempts_max())
                .map(|attempt| decide(&schedule, attempt, &answered(status, None), now(), Jitter(jitter)))
                .any(|decision| !matches!(decision, Decision::RetryAt(_)));
            prop_assert!(ended);
        }
    }
}
