//! Time-based codes (RFC 6238).
#![allow(unused_variables, clippy::unused_async, missing_docs)]

use kernel::caller::Caller;

use super::{Accounts, CeremonyToken, Session, pending, recovery_code::RecoveryCode};
use crate::{Error, client::secret::Secret};

/// A secret that the person puts into their authenticator.
#[derive(Debug)]
pub struct TotpSetup {
    /// For [`Accounts::confirm_totp`].
    pub ceremony: CeremonyToken,
    /// The secret in base32, for typing.
    pub secret_base32: Secret,
    /// The same as an `otpauth://` URL, for a QR code.
    pub otpauth_url: Secret,
}

impl Accounts {
    /// Begins to set up time-based codes. Needs a recent proof.
    pub async fn begin_totp(&self, session: &Session) -> Result<TotpSetup, Error> {
        pending()
    }

    /// Turns time-based codes on, with the first code as proof; gives the recovery codes, which are shown this once. A wrong code: `NotAccepted`, and the ceremony can be tried again.
    pub async fn confirm_totp(
        &self,
        caller: &Caller,
        session: &Session,
        ceremony: &CeremonyToken,
        code: &str,
    ) -> Result<Vec<RecoveryCode>, Error> {
        pending()
    }

    /// Turns time-based codes off, and ends the other sessions. Needs a recent proof.
    pub async fn disable_totp(&self, caller: &Caller, session: &Session) -> Result<(), Error> {
        pending()
    }
}
