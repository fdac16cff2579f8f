//! What at least two of Stoa's crates need: ids, money, time, pages, problems, the actor, the database, the outbox, idempotency and the
//! key ring.
//!
//! The kernel knows no HTTP, no domain noun and no crate above it. Everything that it offers is used by `commerce`, `auth`,
//! `webhooks`, `graphql` and `gateway`; what only one of them needs lives there.

pub mod actor;
pub mod audit;
pub mod caller;
pub mod clock;
pub mod db;
pub mod event;
pub mod id;
pub mod idempotency;
pub mod keyring;
pub mod migration;
pub mod money;
pub mod page;
pub mod personal;
pub mod problem;
pub mod scope;
#[cfg(feature = "test-support")]
pub mod test_database;
pub mod trace;
pub mod validation;
pub mod version;
