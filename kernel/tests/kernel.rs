//! The kernel against a real PostgreSQL: tenancy, idempotency, the outbox, keys and migrations, with real concurrency and real crashes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "tests look behind the scenes with statements of their own"
)]

#[path = "kernel/audit.rs"]
mod audit;
#[path = "kernel/event.rs"]
mod event;
#[path = "kernel/grouped_calls.rs"]
mod grouped_calls;
#[path = "kernel/idempotency.rs"]
mod idempotency;
#[path = "kernel/idempotency_failures.rs"]
mod idempotency_failures;
#[path = "kernel/idempotency_groups.rs"]
mod idempotency_groups;
#[path = "kernel/keyring.rs"]
mod keyring;
#[path = "kernel/migration.rs"]
mod migration;
#[path = "kernel/personal.rs"]
mod personal;
#[path = "kernel/schema.rs"]
mod schema;
#[path = "kernel/tally.rs"]
mod tally;
#[path = "kernel/tenancy.rs"]
mod tenancy;

use std::{future::Future, sync::Arc, time::Duration};

use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    id::{AppId, GrantId, MerchantId, RequestId},
    keyring::Keyring,
    test_database::{self, TestDatabase},
};

/// Longer than anything here takes; a test that waits for what never comes fails by this.
const PATIENCE: Duration = Duration::from_mins(1);

/// A database of one's own, a key ring and two merchants.
struct World {
    database: TestDatabase,
    keyring: Arc<Keyring>,
    now: Timestamp,
    a: MerchantId,
    b: MerchantId,
}

impl World {
    async fn create() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let keyring = Arc::new(test_database::keyring().unwrap());
        let now = Clock::system().now();
        let a = database.merchant(&keyring, now).await.unwrap();
        let b = database.merchant(&keyring, now).await.unwrap();
        Self {
            database,
            keyring,
            now,
            a,
            b,
        }
    }

    /// An app of `merchant` that may do all.
    fn actor(&self, merchant: MerchantId) -> Actor {
        Actor {
            merchant,
            app: AppId::new(self.now),
            grant: GrantId::new(self.now),
            access: Access::full(),
            request: RequestId::new(self.now),
        }
    }
}

/// Waits for what must come.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("this should have come about long ago")
}

/// Asks again and again until the answer is yes.
async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    soon(async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
