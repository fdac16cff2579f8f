//! A client of Stoa's API, as any merchant's app could have: it knows the contract types and nothing of the server's insides.
//!
//! Used by the commands that call a server, such as `stoa import` and `stoa listen`. Tokens come from one of two sources: client credentials (RFC 6749, section 4.4) for one merchant (RFC 8707), or
//! a [`login`] that a person has made in the browser. Either way they are got from the token endpoint that the server's metadata names (RFC 8414), kept
//! until they are near their end, and got anew when the server refuses them.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kernel::id::MerchantId;
use reqwest::{Body, RequestBuilder, Response};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

pub mod catalog_import;
mod error;
pub mod event_stream;
pub mod login;
mod server;
mod token;

pub use error::{Error, ProblemDocument};

use token::Tokens;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may be silent. An import's server is silent no longer than it waits for its database, which is 15 s.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a developer's server may take to answer: as long as a webhook's receiver.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(15);

/// Bytes of an answer that is read as a whole: a page of 250 products with all they may have is smaller.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Marks an answer under a key that was used before.
const IDEMPOTENT_REPLAYED: &str = "idempotent-replayed";

/// Which merchant tokens are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The `resource` of the token request, in full: `https://stoa.example/merchants/mer_…`.
    Url(String),
    /// The resource of this merchant at the server.
    Merchant(MerchantId),
}

/// Where the server is, and where tokens come from.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server's public address: the issuer of its tokens.
    pub url: Url,
    /// Where tokens come from.
    pub source: Source,
}

/// Where tokens come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// An app's own credentials.
    ClientCredentials(ClientCredentials),
    /// A login that is kept in a file.
    Login(login::Source),
}

/// Who calls, as an app for a merchant.
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// The app's id.
    pub client_id: String,
    /// The app's secret.
    pub client_secret: oauth2::ClientSecret,
    /// The merchant.
    pub resource: Resource,
    /// The scopes to ask for, separated by spaces; none asks for all that the grant has.
    pub scope: String,
}

/// A client; clones share its connections and its token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    tokens: Tokens,
}

/// An answer that was read as a whole, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// The HTTP client of every request.
fn http() -> Result<reqwest::Client, Error> {
    // Redirects would carry the credentials to wherever the answer says, and a proxy of the environment would see them.
    Ok(reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(concat!("stoa/", env!("CARGO_PKG_VERSION")))
        .build()?)
}

/// The HTTP client by which `stoa listen` posts to a developer's address: as the workers post, with one deadline for connecting and answering.
pub fn forwarding() -> Result<reqwest::Client, Error> {
    Ok(reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(FORWARD_TIMEOUT)
        .user_agent(concat!("stoa/", env!("CARGO_PKG_VERSION")))
        .build()?)
}

impl Client {
    /// A client that has not called the server yet.
    pub fn new(options: Options) -> Result<Self, Error> {
        let http = http()?;
        let url = options.url.clone();
        Ok(Self {
            tokens: Tokens::new(http.clone(), options),
            http,
            url,
        })
    }

    /// The server's address.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// A token that is good for a while: the one at hand, or a new one.
    pub async fn token(&self) -> Result<String, Error> {
        self.tokens.get().await
    }

    /// Reads a resource.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.call(Method::GET, path, None, None::<&()>)
            .await?
            .json()
    }

    /// Posts under an idempotency key.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Method::POST, path, Some(key), Some(body))
            .await?
            .json()
    }

    /// Puts, under an idempotency key if there is one.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        key: Option<&str>,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        self.call(Method::PUT, path, key, Some(body)).await?.json()
    }

    /// Calls, and gives the answer whatever its status. `path` begins with `/` and may have a query. A token that is refused is
    /// replaced once.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&impl Serialize>,
    ) -> Result<Answer, Error> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|error| Error::unreadable("the request", error))?;
        let mut renewed = false;
        loop {
            let token = self.tokens.get().await?;
            let mut request = self.request(method.clone(), path, key, &token)?;
            if let Some(body) = &body {
                request = request
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(body.clone());
            }
            let answer = Answer::read(request.send().await?).await?;
            if answer.status != StatusCode::UNAUTHORIZED || renewed {
                return Ok(answer);
            }
            self.tokens.forget(&token).await;
            renewed = true;
        }
    }

    /// Posts a body that is made while it is sent, and gives the answer as soon as it begins. A body that was sent once can't be sent again, so a refused token
    /// is an error here; the next call gets a new one.
    pub async fn post_stream(
        &self,
        path: &str,
        key: &str,
        content_type: &'static str,
        body: Body,
    ) -> Result<Response, Error> {
        let token = self.tokens.get().await?;
        let request = self.request(Method::POST, path, Some(key), &token)?;
        let response = request
            .header(header::CONTENT_TYPE, content_type)
            .body(body)
            .send()
            .await?;
        if response.status().is_success() {
            return Ok(response);
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.tokens.forget(&token).await;
        }
        Err(Answer::read(response).await?.problem())
    }

    /// Opens a stream of server-sent events, read on after `last_id`. A token that is refused is replaced once.
    async fn open_stream(&self, path: &str, last_id: Option<&str>) -> Result<Response, Error> {
        let mut renewed = false;
        loop {
            let token = self.tokens.get().await?;
            let mut request = self
                .request(Method::GET, path, None, &token)?
                .header(header::ACCEPT, "text/event-stream");
            if let Some(last_id) = last_id {
                request = request.header("last-event-id", last_id);
            }
            let response = request.send().await?;
            if response.status().is_success() {
                return Ok(response);
            }
            if response.status() != StatusCode::UNAUTHORIZED || renewed {
                return Err(Answer::read(response).await?.problem());
            }
            self.tokens.forget(&token).await;
            renewed = true;
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        token: &str,
    ) -> Result<RequestBuilder, Error> {
        let text = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        let url = Url::parse(&text).map_err(|error| Error::unreadable("the address", error))?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| Error::unreadable("the token", error))?;
        bearer.set_sensitive(true);
        let mut request = self
            .http
            .request(method, url)
            .header(header::AUTHORIZATION, bearer);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        Ok(request)
    }
}

impl Answer {
    /// Reads an answer to its end, if that comes before there is too much of it.
    async fn read(mut response: Response) -> Result<Self, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::TooLarge {
                    limit: ANSWER_BYTES_MAX,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self {
            status: response.status(),
            headers: response.headers().clone(),
            body,
        })
    }

    /// The body of a success; every other status is an error.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if !self.status.is_success() {
            return Err(self.problem());
        }
        serde_json::from_slice(&self.body).map_err(|error| Error::unreadable("the answer", error))
    }

    /// Whether this is the answer to an earlier request with the same key.
    pub fn is_replayed(&self) -> bool {
        self.headers
            .get(IDEMPOTENT_REPLAYED)
            .is_some_and(|value| value == "true")
    }

    /// The request, as the server's logs know it.
    pub fn request_id(&self) -> Option<&str> {
        self.headers.get("x-request-id")?.to_str().ok()
    }

    /// What went wrong, of an answer that is no success.
    pub fn problem(&self) -> Error {
        Error::of_answer(self)
    }
}

#[cfg(test)]
mod tests;
