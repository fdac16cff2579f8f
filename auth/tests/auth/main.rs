//! The authorization server on a real database: grants, keys, the token endpoint, and verification.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod assertions;
mod attacks;
mod authorization;
mod clients;
mod codes;
mod developers;
mod endpoint;
mod expiring;
mod fixture;
mod flow;
mod grants;
mod house;
mod installed;
mod introspection;
mod keys;
mod passkeys;
mod people;
mod refresh;
mod revocation;
mod second_factor;
mod sessions;
mod staff;
mod throttling;
mod tokens;
mod upstream;
mod view;
