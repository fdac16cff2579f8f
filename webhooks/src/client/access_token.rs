//! Access tokens for receivers that ask for one: OAuth 2.0 client credentials (RFC 6749, section 4.4).
//!
//! A token is kept per endpoint and client until shortly before its end; deliveries that find none wait for the one that is being got. The token
//! endpoint is under the same rules as endpoints themselves: address guard, no redirects, bounded answers, and its time is the attempt's.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use oauth2::{
    AsyncHttpClient, ClientId, ClientSecret, HttpRequest, HttpResponse, RequestTokenError, Scope,
    TokenResponse, TokenUrl,
    basic::{BasicClient, BasicRequestTokenError, BasicTokenResponse, BasicTokenType},
};
use reqwest::header::HeaderValue;
use sha2::{Digest, Sha256};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use url::Url;

use super::{Client, Failure, FailureKind, kept::Kept, outcome::classify};
use crate::endpoint::EndpointId;

/// Most tokens that are kept, of so many endpoints. Beyond that, the least recently used is got anew.
const TOKENS_MAX: usize = 10_000;

/// Most bytes of a token endpoint's answer: tokens are headers, and servers take 8 KB of them.
const TOKEN_ANSWER_BYTES_MAX: usize = 32 * 1_024;

/// Most time that getting a token takes of an attempt's, so that the receiver still has a share of it.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long before its end a token is replaced, so that none ends on its way.
const RENEWED_BEFORE_END: Duration = Duration::from_secs(30);

/// How long a token lasts whose answer does not say so.
const LIFETIME_UNSAID: Duration = Duration::from_mins(5);

/// Longest that a token is kept, whatever its answer says.
const LIFETIME_MAX: Duration = Duration::from_hours(24);

/// How long a token endpoint that gave none is left alone: a burst of deliveries is one request to it.
const FAILURE_KEPT_FOR: Duration = Duration::from_secs(2);

/// Most characters of a server's own error code that we repeat.
const ERROR_CODE_LENGTH_MAX: usize = 64;

/// Why there is no token to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTokenSource {
    /// The token endpoint's URL.
    #[error("the token endpoint is not a URL")]
    TokenUrl,
    /// The client's secret was not given.
    #[error("there is no client secret")]
    NoSecret,
}

/// Whom an endpoint's tokens come from, and for whom.
pub(super) struct TokenSource {
    token_url: TokenUrl,
    client_id: ClientId,
    client_secret: ClientSecret,
    scopes: Vec<Scope>,
    digest: [u8; 32],
}

impl TokenSource {
    pub(super) fn new(
        token_url: &str,
        client_id: &str,
        client_secret: Option<&str>,
        scope: Option<&str>,
    ) -> Result<Self, InvalidTokenSource> {
        let Ok(url) = Url::parse(token_url) else {
            return Err(InvalidTokenSource::TokenUrl);
        };
        let client_secret = client_secret.ok_or(InvalidTokenSource::NoSecret)?;
        let scope = scope.unwrap_or_default();
        let mut digest = Sha256::new();
        for part in [url.as_str(), client_id, client_secret, scope] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Ok(Self {
            token_url: TokenUrl::from_url(url),
            client_id: ClientId::new(client_id.to_owned()),
            client_secret: ClientSecret::new(client_secret.to_owned()),
            scopes: scope
                .split_ascii_whitespace()
                .map(|scope| Scope::new(scope.to_owned()))
                .collect(),
            digest: digest.finalize().into(),
        })
    }
}

/// The tokens of all endpoints.
pub(super) struct Tokens(Kept<(EndpointId, [u8; 32]), Slot>);

/// Held while a token is got, so that deliveries that find none wait for one instead of each getting their own.
type Slot = Arc<Mutex<State>>;

#[derive(Default)]
struct State {
    token: Option<Token>,
    failed: Option<(Instant, Failure)>,
}

struct Token {
    authorization: HeaderValue,
    renewed_at: Instant,
    ends_at: Instant,
}

/// A token to be shown.
pub(super) struct Shown {
    /// The value of `Authorization`.
    pub(super) authorization: HeaderValue,
    /// Whether it was got just now, for this very attempt.
    pub(super) is_new: bool,
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self(Kept::new(TOKENS_MAX))
    }

    /// The token at hand, or a new one if that is near its end or the one that the receiver has just `refused`.
    pub(super) async fn get(
        &self,
        client: &Client,
        endpoint: EndpointId,
        source: &TokenSource,
        refused: Option<&HeaderValue>,
    ) -> Result<Shown, Failure> {
        let slot = self.0.get_or_make(&(endpoint, source.digest), || {
            Ok::<Slot, Failure>(Slot::default())
        })?;
        let mut state = slot.lock().await;
        let now = Instant::now();
        let at_hand = state
            .token
            .as_ref()
            .filter(|token| token.ends_at > now && Some(&token.authorization) != refused);
        if let Some(token) = at_hand
            && token.renewed_at > now
        {
            return Ok(Shown {
                authorization: token.authorization.clone(),
                is_new: false,
            });
        }
        // One that still lasts a moment is good enough while its server is away.
        let still_good = at_hand.map(|token| token.authorization.clone());
        let failed = match state.failed.take() {
            Some((at, failure)) if now.duration_since(at) < FAILURE_KEPT_FOR => {
                state.failed = Some((at, failure.clone()));
                failure
            }
            _ => match fetch(client, source).await {
                Ok(token) => {
                    let authorization = token.authorization.clone();
                    state.token = Some(token);
                    return Ok(Shown {
                        authorization,
                        is_new: true,
                    });
                }
                Err(failure) => {
                    state.failed = Some((Instant::now(), failure.clone()));
                    failure
                }
            },
        };
        still_good.map_or(Err(failed), |authorization| {
            Ok(Shown {
                authorization,
                is_new: false,
            })
        })
    }
}

async fn fetch(client: &Client, source: &TokenSource) -> Result<Token, Failure> {
    let started = Instant::now();
    let most = TOKEN_TIMEOUT.min(client.deadline() / 2);
    match timeout(most, ask(client, source)).await {
        Ok(answer) => token(&answer?, started),
        Err(_) => Err(refusal("the token endpoint took too long")),
    }
}

async fn ask(client: &Client, source: &TokenSource) -> Result<BasicTokenResponse, Failure> {
    let oauth = BasicClient::new(source.client_id.clone())
        .set_client_secret(source.client_secret.clone())
        .set_token_uri(source.token_url.clone());
    oauth
        .exchange_client_credentials()
        .add_scopes(source.scopes.iter().cloned())
        .request_async(&Transport(client.clone()))
        .await
        .map_err(refused)
}

/// The token that an answer holds, which came to a request of `asked_at`.
fn token(answer: &BasicTokenResponse, asked_at: Instant) -> Result<Token, Failure> {
    if *answer.token_type() != BasicTokenType::Bearer {
        return Err(refusal("the token is not a bearer token"));
    }
    let text = format!("Bearer {}", answer.access_token().secret());
    let mut authorization = HeaderValue::try_from(text)
        .ok()
        .ok_or_else(|| refusal("the token is not what a header can hold"))?;
    authorization.set_sensitive(true);
    let lifetime = answer
        .expires_in()
        .unwrap_or(LIFETIME_UNSAID)
        .min(LIFETIME_MAX);
    // One that lasts no longer than the margin would be got for each delivery.
    let margin = RENEWED_BEFORE_END.min(lifetime / 2);
    Ok(Token {
        authorization,
        renewed_at: asked_at + lifetime.saturating_sub(margin),
        ends_at: asked_at + lifetime,
    })
}

fn refusal(detail: &str) -> Failure {
    Failure::new(FailureKind::Authentication, detail)
}

/// Why there is no token. What the server said beyond its error's code is not repeated: nobody knows what it put there.
fn refused(error: BasicRequestTokenError<TransportError>) -> Failure {
    match error {
        RequestTokenError::ServerResponse(refused) => {
            let code = refused.error().to_string();
            let code: String = code
                .chars()
                .filter(|character| !character.is_control())
                .take(ERROR_CODE_LENGTH_MAX)
                .collect();
            refusal(&format!("the token endpoint refused: {code}"))
        }
        RequestTokenError::Request(error) => refusal(&format!("the token endpoint: {error}")),
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            refusal("the token endpoint's answer can't be read")
        }
    }
}

/// The token request's way out: the same as that of webhooks, for the oauth2 crate brings none of this version.
struct Transport(Client);

#[derive(Debug, thiserror::Error)]
#[error("{}: {}", .0.kind.as_str(), .0.detail)]
struct TransportError(Failure);

impl<'c> AsyncHttpClient<'c> for Transport {
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, TransportError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move { exchange(&self.0, request).await.map_err(TransportError) })
    }
}

async fn exchange(client: &Client, request: HttpRequest) -> Result<HttpResponse, Failure> {
    let request = reqwest::Request::try_from(request).map_err(|error| classify(&error))?;
    client.admit(request.url()).await?;
    let http = client.http();
    let mut answer = http
        .execute(request)
        .await
        .map_err(|error| classify(&error))?;
    let status = answer.status();
    // RFC 6749 knows 200, 400 and 401; what a server under repair answers is no word of its token endpoint.
    if !status.is_success() && !status.is_client_error() {
        return Err(Failure::new(
            FailureKind::Protocol,
            &format!("status {}", status.as_u16()),
        ));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| classify(&error))? {
        if body.len().saturating_add(chunk.len()) > TOKEN_ANSWER_BYTES_MAX {
            return Err(Failure::new(
                FailureKind::Protocol,
                "the answer is too long",
            ));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = HttpResponse::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenSource(***)")
    }
}
