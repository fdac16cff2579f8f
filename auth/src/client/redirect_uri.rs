//! Redirect URIs: which ones an app may register, and which ones a request may then name (RFC 6749, section 3.1.2; RFC 9700, section 4.1.3;
//! RFC 8252, sections 7 and 8).
//!
//! A registered URI is kept as it was written, and must be written in its normal form: what a browser would rewrite (upper-case schemes, `..`,
//! `\`, tabs, default ports, `http://127.1`) is refused, so that the text that is compared is the place that is gone to.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use super::app::ClientKind;

/// Redirect URIs of one app. A dozen deployments are many.
pub const REDIRECT_URIS_MAX: usize = 20;

/// Characters of a redirect URI; browsers and servers in between take about as many.
pub const REDIRECT_URI_LENGTH_MAX: usize = 2_000;

/// What a loopback URI begins with, whose port is free (RFC 8252, section 7.3). `localhost` is not among them: it need not mean this machine
/// (section 8.3).
const LOOPBACKS: [&str; 2] = ["http://127.0.0.1", "http://[::1]"];

/// Schemes that a browser runs, shows or keeps itself rather than handing them to an app. Those without a dot are refused anyway; the list is there
/// for whoever loosens that.
const DANGEROUS_SCHEMES: [&str; 14] = [
    "about",
    "blob",
    "chrome",
    "data",
    "file",
    "filesystem",
    "ftp",
    "intent",
    "javascript",
    "mailto",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// What the answer to an authorization request adds to the query (RFC 6749, section 4.1.2; RFC 9207): a URI that has one already would be answered with two.
const ANSWERED: [&str; 6] = [
    "code",
    "state",
    "iss",
    "error",
    "error_description",
    "error_uri",
];

/// Whether an app of this `kind` may register `uri`; what it must be, if not.
pub fn check_registered(uri: &str, kind: ClientKind) -> Result<(), &'static str> {
    if uri.is_empty() || uri.len() > REDIRECT_URI_LENGTH_MAX {
        return Err("must have 1 to 2,000 characters");
    }
    // What RFC 3986 allows nowhere, and what browsers strip or rewrite. An encoded character outside of ASCII is no concern here.
    let is_legal = |byte: u8| byte.is_ascii_graphic() && !br#""<>\^`{|}"#.contains(&byte);
    if !uri.bytes().all(is_legal) {
        return Err("must have the characters of a URI only (RFC 3986)");
    }
    if uri.contains('*') {
        return Err("must be one exact URI, without a wildcard");
    }
    if uri.contains('#') {
        return Err("must have no fragment");
    }
    let Ok(url) = Url::parse(uri) else {
        return Err("must be an absolute URI such as https://app.example/callback");
    };
    if DANGEROUS_SCHEMES.contains(&url.scheme()) {
        return Err("must have the scheme https, or http on 127.0.0.1 or [::1]");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user name or password");
    }
    if url
        .query_pairs()
        .any(|(name, _)| ANSWERED.contains(&&*name))
    {
        return Err("must not have code, state, iss or error in its query: the answer brings them");
    }
    let normal = url.as_str();
    let is_normal = normal == uri || normal.strip_suffix('/') == Some(uri);
    match url.scheme() {
        _ if !is_normal => Err("must be written in its normal form, as a browser shows it"),
        "https" if is_public_name(&url) => Ok(()),
        "https" => Err("must have a host name or an address"),
        "http" if is_loopback(&url) => Ok(()),
        "http" => Err("must be https; http is for the addresses 127.0.0.1 and [::1] alone"),
        scheme if !scheme.contains('.') => {
            Err("must have the scheme https, or a private one with a dot such as com.example.app")
        }
        _ if kind == ClientKind::Confidential => {
            Err("must be https: schemes of its own are for public clients")
        }
        _ => Ok(()),
    }
}

/// Whether a request may name `given` where `registered` is registered: the same text, but for the port of a loopback URI, which the app takes
/// when it runs.
pub fn matches(registered: &str, given: &str) -> bool {
    registered == given
        || LOOPBACKS.iter().any(|prefix| {
            let registered = registered.strip_prefix(prefix).map(without_port);
            let given = given.strip_prefix(prefix).map(without_port);
            matches!((registered, given), (Some(Some(registered)), Some(Some(given))) if registered == given)
        })
}

/// What follows the host and its port; `None` if the host goes on, or the port is none.
fn without_port(rest: &str) -> Option<&str> {
    let rest = match rest.strip_prefix(':') {
        None => rest,
        Some(port_and_rest) => {
            let end = port_and_rest
                .find(|character: char| !character.is_ascii_digit())
                .unwrap_or(port_and_rest.len());
            let (port, rest) = port_and_rest.split_at_checked(end)?;
            port.parse::<u16>().ok().filter(|&port| port != 0)?;
            rest
        }
    };
    (rest.is_empty() || rest.starts_with(['/', '?'])).then_some(rest)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address == Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(address)) => address == Ipv6Addr::LOCALHOST,
        _ => false,
    }
}

/// A name with an empty label or none at all is nobody's.
fn is_public_name(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => !name.is_empty() && !name.split('.').any(str::is_empty),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => true,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_app_may_register() {
        for uri in [
            "https://app.example",
            "https://app.example/",
            "https://app.example/callback",
            "https://app.example:8443/a/b?tenant=7&x=%2F",
            "https://xn--bcher-kva.example/callback",
            "https://192.0.2.7/callback",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:4711/callback",
            "http://[::1]/callback",
            "http://[::1]:4711",
        ] {
            for kind in [ClientKind::Confidential, ClientKind::Public] {
                assert_eq!(check_registered(uri, kind), Ok(()), "{uri}");
            }
        }
        for uri in ["com.example.app:/callback", "com.example.app://callback"] {
            assert_eq!(check_registered(uri, ClientKind::Public), Ok(()), "{uri}");
            assert!(
                check_registered(uri, ClientKind::Confidential).is_err(),
                "{uri}"
            );
        }
    }

    #[test]
    fn what_nobody_may_register() {
        let long = format!("https://app.example/{}", "a".repeat(2_000));
        for uri in [
            "",
            "callback",
            "/callback",
            "//app.example/callback",
            "app.example/callback",
            "http://app.example/callback",
            "http://localhost/callback",
            "http://localhost:4711/callback",
            "http://127.0.0.2/callback",
            "http://127.1/callback",
            "http://2130706433/callback",
            "http://0x7f.0.0.1/callback",
            "http://[::ffff:127.0.0.1]/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://127.0.0.1@evil.example/callback",
            "https://user@app.example/callback",
            "https://user:pass@app.example/callback",
            "https://@app.example/callback",
            "https://app.example/callback#",
            "https://app.example/callback#token",
            "https://*.app.example/callback",
            "https://app.example/*",
            "https://app.example/a b",
            "https://app.example/a\tb",
            "https://app.example/a\r\nLocation: x",
            "https://app.example/\u{0}",
            "https://app.example/bücher",
            "https://bücher.example/callback",
            "https://app.example\\@evil.example/",
            "https:\\\\app.example/",
            "https:/app.example/callback",
            "https:app.example/callback",
            "HTTPS://app.example/callback",
            "https://APP.example/callback",
            "https://app.example:443/callback",
            "https://app.example/a/../callback",
            "https://app.example/./callback",
            "https://app.example/%2e%2e/callback",
            "https://app.example./callback",
            "https://app..example/callback",
            "https:///callback",
            " https://app.example/callback",
            "https://app.example/callback ",
            "https://app.example/callback?code=1",
            "https://app.example/callback?tenant=7&iss=x",
            "https://app.example/callback?st%61te=1",
            "javascript:alert(1)",
            "javascript://app.example/%0aalert(1)",
            "JavaScript:alert(1)",
            "java\tscript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "blob:https://app.example/x",
            "about:blank",
            "view-source:https://app.example",
            "mailto:somebody@app.example",
            "intent://x#Intent;end",
            "ftp://app.example/x",
            "wss://app.example/x",
            "myapp://callback",
            "myapp:/callback",
            "Com.Example.App:/callback",
            &long,
        ] {
            for kind in [ClientKind::Confidential, ClientKind::Public] {
                assert!(check_registered(uri, kind).is_err(), "{uri}");
            }
        }
    }

    #[test]
    fn a_request_names_a_registered_uri_exactly() {
        let registered = "https://app.example/callback?a=b";
        assert!(matches(registered, registered));
        for given in [
            "",
            "https://app.example/callback",
            "https://app.example/callback?a=b&c=d",
            "https://app.example/callback?a=b#",
            "https://app.example/callback/?a=b",
            "https://app.example/Callback?a=b",
            "https://APP.example/callback?a=b",
            "https://app.example:443/callback?a=b",
            "https://app.example:8443/callback?a=b",
            "https://app.example/x/../callback?a=b",
            "https://app.example/%63allback?a=b",
            "http://app.example/callback?a=b",
            "https://app.example.evil.example/callback?a=b",
            "https://app.example@evil.example/callback?a=b",
            "https://evil.example/?https://app.example/callback?a=b",
            " https://app.example/callback?a=b",
        ] {
            assert!(!matches(registered, given), "{given}");
        }
        assert!(!matches("https://app.example", "https://app.example/"));
    }

    #[test]
    fn the_ports_of_loopback_addresses_are_free_and_nothing_else_is() {
        for (registered, given) in [
            ("http://127.0.0.1/callback", "http://127.0.0.1/callback"),
            (
                "http://127.0.0.1/callback",
                "http://127.0.0.1:49152/callback",
            ),
            (
                "http://127.0.0.1:80/callback",
                "http://127.0.0.1:1/callback",
            ),
            ("http://127.0.0.1:80/callback", "http://127.0.0.1/callback"),
            ("http://[::1]/callback", "http://[::1]:65535/callback"),
            ("http://127.0.0.1", "http://127.0.0.1:7"),
            ("http://127.0.0.1?a", "http://127.0.0.1:7?a"),
        ] {
            assert!(matches(registered, given), "{registered} {given}");
        }
        for (registered, given) in [
            ("http://127.0.0.1/callback", "http://[::1]/callback"),
            ("http://127.0.0.1/callback", "http://localhost/callback"),
            ("http://127.0.0.1/callback", "http://127.0.0.1:7/callback/"),
            ("http://127.0.0.1/callback", "http://127.0.0.1:7/other"),
            ("http://127.0.0.1/callback", "http://127.0.0.1:7/callback?x"),
            ("http://127.0.0.1/callback", "http://127.0.0.1:7/callback#x"),
            ("http://127.0.0.1/callback", "https://127.0.0.1:7/callback"),
            ("http://127.0.0.1/callback", "http://127.0.0.1:/callback"),
            ("http://127.0.0.1/callback", "http://127.0.0.1:0/callback"),
            (
                "http://127.0.0.1/callback",
                "http://127.0.0.1:65536/callback",
            ),
            ("http://127.0.0.1/callback", "http://127.0.0.1:+7/callback"),
            (
                "http://127.0.0.1/callback",
                "http://127.0.0.1:7@evil.example/callback",
            ),
            (
                "http://127.0.0.1/callback",
                "http://127.0.0.1.evil.example/callback",
            ),
            ("http://127.0.0.1", "http://127.0.0.1.evil.example"),
            ("http://127.0.0.1", "http://127.0.0.1:7.evil.example"),
            ("https://127.0.0.1/callback", "https://127.0.0.1:7/callback"),
        ] {
            assert!(!matches(registered, given), "{registered} {given}");
        }
    }
}
