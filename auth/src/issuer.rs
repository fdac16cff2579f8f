//! Who issues the tokens, and how a token's resource names its merchant.

use std::{fmt, sync::Arc};

use kernel::id::MerchantId;
use url::Url;

/// The issuer identifier (RFC 8414, section 2): the origin under which this installation is reached, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer(Arc<str>);

/// A text that names no issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the issuer must be an http or https origin such as https://stoa.example, without path, query or user"
)]
pub struct IssuerError;

/// What stands between the issuer and the merchant's id in a resource.
const MERCHANTS_PATH: &str = "/merchants/";

impl Issuer {
    /// Reads an origin, with or without a slash at its end.
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        let Ok(url) = Url::parse(text) else {
            return Err(IssuerError);
        };
        let bare = matches!(url.scheme(), "http" | "https")
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if bare {
            Ok(Self(url.origin().ascii_serialization().into()))
        } else {
            Err(IssuerError)
        }
    }

    /// The identifier, as `iss` and the metadata have it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The resource (RFC 8707) that stands for `merchant`: `{issuer}/merchants/{merchantId}`.
    pub fn resource(&self, merchant: MerchantId) -> String {
        format!("{self}{MERCHANTS_PATH}{merchant}")
    }

    /// The merchant that `resource` stands for, if it is one of ours in our own spelling.
    pub fn merchant_of(&self, resource: &str) -> Option<MerchantId> {
        resource
            .strip_prefix(self.as_str())?
            .strip_prefix(MERCHANTS_PATH)?
            .parse()
            .ok()
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_resource_names_its_merchant_in_one_spelling() {
        let issuer = Issuer::parse("https://Stoa.example:443/").unwrap();
        assert_eq!(issuer.as_str(), "https://stoa.example");
        let merchant = MerchantId::from_uuid(uuid::Uuid::from_u128(7));
        let resource = issuer.resource(merchant);
        assert_eq!(issuer.merchant_of(&resource), Some(merchant));
        for other in [
            format!("{resource}/"),
            format!("{resource}?a"),
            resource.to_uppercase(),
            resource.replace("https", "http"),
            resource.replace("stoa.example", "stoa.example.evil"),
            merchant.to_string(),
            String::new(),
        ] {
            assert_eq!(issuer.merchant_of(&other), None, "{other}");
        }
    }

    #[test]
    fn only_an_origin_is_an_issuer() {
        for text in [
            "stoa.example",
            "ftp://a",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://u@a",
            "",
        ] {
            assert_eq!(Issuer::parse(text), Err(IssuerError), "{text}");
        }
        assert_eq!(
            Issuer::parse("http://127.0.0.1:8080").unwrap().as_str(),
            "http://127.0.0.1:8080"
        );
    }
}
