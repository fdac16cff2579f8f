//! How many may read at once: a stream holds a connection of the client's for as long as it likes, so they are counted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kernel::{
    actor::Actor,
    id::{AppId, MerchantId},
};

use crate::error::Error;

/// Streams that one app may have open at one merchant, in one process: a few consumers of a few endpoints.
pub const STREAMS_PER_APP_MAX: u32 = 20;

/// Streams that a process serves: each is a socket and up to a page of events, some hundred kilobytes at most as a rule.
pub const STREAMS_MAX: u32 = 2_000;

/// Counts who reads. One per process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Seats(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_app: HashMap<(MerchantId, AppId), u32>,
}

/// The right to read; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    app: (MerchantId, AppId),
}

impl Seats {
    /// Takes a seat, if there is one.
    pub fn take(&self, actor: &Actor) -> Result<Seat, Error> {
        let app = (actor.merchant, actor.app);
        let mut taken = self.taken();
        if taken.all >= STREAMS_MAX {
            return Err(Error::TooManyStreams { limit: STREAMS_MAX });
        }
        let of_app = taken.by_app.entry(app).or_default();
        if *of_app >= STREAMS_PER_APP_MAX {
            return Err(Error::TooManyStreams {
                limit: STREAMS_PER_APP_MAX,
            });
        }
        *of_app = of_app.saturating_add(1);
        taken.all = taken.all.saturating_add(1);
        Ok(Seat {
            seats: self.clone(),
            app,
        })
    }

    /// Streams that are open.
    pub fn count(&self) -> u32 {
        self.taken().all
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.by_app.get_mut(&self.app).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            taken.by_app.remove(&self.app);
        }
    }
}
