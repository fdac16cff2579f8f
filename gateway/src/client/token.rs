//! Access tokens: got from where there are some, kept, and got anew in time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use oauth2::{ClientId, Scope, TokenResponse, TokenUrl, basic::BasicClient};
use tokio::sync::Mutex;

use super::{
    ClientCredentials, Error, Options, Resource, Source,
    server::{Server, Transport, refused},
};

/// How long before its end a token is replaced, so that no request arrives with one that has just ended.
pub(super) const RENEWED_BEFORE_END: Duration = Duration::from_secs(30);

/// How long a token lasts whose answer does not say so.
pub(super) const LIFETIME_UNSAID: Duration = Duration::from_mins(1);

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
    /// The last token that the server did not take.
    refused: Option<String>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("State")
            .field("has_token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// A token, and when it is to be replaced.
pub(super) struct Token {
    text: String,
    renewed_at: Instant,
}

impl Token {
    /// A token that lasts for `lifetime` from `start` on.
    pub(super) fn new(text: String, start: Instant, lifetime: Duration) -> Self {
        // A token that lasts no longer than the margin would be got for each request.
        let margin = RENEWED_BEFORE_END.min(lifetime / 2);
        Self {
            text,
            renewed_at: start + lifetime.saturating_sub(margin),
        }
    }
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
            None => Server::discover(&self.http, &self.options.url).await?,
        };
        state.server = Some(server.clone());
        let token = match &self.options.source {
            Source::ClientCredentials(credentials) => {
                request(&self.http, &server, credentials).await?
            }
            Source::Login(login) => {
                login
                    .token(&self.http, &server, state.refused.as_deref())
                    .await?
            }
        };
        let text = token.text.clone();
        state.token = Some(token);
        Ok(text)
    }

    /// Gives up a token that the server has refused, unless another has taken its place already.
    pub(super) async fn forget(&self, refused: &str) {
        let mut state = self.state.lock().await;
        if state.token.take_if(|token| token.text == refused).is_some() {
            state.refused = Some(refused.to_owned());
        }
    }
}

/// A token by client credentials (RFC 6749, section 4.4) for one merchant (RFC 8707).
async fn request(
    http: &reqwest::Client,
    server: &Server,
    credentials: &ClientCredentials,
) -> Result<Token, Error> {
    let requested_at = Instant::now();
    let resource = match &credentials.resource {
        Resource::Url(url) => url.clone(),
        Resource::Merchant(merchant) => server.resource(merchant),
    };
    let client = BasicClient::new(ClientId::new(credentials.client_id.clone()))
        .set_client_secret(credentials.client_secret.clone())
        .set_token_uri(TokenUrl::from_url(server.token_endpoint.clone()));
    let answer = client
        .exchange_client_credentials()
        .add_extra_param("resource", resource)
        .add_scopes(scopes(&credentials.scope))
        .request_async(&Transport(http.clone()))
        .await
        .map_err(refused)?;
    Ok(Token::new(
        answer.access_token().secret().clone(),
        requested_at,
        answer.expires_in().unwrap_or(LIFETIME_UNSAID),
    ))
}

/// Scopes with spaces between, one by one.
pub(super) fn scopes(names: &str) -> impl Iterator<Item = Scope> {
    names
        .split_whitespace()
        .map(|scope| Scope::new(scope.to_owned()))
}
