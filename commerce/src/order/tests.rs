//! Orders against PostgreSQL: placing, cancelling, personal data; and the world that the tests of stock, fulfilments and customers share.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and looks behind the scenes"
)]

mod cancelling;
mod groups;
mod personal_data;
mod placing;
mod reading;
mod transitions;
pub(crate) mod world;
