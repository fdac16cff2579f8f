//! `deliveries`: a backlog of events sent as signed webhooks, against a bare client that posts the same bytes to the same receiver.
//!
//! The events are made while nobody relays: the server has the role `api`. Then a process with the role `worker` is started, which relays and sends them all. The
//! time is from the first arrival to the last, so it has the relay in it, and the process's start not.

use std::{
    cell::RefCell,
    process::{Child, Command, Stdio},
    time::Instant,
};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tests::wait_for;
use tokio::task::JoinSet;

use crate::{
    Options,
    bare::{Bare, Counted},
    ceiling::Ceiling,
    cpu::Cpu,
    figure::{Figure, Sample},
    world::{World, binary},
};

/// Messages that the bare client has in flight: as many as the worker allows one endpoint.
const IN_FLIGHT: u64 = 64;

/// SKUs whose stock is set; an event each time.
const SKUS: usize = 5_000;

/// Measures.
#[allow(clippy::too_many_lines, reason = "one measurement, told in order")]
pub(crate) async fn run(options: &Options) -> Figure {
    let world = World::start(Some("api")).await;
    let (variants, location) = world.stocked(SKUS).await;
    {
        // What setting up has told goes to nobody.
        let worker = Worker::start(&world);
        Ceiling::new(&world.stoa).relayed().await;
        drop(worker);
    }
    let receiver = Bare::start("receiver", b"");
    let url = |path: &str| format!("http://{}/{path}", receiver.address());
    world
        .client
        .endpoint(Some(&url("hook")), &["inventory.level_changed"])
        .await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let counted = async || {
        http.get(url("counted"))
            .send()
            .await
            .unwrap()
            .json::<Counted>()
            .await
            .unwrap()
    };
    let reset = async || {
        http.post(url("reset"))
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap()
    };
    let mut on_hand = 1;
    let message = RefCell::new(Counted::default());

    Figure::measure(
        "deliveries",
        "deliveries/s",
        "a bare reqwest client posting the same bytes",
        options,
        async || {
            world.client.refresh().await;
            let mut made = 0;
            while made < options.deliveries {
                on_hand += 1;
                let count = usize::try_from(options.deliveries - made)
                    .unwrap()
                    .min(SKUS);
                world
                    .set_stock(&variants[..count], &location, on_hand)
                    .await;
                made += count as u64;
            }
            reset().await;
            let postmaster = world.stoa.postgres_pid().unwrap();
            let before = Cpu::of_processes(0, postmaster);
            let worker = Worker::start(&world);
            let last = wait_for("the deliveries", async || {
                let counted = counted().await;
                (counted.messages >= options.deliveries).then_some(counted)
            })
            .await;
            let mut cpu = Cpu::of_processes(worker.pid(), postmaster);
            cpu.database -= before.database;
            cpu.load -= before.load;
            drop(worker);
            let sample = Sample {
                operations: last.messages,
                elapsed: last.elapsed,
                cpu,
                ..Sample::default()
            };
            message.replace(last);
            sample
        },
        async || {
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
            let started = Instant::now();
            let mut sending = JoinSet::new();
            for worker in 0..IN_FLIGHT {
                let count = options.deliveries / IN_FLIGHT
                    + u64::from(worker < options.deliveries % IN_FLIGHT);
                let request = http
                    .post(url("hook"))
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
            Sample {
                operations: options.deliveries,
                elapsed: started.elapsed(),
                ..Sample::default()
            }
        },
    )
    .await
}

/// A process with the role `worker` on the server's database; asked to end when dropped, so that it gives its lanes back.
#[derive(Debug)]
struct Worker(Child);

impl Worker {
    fn start(world: &World) -> Self {
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
            .arg(world.stoa.data_dir())
            .args(["--database-url", &world.stoa.database_url()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
