//! How an endpoint fares: whether it takes what it is sent, how long it needs, what went wrong last, and how far it is behind.
//!
//! Read by the edge; the worker writes `endpoint_health` when an endpoint begins or ends to fail, and counts attempts by the hour in `endpoint_hours`,
//! their durations in the classes of [`DURATION_CLASSES_MS`]. Invariant: an answer costs the same however long queue and history are.

use kernel::{actor::Actor, clock::Timestamp};
use serde::Serialize;
use sqlx::PgConnection;
use std::time::Duration;

use super::{EndpointId, Status, Visible, store as endpoints};
use crate::{delivery::store::count_queued, error::Error};

pub(crate) mod store;

/// Upper bounds of the classes that durations of attempts are counted in, in milliseconds, inclusive; the last class has none. Each is about half as
/// large again as the one before, so that a percentile is known to a third of itself. Rows hold counts in this order: classes may be added at the end
/// and never in between.
pub const DURATION_CLASSES_MS: [u32; 22] = [
    5, 8, 12, 18, 27, 40, 60, 90, 135, 200, 300, 450, 700, 1_000, 1_500, 2_200, 3_300, 5_000,
    7_500, 10_000, 12_500, 15_000,
];

/// Counts in a row of `endpoint_hours`: one a class, and one for what is beyond the last bound.
pub const CLASSES: usize = DURATION_CLASSES_MS.len() + 1;

/// How far back rates and durations go.
const WINDOW: Duration = Duration::from_hours(24);

/// How far back failed attempts are looked for.
const ERRORS_WITHIN: Duration = Duration::from_hours(7 * 24);

/// Failed attempts that are told of.
const ERRORS_MAX: i64 = 10;

/// Deliveries that are counted at most: who has more knows enough.
const QUEUE_COUNTED_MAX: i64 = 10_000;

/// The class of a duration.
pub fn class_of(duration_ms: u32) -> usize {
    DURATION_CLASSES_MS.partition_point(|bound| *bound < duration_ms)
}

/// The duration that `percent` of the counted attempts did not exceed, as the upper bound of its class; `None` if nothing was counted. What is beyond the
/// last bound counts as that bound: an attempt is given up soon after it.
pub fn percentile_ms(counts: &[u64], percent: u8) -> Option<u32> {
    let total: u128 = counts.iter().map(|count| u128::from(*count)).sum();
    // The rank, rounded up: of three, the second is the median.
    let rank = (total * u128::from(percent.min(100))).div_ceil(100).max(1);
    let mut passed = 0_u128;
    let class = counts.iter().position(|count| {
        passed += u128::from(*count);
        passed >= rank
    })?;
    DURATION_CLASSES_MS
        .get(class)
        .or(DURATION_CLASSES_MS.last())
        .copied()
}

/// How an endpoint fares.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookEndpointHealth)]
pub struct Health {
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// Whether it takes what it is sent.
    pub status: HealthStatus,
    /// Since when nothing but failures came; null if it takes what it is sent.
    #[schema(required)]
    pub failing_since: Option<Timestamp>,
    /// When it last accepted something, as far as that was noted: it is when something changes.
    #[schema(required)]
    pub last_success_at: Option<Timestamp>,
    /// Attempts of the last 24 hours.
    pub last_day: AttemptCounts,
    /// The last ten failed attempts of the last week, the newest first.
    pub last_errors: Vec<FailedAttempt>,
    /// What is still to be sent.
    pub queue: Queue,
}

/// Whether an endpoint takes what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookEndpointHealthStatus)]
pub enum HealthStatus {
    /// It does, or nothing was sent yet.
    Healthy,
    /// Nothing but failures came lately.
    Failing,
    /// Nothing is sent to it.
    Disabled,
}

/// What came of an endpoint's attempts.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookAttemptCounts)]
pub struct AttemptCounts {
    /// Attempts that the receiver accepted.
    pub succeeded: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// The part that the receiver accepted, 0 to 1; null if there were no attempts.
    #[schema(required, minimum = 0, maximum = 1, example = 0.998)]
    pub success_rate: Option<f64>,
    /// Milliseconds that half of the attempts did not exceed, as the upper bound of a class; null if there were none.
    #[schema(required, example = 90)]
    pub p50_ms: Option<u32>,
    /// Milliseconds that 95 of 100 attempts did not exceed.
    #[schema(required, example = 200)]
    pub p95_ms: Option<u32>,
    /// Milliseconds that 99 of 100 attempts did not exceed.
    #[schema(required, example = 450)]
    pub p99_ms: Option<u32>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookFailedAttempt)]
pub struct FailedAttempt {
    /// The number of the event in the endpoint's stream.
    pub sequence: i64,
    /// When the attempt began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: i32,
    /// The HTTP status of the answer; null if there was none.
    #[schema(required, example = 503)]
    pub status: Option<i32>,
    /// Why there was no answer.
    #[schema(required, example = "timeout")]
    pub error: Option<String>,
}

/// What is still to be sent to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookQueue)]
pub struct Queue {
    /// Deliveries on the queue, also those that wait for another attempt; counted up to 10,000.
    pub count: i64,
    /// Whether there are more than were counted.
    pub has_more: bool,
    /// Since when the oldest delivery that could be sent is due; null if none is.
    #[schema(required)]
    pub oldest_due_at: Option<Timestamp>,
    /// For how many seconds that is.
    #[schema(required, example = 12)]
    pub oldest_due_seconds: Option<u64>,
}

/// How an endpoint that the actor sees fares at `now`.
pub async fn get(
    tx: &mut PgConnection,
    actor: &Actor,
    id: EndpointId,
    now: Timestamp,
) -> Result<Health, Error> {
    actor.access.require(kernel::scope::Scope::WebhooksRead)?;
    let endpoint = endpoints::find(&mut *tx, Visible::to(actor), id)
        .await?
        .ok_or(Error::EndpointNotFound(id))?;
    let merchant = actor.merchant;
    let noted = store::noted(&mut *tx, merchant, id).await?;
    let hours = store::hours(&mut *tx, merchant, id, now.minus(WINDOW)).await?;
    let errors_since = now.minus(ERRORS_WITHIN);
    let last_errors = store::last_errors(&mut *tx, merchant, id, errors_since, ERRORS_MAX).await?;
    let counted = count_queued(&mut *tx, merchant, id, QUEUE_COUNTED_MAX + 1).await?;
    let oldest_due_at = store::oldest_due(tx, merchant, id, now).await?;
    let status = match (endpoint.status, noted.failing_since) {
        (Status::Disabled, _) => HealthStatus::Disabled,
        (Status::Enabled, Some(_)) => HealthStatus::Failing,
        (Status::Enabled, None) => HealthStatus::Healthy,
    };
    Ok(Health {
        endpoint_id: id,
        status,
        failing_since: noted.failing_since,
        last_success_at: noted.last_success_at,
        last_day: AttemptCounts::of(&hours),
        last_errors,
        queue: Queue {
            count: counted.min(QUEUE_COUNTED_MAX),
            has_more: counted > QUEUE_COUNTED_MAX,
            oldest_due_at,
            oldest_due_seconds: oldest_due_at.map(|due| now.since(due).as_secs()),
        },
    })
}

/// What was counted in an hour.
struct Hour {
    succeeded: u64,
    failed: u64,
    durations: Vec<u64>,
}

impl AttemptCounts {
    fn of(hours: &[Hour]) -> Self {
        let succeeded = hours.iter().map(|hour| hour.succeeded).sum();
        let failed = hours.iter().map(|hour| hour.failed).sum();
        let mut durations = [0_u64; CLASSES];
        for hour in hours {
            for (sum, count) in durations.iter_mut().zip(&hour.durations) {
                *sum = sum.saturating_add(*count);
            }
        }
        Self {
            succeeded,
            failed,
            success_rate: rate(succeeded, failed),
            p50_ms: percentile_ms(&durations, 50),
            p95_ms: percentile_ms(&durations, 95),
            p99_ms: percentile_ms(&durations, 99),
        }
    }
}

/// The part of the attempts that succeeded, to four digits.
#[allow(
    clippy::float_arithmetic,
    reason = "a rate for people to look at, and no money"
)]
fn rate(succeeded: u64, failed: u64) -> Option<f64> {
    let total = u128::from(succeeded) + u128::from(failed);
    let part = (u128::from(succeeded) * 10_000).checked_div(total)?;
    Some(f64::from(u16::try_from(part).ok()?) / 10_000.0)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test fails by panicking"
    )]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_duration_is_in_the_first_class_that_holds_it() {
        for (duration, class) in [(0, 0), (5, 0), (6, 1), (15_000, 21), (15_001, 22)] {
            assert_eq!(class_of(duration), class, "{duration} ms");
        }
        assert_eq!(class_of(u32::MAX), CLASSES - 1);
        assert!(DURATION_CLASSES_MS.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn nothing_has_no_percentile() {
        assert_eq!(percentile_ms(&[], 50), None);
        assert_eq!(percentile_ms(&[0; CLASSES], 99), None);
        assert_eq!(rate(0, 0), None);
    }

    #[test]
    fn rates_are_cut_rather_than_rounded_to_a_success_that_was_none() {
        assert_eq!(rate(1, 0), Some(1.0));
        assert_eq!(rate(99_999, 1), Some(0.9999));
        assert_eq!(rate(0, 7), Some(0.0));
    }

    proptest! {
        #[test]
        fn a_percentile_is_the_bound_of_the_class_that_the_sorted_durations_have_there(
            mut durations in proptest::collection::vec(0_u32..20_000, 1..200),
            percent in 1_u8..=100,
        ) {
            let mut counts = [0_u64; CLASSES];
            for duration in &durations {
                counts[class_of(*duration)] += 1;
            }
            durations.sort_unstable();
            let rank = (durations.len() * usize::from(percent)).div_ceil(100);
            let class = class_of(durations[rank - 1]);
            let bound = DURATION_CLASSES_MS.get(class).copied().unwrap_or(15_000);
            prop_assert_eq!(percentile_ms(&counts, percent), Some(bound));
        }
    }
}
