//! How the dispatcher hears what became of what it handed out.

use std::{sync::Arc, time::Duration};

use kernel::clock::Timestamp;
use tokio::sync::mpsc;

use super::lanes::Ending;
use crate::delivery::Lease;

/// What became of something that was handed out.
#[derive(Debug)]
pub(super) enum Ended {
    /// A request was answered, or failed: the endpoint is free for another one.
    Answered {
        lease: Lease,
        sequences: Arc<[i64]>,
        ending: Ending,
        duration: Duration,
    },
    /// What came of deliveries is committed; each with the time before which it is not due again, if it is to be delivered again.
    Recorded(Vec<(Lease, i64, Option<Timestamp>)>),
    /// Nobody knows what came of a request, or its lane is another's by now.
    Lost(Lease),
}

/// Goes along with a request, and tells the dispatcher also if its handler was dropped or broke.
#[derive(Debug)]
pub(super) struct Ticket {
    lease: Lease,
    sequences: Arc<[i64]>,
    is_settled: bool,
    ended: mpsc::UnboundedSender<Ended>,
}

impl Ticket {
    pub(super) fn new(
        lease: Lease,
        sequences: Arc<[i64]>,
        ended: mpsc::UnboundedSender<Ended>,
    ) -> Self {
        Self {
            lease,
            sequences,
            is_settled: false,
            ended,
        }
    }

    /// The request is over.
    pub(super) fn answered(&self, ending: Ending, duration: Duration) {
        self.tell(Ended::Answered {
            lease: self.lease,
            sequences: Arc::clone(&self.sequences),
            ending,
            duration,
        });
    }

    /// What came of it is committed; whoever calls this tells the dispatcher, in groups, through [`sender`](Self::sender).
    pub(super) fn settle(mut self) {
        self.is_settled = true;
    }

    pub(super) fn sender(&self) -> mpsc::UnboundedSender<Ended> {
        self.ended.clone()
    }

    fn tell(&self, ended: Ended) {
        // Without a dispatcher there is nobody to tell.
        let _ = self.ended.send(ended);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_settled {
            self.tell(Ended::Lost(self.lease));
        }
    }
}
