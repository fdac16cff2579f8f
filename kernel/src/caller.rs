//! From where a request comes: what the audit log, sessions and throttles want to know beside who acts.

use std::net::IpAddr;

use crate::id::RequestId;

/// Characters of a user agent that are kept.
const USER_AGENT_CHARACTERS_MAX: usize = 300;

/// From where a request comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The request, as answers and logs name it.
    pub request: RequestId,
    /// The client's address, as far as it can be trusted; `None`: the command line or the system itself.
    pub address: Option<IpAddr>,
    /// What the client says of itself, cut to 300 characters.
    pub user_agent: Option<String>,
}

impl Caller {
    /// A request from `address`.
    pub fn new(request: RequestId, address: Option<IpAddr>, user_agent: Option<&str>) -> Self {
        let user_agent =
            user_agent.map(|text| text.chars().take(USER_AGENT_CHARACTERS_MAX).collect());
        Self {
            request,
            address,
            user_agent,
        }
    }

    /// The command line, or the system itself.
    pub const fn local(request: RequestId) -> Self {
        Self {
            request,
            address: None,
            user_agent: None,
        }
    }

    /// The address as it is kept, and as wrong guesses are counted: an IPv6 client has a whole /64 to change its address in.
    pub fn network(&self) -> Option<String> {
        self.address.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn an_address_is_counted_by_its_network() {
        let network = |address: &str| {
            let request = RequestId::from_uuid(uuid::Uuid::nil());
            Caller::new(request, Some(address.parse().unwrap()), None).network()
        };
        assert_eq!(network("192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(network("::ffff:192.0.2.7").as_deref(), Some("192.0.2.7"));
        assert_eq!(
            network("2001:db8:1:2:3:4:5:6").as_deref(),
            Some("2001:db8:1:2::/64")
        );
    }
}
