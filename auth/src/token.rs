//! Access tokens: JWTs as RFC 9068 profiles them, signed with ES256, good for ten minutes.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use kernel::{
    clock::Timestamp,
    id::{AppId, GrantId, LocationId},
    scope::ScopeSet,
};
use serde::{Deserialize, Serialize};

use crate::{Error, Issuer, client::secret::Secret, grant::Grant};

pub(crate) mod access_token;
pub mod family;
pub mod introspection;
pub mod refusal;
pub mod revocation;
pub mod signing_key;
mod store;

use signing_key::SigningKeys;

/// How long a token lasts, unless its grant ends sooner.
pub const LIFETIME: Duration = Duration::from_mins(10);

/// The type of an access token (RFC 9068, section 2.1).
pub(crate) const TYPE: &str = "at+jwt";

/// What a token says (RFC 9068, section 2.2, and what a grant is limited to).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// Who the token acts for: the merchant, or the app itself where it asked by its own credentials (RFC 9068, section 2.2).
    pub sub: String,
    /// The resource, which names the merchant.
    pub aud: String,
    /// The app.
    pub client_id: AppId,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// When it begins to be valid, in seconds since 1970. Our tokens begin at once and have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// The token's own id: 128 random bits.
    pub jti: String,
    /// The scopes, with spaces between.
    pub scope: String,
    /// The grant that it stands for.
    pub grant: GrantId,
    /// The grant's epoch when it was issued.
    pub epoch: i64,
    /// The locations that the grant is limited to, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locations: Option<Vec<LocationId>>,
    /// Whether the grant includes personal data.
    pub personal_data: bool,
}

/// A signed token, as the client gets it.
#[derive(Debug)]
pub struct AccessToken {
    /// The JWT.
    pub jwt: Secret,
    /// Its scopes.
    pub scope: String,
    /// How long it lasts from now on.
    pub expires_in_seconds: i64,
}

/// Who a token acts for (RFC 9068, section 2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The client itself: there is no resource owner in the client credentials grant.
    App,
    /// The resource owner: the merchant who consented.
    Merchant,
}

/// What a token of `grant` for `scopes` says at `now`; `None` if the grant has ended, or ends before a
/// second is over. A revoked grant is not for asking.
pub fn claims(
    issuer: &Issuer,
    grant: &Grant,
    subject: Subject,
    scopes: ScopeSet,
    now: Timestamp,
) -> Option<Claims> {
    let iat = now.unix_seconds();
    let end = grant.expires_at.map_or(i64::MAX, Timestamp::unix_seconds);
    let exp = now.plus(LIFETIME).unix_seconds().min(end);
    (exp > iat).then(|| Claims {
        iss: issuer.as_str().to_owned(),
        sub: match subject {
            Subject::App => grant.app_id.to_string(),
            Subject::Merchant => grant.merchant_id.to_string(),
        },
        aud: issuer.resource(grant.merchant_id),
        client_id: grant.app_id,
        iat,
        exp,
        nbf: None,
        jti: BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>()),
        scope: scopes.to_string(),
        grant: grant.id,
        epoch: grant.epoch,
        locations: grant.locations.clone(),
        personal_data: grant.personal_data,
    })
}

/// Signs `claims` with the newest key.
pub fn issue(keys: &SigningKeys, claims: Claims) -> Result<AccessToken, Error> {
    let jwt = Secret::new(keys.sign(TYPE, &claims)?);
    Ok(AccessToken {
        jwt,
        expires_in_seconds: claims.exp.saturating_sub(claims.iat),
        scope: claims.scope,
    })
}
