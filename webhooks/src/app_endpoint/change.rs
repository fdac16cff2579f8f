//! What an app can do to its endpoints for all merchants.

use std::{borrow::Cow, sync::Arc};

use kernel::{
    actor::Access,
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    idempotency::{Call, Kept, Operation},
    keyring::{self, DataKey, Keyring},
    scope::Scope,
    validation::Faults,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use super::{
    AppEndpoint, AppEndpointChange, AppEndpointId, AppEndpointInput, CreatedAppEndpoint,
    PER_APP_MAX, Rotated, store,
};
use crate::{
    endpoint::{
        Setting, Status, fit,
        input::lowercase,
        key::{CopiedKey, KeyId, LIVING_PER_SCHEME_MAX, NewKey, Rotation, Stored},
        settings::{Credentials, Settings, SignatureScheme},
    },
    error::{Error, Refusal},
};

/// What a key is sealed for under the master key.
fn key_context(id: AppEndpointId, key: KeyId) -> String {
    format!("app_webhook_key:{id}:{key}")
}

/// What credentials are sealed for under the master key.
fn credentials_context(id: AppEndpointId) -> String {
    format!("app_webhook_credentials:{id}")
}

fn seal_credentials(
    master: &DataKey,
    id: AppEndpointId,
    credentials: &Credentials,
) -> Result<Option<Vec<u8>>, Error> {
    if *credentials == Credentials::default() {
        return Ok(None);
    }
    let json = Zeroizing::new(serde_json::to_vec(credentials)?);
    Ok(Some(master.seal(&credentials_context(id), &json)?))
}

/// Opens the credentials of an app's endpoint.
pub(super) fn open_credentials(
    master: &DataKey,
    id: AppEndpointId,
    sealed: Option<&[u8]>,
) -> Result<Credentials, Error> {
    let Some(sealed) = sealed else {
        return Ok(Credentials::default());
    };
    Ok(serde_json::from_slice(
        &master.open(&credentials_context(id), sealed)?,
    )?)
}

/// Opens a key of an app's endpoint.
pub(super) fn open_key(
    master: &DataKey,
    id: AppEndpointId,
    stored: Stored,
) -> Result<CopiedKey, keyring::Error> {
    Ok(CopiedKey {
        id: stored.id,
        scheme: stored.scheme,
        secret: master.open(&key_context(id, stored.id), &stored.sealed)?,
        public_key: stored.public_key,
        created_at: stored.created_at,
        ends_at: stored.ends_at,
    })
}

/// Writes new keys, and gives the secret that is shared, if there is one.
async fn insert_keys(
    tx: &mut PgConnection,
    master: &DataKey,
    id: AppEndpointId,
    schemes: &[SignatureScheme],
    now: Timestamp,
) -> Result<(Option<String>, Vec<Stored>), Error> {
    let mut secret = None;
    let mut inserted = Vec::with_capacity(schemes.len());
    for scheme in schemes {
        let new = NewKey::generate(*scheme)?;
        let stored = new.seal(master, |key| key_context(id, key), now)?;
        store::insert_key(&mut *tx, id, &stored).await?;
        secret = secret.or_else(|| new.reveal());
        inserted.push(stored);
    }
    Ok((secret, inserted))
}

/// Makes an endpoint of the token's app.
#[derive(Debug)]
pub struct Create {
    /// What it is to be.
    pub input: AppEndpointInput,
    /// What it is made with.
    pub setting: Setting,
}

impl Operation for Create {
    const NAME: &'static str = "app_webhook_endpoint.create";
    const SCOPE: Scope = Scope::AppsAdmin;
    type Input = AppEndpointInput;
    type Output = CreatedAppEndpoint;
    type Error = Error;

    fn input(&self) -> &AppEndpointInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<CreatedAppEndpoint, Error> {
        let Self { input, setting } = self;
        let url = setting.check(
            input.url.as_deref(),
            input.event_types.as_deref(),
            input.settings.new_authentication(),
        )?;
        let mut settings = Settings::default();
        input.settings.apply(&mut settings);
        let mut credentials = Credentials {
            headers: input.headers.as_ref().map(lowercase).unwrap_or_default(),
            ..Credentials::default()
        };
        input.credentials.apply(&mut credentials);
        fit(&mut settings, &credentials)?;
        if store::count(&mut *tx, actor.app).await? >= i64::from(PER_APP_MAX) {
            return Err(Refusal::TooManyAppEndpoints.into());
        }
        let endpoint = AppEndpoint {
            id: AppEndpointId::new(now),
            url: url.map(String::from),
            description: input.description.clone(),
            event_types: input.event_types.clone(),
            settings,
            status: Status::Enabled,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let master = setting.keyring.master();
        let sealed = seal_credentials(master, endpoint.id, &credentials)?;
        store::insert(&mut *tx, actor.app, &endpoint, sealed.as_deref()).await?;
        let schemes = &endpoint.settings.signature.schemes;
        let (secret, _) = insert_keys(&mut *tx, master, endpoint.id, schemes, now).await?;
        store::hint(tx, actor.app).await?;
        Ok(CreatedAppEndpoint { endpoint, secret })
    }
}

/// Changes an endpoint of the token's app.
#[derive(Debug)]
pub struct Update {
    /// Which, from which version, and how.
    pub input: UpdateInput,
    /// What it is made with.
    pub setting: Setting,
}

/// Which endpoint is to be changed, and how.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateInput {
    /// The endpoint.
    pub id: AppEndpointId,
    /// The version that `If-Match` names; any if absent.
    pub version: Option<i64>,
    /// The change.
    pub change: AppEndpointChange,
}

impl Operation for Update {
    const NAME: &'static str = "app_webhook_endpoint.update";
    const SCOPE: Scope = Scope::AppsAdmin;
    type Input = UpdateInput;
    type Output = AppEndpoint;
    type Error = Error;

    fn input(&self) -> &UpdateInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<AppEndpoint, Error> {
        let UpdateInput {
            id,
            version,
            change,
        } = &self.input;
        let url = self.setting.check(
            change.url.as_ref().and_then(Option::as_deref),
            change.event_types.as_ref().and_then(Option::as_deref),
            change.settings.new_authentication(),
        )?;
        let (before, sealed) = store::lock(&mut *tx, actor.app, *id)
            .await?
            .ok_or(Error::AppEndpointNotFound(*id))?;
        if version.is_some_and(|version| version != before.version) {
            return Err(Error::VersionMismatch);
        }
        let mut after = before.clone();
        if change.url.is_some() {
            after.url = url.map(String::from);
        }
        if let Some(description) = &change.description {
            after.description.clone_from(description);
        }
        if let Some(kinds) = &change.event_types {
            after.event_types.clone_from(kinds);
        }
        if let Some(status) = change.status {
            after.status = status;
        }
        let master = self.setting.keyring.master();
        let known = open_credentials(master, *id, sealed.as_deref())?;
        let mut credentials = known.clone();
        change.settings.apply(&mut after.settings);
        credentials.forget_unused(after.settings.authentication.as_ref());
        if let Some(headers) = &change.headers {
            credentials.headers = headers.as_ref().map(lowercase).unwrap_or_default();
        }
        change.credentials.apply(&mut credentials);
        fit(&mut after.settings, &credentials)?;
        // A change that repeats what is, is none; but whoever enables what is enabled gives the parts that were switched off another chance.
        if after == before && credentials == known && change.status != Some(Status::Enabled) {
            return Ok(before);
        }
        if after.settings.signature != before.settings.signature {
            provide(&mut *tx, master, &after, now).await?;
        }
        after.version = before.version.saturating_add(1);
        after.updated_at = now;
        let sealed = seal_credentials(master, *id, &credentials)?;
        store::update(&mut *tx, actor.app, &after, sealed.as_deref()).await?;
        store::hint(tx, actor.app).await?;
        Ok(after)
    }
}

/// Sees to it that there is a key for each scheme: a public one is made, and one that somebody must be told is asked for.
async fn provide(
    tx: &mut PgConnection,
    master: &DataKey,
    endpoint: &AppEndpoint,
    now: Timestamp,
) -> Result<(), Error> {
    let keys = store::keys(&mut *tx, endpoint.id).await?;
    let mut faults = Faults::default();
    for (place, scheme) in endpoint.settings.signature.schemes.iter().enumerate() {
        if keys
            .iter()
            .any(|key| key.scheme == *scheme && key.is_living(now))
        {
            continue;
        }
        match scheme {
            SignatureScheme::V1 => faults.add(
                &format!("/settings/signature/schemes/{place}"),
                "without_key",
                "there is no key for this scheme: rotate-keys with `schemes: [\"v1\"]` makes one and shows it",
            ),
            SignatureScheme::V1a => {
                insert_keys(&mut *tx, master, endpoint.id, &[*scheme], now).await?;
            }
        }
    }
    faults.into_result().map_err(Error::InvalidFields)
}

/// Replaces keys of an endpoint of the token's app.
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
    pub id: AppEndpointId,
    /// How.
    pub rotation: Rotation,
}

impl Operation for Rotate {
    const NAME: &'static str = "app_webhook_endpoint.rotate_keys";
    const SCOPE: Scope = Scope::AppsAdmin;
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
        let (mut endpoint, sealed) = store::lock(&mut *tx, actor.app, *id)
            .await?
            .ok_or(Error::AppEndpointNotFound(*id))?;
        let schemes = rotation.schemes(&endpoint.settings);
        let overlap = rotation.overlap();
        store::end_keys(&mut *tx, *id, &schemes, now.plus(overlap)).await?;
        store::delete_ended_keys(&mut *tx, *id, now).await?;
        let older = store::keys(&mut *tx, *id).await?;
        let (secret, mut keys) =
            insert_keys(&mut *tx, self.keyring.master(), *id, &schemes, now).await?;
        keys.extend(older);
        for scheme in &schemes {
            let living = keys.iter().filter(|key| key.scheme == *scheme);
            if living.count() > LIVING_PER_SCHEME_MAX {
                return Err(Refusal::TooManyKeys.into());
            }
        }
        endpoint.version = endpoint.version.saturating_add(1);
        endpoint.updated_at = now;
        store::update(&mut *tx, actor.app, &endpoint, sealed.as_deref()).await?;
        store::hint(&mut *tx, actor.app).await?;
        let entry = NewEntry::succeeded("webhook_secret.rotated")
            .by_app(actor.app)
            .to("app_webhook_endpoint", id)
            .with(json!({"schemes": schemes, "overlapSeconds": overlap.as_secs()}));
        audit::record(tx, Log::Merchant(actor.merchant), &self.caller, now, &entry).await?;
        Ok(Rotated {
            app_endpoint_id: *id,
            version: endpoint.version,
            secret,
            keys: keys.iter().map(Stored::shown).collect(),
        })
    }
}

/// Deletes an endpoint of the token's app, and each merchant's part of it within seconds.
#[derive(Debug)]
pub struct Delete {
    /// Which, and from which version.
    pub input: DeleteInput,
}

/// Which endpoint is to be deleted.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteInput {
    /// The endpoint.
    pub id: AppEndpointId,
    /// The version that `If-Match` names; any if absent.
    pub version: Option<i64>,
}

/// An app's endpoint is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = DeletedAppWebhookEndpoint)]
pub struct Deleted {
    /// Which it was.
    pub id: AppEndpointId,
}

impl Operation for Delete {
    const NAME: &'static str = "app_webhook_endpoint.delete";
    const SCOPE: Scope = Scope::AppsAdmin;
    type Input = DeleteInput;
    type Output = Deleted;
    type Error = Error;

    fn input(&self) -> &DeleteInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, .. }: Call<'_>,
    ) -> Result<Deleted, Error> {
        let DeleteInput { id, version } = self.input;
        let (endpoint, _) = store::lock(&mut *tx, actor.app, id)
            .await?
            .ok_or(Error::AppEndpointNotFound(id))?;
        if version.is_some_and(|version| version != endpoint.version) {
            return Err(Error::VersionMismatch);
        }
        store::delete(&mut *tx, actor.app, id).await?;
        store::hint(tx, actor.app).await?;
        Ok(Deleted { id })
    }
}

impl Kept for AppEndpoint {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::AppsAdmin).is_ok()
    }
}

impl Kept for CreatedAppEndpoint {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::AppsAdmin).is_ok()
    }

    fn without_secrets(&self) -> Cow<'_, Self> {
        Cow::Owned(Self {
            secret: None,
            ..self.clone()
        })
    }
}

impl Kept for Rotated {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::AppsAdmin).is_ok()
    }

    fn without_secrets(&self) -> Cow<'_, Self> {
        Cow::Owned(Self {
            secret: None,
            ..self.clone()
        })
    }
}

impl Kept for Deleted {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::AppsAdmin).is_ok()
    }
}
