//! Signing in by password, the second factor, and proving once more who one is.
//!
//! No oracle: whether there is such an account, whether it is disabled, and which part was wrong is not told. An unknown login is counted, looked up, hashed for and
//! written down by the same statements as a known one with a wrong password.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    db::{self, Transaction},
    id::PersonId,
    problem::FieldError,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Accounts, CeremonyToken, NewSession, Session,
    ceremony::{self, Kind},
    person::{self, store::Credentials},
    session::{self, Factor},
    throttle::{self, Attempt, Guessed},
};
use crate::{Error, client::secret::Secret};

/// What a right password leads to.
#[derive(Debug)]
pub enum SignIn {
    /// A session.
    Session(NewSession),
    /// The second factor is asked for: [`Accounts::second_factor`]. Good for five minutes.
    SecondFactor(CeremonyToken),
}

/// What is remembered of a right password until its second factor comes.
#[derive(Serialize, Deserialize)]
struct Passed {
    person: PersonId,
    /// The hash that it was right for: once the password is changed, it is not right any more.
    password_hash: Option<String>,
}

/// Why a proof was refused, for the audit log alone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    Password,
    Code,
    Passkey,
    Upstream,
    Disabled,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "code",
            Self::Passkey => "passkey",
            Self::Upstream => "upstream",
            Self::Disabled => "disabled",
        }
    }
}

impl Accounts {
    /// Signs in by password. [`Error::NotAccepted`] says no more than that; [`Error::Throttled`] comes before anything is looked at.
    pub async fn sign_in(
        &self,
        caller: &Caller,
        login: &str,
        password: &Secret,
    ) -> Result<SignIn, Error> {
        let login = person::fold(login);
        let mut tx = self.database.begin().await?;
        let attempt = self
            .attempt(&mut tx, &[Guessed::Password(&login)], caller)
            .await?;
        let known = person::store::select_by_login(&mut tx, &login).await?;
        commit(tx).await?;
        let (attempt, is_right) = self.compare(attempt, known.as_ref(), password).await?;
        let person = known.as_ref().map(|known| known.id);
        let Some(known) = known.filter(|known| is_right && !known.is_disabled) else {
            let reason = if is_right {
                Reason::Disabled
            } else {
                Reason::Password
            };
            return self.refuse("session.refused", caller, person, reason).await;
        };
        let fresher = self.fresher_hash(&known, password).await?;

        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        attempt.succeeded(&mut tx).await?;
        let passed = Passed {
            person: known.id,
            password_hash: known.password_hash,
        };
        let Some(current) = still_standing(&mut tx, &passed).await? else {
            drop(tx);
            return self
                .refuse(
                    "session.refused",
                    caller,
                    Some(passed.person),
                    Reason::Disabled,
                )
                .await;
        };
        let passed = match (&fresher, &passed.password_hash) {
            (Some(new), Some(old)) => {
                person::store::replace_hash(&mut tx, passed.person, old, new).await?;
                Passed {
                    password_hash: fresher,
                    ..passed
                }
            }
            _ => passed,
        };
        let answer = if current.sealed_totp_secret.is_some() {
            let expires_at = now.plus(ceremony::LIFETIME);
            let key = self.keyring.master();
            let kind = Kind::SecondFactor;
            let person = Some(passed.person);
            let begun = ceremony::begin(&mut tx, key, kind, person, &passed, expires_at);
            SignIn::SecondFactor(begun.await?)
        } else {
            let factors = [Factor::Password];
            SignIn::Session(session::start(&mut tx, passed.person, &factors, caller, now).await?)
        };
        commit(tx).await?;
        Ok(answer)
    }

    /// Completes a sign-in by a time-based code or a recovery code. After a wrong one ([`Error::NotAccepted`]) the ceremony can be tried again, with growing delays;
    /// one that is over is [`Error::Gone`].
    pub async fn second_factor(
        &self,
        caller: &Caller,
        ceremony: &CeremonyToken,
        code: &str,
    ) -> Result<NewSession, Error> {
        let now = self.clock.now();
        let (key, kind) = (self.keyring.master(), Kind::SecondFactor);
        let mut tx = self.database.begin().await?;
        let passed: Passed = ceremony::look(&mut tx, key, kind, ceremony, now).await?;
        let person = passed.person;
        // Counted, looked at and given back in one transaction: there is nothing to hash for long.
        let attempt = self
            .attempt(&mut tx, &[Guessed::Code(person)], caller)
            .await?;
        let Some(current) = still_standing(&mut tx, &passed).await? else {
            return Err(Error::Gone("sign-in"));
        };
        let Some(factor) = self.use_code(&mut tx, &current, code, caller, now).await? else {
            record_refusal(
                &mut tx,
                self,
                "session.refused",
                caller,
                Some(person),
                Reason::Code,
            )
            .await?;
            commit(tx).await?;
            return Err(Error::NotAccepted);
        };
        attempt.succeeded(&mut tx).await?;
        ceremony::end(&mut tx, kind, ceremony, now).await?;
        let factors = [Factor::Password, factor];
        let started = session::start(&mut tx, person, &factors, caller, now).await?;
        commit(tx).await?;
        Ok(started)
    }

    /// Proves once more who it is: by the password, and by a code where the person has time-based codes (without one: a field error at `/code`). The session goes on
    /// under a new token.
    pub async fn step_up(
        &self,
        caller: &Caller,
        session: &Session,
        password: &Secret,
        code: Option<&str>,
    ) -> Result<NewSession, Error> {
        let person = session.person.id;
        let mut tx = self.database.begin().await?;
        let known = person::store::select(&mut tx, person)
            .await?
            .filter(|known| !known.is_disabled)
            .ok_or(Error::Gone("session"))?;
        let asks_for_code = known.sealed_totp_secret.is_some();
        if asks_for_code && code.is_none() {
            let fault = FieldError::at("/code", "required", "must be given");
            return Err(Error::InvalidFields(vec![fault]));
        }
        let both = [Guessed::Password(&known.login), Guessed::Code(person)];
        let guessed = both
            .get(..if asks_for_code { 2 } else { 1 })
            .unwrap_or(&both);
        let attempt = self.attempt(&mut tx, guessed, caller).await?;
        commit(tx).await?;
        let (attempt, is_right) = self.compare(attempt, Some(&known), password).await?;
        if !is_right {
            return self
                .refuse("step_up.refused", caller, Some(person), Reason::Password)
                .await;
        }

        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        attempt.succeeded(&mut tx).await?;
        let passed = Passed {
            person,
            password_hash: known.password_hash,
        };
        let Some(current) = still_standing(&mut tx, &passed).await? else {
            return Err(Error::Gone("session"));
        };
        let mut factors = vec![Factor::Password];
        if current.sealed_totp_secret.is_some() {
            let used = self
                .use_code(&mut tx, &current, code.unwrap_or_default(), caller, now)
                .await?;
            let Some(factor) = used else {
                // The attempt stays counted.
                drop(tx);
                return self
                    .refuse("step_up.refused", caller, Some(person), Reason::Code)
                    .await;
            };
            factors.push(factor);
        }
        let renewed = session::renew(&mut tx, person, session.id, &factors, caller, now).await?;
        commit(tx).await?;
        Ok(renewed)
    }

    async fn attempt(
        &self,
        tx: &mut Transaction,
        guessed: &[Guessed<'_>],
        caller: &Caller,
    ) -> Result<Attempt, Error> {
        let (key, now) = (self.keyring.master(), self.clock.now());
        throttle::attempt(tx, key, guessed, caller, now).await
    }

    /// Whether the password is right. If no core was free to find out, the attempt does not count.
    async fn compare(
        &self,
        attempt: Attempt,
        known: Option<&Credentials>,
        password: &Secret,
    ) -> Result<(Attempt, bool), Error> {
        let kept = known.and_then(|known| known.password_hash.as_deref());
        match self.hasher.verify(kept, password).await {
            Ok(is_right) => Ok((attempt, is_right)),
            Err(error) => {
                let mut tx = self.database.begin().await?;
                attempt.void(&mut tx).await?;
                commit(tx).await?;
                Err(error)
            }
        }
    }

    /// The password's hash with the parameters that are in use, if it was made with others.
    async fn fresher_hash(
        &self,
        known: &Credentials,
        password: &Secret,
    ) -> Result<Option<String>, Error> {
        match &known.password_hash {
            Some(kept) if self.hasher.is_outdated(kept) => {
                Ok(Some(self.hasher.hash(password).await?))
            }
            _ => Ok(None),
        }
    }

    /// Tells the audit log of a refusal, and nobody else of its reason.
    pub(super) async fn refuse<T>(
        &self,
        action: &'static str,
        caller: &Caller,
        person: Option<PersonId>,
        reason: Reason,
    ) -> Result<T, Error> {
        let mut tx = self.database.begin().await?;
        record_refusal(&mut tx, self, action, caller, person, reason).await?;
        commit(tx).await?;
        Err(Error::NotAccepted)
    }
}

/// The person as they are now, locked, if the password that was passed is still theirs and they may come in.
async fn still_standing(
    tx: &mut Transaction,
    passed: &Passed,
) -> Result<Option<Credentials>, Error> {
    let current = person::store::lock(tx, passed.person).await?;
    Ok(current
        .filter(|current| !current.is_disabled && current.password_hash == passed.password_hash))
}

async fn record_refusal(
    tx: &mut Transaction,
    accounts: &Accounts,
    action: &'static str,
    caller: &Caller,
    person: Option<PersonId>,
    reason: Reason,
) -> Result<(), Error> {
    let entry = NewEntry::refused(action).with(json!({ "reason": reason.name() }));
    let entry = match person {
        Some(person) => entry.by_person(person),
        None => entry,
    };
    let now = accounts.clock.now();
    Ok(audit::record(tx, Log::Installation, caller, now, &entry).await?)
}

pub(super) async fn commit(tx: Transaction) -> Result<(), Error> {
    Ok(tx.commit().await.map_err(db::Error::from)?)
}
