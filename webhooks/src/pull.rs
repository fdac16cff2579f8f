//! Pull consumers: an endpoint without a URL whose events are handed out by lease, and come again unless they are acknowledged in time.
//!
//! Called by the edge. What is due are the endpoint's rows of `deliveries`, put there by the relay as for any other endpoint. A lease marks some of
//! them with its id, counts an attempt, and makes them due again when it ends; acknowledging takes them off the queue. What was leased as often as the
//! endpoint's schedule allows is given up on, and lies in the dead letters.
//!
//! A lease is a mutation with an idempotency key. What is kept under the key is the lease's id and end, not the events: a retry that finds the
//! lease still standing reads the same rows again, and one that comes later is told that it has expired. That nothing was due is never kept, so
//! the same request may lease something the next time it is made.
//!
//! Invariants: an event is in one lease at a time; where order by resource was asked for, nothing is leased while an earlier event of its resource is
//! leased or waits; whoever waits holds no connection; what comes after a lease's end changes nothing.

use std::{sync::Arc, time::Duration};

use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    db::Database,
    id::{EventId, Id, Kind},
    idempotency::{Answer, Call, Failed, Idempotency, Kept, Key, Operation},
    keyring::Keyring,
    scope::Scope,
    validation::{Faults, Validate},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::time::Instant;

use crate::{
    dead_letter::{self, DeadLetterId},
    delivery::{self, Attempt, Made},
    endpoint::{EndpointId, Visible, settings::PullMode},
    error::{Error, Refusal},
    event::{self, Envelope, Event},
    follow::{Seats, Standing},
    hub::Hub,
    metrics,
    render::Form,
    retry::DeadLetterReason,
    stream,
};

mod store;

/// Events that one lease hands out at most.
pub const LEASED_EVENTS_MAX: u32 = 1_000;

/// Bytes of events' data that one lease hands out, beyond its first event: what an answer may hold in memory.
const LEASED_BYTES_MAX: i64 = 8 * 1024 * 1024;

/// Seconds that a lease may last: shorter ones expire on their way, longer ones keep others from what a lost consumer holds.
const LEASE_SECONDS: std::ops::RangeInclusive<u32> = 10..=3_600;

/// Seconds that a request may wait for something to lease: proxies in between give up on requests that are silent for longer than half a minute.
const WAIT_SECONDS_MAX: u32 = 20;

/// Seconds that a release may put events off.
const DELAY_SECONDS_MAX: u32 = 86_400;

/// How often somebody who waits looks by themselves: the net under lost hints, and for what is queued without an event, such as replays.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How soon somebody who waits looks again when what is due is in others' hands.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The id of a lease: `lea_…`.
pub type LeaseId = Id<Lease>;

impl Kind for Lease {
    const PREFIX: &'static str = "lea";
}

/// What is to be leased.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = WebhookLeaseInput)]
pub struct LeaseInput {
    /// Events at most. There may be fewer in the lease while more are due: large ones are handed out in smaller portions.
    #[schema(minimum = 1, maximum = 1_000, default = 100, example = 100)]
    pub max_events: u32,
    /// How long they are held, in seconds: acknowledge them before that.
    #[schema(minimum = 10, maximum = 3_600, default = 60, example = 60)]
    pub lease_seconds: u32,
    /// How long to wait for something to be due, in seconds.
    #[schema(minimum = 0, maximum = 20, default = 0, example = 0)]
    pub wait_seconds: u32,
}

impl Default for LeaseInput {
    fn default() -> Self {
        Self {
            max_events: 100,
            lease_seconds: 60,
            wait_seconds: 0,
        }
    }
}

impl Validate for LeaseInput {
    fn validate(&self, faults: &mut Faults) {
        within(faults, "/maxEvents", self.max_events, 1..=LEASED_EVENTS_MAX);
        within(faults, "/leaseSeconds", self.lease_seconds, LEASE_SECONDS);
        within(
            faults,
            "/waitSeconds",
            self.wait_seconds,
            0..=WAIT_SECONDS_MAX,
        );
    }
}

fn within(faults: &mut Faults, pointer: &str, value: u32, range: std::ops::RangeInclusive<u32>) {
    if !range.contains(&value) {
        faults.add(
            pointer,
            "out_of_range",
            format!("must be a number from {} to {}", range.start(), range.end()),
        );
    }
}

/// Events that were handed out, until the lease's end.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookLease)]
pub struct Lease {
    /// The lease, which acknowledging and releasing name; null if nothing is due.
    #[schema(required)]
    pub lease_id: Option<LeaseId>,
    /// When what was not acknowledged is due again.
    #[schema(required)]
    pub expires_at: Option<Timestamp>,
    /// What the lease holds, in the order of `sequence`.
    pub data: Vec<LeasedEvent>,
}

/// An event in a lease.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LeasedEvent)]
pub struct LeasedEvent {
    /// The event.
    #[serde(flatten)]
    pub event: Envelope,
    /// How often it was leased so far, this time included; a replay begins at 1 again.
    #[schema(example = 1)]
    pub attempt: i32,
}

/// A row that a lease holds.
#[derive(Debug)]
struct Held {
    sequence: i64,
    event: EventId,
    attempt: i32,
}

/// A row that is due.
#[derive(Debug)]
struct Candidate {
    sequence: i64,
    /// How often it was leased so far.
    attempt_count: i32,
    data_bytes: i64,
}

/// How an endpoint is read.
#[derive(Debug)]
struct Reading {
    is_pushed: bool,
    is_disabled: bool,
    /// The version of the endpoint.
    version: i64,
    pull: PullMode,
    /// The form in which its events are handed out.
    form: Form,
    /// The schedule's attempts, where the endpoint has a schedule of its own.
    attempts_max: Option<u32>,
}

/// Takes a lease on what is due: what is done once for a key.
#[derive(Debug)]
pub struct Take {
    /// What is to be leased.
    pub input: TakeInput,
    /// How often an event is leased, where the endpoint has no schedule of its own.
    pub attempts_max: u32,
}

/// What a lease is taken on, and for how long.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TakeInput {
    /// The endpoint.
    pub id: EndpointId,
    /// Events at most.
    pub max_events: u32,
    /// How long they are held, in seconds.
    pub lease_seconds: u32,
}

/// A lease that was taken; what it holds is in its rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// The lease.
    pub lease_id: LeaseId,
    /// Its end.
    pub expires_at: Timestamp,
    /// What was due too, but was leased as often as it may be.
    #[serde(skip)]
    exhausted: Vec<i64>,
}

impl Kept for Taken {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::WebhooksRead).is_ok()
    }
}

impl Operation for Take {
    const NAME: &'static str = "webhook_endpoint.lease";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = TakeInput;
    type Output = Taken;
    type Error = Error;

    fn input(&self) -> &TakeInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<Taken, Error> {
        let TakeInput {
            id,
            max_events,
            lease_seconds,
        } = self.input;
        let attempts_max = leased_endpoint(&mut *tx, actor, id)
            .await?
            .unwrap_or(self.attempts_max);
        let mut leased = Vec::new();
        let mut exhausted = Vec::new();
        let mut bytes = 0_i64;
        // What somebody waits for goes first; each priority has its own range of the index.
        'priorities: for priority in [0_i16, 1] {
            let wanted = i64::from(max_events)
                .saturating_sub(i64::try_from(leased.len()).unwrap_or(i64::MAX));
            if wanted <= 0 {
                break;
            }
            for candidate in store::due(&mut *tx, actor.merchant, id, priority, now, wanted).await?
            {
                if u32::try_from(candidate.attempt_count).unwrap_or(0) >= attempts_max {
                    exhausted.push(candidate.sequence);
                    continue;
                }
                bytes = bytes.saturating_add(candidate.data_bytes);
                if bytes > LEASED_BYTES_MAX && !leased.is_empty() {
                    break 'priorities;
                }
                leased.push(candidate.sequence);
            }
        }
        if leased.is_empty() {
            return Err(Error::NothingDue {
                next_due_at: store::next_due_at(&mut *tx, actor.merchant, id, now).await?,
                exhausted,
            });
        }
        let taken = Taken {
            lease_id: LeaseId::new(now),
            expires_at: now.plus(Duration::from_secs(lease_seconds.into())),
            exhausted,
        };
        store::lease(&mut *tx, actor.merchant, id, &leased, &taken).await?;
        Ok(taken)
    }
}

/// Fails unless the actor sees the endpoint and its events are handed out; gives the attempts of its own schedule, if it has one.
async fn leased_endpoint(
    tx: &mut PgConnection,
    actor: &Actor,
    id: EndpointId,
) -> Result<Option<u32>, Error> {
    let reading = store::reading(tx, Visible::to(actor), id)
        .await?
        .ok_or(Error::EndpointNotFound(id))?;
    if reading.is_pushed || reading.pull != PullMode::Lease {
        return Err(Refusal::EndpointNotLeased.into());
    }
    if reading.is_disabled {
        return Err(Refusal::EndpointDisabled.into());
    }
    Ok(reading.attempts_max)
}

/// Part of a lease, or all of it.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = WebhookAcknowledgement)]
pub struct AcknowledgeInput {
    /// The lease.
    pub lease_id: LeaseId,
    /// Which of its events, by `sequence`; all that it still holds if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1_000, example = json!([4711, 4712]))]
    pub sequences: Option<Vec<i64>>,
}

impl Validate for AcknowledgeInput {
    fn validate(&self, faults: &mut Faults) {
        validate_sequences(faults, self.sequences.as_deref());
    }
}

/// Part of a lease, or all of it, and when it is to be due again.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = WebhookRelease)]
pub struct ReleaseInput {
    /// The lease.
    pub lease_id: LeaseId,
    /// Which of its events, by `sequence`; all that it still holds if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1_000, example = json!([4713]))]
    pub sequences: Option<Vec<i64>>,
    /// When they are due again, in seconds from now.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 86_400, default = 0, example = 30)]
    pub delay_seconds: u32,
}

impl Validate for ReleaseInput {
    fn validate(&self, faults: &mut Faults) {
        validate_sequences(faults, self.sequences.as_deref());
        within(
            faults,
            "/delaySeconds",
            self.delay_seconds,
            0..=DELAY_SECONDS_MAX,
        );
    }
}

fn validate_sequences(faults: &mut Faults, sequences: Option<&[i64]>) {
    let Some(sequences) = sequences else { return };
    let most = usize::try_from(LEASED_EVENTS_MAX).unwrap_or(usize::MAX);
    faults.at_most("/sequences", sequences, most);
    if sequences.is_empty() {
        faults.add(
            "/sequences",
            "required",
            "must name at least one event, or be absent for all of the lease",
        );
    }
}

/// What came of acknowledging or releasing events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookLeaseSettled)]
pub struct LeaseSettled {
    /// The lease.
    pub lease_id: LeaseId,
    /// Events for which it counted.
    #[schema(example = 2)]
    pub settled_count: u32,
    /// Sequences that were named and that the lease does not hold: acknowledged or released before, or never in it. Nothing was changed for these.
    pub not_held: Vec<i64>,
}

impl LeaseSettled {
    /// An error if nothing at all was held.
    fn new(lease_id: LeaseId, named: Option<&[i64]>, settled: &[i64]) -> Result<Self, Error> {
        if settled.is_empty() {
            return Err(Refusal::LeaseExpired.into());
        }
        let held: std::collections::HashSet<i64> = settled.iter().copied().collect();
        let mut not_held: Vec<i64> = named
            .unwrap_or_default()
            .iter()
            .copied()
            .filter(|sequence| !held.contains(sequence))
            .collect();
        not_held.sort_unstable();
        not_held.dedup();
        Ok(Self {
            lease_id,
            settled_count: u32::try_from(held.len()).unwrap_or(u32::MAX),
            not_held,
        })
    }
}

impl Kept for LeaseSettled {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::WebhooksRead).is_ok()
    }
}

/// Acknowledges events of a lease: they were dealt with, and leave the queue.
#[derive(Debug)]
pub struct Acknowledge {
    /// Which.
    pub input: Of<AcknowledgeInput>,
}

/// Gives events of a lease back: they were not dealt with, and are due again.
#[derive(Debug)]
pub struct Release {
    /// Which, and from when on.
    pub input: Of<ReleaseInput>,
}

/// What is asked of an endpoint.
#[derive(Debug, Clone, Serialize)]
pub struct Of<T> {
    /// The endpoint.
    pub id: EndpointId,
    /// What.
    #[serde(flatten)]
    pub input: T,
}

impl Operation for Acknowledge {
    const NAME: &'static str = "webhook_endpoint.acknowledge";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = Of<AcknowledgeInput>;
    type Output = LeaseSettled;
    type Error = Error;

    fn input(&self) -> &Of<AcknowledgeInput> {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<LeaseSettled, Error> {
        let Of { id, input } = &self.input;
        // While it is disabled too: what was dealt with was dealt with.
        let reading = store::reading(&mut *tx, Visible::to(actor), *id)
            .await?
            .ok_or(Error::EndpointNotFound(*id))?;
        let named = input.sequences.as_deref();
        let removed =
            store::remove(&mut *tx, actor.merchant, *id, input.lease_id, named, now).await?;
        let leased_at = input.lease_id.made_at();
        let attempts: Vec<Attempt> = removed
            .iter()
            .map(|held| Attempt::acknowledged(held.attempt, leased_at, now))
            .collect();
        let made = removed.iter().zip(&attempts).map(|(held, attempt)| Made {
            merchant: actor.merchant,
            endpoint: *id,
            event: held.event,
            sequence: held.sequence,
            attempt,
            endpoint_version: reading.version,
            request_bytes: None,
        });
        delivery::record(tx, made).await?;
        let settled: Vec<i64> = removed.iter().map(|held| held.sequence).collect();
        LeaseSettled::new(input.lease_id, named, &settled)
    }
}

impl Operation for Release {
    const NAME: &'static str = "webhook_endpoint.release";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = Of<ReleaseInput>;
    type Output = LeaseSettled;
    type Error = Error;

    fn input(&self) -> &Of<ReleaseInput> {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<LeaseSettled, Error> {
        let Of { id, input } = &self.input;
        store::reading(&mut *tx, Visible::to(actor), *id)
            .await?
            .ok_or(Error::EndpointNotFound(*id))?;
        let named = input.sequences.as_deref();
        let due_at = now.plus(Duration::from_secs(input.delay_seconds.into()));
        let settled =
            store::release(tx, actor.merchant, *id, input.lease_id, named, now, due_at).await?;
        LeaseSettled::new(input.lease_id, named, &settled)
    }
}

/// Hands events out: what leases are taken with. Clones share what they wait by.
#[derive(Debug, Clone)]
pub struct Leasing {
    /// The API role's database.
    pub database: Database,
    /// Runs mutations once per key.
    pub idempotency: Idempotency,
    /// Opens personal data for those who may see it.
    pub keyring: Arc<Keyring>,
    /// The clock.
    pub clock: Clock,
    /// Wakes those who wait.
    pub hub: Hub,
    /// Who waits counts as a stream.
    pub seats: Seats,
    /// How often an event is leased, where the endpoint has no schedule of its own.
    pub attempts_max: u32,
}

impl Leasing {
    /// Leases what is due; waits for something for as long as `input` says, without a connection, and as long as `standing` lets the actor.
    pub async fn lease(
        &self,
        actor: &Actor,
        standing: &dyn Standing,
        key: &Key,
        id: EndpointId,
        input: &LeaseInput,
    ) -> Result<Answer<Lease>, Failed<Error>> {
        let take = Take {
            input: TakeInput {
                id,
                max_events: input.max_events,
                lease_seconds: input.lease_seconds,
            },
            attempts_max: self.attempts_max,
        };
        let deadline = Instant::now() + Duration::from_secs(input.wait_seconds.into());
        let mut changes = self.hub.subscribe(actor.merchant);
        let mut seat = None;
        loop {
            changes.mark_seen();
            let (next_due_at, exhausted) = match self.idempotency.once(actor, key, &take).await {
                Ok(taken) => return self.show(actor, id, taken).await,
                Err(Failed {
                    error:
                        Error::NothingDue {
                            next_due_at,
                            exhausted,
                        },
                    ..
                }) => (next_due_at, exhausted),
                Err(failed) => return Err(failed),
            };
            if !exhausted.is_empty() && self.bury(actor, id, &exhausted).await.map_err(now)? > 0 {
                continue;
            }
            if Instant::now() >= deadline || self.hub.is_stopped() {
                return Ok(Answer {
                    value: Lease {
                        lease_id: None,
                        expires_at: None,
                        data: Vec::new(),
                    },
                    replayed: false,
                });
            }
            if seat.is_none() {
                seat = Some(self.seats.take(actor).map_err(now)?);
            }
            let due_in = next_due_at
                .map_or(LOOK_EVERY, |due_at| due_at.since(self.clock.now()))
                .clamp(LOOK_AGAIN, LOOK_EVERY);
            let look_at = (Instant::now() + due_in).min(deadline);
            tokio::select! {
                () = changes.changed() => {}
                () = tokio::time::sleep_until(look_at) => {}
                () = self.hub.stopped() => {}
            }
            let still = standing.check().await;
            still.map_err(|problem| now(Error::NoLonger(Box::new(problem))))?;
        }
    }

    /// Reads what a lease holds: also for a retry, which is given the same rows as long as the lease lasts.
    async fn show(
        &self,
        actor: &Actor,
        id: EndpointId,
        taken: Answer<Taken>,
    ) -> Result<Answer<Lease>, Failed<Error>> {
        let replayed = taken.replayed;
        let Taken {
            lease_id,
            expires_at,
            exhausted,
        } = taken.value;
        if !exhausted.is_empty()
            && let Err(error) = self.bury(actor, id, &exhausted).await
        {
            tracing::warn!(error = %error, "events that were leased too often could not be given up on");
        }
        let present = self.clock.now();
        if expires_at <= present {
            return Err(Failed {
                error: Refusal::LeaseExpired.into(),
                replayed,
            });
        }
        let data = self.read(actor, id, lease_id, present).await;
        let data = data.map_err(|error| Failed { error, replayed })?;
        Ok(Answer {
            value: Lease {
                lease_id: Some(lease_id),
                expires_at: Some(expires_at),
                data,
            },
            replayed,
        })
    }

    async fn read(
        &self,
        actor: &Actor,
        id: EndpointId,
        lease: LeaseId,
        now: Timestamp,
    ) -> Result<Vec<LeasedEvent>, Error> {
        let merchant = actor.merchant;
        let mut tx = self.database.enter_by_key(merchant).await?;
        let reading = store::reading(&mut tx, Visible::to(actor), id)
            .await?
            .ok_or(Error::EndpointNotFound(id))?;
        let form = reading.form;
        let held = store::held(&mut tx, merchant, id, lease, now).await?;
        let receiver = stream::receiver(&mut tx, actor, id, now).await?;
        let numbered: Vec<(i64, EventId)> =
            held.iter().map(|row| (row.sequence, row.event)).collect();
        let events = events(&mut tx, actor, id, &numbered, now).await?;
        let wanted = events
            .iter()
            .filter(|event| form.wants_personal(event, &receiver));
        let personal = event::select_personal(&mut tx, &self.keyring, merchant, wanted).await?;
        tx.commit().await?;
        let mut leased = Vec::with_capacity(held.len());
        for (row, event) in held.iter().zip(&events) {
            leased.push(LeasedEvent {
                event: form.show(
                    event,
                    merchant,
                    Some(row.sequence),
                    &receiver,
                    personal.get(&event.id),
                )?,
                attempt: row.attempt,
            });
        }
        Ok(leased)
    }

    /// Gives up on events that were leased too often. Says how many it was.
    async fn bury(&self, actor: &Actor, id: EndpointId, sequences: &[i64]) -> Result<usize, Error> {
        let now = self.clock.now();
        let mut tx = self.database.enter_by_key(actor.merchant).await?;
        let attempts_max = leased_endpoint(&mut tx, actor, id)
            .await?
            .unwrap_or(self.attempts_max);
        let rows = store::take_exhausted(
            &mut tx,
            actor.merchant,
            id,
            sequences,
            i32::try_from(attempts_max).unwrap_or(i32::MAX),
            now,
        )
        .await?;
        let events = events(&mut tx, actor, id, &rows, now).await?;
        let buried: Vec<(DeadLetterId, i64, &Event)> = rows
            .iter()
            .zip(&events)
            .map(|((sequence, _), event)| (DeadLetterId::new(now), *sequence, event))
            .collect();
        let reason = DeadLetterReason::AttemptsExhausted;
        store::bury(&mut tx, actor.merchant, id, &buried, reason, now).await?;
        tx.commit().await?;
        metrics::dead_letters(reason, buried.len());
        Ok(buried.len())
    }
}

/// The events under these numbers of an endpoint, in their order: from the history, or from its dead letters if retention has dropped them there; one that is
/// in neither is withheld.
async fn events(
    tx: &mut PgConnection,
    actor: &Actor,
    endpoint: EndpointId,
    numbered: &[(i64, EventId)],
    now: Timestamp,
) -> Result<Vec<Event>, Error> {
    let merchant = [actor.merchant];
    let ids: Vec<EventId> = numbered.iter().map(|(_, id)| *id).collect();
    let mut found = event::select(&mut *tx, &merchant, &ids).await?;
    let missing = numbered.iter().filter(|(_, id)| !found.contains_key(id));
    let (sequences, missing): (Vec<i64>, Vec<EventId>) = missing.copied().unzip();
    if !missing.is_empty() {
        let letters =
            dead_letter::store::events(tx, &merchant, &[endpoint], &sequences, &missing).await?;
        found.extend(letters);
    }
    let events = ids.iter().map(|id| {
        let event = found.remove(id);
        event.unwrap_or_else(|| Event::unreadable(*id, now))
    });
    Ok(events.collect())
}

/// An error that was not kept under a key.
fn now(error: impl Into<Error>) -> Failed<Error> {
    Failed {
        error: error.into(),
        replayed: false,
    }
}
