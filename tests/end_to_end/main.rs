//! End-to-end tests: each promise to users once, against the real binary.
//!
//! One file a promise. The harness (binary, client, receiver) is the package `tests`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod administration;
mod architecture;
mod commands;
mod crash_delivery;
mod crashes;
mod demo;
mod documentation;
mod erp;
mod errors;
mod exactly_once;
mod flash_sale;
mod grants;
mod imports;
mod interop;
mod login;
mod logistics_app;
mod matrix;
mod observation;
mod operation;
mod pages;
mod real_data;
mod streams;
mod tokens;
mod webhook_signatures;
mod webhooks;

/// The binary under test.
const STOA: &str = env!("CARGO_BIN_EXE_stoa");
