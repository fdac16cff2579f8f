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
    validation::{Faults, Validate},
};
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::PgConnection;

use crate::{client::AddressPolicy, error::Error};

mod change;
pub mod settings;
pub(crate) mod store;

pub use change::{Create, Delete, DeleteInput, Deleted, Ping, Update, UpdateInput};
pub(crate) use change::{announce, secret_context};

/// Endpoints that one app may have at one merchant. Each event is matched against all of them.
pub const PER_APP_MAX: u32 = 100;

/// Types that one filter may name.
const EVENT_TYPES_MAX: usize = 100;

/// Characters of a type's name.
const EVENT_TYPE_LENGTH_MAX: usize = 100;

/// Characters of a description.
const DESCRIPTION_LENGTH_MAX: usize = 500;

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
    /// The types of events that it is sent; null for all that its grant may see.
    #[schema(required, example = json!(["order.placed", "order.cancelled"]))]
    pub event_types: Option<Vec<String>>,
    /// Whose view of the events it has.
    pub owner: Owner,
    /// Whether events are sent. The stream goes on either way.
    pub status: Status,
    /// Why it is disabled.
    #[schema(required)]
    pub disabled_reason: Option<DisabledReason>,
    /// Counts the changes of this endpoint; the `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
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
}

impl DisabledReason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Gone => "gone",
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
    /// The secret by which its deliveries are signed, as Standard Webhooks has it. Null when an answer is replayed: it is shown once.
    #[schema(required, example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub secret: Option<String>,
}

/// What a new endpoint is to be.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = WebhookEndpointInput)]
pub struct EndpointInput {
    /// Where events are posted to: `https`, a public address, no user name, no fragment. Without one, the endpoint is a pull consumer.
    #[serde(default)]
    #[schema(example = "https://erp.example.com/stoa")]
    pub url: Option<String>,
    /// What people call it.
    #[serde(default)]
    #[schema(max_length = 500, example = "ERP, production")]
    pub description: Option<String>,
    /// The types of events that it is to be sent; all that its grant may see if absent.
    #[serde(default)]
    #[schema(max_items = 100, example = json!(["order.placed", "order.cancelled"]))]
    pub event_types: Option<Vec<String>>,
    /// Whose view of the events it has.
    #[serde(default)]
    pub owner: Owner,
}

/// A change of an endpoint: what is absent stays, what is null is taken away.
#[derive(Debug, Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = WebhookEndpointChange)]
pub struct EndpointChange {
    /// Where events are posted to; null makes it a pull consumer, and takes what waits to be sent off the queue.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub url: Option<Option<String>>,
    /// What people call it.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// The types of events; null for all.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Vec<String>>)]
    pub event_types: Option<Option<Vec<String>>>,
    /// Whether events are sent. Enabling sends what was waiting; what happened while it was disabled is in its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

/// Tells a member that is null from one that is absent.
#[allow(
    clippy::option_option,
    reason = "absent, null and given are three things in a merge patch"
)]
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Validate for EndpointInput {
    fn validate(&self, faults: &mut Faults) {
        faults.optional_text(
            "/description",
            self.description.as_deref(),
            DESCRIPTION_LENGTH_MAX,
        );
        validate_event_types(faults, self.event_types.as_deref());
    }
}

impl Validate for EndpointChange {
    fn validate(&self, faults: &mut Faults) {
        let description = self.description.as_ref().and_then(Option::as_deref);
        faults.optional_text("/description", description, DESCRIPTION_LENGTH_MAX);
        validate_event_types(faults, self.event_types.as_ref().and_then(Option::as_deref));
    }
}

fn validate_event_types(faults: &mut Faults, kinds: Option<&[String]>) {
    let Some(kinds) = kinds else { return };
    faults.at_most("/eventTypes", kinds, EVENT_TYPES_MAX);
    if kinds.is_empty() {
        faults.add(
            "/eventTypes",
            "required",
            "must name at least one type, or be null for all",
        );
    }
    for (place, kind) in kinds.iter().enumerate() {
        let plain = kind
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'));
        if kind.is_empty() || kind.len() > EVENT_TYPE_LENGTH_MAX || !plain {
            faults.add(
                &format!("/eventTypes/{place}"),
                "invalid",
                "must be a type of event, such as order.placed",
            );
        }
    }
}

/// What endpoints are made with: the key ring, and where webhooks may go.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Seals secrets.
    pub keyring: Arc<Keyring>,
    /// Which URLs are allowed.
    pub policy: AddressPolicy,
    /// Whether there are events of this type: an endpoint that waits for others would wait for ever.
    pub is_event_type: fn(&str) -> bool,
}

impl Setting {
    fn check_event_types(&self, kinds: Option<&[String]>) -> Result<(), Error> {
        let unknown = kinds
            .into_iter()
            .flatten()
            .zip(0_usize..)
            .filter(|(kind, _)| !(self.is_event_type)(kind));
        let errors: Vec<_> = unknown
            .map(|(_, place)| {
                let pointer = format!("/eventTypes/{place}");
                FieldError::at(pointer, "unknown", "must be a type of event that the API's description lists, such as order.placed")
            })
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Error::InvalidFields(errors))
        }
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
