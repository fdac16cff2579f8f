//! Parameters of OAuth requests, read pair by pair: a form's body or a query (RFC 6749, section 3.2 and appendix B).
//!
//! A parameter without a value counts as absent. One that is there twice is refused rather than decided upon: whoever reads the first and whoever
//! reads the last would not agree on what was asked. Those that mean nothing to us are ignored.

use axum::http::{HeaderMap, header};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::token::refusal::Refusal;

/// What means something at one of our endpoints, and is there once. (`resource` may be repeated by RFC 8707: whoever reads it looks.)
const ONCE: [&str; 17] = [
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "grant_expires_in",
    "grant_type",
    "redirect_uri",
    "refresh_token",
    "response_type",
    "scope",
    "state",
    "token",
    "token_type_hint",
];

/// The parameters of a request that have a value.
#[derive(Default)]
pub(super) struct Form {
    pairs: Vec<(String, Zeroizing<String>)>,
}

impl Form {
    /// Reads the body of a request: `invalid_request` unless it is a form without repetitions.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        if !is_form(headers) {
            return Err(Refusal::InvalidRequest(
                "The body must be application/x-www-form-urlencoded.",
            ));
        }
        let form = Self::parse(body);
        if ONCE.iter().any(|name| form.is_repeated(name)) {
            return Err(Refusal::InvalidRequest("A parameter is repeated."));
        }
        Ok(form)
    }

    /// Reads an encoded body or query as it is; repetitions are the caller's to look for.
    pub(super) fn parse(encoded: &[u8]) -> Self {
        let pairs = form_urlencoded::parse(encoded)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.into_owned(), Zeroizing::new(value.into_owned())));
        Self {
            pairs: pairs.collect(),
        }
    }

    /// The value of `name`, the first if there are more.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of `name`.
    pub(super) fn all<'f>(&'f self, name: &str) -> impl Iterator<Item = &'f str> {
        self.pairs
            .iter()
            .filter(move |(given, _)| given == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether `name` has several values.
    pub(super) fn is_repeated(&self, name: &str) -> bool {
        self.all(name).nth(1).is_some()
    }
}

/// Whether the body says that it is a form.
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_parameter_is_absent_and_a_repeated_one_is_seen() {
        let form = Form::parse(b"a=1&b=&a=2&c=x%26y+z&b=3&=4&d");
        assert_eq!(form.get("a"), Some("1"));
        assert!(form.is_repeated("a") && !form.is_repeated("b"));
        assert_eq!(form.get("b"), Some("3"));
        assert_eq!(form.get("c"), Some("x&y z"));
        assert_eq!(form.get("d"), None);
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2"]);
    }
}
