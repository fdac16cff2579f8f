//! The revocation endpoint (RFC 7009, section 2): reads the request, and has the token ended.

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use kernel::caller::Caller;

use super::{
    attempt::Attempt,
    client_authentication,
    introspect::{OneTokenForm, read},
    token::{NOT_KEPT, TokenError, refused},
};
use crate::{
    client,
    token::{refusal::Refusal, revocation},
};

/// Give a token back
///
/// A refresh token ends with all that came from its code, and the access tokens of its grant (RFC 7009). An access token ends with the other access tokens
/// of its grant; refresh tokens get new ones. What is no token of this app's is passed over without a word. The grant itself stays: it is the merchant's.
#[utoipa::path(
    post,
    path = "/oauth/revoke",
    operation_id = "revokeToken",
    tag = "OAuth",
    security(("clientSecretBasic" = []), ()),
    request_body(content = OneTokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token is not good any more, or never was this app's."),
        (status = 400, description = "The request can't be read.", body = TokenError,
            example = json!({"error": "invalid_request", "error_description": "The parameter token is missing."})),
        (status = 401, description = "The client is not known, or does not prove that it is this one.", body = TokenError,
            headers(("WWW-Authenticate" = String, description = "`Basic`."))),
        (status = 429, description = "There were too many failures of this client, or from this network.", body = TokenError,
            headers(("Retry-After" = String, description = "When to ask again, in seconds.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "There were too many failures from here; try again in 6 s."})),
        (status = 503, description = "The database can't be reached at the moment.", body = TokenError,
            headers(("Retry-After" = String, description = "When to ask again, in seconds.")),
            example = json!({"error": "temporarily_unavailable", "error_description": "The token can't be issued at the moment."})),
    )
)]
pub(super) async fn revoke(
    State(state): State<super::State>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match end(&state, &caller, &headers, body).await {
        Ok(()) => (StatusCode::OK, NOT_KEPT).into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn end(
    state: &super::State,
    caller: &Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(), Refusal> {
    let now = state.clock.now();
    let (form, token) = read(headers, body)?;
    let credentials = client_authentication::read(headers, &form)?;
    let attempt = Attempt::begin(state, caller, &credentials, None, now)?;
    let verifier = state.verifier();
    let ended = Box::pin(async {
        let mut tx = state.database.begin().await?;
        let client = client::authenticate(&mut tx, &state.issuer, &credentials, now)
            .await?
            .ok_or(Refusal::InvalidClient)?;
        revocation::revoke(&mut tx, &verifier, &client, &token, caller, now).await?;
        tx.commit().await.map_err(kernel::db::Error::from)?;
        Ok(())
    });
    attempt.end(ended).await
}
