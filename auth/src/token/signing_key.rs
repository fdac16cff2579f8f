//! Signing keys: ES256 (RFC 7518, section 3.4), named by their thumbprint, published as a JWK set (RFC 7517).
//!
//! The first process to start makes a key, the others load it. Of the keys whose time to sign has come the latest signs; every key that is not
//! retired verifies, also one whose time is still to come. They take each other's place by themselves (see [`rotation`]). Private keys are sealed by
//! the master key.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use kernel::{
    caller::Caller,
    clock::{Clock, Timestamp},
    db::Database,
    id::RequestId,
    keyring::Keyring,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::types::Json;

use super::store::{self, KeyRow};
use crate::{Error, deadline};

pub mod rotation;

/// Tokens under keys that we don't know make us look for new keys at most this often.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// How often keys are read again anyway, so that a new one is published and a retired one is out everywhere soon.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// The first byte of an uncompressed point (SEC 1, section 2.3.3), and the bytes of a coordinate.
const UNCOMPRESSED_POINT: u8 = 4;
const COORDINATE_LENGTH: usize = 32;

/// A public key (RFC 7517, section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// The point's first coordinate, in base64url.
    pub x: String,
    /// The point's second coordinate, in base64url.
    pub y: String,
    /// `ES256`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// The thumbprint (RFC 7638).
    pub kid: String,
}

impl Jwk {
    fn of(pair: &EcdsaKeyPair) -> Result<Self, Error> {
        let malformed = || Error::SigningKey("the public key is not an uncompressed point");
        let (&form, point) = pair
            .public_key()
            .as_ref()
            .split_first()
            .ok_or_else(malformed)?;
        let (x, y) = point
            .split_at_checked(COORDINATE_LENGTH)
            .ok_or_else(malformed)?;
        if form != UNCOMPRESSED_POINT || y.len() != COORDINATE_LENGTH {
            return Err(malformed());
        }
        let (x, y) = (
            BASE64_URL_SAFE_NO_PAD.encode(x),
            BASE64_URL_SAFE_NO_PAD.encode(y),
        );
        let kid = thumbprint(&x, &y);
        Ok(Self {
            kty: "EC".into(),
            crv: "P-256".into(),
            x,
            y,
            alg: "ES256".into(),
            usage: "sig".into(),
            kid,
        })
    }
}

/// The thumbprint of a key on P-256 (RFC 7638, section 3): the hash of its required members, in order and without blanks.
fn thumbprint(x: &str, y: &str) -> String {
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()))
}

/// The keys of this installation, as this process knows them.
pub struct SigningKeys {
    database: Database,
    keyring: Arc<Keyring>,
    clock: Clock,
    known: RwLock<Arc<KeySet>>,
    /// When keys were last looked for because of an unknown one, and whether the database answered.
    looked: tokio::sync::Mutex<Option<(Timestamp, bool)>>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SigningKeys(***)")
    }
}

struct KeySet {
    /// Those whose time comes last are first; never empty.
    signers: Vec<Signer>,
    verifiers: HashMap<String, DecodingKey>,
    document: String,
}

struct Signer {
    kid: String,
    signs_from: Timestamp,
    pair: EcdsaKeyPair,
}

#[derive(Serialize)]
struct Document<'k> {
    keys: Vec<&'k Jwk>,
}

#[derive(Serialize)]
struct Header<'k> {
    typ: &'static str,
    alg: &'static str,
    kid: &'k str,
}

impl SigningKeys {
    /// Loads the keys, and makes the first one if there is none. Processes that start at once agree on one. Needs the API role.
    pub async fn load_or_create(
        database: Database,
        keyring: Arc<Keyring>,
        clock: Clock,
    ) -> Result<Self, Error> {
        let mut tx = database.begin().await?;
        store::lock(&mut tx).await?;
        let mut rows = store::select(&mut tx).await?;
        if rows.is_empty() {
            let now = clock.now();
            let caller = Caller::local(RequestId::new(now));
            rows.push(rotation::create(&mut tx, &keyring, &caller, now, now).await?);
        }
        tx.commit().await.map_err(kernel::db::Error::from)?;
        let known = RwLock::new(Arc::new(KeySet::open(&keyring, &rows)?));
        Ok(Self {
            database,
            keyring,
            clock,
            known,
            looked: tokio::sync::Mutex::default(),
        })
    }

    /// Signs `claims` with the key whose time it is, as a JWT of the type `typ`.
    ///
    /// The compact serialisation (RFC 7515, section 7.1) is put together here because jsonwebtoken parses the private key anew for each token;
    /// verification is left to it.
    pub fn sign(&self, typ: &'static str, claims: &impl Serialize) -> Result<String, Error> {
        let known = self.known();
        let signer = known.signer(self.clock.now())?;
        let header = serde_json::to_vec(&Header {
            typ,
            alg: "ES256",
            kid: &signer.kid,
        })?;
        let mut jwt = BASE64_URL_SAFE_NO_PAD.encode(header);
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut jwt);
        let signature = signer
            .pair
            .sign(&SystemRandom::new(), jwt.as_bytes())
            .map_err(|aws_lc_rs::error::Unspecified| Error::SigningKey("does not sign"))?;
        jwt.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt)
    }

    /// The JWK set, as JSON.
    pub fn document(&self) -> String {
        self.known().document.clone()
    }

    /// Whether tokens under `kid` are still taken.
    pub fn is_known(&self, kid: &str) -> bool {
        self.known().verifiers.contains_key(kid)
    }

    /// The key that verifies tokens under `kid`. One that is not known is looked for in the database, but not by every token that makes up a
    /// name.
    pub async fn verifier(&self, kid: &str) -> Result<Option<DecodingKey>, Error> {
        if let Some(key) = self.known().verifiers.get(kid) {
            return Ok(Some(key.clone()));
        }
        let mut looked = self.looked.lock().await;
        if let Some(key) = self.known().verifiers.get(kid) {
            return Ok(Some(key.clone()));
        }
        let now = self.clock.now();
        match *looked {
            Some((at, answered)) if at <= now && now.since(at) < RELOAD_PAUSE => {
                return if answered {
                    Ok(None)
                } else {
                    Err(deadline::away().into())
                };
            }
            _ => {}
        }
        let reloaded = self.reload().await;
        *looked = Some((now, reloaded.is_ok()));
        reloaded?;
        Ok(self.known().verifiers.get(kid).cloned())
    }

    /// Reads the keys again.
    pub async fn reload(&self) -> Result<(), Error> {
        let rows = deadline::in_time(store::read(&self.database)).await?;
        let keys = Arc::new(KeySet::open(&self.keyring, &rows)?);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Reads the keys again every ten seconds, and rotates them when it is time, for as long as it is polled.
    pub async fn run(&self) {
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            if let Err(error) = self.tend().await {
                tracing::warn!(error = %error, "signing keys could not be looked after; the known ones stay in use");
            }
        }
    }

    /// Reads the keys again, makes a successor if it is time, and retires what no token needs any more. One process at a time does, the others
    /// read what it did.
    pub async fn tend(&self) -> Result<(), Error> {
        self.reload().await?;
        let is_due = !rotation::plan(&self.known().times(), self.clock.now()).is_empty();
        if is_due {
            rotation::run(&self.database, &self.keyring, &self.clock).await?;
            self.reload().await?;
        }
        Ok(())
    }

    fn known(&self) -> Arc<KeySet> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn context(kid: &str) -> String {
    format!("signing_key:{kid}")
}

/// A new key that signs from `signs_from` on: public as a JWK, private as PKCS #8 and sealed.
fn generate(keyring: &Keyring, signs_from: Timestamp) -> Result<KeyRow, Error> {
    let failed = |aws_lc_rs::error::Unspecified| Error::SigningKey("can't be generated");
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
    let private = pair.to_pkcs8v1().map_err(failed)?;
    let jwk = Jwk::of(&pair)?;
    let sealed_private_key = keyring
        .master()
        .seal(&context(&jwk.kid), private.as_ref())?;
    Ok(KeyRow {
        kid: jwk.kid.clone(),
        public_jwk: Json(jwk),
        sealed_private_key,
        signs_from,
    })
}

impl KeySet {
    /// `rows` with those first whose time comes last.
    fn open(keyring: &Keyring, rows: &[KeyRow]) -> Result<Self, Error> {
        let signers = rows
            .iter()
            .map(|row| Signer::open(keyring, row))
            .collect::<Result<Vec<_>, _>>()?;
        if signers.is_empty() {
            return Err(Error::SigningKey("every key is retired"));
        }
        let mut verifiers = HashMap::new();
        for row in rows {
            let jwk = &row.public_jwk.0;
            if thumbprint(&jwk.x, &jwk.y) != row.kid {
                return Err(Error::SigningKey(
                    "the public key is not the one that its name says",
                ));
            }
            let verifier = DecodingKey::from_ec_components(&jwk.x, &jwk.y)
                .map_err(|_malformed| Error::SigningKey("the public key can't be read"))?;
            verifiers.insert(row.kid.clone(), verifier);
        }
        let document = serde_json::to_string(&Document {
            keys: rows.iter().map(|row| &row.public_jwk.0).collect(),
        })?;
        Ok(Self {
            signers,
            verifiers,
            document,
        })
    }

    /// The key that signs at `now`. Where the clock is behind the one of whoever made the only key, that one.
    fn signer(&self, now: Timestamp) -> Result<&Signer, Error> {
        self.signers
            .iter()
            .find(|signer| signer.signs_from <= now)
            .or(self.signers.last())
            .ok_or(Error::SigningKey("every key is retired"))
    }

    fn times(&self) -> Vec<rotation::KeyTime<'_>> {
        self.signers
            .iter()
            .map(|signer| rotation::KeyTime {
                kid: &signer.kid,
                signs_from: signer.signs_from,
            })
            .collect()
    }
}

impl Signer {
    fn open(keyring: &Keyring, row: &KeyRow) -> Result<Self, Error> {
        let private = keyring
            .master()
            .open(&context(&row.kid), &row.sealed_private_key)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private)
            .map_err(|_rejected| Error::SigningKey("the private key can't be read"))?;
        if Jwk::of(&pair)?.kid != row.kid {
            return Err(Error::SigningKey(
                "the private key is not the one that its name says",
            ));
        }
        Ok(Self {
            kid: row.kid.clone(),
            signs_from: row.signs_from,
            pair,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        // Computed apart from this code, with OpenSSL, from the key of RFC 7517, appendix A.1.
        let (x, y) = (
            "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        );
        assert_eq!(
            thumbprint(x, y),
            "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"
        );
    }
}
