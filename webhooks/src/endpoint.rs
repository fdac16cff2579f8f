//! Webhook endpoints: who is told of what, and where.
//!
//! Called by the edge, in a transaction that has entered the merchant. An endpoint belongs to the grant of the app that made it, or to the
//! merchant itself; an app sees its own, whoever administers the merchant sees all.
//!
//! Invariants: a secret leaves here once, in the answer that creates its endpoint; an endpoint has a cursor and a lane for as long as it
//! exists; nothing is sent while it is disabled, but its stream goes on, so that what was missed can be read.

use std::sync::Arc;

use kernel::{
    actor::Actor,
    clock::Timestamp,
    id::{AppId, Id, Kind, MerchantId},
    keyring::Keyring,
    page::{Page, PageRequest},
    problem::FieldError,
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use url::Url;

use crate::{
    app_endpoint::AppEndpointId,
    client::{AddressPolicy, check_url},
    error::Error,
};

mod change;
pub(crate) mod check;
pub mod configuration;
pub mod health;
pub(crate) mod input;
pub mod key;
pub mod settings;
pub(crate) mod store;
pub mod test_event;

pub use change::{
    Create, Delete, DeleteInput, Deleted, Ping, Update, UpdateInput, announce_failing,
};
pub(crate) use change::{announce, fit, secret_context};
pub use configuration::{Configuration, configuration};
pub use input::{CatchUp, CredentialsChange, EndpointChange, EndpointInput, SettingsChange};
use settings::{Authentication, Settings};

/// Endpoints that one app may have at one merchant. Each event is matched against all of them.
pub const PER_APP_MAX: u32 = 100;

/// The id of an [`Endpoint`]: `whe_…`.
pub type EndpointId = Id<Endpoint>;

impl Kind for Endpoint {
    const PREFIX: &'static str = "whe";
}

/// Where a merchant's events are sent, or read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookEndpoint)]
pub struct Endpoint {
    /// The endpoint's id.
    pub id: EndpointId,
    /// Where events are posted to; null for a pull consumer, which reads its stream.
    #[schema(required, example = "https://erp.example.com/stoa")]
    pub url: Option<String>,
    /// What people call it.
    #[schema(required, example = "ERP, production")]
    pub description: Option<String>,
    /// The types of events that it is sent, by name or as `order.*`; null for all that its grant may see.
    #[schema(required, example = json!(["order.*", "inventory.exhausted"]))]
    pub event_types: Option<Vec<String>>,
    /// Whose view of the events it has.
    pub owner: Owner,
    /// Whether events are sent. The stream goes on either way.
    pub status: Status,
    /// Why it is disabled.
    #[schema(required)]
    pub disabled_reason: Option<DisabledReason>,
    /// How it wants what it is sent. Credentials are not shown.
    #[serde(default)]
    #[schema(required)]
    pub settings: Settings,
    /// The app's endpoint that this one is the merchant's part of: made, changed and deleted with it. Null for one of its own.
    #[serde(default)]
    #[schema(required)]
    pub app_endpoint_id: Option<AppEndpointId>,
    /// When its URL first accepted something; null if it has not yet. A new URL begins anew.
    #[serde(default)]
    #[schema(required)]
    pub verified_at: Option<Timestamp>,
    /// Counts the changes of this endpoint; the `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Endpoint {
    /// What becomes of its events while it is enabled.
    pub(crate) fn outlet(&self) -> Outlet {
        Outlet::of(self.url.is_some(), &self.settings)
    }

    /// Whether what it is sent waits in a queue while it is enabled: to be posted, or to be leased. What is read by number does not.
    pub(crate) fn is_queued(&self) -> bool {
        self.outlet().is_queued()
    }

    /// Whether one resource's deliveries wait for one another.
    pub(crate) fn is_ordered(&self) -> bool {
        self.settings.delivery.ordering == settings::Ordering::Resource
    }

    /// Whether how it fared `before` says nothing of how it will: it was enabled, or goes elsewhere.
    pub(crate) fn begins_anew(&self, before: &Self) -> bool {
        let is_enabled = self.status == Status::Enabled && before.status == Status::Disabled;
        is_enabled || self.url != before.url
    }
}

/// How events leave an endpoint's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlet {
    /// They are read by their numbers, and nothing is queued.
    Read,
    /// They are queued to be leased.
    Leased,
    /// They are queued to be posted, by the owner of the endpoint's lane.
    Sent,
}

impl Outlet {
    pub(crate) fn of(has_url: bool, settings: &Settings) -> Self {
        match settings.pull {
            _ if has_url => Self::Sent,
            settings::PullMode::Lease => Self::Leased,
            settings::PullMode::Cursor => Self::Read,
        }
    }

    pub(crate) const fn is_queued(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// Whose view of the events an endpoint has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookEndpointOwner)]
pub enum Owner {
    /// The app's grant: its scopes, locations and personal data or not, as they are when an event is sent.
    #[default]
    Grant,
    /// The merchant: everything. Takes the scope `merchant:admin`.
    Merchant,
}

/// Whether events are sent to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookEndpointStatus)]
pub enum Status {
    /// They are.
    Enabled,
    /// They are not.
    Disabled,
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
        }
    }
}

/// Why an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookEndpointDisabledReason)]
pub enum DisabledReason {
    /// Somebody asked for it.
    Requested,
    /// The receiver answered 410 Gone.
    Gone,
    /// Nothing but failures came for days.
    Failing,
    /// The app's endpoint that it is a part of was disabled.
    App,
}

impl DisabledReason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::App => "app",
        }
    }
}

/// A new endpoint, with the secret that is shown this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CreatedWebhookEndpoint)]
pub struct CreatedEndpoint {
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// The secret by which its deliveries are signed, as Standard Webhooks has it. Null when an answer is replayed: it is shown once. Null too
    /// for an endpoint that is signed by `v1a` alone, whose public key is among its keys.
    #[schema(required, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub secret: Option<String>,
}

/// What endpoints are made with: the key ring, and where webhooks may go.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Seals secrets.
    pub keyring: Arc<Keyring>,
    /// Which URLs are allowed.
    pub policy: AddressPolicy,
    /// Whether there are events of this type, or that match a pattern such as `order.*`: an endpoint that waits for others would wait for ever.
    pub is_event_type: fn(&str) -> bool,
}

impl Setting {
    /// What can be said of an input only by what the operator allows and this version knows: every fault at once, or the URL as it is kept.
    pub(crate) fn check(
        &self,
        url: Option<&str>,
        kinds: Option<&[String]>,
        authentication: Option<&Authentication>,
    ) -> Result<Option<Url>, Error> {
        let mut errors = Vec::new();
        let url = url.and_then(|url| self.checked_url("/url", url, &mut errors));
        for (place, kind) in kinds.into_iter().flatten().enumerate() {
            if !(self.is_event_type)(kind) {
                errors.push(FieldError::at(
                    format!("/eventTypes/{place}"),
                    "unknown",
                    "must be a type of event that the API's description lists, such as order.placed, or match some, as order.* does",
                ));
            }
        }
        if let Some(Authentication::OauthClientCredentials { token_url, .. }) = authentication {
            self.checked_url("/settings/authentication/tokenUrl", token_url, &mut errors);
        }
        if errors.is_empty() {
            Ok(url)
        } else {
            Err(Error::InvalidFields(errors))
        }
    }

    fn checked_url(&self, pointer: &str, text: &str, errors: &mut Vec<FieldError>) -> Option<Url> {
        let checked = check_url(text, self.policy);
        let fault = |error: crate::client::UrlError| {
            errors.push(FieldError::at(
                pointer.to_owned(),
                error.code(),
                error.to_string(),
            ));
        };
        checked.map_err(fault).ok()
    }
}

/// The endpoints that an actor sees: its app's, and all of them with `merchant:admin`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visible {
    pub(crate) merchant: MerchantId,
    /// `None`: every app's.
    pub(crate) app: Option<AppId>,
}

impl Visible {
    pub(crate) fn to(actor: &Actor) -> Self {
        let sees_all = actor.access.scopes.allows(Scope::MerchantAdmin);
        Self {
            merchant: actor.merchant,
            app: (!sees_all).then_some(actor.app),
        }
    }
}

/// One endpoint that the actor sees.
pub async fn get(tx: &mut PgConnection, actor: &Actor, id: EndpointId) -> Result<Endpoint, Error> {
    actor.access.require(Scope::WebhooksRead)?;
    store::find(tx, Visible::to(actor), id)
        .await?
        .ok_or(Error::EndpointNotFound(id))
}

/// The endpoints that the actor sees, in the order of their ids.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    page: &PageRequest<EndpointId>,
) -> Result<Page<Endpoint>, Error> {
    actor.access.require(Scope::WebhooksRead)?;
    let rows = store::list(tx, Visible::to(actor), page.after, page.fetch_count()).await?;
    Ok(Page::from_rows(rows, page, |endpoint| endpoint.id))
}
