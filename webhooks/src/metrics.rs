//! What operators watch: how late deliveries are, how many wait, how attempts end.
//!
//! Relay, worker and replayer call the functions here where something happens; the [`Sampler`] asks the database every few seconds for what no process
//! knows alone. The composition decides whether anybody collects them: without a collector each call costs a few nanoseconds.
//!
//! Invariant: the number of series is bounded, whatever merchants do. No label names a merchant, an endpoint or anything that they choose.

use std::time::Duration;

use ::metrics::{Unit, counter, gauge, histogram};
use kernel::{
    clock::{Clock, Timestamp},
    db::Database,
};
use tokio_util::sync::CancellationToken;

use crate::{client::FailureKind, relay::first_waiting, retry::DeadLetterReason};

mod store;

/// How often the [`Sampler`] asks the database: some small statements each time.
pub const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Merchants whose outbox is looked into.
const MERCHANTS_MAX: i64 = 500;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts durations by their length.
    Histogram,
}

/// A metric, as docs/operations.md explains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name; the unit comes last.
    pub name: &'static str,
    /// What it is.
    pub kind: MetricKind,
    /// The unit that its values have.
    pub unit: Unit,
    /// What it says, in a sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($constant:ident, $kind:ident, $unit:ident, $name:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: MetricKind::$kind,
                unit: Unit::$unit,
                help: $help,
            };
        )*

        /// All metrics of the delivery engine.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    DELIVERY_LAG, Gauge, Seconds, "stoa_delivery_lag_seconds",
        "Age of the oldest due delivery, how long it has been due and is not sent: of endpoints whose circuit breaker is closed, and of those where it is open or half open.";
    QUEUE_DEPTH, Gauge, Count, "stoa_queued_deliveries",
        "Deliveries on the queue, due or not, as PostgreSQL's statistics estimate them.";
    ATTEMPTS, Counter, Count, "stoa_attempts_total",
        "Attempts by outcome: succeeded, another class of status, or the word of an error.";
    ATTEMPT_DURATION, Histogram, Seconds, "stoa_attempt_duration_seconds",
        "How long attempts take, from the connection to the end of the answer.";
    IN_FLIGHT, Gauge, Count, "stoa_attempts_in_flight",
        "Attempts under way in this process.";
    LANES_OWNED, Gauge, Count, "stoa_lanes_owned",
        "Endpoints with something due that this process delivers to.";
    BREAKERS, Gauge, Count, "stoa_breakers",
        "Circuit breakers of all endpoints, by state: open or half open where something is to be sent, closed all others.";
    DEAD_LETTERS, Counter, Count, "stoa_dead_letters_total",
        "Deliveries given up on, by reason.";
    RELAY_LAG, Gauge, Seconds, "stoa_relay_lag_seconds",
        "Age of the oldest event that is committed and not yet in any stream.";
    RELAYED_EVENTS, Counter, Count, "stoa_relayed_events_total",
        "Events that this process has moved from the outbox to the history.";
    REPLAYS_RUNNING, Gauge, Count, "stoa_replays_running",
        "Replays that are running, those that wait for their endpoint counted too.";
    REPLAYED_DELIVERIES, Counter, Count, "stoa_replayed_deliveries_total",
        "Deliveries that replays have queued in this process.";
    STREAMS_OPEN, Gauge, Count, "stoa_streams_open",
        "Event streams to clients (SSE and GraphQL subscriptions) that are open in this process.";
}

/// The upper bounds of the buckets of [`ATTEMPT_DURATION`], in seconds, up to the deadline of an attempt.
pub const ATTEMPT_DURATION_BUCKETS_S: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0,
];

/// Tells the collector what each metric is. Once, after it was installed.
pub fn describe() {
    for metric in ALL {
        match metric.kind {
            MetricKind::Counter => {
                ::metrics::describe_counter!(metric.name, metric.unit, metric.help);
            }
            MetricKind::Gauge => ::metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            MetricKind::Histogram => {
                ::metrics::describe_histogram!(metric.name, metric.unit, metric.help);
            }
        }
    }
}

/// Counts an attempt that is over: the status of its answer, or else the word of its error.
pub fn attempt(status: Option<i32>, error: Option<&str>, duration: Duration) {
    counter!(ATTEMPTS.name, "outcome" => outcome(status, error)).increment(1);
    histogram!(ATTEMPT_DURATION.name).record(duration);
}

fn outcome(status: Option<i32>, error: Option<&str>) -> &'static str {
    match status {
        Some(100..=199) => "status_1xx",
        Some(200..=299) => "succeeded",
        Some(300..=399) => "status_3xx",
        Some(400..=499) => "status_4xx",
        Some(500..=599) => "status_5xx",
        Some(_) => "other",
        // Another word counts as `other`, so that the number of series stays what it is.
        None => FailureKind::ALL
            .map(FailureKind::as_str)
            .into_iter()
            .find(|word| error == Some(*word))
            .unwrap_or("other"),
    }
}

/// Says how many attempts are under way.
pub fn in_flight(count: usize) {
    gauge!(IN_FLIGHT.name).set(number(count));
}

/// Says how many lanes this process owns.
pub fn lanes_owned(count: usize) {
    gauge!(LANES_OWNED.name).set(number(count));
}

/// Counts deliveries that were given up on, once that is committed.
pub(crate) fn dead_letters(reason: DeadLetterReason, count: usize) {
    if count > 0 {
        counter!(DEAD_LETTERS.name, "reason" => reason.as_str()).increment(whole(count));
    }
}

/// Counts events that were relayed.
pub fn relayed(count: usize) {
    counter!(RELAYED_EVENTS.name).increment(whole(count));
}

/// Counts deliveries that a replay has queued.
pub(crate) fn replayed(count: usize) {
    counter!(REPLAYED_DELIVERIES.name).increment(whole(count));
}

/// An event stream to a client; counted as open until it is dropped.
#[derive(Debug)]
pub struct OpenStream(());

/// Counts a stream as open for as long as what is given back is kept.
pub fn stream_opened() -> OpenStream {
    gauge!(STREAMS_OPEN.name).increment(1.0);
    OpenStream(())
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(STREAMS_OPEN.name).decrement(1.0);
    }
}

/// Gauges are floats; counts of what a process holds are exact in them.
fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Asks the database for what no process knows alone. One per process with the worker role, and only where somebody collects.
#[derive(Debug, Clone)]
pub struct Sampler {
    database: Database,
    clock: Clock,
}

impl Sampler {
    /// A sampler over the worker role's `database`.
    pub fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock }
    }

    /// Samples until `stop`. While the database is away, the gauges stay as they were.
    pub async fn run(&self, stop: CancellationToken) {
        let sampling = async {
            loop {
                if let Err(error) = self.sample().await {
                    tracing::debug!(error = %error, "the queue could not be measured");
                }
                tokio::time::sleep(SAMPLE_EVERY).await;
            }
        };
        stop.run_until_cancelled(sampling).await;
    }

    /// Measures once, and tells the collector.
    pub async fn sample(&self) -> Result<Sample, kernel::db::Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin_in_order().await?;
        let lanes = store::due_lanes(&mut tx, now).await?;
        let due = store::oldest_due(&mut tx, &lanes, now).await?;
        let lanes = store::resting_lanes(&mut tx).await?;
        let resting = store::oldest_due(&mut tx, &lanes, now).await?;
        let breakers = store::breakers(&mut tx, now).await?;
        let waiting = first_waiting(&mut tx, MERCHANTS_MAX).await?;
        let waiting = waiting.iter().map(|(_, first)| first.made_at()).min();
        let queued = store::queued(&mut tx).await?;
        let replays = store::replays_running(&mut tx).await?;
        tx.commit().await?;
        let age = |since: Option<Timestamp>| since.map_or(Duration::ZERO, |since| now.since(since));
        let count = |count: i64| usize::try_from(count).unwrap_or(0);
        let not_closed = breakers.open.saturating_add(breakers.half_open);
        let sample = Sample {
            delivery_lag: age(due),
            resting_lag: age(resting),
            relay_lag: age(waiting),
            queued: count(queued),
            replays_running: count(replays),
            open: count(breakers.open),
            half_open: count(breakers.half_open),
            closed: count(breakers.lanes.saturating_sub(not_closed)),
        };
        for (breaker, lag) in [
            ("closed", sample.delivery_lag),
            ("open", sample.resting_lag),
        ] {
            gauge!(DELIVERY_LAG.name, "breaker" => breaker).set(lag.as_secs_f64());
        }
        for (state, count) in [
            ("closed", sample.closed),
            ("half_open", sample.half_open),
            ("open", sample.open),
        ] {
            gauge!(BREAKERS.name, "state" => state).set(number(count));
        }
        gauge!(RELAY_LAG.name).set(sample.relay_lag.as_secs_f64());
        gauge!(QUEUE_DEPTH.name).set(number(sample.queued));
        gauge!(REPLAYS_RUNNING.name).set(number(sample.replays_running));
        Ok(sample)
    }
}

/// What the [`Sampler`] has measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How long the oldest due delivery has been due, of endpoints whose breaker is closed.
    pub delivery_lag: Duration,
    /// The same of endpoints whose breaker is open or half open.
    pub resting_lag: Duration,
    /// How long ago the oldest event in the outbox happened, to the millisecond.
    pub relay_lag: Duration,
    /// About how many deliveries are on the queue.
    pub queued: usize,
    /// How many replays are running.
    pub replays_running: usize,
    /// How many breakers are open: until their next probe nothing is sent.
    pub open: usize,
    /// How many let a probe pass, or wait for what comes of it.
    pub half_open: usize,
    /// About how many endpoints there are beside these.
    pub closed: usize,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const OPERATIONS: &str = include_str!("../../docs/operations.md");

    #[test]
    fn the_operators_documentation_explains_each_metric_and_no_other() {
        let (_, section) = OPERATIONS.split_once("\n## Metrics\n").unwrap_or_default();
        let section = section.split("\n## ").next().unwrap_or_default();
        let documented: BTreeSet<&str> = section
            .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .filter(|word| word.starts_with("stoa_"))
            .collect();
        let ours: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(documented, ours);
    }

    #[test]
    fn names_say_what_they_count_in() {
        for metric in ALL {
            assert_eq!(
                metric.kind == MetricKind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert_eq!(
                metric.unit == Unit::Seconds,
                metric.name.ends_with("_seconds"),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn whatever_an_attempt_ends_with_is_one_of_few_outcomes() {
        assert_eq!(outcome(Some(204), None), "succeeded");
        assert_eq!(outcome(Some(410), None), "status_4xx");
        assert_eq!(outcome(Some(999), None), "other");
        assert_eq!(outcome(None, Some("timeout")), "timeout");
        assert_eq!(outcome(None, Some("what a receiver might choose")), "other");
        assert_eq!(outcome(None, None), "other");
    }
}
