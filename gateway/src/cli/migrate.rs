//! `stoa migrate`.

use super::{CommandResult, say};
use crate::{composition::Foundation, config::Storage};

/// Brings the schema up to date, which opening the data does.
pub(super) async fn run(storage: Storage) -> CommandResult {
    let foundation = Foundation::open(&storage).await?;
    foundation.close().await;
    say("the schema is up to date");
    Ok(())
}
