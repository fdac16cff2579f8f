//! Deliveries: what is still to be sent, and what comes of each attempt.
//!
//! Used by the worker. A row of `deliveries` is a task of the queue; one that succeeds leaves it, one that is given up on moves to the
//! dead letters. Cost follows what is due, never history.
//!
//! Invariants: a lane has one owner at a time, and what a former owner reports changes nothing: a settling transaction holds its lanes against a
//! change of owner, and counts only what was sent under the fence that they have. A lane is let go of only if nothing was added to it since its
//! owner looked.

use std::{sync::Arc, time::Duration};

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{EventId, Id, Kind, MerchantId, RequestId},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{
    client::Outcome,
    endpoint::{self, DisabledReason, EndpointId},
    event::{Event, Receiver},
    retry::{DeadLetterReason, Decision},
};

pub(crate) mod fare;
pub(crate) mod runs;
pub(crate) mod store;

/// The id of an [`Attempt`]: `att_…`.
pub type AttemptId = Id<Attempt>;

impl Kind for Attempt {
    const PREFIX: &'static str = "att";
}

/// One attempt at a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookAttempt)]
pub struct Attempt {
    /// The attempt's id.
    pub id: AttemptId,
    /// Which attempt it was: 1, 2, 3 …; a replay begins at 1 again.
    pub number: i32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: i32,
    /// The HTTP status of the answer; null if there was none.
    #[schema(required, example = 503)]
    pub status: Option<i32>,
    /// Why there was no answer: `dns`, `refused_address`, `connect`, `tls`, `authentication`, `timeout`, `protocol`, `transformation` or
    /// `internal`.
    #[schema(required, example = "timeout")]
    pub error: Option<String>,
    /// The beginning of the answer.
    #[schema(required)]
    pub answer_excerpt: Option<String>,
}

/// What an acknowledgement counts as: an answer that accepts.
const ACKNOWLEDGED_STATUS: i32 = 200;

/// Whether an attempt was accepted that was answered with this status, if at all: any 2xx.
pub(crate) fn is_accepted(status: Option<i32>) -> bool {
    status.is_some_and(|status| (200..300).contains(&status))
}

impl Attempt {
    /// An event that was leased at that time and is acknowledged now.
    pub(crate) fn acknowledged(number: i32, leased_at: Timestamp, now: Timestamp) -> Self {
        let duration = now.since(leased_at);
        Self {
            id: AttemptId::new(leased_at),
            number,
            started_at: leased_at,
            duration_ms: i32::try_from(duration.as_millis()).unwrap_or(i32::MAX),
            status: Some(ACKNOWLEDGED_STATUS),
            error: None,
            answer_excerpt: None,
        }
    }

    pub(crate) fn new(number: i32, started_at: Timestamp, outcome: &Outcome) -> Self {
        let (status, error, answer_excerpt) = match &outcome.result {
            Ok(answer) => (
                Some(i32::from(answer.status)),
                None,
                Some(answer.excerpt.clone()),
            ),
            Err(failure) => (None, Some(failure.kind.as_str().to_owned()), None),
        };
        Self {
            id: AttemptId::new(started_at),
            number,
            started_at,
            duration_ms: i32::try_from(outcome.duration.as_millis()).unwrap_or(i32::MAX),
            status,
            error,
            answer_excerpt,
        }
    }
}

/// A process that owns lanes. Not an id that anybody sees.
#[derive(Debug)]
pub(crate) enum Owner {}

impl Kind for Owner {
    const PREFIX: &'static str = "own";
}

pub(crate) type OwnerId = Id<Owner>;

/// What a lane's row says of what was added to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Signal {
    /// How often something was.
    pub(crate) number: i64,
    /// The latest time at which something was due that was added.
    pub(crate) added_at: Option<Timestamp>,
    /// The last number by which something was added that was not due after that.
    pub(crate) unordered_number: i64,
}

impl Signal {
    /// The time after which everything is due that was added since it was `seen`; `None` if there is none.
    pub(crate) fn added_after(self, seen: Self) -> Option<Timestamp> {
        seen.added_at
            .filter(|_| self.unordered_number <= seen.number)
    }
}

/// A lane as it was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) endpoint: EndpointId,
    pub(crate) merchant: MerchantId,
    /// Which ownership this is; every change of owner raises it.
    pub(crate) fence: i64,
    /// What had been added when it was last looked at.
    pub(crate) signal: Signal,
}

/// A delivery by its key: its merchant, its endpoint, and its number in the endpoint's stream.
pub(crate) type Place = (MerchantId, EndpointId, i64);

/// A delivery that is due.
#[allow(clippy::struct_field_names, reason = "the column's name")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) merchant: MerchantId,
    pub(crate) endpoint: EndpointId,
    pub(crate) sequence: i64,
    pub(crate) event: EventId,
    /// Attempts made so far.
    pub(crate) attempt_count: i32,
    pub(crate) due_at: Timestamp,
    /// 0: somebody waits for it; 1: bulk.
    pub(crate) priority: i16,
    /// The resource, if its deliveries wait for one another.
    pub(crate) resource_key: Option<i64>,
    /// Bytes of the event's data.
    pub(crate) data_bytes: i32,
}

/// Where a lane's deliveries go, and what may be seen there, as the database has it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: EndpointId,
    pub(crate) merchant: MerchantId,
    /// `None`: nothing is to be sent.
    pub(crate) url: Option<String>,
    pub(crate) receiver: Receiver,
    /// The version of the endpoint.
    pub(crate) version: i64,
    /// Whether something was taken at its URL before.
    pub(crate) is_verified: bool,
}

/// An attempt that is over, and what was decided.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) lease: Lease,
    pub(crate) sequence: i64,
    pub(crate) event: Arc<Event>,
    pub(crate) attempt: Attempt,
    /// The URL that it was sent to, as the endpoint had it then. A 410 speaks for that one alone.
    pub(crate) url: String,
    /// The version of the endpoint that it was sent for.
    pub(crate) endpoint_version: i64,
    /// Bytes of the body that was sent.
    pub(crate) request_bytes: i32,
    /// Whether nothing had been taken at its URL before, as far as was known.
    pub(crate) is_first: bool,
    pub(crate) decision: Decision,
}

/// An attempt, and what it was at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made<'m> {
    pub(crate) merchant: MerchantId,
    pub(crate) endpoint: EndpointId,
    pub(crate) event: EventId,
    pub(crate) sequence: i64,
    pub(crate) attempt: &'m Attempt,
    /// The version of the endpoint that it was made for.
    pub(crate) endpoint_version: i64,
    /// Bytes of the body that was sent, if one was.
    pub(crate) request_bytes: Option<i32>,
}

impl Report {
    fn place(&self) -> Place {
        (self.lease.merchant, self.lease.endpoint, self.sequence)
    }

    fn made(&self) -> Made<'_> {
        Made {
            merchant: self.lease.merchant,
            endpoint: self.lease.endpoint,
            event: self.event.id,
            sequence: self.sequence,
            attempt: &self.attempt,
            endpoint_version: self.endpoint_version,
            request_bytes: Some(self.request_bytes),
        }
    }

    /// When the attempt was over.
    pub(crate) fn ended_at(&self) -> Timestamp {
        let duration = u64::try_from(self.attempt.duration_ms).unwrap_or(0);
        self.attempt
            .started_at
            .plus(Duration::from_millis(duration))
    }

    /// The time before which the delivery is not due again; `None` if it is over: taken, or given up on. What was answered with 410 may be sent again to where
    /// its endpoint has moved meanwhile, before anything that waits behind it.
    pub(crate) fn again_at(&self) -> Option<Timestamp> {
        match self.decision {
            Decision::Delivered | Decision::DeadLetter(_) => None,
            Decision::RetryAt(due_at) => Some(due_at),
            Decision::DisableEndpoint => Some(self.attempt.started_at),
        }
    }
}

/// What settling has come to.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// For each report, whether it counted.
    pub(crate) counted: Vec<bool>,
    /// Why deliveries were given up on, once for each that was.
    pub(crate) buried: Vec<DeadLetterReason>,
    /// Merchants for whom events were appended.
    pub(crate) announced: Vec<MerchantId>,
}

/// Records what came of some attempts, by arrays, in the transaction that is given. What was sent under another fence is passed over.
pub(crate) async fn settle(
    tx: &mut PgConnection,
    owner: OwnerId,
    reports: &[&Report],
    now: Timestamp,
) -> Result<Settled, crate::error::Error> {
    let mut endpoints: Vec<EndpointId> =
        reports.iter().map(|report| report.lease.endpoint).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    let held = store::hold(&mut *tx, owner, &endpoints).await?;
    let counts = |lease: Lease| held.get(&lease.endpoint) == Some(&lease.fence);
    let counted: Vec<bool> = reports.iter().map(|report| counts(report.lease)).collect();
    let valid: Vec<&Report> = reports
        .iter()
        .zip(&counted)
        .filter(|(_, counted)| **counted)
        .map(|(report, _)| *report)
        .collect();
    record(&mut *tx, valid.iter().map(|report| report.made())).await?;
    let mut announced = fare::note(&mut *tx, &valid, now).await?;

    let mut over = Vec::new();
    let mut again = Vec::new();
    let mut dead = Vec::new();
    for report in valid {
        match report.decision {
            Decision::Delivered => over.push(report.place()),
            Decision::RetryAt(due_at) => again.push((report, due_at)),
            Decision::DeadLetter(reason) => dead.push((report, reason)),
            Decision::DisableEndpoint => {
                if disable(&mut *tx, report, now).await? {
                    announced.push(report.lease.merchant);
                    dead.push((report, DeadLetterReason::EndpointGone));
                } else {
                    // Its endpoint has moved, or is disabled already: what is still wanted of it is sent to where it then goes.
                    again.push((report, now));
                }
            }
        }
    }
    store::reschedule(&mut *tx, &again).await?;
    let mut buried = Vec::with_capacity(dead.len());
    for (report, reason) in dead {
        crate::dead_letter::bury(&mut *tx, report, reason, now).await?;
        over.push(report.place());
        buried.push(reason);
    }
    store::remove(&mut *tx, over).await?;
    Ok(Settled {
        counted,
        buried,
        announced,
    })
}

/// Writes attempts down.
pub(crate) async fn record<'m>(
    tx: &mut PgConnection,
    made: impl Iterator<Item = Made<'m>>,
) -> Result<(), Error> {
    let (mut accepted, others): (Vec<Made<'_>>, Vec<Made<'_>>) =
        made.partition(|made| is_accepted(made.attempt.status));
    let runs = runs::cut(&mut accepted);
    store::insert_runs(&mut *tx, &accepted, &runs).await?;
    store::insert_attempts(tx, &others).await
}

/// Disables the endpoint whose receiver said that it is gone. False if it no longer goes there.
async fn disable(
    tx: &mut PgConnection,
    report: &Report,
    now: Timestamp,
) -> Result<bool, crate::error::Error> {
    let Lease {
        endpoint, merchant, ..
    } = report.lease;
    let disabled = endpoint::store::disable(
        &mut *tx,
        merchant,
        endpoint,
        &report.url,
        DisabledReason::Gone,
        now,
    )
    .await?;
    let Some(endpoint) = disabled else {
        return Ok(false);
    };
    endpoint::announce(tx, merchant, RequestId::new(now), now, &endpoint).await?;
    Ok(true)
}

/// The attempts at one event of an endpoint's stream, in the order in which they began.
pub(crate) async fn attempts(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    event: EventId,
    sequence: i64,
) -> Result<Vec<Attempt>, Error> {
    store::attempts(tx, merchant, endpoint, event, sequence).await
}

/// How far the clocks of two processes may differ: no attempt is older than its event, but for this.
const CLOCKS_DIFFER_BY: Duration = Duration::from_hours(1);

/// The id from which on attempts at `event` are found, so that days before the event are not looked into.
pub(crate) fn first_attempt_at(event: EventId) -> AttemptId {
    AttemptId::least(event.made_at().minus(CLOCKS_DIFFER_BY))
}
