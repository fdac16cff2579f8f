//! Records what came of attempts in groups: a commit costs a flush of the disk, and is shared by all who wait for one.
//!
//! A handler hands over its reports and goes; the dispatcher is told once they are committed, so a delivery counts as on its way until then and nothing
//! is reported twice. While one group commits, the next gathers.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use kernel::{
    clock::{Clock, Timestamp},
    db::Database,
    event::Announcer,
};
use tokio::{sync::mpsc, time::Instant};

use super::ticket::{Ended, Ticket};
use crate::{
    delivery::{self, OwnerId, Report, Settled, fare::Hours},
    error::Error,
    metrics,
};

/// Requests whose reports one transaction settles at most.
const GROUP_MAX: usize = 500;

/// Requests for which a group is begun at once; with fewer it waits for others, for a transaction costs nearly the same however many share it.
const GROUP_FULL: usize = 250;

/// How long after the one before it a group is begun that is not full. What is sent again after a crash grows by this; nobody else waits for it.
const GROUP_EVERY: Duration = Duration::from_millis(10);

/// Groups that commit at once: while one waits for the disk, another is being written.
const GROUPS_AT_ONCE: usize = 2;

/// Requests that a group has at least if it is begun beside another. Fewer are better off in the next one.
const GROUP_BESIDE_MIN: usize = 32;

/// How often attempts are counted by the hour in the table.
const HOURS_EVERY: Duration = Duration::from_secs(2);

/// How long a group is tried while the database is away. Leases have run out long before; after this the deliveries are somebody's to repeat.
const TRIED_FOR: Duration = Duration::from_secs(30);

/// The pause before a failed group is tried again; doubled each time up to the most.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What came of one request.
#[derive(Debug)]
struct Handed {
    reports: Vec<Report>,
    ticket: Ticket,
    /// Whether the next delivery of a resource waits for this to be recorded.
    is_awaited: bool,
}

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
        // Bounded by what may be on its way.
        let (sender, handed) = mpsc::unbounded_channel();
        let parts = Parts {
            database,
            clock,
            announcer,
            owner,
            hours: Hours::default(),
        };
        (Self(sender), async move { parts.run(handed).await })
    }

    /// Hands over what came of a request. Its ticket is settled once that is committed, and dropped if it does not count: its lane has another owner by now,
    /// or it could not be recorded.
    pub(super) fn record(&self, reports: Vec<Report>, ticket: Ticket, is_awaited: bool) {
        // Without a recorder the ticket is dropped, which says the same.
        let _ = self.0.send(Handed {
            reports,
            ticket,
            is_awaited,
        });
    }
}

struct Parts {
    database: Database,
    clock: Clock,
    announcer: Announcer,
    owner: OwnerId,
    hours: Hours,
}

impl Parts {
    async fn run(&self, mut handed: mpsc::UnboundedReceiver<Handed>) {
        let mut committing = FuturesUnordered::new();
        let mut group: Vec<Handed> = Vec::new();
        let mut is_open = true;
        let mut group_at = Instant::now();
        let mut hours_at = Instant::now() + HOURS_EVERY;
        // Whether as many wait as a group needs beside those that are committing.
        let is_enough = |waiting: usize, committing: usize| match committing {
            0 => waiting > 0,
            GROUPS_AT_ONCE.. => false,
            _ => waiting >= GROUP_BESIDE_MIN,
        };
        while is_open || !committing.is_empty() {
            let room = GROUP_MAX.saturating_sub(group.len());
            tokio::select! {
                biased;
                Some(()) = committing.next() => {}
                count = handed.recv_many(&mut group, room), if is_open && room > 0 => {
                    is_open = count > 0;
                    // Whoever is about to hand something over goes first: then there is more to take at once.
                    tokio::task::yield_now().await;
                    while group.len() < GROUP_MAX && let Ok(one) = handed.try_recv() {
                        group.push(one);
                    }
                }
                () = tokio::time::sleep_until(group_at), if is_enough(group.len(), committing.len()) => {}
                () = tokio::time::sleep_until(hours_at) => {}
            }
            let now = Instant::now();
            if now >= hours_at {
                hours_at = now + HOURS_EVERY;
                self.write_hours().await;
            }
            let is_time = now >= group_at
                || group.len() >= GROUP_FULL
                || !is_open
                || group.iter().any(|handed| handed.is_awaited);
            if is_time && is_enough(group.len(), committing.len()) {
                group_at = now + GROUP_EVERY;
                committing.push(self.record(std::mem::take(&mut group)));
            }
        }
        self.write_hours().await;
    }

    async fn write_hours(&self) {
        if let Err(error) = self.hours.write(&self.database, self.clock.now()).await {
            tracing::warn!(error = %error, "attempts could not be counted by the hour");
        }
    }

    async fn record(&self, handed: Vec<Handed>) {
        let reports: Vec<&Report> = handed.iter().flat_map(|handed| &handed.reports).collect();
        let counted = match self.settle(&reports).await {
            Ok(counted) => counted,
            Err(error) if reports.len() == 1 => {
                complain(&error, &reports);
                vec![false]
            }
            // One of them is at fault; the others should not suffer for it.
            Err(_) => {
                let mut counted = Vec::with_capacity(reports.len());
                for report in reports {
                    counted.push(match self.settle(&[report]).await {
                        Ok(counted) => counted.into_iter().all(|counted| counted),
                        Err(error) => {
                            complain(&error, &[report]);
                            false
                        }
                    });
                }
                counted
            }
        };
        let mut counted = counted.into_iter();
        let mut recorded = Vec::with_capacity(handed.len());
        let Some(sender) = handed.first().map(|handed| handed.ticket.sender()) else {
            return;
        };
        for Handed {
            reports, ticket, ..
        } in handed
        {
            let of_this: Vec<bool> = counted.by_ref().take(reports.len()).collect();
            if of_this.len() == reports.len() && of_this.iter().all(|counted| *counted) {
                recorded.extend(
                    reports
                        .iter()
                        .map(|report| (report.lease, report.sequence, report.again_at())),
                );
                ticket.settle();
            }
        }
        // Without a dispatcher there is nobody to tell.
        let _ = sender.send(Ended::Recorded(recorded));
    }

    /// Settles a group, again and again while that is only a matter of time.
    async fn settle(&self, group: &[&Report]) -> Result<Vec<bool>, Error> {
        let given_up_at = Instant::now() + TRIED_FOR;
        let mut pause = PAUSE_FIRST;
        loop {
            let now = self.clock.now();
            match self.transaction(group, now).await {
                Ok(settled) => {
                    let counted = group
                        .iter()
                        .zip(&settled.counted)
                        .filter(|(_, counted)| **counted);
                    let counted: Vec<&Report> = counted.map(|(report, _)| *report).collect();
                    self.hours.count(&counted);
                    for reason in settled.buried {
                        metrics::dead_letters(reason, 1);
                    }
                    for merchant in settled.announced {
                        self.announcer.announce(merchant, now);
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

    async fn transaction(&self, group: &[&Report], now: Timestamp) -> Result<Settled, Error> {
        let mut tx = self.database.begin().await?;
        let settled = delivery::settle(&mut tx, self.owner, group, now).await?;
        tx.commit().await?;
        Ok(settled)
    }
}

fn complain(error: &Error, group: &[&Report]) {
    for report in group {
        tracing::error!(
            error = %error,
            endpoint.id = %report.lease.endpoint,
            event.id = %report.event.id,
            "an attempt could not be recorded; the delivery will be repeated"
        );
    }
}
