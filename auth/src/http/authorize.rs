//! The authorization endpoint (RFC 6749, section 3.1): takes an app's request and sends the browser to the page that decides, or back to the app with
//! an error.

use axum::{
    body::Bytes,
    extract::{RawQuery, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kernel::problem::Problem;
use url::form_urlencoded;
use utoipa::ToSchema;

use super::form;
use crate::{authorization::request::Refusal, deadline};

/// Where the page is that decides; a request's handle follows.
const CONSENT_PATH: &str = "/console/consent/";

/// In the extensions of an answer that sends the browser nowhere, because nobody knows where it would be sent, or because something is wrong on our
/// side: what the person in front of it is to be told. Whoever renders pages makes one of it; the body says the same in plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unredirectable {
    /// A sentence.
    pub reason: &'static str,
}

/// What an authorization request may say, as a query or as a form.
#[derive(ToSchema)]
#[schema(example = json!({
    "response_type": "code",
    "client_id": "app_01jd3x5k8vfm7b2c9q0r4t6w8y",
    "redirect_uri": "https://parcel-desk.example/callback",
    "scope": "orders:read fulfillments:write",
    "state": "af0ifjsldkj",
    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
    "code_challenge_method": "S256"
}))]
#[allow(
    dead_code,
    reason = "describes the form, which is read pair by pair so that repetitions are seen"
)]
pub(super) struct AuthorizationForm {
    /// `code`.
    response_type: String,
    /// The app's id.
    client_id: String,
    /// Where to send the answer: one that the app has registered, character by character; the port of `http://127.0.0.1` and `http://[::1]` is free.
    redirect_uri: String,
    /// What is asked for, with spaces between; all that the app has said that it may ask for, if it has.
    scope: Option<String>,
    /// Comes back with the answer; at most 2,048 characters of ASCII.
    state: Option<String>,
    /// The SHA-256 of the verifier in base64url (RFC 7636).
    code_challenge: String,
    /// `S256`.
    code_challenge_method: String,
    /// The merchant that is asked (RFC 8707): `{issuer}/merchants/{merchantId}`; whoever consents chooses if there is none.
    resource: Option<String>,
    /// For how many seconds the grant is asked for at most; as long as the merchant likes if there is none.
    grant_expires_in: Option<String>,
    /// `query`, or nothing.
    response_mode: Option<String>,
}

/// Ask a merchant for a grant
///
/// Where an app sends a browser (RFC 6749, section 4.1.1), with PKCE (RFC 7636, S256) required of every app. Somebody of the merchant's staff signs in
/// and decides; the answer comes to the redirect URI with `code` or `error`, the `state` that was sent, and `iss` (RFC 9207). An unknown app or
/// redirect URI is answered by a page and never redirected.
#[utoipa::path(
    get,
    path = "/oauth/authorize",
    operation_id = "authorize",
    tag = "OAuth",
    security(()),
    params(
        ("response_type" = String, Query, description = "`code`.", example = "code"),
        ("client_id" = String, Query, description = "The app's id.", example = "app_01jd3x5k8vfm7b2c9q0r4t6w8y"),
        ("redirect_uri" = String, Query, description = "Where to send the answer: one that the app has registered, character by character; the port of `http://127.0.0.1` and `http://[::1]` is free.", example = "https://parcel-desk.example/callback"),
        ("scope" = Option<String>, Query, description = "What is asked for, with spaces between; all that the app has said that it may ask for, if it has.", example = "orders:read fulfillments:write"),
        ("state" = Option<String>, Query, description = "Comes back with the answer; at most 2,048 characters of ASCII.", example = "af0ifjsldkj"),
        ("code_challenge" = String, Query, description = "The SHA-256 of the verifier in base64url (RFC 7636).", example = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
        ("code_challenge_method" = String, Query, description = "`S256`.", example = "S256"),
        ("resource" = Option<String>, Query, description = "The merchant that is asked (RFC 8707); whoever consents chooses if there is none.", example = "https://stoa.example/merchants/mer_01jd3x5k8vfm7b2c9q0r4t6w8y"),
        ("grant_expires_in" = Option<String>, Query, description = "For how many seconds the grant is asked for at most; as long as the merchant likes if there is none.", example = "2592000"),
        ("response_mode" = Option<String>, Query, description = "`query`, or nothing.", example = "query"),
    ),
    responses(
        (status = 303, description = "To the page that decides, or to the redirect URI with `error`, `error_description`, `state` and `iss`.",
            headers(("Location" = String, description = "Where to go."))),
        (status = 400, description = "The app or the redirect URI is not known: nobody is sent anywhere.", body = String, content_type = "text/plain",
            example = "The app is not known here. The parameter client_id must be the id of an app."),
        (status = 503, description = "The database can't be reached at the moment.", body = String, content_type = "text/plain",
            example = "The request can't be taken at the moment."),
    )
)]
pub(super) async fn by_query(
    State(state): State<super::State>,
    RawQuery(query): RawQuery,
) -> Response {
    begin(&state, query.unwrap_or_default().as_bytes()).await
}

/// Ask a merchant for a grant, by a form
///
/// The same as by GET, for requests that would make a URL too long.
#[utoipa::path(
    post,
    path = "/oauth/authorize",
    operation_id = "authorizeByForm",
    tag = "OAuth",
    security(()),
    request_body(content = AuthorizationForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "To the page that decides, or to the redirect URI with `error`, `error_description`, `state` and `iss`.",
            headers(("Location" = String, description = "Where to go."))),
        (status = 400, description = "The app or the redirect URI is not known: nobody is sent anywhere.", body = String, content_type = "text/plain",
            example = "The app is not known here. The parameter client_id must be the id of an app."),
        (status = 503, description = "The database can't be reached at the moment.", body = String, content_type = "text/plain",
            example = "The request can't be taken at the moment."),
    )
)]
pub(super) async fn by_form(
    State(state): State<super::State>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match body {
        Ok(body) if form::is_form(&headers) => begin(&state, &body).await,
        _ => unredirectable(
            StatusCode::BAD_REQUEST,
            "The request must be a form of at most 16 KiB.",
        ),
    }
}

async fn begin(state: &super::State, encoded: &[u8]) -> Response {
    let parameters: Vec<_> = form_urlencoded::parse(encoded).into_owned().collect();
    match deadline::in_time(state.authorizations().begin(&parameters)).await {
        Ok(handle) => see_other(&format!("{CONSENT_PATH}{}", handle.expose())),
        Err(Refusal::Redirected(url)) => see_other(url.as_str()),
        Err(Refusal::Unredirectable(reason)) => unredirectable(StatusCode::BAD_REQUEST, reason),
        Err(Refusal::Failed(error)) => {
            let problem = Problem::from(error);
            tracing::error!(error = ?problem, "no authorization request can be taken");
            let status = StatusCode::from_u16(problem.kind.status)
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut answer = unredirectable(status, "The request can't be taken at the moment.");
            if let Some(after) = problem.retry_after {
                let seconds = HeaderValue::from(after.as_secs().max(1));
                answer.headers_mut().insert(header::RETRY_AFTER, seconds);
            }
            answer
        }
    }
}

/// 303, so that whatever brought the browser here it goes on by GET: nothing that was posted here is posted there (RFC 9700, section 4.12).
fn see_other(location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (
            StatusCode::SEE_OTHER,
            [
                (header::LOCATION, location),
                (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ],
        )
            .into_response(),
        // A parsed URL is of visible ASCII.
        Err(_) => unredirectable(
            StatusCode::BAD_REQUEST,
            "The address to go back to can't be gone to.",
        ),
    }
}

fn unredirectable(status: StatusCode, reason: &'static str) -> Response {
    let mut answer = (status, [(header::CACHE_CONTROL, "no-store")], reason).into_response();
    answer.extensions_mut().insert(Unredirectable { reason });
    answer
}
