//! What is kept for a while only and lies in no partition that retention drops: deleted when its time is over.
//!
//! Called now and then by the gateway's sweeper, in every process with the worker role. Invariant: nothing goes that an attempt which is still kept refers
//! to, nor anything that is still in force.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    db::{Database, Error},
};

mod store;

/// How long attempts are kept counted by the hour: health shows a day, and a month is what operators may compare with.
const HOURS_KEPT_FOR: Duration = Duration::from_hours(31 * 24);

/// How much longer than attempts the versions of endpoints are kept: partitions go by whole days, and an attempt may be made for a version that has just been
/// replaced.
const VERSIONS_KEPT_BEYOND: Duration = Duration::from_hours(2 * 24);

/// Rows that one transaction deletes at most.
const SWEPT_AT_ONCE: i64 = 5_000;

/// Batches of one kind in one sweep at most: a million rows. What is left then is the next one's.
const BATCHES_MAX: u32 = 200;

/// What is swept, and what of it is over.
#[derive(Clone, Copy)]
enum Over {
    /// Counts of hours before then.
    Hours(Timestamp),
    /// Versions of endpoints that were replaced before then.
    Versions(Timestamp),
    /// Replays that ended before then.
    Replays(Timestamp),
}

/// Deletes what is over, of what is kept for as long as the history (`retention`) and of what has a time of its own, and says how many rows that were.
pub async fn sweep(worker: &Database, retention: Duration, now: Timestamp) -> Result<u64, Error> {
    let versions_kept_for = retention.saturating_add(VERSIONS_KEPT_BEYOND);
    let mut swept = 0_u64;
    for over in [
        Over::Hours(now.minus(HOURS_KEPT_FOR)),
        Over::Versions(now.minus(versions_kept_for)),
        Over::Replays(now.minus(retention)),
    ] {
        for _ in 0..BATCHES_MAX {
            let mut tx = worker.begin().await?;
            let count = match over {
                Over::Hours(before) => store::delete_hours(&mut tx, before, SWEPT_AT_ONCE).await?,
                Over::Versions(before) => {
                    store::delete_versions(&mut tx, before, SWEPT_AT_ONCE).await?
                }
                Over::Replays(before) => {
                    store::delete_replays(&mut tx, before, SWEPT_AT_ONCE).await?
                }
            };
            tx.commit().await?;
            swept = swept.saturating_add(count);
            if count < SWEPT_AT_ONCE.unsigned_abs() {
                break;
            }
        }
    }
    Ok(swept)
}
