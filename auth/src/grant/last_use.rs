//! When a grant was last used, to the hour: for merchants who wonder what an app that they have installed still does.
//!
//! The [bearer](crate::bearer) notes in memory, which costs a request nothing to speak of; a task writes what is new once a minute. A process that
//! is killed loses a minute of it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kernel::{
    clock::{Clock, Timestamp},
    db::{self, Database},
    id::GrantId,
};

use crate::deadline;

mod store;

/// How exactly it is kept. A grant that is used all day is written this often.
const PRECISION_SECONDS: i64 = 3_600;

/// How often what is new is written.
pub const FLUSH_INTERVAL: Duration = Duration::from_mins(1);

/// Grants in memory; beyond that what is written already is forgotten, and what is not is not noted.
const NOTED_MAX: usize = 100_000;

/// Remembers uses, and writes them.
pub struct LastUse {
    database: Database,
    clock: Clock,
    noted: Mutex<HashMap<GrantId, Noted>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Noted {
    /// The beginning of the hour.
    at: Timestamp,
    is_written: bool,
}

impl fmt::Debug for LastUse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LastUse")
    }
}

impl LastUse {
    /// Remembers nothing yet. Needs the API role.
    pub fn new(database: Database, clock: Clock) -> Self {
        Self {
            database,
            clock,
            noted: Mutex::default(),
        }
    }

    /// Notes that `grant` is used at `now`.
    pub fn note(&self, grant: GrantId, now: Timestamp) {
        let at = hour_of(now);
        let mut noted = self.noted();
        match noted.get_mut(&grant) {
            Some(known) if known.at >= at => return,
            Some(known) => {
                *known = Noted {
                    at,
                    is_written: false,
                };
                return;
            }
            None => {}
        }
        if noted.len() >= NOTED_MAX {
            noted.retain(|_, noted| !noted.is_written);
        }
        if noted.len() < NOTED_MAX {
            noted.insert(
                grant,
                Noted {
                    at,
                    is_written: false,
                },
            );
        }
    }

    /// Writes what is new once a minute, for as long as it is polled.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(FLUSH_INTERVAL).await;
            self.flush().await;
        }
    }

    /// Writes what is new; what can't be written is kept for the next time.
    pub async fn flush(&self) {
        if let Err(error) = deadline::in_time(self.write()).await {
            tracing::warn!(error = %error, "when grants were last used could not be written");
        }
    }

    async fn write(&self) -> Result<(), db::Error> {
        let mut news: Vec<(GrantId, Timestamp)> = self
            .noted()
            .iter()
            .filter(|(_, noted)| !noted.is_written)
            .map(|(&grant, noted)| (grant, noted.at))
            .collect();
        if news.is_empty() {
            return Ok(());
        }
        // In one order everywhere, so that two processes that write the same grants don't wait for one another.
        news.sort_unstable_by_key(|&(grant, _)| grant);
        store::upsert(&self.database, &news).await?;
        let hour = hour_of(self.clock.now());
        let mut noted = self.noted();
        for (grant, at) in news {
            if let Some(known) = noted.get_mut(&grant)
                && known.at == at
            {
                known.is_written = true;
            }
        }
        // What is written and of an hour that is over says nothing more.
        noted.retain(|_, noted| !noted.is_written || noted.at >= hour);
        Ok(())
    }

    fn noted(&self) -> MutexGuard<'_, HashMap<GrantId, Noted>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The beginning of the hour of `now`.
fn hour_of(now: Timestamp) -> Timestamp {
    let seconds = now.unix_seconds();
    let into_hour = seconds.rem_euclid(PRECISION_SECONDS);
    Timestamp::from_unix_millis(seconds.saturating_sub(into_hour).saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_use_is_kept_to_the_hour() {
        for (at, hour) in [
            ("2026-11-01T12:00:00Z", "2026-11-01T12:00:00Z"),
            ("2026-11-01T12:59:59.999999Z", "2026-11-01T12:00:00Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:00:00Z"),
        ] {
            assert_eq!(hour_of(at.parse().unwrap()), hour.parse().unwrap());
        }
    }
}
