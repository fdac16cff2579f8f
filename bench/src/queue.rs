//! The queue of deliveries as a benchmark wants it: filled while nobody sends, and then let go.
//!
//! A lane that somebody owns is passed over by all workers. So the bench takes lanes for itself, lets events pile up behind them, and frees them when the
//! clock is to start. What is done by SQL here is what a dead worker leaves behind: an owner and a lease.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use tests::Stoa;
use tokio::time::Instant;

use crate::{ceiling::Ceiling, world::binary};

/// Longer than any benchmark takes.
const HELD_FOR: &str = "1 day";

/// How long a backlog may take: a slow machine's, with much else going on.
const PATIENCE: Duration = Duration::from_mins(10);

/// How often to look at something that costs little.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Asks again until `condition` gives something.
pub(crate) async fn wait_for<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {PATIENCE:?} in vain for {what}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// An endpoint's lane and its rows of the queue.
#[derive(Debug)]
pub(crate) struct Lane<'c> {
    ceiling: &'c Ceiling<'c>,
    /// The endpoint, as the tables have it.
    endpoint: String,
}

impl<'c> Lane<'c> {
    /// That of the endpoint with this URL.
    pub(crate) fn of_url(ceiling: &'c Ceiling<'c>, url: &str) -> Self {
        let found = ceiling.psql(&format!(
            "select id from public.endpoints where url = '{url}'"
        ));
        let endpoint = found.trim().to_owned();
        assert!(!endpoint.is_empty(), "no endpoint has the URL {url}");
        Self { ceiling, endpoint }
    }

    /// The endpoint, as the tables have it.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Takes it, so that no worker does.
    pub(crate) fn hold(&self) {
        self.ceiling.psql(&format!(
            "update public.lanes
            set owner = gen_random_uuid(), lease_until = now() + interval '{HELD_FOR}', fence = fence + 1
            where endpoint_id = '{}'",
            self.endpoint
        ));
    }

    /// Gives it to whoever takes it first.
    pub(crate) fn free(&self) {
        self.ceiling.psql(&format!(
            "update public.lanes
            set owner = null, lease_until = null, due_at = now(), signal = signal + 1
            where endpoint_id = '{}'",
            self.endpoint
        ));
    }

    /// How many deliveries are queued.
    pub(crate) fn queued(&self) -> u64 {
        let count = self.ceiling.psql(&format!(
            "select count(*) from public.deliveries where endpoint_id = '{}'",
            self.endpoint
        ));
        count.trim().parse().unwrap()
    }

    /// Keeps what is queued, so that it can be queued again.
    pub(crate) fn keep(&self) {
        self.ceiling.psql(&format!(
            "create table ceiling.backlog as select * from public.deliveries where endpoint_id = '{}'",
            self.endpoint
        ));
    }

    /// Queues again what was kept, as rows that were just made. What the time before has left is vacuumed away first, so that all rounds are alike.
    pub(crate) fn queue_again(&self) {
        self.ceiling.psql(
            "vacuum public.deliveries, public.lanes;
            insert into public.deliveries select * from ceiling.backlog;
            checkpoint;",
        );
    }

    /// Makes those that are queued so many, by further rows that repeat the events under the next numbers.
    pub(crate) fn multiply(&self, wanted: u64) {
        let there = self.queued();
        let times = wanted / there;
        self.ceiling.psql(&format!(
            "create temporary table backlog as select * from public.deliveries where endpoint_id = '{endpoint}';
            do $$
            begin
                for time in 2..{times} loop
                    update backlog set sequence = sequence + {there};
                    insert into public.deliveries select * from backlog;
                end loop;
            end
            $$;
            update public.endpoint_cursors set last_sequence = last_sequence + {there} * ({times} - 1) where endpoint_id = '{endpoint}';",
            endpoint = self.endpoint
        ));
        assert_eq!(self.queued(), times * there);
    }

    /// Waits until nothing is queued. Looks seldom: each look is a process and a connection.
    pub(crate) async fn drained(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self
            .ceiling
            .psql(&format!(
                "select exists (select from public.deliveries where endpoint_id = '{}')",
                self.endpoint
            ))
            .trim()
            == "t"
        {
            assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} in vain for the queue to drain"
            );
            tokio::time::sleep(10 * LOOK_EVERY).await;
        }
    }
}

/// A process with the role `worker` on a server's database; asked to end when dropped, so that it gives its lanes back.
#[derive(Debug)]
pub(crate) struct Worker(Child);

impl Worker {
    /// Starts one.
    pub(crate) fn start(stoa: &Stoa) -> Self {
        let child = Command::new(binary())
            .args([
                "serve",
                "--role",
                "worker",
                "--listen",
                "127.0.0.1:0",
                "--allow-private-targets",
                "--log",
                "warn",
            ])
            .arg("--data-dir")
            .arg(stoa.data_dir())
            .args(["--database-url", &stoa.database_url()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
