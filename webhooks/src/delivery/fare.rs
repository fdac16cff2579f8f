//! How endpoints fare by what came of attempts: counted by the hour, and noted when they begin or end to fail.
//!
//! Called by `settle`, in its transaction, and by the recorder for the hours. Invariants: an endpoint that takes what it is sent costs one row an hour; one
//! that has failed for an hour is told of, and every day again; one from which nothing but failures came for five days is switched off, its backlog kept, and
//! never without having been told of half a day before.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kernel::{
    clock::Timestamp,
    db::Database,
    id::{MerchantId, RequestId},
};
use sqlx::PgConnection;

use super::{Lease, Report};
use crate::{
    endpoint::{
        self, DisabledReason, EndpointId,
        health::{CLASSES, class_of},
    },
    error::Error,
    retry::Decision,
};

pub(super) mod store;

/// How long an endpoint has failed when its owner first hears of it: longer than a restart, and days before anything is switched off.
pub(crate) const WARNED_AFTER: Duration = Duration::from_hours(1);

/// How often its owner hears of it again.
pub(crate) const WARNED_EVERY: Duration = Duration::from_hours(24);

/// How long nothing but failures may come before an endpoint is switched off: a long weekend, and a working day to mend it.
pub(crate) const SWITCHED_OFF_AFTER: Duration = Duration::from_hours(5 * 24);

/// How long before that its owner has heard of it at least: half a day to mend it. Where attempts are rare, days may pass between the first failure and the
/// second.
pub(crate) const WARNED_BEFORE: Duration = Duration::from_hours(12);

/// What is to be done about an endpoint that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Wait,
    /// Its owner is told.
    Warn,
    /// It is switched off.
    SwitchOff,
}

/// What is to be done at `now` about an endpoint that has been failing since then, and of which its owner was last told then.
pub(crate) fn verdict(
    failing_since: Timestamp,
    warned_at: Option<Timestamp>,
    now: Timestamp,
) -> Verdict {
    let failing_for = now.since(failing_since);
    // A warning of an earlier failing says nothing of this one.
    let warned_at = warned_at.filter(|warned_at| *warned_at >= failing_since);
    let is_due = match warned_at {
        None => failing_for >= WARNED_AFTER,
        Some(warned_at) => now.since(warned_at) >= WARNED_EVERY,
    };
    let has_been_warned = warned_at.is_some_and(|at| now.since(at) >= WARNED_BEFORE);
    if failing_for >= SWITCHED_OFF_AFTER && has_been_warned {
        Verdict::SwitchOff
    } else if is_due {
        Verdict::Warn
    } else {
        Verdict::Wait
    }
}

/// What a group of reports says of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) merchant: MerchantId,
    pub(crate) succeeded: i64,
    pub(crate) failed: i64,
    /// Attempts in each class of durations.
    pub(crate) classes: [i64; CLASSES],
    /// The first failure that no success followed.
    pub(crate) failing_since: Option<Timestamp>,
    /// Whether something was taken before that.
    pub(crate) has_succeeded: bool,
    pub(crate) last_error: Option<String>,
    pub(crate) url: String,
}

/// Counts reports by their endpoints, in the order in which the attempts ended.
pub(crate) fn tally(reports: &[&Report]) -> BTreeMap<EndpointId, Tally> {
    let mut in_order: Vec<&Report> = reports.to_vec();
    in_order.sort_by_key(|report| report.ended_at());
    let mut tallies: BTreeMap<EndpointId, Tally> = BTreeMap::new();
    for report in in_order {
        let tally = tallies
            .entry(report.lease.endpoint)
            .or_insert_with(|| Tally {
                merchant: report.lease.merchant,
                succeeded: 0,
                failed: 0,
                classes: [0; CLASSES],
                failing_since: None,
                has_succeeded: false,
                last_error: None,
                url: report.url.clone(),
            });
        let duration_ms = u32::try_from(report.attempt.duration_ms).unwrap_or(0);
        if let Some(count) = tally.classes.get_mut(class_of(duration_ms)) {
            *count = count.saturating_add(1);
        }
        if report.decision == Decision::Delivered {
            tally.succeeded = tally.succeeded.saturating_add(1);
            tally.has_succeeded = true;
            tally.failing_since = None;
        } else {
            tally.failed = tally.failed.saturating_add(1);
            tally.failing_since = tally.failing_since.or(Some(report.attempt.started_at));
            let status = report.attempt.status.map(|status| status.to_string());
            tally.last_error = report.attempt.error.clone().or(status);
        }
    }
    tallies
}

impl Tally {
    /// Adds what came of further attempts at the same endpoint to what is counted by the hour.
    fn add(&mut self, other: &Self) {
        self.succeeded = self.succeeded.saturating_add(other.succeeded);
        self.failed = self.failed.saturating_add(other.failed);
        for (count, other) in self.classes.iter_mut().zip(other.classes) {
            *count = count.saturating_add(other);
        }
    }
}

/// What is to be added to the hours: kept in memory for some seconds, because all groups of an endpoint would wait for one another at its row. What a crash
/// takes with it is missing from its rates and from nothing else.
#[derive(Debug, Default)]
pub(crate) struct Hours(Mutex<BTreeMap<EndpointId, Tally>>);

impl Hours {
    /// Counts attempts that are recorded.
    pub(crate) fn count(&self, reports: &[&Report]) {
        let mut hours = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (endpoint, tally) in tally(reports) {
            match hours.entry(endpoint) {
                Entry::Vacant(vacant) => drop(vacant.insert(tally)),
                Entry::Occupied(mut counted) => counted.get_mut().add(&tally),
            }
        }
    }

    /// Writes what was counted since the last time.
    pub(crate) async fn write(&self, database: &Database, now: Timestamp) -> Result<(), Error> {
        let counted = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counted.is_empty() {
            return Ok(());
        }
        let mut tx = database.begin().await?;
        store::add_hours(&mut tx, &counted, now).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Endpoints at whose URL something was taken for the first time, as far as was known when it was sent; each with that URL once, however much it has taken.
pub(crate) fn verified<'r>(reports: &[&'r Report]) -> BTreeSet<(MerchantId, EndpointId, &'r str)> {
    let taken = reports
        .iter()
        .filter(|report| report.is_first && report.decision == Decision::Delivered);
    taken
        .map(|report| {
            let Lease {
                merchant, endpoint, ..
            } = report.lease;
            (merchant, endpoint, report.url.as_str())
        })
        .collect()
}

/// Notes how the endpoints of some reports fare, tells their owners, and switches off those that are beyond hope. Gives the merchants for whom events were
/// appended.
pub(super) async fn note(
    tx: &mut PgConnection,
    reports: &[&Report],
    now: Timestamp,
) -> Result<Vec<MerchantId>, Error> {
    let tallies = tally(reports);
    if tallies.is_empty() {
        return Ok(Vec::new());
    }
    store::recover(&mut *tx, &tallies, now).await?;
    let failing = store::fail(&mut *tx, &tallies, now).await?;
    for (merchant, endpoint, url) in verified(reports) {
        store::verify(&mut *tx, merchant, endpoint, url, now).await?;
    }
    let mut announced = Vec::new();
    for (endpoint, failing_since, warned_at) in failing {
        let Some(tally) = tallies.get(&endpoint) else {
            continue;
        };
        let merchant = tally.merchant;
        let request = RequestId::new(now);
        let verdict = verdict(failing_since, warned_at, now);
        if verdict != Verdict::Wait
            && store::has_taken(&mut *tx, merchant, endpoint, failing_since).await?
        {
            // Groups commit in any order: what was taken was recorded before the failure that came before it.
            store::begin_failing(&mut *tx, endpoint, tally).await?;
            continue;
        }
        match verdict {
            Verdict::Wait => continue,
            Verdict::Warn => {
                store::warned(&mut *tx, merchant, endpoint, now).await?;
                let whole = endpoint::Visible {
                    merchant,
                    app: None,
                };
                let Some(shown) = endpoint::store::find(&mut *tx, whole, endpoint).await? else {
                    continue;
                };
                endpoint::announce_failing(&mut *tx, merchant, request, now, &shown).await?;
            }
            Verdict::SwitchOff => {
                let reason = DisabledReason::Failing;
                let disabled =
                    endpoint::store::disable(&mut *tx, merchant, endpoint, &tally.url, reason, now)
                        .await?;
                let Some(disabled) = disabled else { continue };
                endpoint::announce(&mut *tx, merchant, request, now, &disabled).await?;
            }
        }
        announced.push(merchant);
    }
    Ok(announced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: u64) -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_000).plus(Duration::from_hours(hours))
    }

    #[test]
    fn an_owner_hears_of_it_after_an_hour_and_every_day_until_it_is_switched_off() {
        let mut warned_at = None;
        let mut told = Vec::new();
        for hour in 0..=120 {
            match verdict(at(0), warned_at, at(hour)) {
                Verdict::Wait => {}
                Verdict::Warn => {
                    warned_at = Some(at(hour));
                    told.push(hour);
                }
                Verdict::SwitchOff => {
                    assert_eq!(hour, 120);
                    told.push(hour);
                }
            }
        }
        assert_eq!(told, [1, 25, 49, 73, 97, 120]);
    }

    #[test]
    fn nobody_is_switched_off_who_has_not_heard_of_it_half_a_day_before() {
        assert_eq!(verdict(at(0), None, at(1_000)), Verdict::Warn);
        assert_eq!(verdict(at(0), Some(at(1_000)), at(1_011)), Verdict::Wait);
        assert_eq!(
            verdict(at(0), Some(at(1_000)), at(1_012)),
            Verdict::SwitchOff
        );
    }

    #[test]
    fn a_warning_of_an_earlier_failing_does_not_count() {
        assert_eq!(verdict(at(10), Some(at(9)), at(11)), Verdict::Warn);
    }
}
