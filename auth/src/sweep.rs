//! What is kept for a while only: deleted when its time is over.

use kernel::{
    clock::Timestamp,
    db::{Database, Error},
};

use crate::{authorization, token::family};

/// Batches of one sweep at most: a million rows of each kind. What is left then is the next one's.
const BATCHES_MAX: u32 = 1_000;

/// Deletes what is over, batch by batch until there is no more, and answers how many rows that were: anybody may leave authorization requests behind, and
/// as many as they like. `worker` is a pool of the worker role. Called now and then by the gateway's sweeper; nobody relies on it, for whatever is over is
/// refused by its time.
pub async fn sweep(worker: &Database, now: Timestamp) -> Result<u64, Error> {
    let mut swept = 0_u64;
    for _ in 0..BATCHES_MAX {
        let requests_and_codes = authorization::sweep(worker, now).await?;
        let refresh_tokens = family::sweep(worker, now).await?;
        let batch = requests_and_codes.saturating_add(refresh_tokens);
        if batch == 0 {
            break;
        }
        swept = swept.saturating_add(batch);
    }
    Ok(swept)
}
