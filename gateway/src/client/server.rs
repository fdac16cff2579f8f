//! The authorization server as a client of it sees it: found by its metadata (RFC 8414), and called through the HTTP client of all other requests.

use std::pin::Pin;

use http::header;
use oauth2::{
    AsyncHttpClient, HttpRequest, HttpResponse, RequestTokenError, basic::BasicRequestTokenError,
};
use serde::Deserialize;
use url::Url;

use super::{Answer, Error};

/// What is needed of the server's metadata (RFC 8414, section 2).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Server {
    /// What the server calls itself.
    pub(super) issuer: String,
    /// Where tokens are given.
    pub(super) token_endpoint: Url,
    /// Where people are asked.
    #[serde(default)]
    pub(super) authorization_endpoint: Option<Url>,
    /// Where tokens are given back (RFC 7009).
    #[serde(default)]
    pub(super) revocation_endpoint: Option<Url>,
}

impl Server {
    /// Reads the metadata of the server at `url`.
    pub(super) async fn discover(http: &reqwest::Client, url: &Url) -> Result<Self, Error> {
        let mut metadata = url.clone();
        // RFC 8414, section 3.1: the issuer's own path comes after the well-known one.
        metadata.set_path(&format!(
            "/.well-known/oauth-authorization-server{}",
            url.path().trim_end_matches('/')
        ));
        let answer = Answer::read(http.get(metadata).send().await?).await?;
        let server: Self = answer.json()?;
        // Section 3.3: metadata of another issuer must not be used. It may name a token endpoint that collects secrets.
        if !is_same_issuer(&server.issuer, url.as_str()) {
            return Err(Error::Metadata(format!(
                "the server at {url} calls itself {}; use that address",
                server.issuer
            )));
        }
        let endpoints = [
            ("token", Some(&server.token_endpoint)),
            ("authorization", server.authorization_endpoint.as_ref()),
            ("revocation", server.revocation_endpoint.as_ref()),
        ];
        for (name, endpoint) in endpoints {
            if let Some(endpoint) = endpoint
                && endpoint.origin() != url.origin()
            {
                return Err(Error::Metadata(format!(
                    "the {name} endpoint {endpoint} is not at {url}"
                )));
            }
        }
        Ok(server)
    }

    /// What names a merchant to the server (RFC 8707).
    pub(super) fn resource(&self, merchant: impl std::fmt::Display) -> String {
        format!("{}/merchants/{merchant}", self.issuer.trim_end_matches('/'))
    }

    /// An endpoint that not every server has.
    pub(super) fn endpoint<'u>(
        &self,
        name: &str,
        endpoint: Option<&'u Url>,
    ) -> Result<&'u Url, Error> {
        endpoint.ok_or_else(|| {
            Error::Metadata(format!("the server {} has no {name} endpoint", self.issuer))
        })
    }
}

/// Whether two addresses name the same issuer; a slash at the end is no difference, for people type it or not.
pub(super) fn is_same_issuer(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Why the token endpoint gave no token.
pub(super) fn refused(error: BasicRequestTokenError<Error>) -> Error {
    match error {
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
    }
}

/// The HTTP client of the token requests: ours, for the oauth2 crate brings none of this version.
pub(super) struct Transport(pub(super) reqwest::Client);

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
            // Refusals are JSON as RFC 6749 has it; what comes as something else is a failure before the token endpoint's own. A client that was told to
            // wait (429) or to come again (503) hears that as such.
            if answer.status.is_server_error()
                || answer.status == http::StatusCode::TOO_MANY_REQUESTS
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
