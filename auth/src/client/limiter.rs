//! How often somebody may be wrong: failures at the endpoints where machines show secrets, codes and refresh tokens.
//!
//! Those have 256 random bits, so nobody guesses one; what is limited is the trying, which costs us and means that something is broken or hostile.
//! Failures are counted by client and network, and by network; successes are not. A client that is refused here has cost no statement. The counts are a process's
//! own: several processes allow several times as much, which is still nothing beside 2²⁵⁶.
//!
//! Requests that are under way at once are not counted until they fail, so a burst may get some more tries than said; that saves honest clients that
//! come fifty at a time from being turned away.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kernel::clock::Timestamp;
use sha2::{Digest, Sha256};

/// The time in which an allowance that is used up becomes whole again.
const WINDOW: Duration = Duration::from_mins(1);

/// How long a failure of one client from one network takes to be forgiven: ten in a window, as of a deployment with a stale secret that is restarted a few
/// times.
const COST_TO_CLIENT: Duration = Duration::from_secs(6);

/// The same for a network, whichever clients it names: sixty in a window, as of some clients behind one address.
const COST_TO_NETWORK: Duration = Duration::from_secs(1);

/// Entries of each of two generations: some three megabytes each. Beyond it the older generation is forgotten early.
const ENTRIES_MAX: usize = 32_768;

/// Counts failures, and says who has to wait.
#[derive(Debug, Default)]
pub struct Limiter {
    pairs: Mutex<Generations>,
    networks: Mutex<Generations>,
}

/// What is counted: a hash, because a client id may be anything of any length.
type Key = [u8; 32];

/// When each allowance is whole again. An entry that nobody has touched for a window says nothing any more; so it is enough to keep those of this window
/// and of the one before.
#[derive(Debug, Default)]
struct Generations {
    began: Option<Timestamp>,
    present: HashMap<Key, Timestamp>,
    past: HashMap<Key, Timestamp>,
}

impl Limiter {
    /// Counts nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing if `client_id`, as it was sent, may try at `now` from `network`; how long it has to wait, if not.
    ///
    /// Without a network (the edge knows no address) clients are told apart by their id alone, and nobody is counted for all of them.
    pub fn check(
        &self,
        client_id: &str,
        network: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let pair = key(client_id, network.unwrap_or_default());
        let of_pair = wait(&self.pairs, &pair, COST_TO_CLIENT, now);
        let of_network = network.map_or(Duration::ZERO, |network| {
            let network = key("", network);
            wait(&self.networks, &network, COST_TO_NETWORK, now)
        });
        let wait = of_pair.max(of_network);
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// Counts a failure: a wrong secret, assertion, code, verifier or refresh token.
    pub fn failed(&self, client_id: &str, network: Option<&str>, now: Timestamp) {
        let pair = key(client_id, network.unwrap_or_default());
        count(&self.pairs, pair, COST_TO_CLIENT, now);
        if let Some(network) = network {
            let network = key("", network);
            count(&self.networks, network, COST_TO_NETWORK, now);
        }
    }
}

/// How long it takes until a failure that costs as much is allowed again.
fn wait(generations: &Mutex<Generations>, key: &Key, cost: Duration, now: Timestamp) -> Duration {
    let generations = generations.lock().unwrap_or_else(PoisonError::into_inner);
    let room = WINDOW.saturating_sub(cost);
    generations.whole_at(key).since(now).saturating_sub(room)
}

fn count(generations: &Mutex<Generations>, key: Key, cost: Duration, now: Timestamp) {
    let mut generations = generations.lock().unwrap_or_else(PoisonError::into_inner);
    let whole_at = generations.whole_at(&key).max(now).plus(cost);
    generations.insert(key, whole_at.min(now.plus(WINDOW)), now);
}

impl Generations {
    fn whole_at(&self, key: &Key) -> Timestamp {
        self.present
            .get(key)
            .or_else(|| self.past.get(key))
            .copied()
            .unwrap_or_else(|| Timestamp::from_unix_millis(0))
    }

    fn insert(&mut self, key: Key, whole_at: Timestamp, now: Timestamp) {
        let began = *self.began.get_or_insert(now);
        if now.since(began) >= WINDOW || self.present.len() >= ENTRIES_MAX {
            self.past = std::mem::take(&mut self.present);
            self.began = Some(now);
        }
        self.present.insert(key, whole_at);
    }
}

/// The length goes first, so that no two pairs are written alike.
fn key(client_id: &str, network: &str) -> Key {
    Sha256::new()
        .chain_update(client_id.len().to_be_bytes())
        .chain_update(client_id)
        .chain_update(network)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: Option<&str> = Some("192.0.2.7");
    const AWAY: Option<&str> = Some("2001:db8:1:2::/64");

    fn second(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(1_700_000_000_000 + seconds * 1_000)
    }

    fn fail(limiter: &Limiter, times: usize, client_id: &str, network: Option<&str>, at: i64) {
        for _ in 0..times {
            limiter.failed(client_id, network, second(at));
        }
    }

    #[test]
    fn the_eleventh_try_within_a_minute_waits_and_a_place_comes_back_every_six_seconds() {
        let limiter = Limiter::new();
        fail(&limiter, 9, "app", HOME, 0);
        assert_eq!(limiter.check("app", HOME, second(0)), Ok(()));
        fail(&limiter, 1, "app", HOME, 0);
        let wait = limiter.check("app", HOME, second(0));
        assert_eq!(wait, Err(Duration::from_secs(6)));
        assert_eq!(
            limiter.check("app", HOME, second(5)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(limiter.check("app", HOME, second(6)), Ok(()));
        fail(&limiter, 1, "app", HOME, 6);
        assert_eq!(
            limiter.check("app", HOME, second(6)),
            Err(Duration::from_secs(6))
        );
        assert_eq!(limiter.check("app", HOME, second(66)), Ok(()));
        fail(&limiter, 9, "app", HOME, 66);
        assert_eq!(limiter.check("app", HOME, second(66)), Ok(()));
    }

    #[test]
    fn a_client_is_not_held_up_by_another_network_nor_a_network_by_one_client() {
        let limiter = Limiter::new();
        fail(&limiter, 10, "app", HOME, 0);
        assert!(limiter.check("app", HOME, second(0)).is_err());
        assert_eq!(limiter.check("app", AWAY, second(0)), Ok(()));
        assert_eq!(limiter.check("app", None, second(0)), Ok(()));
        assert_eq!(limiter.check("other", HOME, second(0)), Ok(()));
    }

    #[test]
    fn a_network_that_tries_many_clients_waits_for_all_of_them() {
        let limiter = Limiter::new();
        for client in 0..60 {
            fail(&limiter, 1, &format!("app {client}"), HOME, 0);
        }
        assert_eq!(
            limiter.check("somebody", HOME, second(0)),
            Err(Duration::from_secs(1))
        );
        assert_eq!(limiter.check("somebody", AWAY, second(0)), Ok(()));
        assert_eq!(limiter.check("somebody", HOME, second(1)), Ok(()));
    }

    #[test]
    fn without_a_network_nobody_is_counted_for_all() {
        let limiter = Limiter::new();
        for client in 0..100 {
            fail(&limiter, 1, &format!("app {client}"), None, 0);
        }
        assert_eq!(limiter.check("somebody", None, second(0)), Ok(()));
        fail(&limiter, 10, "app", None, 0);
        assert!(limiter.check("app", None, second(0)).is_err());
    }

    #[test]
    fn tries_that_came_together_do_not_lock_for_longer_than_a_minute() {
        let limiter = Limiter::new();
        fail(&limiter, 1_000, "app", HOME, 0);
        assert!(limiter.check("app", HOME, second(5)).is_err());
        assert_eq!(limiter.check("app", HOME, second(6)), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_lasts_as_long_as_it_matters() {
        let limiter = Limiter::new();
        fail(&limiter, 10, "app", HOME, 0);
        // The generation changes, and the failures still count.
        fail(&limiter, 1, "other", AWAY, 1);
        fail(&limiter, 10, "app", HOME, 59);
        fail(&limiter, 1, "other", AWAY, 61);
        assert!(limiter.check("app", HOME, second(61)).is_err());
        for client in 0..100_000 {
            limiter.failed(&format!("app {client}"), AWAY, second(62));
        }
        let pairs = limiter.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(pairs.present.len() <= ENTRIES_MAX && pairs.past.len() <= ENTRIES_MAX);
    }

    #[test]
    fn no_two_pairs_are_written_alike() {
        assert_ne!(key("a", "bc"), key("ab", "c"));
        assert_ne!(key("", "abc"), key("abc", ""));
    }
}
