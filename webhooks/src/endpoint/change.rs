//! What can be done to endpoints: each an operation that REST and GraphQL share, run once per idempotency key.

use std::borrow::Cow;

use kernel::{
    actor::{Access, MissingScope},
    clock::Timestamp,
    event::{self, NewEvent, ResourceRef},
    id::{GrantId, MerchantId, RequestId},
    idempotency::{Call, Kept, Operation},
    keyring::Keyring,
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use sqlx::PgConnection;

use super::{
    CatchUp, CreatedEndpoint, DisabledReason, Endpoint, EndpointChange, EndpointId, EndpointInput,
    Owner, PER_APP_MAX, Setting, Status, Visible, check,
    configuration::{open_credentials, seal_credentials},
    health,
    input::lowercase,
    key::{NewKey, Ring},
    settings::{Authentication, Credentials, Settings, SignatureScheme},
    store,
};
use crate::{
    error::{Error, Refusal},
    event::{ENDPOINT_RESOURCE, PING},
    replay::{self, Selection},
};

/// The type of the event that tells of an endpoint which takes nothing.
const FAILING: &str = "webhook_endpoint.failing";

/// Makes an endpoint.
#[derive(Debug)]
pub struct Create {
    /// What it is to be.
    pub input: EndpointInput,
    /// What it is made with.
    pub setting: Setting,
}

impl Operation for Create {
    const NAME: &'static str = "webhook_endpoint.create";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = EndpointInput;
    type Output = CreatedEndpoint;
    type Error = Error;

    fn input(&self) -> &EndpointInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<CreatedEndpoint, Error> {
        let Self { input, setting } = self;
        let url = setting.check(
            input.url.as_deref(),
            input.event_types.as_deref(),
            input.settings.new_authentication(),
        )?;
        let grant: Option<GrantId> = match input.owner {
            Owner::Grant => Some(actor.grant),
            Owner::Merchant => {
                actor.access.require(Scope::MerchantAdmin)?;
                None
            }
        };
        let mut settings = Settings::default();
        input.settings.apply(&mut settings);
        let mut credentials = Credentials {
            headers: input.headers.as_ref().map(lowercase).unwrap_or_default(),
            ..Credentials::default()
        };
        input.credentials.apply(&mut credentials);
        fit(&mut settings, &credentials)?;
        if store::count(tx, actor.merchant, actor.app).await? >= i64::from(PER_APP_MAX) {
            return Err(Refusal::TooManyEndpoints.into());
        }
        let endpoint = Endpoint {
            id: EndpointId::new(now),
            url: url.map(String::from),
            description: input.description.clone(),
            event_types: input.event_types.clone(),
            owner: input.owner,
            status: Status::Enabled,
            disabled_reason: None,
            settings,
            app_endpoint_id: None,
            verified_at: None,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let keys = endpoint.settings.signature.schemes.iter();
        let keys: Vec<NewKey> = keys
            .map(|scheme| NewKey::generate(*scheme))
            .collect::<Result<_, _>>()?;
        let ring = Ring::of(&mut *tx, &setting.keyring, actor.merchant, &endpoint, now).await?;
        let shared = keys.iter().filter(|key| key.scheme == SignatureScheme::V1);
        let owned = store::Owned {
            app: actor.app,
            grant,
            sealed_secrets: ring.sealed_secrets(shared.map(|key| key.secret.as_slice()))?,
            sealed_credentials: sealed(
                tx,
                &setting.keyring,
                actor.merchant,
                &endpoint,
                &credentials,
            )
            .await?,
        };
        store::insert(tx, actor.merchant, &endpoint, &owned).await?;
        let secret = ring.begin(tx, &keys).await?;
        if input.verify {
            append(tx, actor.merchant, actor.request, now, PING, &endpoint).await?;
        }
        Ok(CreatedEndpoint { endpoint, secret })
    }
}

/// What comes of a switch on or off: off, the stream's last number is noted; on, what came after that is caught up with as the owner chooses.
///
/// The cursor is locked, so that a relay which has not numbered yet does so after this transaction, and what it has numbered is seen here.
async fn switch(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: &Endpoint,
    catch_up: Option<CatchUp>,
    now: Timestamp,
) -> Result<(), Error> {
    let last_sequence = store::lock_cursor(&mut *tx, merchant, endpoint.id).await?;
    if endpoint.status == Status::Disabled {
        let at = Some(last_sequence);
        store::set_disabled_at(tx, merchant, endpoint.id, at).await?;
        return Ok(());
    }
    let off_at = store::disabled_at(&mut *tx, merchant, endpoint.id).await?;
    store::set_disabled_at(&mut *tx, merchant, endpoint.id, None).await?;
    match catch_up {
        // Whoever reads by number has their place in the stream, and misses nothing.
        Some(CatchUp::All) if endpoint.is_queued() => {
            // Disabled by an older binary, it has no such number: then whatever was never accepted counts as missed.
            let since = off_at.unwrap_or(0);
            if since < last_sequence {
                let missed = Selection::missed_since(since);
                replay::start(tx, merchant, endpoint.id, missed, now).await?;
            }
        }
        Some(CatchUp::None) => store::delete_deliveries(tx, merchant, endpoint.id).await?,
        _ => {}
    }
    Ok(())
}

/// Completes settings by what follows from the credentials, and checks that all of it fits.
pub(crate) fn fit(settings: &mut Settings, credentials: &Credentials) -> Result<(), Error> {
    settings.header_names = credentials.headers.keys().cloned().collect();
    check::whole(settings, credentials).map_err(Error::InvalidFields)
}

async fn sealed(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    endpoint: &Endpoint,
    credentials: &Credentials,
) -> Result<Option<Vec<u8>>, Error> {
    let key = keyring.merchant_key(tx, merchant).await?;
    seal_credentials(&key, merchant, endpoint.id, credentials)
}

impl Credentials {
    /// Drops the secrets that an authentication has no use for.
    pub(crate) fn forget_unused(&mut self, authentication: Option<&Authentication>) {
        if !matches!(
            authentication,
            Some(Authentication::OauthClientCredentials { .. })
        ) {
            self.client_secret = None;
        }
        if !matches!(authentication, Some(Authentication::MutualTls)) {
            self.certificate_pem = None;
            self.private_key_pem = None;
        }
    }
}

/// What a secret in `endpoints.sealed_secrets` is sealed for, so that it opens for its own endpoint alone.
pub(crate) fn secret_context(merchant: MerchantId, endpoint: EndpointId) -> String {
    format!("webhook_secret:{merchant}:{endpoint}")
}

/// Changes an endpoint.
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
    pub id: EndpointId,
    /// The version that `If-Match` names; any if absent.
    pub version: Option<i64>,
    /// The change.
    pub change: EndpointChange,
}

impl Operation for Update {
    const NAME: &'static str = "webhook_endpoint.update";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = UpdateInput;
    type Output = Endpoint;
    type Error = Error;

    fn input(&self) -> &UpdateInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<Endpoint, Error> {
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
        if change.status.is_some() {
            // Before the endpoint: who deletes it does so in that order.
            store::lock_cursor(&mut *tx, actor.merchant, *id).await?;
        }
        if change.status == Some(Status::Enabled) || change.url.is_some() {
            health::store::hold(&mut *tx, actor.merchant, *id).await?;
        }
        let before = store::lock(tx, Visible::to(actor), *id)
            .await?
            .ok_or(Error::EndpointNotFound(*id))?;
        if version.is_some_and(|version| version != before.version) {
            return Err(Error::VersionMismatch);
        }
        if before.app_endpoint_id.is_some() && !change.is_of_status_alone() {
            return Err(Refusal::EndpointOfApp.into());
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
            let reason = before.disabled_reason.unwrap_or(DisabledReason::Requested);
            after.disabled_reason = (status == Status::Disabled).then_some(reason);
        }
        if after.url != before.url {
            after.verified_at = None;
        }
        let keyring = &self.setting.keyring;
        let key = keyring.merchant_key(&mut *tx, actor.merchant).await?;
        let kept = store::sealed_credentials(&mut *tx, actor.merchant, *id).await?;
        let known = open_credentials(&key, actor.merchant, *id, kept.as_deref())?;
        let mut credentials = known.clone();
        change.settings.apply(&mut after.settings);
        credentials.forget_unused(after.settings.authentication.as_ref());
        if let Some(headers) = &change.headers {
            credentials.headers = headers.as_ref().map(lowercase).unwrap_or_default();
        }
        change.credentials.apply(&mut credentials);
        if after.settings != before.settings || credentials != known {
            fit(&mut after.settings, &credentials)?;
        }
        if after == before && credentials == known {
            return Ok(before);
        }
        after.version = before.version.saturating_add(1);
        after.updated_at = now;
        store::update(tx, actor.merchant, &after).await?;
        if credentials != known {
            let sealed = seal_credentials(&key, actor.merchant, *id, &credentials)?;
            store::set_sealed_credentials(&mut *tx, actor.merchant, *id, sealed.as_deref()).await?;
        }
        if after.settings.signature != before.settings.signature {
            let ring = Ring::of(&mut *tx, keyring, actor.merchant, &after, now).await?;
            ring.provide(&mut *tx).await?;
        }
        let sends =
            |endpoint: &Endpoint| endpoint.url.is_some() && endpoint.status == Status::Enabled;
        if !after.is_queued() {
            store::delete_deliveries(tx, actor.merchant, after.id).await?;
        }
        if after.begins_anew(&before) {
            health::store::forget_failing(&mut *tx, actor.merchant, after.id).await?;
        }
        if after.status != before.status {
            switch(tx, actor.merchant, &after, change.catch_up, now).await?;
        }
        // Raised even if nothing becomes due: whoever owns the lane rereads the endpoint.
        store::raise_lane(tx, after.id, sends(&after).then_some(now)).await?;
        if after.status != before.status {
            announce(tx, actor.merchant, actor.request, now, &after).await?;
        }
        Ok(after)
    }
}

/// Appends the event of an endpoint that was enabled or disabled.
pub(crate) async fn announce(
    tx: &mut PgConnection,
    merchant: MerchantId,
    request: RequestId,
    now: Timestamp,
    endpoint: &Endpoint,
) -> Result<(), Error> {
    let kind = match endpoint.status {
        Status::Enabled => "webhook_endpoint.enabled",
        Status::Disabled => "webhook_endpoint.disabled",
    };
    append(tx, merchant, request, now, kind, endpoint).await
}

/// Appends the event of an endpoint that has been failing for a while, well before anything is switched off.
pub async fn announce_failing(
    tx: &mut PgConnection,
    merchant: MerchantId,
    request: RequestId,
    now: Timestamp,
    endpoint: &Endpoint,
) -> Result<(), Error> {
    append(tx, merchant, request, now, FAILING, endpoint).await
}

async fn append(
    tx: &mut PgConnection,
    merchant: MerchantId,
    request: RequestId,
    now: Timestamp,
    kind: &'static str,
    endpoint: &Endpoint,
) -> Result<(), Error> {
    let event = NewEvent {
        kind,
        resource: ResourceRef {
            kind: ENDPOINT_RESOURCE,
            id: endpoint.id.to_string(),
            version: endpoint.version,
        },
        scope: Scope::WebhooksRead,
        locations: Vec::new(),
        data: to_raw_value(endpoint)?,
        personal: None,
    };
    event::append(tx, merchant, request, now, &[event]).await?;
    Ok(())
}

/// Deletes an endpoint with what waits for it and its dead letters. Its history goes with retention.
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
    pub id: EndpointId,
    /// The version that `If-Match` names; any if absent.
    pub version: Option<i64>,
}

/// An endpoint is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = DeletedWebhookEndpoint)]
pub struct Deleted {
    /// Which it was.
    pub id: EndpointId,
}

impl Operation for Delete {
    const NAME: &'static str = "webhook_endpoint.delete";
    const SCOPE: Scope = Scope::WebhooksWrite;
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
        if store::find(&mut *tx, Visible::to(actor), id)
            .await?
            .is_some()
        {
            // In the order of relay (cursor, lane) and worker (lane, endpoint), none of which then waits for what the other holds.
            store::lock_cursor(&mut *tx, actor.merchant, id).await?;
            store::lock_lane(&mut *tx, actor.merchant, id).await?;
        }
        let endpoint = store::lock(tx, Visible::to(actor), id)
            .await?
            .ok_or(Error::EndpointNotFound(id))?;
        if version.is_some_and(|version| version != endpoint.version) {
            return Err(Error::VersionMismatch);
        }
        if endpoint.app_endpoint_id.is_some() {
            return Err(Refusal::EndpointOfApp.into());
        }
        store::delete(tx, actor.merchant, id).await?;
        Ok(Deleted { id })
    }
}

/// Sends a test event of the type `ping` to one endpoint.
#[derive(Debug)]
pub struct Ping {
    /// The endpoint.
    pub id: EndpointId,
}

impl Operation for Ping {
    const NAME: &'static str = "webhook_endpoint.ping";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = EndpointId;
    type Output = Endpoint;
    type Error = Error;

    fn input(&self) -> &EndpointId {
        &self.id
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<Endpoint, Error> {
        let endpoint = store::find(tx, Visible::to(actor), self.id)
            .await?
            .ok_or(Error::EndpointNotFound(self.id))?;
        if endpoint.status == Status::Disabled {
            return Err(Refusal::EndpointDisabled.into());
        }
        append(tx, actor.merchant, actor.request, now, PING, &endpoint).await?;
        Ok(endpoint)
    }
}

impl Kept for Endpoint {
    fn visible_to(&self, access: &Access) -> bool {
        shows_endpoints(access).is_ok()
    }
}

impl Kept for CreatedEndpoint {
    fn visible_to(&self, access: &Access) -> bool {
        shows_endpoints(access).is_ok()
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
        shows_endpoints(access).is_ok()
    }
}

fn shows_endpoints(access: &Access) -> Result<(), MissingScope> {
    access.require(Scope::WebhooksRead)
}
