//! How a request names its client (RFC 6749, section 2.3; RFC 7521, section 4.2): `client_secret_basic`, `client_secret_post`, `private_key_jwt`,
//! or `none` for public clients. One way at a time.
//!
//! Nothing is checked here but that there is one way: whose credentials they are is [`client::authenticate`](crate::client::authenticate)'s to say.

use axum::http::{HeaderMap, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use url::form_urlencoded;

use super::form::Form;
use crate::{
    client::{Credentials, assertion, secret::Secret},
    token::refusal::Refusal,
};

/// The ways, as metadata names them (RFC 8414, section 2).
pub(super) const METHODS: [&str; 4] = [
    "client_secret_basic",
    "client_secret_post",
    "private_key_jwt",
    "none",
];

/// What the client of a request shows.
pub(super) fn read(headers: &HeaderMap, form: &Form) -> Result<Credentials, Refusal> {
    let client_id = form.get("client_id").map(str::to_owned);
    let secret = form.get("client_secret");
    let assertion = assertion(form)?;
    let basic = basic(headers)?;
    let ways = [basic.is_some(), secret.is_some(), assertion.is_some()];
    if ways.into_iter().filter(|&way| way).count() > 1 {
        return Err(Refusal::InvalidRequest(
            "The client proves itself in two ways.",
        ));
    }
    if let Some((basic_id, secret)) = basic {
        return if client_id.is_some_and(|client_id| client_id != basic_id) {
            Err(Refusal::InvalidRequest(
                "The client names itself in two ways.",
            ))
        } else {
            Ok(Credentials::Secret {
                client_id: basic_id,
                secret,
            })
        };
    }
    if let Some(assertion) = assertion {
        return Ok(Credentials::Assertion {
            client_id,
            assertion,
        });
    }
    let client_id = client_id.ok_or(Refusal::InvalidClient)?;
    Ok(match secret {
        Some(secret) => Credentials::Secret {
            client_id,
            secret: Secret::new(secret.to_owned()),
        },
        None => Credentials::None { client_id },
    })
}

/// The assertion of a form, which says what it is (RFC 7521, section 4.2).
fn assertion(form: &Form) -> Result<Option<Secret>, Refusal> {
    match (
        form.get("client_assertion"),
        form.get("client_assertion_type"),
    ) {
        (None, None) => Ok(None),
        (Some(assertion), Some(assertion::TYPE)) => Ok(Some(Secret::new(assertion.to_owned()))),
        // Another type than we know is another way to authenticate, which we don't know either.
        (Some(_), Some(_)) => Err(Refusal::InvalidClient),
        (Some(_), None) | (None, Some(_)) => Err(Refusal::InvalidRequest(
            "The parameters client_assertion and client_assertion_type go together.",
        )),
    }
}

/// The client as HTTP Basic shows it: id and secret form-encoded, a colon between, in base64 (RFC 6749, section 2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, Secret)>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::InvalidRequest(
            "The header Authorization is repeated.",
        ));
    }
    let pair = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
        .and_then(|(_, encoded)| BASE64_STANDARD.decode(encoded.trim()).ok())
        .and_then(|decoded| String::from_utf8(decoded).ok());
    let (client_id, secret) = pair
        .as_deref()
        .and_then(|pair| pair.split_once(':'))
        .ok_or(Refusal::InvalidClient)?;
    Ok(Some((
        form_decoded(client_id),
        Secret::new(form_decoded(secret)),
    )))
}

/// Undoes the form encoding of one value. An ampersand or equals sign would be encoded in it, and so ends nothing of ours.
fn form_decoded(value: &str) -> String {
    let value = value.replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(value.as_bytes())
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}
