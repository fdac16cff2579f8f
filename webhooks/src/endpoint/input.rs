//! What an endpoint is to be, as clients ask for it.

use std::collections::BTreeMap;

use kernel::validation::{Faults, Validate};
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Owner, Status, check,
    settings::{
        Authentication, Credentials, DeliverySettings, PayloadSettings, PullMode, Settings,
        SignatureSettings,
    },
};

/// Characters of a description.
pub(crate) const DESCRIPTION_LENGTH_MAX: usize = 500;

/// What a new endpoint is to be.
#[derive(Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
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
    /// The types of events that it is to be sent, by name or as `order.*`; all that its grant may see if absent.
    #[serde(default)]
    #[schema(max_items = 100, example = json!(["order.*", "inventory.exhausted"]))]
    pub event_types: Option<Vec<String>>,
    /// Whose view of the events it has.
    #[serde(default)]
    pub owner: Owner,
    /// How it wants what it is sent; what is absent has its default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: SettingsChange,
    /// Headers that are sent with every request, by name: at most 20, of at most 4 KB each. Kept sealed; only their names are shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!({"x-tenant": "4711"}))]
    pub headers: Option<BTreeMap<String, String>>,
    /// The secret part of `settings.authentication`. Kept sealed and never shown again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credentials: CredentialsChange,
    /// Whether a test event of the type `ping` is sent at once; `verifiedAt` says when it, or another event, was accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub verify: bool,
}

/// A change of an endpoint: what is absent stays, what is null is taken away.
#[derive(Clone, Default, Serialize, Deserialize, utoipa::ToSchema)]
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
    /// The types of events, by name or as `order.*`; null for all.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<Vec<String>>)]
    pub event_types: Option<Option<Vec<String>>>,
    /// Whether events are sent. Enabling sends what was waiting; what happened while it was disabled is in its stream, and sent if `catchUp` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// With `status: enabled`, what is sent of what the endpoint has missed. Only what was waiting when it was disabled if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// How it wants what it is sent. A group that is given, such as `delivery`, replaces the whole group.
    #[serde(default, skip_serializing_if = "is_default")]
    pub settings: SettingsChange,
    /// All headers that are sent with every request, in place of those before; null for none.
    #[serde(
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub headers: Option<Option<BTreeMap<String, String>>>,
    /// The secret part of `settings.authentication`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub credentials: CredentialsChange,
}

/// What an endpoint that is enabled again is sent of what it has missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookCatchUp)]
pub enum CatchUp {
    /// All of it: what was waiting, and by a replay in the background whatever came since it was disabled.
    All,
    /// Nothing: also what was waiting is taken off the queue. All of it stays in the stream, to be read or replayed.
    None,
}

/// How an endpoint wants what it is sent, as far as that is given; each group as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = WebhookEndpointSettingsChange)]
pub struct SettingsChange {
    /// A condition on the event, as a CEL expression over `event`; null for all events of the types.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "event.resource.type == 'order'")]
    pub filter: Option<Option<String>>,
    /// What the body is made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<PayloadSettings>,
    /// How fast, in which order and how often it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySettings>,
    /// How it is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<SignatureSettings>,
    /// How Stoa shows itself to the receiver, beside the signature; null for not at all.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Authentication>)]
    pub authentication: Option<Option<Authentication>>,
    /// How an endpoint without a URL is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullMode>,
}

/// The secret part of `settings.authentication`: what is absent stays, what is null is taken away. Prints as `***`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = WebhookCredentials)]
pub struct CredentialsChange {
    /// The client's secret, for `oauth2_client_credentials`.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 4_096, write_only)]
    pub client_secret: Option<Option<String>>,
    /// The client's certificate and those between it and its root, in PEM, for `mutual_tls`.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 65_536, write_only)]
    pub certificate_pem: Option<Option<String>>,
    /// The certificate's private key, in PEM.
    #[serde(deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, max_length = 65_536, write_only)]
    pub private_key_pem: Option<Option<String>>,
}

impl std::fmt::Debug for EndpointInput {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EndpointInput")
            .field("url", &self.url)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for EndpointChange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EndpointChange")
            .field("url", &self.url)
            .field("status", &self.status)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for CredentialsChange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("CredentialsChange(***)")
    }
}

impl EndpointChange {
    /// Whether it switches on or off, and does nothing else.
    pub(crate) fn is_of_status_alone(&self) -> bool {
        let Self {
            url,
            description,
            event_types,
            status: _,
            catch_up: _,
            settings,
            headers,
            credentials,
        } = self;
        url.is_none()
            && description.is_none()
            && event_types.is_none()
            && headers.is_none()
            && is_default(settings)
            && is_default(credentials)
    }
}

impl SettingsChange {
    /// The authentication that is asked for anew.
    pub(crate) fn new_authentication(&self) -> Option<&Authentication> {
        self.authentication.as_ref().and_then(Option::as_ref)
    }

    /// Puts what is given in the place of what was. Names of headers are none of its business.
    pub(crate) fn apply(&self, settings: &mut Settings) {
        if let Some(filter) = &self.filter {
            settings.filter.clone_from(filter);
        }
        if let Some(payload) = &self.payload {
            settings.payload = payload.clone();
        }
        if let Some(delivery) = &self.delivery {
            settings.delivery = delivery.clone();
        }
        if let Some(signature) = &self.signature {
            settings.signature = signature.clone();
            let names = &mut settings.signature;
            for name in [
                &mut names.id_header,
                &mut names.timestamp_header,
                &mut names.signature_header,
            ] {
                name.make_ascii_lowercase();
            }
        }
        if let Some(authentication) = &self.authentication {
            settings.authentication.clone_from(authentication);
        }
        if let Some(pull) = self.pull {
            settings.pull = pull;
        }
    }
}

impl CredentialsChange {
    /// Puts what is given in the place of what was.
    pub(crate) fn apply(&self, credentials: &mut Credentials) {
        let members = [
            (&self.client_secret, &mut credentials.client_secret),
            (&self.certificate_pem, &mut credentials.certificate_pem),
            (&self.private_key_pem, &mut credentials.private_key_pem),
        ];
        for (given, member) in members {
            if let Some(given) = given {
                member.clone_from(given);
            }
        }
    }
}

/// Headers as they are kept: names have no case, so they are kept in small letters.
pub(crate) fn lowercase(headers: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect()
}

/// What was not asked for is not part of the input by which a retry is told from another request.
pub(crate) fn is_default<T: Default + PartialEq>(given: &T) -> bool {
    *given == T::default()
}

/// Tells a member that is null from one that is absent.
#[allow(
    clippy::option_option,
    reason = "absent, null and given are three things in a merge patch"
)]
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
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
        check::event_types(faults, self.event_types.as_deref());
        faults.within("/settings", |faults| {
            check::settings(faults, &self.settings);
        });
        check::headers(faults, self.headers.as_ref());
        faults.within("/credentials", |faults| {
            check::credentials(faults, &self.credentials);
        });
        if self.verify && self.url.is_none() {
            faults.add(
                "/verify",
                "invalid",
                "there is no url to send a test event to",
            );
        }
    }
}

impl Validate for EndpointChange {
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
        if self.catch_up.is_some() && self.status != Some(Status::Enabled) {
            faults.add("/catchUp", "invalid", "goes with `status: enabled`");
        }
    }
}
