//! The introspection endpoint (RFC 7662, section 2): reads the request, and has the token looked at.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use kernel::caller::Caller;
use utoipa::ToSchema;

use super::{
    attempt::Attempt,
    client_authentication,
    form::Form,
    token::{NOT_KEPT, TokenError, refused},
};
use crate::{
    client::{self, Proof, secret::Secret},
    token::{
        introspection::{self, Introspection},
        refusal::Refusal,
    },
};

/// A token that somebody asks about or gives back, as a form.
#[derive(ToSchema)]
#[schema(example = json!({"token": "stoa_refresh_…"}))]
#[allow(
    dead_code,
    reason = "describes the form, which is read pair by pair so that repetitions are seen"
)]
pub(super) struct OneTokenForm {
    /// An access token or a refresh token.
    token: String,
    /// `access_token` or `refresh_token`; looked at by nobody, for they can be told apart.
    token_type_hint: Option<String>,
    /// The app's id, unless it is shown by HTTP Basic.
    client_id: Option<String>,
    /// The app's secret, unless it is shown by HTTP Basic.
    client_secret: Option<String>,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer` beside an assertion.
    client_assertion_type: Option<String>,
    /// A JWT signed with a key of the app's (RFC 7523), in place of a secret.
    client_assertion: Option<String>,
}

/// Ask about a token
///
/// Whether a token is good now, and what it says (RFC 7662): for the app that it was issued to, and for apps to which its merchant has granted
/// `merchant:admin`. To everybody else it is not active, like a token that is none. Public clients can't ask.
#[utoipa::path(
    post,
    path = "/oauth/introspect",
    operation_id = "introspectToken",
    tag = "OAuth",
    security(("clientSecretBasic" = []), ()),
    request_body(content = OneTokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "What is known of the token.", body = Introspection,
            headers(("Cache-Control" = String, description = "`no-store`."))),
        (status = 400, description = "The request can't be read.", body = TokenError,
            example = json!({"error": "invalid_request", "error_description": "The parameter token is missing."})),
        (status = 401, description = "The client is not known, is public, or does not prove that it is this one.", body = TokenError,
            headers(("WWW-Authenticate" = String, description = "`Basic`."))),
        (status = 429, description = "There were too many failures of this client, or from this network.", body = TokenError,
            headers(("Retry-After" = String, description = "When to ask again, in seconds.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "There were too many failures from here; try again in 6 s."})),
        (status = 503, description = "The database can't be reached at the moment.", body = TokenError,
            headers(("Retry-After" = String, description = "When to ask again, in seconds.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "The token can't be issued at the moment."})),
    )
)]
pub(super) async fn introspect(
    State(state): State<super::State>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match look(&state, &caller, &headers, body).await {
        Ok(introspection) => (NOT_KEPT, Json(introspection)).into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn look(
    state: &super::State,
    caller: &Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Introspection, Refusal> {
    let now = state.clock.now();
    let (form, token) = read(headers, body)?;
    let credentials = client_authentication::read(headers, &form)?;
    let attempt = Attempt::begin(state, caller, &credentials, None, now)?;
    let verifier = state.verifier();
    let looked = Box::pin(async {
        let mut tx = state.database.begin().await?;
        let client = client::authenticate(&mut tx, &state.issuer, &credentials, now)
            .await?
            .ok_or(Refusal::InvalidClient)?;
        let looked = introspection::introspect(&mut tx, &verifier, &client, &token, now).await;
        if client.proof == Proof::Assertion {
            tx.commit().await.map_err(kernel::db::Error::from)?;
        }
        looked
    });
    attempt.end(looked).await
}

/// The form of a request about one token, and the token.
pub(super) fn read(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Form, Secret), Refusal> {
    let body =
        body.map_err(|_unread| Refusal::InvalidRequest("The body is too large, or breaks off."))?;
    let form = Form::read(headers, &body)?;
    let token = form
        .get("token")
        .map(|token| Secret::new(token.to_owned()))
        .ok_or(Refusal::InvalidRequest("The parameter token is missing."))?;
    Ok((form, token))
}
