//! Clients that prove themselves by a signature: `private_key_jwt` (RFC 7523, sections 2.2 and 3; RFC 7521, section 4.2).
//!
//! An assertion is a JWT that the client makes for one request: by itself, about itself, for us, for some minutes, once. It is verified under a key that
//! the app's developer has registered, by an algorithm that this key is for; whatever its header brings along or points to is no key.

use jsonwebtoken::{Header, Validation};
use kernel::{clock::Timestamp, id::AppId};
use serde::Deserialize;
use sqlx::PgConnection;

use super::{Client, Proof, app::ClientKind, key::ClientKey, secret::Secret, sha256, store};
use crate::{Error, Issuer};

/// The value of `client_assertion_type` for a JWT (RFC 7523, section 2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Seconds that an assertion may still be good for. It is made for one request, but libraries let theirs be good for an hour unless they are told otherwise;
/// and as long as it is good, its id is kept.
pub const LIFETIME_MAX_S: i64 = 3_600;

/// Seconds by which a client's clock may be ahead of ours.
const LEEWAY_S: i64 = 30;

/// Bytes of an assertion; one signed by RSA with 4096 bits has some twelve hundred.
const LENGTH_MAX: usize = 8_192;

/// Characters of an assertion's id.
const JTI_LENGTH_MAX: usize = 255;

/// What an assertion says (RFC 7523, section 3).
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: i64,
    iat: Option<i64>,
    nbf: Option<i64>,
    jti: String,
}

/// One, or several (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    /// Whether it means us and nobody else: an assertion that another server may take as well is one that it may send to us.
    fn is(&self, ours: &[&str]) -> bool {
        match self {
            Self::One(audience) => ours.contains(&audience.as_str()),
            Self::Several(audiences) => {
                !audiences.is_empty()
                    && audiences
                        .iter()
                        .all(|audience| ours.contains(&audience.as_str()))
            }
        }
    }
}

/// An assertion that holds, to be used once.
#[derive(Debug, PartialEq, Eq)]
struct Verified {
    jti: String,
    expires_at: Timestamp,
}

/// Who the assertion says it is about, before anything of it is checked.
pub(super) fn claimed_subject(assertion: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Subject {
        sub: String,
    }
    if assertion.len() > LENGTH_MAX {
        return None;
    }
    let subject = jsonwebtoken::dangerous::insecure_decode_claims::<Subject>(assertion).ok()?;
    Some(subject.sub)
}

/// The client that has signed `assertion` and has not used it before; `None` otherwise. The reason goes to the log.
pub(super) async fn authenticate(
    tx: &mut PgConnection,
    issuer: &Issuer,
    client_id: Option<&str>,
    assertion: &Secret,
    now: Timestamp,
) -> Result<Option<Client>, Error> {
    let assertion = assertion.expose();
    // A client that names itself beside its assertion must name the same (RFC 7521, section 4.2).
    let claimed = claimed_subject(assertion)
        .filter(|subject| client_id.is_none_or(|client_id| client_id == subject));
    let id = super::id_of(claimed.as_deref().unwrap_or_default());
    let Some((app, keys)) = store::select_with_keys(tx, id).await? else {
        return Ok(None);
    };
    if app.kind != ClientKind::Confidential {
        return Ok(None);
    }
    let verified = match verify(issuer, app.id, &keys, assertion, now) {
        Ok(verified) => verified,
        Err(fault) => {
            tracing::info!(app.id = %app.id, fault, "client assertion refused");
            return Ok(None);
        }
    };
    store::delete_expired_assertions(tx, app.id, now).await?;
    let jti_sha256 = sha256(&verified.jti);
    if !store::insert_assertion(tx, app.id, &jti_sha256, verified.expires_at).await? {
        tracing::info!(app.id = %app.id, "client assertion used again");
        return Ok(None);
    }
    Ok(Some(Client {
        app,
        proof: Proof::Assertion,
    }))
}

/// Whether `assertion` is one that `app` has signed for us and that is good at `now`; what is wrong with it, if not.
fn verify(
    issuer: &Issuer,
    app: AppId,
    keys: &[ClientKey],
    assertion: &str,
    now: Timestamp,
) -> Result<Verified, &'static str> {
    if assertion.len() > LENGTH_MAX {
        return Err("it is too long");
    }
    let header = jsonwebtoken::decode_header(assertion)
        .map_err(|_malformed| "it is no JWT, or of an algorithm that is not taken")?;
    check_header(&header)?;
    let key = match (&header.kid, keys) {
        (Some(kid), keys) => keys.iter().find(|key| key.kid == *kid),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let verifier = key
        .ok_or("its kid is none of the app's keys")?
        .verifier(header.alg)
        .ok_or("its alg is not what the key is for")?;
    // Times, issuer and audience are checked below, by our clock and exactly.
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    let claims = jsonwebtoken::decode::<Claims>(assertion, &verifier, &validation)
        .map_err(|_refused| "its signature is wrong, or a claim is missing or malformed")?
        .claims;
    check_claims(issuer, app, &claims, now)
}

/// No key, nor where to find one, comes from the assertion itself; and no extension is understood here, so none may be critical (RFC 7515, sections
/// 4.1.2 to 4.1.6 and 4.1.11; RFC 7797).
fn check_header(header: &Header) -> Result<(), &'static str> {
    let is_assertion = header.typ.as_deref().is_none_or(|typ| {
        let typ = typ.to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        matches!(typ, "jwt" | "client-authentication+jwt")
    });
    if header.jwk.is_some()
        || header.jku.is_some()
        || header.x5u.is_some()
        || header.x5c.is_some()
        || header.crit.is_some()
        || header.extras.inner().contains_key("b64")
    {
        Err("its header brings a key, points to one, or is critical")
    } else if is_assertion {
        Ok(())
    } else {
        Err("its typ is another one")
    }
}

fn check_claims(
    issuer: &Issuer,
    app: AppId,
    claims: &Claims,
    now: Timestamp,
) -> Result<Verified, &'static str> {
    let (app, now_s) = (app.to_string(), now.unix_seconds());
    let token_endpoint = format!("{issuer}/oauth/token");
    let in_leeway = now_s.saturating_add(LEEWAY_S);
    if claims.iss != app || claims.sub != app {
        return Err("its iss and sub are not both the client id");
    }
    if !claims.aud.is(&[issuer.as_str(), &token_endpoint]) {
        return Err("its aud is neither the issuer nor the token endpoint, or somebody else too");
    }
    if claims.exp <= now_s {
        return Err("it has expired");
    }
    if claims.exp > now_s.saturating_add(LIFETIME_MAX_S) {
        return Err("its exp is more than an hour ahead");
    }
    if claims
        .iat
        .is_some_and(|iat| iat > in_leeway || iat < now_s.saturating_sub(LIFETIME_MAX_S))
    {
        return Err("its iat is ahead, or more than an hour ago");
    }
    if claims.nbf.is_some_and(|nbf| nbf > in_leeway) {
        return Err("its nbf is ahead");
    }
    if claims.jti.is_empty() || claims.jti.chars().count() > JTI_LENGTH_MAX {
        return Err("its jti is empty or too long");
    }
    Ok(Verified {
        jti: claims.jti.clone(),
        // Good through the whole second before `exp`: an id that is forgotten then is not good any more.
        expires_at: Timestamp::from_unix_millis(claims.exp.saturating_mul(1_000)),
    })
}
