//! The worker: sends what is due, as tasks of apalis over our own queue.
//!
//! Four parts, each in its file: the `dispatcher` leases lanes and decides what goes next, by what `lanes` holds in memory; the `backend` hands
//! that to apalis, some at a time, which runs `deliver` for each; the `recorder` commits what came of it in groups. No transaction is open while something is
//! sent.
//!
//! Run by every process with the worker role, next to the relay. Killed at any moment, it loses nothing: leases run out, and another worker
//! repeats what was in flight.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use apalis::prelude::{Data, ParallelizeExt, WorkerBuilder, WorkerBuilderExt};
use apalis_core::error::WorkerError;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream::FuturesUnordered,
};
use kernel::{
    clock::{Clock, Timestamp},
    db::{Database, Error},
    event::Announcer,
    keyring::Keyring,
};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::{
    client::{Client, Failure, FailureKind, Outcome, Request},
    delivery::{Attempt, OwnerId, Report},
    metrics,
    relay::{LANES_CHANNEL, Wake},
    render::{Encoded, batch_body},
    retry::{Decision, Jitter, Schedule, decide},
    timeline::mask,
    trace,
};

mod backend;
mod breaker;
mod dispatcher;
mod lanes;
mod limits;
mod pace;
mod queue;
mod recorder;
mod renders;
mod ticket;

use backend::LaneBackend;
use dispatcher::{Dispatcher, Item, Job, Sending};
use lanes::Ending;
pub(crate) use lanes::Want;
pub use limits::Limits;
use recorder::Recorder;

/// Jobs that wait between dispatcher and apalis: enough that neither waits for the other.
const JOBS_BUFFERED: usize = 128;

/// Bytes of a batch's id: as many as a UUID has.
const BATCH_ID_BYTES: usize = 16;

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
    queue: mpsc::Receiver<Vec<Job>>,
    parts: Arc<Parts>,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    let worker = WorkerBuilder::new("deliveries")
        .backend(LaneBackend::new(queue))
        .data(parts)
        .parallelize(tokio::spawn)
        .catch_panic()
        .build(deliver_all);
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

/// The requests of one task, side by side. A named function, because apalis takes no closure that borrows.
async fn deliver_all(jobs: Vec<Job>, parts: Data<Arc<Parts>>) {
    // One that breaks takes none of the others with it; its ticket tells the dispatcher.
    let under_way = jobs
        .into_iter()
        .map(|job| AssertUnwindSafe(deliver(job, &parts)).catch_unwind());
    under_way
        .collect::<FuturesUnordered<_>>()
        .for_each(|ended| {
            if ended.is_err() {
                tracing::error!("a request broke off; its deliveries will be repeated");
            }
            future::ready(())
        })
        .await;
}

/// One request, from the queue to the recorder.
async fn deliver(job: Job, parts: &Parts) {
    let started_at = parts.clock.now();
    if started_at >= job.sent_before {
        // We were stopped for longer than the lease: its ticket, dropped, says that nobody knows what came of it.
        return;
    }
    // A fault of ours in one event counts as a failed attempt of it, so that it ends among the dead letters instead of being met for ever.
    let span = span_of(&job);
    let sent = AssertUnwindSafe(attempt(
        &job,
        &parts.client,
        started_at,
        trace::header(&span),
    ))
    .catch_unwind()
    .instrument(span.clone())
    .await;
    let (mut outcome, request_bytes) =
        sent.unwrap_or_else(|_| (failed(internal("the delivery panicked")), 0));
    let ended_at = parts.clock.now();
    hide_personal(&mut outcome, &job);
    let (status, error) = match &outcome.result {
        Ok(answer) => (Some(i32::from(answer.status)), None),
        Err(failure) => (None, Some(failure.kind.as_str())),
    };
    metrics::attempt(status, error, outcome.duration);
    trace::ended(&span, status, error);
    let Job {
        lease,
        items,
        target,
        is_awaited,
        sent_before: _,
        ticket,
    } = job;
    let schedule = target.means.schedule.as_ref().unwrap_or(&parts.schedule);
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
                url: target.url.clone().unwrap_or_default(),
                endpoint_version: target.means.version,
                request_bytes,
                is_first: !target.is_verified,
                decision,
            };
            log(&report, &outcome);
            report
        })
        .collect();
    ticket.answered(ending(&outcome, &reports, ended_at), outcome.duration);
    parts.recorder.record(reports, ticket, is_awaited);
}

/// A receiver may send back what it was sent: what is a person's is not kept with the attempt.
fn hide_personal(outcome: &mut Outcome, job: &Job) {
    if let Ok(answer) = &mut outcome.result {
        for personal in job.items.iter().filter_map(|item| item.personal.as_deref()) {
            answer.excerpt = mask(&answer.excerpt, personal);
        }
    }
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

/// The span of a request in the trace of its event; of its first event, if it has several.
fn span_of(job: &Job) -> Span {
    let Some(first) = job.items.first() else {
        return Span::none();
    };
    trace::attempt(
        first.event.trace_parent.as_deref(),
        first.event.id,
        job.lease.endpoint,
        first.number,
    )
}

/// Sends a request, and says how many bytes its body had.
async fn attempt(
    job: &Job,
    client: &Client,
    now: Timestamp,
    trace_parent: Option<String>,
) -> (Outcome, i32) {
    match prepare(job, now, trace_parent) {
        Ok(request) => {
            let bytes = i32::try_from(request.body.len()).unwrap_or(i32::MAX);
            (client.post(request).await, bytes)
        }
        Err(failure) => (failed(failure), 0),
    }
}

/// Makes the request of a job: renders, compresses and signs it.
fn prepare(job: &Job, now: Timestamp, trace_parent: Option<String>) -> Result<Request, Failure> {
    let Sending {
        destination,
        signer,
        renderer,
    } = job.target.means.sending.as_ref().map_err(Clone::clone)?;
    let body_of = |item: &Item| {
        if let Some(fault) = &item.fault {
            return Err(internal(fault));
        }
        let rendered = item.renders.get(
            renderer,
            &item.event,
            job.lease.merchant,
            &job.target.receiver,
            item.personal.as_deref(),
        );
        let rendered = rendered.map_err(|error| internal(&error.to_string()))?;
        renderer
            .body(&rendered, item.sequence)
            .map_err(|error| Failure::new(FailureKind::Transformation, &error))
    };
    let first = job
        .items
        .first()
        .ok_or_else(|| internal("there is nothing to send"))?;
    let body = if renderer.batch_events_max().is_some() {
        let parts = job.items.iter().map(body_of);
        batch_body(&parts.collect::<Result<Vec<Bytes>, Failure>>()?)
    } else {
        body_of(first)?
    };
    let Encoded {
        bytes: body,
        content_encoding,
    } = renderer.encode(body);
    let id = match job.items.as_slice() {
        [item] => item.event.id.to_string(),
        items => batch_id(items),
    };
    let timestamp_seconds = now.unix_seconds();
    let signature = signer.sign(&id, timestamp_seconds, &body);
    Ok(Request {
        destination: Arc::clone(destination),
        id,
        timestamp_seconds,
        signature,
        content_encoding,
        body,
        trace_parent,
    })
}

/// The id of several events in one request: the same for the same events, so that a batch that comes again is known, and another one for others.
fn batch_id(items: &[Item]) -> String {
    let mut digest = Sha256::new();
    for item in items {
        digest.update(item.event.id.uuid().as_bytes());
    }
    let whole = digest.finalize();
    format!(
        "batch_{}",
        URL_SAFE_NO_PAD.encode(whole.get(..BATCH_ID_BYTES).unwrap_or(&whole))
    )
}

/// A failure of ours rather than of the receiver.
fn internal(detail: &str) -> Failure {
    Failure::new(FailureKind::Internal, detail)
}

/// What a request comes to that was not sent.
fn failed(failure: Failure) -> Outcome {
    Outcome {
        result: Err(failure),
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
