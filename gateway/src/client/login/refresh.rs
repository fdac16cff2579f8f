//! Refreshing (RFC 6749, section 6): one process at a time, and on disk before it is used.

use std::time::{Duration, Instant};

use kernel::{clock::Timestamp, id::MerchantId, scope::ScopeSet};
use oauth2::{
    ClientId, ExtraTokenFields, StandardRevocableToken, StandardTokenResponse, TokenResponse,
    TokenUrl,
    basic::{
        BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
        BasicTokenType,
    },
};
use serde::{Deserialize, Serialize};

use super::{CLIENT, Error, Login, Source};
use crate::client::{
    Error as CallError,
    server::{Server, Transport, refused},
    token::{LIFETIME_UNSAID, RENEWED_BEFORE_END, Token},
};

/// A client of the token endpoint, whose answers say a little more than RFC 6749 has them say.
pub(super) type TokenClient = oauth2::Client<
    BasicErrorResponse,
    Tokens,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

/// An answer of the token endpoint.
pub(super) type Tokens = StandardTokenResponse<Said, BasicTokenType>;

/// What the token endpoint says beside the tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Said {
    /// For whom they are.
    pub(super) merchant_id: MerchantId,
    /// How many seconds are left until what was allowed ends; none: it does not by itself.
    grant_expires_in: Option<u64>,
}

impl ExtraTokenFields for Said {}

/// Pauses before the refresh token is sent again whose answer was lost. The server gives the same answer for 30 s.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

impl Source {
    /// A token of the login that is good for a while and is not the one that was refused.
    pub(in crate::client) async fn token(
        &self,
        http: &reqwest::Client,
        server: &Server,
        refused: Option<&str>,
    ) -> Result<Token, CallError> {
        let is_good = |login: &Login| {
            login.access_token_expires_at > self.clock.now().plus(RENEWED_BEFORE_END)
                && refused != Some(login.access_token.secret().as_str())
        };
        let login = self.renewed_unless(http, server, is_good).await?;
        // Names that this program does not know are not what it needs.
        let held: ScopeSet = login
            .scope
            .split_whitespace()
            .filter_map(|name| name.parse().ok())
            .collect();
        if !held.allows_all(self.scopes) {
            let lacking = self
                .scopes
                .iter()
                .filter(|&scope| !held.allows(scope))
                .collect();
            return Err(Error::Lacking {
                server: login.server().to_owned(),
                merchant_id: login.merchant_id,
                lacking,
                needed: self.scopes,
            }
            .into());
        }
        Ok(Token::new(
            login.access_token.secret().clone(),
            Instant::now(),
            login.access_token_expires_at.since(self.clock.now()),
        ))
    }

    /// The login as the server renews it at this moment, whether that is due or not: so it says what the merchant allows now.
    pub async fn renew(&self) -> Result<Login, CallError> {
        let http = crate::client::http()?;
        let server = Server::discover(&http, &self.url).await?;
        self.renewed_unless(&http, &server, |_| false).await
    }

    /// The login as it is in the file if it is good, and else renewed.
    async fn renewed_unless(
        &self,
        http: &reqwest::Client,
        server: &Server,
        is_good: impl Fn(&Login) -> bool,
    ) -> Result<Login, CallError> {
        let find =
            |logins: &super::Logins| logins.one(Some(&self.url), Some(self.merchant_id)).cloned();
        let login = find(&self.file.read()?)?;
        if is_good(&login) {
            return Ok(login);
        }
        let locked = self.file.lock().await?;
        // Another command may have refreshed it while this one waited.
        let mut logins = locked.read()?;
        let login = find(&logins)?;
        if is_good(&login) {
            return Ok(login);
        }
        let login = refresh(http, server, login, || self.clock.now()).await?;
        logins.put(login.clone());
        locked.write(&logins)?;
        Ok(login)
    }
}

/// Exchanges the login's refresh token, again if the answer was lost.
async fn refresh(
    http: &reqwest::Client,
    server: &Server,
    login: Login,
    now: impl Fn() -> Timestamp,
) -> Result<Login, CallError> {
    let client = TokenClient::new(ClientId::new(CLIENT.to_string()))
        .set_token_uri(TokenUrl::from_url(server.token_endpoint.clone()));
    let mut pauses = PAUSES.into_iter();
    loop {
        let requested_at = now();
        let answered = client
            .exchange_refresh_token(&login.refresh_token)
            .request_async(&Transport(http.clone()))
            .await
            .map_err(refused);
        let answer = match answered {
            Ok(answer) => answer,
            Err(CallError::Token { code, .. }) if code == "invalid_grant" => {
                return Err(Error::Ended {
                    server: login.server().to_owned(),
                    merchant_id: login.merchant_id,
                }
                .into());
            }
            Err(error) if error.is_retryable() => {
                let Some(pause) = pauses.next() else {
                    return Err(error);
                };
                tokio::time::sleep(pause).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if answer.extra_fields().merchant_id != login.merchant_id {
            return Err(Error::Mismatch(format!(
                "the server renewed the login for {} with tokens for {}",
                login.merchant_id,
                answer.extra_fields().merchant_id
            ))
            .into());
        }
        return kept(server, &answer, Some(login), requested_at);
    }
}

/// What is kept of the token endpoint's answer. `old` is what it renews.
pub(super) fn kept(
    server: &Server,
    answer: &Tokens,
    old: Option<Login>,
    requested_at: Timestamp,
) -> Result<Login, CallError> {
    let issuer = server
        .issuer
        .parse()
        .map_err(|error| CallError::unreadable("the issuer", error))?;
    let said = answer.extra_fields();
    // What the answer leaves out is as it was (RFC 6749, section 5.1), and a server need not rotate (section 6).
    let scope = answer.scopes().map(|scopes| {
        let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        names.join(" ")
    });
    let old = old.map(|old| (old.scope, old.refresh_token));
    let (old_scope, old_token) = old.unzip();
    Ok(Login {
        issuer,
        merchant_id: said.merchant_id,
        scope: scope.or(old_scope).unwrap_or_default(),
        grant_expires_at: said
            .grant_expires_in
            .map(|seconds| requested_at.plus(Duration::from_secs(seconds))),
        access_token: answer.access_token().clone(),
        access_token_expires_at: requested_at.plus(answer.expires_in().unwrap_or(LIFETIME_UNSAID)),
        refresh_token: answer
            .refresh_token()
            .cloned()
            .or(old_token)
            .ok_or_else(|| Error::Mismatch("the server gave no refresh token".to_owned()))?,
    })
}
