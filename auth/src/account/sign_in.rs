//! Signing in and stepping up.
#![allow(unused_variables, clippy::unused_async, missing_docs)]

use kernel::caller::Caller;

use super::{Accounts, CeremonyToken, NewSession, Session, pending};
use crate::{Error, client::secret::Secret};

/// What a right password leads to.
#[derive(Debug)]
pub enum SignIn {
    /// A session.
    Session(NewSession),
    /// The second factor is asked for: [`Accounts::second_factor`].
    SecondFactor(CeremonyToken),
}

impl Accounts {
    /// Signs in by password.
    pub async fn sign_in(
        &self,
        caller: &Caller,
        login: &str,
        password: &Secret,
    ) -> Result<SignIn, Error> {
        pending()
    }

    /// Completes a sign-in by a time-based code or a recovery code. After a wrong one the ceremony can be tried again.
    pub async fn second_factor(
        &self,
        caller: &Caller,
        ceremony: &CeremonyToken,
        code: &str,
    ) -> Result<NewSession, Error> {
        pending()
    }

    /// Proves once more who it is: the password, and a code where the person has time-based codes. The session's token is a new one afterwards.
    pub async fn step_up(
        &self,
        caller: &Caller,
        session: &Session,
        password: &Secret,
        code: Option<&str>,
    ) -> Result<NewSession, Error> {
        pending()
    }
}
