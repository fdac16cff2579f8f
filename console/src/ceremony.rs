//! The cookie of a proof in several steps that has begun: what it is, its token, and where to go afterwards.

use auth::account::CeremonyToken;
use axum::{http::HeaderMap, response::Response};
use url::form_urlencoded;

use crate::{
    Console,
    cookie::{self, Name},
    session::safe_next,
};

/// What has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The password was right, and the second factor is asked for.
    SecondFactor,
    /// The browser is on its way to the upstream provider.
    Upstream,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::SecondFactor => "second_factor",
            Self::Upstream => "upstream",
        }
    }
}

/// A proof in several steps, as the browser's cookie tells of it.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Its token.
    pub(crate) token: CeremonyToken,
    /// Where to go afterwards.
    pub(crate) next: String,
}

/// Has the browser keep it.
pub(crate) fn keep(
    console: &Console,
    response: &mut Response,
    kind: Kind,
    token: &CeremonyToken,
    next: &str,
) {
    let mut value = form_urlencoded::Serializer::new(String::new());
    value
        .append_pair("kind", kind.name())
        .append_pair("token", token.expose())
        .append_pair("next", next);
    cookie::append(
        response.headers_mut(),
        console.cookies().set(Name::Ceremony, &value.finish()),
    );
}

/// What the browser has kept of that kind.
pub(crate) fn read(console: &Console, headers: &HeaderMap, kind: Kind) -> Option<Begun> {
    let value = console.cookies().read(headers, Name::Ceremony)?;
    let mut fields = form_urlencoded::parse(value.as_bytes());
    let mut field = |name: &str| {
        fields
            .by_ref()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let (found, token, next) = (field("kind")?, field("token")?, field("next")?);
    (found == kind.name()).then(|| Begun {
        token: CeremonyToken::new(token),
        next: safe_next(&next),
    })
}
