//! Recovery codes.
#![allow(unused_variables, clippy::unused_async, missing_docs)]

use kernel::caller::Caller;

use super::{Accounts, Session, pending};
use crate::{Error, client::secret::Secret};

/// A code for who has lost their authenticator: 80 random bits, `ABCD-EFGH-IJKL-MNOP`, good once. Prints as `***`.
#[derive(Debug, Clone)]
pub struct RecoveryCode(Secret);

impl RecoveryCode {
    /// The code, as the person writes it down.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Accounts {
    /// Ten new recovery codes in place of the old ones. Needs a recent proof.
    pub async fn make_recovery_codes(
        &self,
        caller: &Caller,
        session: &Session,
    ) -> Result<Vec<RecoveryCode>, Error> {
        pending()
    }

    /// How many recovery codes are left.
    pub async fn recovery_codes_left(&self, session: &Session) -> Result<i64, Error> {
        pending()
    }
}
