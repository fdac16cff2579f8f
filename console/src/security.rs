//! The headers that every answer of the console carries, and where a form's answer may lead.

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use url::{Host, Url};

use crate::Console;

/// Where the answer to a page's form may lead beside this origin: browsers check the redirect after a form was sent against `form-action`.
#[derive(Debug, Clone)]
pub(crate) struct FormTarget(pub(crate) String);

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Nothing but passkeys.
const PERMISSIONS: &str = "publickey-credentials-get=(self), publickey-credentials-create=(self), accelerometer=(), camera=(), \
    display-capture=(), geolocation=(), gyroscope=(), microphone=(), payment=(), usb=()";

/// Two years.
const STRICT_TRANSPORT: &str = "max-age=63072000";

/// Puts the headers on whatever the console answers.
pub(crate) async fn headers(
    State(console): State<Console>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    harden(
        &mut response,
        console.issuer().as_str().starts_with("https:"),
    );
    response
}

/// The headers of a page. An answer that says itself how long it may be kept is kept that long.
pub(crate) fn harden(response: &mut Response, is_https: bool) {
    let target = response.extensions().get::<FormTarget>().cloned();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        policy(target.as_ref().map(|FormTarget(target)| target.as_str())),
    );
    // Not `no-referrer`: with it browsers send `Origin: null` with forms.
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(OPENER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(PERMISSIONS_POLICY, HeaderValue::from_static(PERMISSIONS));
    if is_https {
        headers.insert(
            header::STRICT_TRANSPORT_SECURITY,
            HeaderValue::from_static(STRICT_TRANSPORT),
        );
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

fn policy(target: Option<&str>) -> HeaderValue {
    let target = target
        .map(|target| format!(" {target}"))
        .unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
        form-action 'self'{target}; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// What `form-action` must allow for a redirect to `uri`: its origin, or its scheme where there is no origin that a policy can spell (an app's own scheme, an
/// IPv6 literal).
pub(crate) fn form_target(uri: &str) -> Option<FormTarget> {
    let url = Url::parse(uri).ok()?;
    let scheme = url.scheme();
    let target = match (scheme, url.host()) {
        ("http" | "https", Some(Host::Ipv6(_))) => format!("{scheme}:"),
        ("http" | "https", Some(_)) => url.origin().ascii_serialization(),
        _ => format!("{scheme}:"),
    };
    Some(FormTarget(target))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_form_may_lead_to_the_clients_origin_and_nowhere_else() {
        for (uri, target) in [
            ("https://app.example/back?a=b;c", "https://app.example"),
            ("https://app.example:8443/back", "https://app.example:8443"),
            ("http://127.0.0.1:40123/callback", "http://127.0.0.1:40123"),
            ("http://[::1]:40123/callback", "http:"),
            ("com.example.app:/back", "com.example.app:"),
        ] {
            assert_eq!(form_target(uri).unwrap().0, target, "{uri}");
        }
        assert!(form_target("no uri").is_none());
    }
}
