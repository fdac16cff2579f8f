//! What every root field needs, for documents and for the tests that try each without its scope.

use kernel::scope::Scope;

/// A field of `Query` or `Mutation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootField {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub kind: RootKind,
    /// The scope without which it gives `insufficient_scope`.
    pub scope: Scope,
}

/// A root type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RootKind {
    /// It reads.
    Query,
    /// It changes.
    Mutation,
}

/// Every root field there is.
pub const ROOT_FIELDS: &[RootField] = &[
    RootField {
        name: "product",
        kind: RootKind::Query,
        scope: Scope::CatalogRead,
    },
    RootField {
        name: "products",
        kind: RootKind::Query,
        scope: Scope::CatalogRead,
    },
    RootField {
        name: "order",
        kind: RootKind::Query,
        scope: Scope::OrdersRead,
    },
    RootField {
        name: "orders",
        kind: RootKind::Query,
        scope: Scope::OrdersRead,
    },
    RootField {
        name: "productUpsert",
        kind: RootKind::Mutation,
        scope: Scope::CatalogWrite,
    },
    RootField {
        name: "orderPlace",
        kind: RootKind::Mutation,
        scope: Scope::OrdersWrite,
    },
    RootField {
        name: "orderCancel",
        kind: RootKind::Mutation,
        scope: Scope::OrdersWrite,
    },
];
