//! The refresh token grant (RFC 6749, section 6), with rotation and the detection of reuse (RFC 9700, section 4.14.2).

use kernel::{
    caller::Caller,
    clock::{Clock, Timestamp},
    db,
    scope::ScopeSet,
};
use sqlx::PgConnection;

use super::{Grant, Issued, store};
use crate::{
    Issuer,
    authorization::consent,
    client::{Client, secret::Secret},
    token::{
        self, Subject,
        family::{self, EndReason, Family, Standing},
        refusal::Refusal,
    },
};

/// The name of this grant in `grant_type`.
pub const GRANT_TYPE: &str = "refresh_token";

/// What is asked for.
#[derive(Debug)]
pub struct RefreshRequest {
    /// The refresh token.
    pub refresh_token: Secret,
    /// The scopes that are wanted for this access token, if less than all that is given.
    pub scope: Option<String>,
    /// The merchant that the token is for (RFC 8707), if it is said again.
    pub resource: Option<String>,
}

/// Exchanges the refresh token of `client`. Runs in a transaction that has entered no merchant, and that must be committed even if this refuses: a
/// token that is used again ends its family. `arrived` is when the request did; what is written has the time at which the family's lock was held.
///
/// A token that comes from another client than it was issued to is refused and ends nothing: a public client's name can be said by anybody, and
/// whoever has the token itself could do more with it than that.
pub async fn decide(
    tx: &mut PgConnection,
    issuer: &Issuer,
    client: &Client,
    request: &RefreshRequest,
    caller: &Caller,
    arrived: Timestamp,
    clock: &Clock,
) -> Result<Issued, Refusal> {
    let (family, kept) = family::lock_by_token(tx, &request.refresh_token)
        .await?
        .filter(|(family, _)| family.app == client.id())
        .ok_or(Refusal::UnknownGrant)?;
    if family.ended_at.is_some() {
        return Err(Refusal::InvalidGrant);
    }
    db::enter_merchant(tx, family.merchant).await?;
    let standing = kept.standing(arrived);
    match standing {
        Standing::Good | Standing::Retried => {}
        Standing::Overtaken | Standing::Expired => return Err(Refusal::InvalidGrant),
        Standing::Reused => {
            family::end(tx, caller, &family, EndReason::TokenReused, clock.now()).await?;
            return Err(Refusal::InvalidGrant);
        }
    }
    let grant = store::select(tx, family.merchant, family.grant)
        .await?
        .filter(|grant| grant.is_living(arrived))
        .ok_or(Refusal::InvalidGrant)?;
    if request
        .resource
        .as_deref()
        .is_some_and(|resource| issuer.merchant_of(resource) != Some(family.merchant))
    {
        return Err(Refusal::InvalidTarget);
    }
    let scopes = scopes(&family, &grant, request.scope.as_deref())?;
    let claims = token::claims(issuer, &grant, Subject::Merchant, scopes, arrived)
        .ok_or(Refusal::InvalidGrant)?;
    let successor = if standing == Standing::Retried {
        family::successor(&family, &request.refresh_token, &kept)?
    } else {
        family::rotate(tx, &family, &request.refresh_token, &grant, clock.now()).await?
    };
    Ok(Issued {
        claims,
        merchant: family.merchant,
        grant_expires_at: grant.expires_at,
        refresh_token: Some(successor),
    })
}

/// What the access token has: what is wanted of what the family was given, as far as the grant has it still. More than the family was given is never
/// to be had (RFC 6749, section 6).
fn scopes(family: &Family, grant: &Grant, wanted: Option<&str>) -> Result<ScopeSet, Refusal> {
    let left = consent::given(family.scopes, grant.scopes);
    if left.is_empty() {
        return Err(Refusal::InvalidGrant);
    }
    let Some(wanted) = wanted else {
        return Ok(left);
    };
    let wanted = wanted
        .parse::<ScopeSet>()
        .ok()
        .filter(|&wanted| family.scopes.allows_all(wanted))
        .ok_or(Refusal::InvalidScope)?;
    let scopes = consent::given(wanted, left);
    if scopes.is_empty() {
        Err(Refusal::InvalidScope)
    } else {
        Ok(scopes)
    }
}
