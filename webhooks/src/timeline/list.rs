//! The attempts at one endpoint, page by page: those that have a row each, and those that are kept in runs, as one list. And those at one delivery.

use std::cmp::Reverse;

use kernel::{
    actor::Actor,
    clock::Timestamp,
    id::MerchantId,
    page::{self, Page, PageRequest},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{AttemptOutcome, MadeAttempt};
use crate::{
    delivery::AttemptId,
    endpoint::{self, EndpointId},
    error::Error,
};

mod store;

use store::InRun;
pub(super) use store::attempts_of;

/// Attempts that a page with a filter looks through at most: some ten milliseconds of work. What is further back is for the next page.
pub const SCANNED_ATTEMPTS_MAX: i64 = 10_000;

/// Which attempts are listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttemptFilter {
    /// Only those that came to this.
    pub outcome: Option<AttemptOutcome>,
    /// Only those that began then or later, to the millisecond.
    pub since: Option<Timestamp>,
    /// Only those that began before then, to the millisecond.
    pub until: Option<Timestamp>,
}

/// The attempts at one endpoint, the newest first. With an outcome asked for, a page may be short, or empty, and still have a cursor: it has looked
/// through [`SCANNED_ATTEMPTS_MAX`].
pub async fn attempts(
    tx: &mut PgConnection,
    actor: &Actor,
    endpoint: EndpointId,
    filter: AttemptFilter,
    request: &PageRequest<AttemptId>,
) -> Result<Page<MadeAttempt>, Error> {
    endpoint::get(&mut *tx, actor, endpoint).await?;
    let merchant = actor.merchant;
    let Seen { mut found, from } = look(&mut *tx, merchant, endpoint, filter, request).await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let next = if found.len() > limit {
        found.truncate(limit);
        found.last().map(Found::id)
    } else {
        from
    };
    let (mut alone, mut in_runs) = (Vec::new(), Vec::new());
    for one in found {
        match one {
            Found::Alone(id) => alone.push(id),
            Found::InRun(attempt) => in_runs.push(attempt),
        }
    }
    let mut data = store::attempts(&mut *tx, merchant, &alone).await?;
    data.extend(store::attempts_in_runs(tx, merchant, endpoint, &in_runs).await?);
    data.sort_unstable_by_key(|attempt| Reverse(attempt.id));
    Ok(Page {
        data,
        next_cursor: next.map(|id| page::encode(&id)),
    })
}

/// An attempt, by where it is kept.
#[derive(Debug, Clone, Copy)]
enum Found {
    Alone(AttemptId),
    InRun(InRun),
}

impl Found {
    fn id(&self) -> AttemptId {
        match self {
            Self::Alone(id) => *id,
            Self::InRun(attempt) => attempt.id,
        }
    }
}

/// What a look at the newest has found.
struct Seen {
    /// Those that match, the newest first.
    found: Vec<Found>,
    /// The id down to which these are all; `None` if there are no others.
    from: Option<AttemptId>,
}

async fn look(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    filter: AttemptFilter,
    request: &PageRequest<AttemptId>,
) -> Result<Seen, Error> {
    let least = |time: Option<Timestamp>, otherwise| {
        time.map_or(AttemptId::from_uuid(otherwise), AttemptId::least)
    };
    let before = least(filter.until, Uuid::max());
    let span = (
        least(filter.since, Uuid::nil()),
        request.after.map_or(before, |after| after.min(before)),
    );
    let scanned_max = match filter.outcome {
        Some(_) => SCANNED_ATTEMPTS_MAX,
        None => request.fetch_count(),
    };
    let scanned = store::scan(&mut *tx, merchant, endpoint, span, scanned_max).await?;
    let is_cut = i64::try_from(scanned.len()).unwrap_or(i64::MAX) >= scanned_max;
    let scanned_from = scanned.last().map(|(id, _)| *id).filter(|_| is_cut);
    // Runs have nothing but what succeeded.
    let (in_runs, runs_from) = if filter.outcome == Some(AttemptOutcome::Failed) {
        (Vec::new(), None)
    } else {
        store::scan_runs(tx, merchant, endpoint, span, request.fetch_count()).await?
    };
    let matches = |succeeded: bool| {
        filter
            .outcome
            .is_none_or(|outcome| (outcome == AttemptOutcome::Succeeded) == succeeded)
    };
    // Before the later of the two there may be others of the one or the other.
    let from = scanned_from.max(runs_from);
    let alone = scanned
        .into_iter()
        .filter(|(_, succeeded)| matches(*succeeded))
        .map(|(id, _)| Found::Alone(id));
    let mut found: Vec<Found> = alone
        .chain(in_runs.into_iter().map(Found::InRun))
        .filter(|found| from.is_none_or(|from| found.id() >= from))
        .collect();
    found.sort_unstable_by_key(|found| Reverse(found.id()));
    Ok(Seen { found, from })
}
