//! Invitations: a link that the inviter hands over. It is good for a week, for one person, and as long as the inviter might still invite.

use std::time::Duration;

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db::{self, Transaction},
    id::{Id, Kind, MerchantId, PersonId},
    validation::Faults,
};
use serde_json::{Value, json};

use super::{
    Accounts, NewSession, Role, Session, membership,
    person::{self, By, NewPerson},
    session::{self, Factor},
    sign_in::commit,
    token,
};
use crate::{Error, client::secret::Secret};

pub(super) mod store;

/// How long a link is good.
pub const LIFETIME: Duration = Duration::from_hours(7 * 24);

/// Characters of a label.
const LABEL_LENGTH_MAX: usize = 200;

/// To what somebody is invited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invited {
    /// To be staff of a merchant.
    Staff {
        /// The merchant.
        merchant: MerchantId,
        /// As what.
        role: Role,
    },
    /// To run this installation.
    Operator,
    /// To make apps.
    Developer,
}

impl Invited {
    const fn merchant(self) -> Option<MerchantId> {
        match self {
            Self::Staff { merchant, .. } => Some(merchant),
            Self::Operator | Self::Developer => None,
        }
    }

    const fn role(self) -> Option<Role> {
        match self {
            Self::Staff { role, .. } => Some(role),
            Self::Operator | Self::Developer => None,
        }
    }

    /// For the audit log.
    fn details(self) -> Value {
        match self {
            Self::Staff { role, .. } => json!({ "to": role.name() }),
            Self::Operator => json!({ "to": "operator" }),
            Self::Developer => json!({ "to": "developer" }),
        }
    }

    /// Enters the log that this is told in: the merchant's or the installation's.
    async fn enter_log(self, tx: &mut Transaction) -> Result<Log, Error> {
        match self.merchant() {
            Some(merchant) => {
                db::enter_merchant(tx, merchant).await?;
                Ok(Log::Merchant(merchant))
            }
            None => Ok(Log::Installation),
        }
    }
}

/// An invitation that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The invitation.
    pub id: InvitationId,
    /// To what.
    pub invited: Invited,
    /// Whom it is meant for, in the inviter's words.
    pub label: Option<String>,
    /// Who invites; `None`: the command line.
    pub invited_by: Option<PersonId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its link ends.
    pub expires_at: Timestamp,
}

impl Kind for Invitation {
    const PREFIX: &'static str = "inv";
}

/// The id of an invitation.
pub type InvitationId = Id<Invitation>;

/// What whoever holds the link is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationView {
    /// To what.
    pub invited: Invited,
    /// What the merchant is called, if it is to a merchant.
    pub merchant_name: Option<String>,
    /// What the inviter is called; `None`: the command line.
    pub inviter_name: Option<String>,
    /// Whom it is meant for, in the inviter's words.
    pub label: Option<String>,
    /// When the link ends.
    pub expires_at: Timestamp,
}

/// Nothing if `by` may invite to `invited`: owners to their merchants, operators to all there is.
fn require_inviter(by: By<'_>, invited: Invited) -> Result<(), Error> {
    let By::Person(session) = by else {
        return Ok(());
    };
    if session.person.is_operator {
        return Ok(());
    }
    match invited {
        Invited::Staff { merchant, .. } if session.role_at(merchant)?.manages_staff() => Ok(()),
        Invited::Staff { .. } => Err(Error::Forbidden("Only owners may invite others.")),
        Invited::Operator | Invited::Developer => {
            Err(Error::Forbidden("Only operators may do this."))
        }
    }
}

/// Takes the invitation for `person`; of two at once one gets it.
pub(super) async fn claim(
    tx: &mut Transaction,
    token: &str,
    person: PersonId,
    now: Timestamp,
) -> Result<(InvitationId, Invited), Error> {
    let claimed = store::accept(tx, &token::hash(token), person, now).await?;
    claimed.ok_or(Error::Gone("invitation"))
}

/// Makes `person`, who exists, what the claimed invitation says. Told in the log of the merchant, if it is one, where it leaves the transaction.
pub(super) async fn fulfil(
    tx: &mut Transaction,
    (id, invited): (InvitationId, Invited),
    person: PersonId,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Error> {
    match invited {
        Invited::Staff { merchant, role } => {
            db::enter_merchant(tx, merchant).await?;
            membership::add(tx, merchant, person, role, caller, now).await?;
        }
        Invited::Operator => person::store::add_flags(tx, person, true, false).await?,
        Invited::Developer => person::store::add_flags(tx, person, false, true).await?,
    }
    let log = invited.enter_log(tx).await?;
    let entry = NewEntry::succeeded("invitation.accepted")
        .by_person(person)
        .to("invitation", id)
        .with(invited.details());
    Ok(audit::record(tx, log, caller, now, &entry).await?)
}

impl Accounts {
    /// Invites somebody: the invitation, and the token of its link, which is shown this once. Owners invite to their merchants, operators and the command line to
    /// all there is; needs a recent proof. `label` says whom it is meant for: at most 200 characters, or else a field error at `/label`.
    pub async fn invite(
        &self,
        caller: &Caller,
        by: By<'_>,
        invited: Invited,
        label: Option<&str>,
    ) -> Result<(Invitation, Secret), Error> {
        let now = self.clock.now();
        require_inviter(by, invited)?;
        by.require_recent_proof(now)?;
        let label = label.map(str::trim).filter(|label| !label.is_empty());
        let mut faults = Faults::default();
        faults.optional_text("/label", label, LABEL_LENGTH_MAX);
        faults.into_result().map_err(Error::InvalidFields)?;
        let invitation = Invitation {
            id: InvitationId::new(now),
            invited,
            label: label.map(str::to_owned),
            invited_by: by.person(),
            created_at: now,
            expires_at: now.plus(LIFETIME),
        };
        let token = token::generate();
        let mut tx = self.database.begin().await?;
        if let Some(merchant) = invited.merchant() {
            crate::merchant::get(&mut tx, merchant).await?;
        }
        store::insert(&mut tx, &invitation, &token::hash(token.expose())).await?;
        let log = invited.enter_log(&mut tx).await?;
        let entry = by
            .sign(NewEntry::succeeded("invitation.made"))
            .to("invitation", invitation.id)
            .with(invited.details());
        audit::record(&mut tx, log, caller, now, &entry).await?;
        commit(tx).await?;
        Ok((invitation, token))
    }

    /// What the link with this token invites to; [`Error::Gone`] if it is over, was used or withdrawn, or never was.
    pub async fn invitation(&self, token: &str) -> Result<InvitationView, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let view = store::view(&mut tx, &token::hash(token), now).await?;
        view.ok_or(Error::Gone("invitation"))
    }

    /// Accepts as somebody new, who is signed in. What is wrong with the fields is said as by [`Accounts::create_person`]; [`Error::Gone`] if the link is over.
    pub async fn accept_as_new(
        &self,
        caller: &Caller,
        token: &str,
        new: NewPerson,
    ) -> Result<NewSession, Error> {
        // Nobody has a password hashed without a link.
        self.invitation(token).await?;
        let checked = self.check_new(&new).await?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let id = PersonId::new(now);
        // The link first: whoever sends the same twice is told that it is used, and not that they are there already.
        let claimed = claim(&mut tx, token, id, now).await?;
        person::create(&mut tx, id, checked, caller, now).await?;
        fulfil(&mut tx, claimed, id, caller, now).await?;
        commit(tx).await?;
        self.start_session(id, &[Factor::Password], caller).await
    }

    /// Accepts as somebody who is signed in: from their next request on they are what they were invited to be. Who is staff there already keeps the greater role.
    pub async fn accept_as(
        &self,
        caller: &Caller,
        token: &str,
        session: &Session,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let person = session.person.id;
        let claimed = claim(&mut tx, token, person, now).await?;
        fulfil(&mut tx, claimed, person, caller, now).await?;
        commit(tx).await
    }

    /// The invitations to a merchant that wait, the newest first; for its owners.
    pub async fn invitations_of(
        &self,
        session: &Session,
        merchant: MerchantId,
    ) -> Result<Vec<Invitation>, Error> {
        membership::require_owner(session, merchant)?;
        let mut tx = self.database.begin().await?;
        Ok(store::list(&mut tx, Some(merchant), self.clock.now()).await?)
    }

    /// The invitations to be operator or developer that wait, the newest first; for operators.
    pub async fn invitations(&self, session: &Session) -> Result<Vec<Invitation>, Error> {
        By::Person(session).require_operator()?;
        let mut tx = self.database.begin().await?;
        Ok(store::list(&mut tx, None, self.clock.now()).await?)
    }

    /// Withdraws an invitation that waits; by whoever might have made it.
    pub async fn withdraw_invitation(
        &self,
        caller: &Caller,
        session: &Session,
        id: InvitationId,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let not_found = || Error::NotFound {
            noun: "invitation",
            id: id.to_string(),
        };
        let mut tx = self.database.begin().await?;
        let invited = store::select(&mut tx, id, now)
            .await?
            .ok_or_else(not_found)?;
        match require_inviter(By::Person(session), invited) {
            // Of another merchant's invitation nobody learns that there is one.
            Err(Error::NotFound { .. }) => return Err(not_found()),
            judged => judged?,
        }
        if !store::withdraw(&mut tx, id, now).await? {
            return Err(not_found());
        }
        let log = invited.enter_log(&mut tx).await?;
        let entry = NewEntry::succeeded("invitation.withdrawn")
            .by_person(session.person.id)
            .to("invitation", id);
        audit::record(&mut tx, log, caller, now, &entry).await?;
        commit(tx).await
    }

    /// Begins a session in a transaction of its own: it is told in the installation's log, and that of an accepted invitation may have entered a merchant.
    pub(super) async fn start_session(
        &self,
        person: PersonId,
        factors: &[Factor],
        caller: &Caller,
    ) -> Result<NewSession, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let started = session::start(&mut tx, person, factors, caller, now).await?;
        commit(tx).await?;
        Ok(started)
    }
}
