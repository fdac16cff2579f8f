//! The crate against a real PostgreSQL and real receivers on loopback: relay, streams, delivery, dead letters.

#![allow(
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::manual_assert,
    clippy::panic,
    clippy::similar_names,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and looks behind the scenes by statements of its own"
)]

mod app_endpoints;
mod endpoints;
mod enduring;
mod following;
mod health;
mod keys;
mod lanes;
mod life;
mod measuring;
mod nats;
mod ordering;
mod planning;
mod pulling;
mod reading;
mod receiver;
mod relaying;
mod replays;
mod sending;
mod settings;
mod sinks;
mod sweeping;
mod timelines;
mod walking;
mod world;
