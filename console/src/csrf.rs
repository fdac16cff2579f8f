//! Forms that only our own pages can send.
//!
//! Every POST passes [`guard`], before any handler: it must come from this origin, as the browser says (`Origin`, or else `Sec-Fetch-Site`), and carry a
//! token that is derived from the session's cookie, or from the visit's where nobody has signed in. Nobody else can read those cookies, so nobody else can
//! write such a form; and nobody can have a stranger sign in as them.

use axum::{
    body::{Body, to_bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use maud::{Markup, Render, html};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use crate::{
    Console,
    cookie::{self, Name},
    failure::Failure,
};

/// Bytes of a form: a list of fifty locations has some two thousand, a set of public keys some ten thousand.
const BODY_LENGTH_MAX: usize = 64 * 1024;

/// The name of the form's token among its fields.
const FIELD: &str = "form_token";

/// What makes the token of one use differ from every other that may be derived from the same cookie.
const DERIVATION: &[u8] = b"stoa console form\0";

/// What a form of this browser carries. Renders as the hidden field.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct FormToken(String);

impl FormToken {
    fn of(cookie: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(DERIVATION);
        hash.update(cookie.as_bytes());
        Self(BASE64_URL_SAFE_NO_PAD.encode(hash.finalize()))
    }

    fn matches(&self, shown: &str) -> bool {
        bool::from(self.0.as_bytes().ct_eq(shown.as_bytes()))
    }

    #[cfg(test)]
    pub(crate) fn sample() -> Self {
        Self("0".repeat(64))
    }
}

impl std::fmt::Debug for FormToken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

impl Render for FormToken {
    fn render(&self) -> Markup {
        html! { input type="hidden" name=(FIELD) value=(self.0); }
    }
}

impl<S: Sync> FromRequestParts<S> for FormToken {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(Failure::ForeignForm)
    }
}

/// A form that [`guard`] has let through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// The first value of `name`; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Every value of `name`.
    pub(crate) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether a box of that name is ticked.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }
}

impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts
            .extensions
            .remove::<Self>()
            .ok_or(Failure::ForeignForm)
    }
}

/// Lets through what reads, and what our own pages send; whoever has no cookie yet is given a visit.
pub(crate) async fn guard(
    State(console): State<Console>,
    request: Request,
    next: Next,
) -> Response {
    let cookies = console.cookies();
    let bound = cookies
        .read(request.headers(), Name::Session)
        .or_else(|| cookies.read(request.headers(), Name::Visit));
    let is_new = bound.is_none();
    let bound = bound.unwrap_or_else(random);
    let token = FormToken::of(&bound);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut request = if reads {
        request
    } else {
        match own_form(&console, request, (!is_new).then_some(&token)).await {
            Ok(request) => request,
            Err(failure) => return failure.into_response(),
        }
    };
    request.extensions_mut().insert(token);
    let mut response = next.run(request).await;
    let is_page = response.headers().get(header::CACHE_CONTROL).is_none();
    if is_new && reads && is_page {
        cookie::append(response.headers_mut(), cookies.set(Name::Visit, &bound));
    }
    response
}

async fn own_form(
    console: &Console,
    request: Request,
    token: Option<&FormToken>,
) -> Result<Request, Failure> {
    if !is_same_origin(request.headers(), console.issuer().as_str()) {
        return Err(Failure::ForeignForm);
    }
    let (mut parts, body) = request.into_parts();
    let is_form = parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if !is_form {
        return Err(Failure::ForeignForm);
    }
    let Ok(body) = to_bytes(body, BODY_LENGTH_MAX).await else {
        return Err(Failure::TooLarge);
    };
    let form = Form(form_urlencoded::parse(&body).into_owned().collect());
    if !token.is_some_and(|token| token.matches(form.get(FIELD))) {
        return Err(Failure::StaleForm);
    }
    parts.extensions.insert(form);
    Ok(Request::from_parts(parts, Body::empty()))
}

/// Whether the browser says that the request comes from a page of `origin`. One that says nothing is not trusted.
fn is_same_origin(headers: &HeaderMap, origin: &str) -> bool {
    match headers.get(header::ORIGIN) {
        Some(given) => given.as_bytes() == origin.as_bytes(),
        None => headers
            .get("sec-fetch-site")
            .is_some_and(|site| site.as_bytes() == b"same-origin"),
    }
}

/// 256 random bits, in base64url.
fn random() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}
