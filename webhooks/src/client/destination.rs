//! Where an endpoint's deliveries go and what they bear, made ready once for all of them.

use std::fmt;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use url::Url;

use super::{
    Failure, FailureKind,
    access_token::{InvalidTokenSource, TokenSource},
    identity::{Identity, InvalidIdentity},
};
use crate::{
    endpoint::{
        EndpointId,
        settings::{Authentication, Credentials, Settings},
    },
    sign::{InvalidHeaderName, SignatureHeaders, header_name},
};

/// Most headers that an endpoint may ask for beside those of every delivery.
pub const HEADERS_MAX: usize = 20;

/// Most bytes of one of their values: what common servers take of a header in all is twice that.
pub const HEADER_VALUE_BYTES_MAX: usize = 4_096;

/// Where deliveries go and how they are let in there. Made once for each version of an endpoint and shared by its deliveries.
pub struct Destination {
    pub(super) endpoint: EndpointId,
    pub(super) url: Url,
    /// What every request bears.
    pub(super) headers: HeaderMap,
    pub(super) signature: SignatureHeaders,
    pub(super) entry: Entry,
}

/// How a request is let in.
pub(super) enum Entry {
    Open,
    Certificate(Box<Identity>),
    Token(Box<TokenSource>),
}

/// Why an endpoint's settings and credentials don't make a destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDestination {
    /// The URL.
    #[error("the URL: {0}")]
    Url(#[from] url::ParseError),
    /// The header of id, time or signature.
    #[error("the signature's headers: a name {0}")]
    SignatureHeaders(InvalidHeaderName),
    /// A header of the endpoint's own.
    #[error("the header {name}: {error}")]
    HeaderName {
        /// As it was given.
        name: String,
        /// Why not.
        error: InvalidHeaderName,
    },
    /// A header's value is missing, too long, or not a value by RFC 9110.
    #[error("the header {0} has no value of at most {HEADER_VALUE_BYTES_MAX} bytes in one line")]
    HeaderValue(String),
    /// Too many headers.
    #[error("there are more than {HEADERS_MAX} headers")]
    TooManyHeaders,
    /// The client certificate.
    #[error("the client certificate: {0}")]
    Identity(#[from] InvalidIdentity),
    /// The client certificate or its key was not given.
    #[error("there is no client certificate with a key")]
    NoIdentity,
    /// The token endpoint.
    #[error("OAuth: {0}")]
    TokenSource(#[from] InvalidTokenSource),
}

impl InvalidDestination {
    /// The failure of each delivery that would have gone there.
    pub fn failure(&self) -> Failure {
        let kind = match self {
            Self::Identity(_) | Self::NoIdentity | Self::TokenSource(_) => {
                FailureKind::Authentication
            }
            _ => FailureKind::Internal,
        };
        Failure::new(kind, self)
    }
}

impl Destination {
    /// The destination that an endpoint's URL, settings and credentials describe. Whether its addresses are allowed is decided when something is sent.
    ///
    /// Also how settings are checked before they are saved.
    pub fn new(
        endpoint: EndpointId,
        url: &str,
        settings: &Settings,
        credentials: &Credentials,
    ) -> Result<Self, InvalidDestination> {
        let signature = SignatureHeaders::new(&settings.signature)
            .map_err(InvalidDestination::SignatureHeaders)?;
        let entry = match &settings.authentication {
            None => Entry::Open,
            Some(Authentication::MutualTls) => {
                let (Some(certificate), Some(key)) =
                    (&credentials.certificate_pem, &credentials.private_key_pem)
                else {
                    return Err(InvalidDestination::NoIdentity);
                };
                Entry::Certificate(Box::new(Identity::new(certificate, key)?))
            }
            Some(Authentication::OauthClientCredentials {
                token_url,
                client_id,
                scope,
            }) => Entry::Token(Box::new(TokenSource::new(
                token_url,
                client_id,
                credentials.client_secret.as_deref(),
                scope.as_deref(),
            )?)),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if settings.header_names.len() > HEADERS_MAX {
            return Err(InvalidDestination::TooManyHeaders);
        }
        for text in &settings.header_names {
            let invalid = |error| InvalidDestination::HeaderName {
                name: text.clone(),
                error,
            };
            let name = header_name(text).map_err(invalid)?;
            let is_taken = headers.contains_key(&name)
                || signature.contains(&name)
                || (name == AUTHORIZATION && matches!(entry, Entry::Token(_)));
            if is_taken {
                return Err(invalid(InvalidHeaderName::Repeated));
            }
            let value = credentials
                .headers
                .iter()
                .find(|(given, _)| given.eq_ignore_ascii_case(text))
                .and_then(|(_, value)| header_value(value))
                .ok_or_else(|| InvalidDestination::HeaderValue(text.clone()))?;
            headers.insert(name, value);
        }
        Ok(Self {
            endpoint,
            url: Url::parse(url)?,
            headers,
            signature,
            entry,
        })
    }

    /// The URL.
    pub const fn url(&self) -> &Url {
        &self.url
    }
}

/// A header's value that is not shown, nor compressed by HTTP/2 in a way that others could guess at.
fn header_value(text: &str) -> Option<HeaderValue> {
    if text.len() > HEADER_VALUE_BYTES_MAX {
        return None;
    }
    let mut value = HeaderValue::from_bytes(text.as_bytes()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Destination")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
