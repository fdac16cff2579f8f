//! Sessions: a person who has proved who they are, in one browser.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    id::{Id, Kind, MerchantId},
};

use super::{Membership, Person, Role};
use crate::{Error, client::secret::Secret};

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

/// A session that has begun, or begun anew: its token is for the browser's cookie, and only its hash is kept.
#[derive(Debug)]
pub struct NewSession {
    /// 256 random bits in base64url.
    pub token: Secret,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// A session, as its person sees it in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionSummary {
    /// The session.
    pub id: SessionId,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_seen_at: Timestamp,
    /// The address that it was last proved from.
    pub address: Option<String>,
    /// What the browser says of itself.
    pub user_agent: Option<String>,
    /// By what the person proved who they are.
    pub factors: Vec<Factor>,
    /// Whether it is the one that asks.
    pub is_current: bool,
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

#[allow(unused_variables, clippy::unused_async, reason = "signatures first")]
impl super::Accounts {
    /// The session whose token this is; `None` if there is none, it has ended, has idled for 12 hours, or the person was disabled.
    pub async fn session(&self, token: &str) -> Result<Option<Session>, Error> {
        super::pending()
    }

    /// The person's living sessions, the last used first.
    pub async fn sessions(&self, session: &Session) -> Result<Vec<SessionSummary>, Error> {
        super::pending()
    }

    /// Ends one of the person's sessions.
    pub async fn end_session(
        &self,
        caller: &kernel::caller::Caller,
        session: &Session,
        id: SessionId,
    ) -> Result<(), Error> {
        super::pending()
    }

    /// Ends all of the person's sessions but this one; says how many.
    pub async fn end_other_sessions(
        &self,
        caller: &kernel::caller::Caller,
        session: &Session,
    ) -> Result<u64, Error> {
        super::pending()
    }

    /// Ends this session.
    pub async fn sign_out(
        &self,
        caller: &kernel::caller::Caller,
        session: &Session,
    ) -> Result<(), Error> {
        super::pending()
    }
}
