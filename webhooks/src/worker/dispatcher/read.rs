//! What a step of the dispatcher reads: where deliveries go, what may be seen there, and which are due.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kernel::{
    clock::{Clock, Timestamp},
    db::{Database, Transaction},
    id::{EventId, MerchantId},
    keyring::Keyring,
};
use serde_json::Value;
use tokio::time::Instant;

use super::{LEASE, Waiting};
use crate::{
    client::{Destination, Failure, FailureKind},
    dead_letter,
    delivery::{Due, Lease, OwnerId, Target, store},
    endpoint::{self, Configuration, EndpointId},
    error::Error,
    event::{self, Event, Receiver},
    render::Renderer,
    retry::Schedule,
    sign::Signer,
    worker::{
        lanes::{Extent, Lanes, Want},
        limits::Wishes,
        queue::Row,
        renders::Renders,
    },
};

mod pick;

/// Lanes leased by one step at most; more are leased by the next.
const LEASED_AT_ONCE: usize = 64;

/// Bytes that an event takes in memory beside its data.
const EVENT_BYTES: usize = 1_024;

/// Where a lane's deliveries go, made ready to send.
#[derive(Debug, Clone)]
pub(in crate::worker) struct ReadyTarget {
    /// As the endpoint's row has it. `None`: nothing is to be sent.
    pub(in crate::worker) url: Option<String>,
    pub(in crate::worker) receiver: Receiver,
    /// Whether something was taken at its URL before.
    pub(in crate::worker) is_verified: bool,
    pub(in crate::worker) means: Arc<Means>,
}

/// What one version of an endpoint is sent with.
#[derive(Debug)]
pub(in crate::worker) struct Means {
    /// Why it can't be sent anything, if so: its deliveries fail by that until somebody mends it.
    pub(in crate::worker) sending: Result<Sending, Failure>,
    pub(in crate::worker) wishes: Wishes,
    /// When failed deliveries are tried again; `None` for the default.
    pub(in crate::worker) schedule: Option<Schedule>,
    pub(in crate::worker) version: i64,
    /// When the first of the keys ends that are being rotated.
    keys_until: Option<Timestamp>,
}

/// What each request to an endpoint is made with.
#[derive(Debug)]
pub(in crate::worker) struct Sending {
    pub(in crate::worker) destination: Arc<Destination>,
    pub(in crate::worker) signer: Signer,
    pub(in crate::worker) renderer: Renderer,
}

/// Where events are kept.
#[derive(Debug)]
enum Kept {
    InHistory,
    /// Copied, for replays of what retention has dropped.
    InDeadLetters {
        endpoints: Vec<EndpointId>,
        sequences: Vec<i64>,
    },
}

impl Kept {
    async fn select(
        &self,
        tx: &mut Transaction,
        merchants: &[MerchantId],
        ids: &[EventId],
    ) -> Result<HashMap<EventId, Event>, Error> {
        Ok(match self {
            Self::InHistory => event::select(&mut *tx, merchants, ids).await?,
            Self::InDeadLetters {
                endpoints,
                sequences,
            } => dead_letter::store::events(&mut *tx, merchants, endpoints, sequences, ids).await?,
        })
    }
}

/// Events that can't be read in full, and why. Their deliveries are handed out all the same, and fail: so they end among the dead letters
/// by the schedule, instead of stopping every read that meets them.
type Faults = HashMap<EventId, String>;

type Targets = HashMap<EndpointId, Arc<ReadyTarget>>;

/// What a step is to find out.
pub(super) struct Request {
    /// Whether to lease lanes, and to look at the signals of those that are owned.
    pub(super) look: bool,
    pub(super) leases: Vec<Lease>,
    /// Lanes that may be leased.
    pub(super) room: usize,
    /// Merchants of whom no further lane is leased.
    pub(super) full: Vec<MerchantId>,
    /// Whether to read again where all lanes' deliveries go.
    pub(super) reread_targets: bool,
    /// Where they went when that was last read.
    pub(super) targets: Targets,
    /// Bytes of events that may be read.
    pub(super) room_bytes: usize,
    pub(super) wants: Vec<Want>,
}

/// What a step has found out.
pub(super) struct Step {
    /// Lanes that are owned, as they now are.
    pub(super) seen: Vec<Lease>,
    /// Lanes that were leased, each with how often its breaker had opened.
    pub(super) leased: Vec<(Lease, u32)>,
    pub(super) leased_until: Timestamp,
    /// Whether no due lane was left.
    pub(super) found_all: bool,
    /// Where deliveries go, as far as that was read; `None` for an endpoint that is no more.
    pub(super) targets: Vec<(EndpointId, Option<Arc<ReadyTarget>>)>,
    /// Since when that holds of all lanes, if it was read for all.
    pub(super) targets_read_at: Option<Instant>,
    pub(super) reads: Vec<Read>,
}

/// What a read of one lane brought.
pub(super) struct Read {
    pub(super) lease: Lease,
    pub(super) rows: Vec<Row<Waiting>>,
    pub(super) extent: Extent,
}

/// Asks the database what the dispatcher wants to know.
pub(super) struct Reader {
    pub(super) database: Database,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clock: Clock,
    pub(super) owner: OwnerId,
}

impl Reader {
    /// One transaction.
    pub(super) async fn step(&self, request: Request) -> Result<Step, Error> {
        let started = Instant::now();
        let now = self.clock.now();
        let Request {
            look,
            leases,
            room,
            full,
            reread_targets,
            mut targets,
            room_bytes,
            mut wants,
        } = request;
        let mut tx = self.database.begin_in_order().await?;
        let mut step = Step {
            seen: Vec::new(),
            leased: Vec::new(),
            leased_until: now.plus(LEASE),
            found_all: true,
            targets: Vec::new(),
            targets_read_at: None,
            reads: Vec::new(),
        };
        if look {
            let owned: Vec<EndpointId> = leases.iter().map(|lease| lease.endpoint).collect();
            if !owned.is_empty() {
                step.seen = store::look(&mut tx, self.owner, &owned).await?;
            }
            let room = room.min(LEASED_AT_ONCE);
            if room > 0 {
                let limit = i64::try_from(room).unwrap_or(i64::MAX);
                step.leased =
                    store::lease(&mut tx, self.owner, now, step.leased_until, limit, &full).await?;
                step.found_all = step.leased.len() < room;
            }
        }
        let mut to_aim: Vec<Lease> = step.leased.iter().map(|(lease, _)| *lease).collect();
        if reread_targets {
            to_aim.extend(&leases);
            step.targets_read_at = Some(started);
        }
        if !to_aim.is_empty() {
            step.targets = self.targets(&mut tx, &to_aim, &targets, now).await?;
            for (endpoint, target) in &step.targets {
                match target {
                    Some(target) => drop(targets.insert(*endpoint, Arc::clone(target))),
                    None => drop(targets.remove(endpoint)),
                }
            }
        }
        wants.extend(step.leased.iter().map(|(lease, breaker_openings)| {
            Want::first(*lease, Lanes::<Waiting>::first_rows(*breaker_openings))
        }));
        step.reads = self.read(&mut tx, wants, &targets, room_bytes, now).await?;
        tx.commit().await?;
        Ok(step)
    }

    /// Reads where these lanes' deliveries go and what may be seen there.
    pub(super) async fn targets(
        &self,
        tx: &mut Transaction,
        leases: &[Lease],
        known: &Targets,
        now: Timestamp,
    ) -> Result<Vec<(EndpointId, Option<Arc<ReadyTarget>>)>, Error> {
        let mut merchants: Vec<MerchantId> = leases.iter().map(|lease| lease.merchant).collect();
        merchants.sort_unstable();
        merchants.dedup();
        let endpoints: Vec<EndpointId> = leases.iter().map(|lease| lease.endpoint).collect();
        let found = store::targets(&mut *tx, &merchants, &endpoints, now).await?;
        let mut found: HashMap<EndpointId, Target> = found
            .into_iter()
            .map(|target| (target.endpoint, target))
            .collect();
        let is_current = |target: &Target| {
            known.get(&target.endpoint).is_some_and(|known| {
                known.means.version == target.version
                    && known.means.keys_until.is_none_or(|until| now < until)
            })
        };
        let changed: Vec<(MerchantId, EndpointId)> = found
            .values()
            .filter(|target| target.url.is_some() && !is_current(target))
            .map(|target| (target.merchant, target.endpoint))
            .collect();
        let mut configurations = endpoint::configuration(&mut *tx, &self.keyring, &changed).await?;
        let mut targets = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let Some(target) = found.remove(&endpoint) else {
                targets.push((endpoint, None));
                continue;
            };
            let known = known.get(&endpoint);
            let means = match (configurations.remove(&endpoint), known) {
                (Some(configuration), _) => Arc::new(Means::new(&target, configuration, now)),
                (None, Some(known)) => Arc::clone(&known.means),
                (None, None) => Arc::new(Means::none(target.version)),
            };
            let ready = ReadyTarget {
                url: target.url,
                receiver: target.receiver,
                is_verified: target.is_verified,
                means,
            };
            targets.push((endpoint, Some(Arc::new(ready))));
        }
        Ok(targets)
    }

    /// Reads due rows of the lanes that want some, with their events.
    async fn read(
        &self,
        tx: &mut Transaction,
        wants: Vec<Want>,
        targets: &Targets,
        room_bytes: usize,
        now: Timestamp,
    ) -> Result<Vec<Read>, Error> {
        let (wants, idle): (Vec<Want>, Vec<Want>) = wants.into_iter().partition(|want| {
            targets
                .get(&want.lease.endpoint)
                .is_some_and(|target| target.url.is_some())
        });
        let mut reads: Vec<Read> = idle
            .into_iter()
            .map(|want| Read::nothing(want.lease))
            .collect();
        if wants.is_empty() {
            return Ok(reads);
        }
        let found = store::due(&mut *tx, &wants, now).await?;
        let mut lines = pick::lines(wants, found);
        if lines.iter().any(pick::Line::is_ordered) {
            pick::hold_back(&mut *tx, &mut lines).await?;
        }
        pick::limit(&mut lines, room_bytes, EVENT_BYTES);
        let mut due: Vec<Due> = lines
            .iter()
            .flat_map(|line| line.rows.iter().cloned())
            .collect();
        let mut merchants: Vec<MerchantId> = due.iter().map(|due| due.merchant).collect();
        merchants.sort_unstable();
        merchants.dedup();
        let mut faults = Faults::new();
        let events = read_events(&mut *tx, &merchants, &mut due, &mut faults, now).await?;
        let mut personal = HashMap::new();
        for merchant in merchants {
            let wanted = due
                .iter()
                .filter(|due| due.merchant == merchant)
                .filter_map(|due| {
                    let (target, event) = (targets.get(&due.endpoint)?, events.get(&due.event)?);
                    target.wants_personal(event).then_some(&**event)
                });
            let wanted: Vec<&Event> = wanted.collect();
            if !wanted.is_empty() {
                let opened =
                    open_personal(&mut *tx, &self.keyring, merchant, wanted, &mut faults).await?;
                personal.extend(opened.into_iter().map(|(id, value)| (id, Arc::new(value))));
            }
        }
        let mut renders: HashMap<EventId, Arc<Renders>> = HashMap::new();
        for line in lines {
            let target = targets.get(&line.lease.endpoint);
            let rows = line.rows.into_iter().filter_map(|due| {
                let event = events.get(&due.event)?;
                let wants_personal = target.is_some_and(|target| target.wants_personal(event));
                Some(Row {
                    sequence: due.sequence,
                    is_bulk: due.priority > 0,
                    resource: due.resource_key,
                    bytes: bytes_of(&due),
                    payload: Waiting {
                        event: Arc::clone(event),
                        renders: Arc::clone(renders.entry(due.event).or_default()),
                        personal: personal.get(&due.event).filter(|_| wants_personal).cloned(),
                        // Who is not shown the personal part does not miss it.
                        fault: faults
                            .get(&due.event)
                            .filter(|_| wants_personal || event.kind == event::WITHHELD)
                            .cloned(),
                        attempt_count: due.attempt_count,
                    },
                })
            });
            reads.push(Read {
                lease: line.lease,
                rows: rows.collect(),
                extent: line.extent,
            });
        }
        Ok(reads)
    }
}

/// Bytes that a delivery takes in memory while it waits.
fn bytes_of(due: &Due) -> usize {
    usize::try_from(due.data_bytes)
        .unwrap_or(0)
        .saturating_add(EVENT_BYTES)
}

impl Read {
    fn nothing(lease: Lease) -> Self {
        Self {
            lease,
            rows: Vec::new(),
            extent: Extent {
                complete: true,
                ..Extent::default()
            },
        }
    }
}

impl ReadyTarget {
    /// Whether an event's personal part is to be opened for its requests.
    fn wants_personal(&self, event: &Event) -> bool {
        let sending = self.means.sending.as_ref();
        sending.is_ok_and(|sending| sending.renderer.wants_personal(event, &self.receiver))
    }
}

impl Means {
    fn new(target: &Target, configuration: Result<Configuration, Error>, now: Timestamp) -> Self {
        let configuration = match configuration {
            Ok(configuration) => configuration,
            Err(error) => {
                tracing::error!(error = %error, endpoint.id = %target.endpoint, "what an endpoint is sent with can't be read");
                return Self {
                    sending: Err(Failure::new(FailureKind::Internal, &error)),
                    ..Self::none(target.version)
                };
            }
        };
        let Configuration {
            version,
            settings,
            keys,
            credentials,
        } = configuration;
        let keys_until = keys
            .iter()
            .filter_map(|key| key.ends_at)
            .filter(|end| *end > now)
            .min();
        let living = keys.iter().filter(|key| key.is_living(now));
        let signer = Signer::new(living.map(|key| (key.scheme, key.secret.as_slice())));
        let sending = || {
            let url = target.url.as_deref().unwrap_or_default();
            let destination = Destination::new(target.endpoint, url, &settings, &credentials)
                .map_err(|error| error.failure())?;
            let signer = signer.map_err(|error| Failure::new(FailureKind::Internal, &error))?;
            if signer.is_empty() {
                return Err(Failure::new(
                    FailureKind::Internal,
                    "the endpoint has no key",
                ));
            }
            Ok(Sending {
                destination: Arc::new(destination),
                signer,
                renderer: Renderer::compile(&settings.payload)
                    .map_err(|error| Failure::new(FailureKind::Transformation, &error))?,
            })
        };
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let delivery = &settings.delivery;
        Self {
            sending: sending(),
            wishes: Wishes {
                rate_per_second: delivery.rate_limit_per_second,
                concurrency_max: delivery.concurrency_max.map(count),
                batch_events_max: settings.payload.batch_events_max.map_or(1, count),
            },
            schedule: delivery.retry_waits_seconds.as_ref().map(|waits| {
                let waits = waits
                    .iter()
                    .map(|seconds| Duration::from_secs(u64::from(*seconds)));
                Schedule::new(waits.collect())
            }),
            version,
            keys_until,
        }
    }

    /// Of an endpoint that is sent nothing.
    fn none(version: i64) -> Self {
        Self {
            sending: Err(Failure::new(FailureKind::Internal, "there is no URL")),
            wishes: Wishes::default(),
            schedule: None,
            version,
            keys_until: None,
        }
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
    let mut events = select_events(&mut *tx, &Kept::InHistory, merchants, &ids, faults).await?;
    ids.retain(|id| !events.contains_key(id));
    if !ids.is_empty() {
        let missing = due.iter().filter(|due| !events.contains_key(&due.event));
        let (endpoints, sequences) = missing.map(|due| (due.endpoint, due.sequence)).unzip();
        let letters = Kept::InDeadLetters {
            endpoints,
            sequences,
        };
        let copies = select_events(&mut *tx, &letters, merchants, &ids, faults).await?;
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
            let lost = lost
                .iter()
                .map(|due| (due.merchant, due.endpoint, due.sequence));
            store::remove(&mut *tx, lost.collect()).await?;
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
    kept: &Kept,
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
