//! How a login is made: a person allows it in the browser, and the browser brings a code to a port of this machine (RFC 8252), which is exchanged for tokens
//! together with what only this process knows (PKCE, RFC 7636).

use std::borrow::Cow;

use kernel::{clock::Clock, id::MerchantId};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, TokenUrl, basic::BasicClient,
};
use url::Url;

use super::{
    CLIENT, Error, Login, LoginFile,
    callback::{Answer, Callback},
    refresh::{TokenClient, Tokens, kept},
    revocation::revoke,
};
use crate::client::{
    Error as CallError, http,
    server::{Server, Transport, is_same_issuer, refused},
    token::scopes,
};

/// Random bytes of the state.
const STATE_BYTES: u32 = 32;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The server.
    pub url: Url,
    /// The merchant; none: whoever is asked chooses.
    pub merchant: Option<MerchantId>,
    /// The scopes, with spaces between.
    pub scope: String,
}

/// A login on its way: the port is open, and nobody has been asked yet.
#[derive(Debug)]
pub struct Authorization {
    http: reqwest::Client,
    server: Server,
    request: Request,
    callback: Callback,
    redirect: RedirectUrl,
    state: CsrfToken,
    verifier: PkceCodeVerifier,
    url: Url,
}

impl Authorization {
    /// Finds the server and opens a port.
    pub async fn begin(request: Request) -> Result<Self, CallError> {
        let http = http()?;
        let server = Server::discover(&http, &request.url).await?;
        let endpoint = server.endpoint("authorization", server.authorization_endpoint.as_ref())?;
        let callback = Callback::bind().await?;
        let redirect = RedirectUrl::new(callback.redirect_uri())
            .map_err(|error| CallError::unreadable("the redirect URI", error))?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let client = BasicClient::new(ClientId::new(CLIENT.to_string()))
            .set_auth_uri(AuthUrl::from_url(endpoint.clone()));
        let mut asked = client
            .authorize_url(|| CsrfToken::new_random_len(STATE_BYTES))
            .set_redirect_uri(Cow::Borrowed(&redirect))
            .set_pkce_challenge(challenge)
            .add_scopes(scopes(&request.scope));
        if let Some(merchant) = request.merchant {
            asked = asked.add_extra_param("resource", server.resource(merchant));
        }
        let (url, state) = asked.url();
        Ok(Self {
            http,
            server,
            request,
            callback,
            redirect,
            state,
            verifier,
            url,
        })
    }

    /// The address that the person must open, in a browser of this machine.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Waits for the answer, exchanges it, and keeps the login in `file`. A login that was there for the same server and merchant is given back.
    pub async fn complete(self, file: &LoginFile, clock: &Clock) -> Result<Login, CallError> {
        let Self {
            http,
            server,
            request,
            callback,
            redirect,
            state,
            verifier,
            ..
        } = self;
        let decide = async |answer: Answer| {
            let code = accepted(answer, &server)?;
            let requested_at = clock.now();
            let tokens = exchange(&http, &server, code, &redirect, verifier).await?;
            let mut login = kept(&server, &tokens, None, requested_at)?;
            if let Some(merchant) = request.merchant
                && merchant != login.merchant_id
            {
                return Err(Error::Mismatch(format!(
                    "the answer is for {}, not for {merchant}",
                    login.merchant_id
                ))
                .into());
            }
            let locked = file.lock().await?;
            let mut logins = locked.read()?;
            let old = logins.put(login.clone());
            locked.write(&logins)?;
            // Best given back, but no reason to fail: it ends by itself when it is not used. The grant's older tokens end with it, the new one among them, so that
            // is refreshed when it is used first.
            if let Some(old) = old
                && revoke(&old).await.is_ok()
            {
                login.access_token_expires_at = requested_at;
                logins.put(login.clone());
                locked.write(&logins)?;
            }
            Ok(login)
        };
        callback.answered(state.into_secret(), decide).await
    }
}

/// The code of an answer that comes from the server that was asked. Its state was checked when it was taken.
fn accepted(answer: Answer, server: &Server) -> Result<AuthorizationCode, Error> {
    // RFC 9207, section 2.4: in answers of either kind, before anything else is believed.
    let issuer = answer.iss.unwrap_or_default();
    if !is_same_issuer(&issuer, &server.issuer) {
        return Err(Error::Mismatch(format!(
            "the answer calls itself one of {issuer:?}, and {} was asked",
            server.issuer
        )));
    }
    match (answer.code, answer.error) {
        (Some(code), None) => Ok(AuthorizationCode::new(code)),
        (_, Some(code)) => Err(Error::Refused {
            code,
            description: answer.error_description,
        }),
        (None, None) => Err(Error::Mismatch("the answer has no code".to_owned())),
    }
}

/// Exchanges the code (RFC 6749, section 4.1.3).
async fn exchange(
    http: &reqwest::Client,
    server: &Server,
    code: AuthorizationCode,
    redirect: &RedirectUrl,
    verifier: PkceCodeVerifier,
) -> Result<Tokens, CallError> {
    TokenClient::new(ClientId::new(CLIENT.to_string()))
        .set_token_uri(TokenUrl::from_url(server.token_endpoint.clone()))
        .exchange_code(code)
        .set_redirect_uri(Cow::Borrowed(redirect))
        .set_pkce_verifier(verifier)
        .request_async(&Transport(http.clone()))
        .await
        .map_err(refused)
}
