//! Staff of merchants.
#![allow(unused_variables, clippy::unused_async, missing_docs)]

use kernel::{
    caller::Caller,
    clock::Timestamp,
    id::{MerchantId, PersonId},
};

use super::{Accounts, Role, Session, pending};
use crate::Error;

/// One of a merchant's staff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staff {
    /// Who.
    pub person: PersonId,
    /// What they sign in with.
    pub login: String,
    /// What they are called.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
}

impl Accounts {
    /// The staff of a merchant, by their names; for its owners.
    pub async fn staff(
        &self,
        session: &Session,
        merchant: MerchantId,
    ) -> Result<Vec<Staff>, Error> {
        pending()
    }

    /// Changes what somebody may do. For owners; needs a recent proof. The last owner stays one.
    pub async fn change_role(
        &self,
        caller: &Caller,
        session: &Session,
        merchant: MerchantId,
        person: PersonId,
        role: Role,
    ) -> Result<(), Error> {
        pending()
    }

    /// Removes somebody from the staff. For owners; needs a recent proof. The last owner stays.
    pub async fn remove_staff(
        &self,
        caller: &Caller,
        session: &Session,
        merchant: MerchantId,
        person: PersonId,
    ) -> Result<(), Error> {
        pending()
    }
}
