//! Sessions: a person who has proved who they are, in one browser.

use std::time::Duration;

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db,
    id::{Id, Kind, MerchantId, PersonId},
};
use serde_json::json;
use sqlx::PgConnection;

use super::{Accounts, Membership, Person, Role, token};
use crate::{Error, client::secret::Secret};

pub(super) mod store;

/// A session ends when it has idled this long.
pub const IDLE_MAX: Duration = Duration::from_hours(12);

/// A session ends after this long, however busy it is.
pub const LIFETIME: Duration = Duration::from_hours(7 * 24);

/// When a session was last seen is written this often at most.
const SEEN_COARSENESS: Duration = Duration::from_mins(1);

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

impl Factor {
    /// The name, as the table has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "totp",
            Self::RecoveryCode => "recovery_code",
            Self::Passkey => "passkey",
            Self::Upstream => "upstream",
        }
    }
}

/// The names of `factors`, for the audit log.
pub(super) fn names(factors: &[Factor]) -> Vec<&'static str> {
    factors.iter().map(|factor| factor.name()).collect()
}

/// Begins a session of `person` with a token that nobody has seen before. The last thing that its transaction does: told in the log of each merchant where the
/// person is staff, it leaves the transaction in one of them.
pub(super) async fn start(
    tx: &mut PgConnection,
    person: PersonId,
    factors: &[Factor],
    caller: &Caller,
    now: Timestamp,
) -> Result<NewSession, Error> {
    let id = SessionId::new(now);
    let token = token::generate();
    let expires_at = now.plus(LIFETIME);
    let row = store::NewRow {
        id,
        token: token::hash(token.expose()),
        person,
        factors,
        expires_at,
    };
    store::insert(tx, &row, caller, now).await?;
    let entry = NewEntry::succeeded("session.started")
        .by_person(person)
        .to("session", id)
        .with(json!({ "factors": names(factors) }));
    audit::record(tx, Log::Installation, caller, now, &entry).await?;
    for membership in store::select_memberships(tx, person).await? {
        db::enter_merchant(tx, membership.merchant).await?;
        audit::record(tx, Log::Merchant(membership.merchant), caller, now, &entry).await?;
    }
    Ok(NewSession { token, expires_at })
}

/// The session was proved anew, by `factors`: it goes on under a new token, and the old one is nothing any more.
pub(super) async fn renew(
    tx: &mut PgConnection,
    person: PersonId,
    id: SessionId,
    factors: &[Factor],
    caller: &Caller,
    now: Timestamp,
) -> Result<NewSession, Error> {
    let token = token::generate();
    let hash = token::hash(token.expose());
    let expires_at = store::renew(tx, person, id, &hash, factors, caller, now)
        .await?
        .ok_or(Error::Gone("session"))?;
    let entry = NewEntry::succeeded("step_up.passed")
        .by_person(person)
        .to("session", id)
        .with(json!({ "factors": names(factors) }));
    audit::record(tx, Log::Installation, caller, now, &entry).await?;
    Ok(NewSession { token, expires_at })
}

/// Ends all of the person's sessions but `kept`, and whatever they have begun: what proved them may be in other hands.
pub(super) async fn end_others(
    tx: &mut PgConnection,
    person: PersonId,
    kept: Option<SessionId>,
    caller: &Caller,
    now: Timestamp,
) -> Result<u64, Error> {
    super::ceremony::store::delete_of(tx, person).await?;
    let ended = store::end_others(tx, person, kept, now).await?;
    for id in &ended {
        record_end(tx, person, *id, caller, now).await?;
    }
    Ok(u64::try_from(ended.len()).unwrap_or(u64::MAX))
}

async fn record_end(
    tx: &mut PgConnection,
    person: PersonId,
    id: SessionId,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Error> {
    let entry = NewEntry::succeeded("session.ended")
        .by_person(person)
        .to("session", id);
    Ok(audit::record(tx, Log::Installation, caller, now, &entry).await?)
}

impl Accounts {
    /// The session whose token this is; `None` if there is none, if it has ended or idled for 12 hours, or if the person was disabled. Read for every request.
    pub async fn session(&self, token: &str) -> Result<Option<Session>, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let found = store::select(&mut tx, &token::hash(token), now.minus(IDLE_MAX), now).await?;
        let Some((mut session, last_seen_at)) = found else {
            return Ok(None);
        };
        session.memberships = store::select_memberships(&mut tx, session.person.id).await?;
        if last_seen_at.plus(SEEN_COARSENESS) <= now {
            store::touch(&mut tx, session.id, now).await?;
            tx.commit().await.map_err(db::Error::from)?;
        }
        Ok(Some(session))
    }

    /// The person's living sessions, the last used first.
    pub async fn sessions(&self, session: &Session) -> Result<Vec<SessionSummary>, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let (person, current) = (session.person.id, session.id);
        Ok(store::list(&mut tx, person, current, now.minus(IDLE_MAX), now).await?)
    }

    /// Ends one of the person's sessions.
    pub async fn end_session(
        &self,
        caller: &Caller,
        session: &Session,
        id: SessionId,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        if !store::end(&mut tx, session.person.id, id, now).await? {
            return Err(Error::NotFound {
                noun: "session",
                id: id.to_string(),
            });
        }
        record_end(&mut tx, session.person.id, id, caller, now).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(())
    }

    /// Ends all of the person's sessions but this one; says how many.
    pub async fn end_other_sessions(
        &self,
        caller: &Caller,
        session: &Session,
    ) -> Result<u64, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let ended = end_others(&mut tx, session.person.id, Some(session.id), caller, now).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(ended)
    }

    /// Ends this session; one that has ended already is fine.
    pub async fn sign_out(&self, caller: &Caller, session: &Session) -> Result<(), Error> {
        match self.end_session(caller, session, session.id).await {
            Err(Error::NotFound { .. }) => Ok(()),
            ended => ended,
        }
    }
}
