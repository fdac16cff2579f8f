//! What the engine needs to know of endpoints to send to them: settings, keys and credentials, opened.
//!
//! Called by the worker for the endpoints whose version has changed, many at once, in few statements. Invariant: what is wrong with one endpoint (a key
//! that does not open, settings that do not read) is told of that endpoint and spoils no other.

use std::collections::HashMap;

use kernel::{
    id::MerchantId,
    keyring::{DataKey, Keyring},
};
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{
    EndpointId,
    key::{self, Key, Stored},
    settings::{Credentials, Settings, SignatureScheme},
};
use crate::error::Error;

pub(super) mod store;

/// What an endpoint is sent with.
#[derive(Debug)]
pub struct Configuration {
    /// The endpoint's version that this is of.
    pub version: i64,
    /// How it wants what it is sent.
    pub settings: Settings,
    /// The keys of the schemes that its settings name, the newest first. Those with an end may have ended: ask [`Key::is_living`] when signing.
    pub keys: Vec<Key>,
    /// What it has given us to be let in.
    pub credentials: Credentials,
}

/// What credentials are sealed for.
pub(crate) fn credentials_context(merchant: MerchantId, endpoint: EndpointId) -> String {
    format!("webhook_credentials:{merchant}:{endpoint}")
}

/// Seals credentials as JSON; `None` if there are none.
pub(crate) fn seal_credentials(
    key: &DataKey,
    merchant: MerchantId,
    endpoint: EndpointId,
    credentials: &Credentials,
) -> Result<Option<Vec<u8>>, Error> {
    if *credentials == Credentials::default() {
        return Ok(None);
    }
    let json = Zeroizing::new(serde_json::to_vec(credentials)?);
    Ok(Some(
        key.seal(&credentials_context(merchant, endpoint), &json)?,
    ))
}

/// Opens what [`seal_credentials`] sealed.
pub(crate) fn open_credentials(
    key: &DataKey,
    merchant: MerchantId,
    endpoint: EndpointId,
    sealed: Option<&[u8]>,
) -> Result<Credentials, Error> {
    let Some(sealed) = sealed else {
        return Ok(Credentials::default());
    };
    let json = key.open(&credentials_context(merchant, endpoint), sealed)?;
    Ok(serde_json::from_slice(&json)?)
}

/// The configurations of these endpoints, each with what is wrong with it if something is. An endpoint that is not there is not in the answer.
pub async fn configuration(
    tx: &mut PgConnection,
    keyring: &Keyring,
    wanted: &[(MerchantId, EndpointId)],
) -> Result<HashMap<EndpointId, Result<Configuration, Error>>, Error> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let mut merchants: Vec<MerchantId> = wanted.iter().map(|(merchant, _)| *merchant).collect();
    merchants.sort_unstable();
    merchants.dedup();
    let endpoints: Vec<EndpointId> = wanted.iter().map(|(_, endpoint)| *endpoint).collect();
    let rows = store::select(&mut *tx, &merchants, &endpoints).await?;
    let mut keys: HashMap<EndpointId, Vec<Result<Stored, kernel::db::Error>>> = HashMap::new();
    for (endpoint, stored) in key::store::select_many(&mut *tx, &merchants, &endpoints).await? {
        keys.entry(endpoint).or_default().push(stored);
    }
    let mut configurations = HashMap::with_capacity(rows.len());
    for row in rows {
        let endpoint = row.endpoint;
        let stored = keys.remove(&endpoint).unwrap_or_default();
        let key = match keyring.merchant_key(&mut *tx, row.merchant).await {
            Ok(key) => Ok(key),
            // The transaction may be lost with it: not one endpoint's fault.
            Err(kernel::keyring::Error::Database(error)) => return Err(error.into()),
            Err(error) => Err(error.into()),
        };
        let opened = key.and_then(|key| open(&key, row, stored));
        configurations.insert(endpoint, opened);
    }
    Ok(configurations)
}

fn open(
    key: &DataKey,
    row: store::Row,
    stored: Vec<Result<Stored, kernel::db::Error>>,
) -> Result<Configuration, Error> {
    let (merchant, endpoint) = (row.merchant, row.endpoint);
    let settings: Settings = serde_json::from_value(row.settings)?;
    let signs = |scheme| settings.signature.schemes.contains(&scheme);
    let mut keys = Vec::with_capacity(stored.len());
    if stored.is_empty() && signs(SignatureScheme::V1) {
        keys = key::open_older(key, merchant, endpoint, &row.sealed_secrets)?;
    }
    for stored in stored {
        let stored = stored?;
        if signs(stored.scheme) {
            keys.push(key::open(key, merchant, endpoint, &stored)?);
        }
    }
    let credentials = open_credentials(key, merchant, endpoint, row.sealed_credentials.as_deref())?;
    Ok(Configuration {
        version: row.version,
        settings,
        keys,
        credentials,
    })
}
