//! The token endpoint (RFC 6749, section 3.2): reads the request, has the grant decide, and signs.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kernel::{caller::Caller, clock::Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::{client_authentication, form::Form};
use crate::{
    client::{self, Proof, token_error::NewTokenError},
    deadline,
    grant::client_credentials::{self, TokenRequest},
    token::{self, AccessToken, Claims, refusal::Refusal},
};

/// What a token request may say, as a form.
#[derive(ToSchema)]
#[schema(example = json!({
    "grant_type": "client_credentials",
    "resource": "https://stoa.example/merchants/mer_01jd3x5k8vfm7b2c9q0r4t6w8y",
    "scope": "orders:read",
    "client_id": "app_01jd3x5k8vfm7b2c9q0r4t6w8y",
    "client_secret": "stoa_secret_…"
}))]
#[allow(
    dead_code,
    reason = "describes the form, which is read pair by pair so that repetitions are seen"
)]
pub(super) struct TokenForm {
    /// `client_credentials`.
    grant_type: String,
    /// The merchant that the token is for (RFC 8707): `{issuer}/merchants/{merchantId}`.
    resource: String,
    /// The scopes that are wanted, with spaces between; all that are granted if there is none.
    scope: Option<String>,
    /// The app's id, unless it is shown by HTTP Basic.
    client_id: Option<String>,
    /// The app's secret, unless it is shown by HTTP Basic.
    client_secret: Option<String>,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer` beside an assertion.
    client_assertion_type: Option<String>,
    /// A JWT signed with a key of the app's (RFC 7523), in place of a secret.
    client_assertion: Option<String>,
}

/// An access token (RFC 6749, section 5.1).
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "access_token": "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiJ9…",
    "token_type": "Bearer", "expires_in": 600, "scope": "orders:read"
}))]
pub(super) struct TokenAnswer<'t> {
    /// The token: a JWT (RFC 9068), for the header `Authorization: Bearer …`.
    access_token: &'t str,
    /// `Bearer`.
    token_type: &'static str,
    /// How many seconds it lasts: 600, or less if the grant ends sooner.
    expires_in: i64,
    /// The scopes that it has.
    scope: &'t str,
}

/// Why there is no token (RFC 6749, section 5.2).
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "error": "invalid_client", "error_description": "The client id or the client secret is wrong."
}))]
pub(super) struct TokenError {
    /// `invalid_request`, `invalid_client`, `unauthorized_client`, `unsupported_grant_type`, `invalid_scope`, `invalid_target` (RFC 8707), `temporarily_unavailable`
    /// or `server_error`.
    error: &'static str,
    /// A sentence for the client's developer.
    error_description: String,
}

/// Issue an access token
///
/// Client credentials (RFC 6749, section 4.4): the app shows its id and secret, by HTTP Basic or in the form, and names one merchant as the
/// `resource` (RFC 8707). The token has the scopes of that merchant's grant, or those of them that `scope` asks for, and lasts ten minutes. There
/// is nothing to refresh: ask again.
#[utoipa::path(
    post,
    path = "/oauth/token",
    operation_id = "issueToken",
    tag = "OAuth",
    security(("clientSecretBasic" = []), ()),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token.", body = TokenAnswer,
            headers(("Cache-Control" = String, description = "`no-store`."))),
        (status = 400, description = "The request, its resource or its scope is refused.", body = TokenError,
            example = json!({"error": "invalid_target", "error_description":
                "The resource must be one merchant, as {issuer}/merchants/{merchantId} with the issuer of /.well-known/oauth-authorization-server, who has a living grant for this client."})),
        (status = 401, description = "The client id or the client secret is wrong.", body = TokenError,
            headers(("WWW-Authenticate" = String, description = "`Basic`."))),
        (status = 429, description = "There were too many failures of this client, or from this network.", body = TokenError,
            headers(("Retry-After" = String, description = "When to ask again, in seconds.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "There were too many failures from here; try again in 6 s."})),
        (status = 500, description = "Something went wrong on our side.", body = TokenError,
            example = json!({"error": "server_error", "error_description": "The token can't be issued."})),
        (status = 503, description = "The database can't be reached at the moment.", body = TokenError,
            headers(("Retry-After" = String, description = "When to ask again, in seconds.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "The token can't be issued at the moment."})),
    )
)]
pub(super) async fn issue(
    State(state): State<super::State>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let now = state.clock.now();
    match decide(&state, &caller, &headers, body, now).await {
        Ok(token) => granted(&token),
        Err(refusal) => refused(refusal),
    }
}

async fn decide(
    state: &super::State,
    caller: &Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    now: Timestamp,
) -> Result<AccessToken, Refusal> {
    let body =
        body.map_err(|_unread| Refusal::InvalidRequest("The body is too large, or breaks off."))?;
    let request = read(headers, &body)?;
    let (client_id, network) = (request.credentials.client_id(), caller.network());
    state
        .limiter
        .check(&client_id, network.as_deref(), now)
        .map_err(|retry_after| Refusal::Throttled { retry_after })?;
    let claims = deadline::in_time(claims(state, &request, now))
        .await
        .inspect_err(|refusal| {
            if refusal.is_wrong_guess() {
                state.limiter.failed(&client_id, network.as_deref(), now);
            }
            // Failures of ours are logged where they are answered.
            if refusal.status() < 500 {
                let client: String = client_id
                    .chars()
                    .take(CLIENT_ID_CHARACTERS_LOGGED)
                    .collect();
                tracing::info!(client.id = ?client, refusal = refusal.code(), "token refused");
                let refusal = NewTokenError {
                    client_id: &client_id,
                    grant_type: Some(client_credentials::GRANT_TYPE),
                    error: refusal.code(),
                    description: refusal.to_string(),
                };
                state.errors.record(caller, refusal, now);
            }
        })?;
    Ok(token::issue(&state.keys, claims)?)
}

/// What the token says.
async fn claims(
    state: &super::State,
    request: &TokenRequest,
    now: Timestamp,
) -> Result<Claims, Refusal> {
    let (mut tx, issuer) = (state.database.begin().await?, &state.issuer);
    let client = client::authenticate(&mut tx, issuer, &request.credentials, now)
        .await?
        .ok_or(Refusal::InvalidClient)?;
    let decided = client_credentials::decide(&mut tx, issuer, &client, request, now).await;
    // An assertion is used up whatever is decided. Otherwise nothing is written: the transaction's end needs no waiting for.
    if client.proof == Proof::Assertion {
        tx.commit().await.map_err(kernel::db::Error::from)?;
    }
    decided
}

/// Characters of a client id that are logged, of one that may be anything.
const CLIENT_ID_CHARACTERS_LOGGED: usize = 64;

fn read(headers: &HeaderMap, body: &[u8]) -> Result<TokenRequest, Refusal> {
    let form = Form::read(headers, body)?;
    match form.get("grant_type") {
        None => {
            return Err(Refusal::InvalidRequest(
                "The parameter grant_type is missing.",
            ));
        }
        Some(client_credentials::GRANT_TYPE) => {}
        Some(_) => return Err(Refusal::UnsupportedGrantType),
    }
    // A client may name several resources (RFC 8707, section 2); a token of ours is for one.
    if form.is_repeated("resource") {
        return Err(Refusal::InvalidTarget);
    }
    Ok(TokenRequest {
        credentials: client_authentication::read(headers, &form)?,
        resource: form.get("resource").map(str::to_owned),
        scope: form.get("scope").map(str::to_owned),
    })
}

/// No answer of this endpoint is kept (RFC 6749, section 5.1).
const NOT_KEPT: [(header::HeaderName, &str); 2] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::PRAGMA, "no-cache"),
];

fn granted(token: &AccessToken) -> Response {
    let answer = TokenAnswer {
        access_token: token.jwt.expose(),
        token_type: "Bearer",
        expires_in: token.expires_in_seconds,
        scope: &token.scope,
    };
    (NOT_KEPT, Json(answer)).into_response()
}

fn refused(refusal: Refusal) -> Response {
    let error_description = refusal.to_string();
    let (error, status, retry_after) = (
        refusal.code(),
        refusal.status(),
        refusal.retry_after_seconds(),
    );
    if let Some(problem) = refusal.into_problem() {
        tracing::error!(error = ?problem, "no token can be issued");
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = (
        status,
        NOT_KEPT,
        Json(TokenError {
            error,
            error_description,
        }),
    )
        .into_response();
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static(r#"Basic realm="stoa", charset="UTF-8""#);
        answer
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = retry_after {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
