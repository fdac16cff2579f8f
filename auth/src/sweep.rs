//! What is kept for a while only: deleted when its time is over.

use kernel::{
    clock::Timestamp,
    db::{Database, Error},
};

use crate::{authorization, token::family};

/// Deletes what is over, a batch of each kind, and answers how many rows that were. `worker` is a pool of the worker role. Called now and then by the
/// gateway's sweeper; nobody relies on it, for whatever is over is refused by its time.
pub async fn sweep(worker: &Database, now: Timestamp) -> Result<u64, Error> {
    let requests_and_codes = authorization::sweep(worker, now).await?;
    let refresh_tokens = family::sweep(worker, now).await?;
    Ok(requests_and_codes.saturating_add(refresh_tokens))
}
