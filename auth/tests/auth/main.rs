//! The authorization server on a real database: grants, keys, the token endpoint, and verification.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod assertions;
mod authorization;
mod clients;
mod codes;
mod developers;
mod endpoint;
mod expiring;
mod fixture;
mod flow;
mod grants;
mod installed;
mod introspection;
mod keys;
mod refresh;
mod revocation;
mod tokens;
mod view;
