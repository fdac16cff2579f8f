//! Personal data: a key per person, so that one deleted row erases everything that was ever kept of them.
//!
//! `commerce` seals customers and addresses under these keys, events carry their personal part sealed under them, and `webhooks` opens it
//! for receivers who may see it. A subject without a key has been erased: what was sealed is then simply not there.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::{
    clock::Timestamp,
    db,
    id::{DataSubjectId, MerchantId},
    keyring::{DataKey, Error, Keyring},
};

mod store;

/// Makes keys for new data subjects, in the transaction that makes them. One statement, however many.
pub async fn create_keys(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    subjects: &[DataSubjectId],
    now: Timestamp,
) -> Result<HashMap<DataSubjectId, DataKey>, Error> {
    if subjects.is_empty() {
        return Ok(HashMap::new());
    }
    let merchant_key = keyring.merchant_key(&mut *tx, merchant).await?;
    let mut keys = HashMap::with_capacity(subjects.len());
    let mut wrapped = Vec::with_capacity(subjects.len());
    for &subject in subjects {
        let key = DataKey::generate()?;
        wrapped.push(merchant_key.wrap(&context(merchant, subject), &key)?);
        keys.insert(subject, key);
    }
    store::insert(tx, merchant, subjects, &wrapped, now).await?;
    Ok(keys)
}

/// The keys of these subjects; those who have been erased are missing.
pub async fn keys(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    subjects: &[DataSubjectId],
) -> Result<HashMap<DataSubjectId, DataKey>, Error> {
    if subjects.is_empty() {
        return Ok(HashMap::new());
    }
    let merchant_key = keyring.merchant_key(&mut *tx, merchant).await?;
    let rows = store::select(tx, merchant, subjects).await?;
    rows.into_iter()
        .map(|(subject, wrapped)| {
            Ok((
                subject,
                merchant_key.unwrap(&context(merchant, subject), &wrapped)?,
            ))
        })
        .collect()
}

/// Erases a data subject: deletes the key, and with it everything sealed under it.
pub async fn erase(
    tx: &mut PgConnection,
    merchant: MerchantId,
    subject: DataSubjectId,
) -> Result<(), db::Error> {
    store::delete(tx, merchant, subject).await
}

fn context(merchant: MerchantId, subject: DataSubjectId) -> String {
    format!("data_subject_key:{merchant}:{subject}")
}
