//! How an endpoint wants what it is sent: which events, in which form, how fast, signed how.
//!
//! [`Settings`] is what the column `endpoints.settings` holds, and what the API shows; [`Credentials`] is what a receiver has given us to be let in, kept
//! sealed and never shown again. Both have defaults for whatever is absent, so that rows of older binaries read as what they always meant; and of a newer
//! binary's row, what this one does not know is passed over, so that it may be rolled back to. The groups refuse what they do not know: they are also what
//! clients give, as members of a [`SettingsChange`](super::SettingsChange), and a client is to hear of a misspelt member.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// How an endpoint wants what it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default, remote = "Self")]
#[schema(as = WebhookEndpointSettings)]
pub struct Settings {
    /// A condition on the event, as a CEL expression over `event`, such as `double(event.data.total.amount) > 100.0`; null for all events of the types.
    #[schema(required, example = "event.resource.type == 'order'")]
    pub filter: Option<String>,
    /// What the body is made of.
    pub payload: PayloadSettings,
    /// How fast, in which order and how often it is tried.
    pub delivery: DeliverySettings,
    /// How it is signed.
    pub signature: SignatureSettings,
    /// How Stoa shows itself to the receiver, beside the signature; null for not at all.
    #[schema(required)]
    pub authentication: Option<Authentication>,
    /// The names of headers that are sent with every request. Their values are given with them, kept sealed and never shown again.
    pub header_names: Vec<String>,
    /// How an endpoint without a URL is read.
    pub pull: PullMode,
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Settings {
    /// Reads what is stored, and passes over what this binary does not know.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut stored = Value::deserialize(deserializer)?;
        forget_unknown(&mut stored, &KNOWN);
        Self::deserialize(stored).map_err(serde::de::Error::custom)
    }
}

/// Settings with all members that there are.
static KNOWN: LazyLock<Value> = LazyLock::new(|| {
    let settings = Settings {
        authentication: Some(Authentication::OauthClientCredentials {
            token_url: String::new(),
            client_id: String::new(),
            scope: None,
        }),
        ..Settings::default()
    };
    // Without a form in JSON nothing would be known, and nothing could be stored either.
    serde_json::to_value(settings).unwrap_or_default()
});

/// Takes the members out of an object, and of the objects in it, that are not known.
fn forget_unknown(stored: &mut Value, known: &Value) {
    if let (Value::Object(stored), Value::Object(known)) = (stored, known) {
        stored.retain(|name, member| {
            let known = known.get(name);
            if let Some(known) = known {
                forget_unknown(member, known);
            }
            known.is_some()
        });
    }
}

/// What the body of a delivery is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = WebhookPayloadSettings)]
pub struct PayloadSettings {
    /// Whether the resource comes along.
    pub shape: Shape,
    /// The version of the API whose forms `data` has; null for the newest.
    #[schema(required, example = "2026-11-01")]
    pub api_version: Option<String>,
    /// A template (Jinja) that makes the body out of `event`; it must make JSON. Null for the event as it is.
    #[schema(required, example = r#"{"text": {{ event.type | tojson }}}"#)]
    pub transformation: Option<String>,
    /// Events that one request may carry: from 2 on, the body is `{"events": […]}`, also when there is only one. Null for an event a request.
    #[schema(required, minimum = 2, maximum = 1_000)]
    pub batch_events_max: Option<u32>,
    /// How the body is compressed.
    pub compression: Compression,
}

/// Whether the resource comes along.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookShape)]
pub enum Shape {
    /// The event with the resource as the API shows it.
    #[default]
    Full,
    /// The event with the resource's type, id and version, without its data.
    Thin,
}

/// How a body is compressed. The signature is over the bytes that are sent.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookCompression)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// `Content-Encoding: gzip`, for bodies of a kilobyte and more.
    Gzip,
}

/// How fast, in which order and how often an endpoint is tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = WebhookDeliverySettings)]
pub struct DeliverySettings {
    /// Whether one resource's events wait for one another.
    pub ordering: Ordering,
    /// Requests a second at most; null for as many as the receiver takes.
    #[schema(required, minimum = 1, maximum = 10_000)]
    pub rate_limit_per_second: Option<u32>,
    /// Requests in flight at once at most; null for as many as it copes with, which is found out.
    #[schema(required, minimum = 1, maximum = 256)]
    pub concurrency_max: Option<u32>,
    /// The waits between attempts in seconds; one attempt more than there are waits is made. Null for the default: twelve attempts over three days.
    #[schema(required, max_items = 30)]
    pub retry_waits_seconds: Option<Vec<u32>>,
    /// What is sent of the changes that a catalog import makes.
    pub imports: Imports,
}

/// Whether one resource's events wait for one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookOrdering)]
pub enum Ordering {
    /// They do not: each is sent as soon as may be.
    #[default]
    None,
    /// They do: an event is sent once all earlier ones of its resource were taken or given up on. Other resources are not held back.
    Resource,
}

/// What is sent of the changes that a catalog import makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookImports)]
pub enum Imports {
    /// Each change.
    #[default]
    Each,
    /// Only `catalog.import_completed`: what changed is read from the import's results.
    Summary,
}

/// How deliveries are signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = WebhookSignatureSettings)]
pub struct SignatureSettings {
    /// `v1`: HMAC-SHA256 with a shared secret. `v1a`: Ed25519, verified with the public key from the endpoint's JWKS. Both may be sent side by side.
    pub schemes: Vec<SignatureScheme>,
    /// The header of the event's id.
    #[schema(example = "webhook-id")]
    pub id_header: String,
    /// The header of the attempt's time.
    #[schema(example = "webhook-timestamp")]
    pub timestamp_header: String,
    /// The header of the signatures.
    #[schema(example = "webhook-signature")]
    pub signature_header: String,
}

impl Default for SignatureSettings {
    fn default() -> Self {
        Self {
            schemes: vec![SignatureScheme::V1],
            id_header: crate::sign::ID_HEADER.to_owned(),
            timestamp_header: crate::sign::TIMESTAMP_HEADER.to_owned(),
            signature_header: crate::sign::SIGNATURE_HEADER.to_owned(),
        }
    }
}

/// A way of signing, as Standard Webhooks names it.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookSignatureScheme)]
pub enum SignatureScheme {
    /// HMAC-SHA256.
    V1,
    /// Ed25519.
    V1a,
}

impl SignatureScheme {
    /// The word that is stored and sent.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1a => "v1a",
        }
    }

    /// The scheme that a stored word is.
    pub(crate) fn read(word: &str) -> Option<Self> {
        [Self::V1, Self::V1a]
            .into_iter()
            .find(|scheme| scheme.as_str() == word)
    }
}

/// How Stoa shows itself to a receiver, beside the signature. The secret part is in [`Credentials`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", tag = "type", deny_unknown_fields)]
#[schema(as = WebhookAuthentication)]
pub enum Authentication {
    /// An access token from the receiver's authorization server, by OAuth 2.0 client credentials (RFC 6749, section 4.4).
    #[serde(rename = "oauth2_client_credentials", rename_all = "camelCase")]
    OauthClientCredentials {
        /// The token endpoint, under the same rules as the endpoint's URL.
        token_url: String,
        /// The client's id there.
        client_id: String,
        /// What is asked for; null for what the server gives by itself.
        #[schema(required)]
        scope: Option<String>,
    },
    /// A client certificate (mutual TLS).
    #[serde(rename = "mutual_tls")]
    MutualTls,
}

/// How an endpoint without a URL is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookPullMode)]
pub enum PullMode {
    /// By number: the reader keeps its place in the stream.
    #[default]
    Cursor,
    /// By lease: events are handed out, and come again unless they are acknowledged in time.
    Lease,
}

/// What a receiver has given us to be let in. Kept sealed under the merchant's key; prints as `***`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Credentials {
    /// The values of the headers that are sent with every request, by their names.
    pub headers: BTreeMap<String, String>,
    /// The secret for [`Authentication::OauthClientCredentials`].
    pub client_secret: Option<String>,
    /// The certificate chain for [`Authentication::MutualTls`], PEM.
    pub certificate_pem: Option<String>,
    /// Its private key, PEM.
    pub private_key_pem: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(***)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_row_of_an_older_binary_reads_as_what_it_always_meant() {
        let settings: Settings = serde_json::from_str("{}").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.signature.schemes, [SignatureScheme::V1]);
        assert_eq!(settings.signature.id_header, "webhook-id");
    }

    #[test]
    fn a_row_of_a_newer_binary_reads_as_far_as_it_is_known() {
        let row = serde_json::json!({
            "newer": {"a": 1},
            "payload": {"shape": "thin", "newer": true},
            "delivery": {"newer": 5, "concurrencyMax": 7},
            "signature": {"idHeader": "x-id", "newer": null},
            "authentication": {"type": "mutual_tls", "newer": "a"},
        });
        let settings: Settings = serde_json::from_value(row).unwrap();
        assert_eq!(settings.payload.shape, Shape::Thin);
        assert_eq!(settings.delivery.concurrency_max, Some(7));
        assert_eq!(settings.signature.id_header, "x-id");
        assert_eq!(settings.authentication, Some(Authentication::MutualTls));
        let row = serde_json::json!({
            "authentication": {"type": "oauth2_client_credentials", "tokenUrl": "a", "clientId": "b", "newer": 1},
        });
        let settings: Settings = serde_json::from_value(row).unwrap();
        assert!(settings.authentication.is_some());
    }

    #[test]
    fn a_client_is_told_of_what_is_not_known() {
        for given in [
            serde_json::json!({"newer": 1}),
            serde_json::json!({"payload": {"newer": 1}}),
            serde_json::json!({"delivery": {"newer": 1}}),
            serde_json::json!({"signature": {"newer": 1}}),
            serde_json::json!({"authentication": {"type": "oauth2_client_credentials", "tokenUrl": "a", "clientId": "b", "newer": 1}}),
        ] {
            let read = serde_json::from_value::<crate::endpoint::SettingsChange>(given.clone());
            assert!(read.is_err(), "{given}");
        }
    }

    #[test]
    fn settings_survive_their_column() {
        let settings = Settings {
            authentication: Some(Authentication::OauthClientCredentials {
                token_url: "https://id.example.com/token".to_owned(),
                client_id: "stoa".to_owned(),
                scope: None,
            }),
            ..Settings::default()
        };
        let text = serde_json::to_string(&settings).unwrap();
        assert!(
            text.contains(r#""type":"oauth2_client_credentials","tokenUrl""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
    }

    #[test]
    fn credentials_print_as_stars() {
        let credentials = Credentials {
            client_secret: Some("hunter2".to_owned()),
            ..Credentials::default()
        };
        assert_eq!(format!("{credentials:?}"), "Credentials(***)");
    }
}
