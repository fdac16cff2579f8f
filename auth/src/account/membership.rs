//! Staff of merchants: who may do what there. Owners decide, there is always one, and what they decide is felt at the next request.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db::Transaction,
    id::{MerchantId, PersonId},
};
use serde_json::json;

use super::{Accounts, Role, Session, sign_in::commit};
use crate::Error;

mod store;

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
    /// Whether an operator has disabled them.
    pub is_disabled: bool,
    /// Since when.
    pub created_at: Timestamp,
}

/// Nothing for an owner of `merchant`; to strangers it is not there.
pub(super) fn require_owner(session: &Session, merchant: MerchantId) -> Result<(), Error> {
    if session.role_at(merchant)?.manages_staff() {
        Ok(())
    } else {
        Err(Error::Forbidden("Only owners may do this."))
    }
}

/// Makes `person` staff, or raises what they may do; takes nothing away. The transaction must have entered the merchant.
pub(super) async fn add(
    tx: &mut Transaction,
    merchant: MerchantId,
    person: PersonId,
    role: Role,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Error> {
    let staff = store::lock(tx, merchant).await?;
    let action = match staff.iter().find(|one| one.person == person) {
        None => {
            store::insert(tx, merchant, person, role, now).await?;
            "membership.added"
        }
        Some(one) if one.role < role => {
            store::update(tx, merchant, person, role).await?;
            "membership.changed"
        }
        Some(_) => return Ok(()),
    };
    let entry = NewEntry::succeeded(action)
        .by_person(person)
        .to("person", person)
        .with(json!({ "role": role.name() }));
    Ok(audit::record(tx, Log::Merchant(merchant), caller, now, &entry).await?)
}

impl Accounts {
    /// The staff of a merchant, by their names; for its owners.
    pub async fn staff(
        &self,
        session: &Session,
        merchant: MerchantId,
    ) -> Result<Vec<Staff>, Error> {
        require_owner(session, merchant)?;
        let mut tx = self.database.begin().await?;
        Ok(store::list(&mut tx, merchant).await?)
    }

    /// Changes what somebody may do, oneself too. For owners; needs a recent proof. The last owner stays one: [`Error::Forbidden`].
    pub async fn change_role(
        &self,
        caller: &Caller,
        session: &Session,
        merchant: MerchantId,
        person: PersonId,
        role: Role,
    ) -> Result<(), Error> {
        self.change_staff(caller, session, merchant, person, Some(role))
            .await
    }

    /// Removes somebody from the staff, oneself too. For owners; needs a recent proof. The last owner stays: [`Error::Forbidden`].
    pub async fn remove_staff(
        &self,
        caller: &Caller,
        session: &Session,
        merchant: MerchantId,
        person: PersonId,
    ) -> Result<(), Error> {
        self.change_staff(caller, session, merchant, person, None)
            .await
    }

    async fn change_staff(
        &self,
        caller: &Caller,
        session: &Session,
        merchant: MerchantId,
        person: PersonId,
        role: Option<Role>,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        require_owner(session, merchant)?;
        session.require_recent_proof(now)?;
        let mut tx = self.database.enter(merchant).await?;
        // All of the merchant's staff is locked: of two owners who remove each other one is first, and the other is none any more.
        let staff = store::lock(&mut tx, merchant).await?;
        let role_of = |id| {
            staff
                .iter()
                .find(|one| one.person == id)
                .map(|one| one.role)
        };
        if !role_of(session.person.id).is_some_and(Role::manages_staff) {
            return Err(Error::Forbidden("Only owners may do this."));
        }
        let before = role_of(person).ok_or_else(|| Error::NotFound {
            noun: "person",
            id: person.to_string(),
        })?;
        if role == Some(before) {
            return Ok(());
        }
        let is_last_owner = before.manages_staff()
            && !staff
                .iter()
                .any(|one| one.person != person && one.role.manages_staff() && !one.is_disabled);
        if is_last_owner {
            return Err(Error::Forbidden(
                "A merchant has at least one owner; make somebody else one first.",
            ));
        }
        let entry = if let Some(role) = role {
            store::update(&mut tx, merchant, person, role).await?;
            NewEntry::succeeded("membership.changed")
                .with(json!({ "from": before.name(), "to": role.name() }))
        } else {
            store::delete(&mut tx, merchant, person).await?;
            NewEntry::succeeded("membership.removed").with(json!({ "from": before.name() }))
        };
        let entry = entry.by_person(session.person.id).to("person", person);
        audit::record(&mut tx, Log::Merchant(merchant), caller, now, &entry).await?;
        commit(tx).await
    }
}
