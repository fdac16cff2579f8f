//! Invitations.
#![allow(unused_variables, clippy::unused_async, missing_docs)]

use kernel::{
    caller::Caller,
    clock::Timestamp,
    id::{Id, Kind, MerchantId, PersonId},
};

use super::{
    Accounts, NewSession, Role, Session, pending,
    person::{By, NewPerson},
};
use crate::{Error, client::secret::Secret};

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

/// An invitation.
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

impl Accounts {
    /// Invites somebody: the invitation, and the token of its link, which is shown this once.
    pub async fn invite(
        &self,
        caller: &Caller,
        by: By<'_>,
        invited: Invited,
        label: Option<&str>,
    ) -> Result<(Invitation, Secret), Error> {
        pending()
    }

    /// What the link with this token invites to; `Gone` if it is over.
    pub async fn invitation(&self, token: &str) -> Result<InvitationView, Error> {
        pending()
    }

    /// Accepts as somebody new, who is signed in.
    pub async fn accept_as_new(
        &self,
        caller: &Caller,
        token: &str,
        new: NewPerson,
    ) -> Result<NewSession, Error> {
        pending()
    }

    /// Accepts as somebody who is signed in.
    pub async fn accept_as(
        &self,
        caller: &Caller,
        token: &str,
        session: &Session,
    ) -> Result<(), Error> {
        pending()
    }

    /// The open invitations of a merchant; for its owners.
    pub async fn invitations_of(
        &self,
        session: &Session,
        merchant: MerchantId,
    ) -> Result<Vec<Invitation>, Error> {
        pending()
    }

    /// The open invitations to be operator or developer; for operators.
    pub async fn invitations(&self, session: &Session) -> Result<Vec<Invitation>, Error> {
        pending()
    }

    /// Withdraws an open invitation; by whoever might have made it.
    pub async fn withdraw_invitation(
        &self,
        caller: &Caller,
        session: &Session,
        id: InvitationId,
    ) -> Result<(), Error> {
        pending()
    }
}
