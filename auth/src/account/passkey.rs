//! Passkeys (WebAuthn).
#![allow(unused_variables, clippy::unused_async, missing_docs)]

use kernel::{caller::Caller, clock::Timestamp};
use serde_json::Value;
use webauthn_rs::Webauthn;

use super::{Accounts, CeremonyToken, NewSession, Session, pending};
use crate::{Error, Issuer};

/// What the browser's `navigator.credentials` is asked, and the ceremony that its answer belongs to.
#[derive(Debug)]
pub struct PasskeyChallenge {
    /// For the function that finishes.
    pub ceremony: CeremonyToken,
    /// `{"publicKey": …}` as WebAuthn's JSON has it (binary values in base64url), for `parseCreationOptionsFromJSON` or `parseRequestOptionsFromJSON` of its
    /// `publicKey`.
    pub options: Value,
}

/// One of a person's passkeys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasskeySummary {
    /// The passkey.
    pub id: PasskeyId,
    /// What the person calls it.
    pub name: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
}

/// The credential id of a passkey; as text in base64url.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasskeyId(Vec<u8>);

impl std::fmt::Display for PasskeyId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use base64::Engine;
        formatter.write_str(&base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl std::str::FromStr for PasskeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        pending()
    }
}

pub(super) fn relying_party(issuer: &Issuer) -> Option<Webauthn> {
    None
}

impl Accounts {
    /// Whether there are passkeys here.
    pub const fn passkeys_available(&self) -> bool {
        self.webauthn.is_some()
    }

    /// Begins a sign-in by passkey; nobody is named (discoverable credentials).
    pub async fn begin_passkey_sign_in(&self) -> Result<PasskeyChallenge, Error> {
        pending()
    }

    /// Signs in by passkey; `credential` is the browser's `PublicKeyCredential.toJSON()`.
    pub async fn finish_passkey_sign_in(
        &self,
        caller: &Caller,
        ceremony: &CeremonyToken,
        credential: Value,
    ) -> Result<NewSession, Error> {
        pending()
    }

    /// Begins a step-up by passkey.
    pub async fn begin_passkey_step_up(
        &self,
        session: &Session,
    ) -> Result<PasskeyChallenge, Error> {
        pending()
    }

    /// Steps up by passkey.
    pub async fn finish_passkey_step_up(
        &self,
        caller: &Caller,
        session: &Session,
        ceremony: &CeremonyToken,
        credential: Value,
    ) -> Result<NewSession, Error> {
        pending()
    }

    /// Begins to add a passkey. Needs a recent proof.
    pub async fn begin_passkey_registration(
        &self,
        session: &Session,
    ) -> Result<PasskeyChallenge, Error> {
        pending()
    }

    /// Adds a passkey under a name of 1 to 200 characters.
    pub async fn finish_passkey_registration(
        &self,
        caller: &Caller,
        session: &Session,
        ceremony: &CeremonyToken,
        name: &str,
        credential: Value,
    ) -> Result<PasskeySummary, Error> {
        pending()
    }

    /// The person's passkeys, the oldest first.
    pub async fn passkeys(&self, session: &Session) -> Result<Vec<PasskeySummary>, Error> {
        pending()
    }

    /// Renames a passkey.
    pub async fn rename_passkey(
        &self,
        session: &Session,
        id: &PasskeyId,
        name: &str,
    ) -> Result<(), Error> {
        pending()
    }

    /// Removes a passkey, and ends the other sessions. Needs a recent proof; the last way in stays.
    pub async fn remove_passkey(
        &self,
        caller: &Caller,
        session: &Session,
        id: &PasskeyId,
    ) -> Result<(), Error> {
        pending()
    }
}
