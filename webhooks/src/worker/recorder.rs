//! Records what came of attempts in groups: a commit costs a flush of the disk, and is shared by all who wait for one.
//!
//! A handler hands over its report and waits until it is committed, so a delivery counts as in flight until then and nothing is reported
//! twice. While one group commits, the next gathers.

use std::time::Duration;

use kernel::{clock::Clock, db::Database, event::Announcer};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    delivery::{self, OwnerId, Report, Settled},
    error::Error,
};

/// Reports that one transaction settles at most.
const GROUP_MAX: usize = 500;

/// How long a group is tried while the database is away. Leases have run out long before; after this the deliveries are somebody's to repeat.
const TRIED_FOR: Duration = Duration::from_secs(30);

/// The pause before a failed group is tried again; doubled each time up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

type Handed = (Report, oneshot::Sender<bool>);

/// The way to the recorder. Once all clones are dropped, it finishes what it has and ends.
#[derive(Debug, Clone)]
pub(super) struct Recorder(mpsc::UnboundedSender<Handed>);

impl Recorder {
    /// The way to a recorder, and the recorder, which works while it is polled.
    pub(super) fn new(
        database: Database,
        clock: Clock,
        announcer: Announcer,
        owner: OwnerId,
    ) -> (Self, impl Future<Output = ()> + Send) {
        // Bounded by what may be in flight.
        let (sender, reports) = mpsc::unbounded_channel();
        (
            Self(sender),
            run(
                Parts {
                    database,
                    clock,
                    announcer,
                    owner,
                },
                reports,
            ),
        )
    }

    /// Waits until the report is committed. False if it did not count: its lane has another owner by now, or it could not be recorded.
    pub(super) async fn record(&self, report: Report) -> bool {
        let (sender, answer) = oneshot::channel();
        self.0.send((report, sender)).is_ok() && answer.await.unwrap_or(false)
    }
}

struct Parts {
    database: Database,
    clock: Clock,
    announcer: Announcer,
    owner: OwnerId,
}

async fn run(parts: Parts, mut reports: mpsc::UnboundedReceiver<Handed>) {
    let mut handed = Vec::new();
    while reports.recv_many(&mut handed, GROUP_MAX).await > 0 {
        let (group, answers): (Vec<Report>, Vec<oneshot::Sender<bool>>) = handed.drain(..).unzip();
        let counted = match parts.settle(&group).await {
            Ok(counted) => counted,
            Err(error) if group.len() == 1 => {
                complain(&error, &group);
                vec![false]
            }
            // One of them is at fault; the others should not suffer for it.
            Err(_) => {
                let mut counted = Vec::with_capacity(group.len());
                for report in &group {
                    let alone = std::slice::from_ref(report);
                    counted.push(match parts.settle(alone).await {
                        Ok(counted) => counted.into_iter().all(|counted| counted),
                        Err(error) => {
                            complain(&error, alone);
                            false
                        }
                    });
                }
                counted
            }
        };
        for (answer, counted) in answers.into_iter().zip(counted) {
            // A handler that no longer waits has nothing to be told.
            let _ = answer.send(counted);
        }
    }
}

impl Parts {
    /// Settles a group, again and again while that is only a matter of time.
    async fn settle(&self, group: &[Report]) -> Result<Vec<bool>, Error> {
        let given_up_at = Instant::now() + TRIED_FOR;
        let mut pause = PAUSE_FIRST;
        loop {
            match self.transaction(group).await {
                Ok(settled) => {
                    for merchant in settled.announced {
                        self.announcer.announce(merchant);
                    }
                    return Ok(settled.counted);
                }
                Err(Error::Database(error))
                    if (error.is_retryable() || error.is_unavailable())
                        && Instant::now() < given_up_at =>
                {
                    tracing::debug!(error = %error, "attempts could not be recorded; trying again");
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn transaction(&self, group: &[Report]) -> Result<Settled, Error> {
        let mut tx = self.database.begin().await?;
        let settled = delivery::settle(&mut tx, self.owner, group, self.clock.now()).await?;
        tx.commit().await?;
        Ok(settled)
    }
}

fn complain(error: &Error, group: &[Report]) {
    for report in group {
        tracing::error!(
            error = %error,
            endpoint.id = %report.lease.endpoint,
            event.id = %report.event.id,
            "an attempt could not be recorded; the delivery will be repeated"
        );
    }
}
