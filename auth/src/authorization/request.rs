//! The authorization request (RFC 6749, section 4.1.1): read, checked, and kept until somebody decides.
//!
//! Client and redirect URI come first: while either is in doubt, nobody is redirected anywhere (section 4.1.2.1). Whatever else is wrong is
//! answered to the redirect URI.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    db,
    id::MerchantId,
    problem::{self, Problem},
    scope::{Scope, ScopeSet},
};
use sqlx::PgConnection;
use url::Url;

use super::{
    answer,
    pkce::{self, Challenge},
    store::{self, RequestRow},
};
use crate::{
    Error, Issuer,
    client::{
        app::{self, App},
        secret::Secret,
    },
};

/// How long a request waits for a decision: long enough to sign in and to read.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// Characters of `state`: it comes back in a URL.
const STATE_LENGTH_MAX: usize = 2_048;

/// The longest time that a grant may be asked for, beyond which an app may as well ask for no end: a hundred years.
const GRANT_EXPIRES_IN_SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// Why a request is not kept.
#[derive(Debug)]
pub enum Refusal {
    /// The client or the redirect URI is wrong: the browser must not be sent anywhere. A sentence for the person in front of it.
    Unredirectable(&'static str),
    /// Where to send the browser with the error.
    Redirected(Box<Url>),
    /// Something is wrong on our side, and the redirect URI is not known yet.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<db::Error> for Refusal {
    fn from(error: db::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// What an app asks for, as a page shows it.
#[derive(Debug, Clone)]
pub struct PendingRequest {
    /// The app.
    pub app: App,
    /// What it asks to do, without `orders.pii:read`.
    pub scopes: ScopeSet,
    /// Whether it asks for `orders.pii:read` too.
    pub personal_data: bool,
    /// Which of `scopes` the app can't do without. Personal data is always the merchant's to withhold.
    pub required: ScopeSet,
    /// The merchant that it is for; `None`: whoever consents chooses.
    pub merchant: Option<MerchantId>,
    /// For how long it asks at most; `None`: as long as the merchant likes.
    pub longest: Option<Duration>,
    /// Where the answer goes.
    pub redirect_uri: Url,
    /// Until when it waits for a decision.
    pub expires_at: Timestamp,
}

/// Reads the parameters, and keeps the request under a new handle. Runs in a transaction that has entered no merchant.
pub(super) async fn receive(
    tx: &mut PgConnection,
    issuer: &Issuer,
    parameters: &[(String, String)],
    now: Timestamp,
) -> Result<Secret, Refusal> {
    let parameters = Parameters(parameters);
    let app = client(tx, &parameters).await?;
    let (asked_uri, redirect_uri) = redirect_uri(&app, &parameters)?;
    // From here on the app is answered, with its state if it sent one that can be told.
    let state = parameters.state();
    let refused = |error: &str, description: &str| {
        let state = state.as_ref().ok().copied().flatten();
        let url = answer::error(issuer, redirect_uri.clone(), state, error, description);
        Refusal::Redirected(Box::new(url))
    };
    let asked = parameters
        .read(issuer, &app)
        .map_err(|Fault { error, description }| refused(error, description))?;
    let handle = Secret::generate("");
    let row = RequestRow {
        app_id: app.id,
        redirect_uri: asked_uri.to_owned(),
        scopes: asked.scopes.names(),
        state: asked.state.map(str::to_owned),
        code_challenge: asked.challenge.as_str().to_owned(),
        merchant_id: asked.merchant,
        grant_expires_in_s: asked.grant_expires_in_seconds,
        expires_at: now.plus(LIFETIME),
        decided_at: None,
    };
    store::insert_request(tx, &handle.sha256(), &row, now)
        .await
        .map_err(|error| {
            let problem = Problem::from(error);
            tracing::error!(error = ?problem, "an authorization request can't be kept");
            if *problem.kind == problem::UNAVAILABLE {
                refused(
                    "temporarily_unavailable",
                    "The request can't be taken at the moment.",
                )
            } else {
                refused("server_error", "The request can't be taken.")
            }
        })?;
    Ok(handle)
}

/// The request under `handle`, for a page.
pub(super) async fn pending(
    tx: &mut PgConnection,
    handle: &str,
    now: Timestamp,
) -> Result<PendingRequest, Error> {
    let row = store::select_request(tx, &hash(handle)).await?;
    waiting(tx, row, now).await.map(|(_row, pending)| pending)
}

/// The same, locked: only one decides.
pub(super) async fn pending_for_update(
    tx: &mut PgConnection,
    handle: &str,
    now: Timestamp,
) -> Result<(RequestRow, PendingRequest), Error> {
    let row = store::select_request_for_update(tx, &hash(handle)).await?;
    waiting(tx, row, now).await
}

/// Notes that the request under `handle` has been decided.
pub(super) async fn decided(
    tx: &mut PgConnection,
    handle: &str,
    now: Timestamp,
) -> Result<(), Error> {
    Ok(store::mark_request_decided(tx, &hash(handle), now).await?)
}

fn hash(handle: &str) -> [u8; 32] {
    Secret::new(handle.to_owned()).sha256()
}

/// A request that can still be decided. What the app may do is asked again: its developer may have taken a redirect URI or a scope back since.
async fn waiting(
    tx: &mut PgConnection,
    row: Option<RequestRow>,
    now: Timestamp,
) -> Result<(RequestRow, PendingRequest), Error> {
    let gone = || Error::Gone("authorization request");
    let row = row
        .filter(|row| row.decided_at.is_none() && now < row.expires_at)
        .ok_or_else(gone)?;
    let app = app::get(tx, row.app_id).await?;
    if !app.allows_redirect_to(&row.redirect_uri) {
        return Err(gone());
    }
    let redirect_uri = Url::parse(&row.redirect_uri)
        .map_err(|cause| db::Error::corrupt("authorization_requests", row.app_id, cause))?;
    let known: ScopeSet = row
        .scopes
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    let asked = app.may_ask_for(known);
    if asked.is_empty() {
        return Err(gone());
    }
    let scopes: ScopeSet = asked
        .iter()
        .filter(|&scope| scope != Scope::OrdersPiiRead)
        .collect();
    let pending = PendingRequest {
        required: app.required_scopes.within(scopes),
        personal_data: asked.allows(Scope::OrdersPiiRead),
        scopes,
        merchant: row.merchant_id,
        longest: row
            .grant_expires_in_s
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
        redirect_uri,
        expires_at: row.expires_at,
        app,
    };
    Ok((row, pending))
}

/// There is one client, and one answer to whoever names none: whether an id was ever given away is nobody's business.
async fn client(tx: &mut PgConnection, parameters: &Parameters<'_>) -> Result<App, Refusal> {
    let unknown = Refusal::Unredirectable(
        "The app is not known here. The parameter client_id must be the id of an app.",
    );
    let Ok(Some(id)) = parameters.single("client_id") else {
        return Err(unknown);
    };
    let Ok(id) = id.parse() else {
        return Err(unknown);
    };
    match app::get(tx, id).await {
        Ok(app) => Ok(app),
        Err(Error::NotFound { .. }) => Err(unknown),
        Err(other) => Err(other.into()),
    }
}

/// Where to answer: the text that was asked for, and the same as a URL.
fn redirect_uri<'p>(app: &App, parameters: &Parameters<'p>) -> Result<(&'p str, Url), Refusal> {
    let refused = Refusal::Unredirectable(
        "The address to go back to is not one that the app has registered. The parameter redirect_uri must be one of them, character by character.",
    );
    let Ok(Some(asked)) = parameters.single("redirect_uri") else {
        return Err(refused);
    };
    if !app.allows_redirect_to(asked) {
        return Err(refused);
    }
    Url::parse(asked)
        .map(|url| (asked, url))
        .map_err(|_unread| refused)
}

/// What the app asks for, once it can be answered.
struct Asked<'p> {
    state: Option<&'p str>,
    challenge: Challenge,
    scopes: ScopeSet,
    merchant: Option<MerchantId>,
    grant_expires_in_seconds: Option<i64>,
}

/// What the app is answered.
struct Fault {
    error: &'static str,
    description: &'static str,
}

const fn fault(error: &'static str, description: &'static str) -> Fault {
    Fault { error, description }
}

/// A parameter is there more than once.
struct Repeated;

/// The parameters as they came. Those that mean nothing here are ignored (RFC 6749, section 3.1).
struct Parameters<'p>(&'p [(String, String)]);

impl<'p> Parameters<'p> {
    /// The value of `name`; an empty one counts as absent (RFC 6749, section 3.1).
    fn single(&self, name: &str) -> Result<Option<&'p str>, Repeated> {
        let mut values = self
            .0
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, value)| value.as_str());
        let value = values.next().filter(|value| !value.is_empty());
        match values.next() {
            None => Ok(value),
            Some(_) => Err(Repeated),
        }
    }

    /// The same as [`single`](Self::single), for a client that can be answered.
    fn one(&self, name: &str) -> Result<Option<&'p str>, Fault> {
        self.single(name)
            .map_err(|Repeated| fault("invalid_request", "A parameter is repeated."))
    }

    /// `state`, if it can be given back: once, not too long, and of characters that RFC 6749 (appendix A.5) has.
    fn state(&self) -> Result<Option<&'p str>, Fault> {
        let state = self.one("state")?;
        match state {
            Some(state)
                if state.len() > STATE_LENGTH_MAX
                    || !state.bytes().all(|byte| (b' '..=b'~').contains(&byte)) =>
            {
                Err(fault(
                    "invalid_request",
                    "The parameter state must have at most 2,048 characters of ASCII.",
                ))
            }
            state => Ok(state),
        }
    }

    fn read(&self, issuer: &Issuer, app: &App) -> Result<Asked<'p>, Fault> {
        let state = self.state()?;
        if self.one("request")?.is_some() {
            return Err(fault(
                "request_not_supported",
                "Request objects (RFC 9101) are not supported.",
            ));
        }
        if self.one("request_uri")?.is_some() {
            return Err(fault(
                "request_uri_not_supported",
                "References to requests (RFC 9101, RFC 9126) are not supported.",
            ));
        }
        match self.one("response_type")? {
            Some("code") => {}
            None => {
                return Err(fault(
                    "invalid_request",
                    "The parameter response_type is missing.",
                ));
            }
            Some(_) => {
                return Err(fault(
                    "unsupported_response_type",
                    "The response type must be code.",
                ));
            }
        }
        if self
            .one("response_mode")?
            .is_some_and(|mode| mode != "query")
        {
            return Err(fault("invalid_request", "The response mode must be query."));
        }
        Ok(Asked {
            state,
            challenge: self.challenge()?,
            merchant: self.merchant(issuer)?,
            scopes: self.scopes(app)?,
            grant_expires_in_seconds: self.grant_expires_in_seconds()?,
        })
    }

    /// Required of every client (RFC 9700, section 2.1.1); no method is `plain` (RFC 7636, section 4.3), which is refused.
    fn challenge(&self) -> Result<Challenge, Fault> {
        let challenge = self.one("code_challenge")?.ok_or(fault(
            "invalid_request",
            "The parameter code_challenge is missing: PKCE (RFC 7636) is required.",
        ))?;
        if self.one("code_challenge_method")? != Some(pkce::METHOD) {
            return Err(fault(
                "invalid_request",
                "The parameter code_challenge_method must be S256.",
            ));
        }
        Challenge::parse(challenge).ok_or(fault(
            "invalid_request",
            "The parameter code_challenge must be the SHA-256 of the verifier in base64url: 43 characters.",
        ))
    }

    /// The merchant of `resource` (RFC 8707, section 2.1). Whether there is such a merchant is not told.
    fn merchant(&self, issuer: &Issuer) -> Result<Option<MerchantId>, Fault> {
        let refused = fault(
            "invalid_target",
            "The resource must be one merchant, as {issuer}/merchants/{merchantId}.",
        );
        match self.single("resource") {
            Ok(None) => Ok(None),
            Ok(Some(resource)) => issuer.merchant_of(resource).map(Some).ok_or(refused),
            // A client may name several (RFC 8707, section 2); a grant of ours is one merchant's.
            Err(Repeated) => Err(refused),
        }
    }

    /// What is asked for; nothing named is all that the app has said that it may ask for, if it has (RFC 6749, section 3.3).
    fn scopes(&self, app: &App) -> Result<ScopeSet, Fault> {
        let scopes = match self.one("scope")? {
            Some(names) => names
                .parse()
                .map_err(|_unknown| fault("invalid_scope", "There is no such scope."))?,
            None => app.scopes.unwrap_or_default(),
        };
        if scopes.is_empty() {
            return Err(fault(
                "invalid_scope",
                "The parameter scope must name at least one scope.",
            ));
        }
        if app.may_ask_for(scopes) != scopes {
            return Err(fault(
                "invalid_scope",
                "A scope is not among those that the app may ask for.",
            ));
        }
        Ok(scopes)
    }

    fn grant_expires_in_seconds(&self) -> Result<Option<i64>, Fault> {
        let Some(text) = self.one("grant_expires_in")? else {
            return Ok(None);
        };
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>()
            .ok()
            .filter(|seconds| is_number && (1..=GRANT_EXPIRES_IN_SECONDS_MAX).contains(seconds))
            .and_then(|seconds| i64::try_from(seconds).ok())
            .map(Some)
            .ok_or(fault(
                "invalid_request",
                "The parameter grant_expires_in must be a number of seconds, at least 1 and at most 100 years.",
            ))
    }
}
