//! `deliveries` and `deliveries_relayed`: a backlog sent as signed webhooks, against a bare client that posts the same bytes to the same receiver.
//!
//! A process with the role `worker` is started, and sends them all. The time is from the first arrival to the last, so the process's start is not in it, and its CPU
//! time is. What the backlog is makes the two: deliveries that are queued, or events that nobody has relayed yet, so that the time has the relay in it.

use std::{cell::RefCell, time::Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;

use crate::{
    Options,
    bare::{Bare, Counted},
    ceiling::Ceiling,
    cpu::Cpu,
    figure::{Figure, Sample},
    queue::{Lane, Worker, wait_for},
    statements,
    world::World,
};

/// Messages that the bare client has in flight: as many as the worker allows one endpoint.
const IN_FLIGHT: u64 = 64;

/// SKUs whose stock is set; an event each time.
const SKUS: usize = 5_000;

/// What the backlog is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// Deliveries on the queue.
    Queued,
    /// A tenth as many events in the outbox.
    Unrelayed,
}

/// Measures.
pub(crate) async fn run(options: &Options, backlog: Backlog) -> Figure {
    let mut world = World::start(Some("api")).await;
    if options.statements {
        statements::count(&mut world).await;
    }
    let (variants, location) = world.stocked(SKUS).await;
    let ceiling = Ceiling::new(&world.stoa);
    {
        // What setting up has told goes to nobody.
        let worker = Worker::start(&world.stoa);
        ceiling.relayed().await;
        drop(worker);
    }
    let receiver = Bare::start("receiver", b"");
    let url = receiver.url("hook");
    world
        .client
        .endpoint(Some(&url), &["inventory.level_changed"])
        .await;
    let lane = Lane::of_url(&ceiling, &url);
    let on_hand = RefCell::new(1);
    let make = async |events: u64| {
        world.client.refresh().await;
        let mut made = 0;
        while made < events {
            let count = usize::try_from(events - made).unwrap().min(SKUS);
            let on_hand = on_hand.replace_with(|on_hand| *on_hand + 1);
            world
                .set_stock(&variants[..count], &location, on_hand)
                .await;
            made += count as u64;
        }
    };
    let (name, events) = match backlog {
        Backlog::Queued => ("deliveries", options.deliveries),
        Backlog::Unrelayed => ("deliveries_relayed", options.deliveries / 10),
    };
    if backlog == Backlog::Queued {
        lane.hold();
        make(events).await;
        let worker = Worker::start(&world.stoa);
        ceiling.relayed().await;
        drop(worker);
        assert_eq!(lane.queued(), events, "deliveries that were queued");
        lane.keep();
    }
    let message = RefCell::new(Counted::default());

    Figure::measure(
        name,
        "deliveries/s",
        "a bare reqwest client posting the same bytes",
        options,
        async || {
            match backlog {
                Backlog::Queued if lane.queued() == events => {}
                Backlog::Queued => lane.queue_again(),
                Backlog::Unrelayed => make(events).await,
            }
            receiver.reset().await;
            if options.statements {
                statements::forget(&ceiling);
            }
            let postmaster = world.stoa.postgres_pid().unwrap();
            let before = Cpu::of_processes(0, postmaster);
            let at_receiver = Cpu::of_process(receiver.pid());
            let worker = Worker::start(&world.stoa);
            if backlog == Backlog::Queued {
                lane.free();
            }
            let last = wait_for("the deliveries", async || {
                let counted = receiver.counted().await;
                (counted.messages >= events).then_some(counted)
            })
            .await;
            lane.drained().await;
            let mut cpu = Cpu::of_processes(worker.pid(), postmaster);
            cpu.database -= before.database;
            cpu.load = Cpu::of_process(receiver.pid()) - at_receiver;
            drop(worker);
            if options.statements {
                statements::print(&ceiling, events);
            }
            assert_eq!(
                receiver.counted().await.messages,
                events,
                "each is sent once if nothing fails"
            );
            let sample = Sample {
                operations: last.messages,
                elapsed: last.elapsed,
                cpu,
                ..Sample::default()
            };
            message.replace(last);
            sample
        },
        async || post(&message, &receiver, events).await,
    )
    .await
}

/// The ceiling: a loop for each of the messages that are in flight at once.
async fn post(message: &RefCell<Counted>, receiver: &Bare, events: u64) -> Sample {
    let message = message.borrow().clone();
    let headers: HeaderMap = message
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                value.parse::<HeaderValue>().unwrap(),
            )
        })
        .collect();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let started = Instant::now();
    let used = || {
        let (own, other) = (std::process::id(), receiver.pid());
        (Cpu::of_process(own), Cpu::of_process(other))
    };
    let before = used();
    let mut sending = JoinSet::new();
    for worker in 0..IN_FLIGHT {
        let count = events / IN_FLIGHT + u64::from(worker < events % IN_FLIGHT);
        let request = http
            .post(receiver.url("hook"))
            .headers(headers.clone())
            .header("content-type", "application/json")
            .body(bytes::Bytes::from(message.body.clone()));
        let request = request.build().unwrap();
        let http = http.clone();
        sending.spawn(async move {
            for _ in 0..count {
                let answer = http.execute(request.try_clone().unwrap()).await.unwrap();
                assert!(answer.status().is_success());
                answer.bytes().await.unwrap();
            }
        });
    }
    sending.join_all().await;
    let (elapsed, after) = (started.elapsed(), used());
    Sample {
        operations: events,
        elapsed,
        cpu: Cpu {
            server: after.0 - before.0,
            load: after.1 - before.1,
            ..Cpu::default()
        },
        ..Sample::default()
    }
}
