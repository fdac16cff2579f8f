//! Announcing that a grant nears its end: the event `grant.expiring`, once for each end.
//!
//! Run by the gateway's sweeper in every worker. A grant remembers the end that was announced, and whoever sets that announces, in one
//! transaction: several workers at once announce once. A grant that is extended has another end, which is announced when it comes near.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    db::{self, Database},
    event::{self, Announcer},
    id::RequestId,
};

use super::event_of;
use crate::Error;

mod store;

/// How long before its end a grant is announced to be ending. One given for less than this is announced once three quarters of its time are over.
pub const NOTICE: Duration = Duration::from_hours(72);

/// How often somebody should look.
pub const INTERVAL: Duration = Duration::from_mins(1);

/// Grants of one transaction.
const BATCH: i64 = 200;

/// Announces each grant that nears its end at `now`; how many. Needs the worker role.
pub async fn announce(
    database: &Database,
    announcer: &Announcer,
    now: Timestamp,
) -> Result<usize, Error> {
    let request = RequestId::new(now);
    let mut count = 0_usize;
    loop {
        let mut tx = database.begin().await?;
        let grants = store::claim(&mut tx, now, BATCH).await?;
        for grant in &grants {
            let event = event_of("grant.expiring", grant)?;
            event::append(&mut tx, grant.merchant_id, request, now, &[event]).await?;
        }
        tx.commit().await.map_err(db::Error::from)?;
        for grant in &grants {
            announcer.announce(grant.merchant_id, now);
        }
        count = count.saturating_add(grants.len());
        if i64::try_from(grants.len()).unwrap_or(0) < BATCH {
            return Ok(count);
        }
    }
}
