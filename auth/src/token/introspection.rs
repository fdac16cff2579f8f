//! Token introspection (RFC 7662): what a token says and whether it is good, told to whom it concerns.
//!
//! That is the client that the token was issued to, and the audience of it: an app to which the token's merchant has given `merchant:admin`. To
//! everybody else a token is not active, and so is one that is none (section 2.2): whoever asks learns nothing by asking.

use kernel::{
    clock::Timestamp,
    id::{AppId, MerchantId},
    scope::Scope,
};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::{access_token, access_token::Verifier, family, family::Standing, refusal::Refusal};
use crate::{
    Error,
    authorization::consent,
    client::{Client, app::ClientKind, secret::Secret},
    grant::{self, Grant},
};

/// What is known of a token (RFC 7662, section 2.2).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[schema(example = json!({
    "active": true, "scope": "orders:read", "client_id": "app_01jd3x5k8vfm7b2c9q0r4t6w8y", "token_type": "Bearer",
    "exp": 1_794_000_600, "iat": 1_794_000_000, "sub": "mer_01jd3x5k8vfm7b2c9q0r4t6w8y",
    "aud": "https://stoa.example/merchants/mer_01jd3x5k8vfm7b2c9q0r4t6w8y", "iss": "https://stoa.example",
    "jti": "3q2-796tvu_erb7v3q2-7w"
}))]
pub struct Introspection {
    /// Whether it is good now, as far as whoever asks may know. If not, nothing else is said.
    pub active: bool,
    /// Its scopes, with spaces between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The app that it was issued to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<AppId>,
    /// `Bearer` for an access token; a refresh token has no such type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_type: Option<&'static str>,
    /// When it expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// When it was issued, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// Who it acts for: the merchant, or the app itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The resource that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// An access token's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
}

/// What `client` may know of `token`. The endpoint is for clients that prove who they are (RFC 7662, section 2.1): a public one can't. Runs in a
/// transaction that has entered no merchant.
pub(crate) async fn introspect(
    tx: &mut PgConnection,
    verifier: &Verifier,
    client: &Client,
    token: &Secret,
    now: Timestamp,
) -> Result<Introspection, Refusal> {
    if client.app.kind != ClientKind::Confidential {
        return Err(Refusal::InvalidClient);
    }
    let found = if family::is_refresh_token(token) {
        refresh_token(tx, verifier, token, now).await?
    } else {
        access_token(tx, verifier, token, now).await?
    };
    let Some((merchant, introspection)) = found else {
        return Ok(Introspection::default());
    };
    if introspection.client_id == Some(client.id())
        || is_audience(tx, client, merchant, now).await?
    {
        Ok(introspection)
    } else {
        Ok(Introspection::default())
    }
}

/// Whether the client stands for the merchant whose resource a token is for.
async fn is_audience(
    tx: &mut PgConnection,
    client: &Client,
    merchant: MerchantId,
    now: Timestamp,
) -> Result<bool, Error> {
    let grant = grant::unrevoked(tx, merchant, client.id()).await?;
    Ok(
        grant
            .is_some_and(|grant| grant.is_living(now) && grant.scopes.allows(Scope::MerchantAdmin)),
    )
}

type Found = Option<(MerchantId, Introspection)>;

async fn living_grant(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: kernel::id::GrantId,
    now: Timestamp,
) -> Result<Option<Grant>, Error> {
    match grant::get(tx, merchant, id).await {
        Ok(grant) => Ok(Some(grant).filter(|grant| grant.is_living(now))),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

async fn access_token(
    tx: &mut PgConnection,
    verifier: &Verifier,
    token: &Secret,
    now: Timestamp,
) -> Result<Found, Error> {
    let read = match verifier.verify(token.expose()).await {
        Ok(read) => read,
        Err(Error::Token(_)) => return Ok(None),
        Err(other) => return Err(other),
    };
    let claims = read.claims;
    if access_token::check_time(&claims, now).is_err() {
        return Ok(None);
    }
    let grant = living_grant(tx, read.merchant, claims.grant, now).await?;
    if grant.is_none_or(|grant| claims.epoch < grant.epoch) {
        return Ok(None);
    }
    let introspection = Introspection {
        active: true,
        scope: Some(claims.scope),
        client_id: Some(claims.client_id),
        token_type: Some("Bearer"),
        exp: Some(claims.exp),
        iat: Some(claims.iat),
        sub: Some(claims.sub),
        aud: Some(claims.aud),
        iss: Some(claims.iss),
        jti: Some(claims.jti),
    };
    Ok(Some((read.merchant, introspection)))
}

/// A token that has been exchanged is not active, though it may be retried for a moment.
async fn refresh_token(
    tx: &mut PgConnection,
    verifier: &Verifier,
    token: &Secret,
    now: Timestamp,
) -> Result<Found, Error> {
    let Some((family, kept)) = family::find_by_token(tx, token).await? else {
        return Ok(None);
    };
    if family.ended_at.is_some() || kept.standing(now) != Standing::Good {
        return Ok(None);
    }
    let Some(grant) = living_grant(tx, family.merchant, family.grant, now).await? else {
        return Ok(None);
    };
    let scopes = consent::given(family.scopes, grant.scopes);
    if scopes.is_empty() {
        return Ok(None);
    }
    let issuer = verifier.issuer();
    let introspection = Introspection {
        active: true,
        scope: Some(scopes.to_string()),
        client_id: Some(family.app),
        token_type: None,
        exp: Some(kept.expires_at.unix_seconds()),
        iat: Some(kept.created_at.unix_seconds()),
        sub: Some(family.merchant.to_string()),
        aud: Some(issuer.resource(family.merchant)),
        iss: Some(issuer.to_string()),
        jti: None,
    };
    Ok(Some((family.merchant, introspection)))
}
