//! Bearer tokens (RFC 6750): from the header of a request to the [`Actor`] that it is served for.
//!
//! Only our own access tokens are taken: ES256 under a key of ours, of the type that RFC 9068 gives them, for a resource of ours. What the
//! signature vouches for is remembered for a while by the token's hash; whether the token is still in time, and its grant still as it was, is asked
//! each time.

use std::{fmt, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::{Algorithm, Validation};
use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    id::{MerchantId, RequestId},
    problem::{self, Problem},
    scope::ScopeSet,
};

use crate::{
    Error, GrantView, Issuer, SigningKeys, TokenFault,
    grant::{LastUse, view::Held},
    token::{self, Claims},
};

mod verified;

use verified::Remembered;

/// How far the clock of the process that issued a token may be ahead. Its end has no leeway: a token that ends with its grant ends on time.
const LEEWAY: Duration = Duration::from_secs(5);

/// Bytes of a token; the longest of ours, with every scope and the most locations, has some four thousand.
const TOKEN_LENGTH_MAX: usize = 8_192;

/// What the signature of a token vouches for.
#[derive(Debug)]
struct Verified {
    kid: String,
    merchant: MerchantId,
    scopes: ScopeSet,
    claims: Claims,
}

/// Verifies access tokens.
pub struct Bearer {
    issuer: Issuer,
    keys: Arc<SigningKeys>,
    view: Arc<GrantView>,
    last_use: Option<Arc<LastUse>>,
    clock: Clock,
    validation: Validation,
    remembered: Remembered,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Bearer")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Bearer {
    /// Takes the tokens of `issuer`. Somebody must run `view`; until then each token asks the database.
    pub fn new(issuer: Issuer, keys: Arc<SigningKeys>, view: Arc<GrantView>, clock: Clock) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        // Times are checked against our clock, and the audience names the merchant: both below.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Self {
            issuer,
            keys,
            view,
            last_use: None,
            clock,
            validation,
            remembered: Remembered::default(),
        }
    }

    /// Notes from now on when grants are used. Somebody must run `last_use`.
    #[must_use]
    pub fn noting(self, last_use: Arc<LastUse>) -> Self {
        Self {
            last_use: Some(last_use),
            ..self
        }
    }

    /// The actor that `token` stands for, serving `request`. An [`Error::Token`] is a 401; a database that is away is a 503.
    pub async fn verify(&self, token: &str, request: RequestId) -> Result<Actor, Error> {
        let now = self.clock.now();
        let remembered = self.remembered.find(token);
        let remembered = remembered.filter(|verified| self.keys.is_known(&verified.kid));
        let verified = if let Some(verified) = remembered {
            verified
        } else {
            let verified = Arc::new(self.verify_signature(token).await?);
            check_time(&verified.claims, now)?;
            self.remembered.insert(token, Arc::clone(&verified), now);
            verified
        };
        let Verified {
            merchant,
            scopes,
            claims,
            ..
        } = &*verified;
        check_time(claims, now)?;
        self.view
            .check(&Held {
                merchant: *merchant,
                grant: claims.grant,
                epoch: claims.epoch,
            })
            .await?;
        if let Some(last_use) = &self.last_use {
            last_use.note(claims.grant, now);
        }
        Ok(Actor {
            merchant: *merchant,
            app: claims.client_id,
            grant: claims.grant,
            access: Access {
                scopes: *scopes,
                locations: claims.locations.clone(),
                personal_data: claims.personal_data,
            },
            request,
        })
    }

    /// The way of RFC 9068, section 4, but for the times.
    async fn verify_signature(&self, token: &str) -> Result<Verified, Error> {
        if token.len() > TOKEN_LENGTH_MAX {
            return Err(TokenFault::Invalid.into());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| refused(&error))?;
        let is_access_token = header.typ.as_deref().is_some_and(|typ| {
            let typ = typ.to_ascii_lowercase();
            typ.strip_prefix("application/").unwrap_or(&typ) == token::TYPE
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
fn check_time(claims: &Claims, now: Timestamp) -> Result<(), TokenFault> {
    let latest = now.plus(LEEWAY).unix_seconds();
    let lifetime_seconds = i64::try_from(token::LIFETIME.as_secs()).unwrap_or(0);
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

/// The token of a request (RFC 6750, section 2.1): one header `Authorization` with the scheme Bearer.
pub fn token_of(headers: &HeaderMap) -> Result<&str, TokenFault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(TokenFault::Missing)?;
    if values.next().is_some() {
        return Err(TokenFault::Invalid);
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .ok_or(TokenFault::Invalid)?;
    let token = token.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        Ok(token)
    } else {
        Err(TokenFault::Invalid)
    }
}

/// The value of `WWW-Authenticate` (RFC 6750, section 3) for the answer to a request with `headers`; `None` unless the problem is one of
/// authentication or of scope.
pub fn challenge(headers: &HeaderMap, problem: &Problem) -> Option<HeaderValue> {
    let kind = problem.kind;
    let text = if *kind == problem::INVALID_TOKEN && !headers.contains_key(header::AUTHORIZATION) {
        // Who showed nothing is told what to show, and of no error (section 3.1).
        r#"Bearer realm="stoa""#.to_owned()
    } else if *kind == problem::INVALID_TOKEN || *kind == problem::INSUFFICIENT_SCOPE {
        let scope = problem
            .required_scope
            .map(|scope| format!(r#", scope="{scope}""#))
            .unwrap_or_default();
        format!(
            r#"Bearer realm="stoa", error="{}", error_description="{}"{scope}"#,
            kind.slug, kind.title
        )
    } else {
        return None;
    };
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use kernel::{actor::MissingScope, scope::Scope};

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (header::AUTHORIZATION, value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_request_shows_one_token() {
        assert_eq!(token_of(&headers(&["Bearer abc"])), Ok("abc"));
        assert_eq!(token_of(&headers(&["bEARER  abc "])), Ok("abc"));
        assert_eq!(token_of(&headers(&[])), Err(TokenFault::Missing));
        for values in [
            &["Basic abc"][..],
            &["Bearer"],
            &["Bearer "],
            &["Bearerabc"],
            &[""],
            &["Bearer a", "Bearer a"],
        ] {
            assert_eq!(
                token_of(&headers(values)),
                Err(TokenFault::Invalid),
                "{values:?}"
            );
        }
    }

    #[test]
    fn a_challenge_names_the_error_and_the_scope() {
        let missing = Problem::from(Error::from(TokenFault::Missing));
        assert_eq!(
            challenge(&headers(&[]), &missing).unwrap(),
            r#"Bearer realm="stoa""#
        );
        let expired = challenge(
            &headers(&["Bearer abc"]),
            &Error::from(TokenFault::Expired).into(),
        )
        .unwrap();
        assert!(
            expired
                .to_str()
                .unwrap()
                .starts_with(r#"Bearer realm="stoa", error="invalid_token", "#)
        );
        let scope = challenge(
            &headers(&["Bearer abc"]),
            &MissingScope(Scope::OrdersRead).into(),
        )
        .unwrap();
        assert!(
            scope
                .to_str()
                .unwrap()
                .contains(r#"error="insufficient_scope""#)
        );
        assert!(scope.to_str().unwrap().ends_with(r#"scope="orders:read""#));
        assert_eq!(
            challenge(&headers(&[]), &Problem::not_found("order", "ord_1")),
            None
        );
    }
}
