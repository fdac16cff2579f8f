//! Scopes: what a grant may allow, one `resource:verb` each.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Declares the scopes once: variant, name, and the words that a merchant reads.
macro_rules! scopes {
    ($($variant:ident, $name:literal, $words:literal;)*) => {
        /// One thing that a token may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Scope {
            $(#[doc = concat!("`", $name, "`: ", $words, ".")] $variant,)*
        }

        impl Scope {
            /// Every scope there is, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name in tokens and documents: `orders:read`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it allows, in a merchant's words.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words),* }
            }
        }
    };
}

scopes! {
    CatalogRead, "catalog:read", "see products and variants";
    CatalogWrite, "catalog:write", "create, change, import and archive products";
    InventoryRead, "inventory:read", "see stock levels and their history";
    InventoryWrite, "inventory:write", "set and adjust stock";
    OrdersRead, "orders:read", "see orders without personal data";
    OrdersWrite, "orders:write", "place and cancel orders";
    OrdersImport, "orders:import", "bring in orders that were placed elsewhere";
    OrdersPiiRead, "orders.pii:read", "see the names, addresses and contacts of customers";
    LocationsRead, "locations:read", "see locations";
    LocationsWrite, "locations:write", "create and change locations";
    PricesWrite, "prices:write", "change prices";
    CustomersRead, "customers:read", "see customers";
    CustomersWrite, "customers:write", "create, change and erase customers";
    FulfillmentsRead, "fulfillments:read", "see shipments and their tracking";
    FulfillmentsWrite, "fulfillments:write", "ship orders and write tracking";
    ReturnsRead, "returns:read", "see returns";
    ReturnsWrite, "returns:write", "request, approve and receive returns";
    PaymentsRead, "payments:read", "see payments and refunds";
    PaymentsWrite, "payments:write", "capture, refund and void payments";
    CouponsRead, "coupons:read", "see coupons";
    CouponsWrite, "coupons:write", "create, claim and redeem coupons";
    LedgerRead, "ledger:read", "see the ledger and payouts";
    WebhooksRead, "webhooks:read", "see webhook endpoints, their attempts and dead letters";
    WebhooksWrite, "webhooks:write", "create and change webhook endpoints, and replay events";
    EventsRead, "events:read", "read the feed of events";
    AppsAdmin, "apps:admin", "manage apps and their credentials";
    MerchantAdmin, "merchant:admin", "act for the merchant as a whole";
}

impl Scope {
    /// The read scope that this scope brings with it: a write scope implies the read scope of the same resource.
    pub fn implied(self) -> Option<Self> {
        let resource = self.name().strip_suffix(":write")?;
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.name().strip_suffix(":read") == Some(resource))
    }

    fn bit(self) -> u32 {
        1_u32 << u32::from(self.index())
    }

    #[allow(
        clippy::as_conversions,
        reason = "the discriminant of a repr(u8) enum is a u8"
    )]
    const fn index(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A text that is no scope's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no scope {0:?}; there are, with a space between: {all}", all = ScopeSet::all())]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.name() == name)
            .ok_or_else(|| UnknownScope(name.to_owned()))
    }
}

/// A set of scopes, written as RFC 6749 (section 3.3) has it: names with a space between.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u32);

impl ScopeSet {
    /// Every scope.
    pub fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `scope` is allowed: named, or implied by the write scope of its resource.
    pub fn allows(self, scope: Scope) -> bool {
        self.iter()
            .any(|held| held == scope || held.implied() == Some(scope))
    }

    /// Whether all that `other` allows is allowed.
    pub fn allows_all(self, other: Self) -> bool {
        other.iter().all(|scope| self.allows(scope))
    }

    /// What is named in it.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL
            .iter()
            .copied()
            .filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// The scopes of `self` that `limit` allows.
    #[must_use]
    pub fn within(self, limit: Self) -> Self {
        self.iter().filter(|&scope| limit.allows(scope)).collect()
    }

    /// Every scope that both allow, implied ones included.
    #[must_use]
    pub fn shared_with(self, other: Self) -> Self {
        Scope::ALL
            .iter()
            .copied()
            .filter(|&scope| self.allows(scope) && other.allows(scope))
            .collect()
    }

    /// The names, as PostgreSQL keeps them in a `text[]`.
    pub fn names(self) -> Vec<String> {
        self.iter().map(|scope| scope.name().to_owned()).collect()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | scope.bit()))
    }
}

impl FromStr for ScopeSet {
    type Err = UnknownScope;

    fn from_str(names: &str) -> Result<Self, Self::Err> {
        names.split_ascii_whitespace().map(str::parse).collect()
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, scope) in self.iter().enumerate() {
            let gap = if place == 0 { "" } else { " " };
            write!(formatter, "{gap}{scope}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ScopeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ScopeSet({self})")
    }
}

impl Serialize for ScopeSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        names.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_write_scope_implies_its_read_scope_and_no_other() {
        let set: ScopeSet = "orders:write".parse().unwrap();
        assert!(set.allows(Scope::OrdersRead) && set.allows(Scope::OrdersWrite));
        assert!(
            !set.allows(Scope::OrdersPiiRead)
                && !set.allows(Scope::OrdersImport)
                && !set.allows(Scope::CatalogRead)
        );
        assert_eq!(Scope::PricesWrite.implied(), None);
    }

    #[test]
    fn every_scope_survives_its_name() {
        let all = ScopeSet::all();
        assert_eq!(all.to_string().parse::<ScopeSet>().unwrap(), all);
        assert_eq!(all.iter().count(), Scope::ALL.len());
        assert!("orders:raed".parse::<ScopeSet>().is_err());
    }
}
