//! The harness of the end-to-end tests: the real binary, clients, browsers, and receivers of webhooks.
//!
//! The tests themselves are in `end_to_end/`, a test target of `gateway`, so that cargo builds the binary that they run. A harness that can't do its
//! work panics: that is how a test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

mod browser;
mod client;
mod event_stream;
mod form;
mod html;
mod person;
mod receiver;
mod script;
mod stoa;
mod tally;

pub use browser::{Browser, Cookie, Page};
pub use client::{Answer, Client, Credentials, new_key};
pub use event_stream::{EventStream, Message};
pub use form::{Control, Form};
pub use person::{Consenter, Person, question};
pub use receiver::{Delivery, Receiver};
pub use script::TestClients;
pub use stoa::{ALL_SCOPES, Stoa, StoaOptions, order_of};
pub use tally::{Arrival, Tally};

use std::time::Duration;

/// A condition that has not come true by then never will: generous, because machines of CI are slow.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Asks again until `condition` gives something.
pub async fn wait_for<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut condition: F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
