//! Sessions: a person who has proved who they are, in one browser.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    id::{Id, Kind, MerchantId},
};

use super::{Membership, Person, Role};
use crate::Error;

/// How long a proof counts for what must not be done by whoever finds an open browser: consent, secrets, factors, staff.
pub const STEP_UP_AGE_MAX: Duration = Duration::from_mins(10);

/// A person in one browser, as a request shows it.
#[derive(Debug, Clone)]
pub struct Session {
    /// The session.
    pub id: SessionId,
    /// Who it is.
    pub person: Person,
    /// Where they are staff, by the merchants' names.
    pub memberships: Vec<Membership>,
    /// When the person last proved who they are.
    pub authenticated_at: Timestamp,
    /// By what.
    pub factors: Vec<Factor>,
    /// When it began.
    pub created_at: Timestamp,
}

impl Kind for Session {
    const PREFIX: &'static str = "ses";
}

/// The id of a session.
pub type SessionId = Id<Session>;

/// How somebody has proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Factor {
    /// A password.
    Password,
    /// A time-based code (RFC 6238).
    Totp,
    /// A recovery code.
    RecoveryCode,
    /// A passkey, which verified the person itself.
    Passkey,
    /// The upstream OpenID provider.
    Upstream,
}

impl Session {
    /// What the person is to `merchant`; a merchant where they are nothing is not there.
    pub fn role_at(&self, merchant: MerchantId) -> Result<Role, Error> {
        self.memberships
            .iter()
            .find(|membership| membership.merchant == merchant)
            .map(|membership| membership.role)
            .ok_or_else(|| Error::NotFound {
                noun: "merchant",
                id: merchant.to_string(),
            })
    }

    /// Nothing if the person proved who they are a short while ago, or else [`Error::StepUpRequired`].
    pub fn require_recent_proof(&self, now: Timestamp) -> Result<(), Error> {
        let is_recent =
            self.authenticated_at <= now && now.since(self.authenticated_at) <= STEP_UP_AGE_MAX;
        if is_recent {
            Ok(())
        } else {
            Err(Error::StepUpRequired)
        }
    }
}
