//! The personal part of orders: whose it is, sealed when an order is placed, opened for those who may see it.
//!
//! It is sealed once, as events carry it, under the key of the order's customer; every event of the order takes a copy. Without the key
//! there is nothing to show: the customer has been erased, and the order is as it was but for them.

use std::collections::{BTreeMap, HashMap};

use kernel::{
    actor::Actor,
    clock::Timestamp,
    db,
    event::PERSONAL_CONTEXT,
    id::MerchantId,
    keyring::{DataKey, Keyring},
    personal,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{Address, Contact, CustomerId, Order, OrderId, OrderInput, store};
use crate::{
    Error,
    customer::store::{self as customers, NewCustomer},
};

/// The context in which a customer's own row is sealed.
pub(crate) const CUSTOMER_CONTEXT: &str = "customer";

/// The purpose of the index by which customers are found.
const EMAIL_PURPOSE: &str = "customer.email";

/// Rounds until every e-mail address has its customer. One, unless somebody else makes or erases the same customer at the same moment.
const ROUNDS_MAX: u32 = 5;

/// The personal part, as it is sealed and as events merge it over an order.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Personal {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customer: Option<Contact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shipping_address: Option<Address>,
}

/// Whose an order is, and its personal part under their key.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) customer: CustomerId,
    pub(super) bytes: Vec<u8>,
}

/// The blind index of an e-mail address: equal for equal addresses, whatever their case.
pub(crate) fn email_index(merchant_key: &DataKey, email: &str) -> [u8; 32] {
    merchant_key.blind_index(EMAIL_PURPOSE, email.trim().to_lowercase().as_bytes())
}

/// Finds or makes the customers of these orders, and seals what is personal in them; `None` for an order without any. A constant number of statements.
pub(super) async fn seal(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    inputs: &[&OrderInput],
    now: Timestamp,
) -> Result<Vec<Option<Sealed>>, Error> {
    let personal =
        |input: &OrderInput| input.customer.is_some() || input.shipping_address.is_some();
    if !inputs.iter().any(|input| personal(input)) {
        return Ok(inputs.iter().map(|_| None).collect());
    }
    let merchant_key = keyring.merchant_key(&mut *tx, merchant).await?;
    let indexes: Vec<Option<[u8; 32]>> = inputs
        .iter()
        .map(|input| {
            input
                .customer
                .as_ref()?
                .email
                .as_deref()
                .map(|email| email_index(&merchant_key, email))
        })
        .collect();
    // Sorted: two who make customers of the same addresses wait in the same order.
    let mut wanted: BTreeMap<[u8; 32], &Contact> = BTreeMap::new();
    for (input, index) in inputs.iter().zip(&indexes) {
        if let (Some(contact), Some(index)) = (&input.customer, index) {
            wanted.entry(*index).or_insert(contact);
        }
    }
    let mut keys: HashMap<CustomerId, DataKey> = HashMap::new();
    let known = find_or_make(tx, keyring, merchant, &wanted, &mut keys, now).await?;

    // Whoever gives no e-mail address is somebody new each time.
    let unnamed: Vec<Option<CustomerId>> = inputs
        .iter()
        .zip(&indexes)
        .map(|(input, index)| (index.is_none() && personal(input)).then(|| CustomerId::new(now)))
        .collect();
    let new: Vec<CustomerId> = unnamed.iter().copied().flatten().collect();
    keys.extend(personal::create_keys(&mut *tx, keyring, merchant, &new, now).await?);
    let mut rows = Vec::with_capacity(new.len());
    for (input, customer) in inputs.iter().zip(&unnamed) {
        if let Some(customer) = customer {
            let contact = input.customer.clone().unwrap_or_default();
            rows.push(NewCustomer {
                id: *customer,
                email_index: None,
                sealed: seal_json(&keys, *customer, CUSTOMER_CONTEXT, &contact)?,
            });
        }
    }
    customers::insert(tx, merchant, &rows, now).await?;

    let mut sealed = Vec::with_capacity(inputs.len());
    for ((input, index), unnamed) in inputs.iter().zip(&indexes).zip(unnamed) {
        let customer = index
            .and_then(|index| known.get(&index).copied())
            .or(unnamed);
        sealed.push(match customer {
            Some(customer) => {
                let part = Personal {
                    customer: input.customer.clone(),
                    shipping_address: input.shipping_address.clone(),
                };
                Some(Sealed {
                    customer,
                    bytes: seal_json(&keys, customer, PERSONAL_CONTEXT, &part)?,
                })
            }
            None => None,
        });
    }
    Ok(sealed)
}

/// The customer of each e-mail address, with their keys: found, or else made.
async fn find_or_make(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    wanted: &BTreeMap<[u8; 32], &Contact>,
    keys: &mut HashMap<CustomerId, DataKey>,
    now: Timestamp,
) -> Result<HashMap<[u8; 32], CustomerId>, Error> {
    let mut known: HashMap<[u8; 32], CustomerId> = HashMap::new();
    for _ in 0..ROUNDS_MAX {
        let open: Vec<[u8; 32]> = wanted
            .keys()
            .filter(|index| !known.contains_key(*index))
            .copied()
            .collect();
        if open.is_empty() {
            return Ok(known);
        }
        let found = customers::select_by_email(tx, merchant, &open).await?;
        let found_ids: Vec<CustomerId> = found.iter().map(|(_, customer)| *customer).collect();
        keys.extend(personal::keys(&mut *tx, keyring, merchant, &found_ids).await?);
        // Somebody who was erased and orders again is somebody new; the address is theirs now.
        let erased: Vec<CustomerId> = found_ids
            .into_iter()
            .filter(|customer| !keys.contains_key(customer))
            .collect();
        customers::forget_email(tx, merchant, &erased).await?;
        known.extend(
            found
                .into_iter()
                .filter(|(_, customer)| keys.contains_key(customer)),
        );

        let new: Vec<([u8; 32], CustomerId)> = open
            .into_iter()
            .filter(|index| !known.contains_key(index))
            .map(|index| (index, CustomerId::new(now)))
            .collect();
        let new_ids: Vec<CustomerId> = new.iter().map(|(_, customer)| *customer).collect();
        keys.extend(personal::create_keys(&mut *tx, keyring, merchant, &new_ids, now).await?);
        let mut rows = Vec::with_capacity(new.len());
        for &(index, id) in &new {
            let contact = wanted.get(&index).copied();
            let sealed = seal_json(keys, id, CUSTOMER_CONTEXT, &contact)?;
            rows.push(NewCustomer {
                id,
                email_index: Some(index.to_vec()),
                sealed,
            });
        }
        let made = customers::insert(tx, merchant, &rows, now).await?;
        for (index, id) in new {
            if made.contains(&id) {
                known.insert(index, id);
            } else {
                // Somebody else has made this customer meanwhile, and is found in the next round; a key of nobody is not kept.
                keys.remove(&id);
                personal::erase(&mut *tx, merchant, id).await?;
            }
        }
    }
    if wanted.keys().all(|index| known.contains_key(index)) {
        return Ok(known);
    }
    Err(db::Error::corrupt(
        "customers",
        merchant,
        "an e-mail address finds no customer, and none can be made",
    )
    .into())
}

fn seal_json(
    keys: &HashMap<CustomerId, DataKey>,
    customer: CustomerId,
    context: &str,
    value: &impl Serialize,
) -> Result<Vec<u8>, Error> {
    let json = super::to_json(value)?;
    let key = keys.get(&customer).ok_or(kernel::keyring::Error::Seal)?;
    Ok(key.seal(context, json.get().as_bytes())?)
}

/// Whether [`reveal`] has anything to add to these orders; if not, no transaction need be begun for it.
pub fn has_more_to_reveal(actor: &Actor, orders: &[Order]) -> bool {
    actor.access.sees_personal_data() && orders.iter().any(|order| order.customer_id.is_some())
}

/// Adds names, addresses and contacts to orders, for those who may see them; others get the orders back as they are. Two statements, however many.
pub async fn reveal(
    tx: &mut PgConnection,
    keyring: &Keyring,
    actor: &Actor,
    mut orders: Vec<Order>,
) -> Result<Vec<Order>, Error> {
    if !has_more_to_reveal(actor, &orders) {
        return Ok(orders);
    }
    let with_customer: Vec<OrderId> = orders
        .iter()
        .filter(|order| order.customer_id.is_some())
        .map(|order| order.id)
        .collect();
    let mut sealed = store::select_sealed(tx, actor.merchant, &with_customer).await?;
    let mut subjects: Vec<CustomerId> = orders
        .iter()
        .filter_map(|order| order.customer_id)
        .collect();
    subjects.sort_unstable();
    subjects.dedup();
    let keys = personal::keys(&mut *tx, keyring, actor.merchant, &subjects).await?;
    for order in &mut orders {
        let Some(key) = order.customer_id.and_then(|customer| keys.get(&customer)) else {
            continue;
        };
        let Some(sealed) = sealed.remove(&order.id) else {
            continue;
        };
        let opened = key.open(PERSONAL_CONTEXT, &sealed)?;
        let part: Personal = serde_json::from_slice(&opened)
            .map_err(|error| db::Error::corrupt("orders", order.id, error))?;
        order.customer = part.customer;
        order.shipping_address = part.shipping_address;
    }
    Ok(orders)
}
