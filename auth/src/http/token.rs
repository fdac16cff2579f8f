//! The token endpoint (RFC 6749, section 3.2): reads the request, has the grant decide, and signs.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kernel::{caller::Caller, clock::Timestamp, id::MerchantId};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::{attempt::Attempt, client_authentication, form::Form};
use crate::{
    client::{self, Client, Proof, secret::Secret},
    grant::{
        Issued,
        authorization_code::{self, CodeRequest},
        client_credentials::{self, TokenRequest},
        refresh_token::{self, RefreshRequest},
    },
    token::{self, AccessToken, refusal::Refusal},
};

/// What a token request may say, as a form.
#[derive(ToSchema)]
#[schema(example = json!({
    "grant_type": "authorization_code",
    "code": "stoa_code_…",
    "redirect_uri": "https://parcel-desk.example/callback",
    "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "client_id": "app_01jd3x5k8vfm7b2c9q0r4t6w8y",
    "client_secret": "stoa_secret_…"
}))]
#[allow(
    dead_code,
    reason = "describes the form, which is read pair by pair so that repetitions are seen"
)]
pub(super) struct TokenForm {
    /// `authorization_code`, `refresh_token` or `client_credentials`.
    grant_type: String,
    /// With `authorization_code`: the code.
    code: Option<String>,
    /// With `authorization_code`: the redirect URI of the authorization request.
    redirect_uri: Option<String>,
    /// With `authorization_code`: what the request's `code_challenge` is the hash of.
    code_verifier: Option<String>,
    /// With `refresh_token`: the refresh token.
    refresh_token: Option<String>,
    /// The merchant that the token is for (RFC 8707): `{issuer}/merchants/{merchantId}`. Needed with `client_credentials`; with the others the merchant is
    /// known, and this can only say the same.
    resource: Option<String>,
    /// With `refresh_token` and `client_credentials`: the scopes that are wanted, with spaces between; all that are granted if there is none.
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
    "token_type": "Bearer", "expires_in": 600, "scope": "orders:read",
    "refresh_token": "stoa_refresh_…", "merchant_id": "mer_01jd3x5k8vfm7b2c9q0r4t6w8y", "grant_expires_in": 2_592_000
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
    /// What gets the next one, and is good once; not with `client_credentials`.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'t str>,
    /// The merchant that it is for.
    merchant_id: MerchantId,
    /// How many seconds are left until the merchant's grant ends; left out if it does not by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_expires_in: Option<i64>,
}

/// Why there is no token (RFC 6749, section 5.2).
#[derive(Serialize, ToSchema)]
#[schema(example = json!({
    "error": "invalid_client", "error_description": "The client id or the client secret is wrong."
}))]
pub(super) struct TokenError {
    /// `invalid_request`, `invalid_client`, `invalid_grant`, `unauthorized_client`, `unsupported_grant_type`, `invalid_scope`, `invalid_target` (RFC
    /// 8707), `temporarily_unavailable` or `server_error`.
    error: &'static str,
    /// A sentence for the client's developer.
    error_description: String,
}

/// Issue an access token
///
/// For a code (RFC 6749, section 4.1.3), a refresh token (section 6) or the client's own credentials (section 4.4). The app proves itself by HTTP Basic, in
/// the form or by an assertion (RFC 7523); a public client names itself. The token is for one merchant, has the scopes of that merchant's grant as far as
/// they were asked for, and lasts ten minutes.
///
/// A code is good once, for a minute. A refresh token is good once too: the answer has the next one. Whoever loses an answer may ask again with the same
/// refresh token for 30 seconds and gets the same next one, as long as that has not been used; a refresh token that comes again after that ends all
/// tokens that came from its code.
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
        (status = 401, description = "The client is not known, or does not prove that it is this one.", body = TokenError,
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
    match decide(&state, &caller, &headers, body).await {
        Ok(tokens) => granted(&tokens),
        Err(refusal) => refused(refusal),
    }
}

/// What the client gets.
struct Tokens {
    access_token: AccessToken,
    refresh_token: Option<Secret>,
    merchant: MerchantId,
    grant_expires_in_seconds: Option<i64>,
}

async fn decide(
    state: &super::State,
    caller: &Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Tokens, Refusal> {
    let arrived = state.clock.now();
    let body =
        body.map_err(|_unread| Refusal::InvalidRequest("The body is too large, or breaks off."))?;
    let form = Form::read(headers, &body)?;
    let asked = Asked::read(&form)?;
    let credentials = client_authentication::read(headers, &form)?;
    let grant_type = form.get("grant_type");
    let attempt = Attempt::begin(state, caller, &credentials, grant_type, arrived)?;
    let decided = async {
        let mut tx = state.database.begin().await?;
        let client = client::authenticate(&mut tx, &state.issuer, &credentials, arrived)
            .await?
            .ok_or(Refusal::InvalidClient)?;
        let decided = asked.decide(&mut tx, state, &client, caller, arrived).await;
        // An assertion is used up whatever is decided, and what a refused code or refresh token has led to stands. Otherwise nothing is written: the
        // transaction's end needs no waiting for.
        let is_ours = decided.as_ref().is_err_and(Refusal::is_ours);
        if (asked.writes() || client.proof == Proof::Assertion) && !is_ours {
            tx.commit().await.map_err(kernel::db::Error::from)?;
        }
        decided
    };
    let issued = attempt.end(decided).await?;
    Ok(Tokens {
        access_token: token::issue(&state.keys, issued.claims)?,
        refresh_token: issued.refresh_token,
        merchant: issued.merchant,
        grant_expires_in_seconds: issued
            .grant_expires_at
            .map(|end| end.unix_seconds().saturating_sub(arrived.unix_seconds())),
    })
}

/// What is asked for, by the grant type: each has a file of its own that decides.
enum Asked {
    AuthorizationCode(CodeRequest),
    RefreshToken(RefreshRequest),
    ClientCredentials(TokenRequest),
}

impl Asked {
    fn read(form: &Form) -> Result<Self, Refusal> {
        // A client may name several resources (RFC 8707, section 2); a token of ours is for one.
        let resource = if form.is_repeated("resource") {
            Err(Refusal::InvalidTarget)
        } else {
            Ok(form.get("resource").map(str::to_owned))
        };
        let scope = form.get("scope").map(str::to_owned);
        let secret = |name, missing| {
            let value = form.get(name).map(|text| Secret::new(text.to_owned()));
            value.ok_or(Refusal::InvalidRequest(missing))
        };
        match form.get("grant_type") {
            None => Err(Refusal::InvalidRequest(
                "The parameter grant_type is missing.",
            )),
            Some(authorization_code::GRANT_TYPE) => Ok(Self::AuthorizationCode(CodeRequest {
                code: secret("code", "The parameter code is missing.")?,
                redirect_uri: form
                    .get("redirect_uri")
                    .ok_or(Refusal::InvalidRequest(
                        "The parameter redirect_uri is missing.",
                    ))?
                    .to_owned(),
                code_verifier: secret(
                    "code_verifier",
                    "The parameter code_verifier is missing: PKCE (RFC 7636) is required.",
                )?,
                resource: resource?,
            })),
            Some(refresh_token::GRANT_TYPE) => Ok(Self::RefreshToken(RefreshRequest {
                refresh_token: secret("refresh_token", "The parameter refresh_token is missing.")?,
                scope,
                resource: resource?,
            })),
            Some(client_credentials::GRANT_TYPE) => Ok(Self::ClientCredentials(TokenRequest {
                resource: resource?,
                scope,
            })),
            Some(_) => Err(Refusal::UnsupportedGrantType),
        }
    }

    /// Whether deciding writes something.
    const fn writes(&self) -> bool {
        matches!(self, Self::AuthorizationCode(_) | Self::RefreshToken(_))
    }

    async fn decide(
        &self,
        tx: &mut PgConnection,
        state: &super::State,
        client: &Client,
        caller: &Caller,
        arrived: Timestamp,
    ) -> Result<Issued, Refusal> {
        let (issuer, clock) = (&state.issuer, &state.clock);
        match self {
            Self::AuthorizationCode(request) => {
                authorization_code::decide(tx, issuer, client, request, caller, arrived, clock)
                    .await
            }
            Self::RefreshToken(request) => {
                refresh_token::decide(tx, issuer, client, request, caller, arrived, clock).await
            }
            Self::ClientCredentials(request) => {
                client_credentials::decide(tx, issuer, client, request, arrived).await
            }
        }
    }
}

/// No answer about tokens is kept (RFC 6749, section 5.1).
pub(super) const NOT_KEPT: [(header::HeaderName, &str); 2] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::PRAGMA, "no-cache"),
];

fn granted(tokens: &Tokens) -> Response {
    let answer = TokenAnswer {
        access_token: tokens.access_token.jwt.expose(),
        token_type: "Bearer",
        expires_in: tokens.access_token.expires_in_seconds,
        scope: &tokens.access_token.scope,
        refresh_token: tokens.refresh_token.as_ref().map(Secret::expose),
        merchant_id: tokens.merchant,
        grant_expires_in: tokens.grant_expires_in_seconds,
    };
    (NOT_KEPT, Json(answer)).into_response()
}

/// The answer to a request that is refused, at this endpoint and at those for introspection and revocation.
pub(super) fn refused(refusal: Refusal) -> Response {
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
