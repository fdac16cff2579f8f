//! Growing delays for whoever guesses at what people choose and type: passwords, time-based codes, recovery codes.
//!
//! An attempt is counted before it is looked at, under the rows' locks, so that fifty guesses at once are counted as fifty; what was right is given back.
//! Counted are the account, whether there is such a one or not, and the network that asks. While one of them is blocked, nothing is hashed or compared.

use std::time::Duration;

use kernel::{caller::Caller, clock::Timestamp, id::PersonId, keyring::DataKey};
use sqlx::PgConnection;

use crate::Error;

pub(super) mod store;

use store::Counted;

/// Wrong guesses at one account that cost nothing: fingers slip.
const ACCOUNT_FREE: i32 = 5;

/// Wrong guesses of one network that cost nothing: many people may share it.
const NETWORK_FREE: i32 = 20;

/// The longest delay.
const DELAY_MAX: Duration = Duration::from_mins(15);

/// After so long without another, wrong guesses are forgotten.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);

/// What is guessed at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Guessed<'a> {
    /// The password of this login, folded.
    Password(&'a str),
    /// The time-based or recovery code of this person: counted apart, or else a known password would wipe its slate.
    Code(PersonId),
}

/// Whose guesses are counted, as the table has it.
pub(super) type Subject = [u8; 32];

/// An attempt that has been counted.
#[derive(Debug)]
#[must_use = "what was right is given back"]
pub(super) struct Attempt {
    accounts: Vec<Count>,
    network: Option<Count>,
}

/// What an attempt has made of a subject's row.
#[derive(Debug)]
struct Count {
    subject: Subject,
    before: Counted,
    after: Counted,
}

/// The delay after so many wrong guesses, of which `free` cost nothing: 1 s, 2 s, 4 s …
fn delay(failures: i32, free: i32) -> Duration {
    let Ok(doublings) = u32::try_from(failures.saturating_sub(free).saturating_sub(1)) else {
        return Duration::ZERO;
    };
    let seconds = 1_u64.checked_shl(doublings.min(32)).unwrap_or(u64::MAX);
    Duration::from_secs(seconds).min(DELAY_MAX)
}

/// Counts an attempt by `caller` at all of `guessed`, which come in the order of [`Guessed`]; [`Error::Throttled`] if one of them is blocked, and then the
/// transaction must not be committed.
pub(super) async fn attempt(
    tx: &mut PgConnection,
    key: &DataKey,
    guessed: &[Guessed<'_>],
    caller: &Caller,
    now: Timestamp,
) -> Result<Attempt, Error> {
    // Always the accounts first and the network last: two transactions never wait for one another.
    let mut accounts = Vec::with_capacity(guessed.len());
    for guessed in guessed {
        accounts.push(count(tx, account(key, *guessed), ACCOUNT_FREE, now).await?);
    }
    let network = match caller.network() {
        Some(network) => {
            let subject = key.blind_index("throttle.network", network.as_bytes());
            Some(count(tx, subject, NETWORK_FREE, now).await?)
        }
        None => None,
    };
    Ok(Attempt { accounts, network })
}

fn account(key: &DataKey, guessed: Guessed<'_>) -> Subject {
    match guessed {
        Guessed::Password(login) => key.blind_index("throttle.password", login.as_bytes()),
        Guessed::Code(person) => key.blind_index("throttle.code", person.to_string().as_bytes()),
    }
}

async fn count(
    tx: &mut PgConnection,
    subject: Subject,
    free: i32,
    now: Timestamp,
) -> Result<Count, Error> {
    let before = store::lock_or_insert(tx, &subject, now).await?;
    if before.blocked_until > now {
        return Err(Error::Throttled {
            retry_after: before.blocked_until.since(now),
        });
    }
    let is_forgotten = before.last_failure_at < now.minus(FORGOTTEN_AFTER);
    let failures = if is_forgotten {
        1
    } else {
        before.failures.saturating_add(1)
    };
    let after = Counted {
        failures,
        last_failure_at: now,
        blocked_until: now.plus(delay(failures, free)),
    };
    store::update(tx, &subject, &after).await?;
    Ok(Count {
        subject,
        before,
        after,
    })
}

impl Attempt {
    /// The attempt was right: the accounts' slates are wiped, and the network gets its count back.
    pub(super) async fn succeeded(self, tx: &mut PgConnection) -> Result<(), Error> {
        for count in &self.accounts {
            store::delete(tx, &count.subject).await?;
        }
        match &self.network {
            Some(count) => give_back(tx, count).await,
            None => Ok(()),
        }
    }

    /// The attempt was not looked at.
    pub(super) async fn void(self, tx: &mut PgConnection) -> Result<(), Error> {
        for count in self.accounts.iter().chain(&self.network) {
            give_back(tx, count).await?;
        }
        Ok(())
    }
}

/// Leaves the row as if there had been no attempt. If others came since, theirs is the last failure and theirs the delay.
async fn give_back(tx: &mut PgConnection, count: &Count) -> Result<(), Error> {
    let Some(current) = store::lock(tx, &count.subject).await? else {
        return Ok(());
    };
    let restored = if current == count.after {
        count.before
    } else {
        Counted {
            failures: current.failures.saturating_sub(1).max(0),
            ..current
        }
    };
    Ok(store::update(tx, &count.subject, &restored).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_after_what_is_free_up_to_a_quarter_of_an_hour() {
        let seconds = |failures| delay(failures, ACCOUNT_FREE).as_secs();
        let grown: Vec<u64> = (0..=20).map(seconds).collect();
        assert_eq!(
            grown,
            [
                0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900, 900
            ]
        );
        assert_eq!(seconds(i32::MAX), 900);
        assert_eq!(delay(NETWORK_FREE, NETWORK_FREE), Duration::ZERO);
        assert_eq!(
            delay(NETWORK_FREE + 1, NETWORK_FREE),
            Duration::from_secs(1)
        );
    }
}
