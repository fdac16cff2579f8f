//! The replayer: goes through streams for replays that are running. Run by every process with the worker role.
//!
//! Replays take turns, a batch each. A replay's row in the global table of hints is locked for the length of a batch, by which several processes share
//! the replays without knowing of one another; a process that dies in a batch leaves nothing of it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use kernel::{
    clock::{Clock, Timestamp},
    db::{Database, Error},
    id::{EventId, MerchantId},
};
use tokio_util::sync::CancellationToken;

use super::{
    Replay, ReplayId, ReplayStatus, SelectedState,
    store::{self, Chosen, Detail, Span},
};
use crate::{
    delivery::store::count_queued,
    endpoint::{self, Endpoint, EndpointId, Outlet, Status, Visible},
    relay::{Wake, raise_lanes},
};

/// Numbers of a stream that one transaction goes through at most: some tens of milliseconds of work.
pub const BATCH_SEQUENCES_MAX: i64 = 1_000;

/// Deliveries that an endpoint may have on its queue for a replay to add more: minutes of work for a receiver of ordinary speed, and few enough that a
/// replay of a million numbers takes no room that others need.
pub const QUEUED_MAX: i64 = 10_000;

/// Numbers that there must be room for, so that a queue near its most is not filled by transactions of one number each.
const BATCH_SEQUENCES_MIN: i64 = 250;

/// How often running replays are looked for when there was nothing to do: the wait that somebody who asks for a replay may feel.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a replay waits whose endpoint has enough to do.
const FULL_PAUSE: Duration = Duration::from_secs(2);

/// How long a replay waits whose endpoint is disabled, or whose batch failed.
const REST_PAUSE: Duration = Duration::from_secs(5);

/// What a batch has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// There is more to do.
    More,
    /// It is over, or somebody else's.
    Over,
    /// Its endpoint has enough to do.
    Full,
    /// Its endpoint is disabled.
    Resting,
}

/// Works off replays. One per process.
#[derive(Debug, Clone)]
pub struct Replayer {
    database: Database,
    clock: Clock,
    wake: Wake,
}

impl Replayer {
    /// A replayer over the worker role's `database`, which wakes this process's worker by `wake`.
    pub fn new(database: Database, clock: Clock, wake: Wake) -> Self {
        Self {
            database,
            clock,
            wake,
        }
    }

    /// Works until `stop`; a batch that is under way then is finished. Failures are logged and tried again, without end.
    pub async fn run(&self, stop: CancellationToken) {
        let mut pauses = HashMap::new();
        while !stop.is_cancelled() {
            let more = match self.round(&mut pauses).await {
                Ok(more) => more,
                Err(error) => {
                    tracing::warn!(error = %error, "running replays could not be looked for");
                    false
                }
            };
            if !more {
                stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY))
                    .await;
            }
        }
    }

    /// A batch of each running replay that is not waiting. Says whether any of them came further.
    pub(crate) async fn round(
        &self,
        pauses: &mut HashMap<ReplayId, Timestamp>,
    ) -> Result<bool, Error> {
        let mut tx = self.database.begin().await?;
        let hints = store::hints(&mut tx).await?;
        tx.commit().await?;
        pauses.retain(|id, _| hints.iter().any(|(hinted, _)| hinted == id));
        let mut more = false;
        for (id, merchant) in hints {
            let now = self.clock.now();
            if pauses.get(&id).is_some_and(|until| *until > now) {
                continue;
            }
            let pause = match self.batch(merchant, id).await {
                Ok(Progress::More) => {
                    more = true;
                    None
                }
                Ok(Progress::Over) => None,
                Ok(Progress::Full) => Some(FULL_PAUSE),
                Ok(Progress::Resting) => Some(REST_PAUSE),
                Err(error) => {
                    tracing::warn!(error = %error, replay.id = %id, merchant.id = %merchant, "a replay did not come further");
                    Some(REST_PAUSE)
                }
            };
            if let Some(pause) = pause {
                pauses.insert(id, now.plus(pause));
            } else {
                pauses.remove(&id);
            }
        }
        Ok(more)
    }

    /// Goes on with one replay, in one transaction.
    async fn batch(&self, merchant: MerchantId, id: ReplayId) -> Result<Progress, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        if !store::take_hint(&mut tx, id).await? {
            return Ok(Progress::Over);
        }
        let replay = store::lock(&mut tx, merchant, id).await?;
        let Some(mut replay) = replay.filter(|replay| replay.status == ReplayStatus::Running)
        else {
            store::delete_hint(&mut tx, id).await?;
            tx.commit().await?;
            return Ok(Progress::Over);
        };
        let visible = Visible {
            merchant,
            app: None,
        };
        let target = endpoint::store::find(&mut tx, visible, replay.endpoint_id).await?;
        let Some(target) = target.filter(Endpoint::is_queued) else {
            // It was deleted, or has become one that nothing is queued for.
            replay.status = ReplayStatus::Cancelled;
            replay.updated_at = now;
            store::advance(&mut tx, merchant, &replay).await?;
            store::delete_hint(&mut tx, id).await?;
            tx.commit().await?;
            return Ok(Progress::Over);
        };
        if target.status == Status::Disabled {
            // At once: whoever looks next finds the hint free.
            tx.rollback().await?;
            return Ok(Progress::Resting);
        }
        let queued = count_queued(&mut tx, merchant, replay.endpoint_id, QUEUED_MAX).await?;
        let limit = QUEUED_MAX.saturating_sub(queued).min(BATCH_SEQUENCES_MAX);
        if limit < BATCH_SEQUENCES_MIN {
            tx.rollback().await?;
            return Ok(Progress::Full);
        }

        let looked = look(&mut tx, merchant, &replay, &target, limit).await?;
        let endpoint = replay.endpoint_id;
        let added = store::queue(&mut tx, merchant, endpoint, &looked.chosen, now).await?;
        store::mark_dead_letters(&mut tx, merchant, endpoint, &added, now).await?;
        replay.queued_count = replay.queued_count.saturating_add(count(added.len()));
        replay.expired_count = replay.expired_count.saturating_add(looked.expired);
        replay.position = looked.position;
        replay.updated_at = now;
        if looked.is_last {
            replay.status = ReplayStatus::Completed;
            store::delete_hint(&mut tx, id).await?;
        }
        store::advance(&mut tx, merchant, &replay).await?;
        if !added.is_empty() && target.outlet() == Outlet::Sent {
            // Last, because the lanes are shared with the workers of everybody.
            raise_lanes(&mut tx, &[endpoint], &[], now).await?;
        }
        tx.commit().await?;
        crate::metrics::replayed(added.len());
        if !added.is_empty() {
            self.wake.wake();
        }
        tracing::debug!(replay.id = %id, merchant.id = %merchant, queued = added.len(), position = replay.position, "replayed");
        Ok(if looked.is_last {
            Progress::Over
        } else {
            Progress::More
        })
    }
}

/// What a batch has found.
#[derive(Debug)]
struct Looked {
    chosen: Vec<Chosen>,
    /// Numbers that it went through whose events are not there.
    expired: i64,
    /// Up to where it went.
    position: i64,
    /// Whether nothing follows.
    is_last: bool,
}

async fn look(
    tx: &mut sqlx::PgConnection,
    merchant: MerchantId,
    replay: &Replay,
    target: &Endpoint,
    limit: i64,
) -> Result<Looked, Error> {
    let (endpoint, selection) = (replay.endpoint_id, &replay.selection);
    let span = Span {
        after: replay.position,
        until: replay.until_sequence,
        events: selection.event_bounds(),
        limit,
    };
    let found = if selection.state == SelectedState::Dead {
        let entries = store::dead_entries(&mut *tx, merchant, endpoint, span).await?;
        Found::dead(entries)
    } else {
        Found::in_stream(&mut *tx, merchant, endpoint, replay, span).await?
    };
    let accepted = match selection.state {
        SelectedState::Missed => {
            store::accepted(&mut *tx, merchant, endpoint, &found.entries).await?
        }
        SelectedState::Dead | SelectedState::All => HashSet::new(),
    };
    let is_last = count(found.entries.len()) < limit;
    let position = match found.entries.last() {
        Some((sequence, _)) if !is_last => *sequence,
        _ => replay.until_sequence,
    };
    let counts_expired = selection.state != SelectedState::Dead
        && !selection.is_by_time()
        && selection.resource().is_none();
    let expired = if counts_expired {
        // A stream has no gaps: what is not there was dropped.
        position
            .saturating_sub(replay.position)
            .saturating_sub(count(found.details.len()))
    } else {
        0
    };
    let takes_kind = selection.takes_kind();
    let chosen = found.entries.iter().filter_map(|(sequence, event)| {
        let detail = found.details.get(event)?;
        let wanted = takes_kind(&detail.kind)
            && selection
                .resource()
                .is_none_or(|(kind, id)| detail.resource_kind == kind && detail.resource_id == id)
            && !accepted.contains(sequence);
        wanted.then(|| Chosen::new(*sequence, detail, target.is_ordered()))
    });
    Ok(Looked {
        chosen: chosen.collect(),
        expired,
        position,
        is_last,
    })
}

/// The entries that a batch looks at, and what is known of their events.
struct Found {
    entries: Vec<(i64, EventId)>,
    details: HashMap<EventId, Detail>,
}

impl Found {
    fn dead(entries: Vec<(i64, Detail)>) -> Self {
        let numbers = entries
            .iter()
            .map(|(sequence, detail)| (*sequence, detail.event));
        Self {
            entries: numbers.collect(),
            details: entries
                .into_iter()
                .map(|(_, detail)| (detail.event, detail))
                .collect(),
        }
    }

    async fn in_stream(
        tx: &mut sqlx::PgConnection,
        merchant: MerchantId,
        endpoint: EndpointId,
        replay: &Replay,
        span: Span,
    ) -> Result<Self, Error> {
        let entries = match replay.selection.resource() {
            Some(resource) => {
                store::resource_entries(&mut *tx, merchant, endpoint, resource, span).await?
            }
            None => store::stream_entries(&mut *tx, merchant, endpoint, span).await?,
        };
        let events: Vec<EventId> = entries.iter().map(|(_, event)| *event).collect();
        let details = store::details(tx, merchant, &events).await?;
        Ok(Self {
            entries,
            details: details
                .into_iter()
                .map(|detail| (detail.event, detail))
                .collect(),
        })
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
