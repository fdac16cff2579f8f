//! The console's cookies: the session, the visit of who has not signed in, and a proof in several steps that has begun.
//!
//! With a public address of https they are `__Host-` cookies: set by this origin alone, sent to it alone, never by or to a sibling.

use auth::Issuer;
use axum::http::{HeaderMap, HeaderValue, header};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};

/// Which cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// The session's token.
    Session,
    /// Random; what forms are bound to before there is a session.
    Visit,
    /// The token of a proof in several steps that has begun.
    Ceremony,
}

/// How the cookies of this installation are called and sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cookies {
    is_secure: bool,
}

impl Cookies {
    /// For an installation that is reached as `issuer`.
    pub(crate) fn new(issuer: &Issuer) -> Self {
        Self {
            is_secure: issuer.as_str().starts_with("https:"),
        }
    }

    const fn name(self, name: Name) -> &'static str {
        match (name, self.is_secure) {
            (Name::Session, true) => "__Host-stoa_session",
            (Name::Session, false) => "stoa_session",
            (Name::Visit, true) => "__Host-stoa_visit",
            (Name::Visit, false) => "stoa_visit",
            (Name::Ceremony, true) => "__Host-stoa_ceremony",
            (Name::Ceremony, false) => "stoa_ceremony",
        }
    }

    /// What the request carries under `name`.
    pub(crate) fn read(self, headers: &HeaderMap, name: Name) -> Option<String> {
        CookieJar::from_headers(headers)
            .get(self.name(name))
            .map(|cookie| cookie.value().to_owned())
            .filter(|value| !value.is_empty())
    }

    /// The header that sets `name`; it ends with the browser, or with what it stands for.
    pub(crate) fn set(self, name: Name, value: &str) -> HeaderValue {
        let cookie = Cookie::build((self.name(name), value))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(self.is_secure);
        header_value(&cookie.build())
    }

    /// The header that takes `name` away.
    pub(crate) fn clear(self, name: Name) -> HeaderValue {
        let cookie = Cookie::build((self.name(name), ""))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(self.is_secure)
            .removal();
        header_value(&cookie.build())
    }
}

fn header_value(cookie: &Cookie<'_>) -> HeaderValue {
    // Tokens are base64url; a text that is no header value can only be a mistake of ours, and sets nothing.
    HeaderValue::from_str(&cookie.to_string()).unwrap_or(HeaderValue::from_static("stoa_none="))
}

/// Adds a cookie to `headers`.
pub(crate) fn append(headers: &mut HeaderMap, cookie: HeaderValue) {
    headers.append(header::SET_COOKIE, cookie);
}
