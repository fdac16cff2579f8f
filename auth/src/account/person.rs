//! Who somebody is: a person, and the roles that merchants have given to them.

use kernel::{
    clock::Timestamp,
    id::{MerchantId, PersonId},
};
use serde::{Deserialize, Serialize};

use kernel::{
    caller::Caller,
    page::{Page, PageRequest},
};

use super::{Accounts, Session, pending};
use crate::{Error, client::secret::Secret};

/// Somebody who signs in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and none excludes another"
)]
pub struct Person {
    /// The person.
    pub id: PersonId,
    /// What they sign in with, folded.
    pub login: String,
    /// What they are called.
    pub name: String,
    /// Whether they run this installation.
    pub is_operator: bool,
    /// Whether they may make apps.
    pub is_developer: bool,
    /// Whether they have a password.
    pub has_password: bool,
    /// Whether time-based codes are asked of them.
    pub has_totp: bool,
    /// Raised by every change.
    pub version: i64,
    /// Since when they are known.
    pub created_at: Timestamp,
}

/// What somebody who is new says of themselves.
#[derive(Debug, Clone)]
pub struct NewPerson {
    /// What they will sign in with: 1 to 200 characters, any user name. It is folded: trimmed, and in lower case.
    pub login: String,
    /// What they are called: 1 to 200 characters.
    pub name: String,
    /// Their password: 10 to 200 characters, hard to guess.
    pub password: Secret,
}

/// Somebody, as operators see them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPerson {
    /// Who it is.
    pub person: Person,
    /// At how many merchants they are staff.
    pub merchants: i64,
    /// Since when they can't sign in; `None`: they can.
    pub disabled_at: Option<Timestamp>,
}

/// Where a page of the people ends: they are listed by their logins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonKey(pub(super) String);

/// What somebody is to a merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The merchant.
    pub merchant: MerchantId,
    /// What the merchant is called.
    pub merchant_name: String,
    /// What the person may do there.
    pub role: Role,
}

/// What somebody may do at a merchant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Role {
    /// Sees what is installed, and decides nothing.
    Viewer,
    /// Gives, changes and ends grants.
    Manager,
    /// That, and decides who else is staff, and reads the audit log.
    Owner,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Manager, Self::Owner];

    /// The name, as the table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Manager => "manager",
            Self::Owner => "owner",
        }
    }

    /// Whether grants are theirs to give, change and end.
    pub const fn decides_grants(self) -> bool {
        matches!(self, Self::Manager | Self::Owner)
    }

    /// Whether staff is theirs to invite, change and remove, and the audit log theirs to read.
    pub const fn manages_staff(self) -> bool {
        matches!(self, Self::Owner)
    }
}

/// Who asks for something that operators may: one of them, or the command line.
#[derive(Debug, Clone, Copy)]
pub enum By<'a> {
    /// Somebody, by their session.
    Person(&'a Session),
    /// The command line, whose user holds the database and the master key.
    CommandLine,
}

#[allow(unused_variables, clippy::unused_async, reason = "signatures first")]
impl Accounts {
    /// Makes a person, for the command line. A login that is taken is a field error at `/login`, a weak password one at `/password`.
    pub async fn create_person(
        &self,
        caller: &Caller,
        new: NewPerson,
        is_operator: bool,
        is_developer: bool,
    ) -> Result<Person, Error> {
        pending()
    }

    /// Renames the person.
    pub async fn set_name(
        &self,
        caller: &Caller,
        session: &Session,
        name: &str,
    ) -> Result<Person, Error> {
        pending()
    }

    /// Sets the person's password, and ends their other sessions. Needs a recent proof. A weak one is a field error at `/password`.
    pub async fn change_password(
        &self,
        caller: &Caller,
        session: &Session,
        password: &Secret,
    ) -> Result<(), Error> {
        pending()
    }

    /// Disables a person: no sessions, no sign-in.
    pub async fn disable_person(
        &self,
        caller: &Caller,
        by: By<'_>,
        person: PersonId,
    ) -> Result<(), Error> {
        pending()
    }

    /// Enables a person again.
    pub async fn enable_person(
        &self,
        caller: &Caller,
        by: By<'_>,
        person: PersonId,
    ) -> Result<(), Error> {
        pending()
    }

    /// Everybody, by their logins; for operators.
    pub async fn persons(
        &self,
        by: By<'_>,
        page: &PageRequest<PersonKey>,
    ) -> Result<Page<ListedPerson>, Error> {
        pending()
    }
}
