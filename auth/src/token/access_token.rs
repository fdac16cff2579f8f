//! Reading access tokens: what the signature of one of ours vouches for (RFC 9068, section 4).
//!
//! Only our own access tokens are taken: ES256 under a key of ours, of the type that RFC 9068 gives them, for a resource of ours. The key is named by
//! `kid` and is one that we know; whatever else a header says of keys (`jku`, `jwk`, `x5u` …) is not looked at. Whether a token is in time is for
//! [`check_time`]; whether its grant still stands is for whoever asks.

use std::{fmt, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, Validation};
use kernel::{clock::Timestamp, id::MerchantId, scope::ScopeSet};

use super::{Claims, LIFETIME, TYPE, signing_key::SigningKeys};
use crate::{Error, Issuer, TokenFault};

/// How far the clock of the process that issued a token may be ahead. Its end has no leeway: a token that ends with its grant ends on time.
const LEEWAY: Duration = Duration::from_secs(5);

/// Bytes of a token; the longest of ours, with every scope and the most locations, has some four thousand.
const LENGTH_MAX: usize = 8_192;

/// What the signature of a token vouches for.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The key.
    pub(crate) kid: String,
    /// The merchant of its resource.
    pub(crate) merchant: MerchantId,
    /// Its scopes, as far as this binary knows them.
    pub(crate) scopes: ScopeSet,
    /// All that it says.
    pub(crate) claims: Claims,
}

/// Verifies signatures.
#[derive(Clone)]
pub(crate) struct Verifier {
    issuer: Issuer,
    keys: Arc<SigningKeys>,
    validation: Arc<Validation>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Verifier")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    /// Takes the tokens of `issuer` under `keys`.
    pub(crate) fn new(issuer: Issuer, keys: Arc<SigningKeys>) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        // Times are checked against our clock, and the audience names the merchant: both are looked at apart.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self {
            issuer,
            keys,
            validation: Arc::new(validation),
        }
    }

    /// Who issues the tokens that are taken.
    pub(crate) const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whether tokens under `kid` are still taken.
    pub(crate) fn is_known(&self, kid: &str) -> bool {
        self.keys.is_known(kid)
    }

    /// What `token` says, if it is one of ours; an [`Error::Token`] if it is not.
    pub(crate) async fn verify(&self, token: &str) -> Result<Verified, Error> {
        if token.len() > LENGTH_MAX {
            return Err(TokenFault::Invalid.into());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| refused(&error))?;
        let is_access_token = header.typ.as_deref().is_some_and(|typ| {
            let typ = typ.to_ascii_lowercase();
            typ.strip_prefix("application/").unwrap_or(&typ) == TYPE
        });
        // No extension is understood here, so none may be critical (RFC 7515, section 4.1.11).
        if header.alg != Algorithm::ES256 || !is_access_token || header.crit.is_some() {
            return Err(TokenFault::Invalid.into());
        }
        let kid = header.kid.ok_or(TokenFault::Invalid)?;
        let key = self.keys.verifier(&kid).await?.ok_or(TokenFault::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.validation)
            .map_err(|error| refused(&error))?
            .claims;
        if claims.iss != self.issuer.as_str() {
            return Err(TokenFault::Invalid.into());
        }
        let merchant = self
            .issuer
            .merchant_of(&claims.aud)
            .ok_or(TokenFault::Invalid)?;
        // A newer binary beside this one may know more scopes: what this one does not know, it does not allow.
        let scopes = claims
            .scope
            .split(' ')
            .filter_map(|name| name.parse().ok())
            .collect();
        Ok(Verified {
            kid,
            merchant,
            scopes,
            claims,
        })
    }
}

/// The cause stays out of the answer; it is of use to somebody who debugs a client.
fn refused(error: &jsonwebtoken::errors::Error) -> TokenFault {
    tracing::debug!(error = %error, "an access token is refused");
    TokenFault::Invalid
}

/// Whether `now` lies within the token's time, and that is no longer than the view of the grants relies on.
pub(crate) fn check_time(claims: &Claims, now: Timestamp) -> Result<(), TokenFault> {
    let latest = now.plus(LEEWAY).unix_seconds();
    let lifetime_seconds = i64::try_from(LIFETIME.as_secs()).unwrap_or(0);
    if claims.exp.saturating_sub(claims.iat) > lifetime_seconds {
        return Err(TokenFault::Invalid);
    }
    if claims.iat > latest || claims.nbf.is_some_and(|nbf| nbf > latest) {
        return Err(TokenFault::NotYet);
    }
    if claims.exp <= now.unix_seconds() {
        Err(TokenFault::Expired)
    } else {
        Ok(())
    }
}
