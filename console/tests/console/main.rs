//! The pages over a real database: who gets in, what is refused, and the way from an app's request to its code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod attacks;
mod browser;
mod consenting;
mod forms;
mod headers;
mod signing_in;
