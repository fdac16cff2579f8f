//! The provider itself: what it says of itself (OpenID Connect Discovery 1.0), its keys, and the exchange of a code (RFC 6749, section 4.1.3).

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use jsonwebtoken::jwk::JwkSet;
use kernel::clock::Timestamp;
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret,
    CsrfToken, EndpointNotSet, EndpointSet, ExtraTokenFields, HttpRequest, HttpResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    StandardRevocableToken, StandardTokenResponse, TokenUrl,
    basic::{
        BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
        BasicTokenType,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;
use url::{Host, Url};

use super::{
    CALLBACK_PATH, UpstreamConfig,
    id_token::{self, Expected, Fault, Identity},
};
use crate::{Error, Issuer};

/// How long a request to the provider may take, all of it; a person waits for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long it may take to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Bytes of an answer; metadata and key sets have a few thousand.
const ANSWER_LENGTH_MAX: usize = 262_144;

/// What the provider says of itself is read anew after so long.
const READ_ANEW_AFTER: Duration = Duration::from_mins(10);

/// A token under an unknown key has the keys read anew, but no more often than this: anybody may make up such a token's name of a key.
const READ_KEYS_ANEW_AFTER: Duration = Duration::from_secs(10);

/// What is asked for.
const SCOPES: [&str; 3] = ["openid", "profile", "email"];

/// A token answer with an ID token.
type Answer = StandardTokenResponse<IdTokenField, BasicTokenType>;

/// A client of the provider, which knows where to send people and where to exchange codes.
type ProviderClient = Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

#[derive(Debug, Serialize, Deserialize)]
struct IdTokenField {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdTokenField {}

/// What the provider says of itself.
#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    jwks_uri: Url,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Whether its answers name it (RFC 9207).
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What was read of the provider, and when.
#[derive(Debug)]
struct Known {
    metadata: Metadata,
    keys: JwkSet,
    read_at: Timestamp,
}

/// The provider at work.
pub struct Upstream {
    config: UpstreamConfig,
    redirect: RedirectUrl,
    http: reqwest::Client,
    known: Mutex<Option<Arc<Known>>>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Upstream")
            .field("issuer", &self.config.issuer)
            .finish_non_exhaustive()
    }
}

fn failed(error: impl fmt::Display) -> Error {
    Error::Upstream(error.to_string())
}

/// Secrets go over https alone; a loopback address needs none.
fn check_scheme(url: &Url) -> Result<(), Error> {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback) {
        Ok(())
    } else {
        Err(Error::Upstream(format!("{url} is not https")))
    }
}

impl Upstream {
    /// The provider that `config` names; it is asked when it is needed.
    pub(in crate::account) fn new(config: UpstreamConfig, issuer: &Issuer) -> Result<Self, Error> {
        check_scheme(&Url::parse(&config.issuer).map_err(failed)?)?;
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(failed)?;
        let redirect = RedirectUrl::new(format!("{issuer}{CALLBACK_PATH}")).map_err(failed)?;
        Ok(Self {
            config,
            redirect,
            http,
            known: Mutex::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    pub(super) fn issuer(&self) -> &str {
        &self.config.issuer
    }

    /// Where somebody signs in; `anew`: even if they have there.
    pub(super) async fn authorization_url(
        &self,
        state: CsrfToken,
        nonce: &str,
        challenge: PkceCodeChallenge,
        anew: bool,
        now: Timestamp,
    ) -> Result<Url, Error> {
        let known = self.known(READ_ANEW_AFTER, now).await?;
        let client = self.client(&known.metadata);
        let mut request = client
            .authorize_url(|| state)
            .add_scopes(SCOPES.map(|scope| Scope::new(scope.to_owned())))
            .set_pkce_challenge(challenge)
            .add_extra_param("nonce", nonce.to_owned());
        if anew {
            // With a greatest age the provider must say when they signed in (section 3.1.2.1).
            request = request
                .add_extra_param("prompt", "login")
                .add_extra_param("max_age", "0");
        }
        Ok(request.url().0)
    }

    /// Whom the provider's answer names.
    pub(super) async fn identity(
        &self,
        code: &str,
        verifier: PkceCodeVerifier,
        nonce: &str,
        iss: Option<&str>,
        authenticated_after: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Identity, Error> {
        let mut known = self.known(READ_ANEW_AFTER, now).await?;
        let names_itself = known
            .metadata
            .authorization_response_iss_parameter_supported;
        match iss {
            Some(iss) if iss != self.config.issuer => return Err(Error::NotAccepted),
            None if names_itself => return Err(Error::NotAccepted),
            Some(_) | None => {}
        }
        let exchanged = self
            .client(&known.metadata)
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(verifier)
            .request_async(self)
            .await;
        let answer = match exchanged {
            Ok(answer) => answer,
            Err(RequestTokenError::ServerResponse(refusal)) => {
                tracing::info!(upstream.error = %refusal, "the sign-on provider refused a code");
                return Err(Error::NotAccepted);
            }
            Err(RequestTokenError::Request(error)) => return Err(error),
            Err(error) => return Err(failed(error)),
        };
        let token = answer.extra_fields().id_token.as_deref();
        let token = token.ok_or_else(|| failed("its answer has no ID token"))?;
        let expected = Expected {
            issuer: &self.config.issuer,
            client_id: &self.config.client_id,
            nonce,
            authenticated_after,
        };
        let mut identity = id_token::verify(token, &known.keys, &expected, now);
        if identity == Err(Fault::UnknownKey) {
            known = self.known(READ_KEYS_ANEW_AFTER, now).await?;
            identity = id_token::verify(token, &known.keys, &expected, now);
        }
        identity.map_err(|_fault| Error::NotAccepted)
    }

    fn client(&self, metadata: &Metadata) -> ProviderClient {
        let only_in_body = metadata
            .token_endpoint_auth_methods_supported
            .as_ref()
            .is_some_and(|methods| {
                let has = |name: &str| methods.iter().any(|method| method == name);
                has("client_secret_post") && !has("client_secret_basic")
            });
        let mut client = Client::new(ClientId::new(self.config.client_id.clone()))
            .set_auth_uri(AuthUrl::from_url(metadata.authorization_endpoint.clone()))
            .set_token_uri(TokenUrl::from_url(metadata.token_endpoint.clone()))
            .set_redirect_uri(self.redirect.clone());
        if let Some(secret) = &self.config.client_secret {
            client = client.set_client_secret(ClientSecret::new(secret.expose().to_owned()));
        }
        if only_in_body {
            client = client.set_auth_type(AuthType::RequestBody);
        }
        client
    }

    /// What is known of the provider, not older than `age_max`. One asks it while the others wait.
    async fn known(&self, age_max: Duration, now: Timestamp) -> Result<Arc<Known>, Error> {
        let mut kept = self.known.lock().await;
        if let Some(known) = kept.as_ref()
            && known.read_at <= now
            && now.since(known.read_at) < age_max
        {
            return Ok(Arc::clone(known));
        }
        let issuer = self.config.issuer.trim_end_matches('/');
        let at = Url::parse(&format!("{issuer}/.well-known/openid-configuration"));
        let metadata: Metadata = self.read(at.map_err(failed)?).await?;
        if metadata.issuer != self.config.issuer {
            return Err(failed(format!("it calls itself {}", metadata.issuer)));
        }
        check_scheme(&metadata.authorization_endpoint)?;
        check_scheme(&metadata.token_endpoint)?;
        check_scheme(&metadata.jwks_uri)?;
        let keys = self.read(metadata.jwks_uri.clone()).await?;
        let known = Arc::new(Known {
            metadata,
            keys,
            read_at: now,
        });
        *kept = Some(Arc::clone(&known));
        Ok(known)
    }

    async fn read<T: DeserializeOwned>(&self, url: Url) -> Result<T, Error> {
        let answer = self.http.get(url).send().await.map_err(failed)?;
        let answer = answer.error_for_status().map_err(failed)?;
        serde_json::from_slice(&bounded(answer).await?).map_err(failed)
    }

    /// Sends a request of the OAuth library.
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, Error> {
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let answer = self.http.execute(request).await.map_err(failed)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut response = HttpResponse::new(bounded(answer).await?);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

impl<'c> AsyncHttpClient<'c> for Upstream {
    type Error = Error;
    type Future = BoxFuture<'c, Result<HttpResponse, Error>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// The body of an answer, if it is not too long.
async fn bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_LENGTH_MAX {
            return Err(failed("its answer is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
