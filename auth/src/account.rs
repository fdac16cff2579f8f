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
#[allow(dead_code, reason = "signatures first")]
mod token;
pub mod totp;
pub mod upstream;

pub use ceremony::CeremonyToken;
pub use password::Hasher;
pub use person::{Membership, Person, Role};
pub use session::{NewSession, Session};

/// The people of an installation: signing in, factors, sessions, invitations, staff.
#[allow(dead_code, reason = "signatures first")]
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
    pub fn new(database: Database, keyring: Arc<Keyring>, clock: Clock, issuer: Issuer) -> Self {
        Self {
            webauthn: passkey::relying_party(&issuer),
            database,
            keyring,
            clock,
            issuer,
            hasher: Hasher::default(),
            upstream: None,
        }
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
}

/// Filled in with what is still to come.
fn pending<T>() -> Result<T, Error> {
    Err(Error::Forbidden("This is not there yet."))
}
