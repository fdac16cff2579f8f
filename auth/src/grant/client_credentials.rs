//! The client credentials grant (RFC 6749, section 4.4) for one resource (RFC 8707): an app asks for a token to one of its merchants.

use kernel::{clock::Timestamp, scope::ScopeSet};
use sqlx::PgConnection;

use super::{Issued, store};
use crate::{
    Issuer,
    client::{Client, app::ClientKind},
    token::{self, Subject, refusal::Refusal},
};

/// The name of this grant in `grant_type`.
pub const GRANT_TYPE: &str = "client_credentials";

/// What is asked for.
#[derive(Debug)]
pub struct TokenRequest {
    /// The merchant that the token is for: `{issuer}/merchants/{merchantId}`.
    pub resource: Option<String>,
    /// The scopes that are wanted, if less than all that is granted.
    pub scope: Option<String>,
}

/// Decides what the token of `client` says: the resource first, then the scope. Runs in a transaction that has entered no merchant.
pub async fn decide(
    tx: &mut PgConnection,
    issuer: &Issuer,
    client: &Client,
    request: &TokenRequest,
    now: Timestamp,
) -> Result<Issued, Refusal> {
    // Only confidential clients may (RFC 6749, section 4.4).
    if client.app.kind != ClientKind::Confidential {
        return Err(Refusal::UnauthorizedClient);
    }
    // A merchant that does not exist, that has granted nothing, or whose grant is over: an app is not told which.
    let merchant = request
        .resource
        .as_deref()
        .and_then(|resource| issuer.merchant_of(resource))
        .ok_or(Refusal::InvalidTarget)?;
    let grant = store::select_unrevoked(tx, merchant, client.id())
        .await?
        .ok_or(Refusal::InvalidTarget)?;
    let scopes = match &request.scope {
        None => grant.scopes,
        Some(wanted) => wanted
            .parse::<ScopeSet>()
            .map_err(|_unknown| Refusal::InvalidScope)?
            .within(grant.scopes),
    };
    if scopes.is_empty() {
        return Err(Refusal::InvalidScope);
    }
    let claims =
        token::claims(issuer, &grant, Subject::App, scopes, now).ok_or(Refusal::InvalidTarget)?;
    Ok(Issued {
        claims,
        merchant,
        grant_expires_at: grant.expires_at,
        // There is nothing to refresh: the client can ask again (section 4.4.3).
        refresh_token: None,
    })
}
