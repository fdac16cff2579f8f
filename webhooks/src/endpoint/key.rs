//! The keys that an endpoint's deliveries are signed with: made with it, rotated with an overlap, public where they can be.
//!
//! Called by the operations of endpoints, and by the edge for listing, rotation and the JWK set. A key's secret half is sealed under the merchant's
//! key, for this endpoint and this key alone. A secret that is shared (`v1`) leaves here once, in the answer that made it.
//!
//! Invariants: an endpoint has a living key for each scheme that it is signed by; a key that was replaced signs beside its successor until its end, and
//! is deleted by the next change after that. Endpoints of older binaries have no rows here but `endpoints.sealed_secrets`: those count as their keys until the
//! first change adopts them, and `sealed_secrets` follows every change, so that older binaries sign alike.

use std::borrow::Cow;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use kernel::{
    actor::{Access, Actor},
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db,
    id::{Id, Kind, MerchantId},
    idempotency::{Call, Kept, Operation},
    keyring::{self, DataKey, Keyring},
    scope::Scope,
    validation::{Faults, Validate},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use std::{fmt, sync::Arc, time::Duration};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Endpoint, EndpointId, Visible, check, secret_context,
    settings::{Settings, SignatureScheme},
    store as endpoints,
};
use crate::{
    error::{Error, Refusal},
    sign::Secret,
};

pub(crate) mod store;

/// Living keys of one scheme. Each makes every delivery a signature longer.
pub const LIVING_PER_SCHEME_MAX: usize = 8;

/// How long a key that was replaced goes on signing, unless the owner says otherwise: a day to deploy a secret.
const OVERLAP_DEFAULT: Duration = Duration::from_hours(24);

/// The longest overlap in seconds: seven days.
const OVERLAP_SECONDS_MAX: u32 = 7 * 24 * 60 * 60;

/// Bytes of an Ed25519 key's seed (RFC 8032, section 5.1.5): what is sealed of it.
const SEED_BYTES: usize = 32;

/// What a public key's text begins with, as Standard Webhooks has it.
const PUBLIC_KEY_PREFIX: &str = "whpk_";

/// The id of an [`EndpointKey`]: `whk_…`; the `kid` of the JWK set.
pub type KeyId = Id<EndpointKey>;

impl Kind for EndpointKey {
    const PREFIX: &'static str = "whk";
}

/// A key that an endpoint's deliveries are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookEndpointKey)]
pub struct EndpointKey {
    /// The key's id.
    pub id: KeyId,
    /// What it signs.
    pub scheme: SignatureScheme,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it signs; null: until it is replaced.
    #[schema(required)]
    pub ends_at: Option<Timestamp>,
    /// What receivers verify `v1a` with; null for `v1`, whose secret was shown when it was made.
    #[schema(
        required,
        example = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    )]
    pub public_key: Option<String>,
}

/// A key as it is stored.
pub(crate) struct Stored {
    pub(crate) id: KeyId,
    pub(crate) scheme: SignatureScheme,
    pub(crate) sealed: Vec<u8>,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) created_at: Timestamp,
    pub(crate) ends_at: Option<Timestamp>,
}

impl Stored {
    pub(crate) fn is_living(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| end > now)
    }

    pub(crate) fn shown(&self) -> EndpointKey {
        EndpointKey {
            id: self.id,
            scheme: self.scheme,
            created_at: self.created_at,
            ends_at: self.ends_at,
            public_key: self
                .public_key
                .as_ref()
                .map(|key| format!("{PUBLIC_KEY_PREFIX}{}", STANDARD.encode(key))),
        }
    }
}

/// A key that signs, opened. Prints without its secret.
pub struct Key {
    /// Which.
    pub id: KeyId,
    /// What it signs.
    pub scheme: SignatureScheme,
    /// `v1`: the shared secret's bytes. `v1a`: the 32 bytes of the Ed25519 seed (RFC 8032).
    pub secret: Zeroizing<Vec<u8>>,
    /// Until when it signs; `None`: until it is replaced.
    pub ends_at: Option<Timestamp>,
}

impl Key {
    /// Whether it signs at `now`.
    pub fn is_living(&self, now: Timestamp) -> bool {
        self.ends_at.is_none_or(|end| end > now)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({}, {}, ***)", self.id, self.scheme.as_str())
    }
}

/// A key that was made just now.
pub(crate) struct NewKey {
    pub(crate) scheme: SignatureScheme,
    pub(crate) secret: Zeroizing<Vec<u8>>,
    pub(crate) public_key: Option<Vec<u8>>,
}

impl NewKey {
    /// A random key.
    pub(crate) fn generate(scheme: SignatureScheme) -> Result<Self, Error> {
        Ok(match scheme {
            SignatureScheme::V1 => Self {
                scheme,
                secret: Zeroizing::new(Secret::generate().as_bytes().to_vec()),
                public_key: None,
            },
            SignatureScheme::V1a => {
                let seed: Zeroizing<[u8; SEED_BYTES]> = Zeroizing::new(rand::random());
                let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
                    .map_err(|_rejected| Error::Keyring(keyring::Error::Seal))?;
                Self {
                    scheme,
                    secret: Zeroizing::new(seed.to_vec()),
                    public_key: Some(pair.public_key().as_ref().to_vec()),
                }
            }
        })
    }

    /// The secret as text, where it is one that is shared.
    pub(crate) fn reveal(&self) -> Option<String> {
        match self.scheme {
            SignatureScheme::V1 => Secret::from_bytes(&self.secret)
                .ok()
                .map(|secret| secret.reveal()),
            SignatureScheme::V1a => None,
        }
    }

    /// Seals it under `key` for what `context` makes of its id.
    pub(crate) fn seal(
        &self,
        key: &DataKey,
        context: impl FnOnce(KeyId) -> String,
        now: Timestamp,
    ) -> Result<Stored, Error> {
        let id = KeyId::new(now);
        Ok(Stored {
            id,
            scheme: self.scheme,
            sealed: key.seal(&context(id), &self.secret)?,
            public_key: self.public_key.clone(),
            created_at: now,
            ends_at: None,
        })
    }
}

/// A key of an app's endpoint, opened to be copied to a merchant's part of it.
pub(crate) struct CopiedKey {
    pub(crate) id: KeyId,
    pub(crate) scheme: SignatureScheme,
    pub(crate) secret: Zeroizing<Vec<u8>>,
    pub(crate) public_key: Option<Vec<u8>>,
    pub(crate) created_at: Timestamp,
    pub(crate) ends_at: Option<Timestamp>,
}

/// What a key is sealed for, so that it opens for its own endpoint alone.
fn context(merchant: MerchantId, endpoint: EndpointId, key: KeyId) -> String {
    format!("webhook_key:{merchant}:{endpoint}:{key}")
}

/// Opens a key's secret half.
pub(super) fn open(
    key: &DataKey,
    merchant: MerchantId,
    endpoint: EndpointId,
    stored: &Stored,
) -> Result<Key, keyring::Error> {
    Ok(Key {
        id: stored.id,
        scheme: stored.scheme,
        secret: key.open(&context(merchant, endpoint, stored.id), &stored.sealed)?,
        ends_at: stored.ends_at,
    })
}

/// The key that a secret in `endpoints.sealed_secrets` is, for an endpoint of an older binary: its id is made of the endpoint's, so that it is the
/// same whenever it is asked for.
fn id_of_older(endpoint: EndpointId, place: u128) -> KeyId {
    KeyId::from_uuid(Uuid::from_u128(
        endpoint.uuid().as_u128().wrapping_add(place),
    ))
}

/// Opens the secrets of an endpoint of an older binary.
pub(super) fn open_older(
    key: &DataKey,
    merchant: MerchantId,
    endpoint: EndpointId,
    sealed_secrets: &[Vec<u8>],
) -> Result<Vec<Key>, keyring::Error> {
    let context = secret_context(merchant, endpoint);
    let keys = sealed_secrets.iter().zip(0..).map(|(sealed, place)| {
        Ok(Key {
            id: id_of_older(endpoint, place),
            scheme: SignatureScheme::V1,
            secret: key.open(&context, sealed)?,
            ends_at: None,
        })
    });
    keys.collect()
}

/// The keys of one endpoint while it is being changed; the transaction has locked the endpoint.
pub(crate) struct Ring<'r> {
    key: Arc<DataKey>,
    merchant: MerchantId,
    endpoint: &'r Endpoint,
    now: Timestamp,
}

impl<'r> Ring<'r> {
    pub(crate) async fn of(
        tx: &mut PgConnection,
        keyring: &Keyring,
        merchant: MerchantId,
        endpoint: &'r Endpoint,
        now: Timestamp,
    ) -> Result<Self, Error> {
        Ok(Self {
            key: keyring.merchant_key(tx, merchant).await?,
            merchant,
            endpoint,
            now,
        })
    }

    fn context(&self, key: KeyId) -> String {
        context(self.merchant, self.endpoint.id, key)
    }

    /// Writes the keys that an app's endpoint has, in place of those before, under their own ids. For rows of older binaries too: those that sign `v1`.
    pub(crate) async fn copy(
        &self,
        tx: &mut PgConnection,
        keys: &[CopiedKey],
    ) -> Result<(), Error> {
        let (merchant, id) = (self.merchant, self.endpoint.id);
        store::delete(&mut *tx, merchant, id).await?;
        for key in keys {
            let stored = Stored {
                id: key.id,
                scheme: key.scheme,
                sealed: self.key.seal(&self.context(key.id), &key.secret)?,
                public_key: key.public_key.clone(),
                created_at: key.created_at,
                ends_at: key.ends_at,
            };
            store::insert(&mut *tx, merchant, id, &stored).await?;
        }
        let shared = keys.iter().filter(|key| key.scheme == SignatureScheme::V1);
        let sealed = self.sealed_secrets(shared.map(|key| key.secret.as_slice()))?;
        endpoints::set_sealed_secrets(tx, merchant, id, &sealed).await?;
        Ok(())
    }

    /// Writes a new endpoint's keys: one for each scheme. Gives the secret that is shared, if there is one.
    pub(crate) async fn begin(
        &self,
        tx: &mut PgConnection,
        keys: &[NewKey],
    ) -> Result<Option<String>, Error> {
        for new in keys {
            let stored = new.seal(&self.key, |id| self.context(id), self.now)?;
            store::insert(tx, self.merchant, self.endpoint.id, &stored).await?;
        }
        Ok(keys.iter().find_map(NewKey::reveal))
    }

    /// What `endpoints.sealed_secrets` is to hold for these keys. It must not be empty: where nothing is shared, it is a secret that nobody knows.
    pub(crate) fn sealed_secrets<'k>(
        &self,
        shared: impl IntoIterator<Item = &'k [u8]>,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let context = secret_context(self.merchant, self.endpoint.id);
        let mut sealed = Vec::new();
        for secret in shared {
            sealed.push(self.key.seal(&context, secret)?);
        }
        if sealed.is_empty() {
            sealed.push(self.key.seal(&context, Secret::generate().as_bytes())?);
        }
        Ok(sealed)
    }

    /// The living keys, after those of an older binary were adopted and those that have ended deleted.
    async fn living(&self, tx: &mut PgConnection) -> Result<Vec<Stored>, Error> {
        let (merchant, id) = (self.merchant, self.endpoint.id);
        let mut keys = store::select(&mut *tx, merchant, id).await?;
        if keys.is_empty() {
            let sealed = endpoints::sealed_secrets(&mut *tx, merchant, id).await?;
            for opened in open_older(&self.key, merchant, id, &sealed)? {
                let stored = Stored {
                    id: opened.id,
                    scheme: opened.scheme,
                    sealed: self
                        .key
                        .seal(&context(merchant, id, opened.id), &opened.secret)?,
                    public_key: None,
                    created_at: self.endpoint.created_at,
                    ends_at: None,
                };
                store::insert(&mut *tx, merchant, id, &stored).await?;
                keys.push(stored);
            }
        }
        store::delete_ended(&mut *tx, merchant, id, self.now).await?;
        keys.retain(|key| key.is_living(self.now));
        Ok(keys)
    }

    /// Sees to it that there is a key for each of the endpoint's schemes. A public key is made; a secret that somebody must be told can't be, and
    /// its scheme is refused.
    pub(crate) async fn provide(&self, tx: &mut PgConnection) -> Result<(), Error> {
        let living = self.living(&mut *tx).await?;
        let mut faults = Faults::default();
        for (place, scheme) in self.endpoint.settings.signature.schemes.iter().enumerate() {
            if living.iter().any(|key| key.scheme == *scheme) {
                continue;
            }
            match scheme {
                SignatureScheme::V1 => faults.add(
                    &format!("/settings/signature/schemes/{place}"),
                    "without_key",
                    "there is no key for this scheme: rotate-keys with `schemes: [\"v1\"]` makes one and shows it",
                ),
                SignatureScheme::V1a => {
                    self.begin(&mut *tx, &[NewKey::generate(*scheme)?]).await?;
                }
            }
        }
        faults.into_result().map_err(Error::InvalidFields)
    }

    /// Gives each of `schemes` a new key, and its older ones an end.
    async fn rotate(
        &self,
        tx: &mut PgConnection,
        schemes: &[SignatureScheme],
        overlap: Duration,
    ) -> Result<(Option<String>, Vec<EndpointKey>), Error> {
        let (merchant, id) = (self.merchant, self.endpoint.id);
        let mut keys = self.living(&mut *tx).await?;
        let end = self.now.plus(overlap);
        let mut secret = None;
        for scheme in schemes {
            store::end(&mut *tx, merchant, id, *scheme, end).await?;
            for key in keys.iter_mut().filter(|key| key.scheme == *scheme) {
                key.ends_at = Some(key.ends_at.map_or(end, |before| before.min(end)));
            }
            let new = NewKey::generate(*scheme)?;
            let stored = new.seal(&self.key, |key| self.context(key), self.now)?;
            store::insert(&mut *tx, merchant, id, &stored).await?;
            secret = secret.or_else(|| new.reveal());
            keys.insert(0, stored);
        }
        store::delete_ended(&mut *tx, merchant, id, self.now).await?;
        keys.retain(|key| key.is_living(self.now));
        let count = |scheme| keys.iter().filter(|key| key.scheme == scheme).count();
        if schemes
            .iter()
            .any(|scheme| count(*scheme) > LIVING_PER_SCHEME_MAX)
        {
            return Err(Refusal::TooManyKeys.into());
        }
        let mut shared = Vec::new();
        for key in keys.iter().filter(|key| key.scheme == SignatureScheme::V1) {
            shared.push(open(&self.key, merchant, id, key)?);
        }
        if !shared.is_empty() {
            let sealed = self.sealed_secrets(shared.iter().map(|key| key.secret.as_slice()))?;
            endpoints::set_sealed_secrets(tx, merchant, id, &sealed).await?;
        }
        Ok((secret, keys.iter().map(Stored::shown).collect()))
    }
}

/// The living keys of an endpoint that the actor sees, the newest first.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    id: EndpointId,
    now: Timestamp,
) -> Result<EndpointKeys, Error> {
    let endpoint = super::get(tx, actor, id).await?;
    let keys = store::select(&mut *tx, actor.merchant, id).await?;
    let data = if keys.is_empty() {
        let sealed = endpoints::sealed_secrets(tx, actor.merchant, id).await?;
        let older = sealed.iter().zip(0..).map(|(_, place)| EndpointKey {
            id: id_of_older(id, place),
            scheme: SignatureScheme::V1,
            created_at: endpoint.created_at,
            ends_at: None,
            public_key: None,
        });
        older.collect()
    } else {
        keys.iter()
            .filter(|key| key.is_living(now))
            .map(Stored::shown)
            .collect()
    };
    Ok(EndpointKeys { data })
}

/// An endpoint's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = WebhookEndpointKeys)]
pub struct EndpointKeys {
    /// The living ones, the newest first.
    pub data: Vec<EndpointKey>,
}

/// A JWK set (RFC 7517, section 5) of Ed25519 keys (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = WebhookKeySet)]
pub struct KeySet {
    /// The living keys, the newest first.
    pub keys: Vec<Jwk>,
}

/// A public key as JSON (RFC 7517, RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = WebhookJwk)]
pub struct Jwk {
    /// The kind of key: `OKP`.
    #[schema(example = "OKP")]
    kty: &'static str,
    /// The curve: `Ed25519`.
    #[schema(example = "Ed25519")]
    crv: &'static str,
    /// The key's id.
    kid: KeyId,
    /// The public key's 32 bytes in base64url.
    #[schema(example = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")]
    x: String,
    /// What it is for: `sig`.
    #[serde(rename = "use")]
    #[schema(example = "sig")]
    purpose: &'static str,
    /// The algorithm: `EdDSA`.
    #[schema(example = "EdDSA")]
    alg: &'static str,
}

/// The public keys that an endpoint's deliveries can be verified with, for whoever asks; `None` if there is no such endpoint, or none of its keys is
/// public. `tx` stands in no merchant: it enters the endpoint's.
pub async fn public_keys(
    tx: &mut PgConnection,
    id: EndpointId,
    now: Timestamp,
) -> Result<Option<KeySet>, Error> {
    let Some(merchant) = store::merchant_of(&mut *tx, id).await? else {
        return Ok(None);
    };
    db::enter_merchant(&mut *tx, merchant).await?;
    let stored = store::select(tx, merchant, id).await?;
    let keys = stored.iter().filter(|key| key.is_living(now));
    let keys: Vec<Jwk> = keys
        .filter_map(|key| {
            Some(Jwk {
                kty: "OKP",
                crv: "Ed25519",
                kid: key.id,
                x: URL_SAFE_NO_PAD.encode(key.public_key.as_ref()?),
                purpose: "sig",
                alg: "EdDSA",
            })
        })
        .collect();
    Ok((!keys.is_empty()).then_some(KeySet { keys }))
}

/// Which keys are to be replaced, and for how long the old ones go on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = WebhookKeyRotation)]
pub struct Rotation {
    /// The schemes that get a new key; those that the endpoint is signed by if absent. A scheme that is named here and not yet among them gets its
    /// first key, so that it can be chosen afterwards.
    #[serde(default)]
    #[schema(example = json!(["v1"]))]
    pub schemes: Option<Vec<SignatureScheme>>,
    /// Seconds for which the older keys go on signing beside the new one: a day if absent, 0 to end them at once.
    #[serde(default)]
    #[schema(maximum = 604_800, example = 86_400)]
    pub overlap_seconds: Option<u32>,
}

impl Rotation {
    /// The schemes that get a new key, of something with these settings.
    pub(crate) fn schemes(&self, settings: &Settings) -> Vec<SignatureScheme> {
        let named = self.schemes.as_ref();
        named.unwrap_or(&settings.signature.schemes).clone()
    }

    /// For how long older keys go on.
    pub(crate) fn overlap(&self) -> Duration {
        self.overlap_seconds.map_or(OVERLAP_DEFAULT, |seconds| {
            Duration::from_secs(u64::from(seconds))
        })
    }
}

impl Validate for Rotation {
    fn validate(&self, faults: &mut Faults) {
        if let Some(schemes) = &self.schemes {
            check::schemes(faults, schemes);
        }
        if self
            .overlap_seconds
            .is_some_and(|overlap| overlap > OVERLAP_SECONDS_MAX)
        {
            faults.add(
                "/overlapSeconds",
                "out_of_range",
                format!("must be 0 to {OVERLAP_SECONDS_MAX}"),
            );
        }
    }
}

/// Replaces keys of an endpoint.
#[derive(Debug)]
pub struct Rotate {
    /// Whose, and how.
    pub input: RotateInput,
    /// Seals the new ones.
    pub keyring: Arc<Keyring>,
    /// For the audit log.
    pub caller: Caller,
}

/// Whose keys are to be replaced, and how.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RotateInput {
    /// The endpoint.
    pub id: EndpointId,
    /// How.
    pub rotation: Rotation,
}

/// Keys after a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RotatedWebhookKeys)]
pub struct Rotated {
    /// The endpoint.
    pub endpoint_id: EndpointId,
    /// The endpoint's version after this change.
    pub endpoint_version: i64,
    /// The new secret of `v1`. Null if `v1` was not rotated, and when an answer is replayed: it is shown once.
    #[schema(required, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub secret: Option<String>,
    /// All living keys, the new ones first.
    pub keys: Vec<EndpointKey>,
}

impl Operation for Rotate {
    const NAME: &'static str = "webhook_endpoint.rotate_keys";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = RotateInput;
    type Output = Rotated;
    type Error = Error;

    fn input(&self) -> &RotateInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<Rotated, Error> {
        let RotateInput { id, rotation } = &self.input;
        let mut endpoint = endpoints::lock(&mut *tx, Visible::to(actor), *id)
            .await?
            .ok_or(Error::EndpointNotFound(*id))?;
        if endpoint.app_endpoint_id.is_some() {
            return Err(Refusal::EndpointOfApp.into());
        }
        let schemes = rotation.schemes(&endpoint.settings);
        let overlap = rotation.overlap();
        let ring = Ring::of(&mut *tx, &self.keyring, actor.merchant, &endpoint, now).await?;
        let (secret, keys) = ring.rotate(&mut *tx, &schemes, overlap).await?;
        endpoint.version = endpoint.version.saturating_add(1);
        endpoint.updated_at = now;
        endpoints::update(&mut *tx, actor.merchant, &endpoint).await?;
        endpoints::signal_lane(&mut *tx, endpoint.id).await?;
        let entry = NewEntry::succeeded("webhook_secret.rotated")
            .by_app(actor.app)
            .to("webhook_endpoint", id)
            .with(json!({"schemes": schemes, "overlapSeconds": overlap.as_secs()}));
        audit::record(tx, Log::Merchant(actor.merchant), &self.caller, now, &entry).await?;
        Ok(Rotated {
            endpoint_id: endpoint.id,
            endpoint_version: endpoint.version,
            secret,
            keys,
        })
    }
}

impl Kept for Rotated {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::WebhooksRead).is_ok()
    }

    fn without_secrets(&self) -> Cow<'_, Self> {
        Cow::Owned(Self {
            secret: None,
            ..self.clone()
        })
    }
}
