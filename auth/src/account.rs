//! People: merchants' staff, operators and apps' developers; how they prove who they are, and what they may decide.
//!
//! Called by `console`, whose pages show a [`session::Session`], and by the command line; a merchant's word on a grant is given by a session.
//! [`Accounts`] owns its transactions: nothing is hashed, sent or waited for inside of one.

use std::{fmt, sync::Arc};

use kernel::{clock::Clock, db::Database, keyring::Keyring};
use webauthn_rs::Webauthn;

use crate::{Error, Issuer};

pub mod ceremony;
pub mod invitation;
pub mod membership;
pub mod passkey;
pub mod password;
pub mod person;
pub mod recovery_code;
pub mod session;
pub mod sign_in;
mod throttle;
mod token;
pub mod totp;
pub mod upstream;

pub use ceremony::CeremonyToken;
pub use password::Hasher;
pub use person::{Membership, Person, Role};
pub use session::{NewSession, Session};

/// The people of an installation: signing in, factors, sessions, invitations, staff.
pub struct Accounts {
    database: Database,
    keyring: Arc<Keyring>,
    clock: Clock,
    issuer: Issuer,
    hasher: Hasher,
    webauthn: Option<Webauthn>,
    upstream: Option<upstream::Upstream>,
}

impl fmt::Debug for Accounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Accounts")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Accounts {
    /// The people of `database`, a pool of the API role. Passkeys are on where the issuer's host is a name: WebAuthn knows no addresses.
    pub fn new(
        database: Database,
        keyring: Arc<Keyring>,
        clock: Clock,
        issuer: Issuer,
    ) -> Result<Self, Error> {
        Ok(Self {
            webauthn: passkey::relying_party(&issuer),
            database,
            keyring,
            clock,
            issuer,
            hasher: Hasher::standard()?,
            upstream: None,
        })
    }

    /// The same with passwords hashed by `hasher`.
    #[must_use]
    pub fn with_hasher(self, hasher: Hasher) -> Self {
        Self { hasher, ..self }
    }

    /// The same with sign-on by an upstream OpenID provider.
    pub fn with_upstream(self, config: upstream::UpstreamConfig) -> Result<Self, Error> {
        let upstream = upstream::Upstream::new(config, &self.issuer)?;
        Ok(Self {
            upstream: Some(upstream),
            ..self
        })
    }

    /// What hashes the passwords.
    pub const fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Deletes sessions, ceremonies and invitations whose time is over, and forgets wrong guesses of yesterday; says how many rows went. For a sweeper, some times
    /// an hour: nothing that is over counts in the meantime.
    pub async fn sweep(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let swept = session::store::delete_expired(&mut tx, now).await?
            + ceremony::store::delete_expired(&mut tx, now).await?
            + invitation::store::delete_expired(&mut tx, now).await?
            + throttle::store::delete_older(&mut tx, now.minus(throttle::FORGOTTEN_AFTER)).await?;
        sign_in::commit(tx).await?;
        Ok(swept)
    }
}
