//! Who asks: the session of a request, and the ways to sign in and to prove once more who one is, which lead back to where they began.

use auth::account::{NewSession, Session};
use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use url::{Url, form_urlencoded};

use crate::{
    Console,
    cookie::{self, Name},
    csrf::FormToken,
    failure::{Failure, SignInNeeded, StepUpNeeded},
    layout::{Place, Reader},
};

/// Where one goes who comes from nowhere.
pub(crate) const HOME: &str = "/console/";

/// Characters of a path that is led back to; the longest of ours is a consent's.
const NEXT_LENGTH_MAX: usize = 600;

/// Somebody who has signed in, and what their forms carry.
#[derive(Debug)]
pub(crate) struct Signed {
    /// The session.
    pub(crate) session: Session,
    /// What forms carry.
    pub(crate) form: FormToken,
}

impl Signed {
    /// Who reads the page at `place`.
    pub(crate) fn reader(&self, place: Place) -> Reader {
        Reader::new(&self.session, place, self.form.clone())
    }
}

impl FromRequestParts<Console> for Signed {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Failure> {
        let session = current(console, &parts.headers)
            .await?
            .ok_or(Failure::SignedOut)?;
        let form = FormToken::from_request_parts(parts, console).await?;
        Ok(Self { session, form })
    }
}

/// The session of a request, if it has a living one.
pub(crate) async fn current(
    console: &Console,
    headers: &HeaderMap,
) -> Result<Option<Session>, Failure> {
    match console.cookies().read(headers, Name::Session) {
        Some(token) => Ok(console.accounts.session(&token).await?),
        None => Ok(None),
    }
}

/// Leads whoever must sign in, or prove once more who they are, there and back.
pub(crate) async fn lead_back(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let here = if reads {
        request.uri().path_and_query().map(ToString::to_string)
    } else {
        // A form that can't be sent again: back to the page that it was on.
        referring_page(request.headers())
    };
    let response = next.run(request).await;
    let way = if response.extensions().get::<SignInNeeded>().is_some() {
        "/console/sign-in"
    } else if response.extensions().get::<StepUpNeeded>().is_some() {
        "/console/step-up"
    } else {
        return response;
    };
    see_other(&with_next(way, here.as_deref().unwrap_or(HOME)))
}

fn referring_page(headers: &HeaderMap) -> Option<String> {
    let referrer = headers.get(header::REFERER)?.to_str().ok()?;
    let url = Url::parse(referrer).ok()?;
    Some(match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    })
}

/// `path` with where to go afterwards.
pub(crate) fn with_next(path: &str, next: &str) -> String {
    let next = safe_next(next);
    if next == HOME {
        return path.to_owned();
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("next", &next);
    format!("{path}?{}", query.finish())
}

/// A page of ours that `text` names, or the beginning: never another site, and nothing beside the console.
pub(crate) fn safe_next(text: &str) -> String {
    let base = "http://console.invalid";
    let url = Url::parse(base)
        .and_then(|base| base.join(text))
        .ok()
        .filter(|url| {
            text.starts_with("/console/")
                && text.len() <= NEXT_LENGTH_MAX
                && !text.contains(['\\', '\t', '\r', '\n'])
                && url.origin().ascii_serialization() == base
                && url.path().starts_with("/console/")
                && !url.path().starts_with("/console//")
        });
    url.map_or_else(
        || HOME.to_owned(),
        |url| match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        },
    )
}

/// The answer to a form: go and read `path`.
pub(crate) fn see_other(path: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(location) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The answer of a sign-in: on to `next`, with the new session's cookie in place of whatever there was.
pub(crate) fn begin(console: &Console, session: &NewSession, next: &str) -> Response {
    let mut response = see_other(&safe_next(next));
    let cookies = console.cookies();
    let headers = response.headers_mut();
    cookie::append(headers, cookies.set(Name::Session, session.token.expose()));
    cookie::append(headers, cookies.clear(Name::Visit));
    cookie::append(headers, cookies.clear(Name::Ceremony));
    response
}

/// For pages whose form is not to be lost: the proof comes before the page.
pub(crate) fn require_recent_proof(console: &Console, signed: &Signed) -> Result<(), Failure> {
    Ok(signed.session.require_recent_proof(console.clock.now())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_console_are_led_back_to() {
        for path in [
            "/console/account",
            "/console/consent/abc?merchant=mer_1",
            "/console/",
        ] {
            assert_eq!(safe_next(path), path);
        }
        for path in [
            "",
            "https://evil.example/console/",
            "//evil.example/console/",
            "/\\evil.example",
            "/console/\\evil.example",
            "/console//evil.example",
            "/console/../oauth/authorize?client_id=a",
            "/console/%2e%2e/oauth/authorize",
            "/console/.%2E/oauth/authorize",
            "/consolex",
            "/oauth/authorize",
            "/console/\n/evil.example",
            "javascript:alert(1)",
        ] {
            assert_eq!(safe_next(path), HOME, "{path}");
        }
    }
}
