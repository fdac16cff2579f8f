//! The domain: products and their imports, locations and stock, orders, fulfilments and customers.
//!
//! Plain async functions that take a transaction and return a value or a typed [`Error`]. They know no HTTP, no GraphQL schema and no queue. A
//! mutation is also a [`kernel::idempotency::Operation`], by which REST and GraphQL run it once per key.

pub mod catalog_import;
pub mod customer;
mod error;
pub mod fulfillment;
pub mod inventory;
pub mod location;
pub mod order;
pub mod product;

pub use error::{Error, InsufficientLine, OutOfRangeEntry, PROBLEM_TYPES, Refusal};
