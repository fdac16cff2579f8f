//! Single flight: who in this process is at work on a key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

/// The calls that are under way in this process, by the hash of their key.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<[u8; 32], watch::Receiver<()>>>);

pub(super) enum Boarding {
    /// Nobody else is at it.
    Leads(#[allow(dead_code, reason = "held for its drop")] Flight),
    /// Somebody is; the channel closes when they are done.
    Waits(watch::Receiver<()>),
}

/// The right to be the only one at a key; given back when dropped, which a cancelled request does too.
pub(super) struct Flight {
    flights: Arc<Flights>,
    key: [u8; 32],
    _landed: watch::Sender<()>,
}

impl Flights {
    pub(super) fn board(self: &Arc<Self>, key: [u8; 32]) -> Boarding {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landed) = flights.get(&key) {
            return Boarding::Waits(landed.clone());
        }
        let (sender, receiver) = watch::channel(());
        flights.insert(key, receiver);
        Boarding::Leads(Flight {
            flights: Arc::clone(self),
            key,
            _landed: sender,
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}
