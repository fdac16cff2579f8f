//! Passkeys (WebAuthn, level 3): both factors at once, because the authenticator verifies the person itself.
//!
//! The browser is given a challenge, which is remembered in a ceremony, and what it answers is checked against that ceremony once, right or wrong. Who signs in by a
//! passkey names nobody: the authenticator knows whose it is, so only discoverable credentials are made.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db::Transaction,
    id::PersonId,
    validation::Faults,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use url::Url;
use webauthn_rs::{
    Webauthn, WebauthnBuilder,
    prelude::{
        AuthenticationResult, DiscoverableAuthentication, DiscoverableKey, Passkey,
        PasskeyAuthentication, PasskeyRegistration, PublicKeyCredential,
        RegisterPublicKeyCredential, WebauthnError,
    },
};

use super::{
    Accounts, CeremonyToken, NewSession, Session,
    ceremony::{self, Kind},
    person,
    session::{self, Factor},
    sign_in::{Reason, commit},
};
use crate::{Error, Issuer};

mod store;

/// Passkeys of one person.
const PASSKEYS_MAX: usize = 20;

/// Characters of a name, as the table has it.
const NAME_LENGTH_MAX: usize = 200;

/// What the browser's `navigator.credentials` is asked, and the ceremony that its answer belongs to.
#[derive(Debug)]
pub struct PasskeyChallenge {
    /// For the function that finishes; good for five minutes.
    pub ceremony: CeremonyToken,
    /// `{"publicKey": …}` as WebAuthn's JSON has it, binary values in base64url: `publicKey` is for `PublicKeyCredential.parseCreationOptionsFromJSON` or
    /// `parseRequestOptionsFromJSON`. Sign-ins have `"mediation": "conditional"` beside it.
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

impl fmt::Display for PasskeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE64_URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl FromStr for PasskeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text);
        bytes.map(Self).map_err(|_not_base64| Error::NotFound {
            noun: "passkey",
            id: text.to_owned(),
        })
    }
}

/// A challenge that the person `by` their session has asked for.
#[derive(Serialize, Deserialize)]
struct Challenged<State> {
    person: PersonId,
    state: State,
}

/// The issuer as WebAuthn's relying party; `None` where its host is an address, of which WebAuthn knows none.
pub(super) fn relying_party(issuer: &Issuer) -> Option<Webauthn> {
    let origin = Url::parse(issuer.as_str()).ok()?;
    let host = origin.domain()?;
    let built =
        WebauthnBuilder::new(host, &origin).and_then(|builder| builder.rp_name("Stoa").build());
    built.ok()
}

fn failed(error: &WebauthnError) -> Error {
    Error::Factor(error.to_string())
}

impl Accounts {
    /// Whether there are passkeys here: not where the issuer's host is an address.
    pub const fn passkeys_available(&self) -> bool {
        self.webauthn.is_some()
    }

    fn relying_party(&self) -> Result<&Webauthn, Error> {
        self.webauthn.as_ref().ok_or(Error::Forbidden(
            "There are no passkeys at an address without a name.",
        ))
    }

    /// Begins a sign-in by passkey; nobody is named.
    pub async fn begin_passkey_sign_in(&self) -> Result<PasskeyChallenge, Error> {
        let begun = self.relying_party()?.start_discoverable_authentication();
        let (options, state) = begun.map_err(|error| failed(&error))?;
        let options = serde_json::to_value(options)?;
        self.challenge(Kind::PasskeySignIn, None, options, &state)
            .await
    }

    /// Signs in by passkey; `credential` is the browser's `PublicKeyCredential` as JSON. [`Error::NotAccepted`] if it is not right, [`Error::Gone`] if the challenge is
    /// over or was answered.
    pub async fn finish_passkey_sign_in(
        &self,
        caller: &Caller,
        ceremony: &CeremonyToken,
        credential: Value,
    ) -> Result<NewSession, Error> {
        let webauthn = self.relying_party()?;
        let state: DiscoverableAuthentication = self.take(Kind::PasskeySignIn, ceremony).await?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let Some((person, mut passkey)) = shown(&mut tx, webauthn, &credential).await? else {
            drop(tx);
            return self
                .refuse("session.refused", caller, None, Reason::Passkey)
                .await;
        };
        let key = DiscoverableKey::from(&passkey);
        let verified = serde_json::from_value::<PublicKeyCredential>(credential)
            .ok()
            .and_then(|shown| {
                webauthn
                    .finish_discoverable_authentication_v2(&shown, state, &key)
                    .ok()
            })
            .filter(AuthenticationResult::user_verified);
        let Some(result) = verified else {
            drop(tx);
            let person = Some(person);
            return self
                .refuse("session.refused", caller, person, Reason::Passkey)
                .await;
        };
        let current = person::store::lock(&mut tx, person).await?;
        if current.is_none_or(|current| current.is_disabled) {
            drop(tx);
            let person = Some(person);
            return self
                .refuse("session.refused", caller, person, Reason::Disabled)
                .await;
        }
        passkey.update_credential(&result);
        store::set_used(&mut tx, &passkey, now).await?;
        let factors = [Factor::Passkey];
        let started = session::start(&mut tx, person, &factors, caller, now).await?;
        commit(tx).await?;
        Ok(started)
    }

    /// Begins a step-up by one of the person's passkeys; who has none is [`Error::Forbidden`].
    pub async fn begin_passkey_step_up(
        &self,
        session: &Session,
    ) -> Result<PasskeyChallenge, Error> {
        let webauthn = self.relying_party()?;
        let person = session.person.id;
        let mut tx = self.database.begin().await?;
        let passkeys = store::select_of(&mut tx, person).await?;
        drop(tx);
        if passkeys.is_empty() {
            return Err(Error::Forbidden("There is no passkey to confirm with."));
        }
        let (options, state) = webauthn
            .start_passkey_authentication(&passkeys)
            .map_err(|error| failed(&error))?;
        let options = serde_json::to_value(options)?;
        let state = Challenged { person, state };
        self.challenge(Kind::PasskeyStepUp, Some(person), options, &state)
            .await
    }

    /// Proves by passkey once more who it is. The session goes on under a new token.
    pub async fn finish_passkey_step_up(
        &self,
        caller: &Caller,
        session: &Session,
        ceremony: &CeremonyToken,
        credential: Value,
    ) -> Result<NewSession, Error> {
        let webauthn = self.relying_party()?;
        let person = session.person.id;
        let challenged: Challenged<PasskeyAuthentication> =
            self.take_own(Kind::PasskeyStepUp, ceremony, person).await?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let mut passkey = shown(&mut tx, webauthn, &credential)
            .await?
            .filter(|(owner, _)| *owner == person)
            .map(|(_, passkey)| passkey);
        let result = serde_json::from_value::<PublicKeyCredential>(credential)
            .ok()
            .and_then(|shown| {
                let state = &challenged.state;
                webauthn.finish_passkey_authentication(&shown, state).ok()
            })
            .filter(AuthenticationResult::user_verified);
        let (Some(passkey), Some(result)) = (passkey.as_mut(), result) else {
            drop(tx);
            let person = Some(person);
            return self
                .refuse("step_up.refused", caller, person, Reason::Passkey)
                .await;
        };
        passkey.update_credential(&result);
        store::set_used(&mut tx, passkey, now).await?;
        let factors = [Factor::Passkey];
        let renewed = session::renew(&mut tx, person, session.id, &factors, caller, now).await?;
        commit(tx).await?;
        Ok(renewed)
    }

    /// Begins to add a passkey. Needs a recent proof.
    pub async fn begin_passkey_registration(
        &self,
        session: &Session,
    ) -> Result<PasskeyChallenge, Error> {
        let webauthn = self.relying_party()?;
        session.require_recent_proof(self.clock.now())?;
        let person = &session.person;
        let mut tx = self.database.begin().await?;
        let known = store::select_of(&mut tx, person.id).await?;
        drop(tx);
        if known.len() >= PASSKEYS_MAX {
            return Err(Error::Forbidden(
                "There are twenty passkeys; remove one first.",
            ));
        }
        let known = known
            .iter()
            .map(|passkey| passkey.cred_id().clone())
            .collect();
        let (options, state) = webauthn
            .start_passkey_registration(person.id.uuid(), &person.login, &person.name, Some(known))
            .map_err(|error| failed(&error))?;
        let mut options = serde_json::to_value(options)?;
        // The library leaves it open whether the authenticator will know whose passkey it is. Who signs in names nobody, so it must.
        if let Some(Value::Object(selection)) =
            options.pointer_mut("/publicKey/authenticatorSelection")
        {
            selection.insert("residentKey".to_owned(), "required".into());
            selection.insert("requireResidentKey".to_owned(), true.into());
        }
        let state = Challenged {
            person: person.id,
            state,
        };
        self.challenge(Kind::PasskeyRegistration, Some(person.id), options, &state)
            .await
    }

    /// Adds a passkey under a name of 1 to 200 characters (or else a field error at `/name`, and the ceremony goes on).
    pub async fn finish_passkey_registration(
        &self,
        caller: &Caller,
        session: &Session,
        ceremony: &CeremonyToken,
        name: &str,
        credential: Value,
    ) -> Result<PasskeySummary, Error> {
        let webauthn = self.relying_party()?;
        let name = checked_name(name)?;
        let person = session.person.id;
        let challenged: Challenged<PasskeyRegistration> = self
            .take_own(Kind::PasskeyRegistration, ceremony, person)
            .await?;
        let passkey = serde_json::from_value::<RegisterPublicKeyCredential>(credential)
            .ok()
            .and_then(|made| {
                let state = &challenged.state;
                webauthn.finish_passkey_registration(&made, state).ok()
            })
            .ok_or(Error::NotAccepted)?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        if !store::insert(&mut tx, person, &passkey, &name, now).await? {
            return Err(Error::NotAccepted);
        }
        let id = PasskeyId(passkey.cred_id().clone());
        let entry = NewEntry::succeeded("passkey.added")
            .by_person(person)
            .to("passkey", &id);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        commit(tx).await?;
        Ok(PasskeySummary {
            id,
            name,
            created_at: now,
            last_used_at: None,
        })
    }

    /// The person's passkeys, the oldest first.
    pub async fn passkeys(&self, session: &Session) -> Result<Vec<PasskeySummary>, Error> {
        let mut tx = self.database.begin().await?;
        Ok(store::list(&mut tx, session.person.id).await?)
    }

    /// Renames a passkey: 1 to 200 characters, or else a field error at `/name`.
    pub async fn rename_passkey(
        &self,
        session: &Session,
        id: &PasskeyId,
        name: &str,
    ) -> Result<(), Error> {
        let name = checked_name(name)?;
        let mut tx = self.database.begin().await?;
        if !store::rename(&mut tx, session.person.id, id, &name).await? {
            return Err(not_found(id));
        }
        commit(tx).await
    }

    /// Removes a passkey, and ends the other sessions. Needs a recent proof; the last way in stays.
    pub async fn remove_passkey(
        &self,
        caller: &Caller,
        session: &Session,
        id: &PasskeyId,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        session.require_recent_proof(now)?;
        let person = session.person.id;
        let mut tx = self.database.begin().await?;
        if !store::delete(&mut tx, person, id).await? {
            return Err(not_found(id));
        }
        person::require_way_in(&mut tx, person).await?;
        session::end_others(&mut tx, person, Some(session.id), caller, now).await?;
        let entry = NewEntry::succeeded("passkey.removed")
            .by_person(person)
            .to("passkey", id);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        commit(tx).await
    }

    async fn challenge(
        &self,
        kind: Kind,
        person: Option<PersonId>,
        options: Value,
        state: &impl Serialize,
    ) -> Result<PasskeyChallenge, Error> {
        let expires_at = self.clock.now().plus(ceremony::LIFETIME);
        let mut tx = self.database.begin().await?;
        let key = self.keyring.master();
        let ceremony = ceremony::begin(&mut tx, key, kind, person, state, expires_at).await?;
        commit(tx).await?;
        Ok(PasskeyChallenge { ceremony, options })
    }

    /// Takes the ceremony out for good, whatever comes of it.
    async fn take<State: DeserializeOwned>(
        &self,
        kind: Kind,
        ceremony: &CeremonyToken,
    ) -> Result<State, Error> {
        let mut tx = self.database.begin().await?;
        let (key, now) = (self.keyring.master(), self.clock.now());
        let state = ceremony::take(&mut tx, key, kind, ceremony, now).await?;
        commit(tx).await?;
        Ok(state)
    }

    async fn take_own<State: DeserializeOwned>(
        &self,
        kind: Kind,
        ceremony: &CeremonyToken,
        person: PersonId,
    ) -> Result<Challenged<State>, Error> {
        let challenged: Challenged<State> = self.take(kind, ceremony).await?;
        if challenged.person == person {
            Ok(challenged)
        } else {
            Err(Error::NotAccepted)
        }
    }
}

/// The passkey that `credential` says it is by, locked, and whose it is. What names its person must name the right one.
async fn shown(
    tx: &mut Transaction,
    webauthn: &Webauthn,
    credential: &Value,
) -> Result<Option<(PersonId, Passkey)>, Error> {
    let Ok(credential) = PublicKeyCredential::deserialize(credential) else {
        return Ok(None);
    };
    let Some((person, passkey)) =
        store::lock(tx, &PasskeyId(credential.get_credential_id().to_vec())).await?
    else {
        return Ok(None);
    };
    let is_theirs = match webauthn.identify_discoverable_authentication(&credential) {
        Ok((named, _)) => named == person.uuid(),
        // Asked for a passkey of a known person, an authenticator need not name them again.
        Err(_unnamed) => true,
    };
    Ok(is_theirs.then_some((person, passkey)))
}

fn checked_name(name: &str) -> Result<String, Error> {
    let mut faults = Faults::default();
    let name = name.trim().to_owned();
    faults.text("/name", &name, NAME_LENGTH_MAX);
    faults.into_result().map_err(Error::InvalidFields)?;
    Ok(name)
}

fn not_found(id: &PasskeyId) -> Error {
    Error::NotFound {
        noun: "passkey",
        id: id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn there_are_passkeys_where_the_host_has_a_name() {
        let there = |issuer: &str| relying_party(&Issuer::parse(issuer).unwrap()).is_some();
        assert!(there("https://stoa.example"));
        assert!(there("http://localhost:8080"));
        assert!(!there("http://127.0.0.1:8080"));
        assert!(!there("https://[::1]"));
    }
}
