//! Customers: whose personal data is kept, sealed under a key of their own.
//!
//! Made by the first order of an e-mail address (found by a blind index, exact matches only) and reused by later ones. Deleting the key erases the
//! customer everywhere; what is left is an id.

use async_graphql::SimpleObject;
use kernel::{
    actor::Actor, clock::Timestamp, keyring::Keyring, personal, scope::Scope, version::Version,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

pub use crate::order::{Contact, CustomerId};

use crate::{Error, order};

pub(crate) mod store;
#[cfg(test)]
mod tests;

/// Somebody who has ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, SimpleObject)]
#[serde(rename_all = "camelCase")]
pub struct Customer {
    /// The id.
    pub id: CustomerId,
    /// Name and contacts as first given; null to those who may not see personal data, and after erasure.
    #[schema(required)]
    pub contact: Option<Contact>,
    /// Raised by each change.
    pub version: Version,
    /// When the customer first ordered.
    pub created_at: Timestamp,
    /// When the customer was last changed.
    pub updated_at: Timestamp,
}

/// One customer; name and contacts only to those who may see personal data. Whoever is limited to locations sees the customers of orders there.
pub async fn get(
    tx: &mut PgConnection,
    keyring: &Keyring,
    actor: &Actor,
    id: CustomerId,
) -> Result<Customer, Error> {
    actor.access.require(Scope::CustomersRead)?;
    let visible = actor.access.location_uuids();
    let row = store::select(tx, actor.merchant, visible.as_deref(), id).await?;
    let row = row.ok_or_else(|| Error::not_found("customer", id))?;
    let contact = if actor.access.sees_personal_data() {
        let keys = personal::keys(&mut *tx, keyring, actor.merchant, &[id]).await?;
        keys.get(&id)
            .map(|key| open(key, id, &row.sealed))
            .transpose()?
            .flatten()
    } else {
        None
    };
    Ok(Customer {
        id,
        contact,
        version: row.version,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// The customer who has this e-mail address, for those who may see personal data: who else asks would learn who is a customer.
pub async fn find_by_email(
    tx: &mut PgConnection,
    keyring: &Keyring,
    actor: &Actor,
    email: &str,
) -> Result<Option<Customer>, Error> {
    actor.access.require(Scope::CustomersRead)?;
    actor.access.require(Scope::OrdersPiiRead)?;
    if !actor.access.sees_personal_data() {
        return Ok(None);
    }
    let merchant_key = keyring.merchant_key(&mut *tx, actor.merchant).await?;
    let index = order::email_index(&merchant_key, email);
    let found = store::select_by_email(tx, actor.merchant, &[index]).await?;
    let Some((_, id)) = found.into_iter().next() else {
        return Ok(None);
    };
    match get(tx, keyring, actor, id).await {
        Ok(customer) => Ok(Some(customer)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(
    key: &kernel::keyring::DataKey,
    id: CustomerId,
    sealed: &[u8],
) -> Result<Option<Contact>, Error> {
    let opened = key.open(order::CUSTOMER_CONTEXT, sealed)?;
    let contact: Contact = serde_json::from_slice(&opened)
        .map_err(|error| kernel::db::Error::corrupt("customers", id, error))?;
    Ok(Some(contact).filter(|contact| *contact != Contact::default()))
}
