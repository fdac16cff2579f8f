//! The provider's word on who somebody is (OpenID Connect Core 1.0, section 3.1.3.7), believed only if all of it fits.

use std::time::Duration;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use kernel::clock::Timestamp;
use serde::Deserialize;
use subtle::ConstantTimeEq;

/// What a provider may sign with. No shared secrets, and not nothing.
const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::RS256,
    Algorithm::EdDSA,
];

/// By how much its clock may differ from ours.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_mins(1);

/// Characters of a subject (section 2).
const SUBJECT_LENGTH_MAX: usize = 255;

/// Who somebody is to the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) issuer: String,
    pub(super) subject: String,
    /// What they sign in with there, or their address: a suggestion.
    pub(super) login: Option<String>,
    /// What they are called.
    pub(super) name: Option<String>,
}

/// What is expected of a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    /// The person has to have signed in after this.
    pub(super) authenticated_after: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    aud: Audience,
    exp: i64,
    iat: i64,
    nonce: Option<String>,
    azp: Option<String>,
    auth_time: Option<i64>,
    name: Option<String>,
    preferred_username: Option<String>,
    email: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// Whether it is us, and nobody who is not named by `azp`.
    fn is(&self, client_id: &str, azp: Option<&str>) -> bool {
        if azp.is_some_and(|azp| azp != client_id) {
            return false;
        }
        match self {
            Self::One(audience) => audience == client_id,
            Self::Many(audiences) => {
                let is_named = audiences.iter().any(|audience| audience == client_id);
                is_named && (audiences.len() == 1 || azp.is_some())
            }
        }
    }
}

/// Why a token is not believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It names a key that is not among those at hand: they may have been rotated.
    UnknownKey,
    /// Something else.
    Unsound,
}

/// Whom `token` names, if all of it fits.
pub(super) fn verify(
    token: &str,
    keys: &JwkSet,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<Identity, Fault> {
    let header = jsonwebtoken::decode_header(token).map_err(|_malformed| Fault::Unsound)?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(Fault::Unsound);
    }
    let key = find(keys, header.kid.as_deref(), header.alg)?;
    let mut validation = Validation::new(header.alg);
    // Times are compared with our own clock, and the audience with `azp`, below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_issuer(&[expected.issuer]);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    let key = DecodingKey::from_jwk(key).map_err(|_unfit| Fault::Unsound)?;
    let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
        .map_err(|_refused| Fault::Unsound)?
        .claims;
    let latest = now.plus(CLOCKS_DIFFER_MAX).unix_seconds();
    let earliest = now.minus(CLOCKS_DIFFER_MAX).unix_seconds();
    let nonce = claims.nonce.unwrap_or_default();
    let is_sound = claims.aud.is(expected.client_id, claims.azp.as_deref())
        && claims.exp > earliest
        && claims.iat <= latest
        && bool::from(nonce.as_bytes().ct_eq(expected.nonce.as_bytes()))
        && !claims.sub.is_empty()
        && claims.sub.len() <= SUBJECT_LENGTH_MAX;
    let is_fresh = expected.authenticated_after.is_none_or(|after| {
        let after = after.minus(CLOCKS_DIFFER_MAX).unix_seconds();
        claims
            .auth_time
            .is_some_and(|time| time >= after && time <= latest)
    });
    if is_sound && is_fresh {
        Ok(Identity {
            issuer: expected.issuer.to_owned(),
            subject: claims.sub,
            login: claims.preferred_username.or(claims.email),
            name: claims.name.filter(|name| !name.trim().is_empty()),
        })
    } else {
        Err(Fault::Unsound)
    }
}

/// The key that the header names; without a name the only one that fits.
fn find<'k>(keys: &'k JwkSet, kid: Option<&str>, alg: Algorithm) -> Result<&'k Jwk, Fault> {
    let fits = |key: &Jwk| {
        let common = &key.common;
        let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let named = common.key_algorithm.map(|named| named.to_string());
        signs && named.is_none_or(|named| named == format!("{alg:?}"))
    };
    if let Some(kid) = kid {
        let key = keys.find(kid).ok_or(Fault::UnknownKey)?;
        return if fits(key) {
            Ok(key)
        } else {
            Err(Fault::Unsound)
        };
    }
    let mut fitting = keys.keys.iter().filter(|key| fits(key));
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(Fault::Unsound),
    }
}
