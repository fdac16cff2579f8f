//! The operator's way out: a proxy that all webhooks leave by.

use std::{fmt, str::FromStr};

use url::Url;

/// An HTTP proxy, asked by `CONNECT` for `https:` targets. May carry a user name and a password, and so does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct EgressProxy(Url);

/// Why a text is no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is http:// or https://, a host and a port, and no more")]
pub struct InvalidProxy;

impl EgressProxy {
    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for EgressProxy {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        // The cause may quote a password.
        let url = Url::parse(text).ok().ok_or(InvalidProxy)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if matches!(url.scheme(), "http" | "https") && url.host().is_some() && is_bare {
            Ok(Self(url))
        } else {
            Err(InvalidProxy)
        }
    }
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(formatter, "EgressProxy({}://{host})", self.0.scheme())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_proxy_is_an_address_and_its_password_is_not_printed() {
        let proxy: EgressProxy = "http://stoa:hunter2@proxy.example:3128".parse().unwrap();
        assert_eq!(format!("{proxy:?}"), "EgressProxy(http://proxy.example)");
        for text in [
            "",
            "proxy.example:3128",
            "socks5://proxy.example:1080",
            "http://proxy.example:3128/path",
            "http://proxy.example:3128/?query",
        ] {
            assert_eq!(text.parse::<EgressProxy>(), Err(InvalidProxy), "{text}");
        }
    }
}
