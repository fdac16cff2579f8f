//! Installing: the merchant is asked in the browser (RFC 6749, section 4.1), and the browser brings back a code.
//!
//! Three things tie the answer to the question: the cookie, to the browser that asked; `state`, to the request of that browser; `iss` (RFC 9207), to the server that
//! was asked. The code is worth nothing without the verifier (RFC 7636), which never leaves this process.

use std::{
    borrow::Cow,
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, header},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, CsrfToken, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, basic::BasicClient,
};
use serde::Deserialize;

use crate::{
    App, SCOPE,
    access::Merchant,
    failure::{Failure, Result},
};

/// How long a merchant may take: as long as the server keeps the request.
const PATIENCE: Duration = Duration::from_mins(10);

/// Requests that wait at most; beyond it the oldest is forgotten.
const WAITING_MAX: usize = 1_000;

/// The cookie that ties an answer to the browser that asked. Only the callback gets it.
const COOKIE: &str = "parcel_desk_install";

/// Requests that wait for their answer.
#[derive(Default)]
pub(crate) struct Installing(Mutex<VecDeque<Waiting>>);

struct Waiting {
    /// What the cookie holds.
    browser: String,
    state: String,
    verifier: PkceCodeVerifier,
    begun_at: Instant,
}

impl Installing {
    fn put(&self, waiting: Waiting) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.retain(|waiting| waiting.begun_at.elapsed() < PATIENCE);
        if queue.len() >= WAITING_MAX {
            queue.pop_front();
        }
        queue.push_back(waiting);
    }

    /// Takes out the request of this browser with this state: an answer is good once.
    fn take(&self, browser: &str, state: &str) -> Option<Waiting> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queue.retain(|waiting| waiting.begun_at.elapsed() < PATIENCE);
        let place = queue
            .iter()
            .position(|waiting| waiting.browser == browser && waiting.state == state)?;
        queue.remove(place)
    }
}

/// Whom to ask.
#[derive(Deserialize)]
pub(crate) struct Begin {
    /// The merchant, where it is known, as when it installs again.
    merchant: Option<Merchant>,
}

/// Sends the browser to the server, where the merchant is asked.
pub(crate) async fn begin(
    State(app): State<Arc<App>>,
    Query(wanted): Query<Begin>,
) -> Result<Response> {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let redirect_uri = RedirectUrl::new(app.redirect_uri.clone())?;
    let client = BasicClient::new(ClientId::new(app.stoa.client_id.clone()))
        .set_auth_uri(AuthUrl::new(format!("{}/oauth/authorize", app.stoa.url))?);
    let mut request = client
        .authorize_url(|| CsrfToken::new_random_len(32))
        .set_redirect_uri(Cow::Borrowed(&redirect_uri))
        .set_pkce_challenge(challenge)
        .add_scopes(SCOPE.split(' ').map(|scope| Scope::new(scope.to_owned())));
    if let Some(merchant) = &wanted.merchant {
        request = request.add_extra_param("resource", app.resource(merchant));
    }
    let (url, state) = request.url();
    let browser = CsrfToken::new_random_len(32).into_secret();
    app.installing.put(Waiting {
        browser: browser.clone(),
        state: state.into_secret(),
        verifier,
        begun_at: Instant::now(),
    });
    let secure = if app.redirect_uri.starts_with("https") {
        "; Secure"
    } else {
        ""
    };
    let seconds = PATIENCE.as_secs();
    let cookie = format!(
        "{COOKIE}={browser}; Path=/callback; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    );
    let headers = AppendHeaders([(header::SET_COOKIE, cookie)]);
    Ok((headers, Redirect::to(url.as_str())).into_response())
}

/// What the browser brings back (RFC 6749, section 4.1.2).
#[derive(Deserialize)]
pub(crate) struct Answer {
    code: Option<String>,
    state: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// Exchanges the code that the browser brings, and keeps what comes of it.
pub(crate) async fn finish(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Query(answer): Query<Answer>,
) -> Result<Response> {
    let refuse = |reason: &str| Failure::NotInstalled(reason.to_owned());
    let cookies = headers.get_all(header::COOKIE).iter();
    let browser = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    let waiting = browser
        .zip(answer.state.as_deref())
        .and_then(|(browser, state)| app.installing.take(browser, state))
        .ok_or_else(|| refuse("this browser has not asked, or too long ago"))?;
    // Before anything else is believed, errors included.
    if answer.iss.as_deref() != Some(&app.stoa.url) {
        return Err(refuse("the answer comes from another server"));
    }
    if let Some(error) = answer.error {
        return Err(refuse(&error));
    }
    let code = answer.code.ok_or_else(|| refuse("there is no code"))?;
    let merchant = app
        .exchange(AuthorizationCode::new(code), waiting.verifier)
        .await?;
    let spent = format!("{COOKIE}=; Path=/callback; Max-Age=0; HttpOnly; SameSite=Lax");
    let headers = AppendHeaders([(header::SET_COOKIE, spent)]);
    Ok((headers, Redirect::to(&format!("/merchants/{merchant}"))).into_response())
}
