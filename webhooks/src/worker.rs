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
mod breaker;
mod dispatcher;
mod lanes;
mod pace;
mod queue;
mod recorder;
mod ticket;

use backend::LaneBackend;
use dispatcher::{Dispatcher, Job};
use lanes::Ending;
pub use lanes::Limits;
pub(crate) use lanes::Want;
use recorder::Recorder;

/// Jobs that wait between dispatcher and apalis: enough that neither waits for the other.
const JOBS_BUFFERED: usize = 128;

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

/// What each request uses.
#[derive(Debug)]
struct Parts {
    client: Client,
    clock: Clock,
    schedule: Schedule,
    recorder: Recorder,
}

/// One request, from the queue to the recorder. A named function, because apalis takes no closure that borrows.
async fn deliver(job: Job, parts: Data<Arc<Parts>>) {
    let started_at = parts.clock.now();
    // A fault of ours in one event counts as a failed attempt of it, so that it ends among the dead letters instead of being met for ever.
    let sent = AssertUnwindSafe(attempt(&job, &parts.client, started_at))
        .catch_unwind()
        .await;
    let (outcome, request_bytes) = sent.unwrap_or_else(|_| (internal("the delivery panicked"), 0));
    let ended_at = parts.clock.now();
    let Job {
        lease,
        items,
        target,
        ticket,
    } = job;
    let schedule = target.schedule.as_ref().unwrap_or(&parts.schedule);
    let reports: Vec<Report> = items
        .into_iter()
        .map(|item| {
            let number = u32::try_from(item.number).unwrap_or(u32::MAX);
            let decision = decide(schedule, number, &outcome, ended_at, Jitter::random());
            let report = Report {
                lease,
                sequence: item.sequence,
                event: item.event,
                attempt: Attempt::new(item.number, started_at, &outcome),
                url: target.stored_url.clone().unwrap_or_default(),
                endpoint_version: target.version,
                request_bytes,
                decision,
            };
            log(&report, &outcome);
            report
        })
        .collect();
    ticket.answered(ending(&outcome, &reports, ended_at), outcome.duration);
    parts.recorder.record(reports, ticket);
}

/// What an outcome says of its endpoint.
fn ending(outcome: &Outcome, reports: &[Report], now: Timestamp) -> Ending {
    match reports.first().map(|report| report.decision) {
        Some(Decision::Delivered) => Ending::Accepted,
        Some(Decision::DisableEndpoint) => Ending::Gone,
        Some(Decision::RetryAt(_) | Decision::DeadLetter(_)) | None => {
            // A receiver that is overloaded says so of itself, rather than of one event.
            let pause = match &outcome.result {
                Ok(answer) if matches!(answer.status, 429 | 503) => answer.retry_after,
                _ => None,
            };
            Ending::Failed(pause.map(|pause| pause.until(now)))
        }
    }
}

/// Sends a request, and says how many bytes its body had.
async fn attempt(job: &Job, client: &Client, now: Timestamp) -> (Outcome, i32) {
    match prepare(job, now) {
        Ok(request) => {
            let bytes = i32::try_from(request.body.len()).unwrap_or(i32::MAX);
            (client.post(request).await, bytes)
        }
        Err(fault) => (internal(&fault), 0),
    }
}

fn prepare(job: &Job, now: Timestamp) -> Result<Request, String> {
    let target = &job.target;
    if let Some(fault) = job.items.iter().find_map(|item| item.fault.as_ref()) {
        return Err(fault.clone());
    }
    let url = match &target.address {
        Some(Ok(url)) => url.clone(),
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("there is no URL".to_owned()),
    };
    let signer = target
        .signer
        .as_ref()
        .ok_or("the endpoint's secrets do not open")?;
    let item = job.items.first().ok_or("there is nothing to send")?;
    let shown = envelope(
        &item.event,
        job.lease.merchant,
        Some(item.sequence),
        &target.receiver,
        item.personal.as_deref(),
    );
    let body = shown
        .and_then(|shown| serde_json::to_vec(&shown))
        .map_err(|error| error.to_string())?;
    let id = item.event.id.to_string();
    let timestamp_seconds = now.unix_seconds();
    let signature = signer.sign(&id, timestamp_seconds, &body);
    Ok(Request {
        url,
        id,
        timestamp_seconds,
        signature,
        body: Bytes::from(body),
    })
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

fn log(report: &Report, outcome: &Outcome) {
    let (status, failure) = match &outcome.result {
        Ok(answer) => (Some(answer.status), None),
        Err(failure) => (None, Some(failure)),
    };
    tracing::debug!(
        merchant.id = %report.lease.merchant,
        endpoint.id = %report.lease.endpoint,
        event.id = %report.event.id,
        sequence = report.sequence,
        attempt = report.attempt.number,
        http.status = status,
        failure = failure.map(|failure| failure.kind.as_str()),
        detail = failure.map(|failure| failure.detail.as_str()),
        duration_ms = %outcome.duration.as_millis(),
        decision = ?report.decision,
        "delivery attempted"
    );
}
