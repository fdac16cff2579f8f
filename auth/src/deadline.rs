//! How long this crate waits for the database where a request or a poll hangs on it.

use std::{future::Future, time::Duration};

use kernel::db;

/// A lookup by key takes a millisecond. A request that has waited this long is told that the service is unavailable, and a poll that has
/// waited this long tries again on another connection.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// What `answer` says, or that the database is away if it says nothing in time.
pub(crate) async fn in_time<T, E: From<db::Error>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::time::timeout(DATABASE_TIMEOUT, answer)
        .await
        .unwrap_or_else(|_elapsed| Err(away().into()))
}

/// The error of a database that does not answer.
pub(crate) fn away() -> db::Error {
    db::Error::Sqlx(sqlx::Error::PoolTimedOut)
}
