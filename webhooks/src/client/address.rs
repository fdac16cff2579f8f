//! Which targets a webhook may be sent to: a typed check of URLs, and a resolver that lets only allowed addresses through.
//!
//! Called by endpoint when a URL is saved, and by the client for every attempt. Invariant: no connection is opened to an address that
//! [`AddressPolicy::allows`] refuses. Names are covered by [`GuardedResolver`], whose answers are the very addresses that are dialled, so
//! that a name which resolves differently a moment later gains nothing. Address literals never reach a resolver, and are checked on the
//! parsed URL: whatever way one is spelled (`127.1`, `0x7f000001`, `①27.0.0.1`), it has become an address there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::lookup::Lookup;

/// Longest URL of an endpoint, in bytes: what common servers take in a request line is four times that.
pub const URL_BYTES_MAX: usize = 2_048;

/// What the operator allows webhooks to reach. The default is the public internet by HTTPS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Allows loopback, private networks (RFC 1918), carriers' shared addresses (RFC 6598) and unique local addresses (RFC 4193).
    pub allow_private: bool,
    /// Allows link-local addresses. Apart from the others, because clouds answer with their machines' credentials there.
    pub allow_link_local: bool,
    /// Allows `http:` URLs.
    pub allow_http: bool,
}

/// Why a URL can't be an endpoint's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not an absolute URL, or with characters that parsers disagree about.
    #[error("must be an absolute URL")]
    Malformed,
    /// Longer than [`URL_BYTES_MAX`].
    #[error("must have at most {URL_BYTES_MAX} bytes")]
    TooLong,
    /// A scheme other than the allowed ones.
    #[error("must begin with https://")]
    Scheme,
    /// With a user name or password: they would end in logs.
    #[error("must not contain a user name or password")]
    Credentials,
    /// With a fragment, which is never sent.
    #[error("must not contain a fragment")]
    Fragment,
    /// An address that webhooks may not be sent to.
    #[error("must not point to a private or reserved address")]
    RefusedAddress,
}

impl UrlError {
    /// A stable word for the reason, as problems name it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Scheme => "scheme",
            Self::Credentials => "credentials",
            Self::Fragment => "fragment",
            Self::RefusedAddress => "refused_address",
        }
    }
}

/// Parses the URL of an endpoint and checks what can be checked without asking the network.
///
/// A name that leads to a refused address passes here, and is refused when it is dialled: what it leads to may change at any time.
pub fn check_url(text: &str, policy: AddressPolicy) -> Result<Url, UrlError> {
    if text.len() > URL_BYTES_MAX {
        return Err(UrlError::TooLong);
    }
    // The parser drops tabs and line breaks and trims spaces; what is saved should be what was meant.
    if text
        .chars()
        .any(|character| character.is_control() || character.is_whitespace())
    {
        return Err(UrlError::Malformed);
    }
    let Ok(url) = Url::parse(text) else {
        return Err(UrlError::Malformed);
    };
    check_parsed(&url, policy)?;
    Ok(url)
}

/// The part of [`check_url`] that is repeated before each attempt: the policy may have changed since the URL was saved.
pub(crate) fn check_parsed(url: &Url, policy: AddressPolicy) -> Result<(), UrlError> {
    match url.scheme() {
        "https" => {}
        "http" if policy.allow_http => {}
        _ => return Err(UrlError::Scheme),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlError::Credentials);
    }
    if url.fragment().is_some() {
        return Err(UrlError::Fragment);
    }
    let allowed = match url.host() {
        None => return Err(UrlError::Malformed),
        Some(Host::Ipv4(address)) => policy.allows(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => policy.allows(IpAddr::V6(address)),
        // RFC 6761 says what these resolve to, so a mistake is told when it is made rather than at the first delivery.
        Some(Host::Domain(name)) => policy.allow_private || !is_localhost(name),
    };
    if allowed {
        Ok(())
    } else {
        Err(UrlError::RefusedAddress)
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// What kind of network an address belongs to, as far as the policy tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Public,
    Private,
    LinkLocal,
    /// Never a sensible target: multicast, unspecified, reserved, documentation, benchmarking, retired transition mechanisms.
    Never,
}

impl AddressPolicy {
    /// Whether a connection to this address may be opened.
    pub fn allows(self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.allows_reach(reach_v4(address)),
            IpAddr::V6(address) => {
                self.allows_reach(reach_v6(address))
                    && isatap(address).is_none_or(|inner| self.allows_reach(reach_v4(inner)))
            }
        }
    }

    const fn allows_reach(self, reach: Reach) -> bool {
        match reach {
            Reach::Public => true,
            Reach::Private => self.allow_private,
            Reach::LinkLocal => self.allow_link_local,
            Reach::Never => false,
        }
    }
}

/// By IANA's registry of special-purpose IPv4 addresses (RFC 6890 and its successors).
fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Reach::Private,
        [169, 254, ..] => Reach::LinkLocal,
        [0 | 224..=255, ..]           // this network; multicast, reserved and broadcast
        | [192, 0, 0 | 2, _]          // protocol assignments, documentation
        | [192, 88, 99, _]            // the retired relays of 6to4
        | [198, 18 | 19, ..]          // benchmarking
        | [198, 51, 100, _] | [203, 0, 113, _] => Reach::Never,
        _ => Reach::Public,
    }
}

/// By IANA's registry of special-purpose IPv6 addresses. Only `2000::/3` is given out as global unicast, so the rest needs a reason to
/// pass, and an address that embeds an IPv4 address is judged by that one.
fn reach_v6(address: Ipv6Addr) -> Reach {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] | [0xfc00..=0xfdff, ..] => Reach::Private,
        [0xfe80..=0xfebf, ..] => Reach::LinkLocal,
        // IPv4-mapped: the kernel dials the IPv4 address. NAT64's well-known prefix: a translator does.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            reach_v4(embedded(high, low))
        }
        // Protocol assignments (Teredo, ORCHID, benchmarking and others) and documentation; 6to4, retired, which embeds an
        // IPv4 address; documentation again.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x2002, ..] | [0x3fff, 0..=0x0fff, ..] => Reach::Never,
        [0x2000..=0x3fff, ..] => Reach::Public,
        // IPv4-compatible (`::a.b.c.d`) and IPv4-translated (`::ffff:0:a.b.c.d`) addresses, both retired, and NAT64's local-use prefix
        // (`64:ff9b:1::/48`), behind which is somebody's own network, are among these.
        _ => Reach::Never,
    }
}

/// The IPv4 address of an ISATAP interface (RFC 5214, section 6.1), under whichever prefix: a router of that kind sends on to it.
fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [.., 0x0000 | 0x0200, 0x5efe, high, low] => Some(embedded(high, low)),
        _ => None,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}

/// The resolver refused everything that a name resolved to.
#[derive(Debug, thiserror::Error)]
#[error("the name leads only to addresses that webhooks may not be sent to")]
pub(crate) struct RefusedAddresses;

/// Resolves names and passes on only what the policy allows.
pub(crate) struct GuardedResolver {
    pub(crate) policy: AddressPolicy,
    pub(crate) lookup: Lookup,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy;
        let found = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let found = found.await?;
            if found.is_empty() {
                return Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
            }
            let allowed: Vec<SocketAddr> = found
                .into_iter()
                .filter(|found| policy.allows(found.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(RefusedAddresses.into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::sync::Arc;

    use super::*;

    const PUBLIC: AddressPolicy = AddressPolicy {
        allow_private: false,
        allow_link_local: false,
        allow_http: false,
    };
    const PRIVATE: AddressPolicy = AddressPolicy {
        allow_private: true,
        ..PUBLIC
    };
    const LINK_LOCAL: AddressPolicy = AddressPolicy {
        allow_link_local: true,
        ..PUBLIC
    };

    /// Hosts as people and attackers spell them; whether the default policy lets them pass, and one that allows private networks.
    #[rustfmt::skip]
    const HOSTS: &[(&str, bool, bool)] = &[
        // Public.
        ("example.com", true, true), ("8.8.8.8", true, true), ("1.1.1.1", true, true), ("93.184.216.34", true, true),
        ("172.15.255.255", true, true), ("172.32.0.0", true, true), ("100.63.255.255", true, true), ("100.128.0.0", true, true),
        ("169.253.255.255", true, true), ("192.0.1.1", true, true), ("198.17.255.255", true, true), ("198.20.0.0", true, true),
        ("223.255.255.255", true, true), ("11.0.0.0", true, true), ("[2606:4700:4700::1111]", true, true),
        ("[2a00:1450:4001:81b::200e]", true, true), ("[::ffff:8.8.8.8]", true, true), ("[64:ff9b::808:808]", true, true),
        ("134744072", true, true), // 8.8.8.8 as one number
        // Loopback in many spellings.
        ("127.0.0.1", false, true), ("127.1", false, true), ("127.255.255.254", false, true), ("2130706433", false, true),
        ("0x7f000001", false, true), ("0x7f.1", false, true), ("0177.0.0.1", false, true), ("①27.0.0.1", false, true),
        ("127。0。0。1", false, true), ("%31%32%37.0.0.1", false, true), ("127.0.0.1.", false, true), ("[::1]", false, true),
        ("[0:0:0:0:0:0:0:1]", false, true), ("[::ffff:127.0.0.1]", false, true), ("[::ffff:7f00:1]", false, true),
        ("[64:ff9b::127.0.0.1]", false, true), ("localhost", false, true), ("LOCALHOST", false, true),
        ("localhost.", false, true), ("hooks.localhost", false, true),
        // Private, shared, unique local.
        ("10.0.0.0", false, true), ("10.255.255.255", false, true), ("172.16.0.1", false, true), ("172.31.255.255", false, true),
        ("192.168.0.1", false, true), ("100.64.0.1", false, true), ("100.127.255.255", false, true), ("[fc00::1]", false, true),
        ("[fdff:ffff::1]", false, true), ("[::ffff:10.0.0.1]", false, true), ("[64:ff9b::a00:1]", false, true),
        // Link-local, where clouds keep credentials.
        ("169.254.169.254", false, false), ("[fe80::1]", false, false), ("[febf::1]", false, false),
        ("[::ffff:169.254.169.254]", false, false), ("[64:ff9b::a9fe:a9fe]", false, false), ("2852039166", false, false),
        // Never.
        ("0.0.0.0", false, false), ("0", false, false), ("0.1.2.3", false, false), ("224.0.0.1", false, false),
        ("239.255.255.255", false, false), ("240.0.0.1", false, false), ("255.255.255.255", false, false),
        ("192.0.0.1", false, false), ("192.0.2.1", false, false), ("198.51.100.1", false, false), ("203.0.113.1", false, false),
        ("192.88.99.1", false, false), ("198.18.0.1", false, false), ("198.19.255.255", false, false), ("[::]", false, false),
        ("[::127.0.0.1]", false, false), ("[::8.8.8.8]", false, false), ("[::ffff:0.0.0.0]", false, false),
        ("[ff02::1]", false, false), ("[fec0::1]", false, false), ("[100::1]", false, false), ("[2001::1]", false, false),
        ("[2001:0:4136:e378:8000:63bf:3fff:fdd2]", false, false), // Teredo
        ("[2001:2::1]", false, false), ("[2001:10::1]", false, false), ("[2001:20::1]", false, false),
        ("[2001:db8::1]", false, false), ("[3fff::1]", false, false), ("[2002:7f00:1::1]", false, false),
        ("[2002:808:808::1]", false, false), ("[64:ff9b:1::1]", false, false), ("[5f00::1]", false, false),
        ("[4000::1]", false, false), ("[100:0:0:1::1]", false, false), ("[ff05::1:3]", false, false), ("[0::]", false, false),
        // IPv4 within IPv6, in every way that has ever been written down, with an inner address of each kind.
        ("[::ffff:192.168.1.1]", false, true), ("[::ffff:c0a8:101]", false, true), ("[0:0:0:0:0:ffff:127.0.0.1]", false, true),
        ("[::FFFF:127.0.0.1]", false, true), ("[::ffff:100.64.0.1]", false, true), ("[::ffff:224.0.0.1]", false, false),
        ("[::ffff:255.255.255.255]", false, false), ("[64:ff9b::10.0.0.1]", false, true), ("[64:ff9b::192.168.0.1]", false, true),
        ("[64:ff9b::0.0.0.0]", false, false), ("[64:ff9b::224.0.0.1]", false, false),
        ("[64:ff9b:1::7f00:1]", false, false), ("[64:ff9b:1:7f00:0:100::]", false, false), ("[64:ff9b:1:fffe::a00:1]", false, false),
        ("[64:ff9b:1::8.8.8.8]", false, false), ("[64:ff9b:0:1::7f00:1]", false, false),
        ("[::10.0.0.1]", false, false), ("[::a00:1]", false, false), ("[::169.254.169.254]", false, false),
        ("[::ffff:0:127.0.0.1]", false, false), ("[::ffff:0:7f00:1]", false, false), ("[::ffff:0:10.0.0.1]", false, false),
        ("[::ffff:0:8.8.8.8]", false, false), ("[::ffff:0:169.254.169.254]", false, false),
        ("[2002:a00:1::1]", false, false), ("[2002:c0a8:101::]", false, false), ("[2002:a9fe:a9fe::1]", false, false),
        ("[2001:0:7f00:1::]", false, false), ("[2001::f5ff:fffe]", false, false), // Teredo hides its client by inverting it
        ("[2606:4700::5efe:127.0.0.1]", false, true), ("[2606:4700::5efe:10.0.0.1]", false, true),
        ("[2606:4700::200:5efe:192.168.0.1]", false, true), ("[2606:4700::5efe:169.254.169.254]", false, false),
        ("[2606:4700::200:5efe:a9fe:a9fe]", false, false), ("[2606:4700::5efe:224.0.0.1]", false, false),
        ("[2606:4700::5efe:8.8.8.8]", true, true), ("[fe80::5efe:8.8.8.8]", false, false), ("[fe80::5efe:127.0.0.1]", false, false),
        ("[fd00::5efe:8.8.8.8]", false, true), ("[fd00::5efe:169.254.169.254]", false, false),
        // A zone names an interface of ours (RFC 6874), which URLs of browsers have not; so parsers disagree, and none is taken.
        ("[fe80::1%25eth0]", false, false), ("[fe80::1%eth0]", false, false), ("[::1%25lo]", false, false),
        ("[2606:4700::1%251]", false, false), ("[fe80::1%]", false, false),
    ];

    /// Fewest forms of refused hosts that the table above must have.
    const REFUSED_FORMS_MIN: usize = 40;

    /// The addresses of the table that are refused by default, as a resolver might find them.
    pub(in crate::client) fn refused_addresses() -> Vec<IpAddr> {
        HOSTS
            .iter()
            .filter(|(_, by_default, _)| !by_default)
            .filter_map(|(host, ..)| Url::parse(&format!("https://{host}/")).ok())
            .filter_map(|url| match url.host() {
                Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
                Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_table_of_hosts_is_not_cut_short() {
        let mut refused: Vec<&str> = HOSTS
            .iter()
            .filter(|(_, by_default, _)| !by_default)
            .map(|(host, ..)| *host)
            .collect();
        refused.sort_unstable();
        let all = refused.len();
        refused.dedup();
        assert_eq!(refused.len(), all, "a host is there twice");
        assert!(refused.len() >= REFUSED_FORMS_MIN, "{}", refused.len());
        let mut addresses = refused_addresses();
        addresses.sort_unstable();
        addresses.dedup();
        assert!(addresses.len() >= REFUSED_FORMS_MIN, "{}", addresses.len());
    }

    #[test]
    fn a_zone_makes_no_address_another() {
        let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
        for scope in [0, 1, 7] {
            let found = SocketAddr::V6(std::net::SocketAddrV6::new(link_local, 443, 0, scope));
            assert!(!PUBLIC.allows(found.ip()));
        }
    }

    proptest::proptest! {
        /// However an IPv4 address is put into an IPv6 one, what is refused plain is refused there.
        #[test]
        fn no_form_of_ipv6_hides_a_refused_ipv4_address(bits: u32, prefix in 0x2003_u16..0x3ff0) {
            let inner = Ipv4Addr::from_bits(bits);
            let octets = inner.octets();
            let (high, low) = (u16::from_be_bytes([octets[0], octets[1]]), u16::from_be_bytes([octets[2], octets[3]]));
            let forms = [
                [0, 0, 0, 0, 0, 0, high, low],
                [0, 0, 0, 0, 0, 0xffff, high, low],
                [0, 0, 0, 0, 0xffff, 0, high, low],
                [0x64, 0xff9b, 0, 0, 0, 0, high, low],
                [0x64, 0xff9b, 1, 0, 0, 0, high, low],
                [0x2002, high, low, 0, 0, 0, 0, 1],
                [0x2001, 0, high, low, 0, 0, 0, 0],
                [0x2001, 0, 0, 0, 0, 0, !high, !low],
                [prefix, 0, 0, 0, 0, 0x5efe, high, low],
                [prefix, 0, 0, 0, 0x200, 0x5efe, high, low],
            ];
            for policy in [PUBLIC, PRIVATE, LINK_LOCAL] {
                let plain = policy.allows(IpAddr::V4(inner));
                for form in forms {
                    let address = Ipv6Addr::from(form);
                    // The last of the compatible form is loopback of IPv6's own.
                    let hidden = policy.allows(IpAddr::V6(address)) && address != Ipv6Addr::LOCALHOST;
                    proptest::prop_assert!(plain || !hidden, "{address} hides {inner}");
                }
            }
        }
    }

    #[test]
    fn each_form_of_a_host_is_judged_by_the_address_that_would_be_dialled() {
        for (host, by_default, with_private) in HOSTS {
            let url = format!("https://{host}:8443/hook");
            assert_eq!(
                check_url(&url, PUBLIC).is_ok(),
                *by_default,
                "{host} by default"
            );
            assert_eq!(
                check_url(&url, PRIVATE).is_ok(),
                *with_private,
                "{host} with private networks"
            );
        }
    }

    #[test]
    fn link_local_is_allowed_by_its_own_setting_alone() {
        assert!(LINK_LOCAL.allows("169.254.1.1".parse().unwrap()));
        assert!(LINK_LOCAL.allows("fe80::1".parse().unwrap()));
        assert!(!LINK_LOCAL.allows("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn each_fault_of_a_url_has_its_name() {
        let long = format!("https://example.com/{}", "a".repeat(URL_BYTES_MAX));
        for (url, error) in [
            ("", UrlError::Malformed),
            ("example.com/hook", UrlError::Malformed),
            ("https://", UrlError::Malformed),
            ("https://exam ple.com/", UrlError::Malformed),
            ("https://example.com/\r\nHost:", UrlError::Malformed),
            ("https://example.com:99999/", UrlError::Malformed),
            ("https://999.1.1.1/", UrlError::Malformed),
            ("http://example.com/", UrlError::Scheme),
            ("ftp://example.com/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("gopher://example.com/", UrlError::Scheme),
            ("https://user@example.com/", UrlError::Credentials),
            ("https://:word@example.com/", UrlError::Credentials),
            ("https://example.com/#part", UrlError::Fragment),
            ("https://127.0.0.1/", UrlError::RefusedAddress),
            (&long, UrlError::TooLong),
        ] {
            assert_eq!(check_url(url, PUBLIC), Err(error), "{url}");
        }
        let with_http = AddressPolicy {
            allow_http: true,
            ..PUBLIC
        };
        assert!(check_url("http://example.com/hook?tenant=1", with_http).is_ok());
    }

    #[tokio::test]
    async fn a_name_is_dialled_only_at_the_addresses_that_are_allowed() {
        let mixed: Vec<SocketAddr> = ["127.0.0.1:0", "8.8.8.8:0", "[fe80::1]:0"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let resolver = |found: Vec<SocketAddr>| GuardedResolver {
            policy: PUBLIC,
            lookup: Arc::new(move |_| {
                let found = found.clone();
                Box::pin(async move { Ok(found) })
            }),
        };
        let passed: Vec<SocketAddr> = resolver(mixed)
            .resolve("example.com".parse().unwrap())
            .await
            .unwrap()
            .collect();
        assert_eq!(passed, ["8.8.8.8:0".parse().unwrap()]);
        let only_inside = vec!["10.0.0.1:0".parse().unwrap()];
        let refused = resolver(only_inside)
            .resolve("example.com".parse().unwrap())
            .await
            .err()
            .unwrap();
        assert!(refused.is::<RefusedAddresses>());
    }
}
