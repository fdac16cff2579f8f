//! Deliveries as an apalis backend: hands the worker what the dispatcher has chosen to send next.
//!
//! The queue itself is the table `deliveries`, and everything about it (leases, limits, fairness, waiting) is decided by the dispatcher in a
//! task of its own. So this backend is a channel's end: it has nothing to poll, renew or acknowledge, never fails, and can't be starved of
//! heartbeats by a busy worker. A backend that returns an error ends its worker and cancels what is in flight; this one has none to return.
//!
//! Stopping: the dispatcher drops its sender. The worker then finishes what was handed to it and ends.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    layers::Identity,
    task::{Task, builder::TaskBuilder, task_id::RandomId},
    worker::context::WorkerContext,
};
use tokio::sync::mpsc;

/// The receiving end of what the dispatcher hands out.
#[derive(Debug)]
pub(super) struct LaneBackend<J> {
    jobs: mpsc::Receiver<J>,
}

impl<J> LaneBackend<J> {
    pub(super) fn new(jobs: mpsc::Receiver<J>) -> Self {
        Self { jobs }
    }
}

impl<J> Backend for LaneBackend<J> {
    type Task = Task<J>;
    type Error = Infallible;

    fn poll_ready(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Self::Task, Self::Error>>> {
        self.jobs.poll_recv(context).map(|job| {
            if job.is_none() {
                // An exhausted backend alone does not end a worker: once drained, it waits to be told to stop.
                if let Err(error) = worker.stop() {
                    tracing::debug!(%error, "the worker was stopping already");
                }
            }
            job.map(|job| Ok(TaskBuilder::new(job).build()))
        })
    }

    fn poll_close(
        &mut self,
        _: &mut Context<'_>,
        _: &WorkerContext,
    ) -> Poll<Result<(), Self::Error>> {
        // What was handed out and not taken is still due in the table.
        self.jobs.close();
        Poll::Ready(Ok(()))
    }
}

impl<J> BackendConfig for LaneBackend<J> {
    type Args = J;
    type Id = RandomId;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = Identity;

    fn config(&self) -> &Self::Config {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> Self::Layer {
        Identity::new()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use apalis::prelude::{Data, ParallelizeExt, WorkerBuilder, WorkerBuilderExt};
    use futures_util::future::BoxFuture;
    use tokio::sync::Semaphore;

    use super::*;

    #[derive(Debug, Default)]
    struct Seen {
        started: AtomicUsize,
        ended: AtomicUsize,
        gate: Option<Semaphore>,
    }

    async fn handle(job: u32, seen: Data<Arc<Seen>>) {
        seen.started.fetch_add(1, Ordering::SeqCst);
        assert_ne!(job, 13, "the handler breaks");
        if let Some(gate) = &seen.gate {
            gate.acquire().await.unwrap().forget();
        }
        seen.ended.fetch_add(1, Ordering::SeqCst);
    }

    fn start(seen: &Arc<Seen>) -> (mpsc::Sender<u32>, tokio::task::JoinHandle<()>) {
        let (jobs, queue) = mpsc::channel(1);
        let worker = WorkerBuilder::new("deliveries")
            .backend(LaneBackend::new(queue))
            .data(Arc::clone(seen))
            .parallelize(tokio::spawn)
            .catch_panic()
            .build(handle);
        let running: BoxFuture<'static, _> = Box::pin(worker.run());
        (jobs, tokio::spawn(async move { running.await.unwrap() }))
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn jobs_are_worked_on_at_once_and_side_by_side() {
        let seen = Arc::new(Seen {
            gate: Some(Semaphore::new(0)),
            ..Seen::default()
        });
        let (jobs, worker) = start(&seen);
        for job in 0..10 {
            jobs.send(job).await.unwrap();
        }
        until(|| seen.started.load(Ordering::SeqCst) == 10).await;
        assert_eq!(seen.ended.load(Ordering::SeqCst), 0);
        seen.gate.as_ref().unwrap().add_permits(10);
        drop(jobs);
        worker.await.unwrap();
        assert_eq!(seen.ended.load(Ordering::SeqCst), 10);
    }

    #[tokio::test]
    async fn a_handler_that_panics_takes_nothing_with_it() {
        let seen = Arc::new(Seen::default());
        let (jobs, worker) = start(&seen);
        for job in 10..20 {
            jobs.send(job).await.unwrap();
        }
        drop(jobs);
        worker.await.unwrap();
        assert_eq!(seen.started.load(Ordering::SeqCst), 10);
        assert_eq!(seen.ended.load(Ordering::SeqCst), 9);
    }

    #[tokio::test]
    async fn a_stop_waits_for_what_is_in_flight() {
        let seen = Arc::new(Seen {
            gate: Some(Semaphore::new(0)),
            ..Seen::default()
        });
        let (jobs, worker) = start(&seen);
        jobs.send(1).await.unwrap();
        until(|| seen.started.load(Ordering::SeqCst) == 1).await;
        drop(jobs);
        tokio::task::yield_now().await;
        assert!(!worker.is_finished());
        seen.gate.as_ref().unwrap().add_permits(1);
        worker.await.unwrap();
        assert_eq!(seen.ended.load(Ordering::SeqCst), 1);
    }
}
