//! From where a request comes: the client's address, as far as it can be trusted.
//!
//! The connection tells who is nearest. Behind proxies that is a proxy, and each proxy appends to `X-Forwarded-For` the address that it was
//! called from. Whatever stands before what our own proxies have written is the client's to make up, so the list is read from its end, and for no
//! more entries than there are proxies of ours.

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request},
    http::{HeaderMap, HeaderName, header},
};
use kernel::{caller::Caller, id::RequestId};

/// The list of addresses that proxies append to.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How many proxies of ours stand between clients and this process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TrustedProxies(pub(crate) u8);

/// Who sends `request`, which is known by `id`.
pub(crate) fn caller_of(request: &Request, id: RequestId, proxies: TrustedProxies) -> Caller {
    let nearest = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(peer)| peer.ip());
    let headers = request.headers();
    let user_agent = headers
        .get(header::USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let address = nearest.map(|nearest| client_address(nearest, headers, proxies));
    Caller::new(id, address, user_agent.as_deref())
}

/// The address that the outermost of our proxies was called from. Where the list is shorter, or an entry is no address, the nearest address
/// that one of them has vouched for.
fn client_address(
    nearest: IpAddr,
    headers: &HeaderMap,
    TrustedProxies(count): TrustedProxies,
) -> IpAddr {
    headers
        .get_all(FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|line| line.as_bytes().rsplit(|&byte| byte == b','))
        .take(count.into())
        .map_while(address_of)
        .last()
        .unwrap_or(nearest)
        .to_canonical()
}

/// An entry of the list: an address, which some proxies put in brackets and some give with a port.
fn address_of(entry: &[u8]) -> Option<IpAddr> {
    let entry = str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(entry);
    bare.parse()
        .ok()
        .or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use axum::{body::Body, http::HeaderValue};
    use kernel::clock::Timestamp;

    use super::*;

    const NEAREST: &str = "10.0.0.1";

    fn address(lines: &[&[u8]], proxies: u8) -> String {
        let headers = lines
            .iter()
            .map(|line| (FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap()))
            .collect();
        client_address(NEAREST.parse().unwrap(), &headers, TrustedProxies(proxies)).to_string()
    }

    #[test]
    fn without_proxies_nobody_says_who_they_are() {
        assert_eq!(address(&[], 0), NEAREST);
        assert_eq!(address(&[b"192.0.2.7"], 0), NEAREST);
        assert_eq!(address(&[b"192.0.2.7, 192.0.2.8"], 0), NEAREST);
    }

    #[test]
    fn the_client_is_whom_the_outermost_proxy_of_ours_saw() {
        assert_eq!(address(&[b"192.0.2.7"], 1), "192.0.2.7");
        assert_eq!(address(&[b"192.0.2.7,10.0.0.2"], 2), "192.0.2.7");
        assert_eq!(address(&[b"192.0.2.7", b"10.0.0.2"], 2), "192.0.2.7");
        assert_eq!(address(&[b"10.9.9.9, 192.0.2.7, 10.0.0.2"], 2), "192.0.2.7");
        for entry in [
            "192.0.2.7:4711",
            " \t192.0.2.7 ",
            "::ffff:192.0.2.7",
            "[::ffff:192.0.2.7]:80",
        ] {
            assert_eq!(address(&[entry.as_bytes()], 1), "192.0.2.7", "{entry}");
        }
        for entry in ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443"] {
            assert_eq!(address(&[entry.as_bytes()], 1), "2001:db8::7", "{entry}");
        }
    }

    #[test]
    fn what_a_client_makes_up_is_not_believed() {
        // The proxy has appended 192.0.2.7; what stands before it came from outside.
        for made_up in [
            "127.0.0.1",
            "10.0.0.1, 10.0.0.2",
            "\u{e9}",
            ",,,",
            "unknown",
            "\"127.0.0.1\"",
        ] {
            let line = format!("{made_up}, 192.0.2.7");
            assert_eq!(address(&[line.as_bytes()], 1), "192.0.2.7", "{line}");
            assert_eq!(
                address(&[made_up.as_bytes(), b"192.0.2.7"], 1),
                "192.0.2.7",
                "{made_up}"
            );
        }
        assert_eq!(address(&[b"\xff\xfe, 192.0.2.7"], 1), "192.0.2.7");
    }

    #[test]
    fn a_list_that_is_short_or_malformed_ends_at_the_nearest_address_that_can_be_trusted() {
        assert_eq!(address(&[], 2), NEAREST);
        assert_eq!(address(&[b""], 1), NEAREST);
        assert_eq!(address(&[b"192.0.2.7"], 3), "192.0.2.7");
        for broken in [
            "",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.7:99999",
            "fe80::1%eth0",
            "[192.0.2.7",
            "0x7f.1",
            "192.0.2.7;a",
        ] {
            let line = format!("127.0.0.1, {broken}, 10.0.0.2");
            assert_eq!(address(&[line.as_bytes()], 3), "10.0.0.2", "{line}");
            let line = format!("127.0.0.1, {broken}");
            assert_eq!(address(&[line.as_bytes()], 2), NEAREST, "{line}");
        }
        // A very long list costs no more than its end.
        let long = "127.0.0.1,".repeat(5_000) + "192.0.2.7";
        assert_eq!(address(&[long.as_bytes()], 1), "192.0.2.7");
    }

    #[test]
    fn a_caller_has_the_connections_address_and_what_the_client_says_of_itself() {
        let id = RequestId::new(Timestamp::from_unix_millis(0));
        let mut request = Request::builder()
            .header(
                header::USER_AGENT,
                HeaderValue::from_bytes(b"caf\xe9/1").unwrap(),
            )
            .body(Body::empty())
            .unwrap();
        let unknown = caller_of(&request, id, TrustedProxies(1));
        assert_eq!(unknown.address, None, "no connection, no address");
        let peer: SocketAddr = "[::ffff:10.0.0.1]:4711".parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
        let caller = caller_of(&request, id, TrustedProxies(1));
        assert_eq!(caller.address, Some(NEAREST.parse().unwrap()));
        assert_eq!(caller.user_agent.as_deref(), Some("caf\u{fffd}/1"));
        assert_eq!(caller.request, id);
    }
}
