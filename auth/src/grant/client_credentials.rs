//! The client credentials grant (RFC 6749, section 4.4) for one resource (RFC 8707): an app asks for a token to one of its merchants.

use kernel::{clock::Timestamp, scope::ScopeSet};
use sqlx::PgConnection;

use super::store;
use crate::{
    Issuer,
    client::{self, Credentials},
    token::{self, Claims, refusal::Refusal},
};

/// The name of this grant in `grant_type`.
pub const GRANT_TYPE: &str = "client_credentials";

/// What is asked for.
#[derive(Debug)]
pub struct TokenRequest {
    /// Who asks.
    pub credentials: Credentials,
    /// The merchant that the token is for: `{issuer}/merchants/{merchantId}`.
    pub resource: Option<String>,
    /// The scopes that are wanted, if less than all that is granted.
    pub scope: Option<String>,
}

/// Decides what the token says: the client first, then the resource, then the scope. Runs in a transaction that has entered no merchant.
pub async fn decide(
    tx: &mut PgConnection,
    issuer: &Issuer,
    request: &TokenRequest,
    now: Timestamp,
) -> Result<Claims, Refusal> {
    let app = client::authenticate(tx, &request.credentials)
        .await?
        .ok_or(Refusal::InvalidClient)?;
    // A merchant that does not exist, that has granted nothing, or whose grant is over: an app is not told which.
    let merchant = request
        .resource
        .as_deref()
        .and_then(|resource| issuer.merchant_of(resource))
        .ok_or(Refusal::InvalidTarget)?;
    let grant = store::select_unrevoked(tx, merchant, app)
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
    token::claims(issuer, &grant, scopes, now).ok_or(Refusal::InvalidTarget)
}
