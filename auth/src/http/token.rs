//! The token endpoint (RFC 6749, section 3.2): reads the request, has the grant decide, and signs.

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;

use crate::{
    client::{Credentials, secret::Secret},
    deadline,
    grant::client_credentials::{self, TokenRequest},
    token::{self, AccessToken, refusal::Refusal},
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
    /// `invalid_request`, `invalid_client`, `unsupported_grant_type`, `invalid_scope`, `invalid_target` (RFC 8707), `temporarily_unavailable`
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
        (status = 500, description = "Something went wrong on our side.", body = TokenError,
            example = json!({"error": "server_error", "error_description": "The token can't be issued."})),
        (status = 503, description = "The database can't be reached at the moment.", body = TokenError,
            headers(("Retry-After" = String, description = "When to ask again, in seconds.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "The token can't be issued at the moment."})),
    )
)]
pub(super) async fn issue(
    State(state): State<super::State>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match decide(&state, &headers, body).await {
        Ok(token) => granted(&token),
        Err(refusal) => refused(refusal),
    }
}

async fn decide(
    state: &super::State,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<AccessToken, Refusal> {
    let body =
        body.map_err(|_unread| Refusal::InvalidRequest("The body is too large, or breaks off."))?;
    let request = read(headers, &body)?;
    let decided = async {
        // Nothing is written: the transaction's end needs no waiting for.
        let mut tx = state.database.begin().await?;
        client_credentials::decide(&mut tx, &state.issuer, &request, state.clock.now()).await
    };
    let claims = deadline::in_time(decided)
        .await
        .inspect_err(|refusal: &Refusal| {
            // Whoever guesses at secrets leaves a trace. Failures of ours are logged where they are answered.
            if refusal.status() < 500 {
                let client: String = request
                    .credentials
                    .client_id
                    .chars()
                    .take(CLIENT_ID_CHARACTERS_LOGGED)
                    .collect();
                tracing::info!(client.id = ?client, refusal = refusal.code(), "token refused");
            }
        })?;
    Ok(token::issue(&state.keys, claims)?)
}

/// Characters of a client id that are logged, of one that may be anything.
const CLIENT_ID_CHARACTERS_LOGGED: usize = 64;

/// The form's parameters that mean something here. Empty ones count as absent (RFC 6749, section 3.2).
#[derive(Default)]
struct Form {
    grant_type: Option<String>,
    resource: Option<String>,
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<Secret>,
}

impl Form {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(body) {
            let value = Some(value.into_owned()).filter(|value| !value.is_empty());
            let repeated = match &*name {
                "grant_type" => std::mem::replace(&mut form.grant_type, value).is_some(),
                // A client may name several resources (RFC 8707, section 2); a token of ours is for one.
                "resource" if form.resource.is_some() => return Err(Refusal::InvalidTarget),
                "resource" => std::mem::replace(&mut form.resource, value).is_some(),
                "scope" => std::mem::replace(&mut form.scope, value).is_some(),
                "client_id" => std::mem::replace(&mut form.client_id, value).is_some(),
                "client_secret" => {
                    std::mem::replace(&mut form.client_secret, value.map(Secret::new)).is_some()
                }
                _ => false,
            };
            if repeated {
                return Err(Refusal::InvalidRequest("A parameter is repeated."));
            }
        }
        Ok(form)
    }
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<TokenRequest, Refusal> {
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
    if !is_form {
        return Err(Refusal::InvalidRequest(
            "The body must be application/x-www-form-urlencoded.",
        ));
    }
    let form = Form::read(body)?;
    match form.grant_type.as_deref() {
        None => {
            return Err(Refusal::InvalidRequest(
                "The parameter grant_type is missing.",
            ));
        }
        Some(client_credentials::GRANT_TYPE) => {}
        Some(_) => return Err(Refusal::UnsupportedGrantType),
    }
    let credentials = match (basic(headers)?, form.client_id, form.client_secret) {
        (Some(_), _, Some(_)) => {
            return Err(Refusal::InvalidRequest(
                "The client shows its secret in two ways.",
            ));
        }
        (Some(basic), Some(client_id), None) if basic.client_id != client_id => {
            return Err(Refusal::InvalidRequest(
                "The client names itself in two ways.",
            ));
        }
        (Some(basic), _, None) => basic,
        (None, Some(client_id), Some(client_secret)) => Credentials {
            client_id,
            client_secret,
        },
        (None, _, _) => return Err(Refusal::InvalidClient),
    };
    Ok(TokenRequest {
        credentials,
        resource: form.resource,
        scope: form.scope,
    })
}

/// The client as HTTP Basic shows it: id and secret form-encoded, a colon between, in base64 (RFC 6749, section 2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<Credentials>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::InvalidRequest(
            "The header Authorization is repeated.",
        ));
    }
    let pair = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| BASE64_STANDARD.decode(encoded.trim()).ok())
        .and_then(|decoded| String::from_utf8(decoded).ok());
    let (client_id, client_secret) = pair
        .as_deref()
        .and_then(|pair| pair.split_once(':'))
        .ok_or(Refusal::InvalidClient)?;
    Ok(Some(Credentials {
        client_id: form_decoded(client_id),
        client_secret: Secret::new(form_decoded(client_secret)),
    }))
}

/// Undoes the form encoding of one value. An ampersand or equals sign would be encoded in it, and so ends nothing of ours.
fn form_decoded(value: &str) -> String {
    let value = value.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(value.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
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
    let (error, status) = (refusal.code(), refusal.status());
    let retry_after = refusal.into_problem().and_then(|problem| {
        tracing::error!(
            error = ?problem,
            "no token can be issued"
        );
        problem.retry_after
    });
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
    if let Some(after) = retry_after {
        answer.headers_mut().insert(
            header::RETRY_AFTER,
            HeaderValue::from(after.as_secs().max(1)),
        );
    }
    answer
}
