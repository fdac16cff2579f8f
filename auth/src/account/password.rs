//! Passwords: which are good enough, and how they are hashed (Argon2id, RFC 9106), off the async threads and a few at a time.

use std::{
    fmt,
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::PasswordHash,
};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use tokio::sync::Semaphore;
use zxcvbn::{Score, zxcvbn};

use crate::{Error, client::secret::Secret};

/// Memory of a hash in KiB: what OWASP's Password Storage Cheat Sheet asks at least of Argon2id with two passes.
const MEMORY_KIB: u32 = 19 * 1024;

/// Passes over that memory.
const PASSES: u32 = 2;

/// Lanes: a hash takes one core.
const LANES: u32 = 1;

/// Characters of a password at least.
const CHARACTERS_MIN: usize = 10;

/// Characters of a password at most: a sentence, and not a book to hash.
const CHARACTERS_MAX: usize = 200;

/// Characters of a part of a login or name that makes a password easier to guess.
const PART_CHARACTERS_MIN: usize = 3;

/// A password that this many guesses (10^8) find is too weak.
const SCORE_MIN: Score = Score::Three;

/// How long a sign-in waits until a core is free to hash for it.
const WAITING_MAX: Duration = Duration::from_secs(3);

/// When to try again if none was.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Hashes and verifies passwords: on threads of their own, on as many at once as there are cores.
pub struct Hasher {
    params: Params,
    permits: Arc<Semaphore>,
    /// What a password is compared with where there is nothing to compare it with: as much work, and no password is right.
    decoy: String,
    computed: AtomicU64,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Hasher")
            .field("params", &self.params)
            .finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher of the strength that is in use.
    pub fn standard() -> Result<Self, Error> {
        Self::new(MEMORY_KIB, PASSES)
    }

    /// A hasher that takes `memory_kib` (at least 8) of memory and `passes` over it. For tests, and for machines that can do more.
    pub fn new(memory_kib: u32, passes: u32) -> Result<Self, Error> {
        let params = Params::new(memory_kib, passes, LANES, None).map_err(failed)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let salt = BASE64_STANDARD_NO_PAD.encode(rand::random::<[u8; 16]>());
        let output =
            BASE64_STANDARD_NO_PAD.encode(rand::random::<[u8; Params::DEFAULT_OUTPUT_LEN]>());
        Ok(Self {
            decoy: format!("$argon2id$v=19$m={memory_kib},t={passes},p={LANES}${salt}${output}"),
            params,
            permits: Arc::new(Semaphore::new(cores)),
            computed: AtomicU64::new(0),
        })
    }

    /// How many hashes were computed so far.
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    /// The hash of `password` as a PHC string.
    pub(super) async fn hash(&self, password: &Secret) -> Result<String, Error> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let password = password.clone();
        self.compute(move || {
            let salt = rand::random::<[u8; 16]>();
            let hash = argon2.hash_password_with_salt(password.expose().as_bytes(), &salt);
            Ok(hash.map_err(failed)?.to_string())
        })
        .await
    }

    /// Whether `password` is the one that `kept` is the hash of. With nothing kept, the answer is no, after the same work.
    pub(super) async fn verify(
        &self,
        kept: Option<&str>,
        password: &Secret,
    ) -> Result<bool, Error> {
        let is_known = kept.is_some();
        let kept = kept.unwrap_or(&self.decoy).to_owned();
        let password = password.clone();
        let is_equal = self
            .compute(move || {
                let kept = PasswordHash::new(&kept).map_err(failed)?;
                // Memory and passes are those that the kept hash names.
                match Argon2::default().verify_password(password.expose().as_bytes(), &kept) {
                    Ok(()) => Ok(true),
                    Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                    Err(error) => Err(failed(error)),
                }
            })
            .await?;
        Ok(is_known && is_equal)
    }

    /// Whether `kept` was made with other parameters than are in use, so that it should be made anew when its password is at hand.
    pub(super) fn is_outdated(&self, kept: &str) -> bool {
        let Ok(kept) = PasswordHash::new(kept) else {
            return true;
        };
        Params::try_from(&kept).map_or(true, |params| {
            params.m_cost() != self.params.m_cost()
                || params.t_cost() != self.params.t_cost()
                || params.p_cost() != self.params.p_cost()
        })
    }

    /// What is wrong with `password` for somebody who is called as `about` says; `None` if nothing is.
    pub(super) async fn fault(
        &self,
        password: &Secret,
        about: &[&str],
    ) -> Result<Option<String>, Error> {
        let count = password.expose().chars().count();
        if count < CHARACTERS_MIN {
            return Ok(Some(format!(
                "must have at least {CHARACTERS_MIN} characters"
            )));
        }
        if count > CHARACTERS_MAX {
            return Ok(Some(format!(
                "must have at most {CHARACTERS_MAX} characters"
            )));
        }
        let password = password.clone();
        // Whole and in their parts: an address is easily guessed from, and so is a surname.
        let parts = about
            .iter()
            .flat_map(|text| text.split(|character: char| !character.is_alphanumeric()))
            .filter(|part| part.chars().count() >= PART_CHARACTERS_MIN);
        let about: Vec<String> = about
            .iter()
            .copied()
            .chain(parts)
            .map(str::to_owned)
            .collect();
        tokio::task::spawn_blocking(move || weakness(password.expose(), &about))
            .await
            .map_err(failed)
    }

    /// Runs `work` on a thread that may block, once a core is free. Whoever goes away meanwhile leaves the core taken until the work is done.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let waiting = Arc::clone(&self.permits).acquire_owned();
        let permit = match tokio::time::timeout(WAITING_MAX, waiting).await {
            Ok(permit) => permit.map_err(failed)?,
            Err(_elapsed) => {
                return Err(Error::Throttled {
                    retry_after: RETRY_AFTER,
                });
            }
        };
        self.computed.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
        .map_err(failed)?
    }
}

/// Why a password of the right length is too easy to guess. Its list of common passwords, names and words has some 100,000.
fn weakness(password: &str, about: &[String]) -> Option<String> {
    let about: Vec<&str> = about.iter().map(String::as_str).collect();
    let judgement = zxcvbn(password, &about);
    if judgement.score() >= SCORE_MIN {
        return None;
    }
    let why = judgement
        .feedback()
        .and_then(zxcvbn::feedback::Feedback::warning)
        .map_or_else(String::new, |warning| format!(" {warning}"));
    Some(format!(
        "is too easy to guess.{why} A few uncommon words make a good one."
    ))
}

fn failed(error: impl fmt::Display) -> Error {
    Error::Factor(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_hash_names_its_parameters_and_fits_its_password_alone() {
        let hasher = Hasher::new(64, 1).unwrap();
        let kept = hasher
            .hash(&secret("grauer Kranich im Nebel"))
            .await
            .unwrap();
        assert!(kept.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{kept}");
        assert!(
            hasher
                .verify(Some(&kept), &secret("grauer Kranich im Nebel"))
                .await
                .unwrap()
        );
        assert!(
            !hasher
                .verify(Some(&kept), &secret("grauer Kranich im Nebel "))
                .await
                .unwrap()
        );
        assert!(
            !hasher
                .verify(None, &secret("grauer Kranich im Nebel"))
                .await
                .unwrap()
        );
        assert_eq!(hasher.computed(), 4, "as many for nobody as for somebody");
        let stronger = Hasher::new(128, 2).unwrap();
        assert!(
            stronger
                .verify(Some(&kept), &secret("grauer Kranich im Nebel"))
                .await
                .unwrap()
        );
        assert!(stronger.is_outdated(&kept) && !hasher.is_outdated(&kept));
    }

    #[test]
    fn the_strength_in_use_is_what_is_asked_for() {
        let hasher = Hasher::standard().unwrap();
        assert!(hasher.decoy.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(!hasher.is_outdated(&hasher.decoy));
    }

    #[tokio::test]
    async fn weak_passwords_are_named_weak() {
        let hasher = Hasher::new(64, 1).unwrap();
        let about = ["anna.brandner@shop.example", "Anna Brandner"];
        for weak in [
            "short",
            "password123",
            "Passw0rd123!",
            "qwertyuiopasdf",
            "aaaaaaaaaaaaaaaa",
            "annabrandner",
            "anna.brandner@shop.example",
            "1234567890987",
        ] {
            let fault = hasher.fault(&secret(weak), &about).await.unwrap();
            assert!(fault.is_some(), "{weak}");
        }
        let long = "x ".repeat(101);
        assert!(
            hasher
                .fault(&secret(&long), &about)
                .await
                .unwrap()
                .is_some()
        );
        for strong in [
            "grauer Kranich im Nebel",
            "tZ8#kq!w2Lp9",
            "correct zebra lamp quilt",
        ] {
            assert_eq!(
                hasher.fault(&secret(strong), &about).await.unwrap(),
                None,
                "{strong}"
            );
        }
    }
}
