//! Access tokens: found, got, kept, and got anew in time.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use http::header;
use oauth2::{
    AsyncHttpClient, ClientId, HttpRequest, HttpResponse, RequestTokenError, Scope, TokenResponse,
    TokenUrl, basic::BasicClient,
};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::{Answer, Error, Options, Resource};

/// How long before its end a token is replaced, so that no request arrives with one that has just ended.
const RENEWED_BEFORE_END: Duration = Duration::from_secs(30);

/// How long a token lasts whose answer does not say so.
const LIFETIME_UNSAID: Duration = Duration::from_mins(1);

/// The token of a client; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    http: reqwest::Client,
    options: Arc<Options>,
    /// Held while a token is got, so that requests that find none wait for one instead of each getting their own.
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    server: Option<Server>,
    token: Option<Token>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("State")
            .field("has_token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

struct Token {
    text: String,
    renewed_at: Instant,
}

/// What is needed of the server's metadata (RFC 8414).
#[derive(Debug, Clone, Deserialize)]
struct Server {
    issuer: String,
    token_endpoint: Url,
}

impl Tokens {
    pub(super) fn new(http: reqwest::Client, options: Options) -> Self {
        Self {
            http,
            options: Arc::new(options),
            state: Arc::default(),
        }
    }

    /// The token at hand, or a new one if that is near its end.
    pub(super) async fn get(&self) -> Result<String, Error> {
        let mut state = self.state.lock().await;
        if let Some(token) = state
            .token
            .as_ref()
            .filter(|token| Instant::now() < token.renewed_at)
        {
            return Ok(token.text.clone());
        }
        let server = match &state.server {
            Some(server) => server.clone(),
            None => self.discover().await?,
        };
        state.server = Some(server.clone());
        let token = self.request(&server).await?;
        let text = token.text.clone();
        state.token = Some(token);
        Ok(text)
    }

    /// Gives up a token that the server has refused, unless another has taken its place already.
    pub(super) async fn forget(&self, refused: &str) {
        self.state
            .lock()
            .await
            .token
            .take_if(|token| token.text == refused);
    }

    /// Reads the server's metadata.
    async fn discover(&self) -> Result<Server, Error> {
        let url = &self.options.url;
        let mut metadata = url.clone();
        // RFC 8414, section 3.1: the issuer's own path comes after the well-known one.
        metadata.set_path(&format!(
            "/.well-known/oauth-authorization-server{}",
            url.path().trim_end_matches('/')
        ));
        let answer = Answer::read(self.http.get(metadata).send().await?).await?;
        let server: Server = answer.json()?;
        // Section 3.3: metadata of another issuer must not be used. It may name a token endpoint that collects secrets.
        if server.issuer.trim_end_matches('/') != url.as_str().trim_end_matches('/') {
            return Err(Error::Metadata(format!(
                "the server at {url} calls itself {}; use that address",
                server.issuer
            )));
        }
        if server.token_endpoint.origin() != url.origin() {
            return Err(Error::Metadata(format!(
                "the token endpoint {} is not at {url}",
                server.token_endpoint
            )));
        }
        Ok(server)
    }

    async fn request(&self, server: &Server) -> Result<Token, Error> {
        let requested_at = Instant::now();
        let resource = match &self.options.resource {
            Resource::Url(url) => url.clone(),
            Resource::Merchant(merchant) => format!(
                "{}/merchants/{merchant}",
                server.issuer.trim_end_matches('/')
            ),
        };
        let client = BasicClient::new(ClientId::new(self.options.client_id.clone()))
            .set_client_secret(self.options.client_secret.clone())
            .set_token_uri(TokenUrl::from_url(server.token_endpoint.clone()));
        let scopes = self
            .options
            .scope
            .split_whitespace()
            .map(|scope| Scope::new(scope.to_owned()));
        let answer = client
            .exchange_client_credentials()
            .add_extra_param("resource", resource)
            .add_scopes(scopes)
            .request_async(&Transport(self.http.clone()))
            .await
            .map_err(|error| match error {
                RequestTokenError::ServerResponse(refusal) => Error::Token {
                    code: refusal.error().to_string(),
                    description: refusal.error_description().cloned(),
                },
                RequestTokenError::Request(error) => error,
                RequestTokenError::Parse(error, _) => {
                    Error::unreadable("the token endpoint's answer", error)
                }
                RequestTokenError::Other(reason) => {
                    Error::unreadable("the token endpoint's answer", reason)
                }
            })?;
        let lifetime = answer.expires_in().unwrap_or(LIFETIME_UNSAID);
        // A token that lasts no longer than the margin would be got for each request.
        let margin = RENEWED_BEFORE_END.min(lifetime / 2);
        Ok(Token {
            text: answer.access_token().secret().clone(),
            renewed_at: requested_at + lifetime.saturating_sub(margin),
        })
    }
}

/// The HTTP client of the token requests: ours, for the oauth2 crate brings none of this version.
struct Transport(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Transport {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let answer =
                Answer::read(self.0.execute(reqwest::Request::try_from(request)?).await?).await?;
            let content_type = answer
                .headers
                .get(header::CONTENT_TYPE)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            // Refusals are JSON as RFC 6749 has it; what comes as something else is a failure before the token endpoint's own.
            if answer.status.is_server_error()
                || (!answer.status.is_success() && !content_type.starts_with("application/json"))
            {
                return Err(answer.problem());
            }
            let mut response = HttpResponse::new(answer.body);
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            Ok(response)
        })
    }
}
