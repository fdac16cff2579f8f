//! Time-based codes (RFC 6238): SHA-1, six digits, thirty seconds, a step to either side. Each step's code is good once.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    id::PersonId,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use totp_rs::{Builder, Totp};
use url::Url;
use zeroize::Zeroizing;

use super::{
    Accounts, CeremonyToken, Session,
    ceremony::{self, Kind},
    person::{self, store::Credentials},
    recovery_code::{self, RecoveryCode},
    session::{self, Factor},
    sign_in::commit,
};
use crate::{Error, client::secret::Secret};

/// Bytes of a secret: as RFC 4226, section 4, recommends.
const SECRET_LENGTH: usize = 20;

/// A secret that the person puts into their authenticator.
#[derive(Debug)]
pub struct TotpSetup {
    /// For [`Accounts::confirm_totp`]; good for a quarter of an hour.
    pub ceremony: CeremonyToken,
    /// The secret in base32, for typing.
    pub secret_base32: Secret,
    /// The same as an `otpauth://` URL, for a QR code.
    pub otpauth_url: Secret,
}

#[derive(Serialize, Deserialize)]
struct Setup {
    person: PersonId,
    secret: Zeroizing<Vec<u8>>,
}

/// The codes of `secret`, with the name that an authenticator shows.
fn codes(secret: &[u8], login: &str, installation: &str) -> Result<Totp, Error> {
    // The URL keeps a colon for itself.
    Builder::new()
        .with_secret(secret.to_vec())
        .with_account_name(login.replace(':', " "))
        .with_issuer(Some(installation.replace(':', " ")))
        .build()
        .map_err(|error| Error::Factor(error.to_string()))
}

/// The step whose code this is, if it is that of now or a neighbour.
fn step_of(secret: &[u8], code: &str, now: Timestamp) -> Result<Option<i64>, Error> {
    let seconds = u64::try_from(now.unix_seconds()).unwrap_or_default();
    let step = codes(secret, "", "")?.check(code, seconds);
    Ok(step.and_then(|step| i64::try_from(step).ok()))
}

/// What a secret is sealed for.
fn context(person: PersonId) -> String {
    format!("totp:{person}")
}

fn without_blanks(code: &str) -> String {
    code.chars()
        .filter(|character| !character.is_whitespace())
        .collect()
}

impl Accounts {
    /// Begins to set up time-based codes. Needs a recent proof; who has some must turn them off first.
    pub async fn begin_totp(&self, session: &Session) -> Result<TotpSetup, Error> {
        let now = self.clock.now();
        session.require_recent_proof(now)?;
        if session.person.has_totp {
            return Err(Error::Forbidden(
                "Codes by an app are on already; turn them off first.",
            ));
        }
        let secret = Zeroizing::new(rand::random::<[u8; SECRET_LENGTH]>());
        let totp = codes(secret.as_slice(), &session.person.login, &self.host())?;
        let otpauth_url = totp
            .to_url()
            .map_err(|error| Error::Factor(error.to_string()))?;
        let setup = Setup {
            person: session.person.id,
            secret: Zeroizing::new(secret.to_vec()),
        };
        let (key, kind) = (self.keyring.master(), Kind::TotpSetup);
        let expires_at = now.plus(ceremony::LONG_LIFETIME);
        let mut tx = self.database.begin().await?;
        let ceremony =
            ceremony::begin(&mut tx, key, kind, Some(setup.person), &setup, expires_at).await?;
        commit(tx).await?;
        Ok(TotpSetup {
            ceremony,
            secret_base32: Secret::new(totp.secret().to_base32()),
            otpauth_url: Secret::new(otpauth_url),
        })
    }

    /// Turns time-based codes on, with one of them as proof; gives the recovery codes, which are shown this once. A wrong code is [`Error::NotAccepted`], and the
    /// ceremony can be tried again.
    pub async fn confirm_totp(
        &self,
        caller: &Caller,
        session: &Session,
        ceremony: &CeremonyToken,
        code: &str,
    ) -> Result<Vec<RecoveryCode>, Error> {
        let now = self.clock.now();
        let (key, kind) = (self.keyring.master(), Kind::TotpSetup);
        let mut tx = self.database.begin().await?;
        let setup: Setup = ceremony::look(&mut tx, key, kind, ceremony, now).await?;
        let person = session.person.id;
        if setup.person != person {
            return Err(Error::Gone("set-up"));
        }
        let step = step_of(&setup.secret, &without_blanks(code), now)?.ok_or(Error::NotAccepted)?;
        // The person first, as everybody does who ends what somebody has begun.
        person::store::lock(&mut tx, person).await?;
        ceremony::end(&mut tx, kind, ceremony, now).await?;
        let sealed = key.seal(&context(person), &setup.secret)?;
        person::store::set_totp(&mut tx, person, Some(&sealed), Some(step)).await?;
        let codes = recovery_code::replace(&mut tx, person, caller, now).await?;
        let entry = NewEntry::succeeded("totp.enabled")
            .by_person(person)
            .to("person", person);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        commit(tx).await?;
        Ok(codes)
    }

    /// Turns time-based codes off, forgets the recovery codes, and ends the other sessions. Needs a recent proof.
    pub async fn disable_totp(&self, caller: &Caller, session: &Session) -> Result<(), Error> {
        let now = self.clock.now();
        session.require_recent_proof(now)?;
        let person = session.person.id;
        let mut tx = self.database.begin().await?;
        person::store::set_totp(&mut tx, person, None, None).await?;
        recovery_code::store::delete(&mut tx, person).await?;
        session::end_others(&mut tx, person, Some(session.id), caller, now).await?;
        let entry = NewEntry::succeeded("totp.disabled")
            .by_person(person)
            .to("person", person);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        commit(tx).await
    }

    /// Uses `code` up, if it is a time-based code or a recovery code of the person; says which.
    pub(super) async fn use_code(
        &self,
        tx: &mut PgConnection,
        current: &Credentials,
        code: &str,
        caller: &Caller,
        now: Timestamp,
    ) -> Result<Option<Factor>, Error> {
        let code = without_blanks(code);
        let Some(sealed) = &current.sealed_totp_secret else {
            return Ok(None);
        };
        if code.bytes().all(|byte| byte.is_ascii_digit()) {
            let secret = self.keyring.master().open(&context(current.id), sealed)?;
            let Some(step) = step_of(&secret, &code, now)? else {
                return Ok(None);
            };
            let is_first = person::store::use_totp_step(tx, current.id, step).await?;
            return Ok(is_first.then_some(Factor::Totp));
        }
        let is_used = recovery_code::redeem(tx, current.id, &code, caller, now).await?;
        Ok(is_used.then_some(Factor::RecoveryCode))
    }

    /// The installation's host, as authenticators show it.
    fn host(&self) -> String {
        Url::parse(self.issuer.as_str())
            .ok()
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_else(|| "Stoa".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn codes_are_those_of_the_rfc() {
        // RFC 6238, appendix B, the last six digits.
        let secret = b"12345678901234567890";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (20_000_000_000, "353130"),
        ] {
            let now = Timestamp::from_unix_millis(seconds * 1000);
            assert_eq!(step_of(secret, code, now).unwrap(), Some(seconds / 30));
            let later = Timestamp::from_unix_millis((seconds + 30) * 1000);
            assert_eq!(step_of(secret, code, later).unwrap(), Some(seconds / 30));
            let too_late = Timestamp::from_unix_millis((seconds + 90) * 1000);
            assert_eq!(step_of(secret, code, too_late).unwrap(), None);
        }
    }

    #[test]
    fn an_authenticator_shows_whose_codes_they_are() {
        let url = codes(
            b"12345678901234567890",
            "anna:b@shop.example",
            "stoa.example",
        )
        .unwrap()
        .to_url()
        .unwrap();
        assert!(
            url.starts_with("otpauth://totp/stoa.example:anna%20b"),
            "{url}"
        );
        assert!(
            url.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"),
            "{url}"
        );
    }
}
