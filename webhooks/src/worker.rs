//! The worker: sends what is due, as tasks of apalis over our own queue.
//!
//! Four parts, each in its file: the `dispatcher` leases lanes and decides what goes next, by what `lanes` holds in memory; the `backend` hands
//! that to apalis, which runs `deliver` for each; the `recorder` commits what came of it in groups. No transaction is open while something is
//! sent.
//!
//! Run by every process with the worker role, next to the relay. Killed at any moment, it loses nothing: leases run out, and another worker
//! repeats what was in flight.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apalis::prelude::{Data, ParallelizeExt, WorkerBuilder, WorkerBuilderExt};
use apalis_core::error::WorkerError;
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use kernel::{
    clock::{Clock, Timestamp},
    db::{Database, Error},
    event::Announcer,
    keyring::Keyring,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Client, Destination, Failure, FailureKind, Outcome, Request},
    delivery::{Attempt, OwnerId, Report},
    endpoint::settings::{Credentials, Settings},
    event::envelope,
    relay::{LANES_CHANNEL, Wake},
    retry::{Decision, Jitter, Schedule, decide},
};

mod backend;
mod dispatcher;
mod lanes;
mod recorder;

use backend::LaneBackend;
use dispatcher::{Dispatcher, Job};
use lanes::Ending;
pub use lanes::Limits;
use recorder::Recorder;

/// Jobs that wait between dispatcher and apalis: enough that neither waits for the other.
const JOBS_BUFFERED: usize = 32;

/// The pause before listening again after the connection was lost.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How a worker goes about it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What it takes on at most.
    pub limits: Limits,
    /// When failed deliveries are tried again, and given up on.
    pub schedule: Schedule,
}

/// Sends webhooks. One per process.
#[derive(Debug, Clone)]
pub struct Worker {
    database: Database,
    clock: Clock,
    keyring: Arc<Keyring>,
    announcer: Announcer,
    wake: Wake,
    client: Client,
    config: Config,
}

impl Worker {
    /// A worker over the worker role's `database`, which is woken by this process's relay through `wake`.
    pub fn new(
        database: Database,
        clock: Clock,
        keyring: Arc<Keyring>,
        announcer: Announcer,
        wake: Wake,
        client: Client,
        config: Config,
    ) -> Self {
        Self {
            database,
            clock,
            keyring,
            announcer,
            wake,
            client,
            config,
        }
    }

    /// Sends until `stop`; then finishes what is in flight and gives its lanes back.
    pub async fn run(&self, stop: CancellationToken) {
        let owner = OwnerId::new(self.clock.now());
        let (recorder, recording) = Recorder::new(
            self.database.clone(),
            self.clock.clone(),
            self.announcer.clone(),
            owner,
        );
        let parts = Arc::new(Parts {
            client: self.client.clone(),
            clock: self.clock.clone(),
            schedule: self.config.schedule.clone(),
            recorder,
        });
        let (jobs, queue) = mpsc::channel(JOBS_BUFFERED);
        let dispatcher = Dispatcher::new(
            self.database.clone(),
            Arc::clone(&self.keyring),
            self.clock.clone(),
            owner,
            self.wake.clone(),
            self.config.limits,
        );
        // Tasks of their own, so that they run side by side; if this future is dropped, so are they.
        let mut at_work = JoinSet::new();
        at_work.spawn(recording);
        at_work.spawn(dispatcher.run(jobs, stop));
        at_work.spawn(async {
            if let Err(error) = send(queue, parts).await {
                tracing::error!(error = %error, "the worker of deliveries broke off");
            }
        });
        let all_done = async { while at_work.join_next().await.is_some() {} };
        tokio::select! {
            () = all_done => {}
            () = Box::pin(self.listen()) => {}
        }
    }

    /// Hears of lanes that relays of other processes have raised.
    async fn listen(&self) {
        loop {
            let heard = async {
                let mut listener = self.database.listen(LANES_CHANNEL).await?;
                loop {
                    listener.recv().await?;
                    self.wake.wake();
                }
            };
            let Err::<(), Error>(error) = heard.await else {
                continue;
            };
            tracing::debug!(error = %error, "listening for lanes broke off; listening again");
            tokio::time::sleep(LISTEN_AGAIN_AFTER).await;
        }
    }
}

/// Runs apalis over what the dispatcher hands out, until that ends. Boxed here, where the compiler sees that it can be sent between threads: inside
/// of another async function it loses its way among the lifetimes of apalis's layers.
fn send(
    queue: mpsc::Receiver<Job>,
    parts: Arc<Parts>,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    let worker = WorkerBuilder::new("deliveries")
        .backend(LaneBackend::new(queue))
        .data(parts)
        .parallelize(tokio::spawn)
        .catch_panic()
        .build(deliver);
    Box::pin(worker.run())
}

/// What each delivery uses.
#[derive(Debug)]
struct Parts {
    client: Client,
    clock: Clock,
    schedule: Schedule,
    recorder: Recorder,
}

/// One delivery, from the queue to its recorded outcome. A named function, because apalis takes no closure that borrows.
async fn deliver(job: Job, parts: Data<Arc<Parts>>) {
    let started_at = parts.clock.now();
    // A fault of ours in one event counts as a failed attempt of it, so that it ends among the dead letters instead of being met for ever.
    let outcome = AssertUnwindSafe(attempt(&job, &parts.client, started_at))
        .catch_unwind()
        .await;
    let outcome = outcome.unwrap_or_else(|_| internal("the delivery panicked"));
    let number = u32::try_from(job.number).unwrap_or(u32::MAX);
    let decision = decide(
        &parts.schedule,
        number,
        &outcome,
        parts.clock.now(),
        Jitter::random(),
    );
    log(&job, &outcome, decision);
    let report = Report {
        lease: job.lease,
        sequence: job.sequence,
        event: Arc::clone(&job.event),
        attempt: Attempt::new(job.number, started_at, &outcome),
        url: job.target.stored_url.clone().unwrap_or_default(),
        decision,
    };
    if parts.recorder.record(report).await {
        job.ticket.recorded(match decision {
            Decision::Delivered => Ending::Accepted,
            Decision::RetryAt(_) | Decision::DeadLetter(_) => Ending::Failed,
            Decision::DisableEndpoint => Ending::Gone,
        });
    }
}

async fn attempt(job: &Job, client: &Client, now: Timestamp) -> Outcome {
    if let Some(fault) = &job.fault {
        return internal(fault);
    }
    let target = &job.target;
    let url = match &target.url {
        Some(Ok(url)) => url,
        Some(Err(error)) => return internal(&error.to_string()),
        None => return internal("there is no URL"),
    };
    let destination = Destination::new(
        job.lease.endpoint,
        url.as_str(),
        &Settings::default(),
        &Credentials::default(),
    );
    let destination = match destination {
        Ok(destination) => Arc::new(destination),
        Err(error) => return internal(&error.to_string()),
    };
    let Some(signer) = &target.signer else {
        return internal("the endpoint's secrets do not open");
    };
    let shown = envelope(
        &job.event,
        job.merchant,
        Some(job.sequence),
        &target.receiver,
        job.personal.as_ref(),
    );
    let body = match shown.and_then(|shown| serde_json::to_vec(&shown)) {
        Ok(body) => body,
        Err(error) => return internal(&error.to_string()),
    };
    let id = job.event.id.to_string();
    let timestamp_seconds = now.unix_seconds();
    let signature = signer.sign(&id, timestamp_seconds, &body);
    client
        .post(Request {
            destination,
            id,
            timestamp_seconds,
            signature,
            content_encoding: None,
            body: Bytes::from(body),
        })
        .await
}

/// A failure of ours rather than of the receiver.
fn internal(detail: &str) -> Outcome {
    Outcome {
        result: Err(Failure {
            kind: FailureKind::Internal,
            detail: detail.to_owned(),
        }),
        duration: Duration::ZERO,
    }
}

fn log(job: &Job, outcome: &Outcome, decision: Decision) {
    let (status, failure) = match &outcome.result {
        Ok(answer) => (Some(answer.status), None),
        Err(failure) => (None, Some(failure)),
    };
    tracing::debug!(
        merchant.id = %job.merchant,
        endpoint.id = %job.lease.endpoint,
        event.id = %job.event.id,
        sequence = job.sequence,
        attempt = job.number,
        http.status = status,
        failure = failure.map(|failure| failure.kind.as_str()),
        detail = failure.map(|failure| failure.detail.as_str()),
        duration_ms = %outcome.duration.as_millis(),
        decision = ?decision,
        "delivery attempted"
    );
}
