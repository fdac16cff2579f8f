//! The key ring: what is sealed, and under which key.
//!
//! A master key (a file) wraps a key per merchant; that wraps a key per data subject, and seals the merchant's webhook secrets. Signing keys
//! are sealed by the master key itself. Everything is AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce; the context (what is sealed, and whose
//! it is) is authenticated with it, so that a sealed value does not open in another place.

use std::{
    collections::HashMap,
    fmt,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    error::Unspecified,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use crate::{clock::Timestamp, db, id::MerchantId, problem::Problem};

mod store;

/// Bytes of a key.
pub const KEY_LENGTH: usize = 32;

/// The first byte of what is sealed: how it is sealed.
const FORMAT_AES_256_GCM: u8 = 1;

/// Merchants whose key is kept unwrapped in memory; beyond that the memory starts anew.
const CACHED_MERCHANTS_MAX: usize = 10_000;

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The master key's file can't be read or made.
    #[error("master key file {path}: {source}")]
    MasterKeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The master key's file holds no key.
    #[error("master key file {0} must hold 32 bytes in base64")]
    MasterKeyFormat(PathBuf),
    /// What was sealed does not open: another key, another context, or changed bytes.
    #[error("{0} does not open under the key that should have sealed it")]
    Open(String),
    /// The merchant has no key.
    #[error("merchant {0} has no key")]
    NoMerchantKey(MerchantId),
    /// The cipher refused to work.
    #[error("sealing failed")]
    Seal,
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

/// A key of 256 bits that seals, opens, and makes blind indexes. Prints as `***`.
pub struct DataKey {
    bytes: Zeroizing<[u8; KEY_LENGTH]>,
    cipher: LessSafeKey,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DataKey(***)")
    }
}

impl DataKey {
    /// A random key.
    pub fn generate() -> Result<Self, Error> {
        Self::from_bytes(Zeroizing::new(rand::random()))
    }

    /// The key that a secret of full strength, such as a random token, stands for; `purpose` keeps keys of different things apart.
    pub fn derive(secret: &[u8], purpose: &str) -> Result<Self, Error> {
        Self::from_bytes(Zeroizing::new(keyed_hash(secret, purpose, b"data key")))
    }

    fn from_bytes(bytes: Zeroizing<[u8; KEY_LENGTH]>) -> Result<Self, Error> {
        let key =
            UnboundKey::new(&AES_256_GCM, bytes.as_slice()).map_err(|Unspecified| Error::Seal)?;
        Ok(Self {
            bytes,
            cipher: LessSafeKey::new(key),
        })
    }

    fn from_slice(context: &str, slice: &[u8]) -> Result<Self, Error> {
        let bytes = <[u8; KEY_LENGTH]>::try_from(slice)
            .map_err(|_length| Error::Open(context.to_owned()))?;
        Self::from_bytes(Zeroizing::new(bytes))
    }

    /// Seals `plain`; it opens only under this key and in the same `context`.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut body = plain.to_vec();
        self.cipher
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut body,
            )
            .map_err(|Unspecified| Error::Seal)?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + body.len());
        sealed.push(FORMAT_AES_256_GCM);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) sealed in the same context.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let refused = || Error::Open(context.to_owned());
        let (&format, rest) = sealed.split_first().ok_or_else(refused)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
        if format != FORMAT_AES_256_GCM {
            return Err(refused());
        }
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .cipher
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(context),
                &mut body,
            )
            .map_err(|Unspecified| refused())?
            .len();
        body.truncate(length);
        Ok(body)
    }

    /// An HMAC-SHA256 of `text` that is equal for equal texts and tells nothing else; `purpose` keeps indexes of different things apart.
    pub fn blind_index(&self, purpose: &str, text: &[u8]) -> [u8; 32] {
        keyed_hash(self.bytes.as_slice(), purpose, text)
    }

    /// Seals another key under this one.
    pub fn wrap(&self, context: &str, key: &Self) -> Result<Vec<u8>, Error> {
        self.seal(context, key.bytes.as_slice())
    }

    /// Opens a key that [`wrap`](Self::wrap) sealed.
    pub fn unwrap(&self, context: &str, wrapped: &[u8]) -> Result<Self, Error> {
        Self::from_slice(context, &self.open(context, wrapped)?)
    }
}

/// HMAC-SHA256 (RFC 2104) of `text` under a subkey that HMAC derives from `key` for this `purpose`.
fn keyed_hash(key: &[u8], purpose: &str, text: &[u8]) -> [u8; 32] {
    let subkey = hmac_sha256(key, purpose.as_bytes());
    hmac_sha256(&subkey, text)
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    // HMAC takes keys of any length; the error type exists for other constructions.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The master key, and the merchants' keys that it has opened.
pub struct Keyring {
    master: DataKey,
    merchants: Mutex<HashMap<MerchantId, Arc<DataKey>>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Keyring(***)")
    }
}

impl Keyring {
    /// Reads the master key from `path`, or makes it there (mode 0600) if there is no such file. Two processes that start at once agree on one.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::MasterKeyFile {
            path: path.to_owned(),
            source,
        };
        if !path.exists() {
            // Written whole beside its place and then linked there: a crash leaves no half of a key, and a link does not replace a twin's.
            let key = DataKey::generate()?;
            // Under a name of its own: in a container each start has the same process id, and a crash may have left its file.
            let beside = path.with_extension(format!("{:032x}.new", rand::random::<u128>()));
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)
                .map_err(failed)?;
            let text = Zeroizing::new(BASE64_STANDARD.encode(key.bytes.as_slice()));
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
            let linked = std::fs::hard_link(&beside, path);
            std::fs::remove_file(&beside).map_err(failed)?;
            if let Err(error) = linked
                && error.kind() != std::io::ErrorKind::AlreadyExists
            {
                return Err(failed(error));
            }
            // Nothing may be sealed under a key whose name a power cut can take back.
            let directory = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            std::fs::File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(failed)?;
        }
        let mut text = Zeroizing::new(String::new());
        std::fs::File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(failed)?;
        let bytes = BASE64_STANDARD.decode(text.trim()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_not_base64| Error::MasterKeyFormat(path.to_owned()))?;
        let master = DataKey::from_slice("master key", &bytes)
            .map_err(|_length| Error::MasterKeyFormat(path.to_owned()))?;
        Ok(Self::new(master))
    }

    /// A key ring under a given master key.
    pub fn new(master: DataKey) -> Self {
        Self {
            master,
            merchants: Mutex::default(),
        }
    }

    /// The key that seals what belongs to no merchant, such as signing keys.
    pub const fn master(&self) -> &DataKey {
        &self.master
    }

    /// Makes the key of a new merchant, in the transaction that makes the merchant.
    pub async fn create_merchant_key(
        &self,
        tx: &mut PgConnection,
        merchant: MerchantId,
        now: Timestamp,
    ) -> Result<(), Error> {
        let key = DataKey::generate()?;
        let wrapped = self.master.wrap(&merchant_context(merchant), &key)?;
        Ok(store::insert_merchant_key(tx, merchant, &wrapped, now).await?)
    }

    /// The merchant's key; from memory after the first time.
    pub async fn merchant_key(
        &self,
        tx: &mut PgConnection,
        merchant: MerchantId,
    ) -> Result<Arc<DataKey>, Error> {
        let known = self
            .merchants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&merchant)
            .cloned();
        if let Some(key) = known {
            return Ok(key);
        }
        let wrapped = store::select_merchant_key(tx, merchant)
            .await?
            .ok_or(Error::NoMerchantKey(merchant))?;
        let key = Arc::new(self.master.unwrap(&merchant_context(merchant), &wrapped)?);
        let mut merchants = self
            .merchants
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if merchants.len() >= CACHED_MERCHANTS_MAX {
            merchants.clear();
        }
        merchants.insert(merchant, Arc::clone(&key));
        Ok(key)
    }
}

fn merchant_context(merchant: MerchantId) -> String {
    format!("merchant_key:{merchant}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_sealed_value_opens_only_under_its_key_and_context() {
        let (key, other) = (DataKey::generate().unwrap(), DataKey::generate().unwrap());
        let sealed = key.seal("secret:1", b"hello").unwrap();
        assert_eq!(key.open("secret:1", &sealed).unwrap().as_slice(), b"hello");
        assert!(key.open("secret:2", &sealed).is_err());
        assert!(other.open("secret:1", &sealed).is_err());
        for cut in 0..sealed.len() {
            assert!(
                key.open("secret:1", sealed.get(..cut).unwrap()).is_err(),
                "cut at {cut}"
            );
        }
        assert_ne!(
            key.seal("secret:1", b"hello").unwrap(),
            sealed,
            "a nonce of its own each time"
        );
    }

    #[test]
    fn blind_indexes_are_equal_for_equal_texts_of_one_purpose() {
        let key = DataKey::generate().unwrap();
        assert_eq!(
            key.blind_index("email", b"a"),
            key.blind_index("email", b"a")
        );
        assert_ne!(
            key.blind_index("email", b"a"),
            key.blind_index("phone", b"a")
        );
    }
}
