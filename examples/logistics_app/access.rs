//! What merchants allow the app: kept in a file for each, refreshed in time, used for calls, and noticed when it is over.
//!
//! A refresh token is good once. Whoever exchanges it holds the merchant's lock from before the file is read until the successor is on disk. If the answer is lost, or
//! the process dies before it is written, the same refresh token gets the same successor again for half a minute.

use std::{
    borrow::Cow,
    fmt,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use oauth2::{
    AuthorizationCode, ClientId, ClientSecret, ExtraTokenFields, HttpRequest, HttpResponse,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, StandardRevocableToken,
    StandardTokenResponse, TokenResponse, TokenUrl,
    basic::{
        BasicErrorResponse, BasicRequestTokenError, BasicRevocationErrorResponse,
        BasicTokenIntrospectionResponse, BasicTokenType,
    },
};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    App,
    failure::{Failure, Result},
};

/// How many seconds before its end a token is replaced.
const RENEWED_BEFORE_END_S: u64 = 30;

/// Pauses before a refresh is sent again whose answer was lost.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];

/// A merchant, by its id. It is a part of paths, so nothing else may be in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Merchant(String);

impl TryFrom<String> for Merchant {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        let is_id = text.starts_with("mer_")
            && text.len() <= 64
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if is_id {
            Ok(Self(text))
        } else {
            Err("no merchant's id")
        }
    }
}

impl fmt::Display for Merchant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a merchant allows, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Install {
    merchant: Merchant,
    /// The scopes, with spaces between.
    scope: String,
    /// When what the merchant allows ends, in seconds since 1970; none: not by itself.
    grant_ends_at: Option<u64>,
    access_token: String,
    /// In seconds since 1970.
    access_token_ends_at: u64,
    /// None: it is over.
    refresh_token: Option<String>,
}

impl Install {
    /// Without the tokens.
    pub(crate) fn shown(&self) -> Value {
        json!({
            "merchant": self.merchant, "scope": self.scope, "grantEndsAt": self.grant_ends_at,
            "status": if self.refresh_token.is_some() { "installed" } else { "ended" },
        })
    }
}

/// The installs, in a directory for the app's own user alone.
pub(crate) struct Access {
    directory: PathBuf,
}

impl Access {
    pub(crate) fn open(directory: PathBuf) -> std::io::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)?;
        Ok(Self { directory })
    }

    /// Who has installed the app.
    pub(crate) fn merchants(&self) -> Result<Vec<Merchant>> {
        let mut merchants = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let merchant = name.strip_suffix(".json").map(str::to_owned);
            merchants.extend(merchant.and_then(|merchant| Merchant::try_from(merchant).ok()));
        }
        Ok(merchants)
    }

    pub(crate) fn read(&self, merchant: &Merchant) -> Result<Install> {
        match fs::read(self.directory.join(format!("{merchant}.json"))) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Failure::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    /// Written beside and renamed: a reader finds the one or the other, and so does whoever comes after a crash.
    fn write(&self, install: &Install) -> Result<()> {
        let path = self.directory.join(format!("{}.json", install.merchant));
        let beside = path.with_extension("new");
        let mut file = private().truncate(true).open(&beside)?;
        file.write_all(&serde_json::to_vec_pretty(install)?)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(())
    }

    /// Held by whoever changes what is kept of a merchant, in this process or another; let go when dropped.
    async fn lock(&self, merchant: &Merchant) -> Result<File> {
        let path = self.directory.join(format!("{merchant}.lock"));
        tokio::task::spawn_blocking(move || {
            let file = private().truncate(false).open(path)?;
            file.lock()?;
            Ok(file)
        })
        .await?
        .map_err(|error: std::io::Error| error.into())
    }
}

/// A file that nobody else can read at any moment.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// What Stoa says beside the tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Said {
    merchant_id: Merchant,
    grant_expires_in: Option<u64>,
}

impl ExtraTokenFields for Said {}

type Tokens = StandardTokenResponse<Said, BasicTokenType>;

type TokenClient = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What is kept of a token answer.
fn kept(answer: &Tokens, asked_at: u64) -> Install {
    let scopes = answer.scopes().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let said = answer.extra_fields();
    Install {
        merchant: said.merchant_id.clone(),
        scope: names.join(" "),
        grant_ends_at: said.grant_expires_in.map(|seconds| asked_at + seconds),
        access_token: answer.access_token().secret().clone(),
        access_token_ends_at: asked_at + answer.expires_in().map_or(0, |left| left.as_secs()),
        refresh_token: answer.refresh_token().map(|token| token.secret().clone()),
    }
}

impl App {
    /// What names a merchant to the server (RFC 8707).
    pub(crate) fn resource(&self, merchant: &Merchant) -> String {
        format!("{}/merchants/{merchant}", self.stoa.url)
    }

    /// Exchanges a code, and keeps what comes of it.
    pub(crate) async fn exchange(
        &self,
        code: AuthorizationCode,
        verifier: PkceCodeVerifier,
    ) -> Result<Merchant> {
        let asked_at = now();
        let redirect_uri = RedirectUrl::new(self.redirect_uri.clone())?;
        let answer = TokenClient::new(ClientId::new(self.stoa.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.stoa.client_secret.clone()))
            .set_token_uri(TokenUrl::new(format!("{}/oauth/token", self.stoa.url))?)
            .exchange_code(code)
            .set_redirect_uri(Cow::Borrowed(&redirect_uri))
            .set_pkce_verifier(verifier)
            .request_async(&self.transport())
            .await;
        let install = match answer {
            Ok(answer) => kept(&answer, asked_at),
            Err(RequestTokenError::ServerResponse(refusal)) => {
                return Err(Failure::NotInstalled(refusal.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let _lock = self.access.lock(&install.merchant).await?;
        self.access.write(&install)?;
        Ok(install.merchant)
    }

    /// The install, refreshed if `is_due` finds it due once nobody else is at it.
    pub(crate) async fn refreshed(
        &self,
        merchant: &Merchant,
        is_due: impl Fn(&Install) -> bool,
    ) -> Result<Install> {
        let _lock = self.access.lock(merchant).await?;
        let install = self.access.read(merchant)?;
        let Some(refresh_token) = &install.refresh_token else {
            return Err(Failure::Ended(merchant.clone()));
        };
        if !is_due(&install) {
            return Ok(install);
        }
        let asked_at = now();
        match self.refresh(refresh_token).await {
            Ok(answer) => {
                let install = kept(&answer, asked_at);
                self.access.write(&install)?;
                Ok(install)
            }
            Err(RequestTokenError::ServerResponse(refusal))
                if refusal.error().to_string() == "invalid_grant" =>
            {
                // There is no way back but to be installed again.
                self.access.write(&Install {
                    access_token: String::new(),
                    refresh_token: None,
                    ..install
                })?;
                Err(Failure::Ended(merchant.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Exchanges a refresh token; again with the same one if there was no answer.
    async fn refresh(
        &self,
        token: &str,
    ) -> std::result::Result<Tokens, BasicRequestTokenError<reqwest::Error>> {
        let token = RefreshToken::new(token.to_owned());
        let url = TokenUrl::new(format!("{}/oauth/token", self.stoa.url))
            .map_err(|error| RequestTokenError::Other(error.to_string()))?;
        let client = TokenClient::new(ClientId::new(self.stoa.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.stoa.client_secret.clone()))
            .set_token_uri(url);
        let transport = self.transport();
        let mut pauses = PAUSES.into_iter();
        loop {
            let answer = client
                .exchange_refresh_token(&token)
                .request_async(&transport)
                .await;
            match (answer, pauses.next()) {
                (Err(RequestTokenError::Request(_)), Some(pause)) => {
                    tokio::time::sleep(pause).await;
                }
                (answer, _) => return answer,
            }
        }
    }

    /// Calls the API for a merchant. A token that is refused may have been overtaken by a change of what the merchant allows: then a new one is tried, once.
    pub(crate) async fn call(
        &self,
        merchant: &Merchant,
        method: Method,
        path: &str,
        change: Option<(&str, Value)>,
    ) -> Result<Value> {
        let near_end =
            |install: &Install| install.access_token_ends_at < now() + RENEWED_BEFORE_END_S;
        let mut install = self.refreshed(merchant, near_end).await?;
        let mut is_renewed = false;
        loop {
            let mut request = self
                .http
                .request(method.clone(), format!("{}{path}", self.stoa.url))
                .bearer_auth(&install.access_token);
            if let Some((key, body)) = &change {
                request = request.header("idempotency-key", *key).json(body);
            }
            let response = request.send().await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !is_renewed {
                is_renewed = true;
                let refused = install.access_token;
                let is_refused = |install: &Install| install.access_token == refused;
                install = self.refreshed(merchant, is_refused).await?;
                continue;
            }
            let text = response.text().await?;
            if !status.is_success() {
                return Err(Failure::Refused(status.as_u16(), text));
            }
            return Ok(serde_json::from_str(&text)?);
        }
    }

    /// Token requests by our own HTTP client.
    fn transport(&self) -> impl Fn(HttpRequest) -> Sending + Send + Sync + 'static {
        let http = self.http.clone();
        move |request| Box::pin(send(http.clone(), request))
    }

    /// Gives back the tokens (RFC 7009) and forgets them.
    pub(crate) async fn give_back(&self, merchant: &Merchant) -> Result<()> {
        let _lock = self.access.lock(merchant).await?;
        let install = self.access.read(merchant)?;
        if let Some(token) = &install.refresh_token {
            let response = self
                .http
                .post(format!("{}/oauth/revoke", self.stoa.url))
                .basic_auth(&self.stoa.client_id, Some(&self.stoa.client_secret))
                .form(&[("token", token.as_str())])
                .send()
                .await?;
            if !response.status().is_success() {
                let status = response.status().as_u16();
                return Err(Failure::Refused(status, response.text().await?));
            }
        }
        fs::remove_file(self.access.directory.join(format!("{merchant}.json")))?;
        Ok(())
    }
}

/// A token request on its way.
type Sending = Pin<
    Box<dyn Future<Output = std::result::Result<HttpResponse, reqwest::Error>> + Send + 'static>,
>;

/// Sends a token request. What is no answer of the token endpoint itself is a failure of the way there.
async fn send(
    http: reqwest::Client,
    request: HttpRequest,
) -> std::result::Result<HttpResponse, reqwest::Error> {
    let response = http.execute(request.try_into()?).await?;
    if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
        return response.error_for_status().map(|_| HttpResponse::default());
    }
    let (status, headers) = (response.status(), response.headers().clone());
    let mut answer = HttpResponse::new(response.bytes().await?.to_vec());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    Ok(answer)
}
