//! Proofs in several steps that have begun: a password without its second factor yet, a passkey's challenge, a way to the upstream provider.
//!
//! What a ceremony must remember is sealed in its row, and the browser holds the token that names it. A ceremony is good once: whoever completes it takes
//! its row away, and of two at once one finds nothing.

use std::time::Duration;

use kernel::{clock::Timestamp, id::PersonId, keyring::DataKey};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;

use super::token;
use crate::{Error, client::secret::Secret};

pub(super) mod store;

/// How long a challenge or a second factor is waited for.
pub(super) const LIFETIME: Duration = Duration::from_mins(5);

/// How long where more is to be done: fetching an authenticator, or signing in elsewhere.
pub(super) const LONG_LIFETIME: Duration = Duration::from_mins(15);

/// What names a ceremony to the browser that has begun it: for a cookie. Prints as `***`.
#[derive(Debug, Clone)]
pub struct CeremonyToken(Secret);

impl CeremonyToken {
    /// A token that a browser shows.
    pub fn new(text: String) -> Self {
        Self(Secret::new(text))
    }

    /// The token itself: 256 random bits in base64url.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    fn hash(&self) -> token::Hash {
        token::hash(self.expose())
    }
}

/// What a ceremony is for. One of one kind is nothing to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    SecondFactor,
    TotpSetup,
    PasskeySignIn,
    PasskeyStepUp,
    PasskeyRegistration,
    Upstream,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::SecondFactor => "second_factor",
            Self::TotpSetup => "totp_setup",
            Self::PasskeySignIn => "passkey_sign_in",
            Self::PasskeyStepUp => "passkey_step_up",
            Self::PasskeyRegistration => "passkey_registration",
            Self::Upstream => "upstream",
        }
    }

    /// What its state is sealed for.
    fn context(self) -> String {
        format!("ceremony:{}", self.name())
    }

    /// What a person calls it.
    const fn noun(self) -> &'static str {
        match self {
            Self::TotpSetup | Self::PasskeyRegistration => "set-up",
            Self::PasskeyStepUp => "confirmation",
            Self::SecondFactor | Self::PasskeySignIn | Self::Upstream => "sign-in",
        }
    }
}

/// Begins a ceremony of `person`, or of whoever it will turn out to be.
pub(super) async fn begin(
    tx: &mut PgConnection,
    key: &DataKey,
    kind: Kind,
    person: Option<PersonId>,
    state: &impl Serialize,
    expires_at: Timestamp,
) -> Result<CeremonyToken, Error> {
    let token = CeremonyToken(token::generate());
    let sealed = key.seal(&kind.context(), &serde_json::to_vec(state)?)?;
    store::insert(tx, &token.hash(), kind.name(), person, &sealed, expires_at).await?;
    Ok(token)
}

/// What a ceremony remembers; it goes on.
pub(super) async fn look<State: DeserializeOwned>(
    tx: &mut PgConnection,
    key: &DataKey,
    kind: Kind,
    token: &CeremonyToken,
    now: Timestamp,
) -> Result<State, Error> {
    let sealed = store::select(tx, &token.hash(), kind.name(), now).await?;
    read(key, kind, sealed)
}

/// Ends a ceremony that was looked at; [`Error::Gone`] if another was faster.
pub(super) async fn end(
    tx: &mut PgConnection,
    kind: Kind,
    token: &CeremonyToken,
    now: Timestamp,
) -> Result<(), Error> {
    match store::delete(tx, &token.hash(), kind.name(), now).await? {
        Some(_) => Ok(()),
        None => Err(Error::Gone(kind.noun())),
    }
}

/// What a ceremony remembers, and its end.
pub(super) async fn take<State: DeserializeOwned>(
    tx: &mut PgConnection,
    key: &DataKey,
    kind: Kind,
    token: &CeremonyToken,
    now: Timestamp,
) -> Result<State, Error> {
    let sealed = store::delete(tx, &token.hash(), kind.name(), now).await?;
    read(key, kind, sealed)
}

fn read<State: DeserializeOwned>(
    key: &DataKey,
    kind: Kind,
    sealed: Option<Vec<u8>>,
) -> Result<State, Error> {
    let sealed = sealed.ok_or(Error::Gone(kind.noun()))?;
    Ok(serde_json::from_slice(
        &key.open(&kind.context(), &sealed)?,
    )?)
}
