//! Bearer tokens (RFC 6750): from the header of a request to the [`Actor`] that it is served for.
//!
//! What the [signature](crate::token) vouches for is remembered for a while by the token's hash; whether the token is still in time, and its grant
//! still as it was, is asked each time.

use std::{fmt, sync::Arc};

use axum::http::{HeaderMap, HeaderValue, header};
use kernel::{
    actor::{Access, Actor},
    clock::Clock,
    id::RequestId,
    problem::{self, Problem},
};

use crate::{
    Error, GrantView, Issuer, SigningKeys, TokenFault,
    grant::{LastUse, view::Held},
    token::access_token::{Verified, Verifier, check_time},
};

mod verified;

use verified::Remembered;

/// Verifies access tokens.
pub struct Bearer {
    verifier: Verifier,
    metadata: ResourceMetadata,
    view: Arc<GrantView>,
    last_use: Option<Arc<LastUse>>,
    clock: Clock,
    remembered: Remembered,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Bearer")
            .field("verifier", &self.verifier)
            .finish_non_exhaustive()
    }
}

impl Bearer {
    /// Takes the tokens of `issuer`. Somebody must run `view`; until then each token asks the database.
    pub fn new(issuer: Issuer, keys: Arc<SigningKeys>, view: Arc<GrantView>, clock: Clock) -> Self {
        Self {
            metadata: ResourceMetadata::of(&issuer),
            verifier: Verifier::new(issuer, keys),
            view,
            last_use: None,
            clock,
            remembered: Remembered::default(),
        }
    }

    /// Where the metadata of the API is that these tokens are for.
    pub fn resource_metadata(&self) -> ResourceMetadata {
        self.metadata.clone()
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
        let remembered = remembered.filter(|verified| self.verifier.is_known(&verified.kid));
        let verified = if let Some(verified) = remembered {
            verified
        } else {
            let verified = Arc::new(self.verifier.verify(token).await?);
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

/// Where the API's metadata is (RFC 9728, section 5.1): how a client that was refused finds out who issues tokens. Whoever answers puts it into the
/// answer's extensions, for [`challenge`].
#[derive(Debug, Clone)]
pub struct ResourceMetadata(Arc<str>);

impl ResourceMetadata {
    /// The metadata of `issuer`'s API.
    pub fn of(issuer: &Issuer) -> Self {
        Self(format!("{issuer}/.well-known/oauth-protected-resource").into())
    }
}

/// The value of `WWW-Authenticate` (RFC 6750, section 3; RFC 9728, section 5.1) for the answer to a request with `headers`; `None` unless the problem
/// is one of authentication or of scope.
pub fn challenge(
    headers: &HeaderMap,
    metadata: Option<&ResourceMetadata>,
    problem: &Problem,
) -> Option<HeaderValue> {
    let kind = problem.kind;
    let metadata = metadata
        .map(|ResourceMetadata(url)| format!(r#", resource_metadata="{url}""#))
        .unwrap_or_default();
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
    HeaderValue::from_str(&format!("{text}{metadata}")).ok()
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
            challenge(&headers(&[]), None, &missing).unwrap(),
            r#"Bearer realm="stoa""#
        );
        let metadata = ResourceMetadata::of(&Issuer::parse("https://stoa.example").unwrap());
        assert_eq!(
            challenge(&headers(&[]), Some(&metadata), &missing).unwrap(),
            r#"Bearer realm="stoa", resource_metadata="https://stoa.example/.well-known/oauth-protected-resource""#
        );
        let expired = challenge(
            &headers(&["Bearer abc"]),
            None,
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
            None,
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
            challenge(&headers(&[]), None, &Problem::not_found("order", "ord_1")),
            None
        );
    }
}
