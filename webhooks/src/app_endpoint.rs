//! Endpoints that an app has for all of its installs: one URL, one secret, and for each merchant that has granted the app an endpoint of its own.
//!
//! Called by the edge for the app of the token, in a transaction that has entered the token's merchant; the tables are global, and every statement binds the
//! app. The relay calls [`materialise`] when it reads a merchant's audience: so that merchant's part is made at the first event after its grant,
//! follows changes, and goes when the app's endpoint goes.
//!
//! Invariants: each part is an endpoint like any other, with a stream, a lane and a place in the merchant's key ring of its own; its keys are the app
//! endpoint's, under the same ids, so that a receiver needs one secret for all merchants.

use kernel::{
    actor::Actor,
    clock::Timestamp,
    id::{Id, Kind},
    page::{Page, PageRequest},
    scope::Scope,
    validation::{Faults, Validate},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::{collections::BTreeMap, fmt};

use crate::{
    endpoint::{
        CredentialsChange, SettingsChange, Status, check,
        input::{DESCRIPTION_LENGTH_MAX, is_default, present},
        key::{EndpointKey, EndpointKeys, Stored},
        settings::Settings,
    },
    error::Error,
};

mod change;
mod materialise;
mod store;

pub use change::{Create, Delete, DeleteInput, Deleted, Rotate, RotateInput, Update, UpdateInput};
pub use materialise::{Materialised, materialise};

/// Endpoints that one app may have for all of its merchants. Each becomes one at every merchant that has granted the app.
pub const PER_APP_MAX: u32 = 20;

/// The id of an [`AppEndpoint`]: `awe_…`.
pub type AppEndpointId = Id<AppEndpoint>;

impl Kind for AppEndpoint {
    const PREFIX: &'static str = "awe";
}

/// Where an app is sent the events of all merchants that have granted it, or reads them from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AppWebhookEndpoint)]
pub struct AppEndpoint {
    /// The endpoint's id. The merchants' parts of it name it as `appEndpointId`.
    pub id: AppEndpointId,
    /// Where events are posted to; null for pull consumers.
    #[schema(required, example = "https://logistics.example.com/stoa")]
    pub url: Option<String>,
    /// What people call it.
    #[schema(required, example = "Shipments, production")]
    pub description: Option<String>,
    /// The types of events that it is sent, by name or as `order.*`; null for all that each merchant's grant lets it see.
    #[schema(required, example = json!(["fulfillment.*"]))]
    pub event_types: Option<Vec<String>>,
    /// How it wants what it is sent. Credentials are not shown.
    pub settings: Settings,
    /// Whether events are sent. A merchant may switch its part off by itself.
    pub status: Status,
    /// Counts the changes; the `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A new endpoint of an app, with the secret that is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CreatedAppWebhookEndpoint)]
pub struct CreatedAppEndpoint {
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: AppEndpoint,
    /// The secret by which all merchants' deliveries are signed. Null when an answer is replayed, and where nothing is signed by `v1`.
    #[schema(required, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub secret: Option<String>,
}

/// Keys of an app's endpoint after a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = RotatedAppWebhookKeys)]
pub struct Rotated {
    /// The app's endpoint.
    pub app_endpoint_id: AppEndpointId,
    /// Its version after this change.
    pub version: i64,
    /// The new secret of `v1`. Null if `v1` was not rotated, and when an answer is replayed: it is shown once.
    #[schema(required, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub secret: Option<String>,
    /// All living keys, the new ones first.
    pub keys: Vec<EndpointKey>,
}

/// What a new endpoint of an app is to be.
#[derive(Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = AppWebhookEndpointInput)]
pub struct AppEndpointInput {
    /// Where events are posted to: `https`, a public address, no user name, no fragment. Without one, each merchant's part is a pull consumer.
    #[schema(example = "https://logistics.example.com/stoa")]
    pub url: Option<String>,
    /// What people call it.
    #[schema(max_length = 500, example = "Shipments, production")]
    pub description: Option<String>,
    /// The types of events that it is to be sent, by name or as `order.*`; all that each grant lets it see if absent.
    #[schema(max_items = 100, example = json!(["fulfillment.*"]))]
    pub event_types: Option<Vec<String>>,
    /// How it wants what it is sent; what is absent has its default.
    pub settings: SettingsChange,
    /// Headers that are sent with every request, by name. Kept sealed; only their names are shown again.
    pub headers: Option<BTreeMap<String, String>>,
    /// The secret part of `settings.authentication`. Kept sealed and never shown again.
    pub credentials: CredentialsChange,
}

/// A change of an app's endpoint: what is absent stays, what is null is taken away. It reaches each merchant's part within seconds.
#[derive(Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = AppWebhookEndpointChange)]
pub struct AppEndpointChange {
    /// Where events are posted to; null makes each part a pull consumer, and takes what waits to be sent off the queues.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub url: Option<Option<String>>,
    /// What people call it.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// The types of events, by name or as `order.*`; null for all.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub event_types: Option<Option<Vec<String>>>,
    /// Whether events are sent. Parts that were switched off because nothing was taken are switched on again by any change of an enabled endpoint; those
    /// that a merchant switched off stay off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// How it wants what it is sent. A group that is given, such as `delivery`, replaces the whole group.
    #[serde(skip_serializing_if = "is_default")]
    pub settings: SettingsChange,
    /// All headers that are sent with every request, in place of those before; null for none.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub headers: Option<Option<BTreeMap<String, String>>>,
    /// The secret part of `settings.authentication`.
    #[serde(skip_serializing_if = "is_default")]
    pub credentials: CredentialsChange,
}

impl fmt::Debug for AppEndpointInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AppEndpointInput")
            .field("url", &self.url)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for AppEndpointChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AppEndpointChange")
            .field("url", &self.url)
            .field("status", &self.status)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Validate for AppEndpointInput {
    fn validate(&self, faults: &mut Faults) {
        let description = self.description.as_deref();
        faults.optional_text("/description", description, DESCRIPTION_LENGTH_MAX);
        check::event_types(faults, self.event_types.as_deref());
        faults.within("/settings", |faults| {
            check::settings(faults, &self.settings);
        });
        check::headers(faults, self.headers.as_ref());
        faults.within("/credentials", |faults| {
            check::credentials(faults, &self.credentials);
        });
    }
}

impl Validate for AppEndpointChange {
    fn validate(&self, faults: &mut Faults) {
        let description = self.description.as_ref().and_then(Option::as_deref);
        faults.optional_text("/description", description, DESCRIPTION_LENGTH_MAX);
        check::event_types(faults, self.event_types.as_ref().and_then(Option::as_deref));
        faults.within("/settings", |faults| {
            check::settings(faults, &self.settings);
        });
        check::headers(faults, self.headers.as_ref().and_then(Option::as_ref));
        faults.within("/credentials", |faults| {
            check::credentials(faults, &self.credentials);
        });
    }
}

/// One endpoint of the actor's app.
pub async fn get(
    tx: &mut PgConnection,
    actor: &Actor,
    id: AppEndpointId,
) -> Result<AppEndpoint, Error> {
    actor.access.require(Scope::AppsAdmin)?;
    store::find(tx, actor.app, id)
        .await?
        .ok_or(Error::AppEndpointNotFound(id))
}

/// The endpoints of the actor's app, in the order of their ids.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    page: &PageRequest<AppEndpointId>,
) -> Result<Page<AppEndpoint>, Error> {
    actor.access.require(Scope::AppsAdmin)?;
    let rows = store::list(tx, actor.app, page.after, page.fetch_count()).await?;
    Ok(Page::from_rows(rows, page, |endpoint| endpoint.id))
}

/// The living keys of an endpoint of the actor's app, the newest first.
pub async fn keys(
    tx: &mut PgConnection,
    actor: &Actor,
    id: AppEndpointId,
    now: Timestamp,
) -> Result<EndpointKeys, Error> {
    get(&mut *tx, actor, id).await?;
    let keys = store::keys(tx, id).await?;
    let living = keys.iter().filter(|key| key.is_living(now));
    Ok(EndpointKeys {
        data: living.map(Stored::shown).collect(),
    })
}
