//! The HTTP client that webhooks are sent with: bounded in time and size, and kept away from our own network.
//!
//! Called by the worker, once for each attempt. Invariants: one deadline covers an access token, connecting, sending and reading the answer; no more than
//! [`ANSWER_BYTES_MAX`] of an answer are read, as they come, for nothing is decompressed; redirects are not followed, since a signed body is not for
//! whoever an endpoint names; the environment's proxies are not used; every connection goes to an address that [`AddressPolicy`] allows, or to the
//! operator's own proxy.
//!
//! A `Destination` is made once for each version of an endpoint, and is what all its requests have in common.

mod access_token;
mod address;
mod destination;
mod identity;
mod kept;
mod lookup;
mod outcome;
mod proxy;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_ENCODING, HeaderValue},
};
use tokio::time::Instant;
use url::{Host, Url};

pub use access_token::InvalidTokenSource;
use access_token::Tokens;
pub use address::{AddressPolicy, URL_BYTES_MAX, UrlError, check_url};
use address::{GuardedResolver, RefusedAddresses, check_parsed};
use destination::Entry;
pub use destination::{Destination, HEADER_VALUE_BYTES_MAX, HEADERS_MAX, InvalidDestination};
pub use identity::{CERTIFICATE_PEM_BYTES_MAX, InvalidIdentity, PRIVATE_KEY_PEM_BYTES_MAX};
use identity::{Identity, Tls};
use kept::Kept;
use lookup::{Lookup, system_lookup};
pub use outcome::{Answer, Failure, FailureKind, Outcome, RetryAfter};
use outcome::{chain, classify, readable, retry_after};
pub use proxy::{EgressProxy, InvalidProxy};

use crate::endpoint::EndpointId;

/// One deadline for a whole attempt. A receiver that needs longer should take the event in and answer first.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Most time for resolving a name, connecting and TLS: a machine that is not there is told apart from one that is slow.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of an answer's body that are read; the connection is closed if there are more, and used again if there are not.
pub const ANSWER_BYTES_MAX: usize = 16 * 1_024;

/// Most bytes of an answer's body that an attempt keeps for people to look at.
pub const EXCERPT_BYTES_MAX: usize = 1_024;

/// Most bytes that a receiver may send of one answer, and of all on a connection, before we have read any: HTTP/2's windows. HTTP/1 has hyper's buffer of
/// some 400 KB, which holds the answer's headers as well (and a hundred of them), and can't be set through reqwest.
const STREAM_WINDOW_BYTES: u32 = 64 * 1_024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1_024;

/// Most bytes of an answer's headers by HTTP/2.
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1_024;

/// Most idle connections kept to one host; more would be a burden to the receiver rather than a help.
const IDLE_CONNECTIONS_PER_HOST_MAX: usize = 256;

/// How long a connection stays open unused: shorter than the minute after which common load balancers close theirs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Most client certificates whose connections are kept. Beyond that, those of the least recently used are opened anew.
const IDENTITIES_MAX: usize = 256;

/// What the client is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where webhooks may go.
    pub policy: AddressPolicy,
    /// See [`DEADLINE`].
    pub deadline: Duration,
    /// By which webhooks leave; none: directly.
    pub proxy: Option<EgressProxy>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: AddressPolicy::default(),
            deadline: DEADLINE,
            proxy: None,
        }
    }
}

/// The client could not be made; there is no TLS without it, so the process should not start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The system's trusted roots, or TLS itself.
    #[error("the client for webhooks can't be made: TLS")]
    Tls(#[from] rustls::Error),
    /// The rest.
    #[error("the client for webhooks can't be made")]
    Http(#[from] reqwest::Error),
}

/// Sends webhooks. Clones share their connections and tokens.
#[derive(Clone)]
pub struct Client(Arc<Parts>);

struct Parts {
    config: Config,
    lookup: Lookup,
    tls: Tls,
    /// For all that need no certificate.
    http: reqwest::Client,
    /// For those that do: connections are an identity's own.
    identities: Kept<(EndpointId, [u8; 32]), reqwest::Client>,
    tokens: Tokens,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

/// One signed message.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where it goes, and what every request there bears.
    pub destination: Arc<Destination>,
    /// The event's id.
    pub id: String,
    /// The attempt's time.
    pub timestamp_seconds: i64,
    /// What [`Signer::sign`](crate::sign::Signer::sign) made of both and the body.
    pub signature: String,
    /// How the body is compressed, such as `gzip`.
    pub content_encoding: Option<&'static str>,
    /// The very bytes that were signed.
    pub body: Bytes,
}

impl Client {
    /// A client that asks the system's resolver and trusts whom the system trusts.
    pub fn new(config: Config) -> Result<Self, BuildError> {
        Self::with_parts(config, system_lookup(), Tls::of_system()?)
    }

    fn with_parts(config: Config, lookup: Lookup, tls: Tls) -> Result<Self, BuildError> {
        let http = build(&config, &lookup, &tls, None)?;
        Ok(Self(Arc::new(Parts {
            config,
            lookup,
            tls,
            http,
            identities: Kept::new(IDENTITIES_MAX),
            tokens: Tokens::new(),
        })))
    }

    /// The policy that this client keeps, for checking URLs before they are saved.
    pub fn policy(&self) -> AddressPolicy {
        self.0.config.policy
    }

    fn deadline(&self) -> Duration {
        self.0.config.deadline
    }

    fn http(&self) -> &reqwest::Client {
        &self.0.http
    }

    /// Sends one message and reads the answer. Never fails otherwise than by its outcome, and never takes longer than the deadline.
    pub async fn post(&self, request: Request) -> Outcome {
        let started = Instant::now();
        let result = match tokio::time::timeout(self.deadline(), self.attempt(request)).await {
            Ok(result) => result,
            Err(elapsed) => Err(Failure::new(FailureKind::Timeout, &elapsed)),
        };
        Outcome {
            result,
            duration: started.elapsed(),
        }
    }

    async fn attempt(&self, request: Request) -> Result<Answer, Failure> {
        let destination = Arc::clone(&request.destination);
        self.admit(&destination.url).await?;
        match &destination.entry {
            Entry::Open => self.exchange(self.http(), request, None).await,
            Entry::Certificate(identity) => {
                let http = self.http_of(destination.endpoint, identity)?;
                self.exchange(&http, request, None).await
            }
            Entry::Token(source) => {
                let endpoint = destination.endpoint;
                let tokens = &self.0.tokens;
                let shown = tokens.get(self, endpoint, source, None).await?;
                let again = request.clone();
                let first = Some(shown.authorization.clone());
                let answer = self.exchange(self.http(), request, first).await?;
                if answer.status != 401 || shown.is_new {
                    return Ok(answer);
                }
                // It may have been revoked. A second attempt is when the delivery is tried again, not when it shows another token.
                let refused = Some(&shown.authorization);
                let shown = tokens.get(self, endpoint, source, refused).await?;
                self.exchange(self.http(), again, Some(shown.authorization))
                    .await
            }
        }
    }

    /// Checks a URL before each request: the policy may have changed since it was saved. The resolver refuses names that lead to where they must not; behind
    /// a proxy it is not asked, so the name is resolved here and refused if any of its addresses is, whichever the proxy will choose.
    async fn admit(&self, url: &Url) -> Result<(), Failure> {
        let policy = self.policy();
        check_parsed(url, policy)
            .map_err(|error| Failure::new(FailureKind::RefusedAddress, &error))?;
        if self.0.config.proxy.is_none() {
            return Ok(());
        }
        let Some(Host::Domain(name)) = url.host() else {
            return Ok(());
        };
        let found: Vec<SocketAddr> = (self.0.lookup)(name.to_owned())
            .await
            .map_err(|error| Failure::new(FailureKind::Dns, &error))?;
        if found.is_empty() {
            return Err(Failure::new(FailureKind::Dns, "the name has no address"));
        }
        if found.iter().all(|found| policy.allows(found.ip())) {
            Ok(())
        } else {
            Err(Failure::new(FailureKind::RefusedAddress, &RefusedAddresses))
        }
    }

    /// The client that shows this certificate.
    fn http_of(
        &self,
        endpoint: EndpointId,
        identity: &Identity,
    ) -> Result<reqwest::Client, Failure> {
        let parts = &*self.0;
        let key = (endpoint, identity.digest());
        parts
            .identities
            .get_or_make(&key, || {
                build(&parts.config, &parts.lookup, &parts.tls, Some(identity))
            })
            .map_err(|error| Failure::new(FailureKind::Authentication, &error))
    }

    async fn exchange(
        &self,
        http: &reqwest::Client,
        request: Request,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        let destination = &*request.destination;
        let mut headers = destination.headers.clone();
        let names = &destination.signature;
        for (name, value) in [
            (&names.id, request.id),
            (&names.signature, request.signature),
        ] {
            let value = HeaderValue::try_from(value)
                .map_err(|error| Failure::new(FailureKind::Internal, &error))?;
            headers.insert(name, value);
        }
        headers.insert(
            &names.timestamp,
            HeaderValue::from(request.timestamp_seconds),
        );
        if let Some(encoding) = request.content_encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        let mut message = reqwest::Request::new(Method::POST, destination.url.clone());
        *message.headers_mut() = headers;
        *message.body_mut() = Some(request.body.into());
        let mut response = http
            .execute(message)
            .await
            .map_err(|error| classify(&error))?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let mut excerpt = Vec::new();
        let mut read_bytes = 0_usize;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let wanted = EXCERPT_BYTES_MAX
                        .saturating_sub(excerpt.len())
                        .min(chunk.len());
                    excerpt.extend_from_slice(chunk.get(..wanted).unwrap_or_default());
                    read_bytes = read_bytes.saturating_add(chunk.len());
                    if read_bytes > ANSWER_BYTES_MAX {
                        break;
                    }
                }
                Ok(None) => break,
                // The status has been given, and is what counts; that its body broke off changes nothing about it.
                Err(error) => {
                    tracing::debug!(error = %chain(&error), http.status = status, "an answer's body broke off");
                    break;
                }
            }
        }
        Ok(Answer {
            status,
            retry_after,
            excerpt: readable(&excerpt),
        })
    }
}

/// The HTTP client below, with its own connections.
fn build(
    config: &Config,
    lookup: &Lookup,
    tls: &Tls,
    identity: Option<&Identity>,
) -> Result<reqwest::Client, BuildError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("Stoa/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT.min(config.deadline))
        .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        .tls_backend_preconfigured(tls.config(identity)?);
    let builder = match &config.proxy {
        None => builder.no_proxy().dns_resolver(GuardedResolver {
            policy: config.policy,
            lookup: Arc::clone(lookup),
        }),
        // The only name that is resolved then is the proxy's own, which the operator has chosen.
        Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy.url().clone())?),
    };
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests;
