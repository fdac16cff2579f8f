//! Webhooks: endpoints, the relay that fans events out to them, and their delivery.
//!
//! Two actors make a webhook. The [`relay`] turns an event into rows: it moves it from the outbox to the history, numbers it in the stream of each
//! interested endpoint and queues a delivery, in one transaction. The [`worker`] turns a row into HTTP: it leases lanes, signs, sends, and records
//! the outcome; [`retry`] says what comes next, and what is given up on becomes a [`dead_letter`].
//!
//! This crate knows events only as a type, a merchant and JSON. What a receiver is given is a function of event and grant, in [`mod@event`].

pub mod app_endpoint;
pub mod client;
pub mod dead_letter;
pub mod delivery;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod feed;
pub mod filter;
pub mod follow;
pub mod hub;
pub mod metrics;
mod places;
pub mod pull;
pub mod relay;
pub mod render;
pub mod replay;
pub mod retry;
pub mod sign;
pub mod sink;
pub mod stream;
mod sweep;
pub mod timeline;
mod trace;
pub mod worker;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use sweep::sweep;

/// The problem types of webhooks, for docs/errors.md.
pub use error::problems::ALL as PROBLEM_TYPES;
