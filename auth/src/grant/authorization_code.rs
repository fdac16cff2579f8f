//! The authorization code grant's second half (RFC 6749, section 4.1.3): an app exchanges its code for tokens.

use kernel::{
    caller::Caller,
    clock::{Clock, Timestamp},
    db,
};
use sqlx::PgConnection;

use super::{Issued, store};
use crate::{
    Issuer,
    authorization::{
        code::{self, Code, WRONG_VERIFIERS_MAX},
        consent,
    },
    client::{Client, secret::Secret},
    token::{
        self, Subject,
        family::{self, EndReason, Family, FamilyId},
        refusal::Refusal,
    },
};

/// The name of this grant in `grant_type`.
pub const GRANT_TYPE: &str = "authorization_code";

/// What is asked for.
#[derive(Debug)]
pub struct CodeRequest {
    /// The code.
    pub code: Secret,
    /// The redirect URI of the authorization request.
    pub redirect_uri: String,
    /// What the request's challenge is the hash of (RFC 7636, section 4.5).
    pub code_verifier: Secret,
    /// The merchant that the token is for (RFC 8707), if it is said again.
    pub resource: Option<String>,
}

/// Exchanges the code of `client`. Runs in a transaction that has entered no merchant, and that must be committed even if this refuses: a wrong
/// verifier is counted, and a code that comes again ends what came of it. `arrived` is when the request did; what is written has the time at which
/// the code's lock was held.
///
/// A code that came again is a replay (RFC 6749, section 4.1.2) unless it was on its way already when the other was redeemed: that is a
/// client's own second try, and harms nobody. Another client's code is refused and stays good for its own: it must not be burnt by whoever has seen it.
pub async fn decide(
    tx: &mut PgConnection,
    issuer: &Issuer,
    client: &Client,
    request: &CodeRequest,
    caller: &Caller,
    arrived: Timestamp,
    clock: &Clock,
) -> Result<Issued, Refusal> {
    let code = code::lock(tx, &request.code)
        .await?
        .filter(|code| code.app == client.id())
        .ok_or(Refusal::UnknownGrant)?;
    db::enter_merchant(tx, code.merchant).await?;
    if let Some(redeemed_at) = code.redeemed_at {
        if arrived > redeemed_at {
            end_what_came_of_it(tx, &code, caller, clock.now()).await?;
        }
        return Err(Refusal::InvalidGrant);
    }
    if arrived >= code.expires_at || code.wrong_verifiers >= WRONG_VERIFIERS_MAX {
        return Err(Refusal::InvalidGrant);
    }
    if code.redirect_uri != request.redirect_uri {
        return Err(Refusal::UnknownGrant);
    }
    if !code.challenge.is_met_by(request.code_verifier.expose()) {
        code::note_wrong_verifier(tx, &request.code).await?;
        return Err(Refusal::UnknownGrant);
    }
    if request
        .resource
        .as_deref()
        .is_some_and(|resource| issuer.merchant_of(resource) != Some(code.merchant))
    {
        return Err(Refusal::InvalidTarget);
    }
    let grant = store::select(tx, code.merchant, code.grant)
        .await?
        .filter(|grant| grant.is_living(arrived))
        .ok_or(Refusal::InvalidGrant)?;
    // The merchant may have narrowed the grant since.
    let scopes = consent::given(code.scopes, grant.scopes);
    if scopes.is_empty() {
        return Err(Refusal::InvalidGrant);
    }
    let claims = token::claims(issuer, &grant, Subject::Merchant, scopes, arrived)
        .ok_or(Refusal::InvalidGrant)?;
    let now = clock.now();
    let family = Family {
        id: FamilyId::new(now),
        app: code.app,
        merchant: code.merchant,
        grant: code.grant,
        person: Some(code.person),
        scopes: code.scopes,
        created_at: now,
        ended_at: None,
    };
    let refresh_token = family::begin(tx, &family, &grant, now).await?;
    code::note_redeemed(tx, &request.code, family.id, clock.now()).await?;
    Ok(Issued {
        claims,
        merchant: grant.merchant_id,
        grant_expires_at: grant.expires_at,
        refresh_token: Some(refresh_token),
    })
}

async fn end_what_came_of_it(
    tx: &mut PgConnection,
    code: &Code,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some(family) = code.family else {
        return Ok(());
    };
    if let Some(family) = family::lock(tx, family).await? {
        family::end(tx, caller, &family, EndReason::CodeReused, now).await?;
    }
    Ok(())
}
