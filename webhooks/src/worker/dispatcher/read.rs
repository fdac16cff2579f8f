//! What a step of the dispatcher reads: where deliveries go, what may be seen there, and which are due.

use std::{collections::HashMap, sync::Arc};

use kernel::{
    clock::Timestamp,
    db::Transaction,
    id::{EventId, MerchantId},
    keyring::Keyring,
};
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::{Dispatcher, Waiting};
use crate::{
    dead_letter,
    delivery::{Due, Target, store},
    endpoint::{EndpointId, secret_context},
    error::Error,
    event::{self, Event, Receiver},
    sign::{Secret, Signer},
    worker::lanes::READ_ROWS_MAX,
};

/// Where a lane's deliveries go, made ready to send.
#[derive(Debug)]
pub(in crate::worker) struct ReadyTarget {
    /// `None`: nothing is to be sent.
    pub(in crate::worker) url: Option<Result<Url, url::ParseError>>,
    /// The same as the endpoint's row has it.
    pub(in crate::worker) stored_url: Option<String>,
    /// `None`: its secrets do not open, which is in the log.
    pub(in crate::worker) signer: Option<Signer>,
    pub(in crate::worker) receiver: Receiver,
    sealed_secrets: Vec<Vec<u8>>,
}

/// Where events are kept.
#[derive(Debug, Clone, Copy)]
enum Kept {
    InHistory,
    /// Copied, for replays of what retention has dropped.
    InDeadLetters,
}

impl Kept {
    async fn select(
        self,
        tx: &mut Transaction,
        merchants: &[MerchantId],
        ids: &[EventId],
    ) -> Result<HashMap<EventId, Event>, Error> {
        Ok(match self {
            Self::InHistory => event::select(&mut *tx, merchants, ids).await?,
            Self::InDeadLetters => dead_letter::store::events(&mut *tx, merchants, ids).await?,
        })
    }
}

/// Events that can't be read in full, and why. Their deliveries are handed out all the same, and fail: so they end among the dead letters
/// by the schedule, instead of stopping every read that meets them.
type Faults = HashMap<EventId, String>;

/// What a read of one lane brought: its rows, and whether that was all.
pub(super) type Read = (EndpointId, Vec<(i64, Waiting)>, bool);

impl Dispatcher {
    /// Rereads where the lanes' deliveries go and what may be seen there.
    pub(super) async fn read_targets(
        &mut self,
        tx: &mut Transaction,
        now: Timestamp,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let leases = self.lanes.leases();
        let mut merchants: Vec<MerchantId> = leases.iter().map(|lease| lease.merchant).collect();
        merchants.sort_unstable();
        merchants.dedup();
        let endpoints: Vec<EndpointId> = leases.iter().map(|lease| lease.endpoint).collect();
        let mut found: HashMap<EndpointId, Target> =
            store::targets(&mut *tx, &merchants, &endpoints, now)
                .await?
                .into_iter()
                .map(|target| (target.endpoint, target))
                .collect();
        for endpoint in endpoints {
            let Some(target) = found.remove(&endpoint) else {
                // Deleted; its lane is gone too.
                self.forget(endpoint);
                continue;
            };
            let known = self.targets.get(&endpoint);
            if known.is_some_and(|known| known.receiver != target.receiver) {
                // What waits was read for other eyes: personal data may be missing from it.
                self.lanes.reread(endpoint);
            }
            let signer = match known {
                Some(known) if known.sealed_secrets == target.sealed_secrets => {
                    known.signer.clone()
                }
                _ => self.signer(&mut *tx, &target).await?,
            };
            if target.url.is_none() {
                self.lanes.clear(endpoint);
            }
            let ready = ReadyTarget {
                url: target.url.as_deref().map(Url::parse),
                stored_url: target.url,
                signer,
                receiver: target.receiver,
                sealed_secrets: target.sealed_secrets,
            };
            self.targets.insert(endpoint, Arc::new(ready));
        }
        self.targets_read_at = Some(started);
        Ok(())
    }

    /// Opens an endpoint's secrets. Those that do not open are logged, and its deliveries fail until they do.
    async fn signer(&self, tx: &mut Transaction, target: &Target) -> Result<Option<Signer>, Error> {
        let opened = async {
            let key = self.keyring.merchant_key(&mut *tx, target.merchant).await?;
            let context = secret_context(target.merchant, target.endpoint);
            let secrets = target.sealed_secrets.iter().map(|sealed| {
                let bytes = key.open(&context, sealed)?;
                Secret::from_bytes(&bytes)
                    .ok()
                    .ok_or_else(|| kernel::keyring::Error::Open(context.clone()))
            });
            secrets.collect::<Result<Vec<Secret>, kernel::keyring::Error>>()
        };
        match opened.await {
            Ok(secrets) => Ok(Some(Signer::of_secrets(&secrets))),
            Err(kernel::keyring::Error::Database(error)) => Err(error.into()),
            Err(error) => {
                tracing::error!(error = %error, endpoint.id = %target.endpoint, "the secrets of an endpoint do not open");
                Ok(None)
            }
        }
    }

    /// Reads due rows of the lanes that want some, with their events.
    pub(super) async fn read(
        &mut self,
        tx: &mut Transaction,
        now: Timestamp,
    ) -> Result<Vec<Read>, Error> {
        let mut wanted = Vec::new();
        for (lease, known) in self.lanes.to_read() {
            if self.sends(lease.endpoint) {
                wanted.push((lease, READ_ROWS_MAX.saturating_add(known)));
            } else {
                // Whatever is due in it stays there until somebody enables the endpoint.
                self.lanes.clear(lease.endpoint);
            }
        }
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let mut due = store::due(&mut *tx, &wanted, now).await?;
        let mut counts: HashMap<EndpointId, usize> = HashMap::new();
        for due in &due {
            let count = counts.entry(due.endpoint).or_default();
            *count = count.saturating_add(1);
        }
        // What waits or is on its way is still due in the table, and comes again at each read: its event is not read again.
        due.retain(|due| !self.lanes.knows(due.endpoint, due.sequence));
        due.sort_by_key(|due| (due.due_at, due.sequence));
        let mut merchants: Vec<MerchantId> =
            wanted.iter().map(|(lease, _)| lease.merchant).collect();
        merchants.sort_unstable();
        merchants.dedup();
        let mut faults = Faults::new();
        let events = read_events(&mut *tx, &merchants, &mut due, &mut faults, now).await?;
        let mut sealed = Faults::new();
        let mut rows: HashMap<EndpointId, Vec<(i64, Waiting)>> = HashMap::new();
        for merchant in merchants {
            let of_merchant: Vec<&Due> =
                due.iter().filter(|due| due.merchant == merchant).collect();
            let for_whom =
                |due: &Due| Some((self.targets.get(&due.endpoint)?, events.get(&due.event)?));
            let personal = of_merchant.iter().filter_map(|due| for_whom(due));
            let personal: Vec<&Event> = personal
                .filter(|(target, event)| target.receiver.wants_personal(event))
                .map(|(_, event)| &**event)
                .collect();
            let personal =
                open_personal(&mut *tx, &self.keyring, merchant, personal, &mut sealed).await?;
            for due in of_merchant {
                let Some((target, event)) = for_whom(due) else {
                    continue;
                };
                let wants_personal = target.receiver.wants_personal(event);
                let personal = personal.get(&due.event).filter(|_| wants_personal).cloned();
                // Who is not shown the personal part does not miss it.
                let fault = sealed.get(&due.event).filter(|_| wants_personal);
                let fault = faults.get(&due.event).or(fault).cloned();
                let waiting = Waiting {
                    event: Arc::clone(event),
                    personal,
                    fault,
                    attempt_count: due.attempt_count,
                };
                rows.entry(due.endpoint)
                    .or_default()
                    .push((due.sequence, waiting));
            }
        }
        let read = wanted.into_iter().map(|(lease, limit)| {
            let complete = counts
                .get(&lease.endpoint)
                .is_none_or(|count| *count < limit);
            (
                lease.endpoint,
                rows.remove(&lease.endpoint).unwrap_or_default(),
                complete,
            )
        });
        Ok(read.collect())
    }
}

/// The events of due deliveries, from the history or from dead letters. Deliveries whose event retention has dropped are taken off the queue.
async fn read_events(
    tx: &mut Transaction,
    merchants: &[MerchantId],
    due: &mut Vec<Due>,
    faults: &mut Faults,
    now: Timestamp,
) -> Result<HashMap<EventId, Arc<Event>>, Error> {
    let mut ids: Vec<EventId> = due.iter().map(|due| due.event).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut events = select_events(&mut *tx, Kept::InHistory, merchants, &ids, faults).await?;
    ids.retain(|id| !events.contains_key(id));
    if !ids.is_empty() {
        let copies = select_events(&mut *tx, Kept::InDeadLetters, merchants, &ids, faults).await?;
        faults.retain(|id, _| !copies.contains_key(id));
        events.extend(copies);
        for (id, fault) in &*faults {
            tracing::error!(event.id = %id, error = %fault, "an event can't be read; its deliveries fail");
            events.insert(*id, Event::unreadable(*id, now));
        }
        let (kept, lost): (Vec<Due>, Vec<Due>) = std::mem::take(due)
            .into_iter()
            .partition(|due| events.contains_key(&due.event));
        *due = kept;
        if !lost.is_empty() {
            tracing::warn!(
                deliveries = lost.len(),
                "events are no longer kept; their deliveries are dropped"
            );
            store::discard(&mut *tx, &lost).await?;
        }
    }
    Ok(events
        .into_iter()
        .map(|(id, event)| (id, Arc::new(event)))
        .collect())
}

/// Reads events at once, or one by one if that fails by one of them.
async fn select_events(
    tx: &mut Transaction,
    kept: Kept,
    merchants: &[MerchantId],
    ids: &[EventId],
    faults: &mut Faults,
) -> Result<HashMap<EventId, Event>, Error> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    match kept.select(&mut *tx, merchants, ids).await {
        Err(error) if error.is_of_what_was_read() => {}
        other => return other,
    }
    let mut events = HashMap::new();
    for id in ids {
        match kept.select(&mut *tx, merchants, &[*id]).await {
            Ok(found) => events.extend(found),
            Err(error) if error.is_of_what_was_read() => {
                faults.insert(*id, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(events)
}

/// Opens the personal parts of events of one merchant at once, or one by one if that fails by one of them.
async fn open_personal(
    tx: &mut Transaction,
    keyring: &Keyring,
    merchant: MerchantId,
    events: Vec<&Event>,
    faults: &mut Faults,
) -> Result<HashMap<EventId, Value>, Error> {
    let all = events.iter().copied();
    let opened = event::select_personal(&mut *tx, keyring, merchant, all).await;
    match opened.map_err(Error::from) {
        Err(error) if error.is_of_what_was_read() => {}
        other => return other,
    }
    let mut opened = HashMap::new();
    for event in events {
        let one = std::iter::once(event);
        let one = event::select_personal(&mut *tx, keyring, merchant, one).await;
        match one.map_err(Error::from) {
            Ok(one) => opened.extend(one),
            Err(error) if error.is_of_what_was_read() => {
                tracing::error!(
                    error = %error,
                    event.id = %event.id,
                    "the personal part of an event does not open; its deliveries fail"
                );
                faults.insert(event.id, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}
