//! Replays: a part of an endpoint's stream, queued again in the background.
//!
//! Started, looked at and cancelled by the edge; worked off by the [`Replayer`] of whichever process has the worker role and comes first. A replay goes
//! through the stream in the order of sequences, a batch in each transaction: what is queued and how far it has come commit together, so a crash goes on
//! where it was. Every delivery keeps its number, so that the receiver's stream stays without gaps and its de-duplication by id works.
//!
//! Invariants: what is on the queue already is not queued twice; a replay is bulk, which waits for what somebody waits for; it keeps no more than
//! [`QUEUED_MAX`] of an endpoint queued, however long the stream; while its endpoint is disabled it rests.

use kernel::{
    actor::{Access, Actor},
    clock::Timestamp,
    id::{EventId, Id, Kind, MerchantId},
    idempotency::{Call, Kept, Operation},
    page::{Page, PageRequest},
    scope::Scope,
    validation::{Faults, Validate},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    endpoint::{self, Endpoint, EndpointId, Outlet, Status, check},
    error::{Error, Refusal},
    filter::TypePattern,
    relay::raise_lanes,
    stream,
};

mod replayer;
mod store;

pub use replayer::{BATCH_SEQUENCES_MAX, QUEUED_MAX, Replayer};
use store::Chosen;

/// Replays of one endpoint that may be running at once: each more would only go through the same stream beside the others.
pub const RUNNING_MAX: u32 = 10;

/// Characters of a resource's type, and of its id.
const WORD_LENGTH_MAX: usize = 200;

/// The id of a [`Replay`]: `rpl_…`.
pub type ReplayId = Id<Replay>;

impl Kind for Replay {
    const PREFIX: &'static str = "rpl";
}

/// A part of an endpoint's stream that is queued again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookReplay)]
pub struct Replay {
    /// The replay's id.
    pub id: ReplayId,
    /// The endpoint whose stream it is.
    pub endpoint_id: EndpointId,
    /// What is queued again.
    pub selection: Selection,
    /// Whether it is still at it.
    pub status: ReplayStatus,
    /// The stream has been gone through up to this sequence.
    #[schema(example = 4711)]
    pub position: i64,
    /// The stream's last sequence when the replay began, where it ends.
    #[schema(example = 9000)]
    pub until_sequence: i64,
    /// Deliveries that were put on the queue. What was on it already is not counted.
    #[schema(example = 38)]
    pub queued_count: i64,
    /// Sequences whose events are no longer kept, and so could not be queued. Not known, and 0, where the selection names a time, a resource or dead
    /// letters.
    #[schema(example = 0)]
    pub expired_count: i64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last came further.
    pub updated_at: Timestamp,
}

/// Whether a replay is still at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookReplayStatus)]
pub enum ReplayStatus {
    /// It goes on; while its endpoint is disabled or has enough to do, it waits.
    Running,
    /// All of it is queued.
    Completed,
    /// Somebody has ended it, or its endpoint is gone. What it had queued stays so.
    Cancelled,
}

/// Which events of a stream a replay queues again. What is absent does not limit it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schema(as = WebhookReplaySelection)]
pub struct Selection {
    /// Only what has a greater sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, example = 4700)]
    pub after_sequence: Option<i64>,
    /// Only what happened then or later, to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only what happened before then, to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Only these types, by name or as `order.*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100, example = json!(["order.*"]))]
    pub event_types: Option<Vec<String>>,
    /// Only what happened to one resource: its type. Goes with `resourceId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "order")]
    pub resource_type: Option<String>,
    /// Only what happened to one resource: its id. Goes with `resourceType`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ord_01jd3x5k8vfm7b2c9q0r4t6w8y")]
    pub resource_id: Option<String>,
    /// Only what has fared like this.
    pub state: SelectedState,
}

/// How what is queued again has fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = WebhookReplayState)]
pub enum SelectedState {
    /// The receiver has never accepted it: it was given up on, or not sent at all.
    #[default]
    Missed,
    /// It was given up on, and has not been replayed since.
    Dead,
    /// Whatever became of it: also what was accepted is sent again.
    All,
}

impl Selection {
    /// Everything after `sequence` that the receiver has never accepted: what an endpoint has missed while it was disabled.
    pub fn missed_since(sequence: i64) -> Self {
        Self {
            after_sequence: Some(sequence),
            ..Self::default()
        }
    }

    /// The least and the first too great id of the events that it may name, as far as times say. An event's id carries its time to the millisecond.
    fn event_bounds(&self) -> (EventId, EventId) {
        (
            self.since
                .map_or(EventId::from_uuid(Uuid::nil()), EventId::least),
            self.until
                .map_or(EventId::from_uuid(Uuid::max()), EventId::least),
        )
    }

    /// Whether it names a time.
    const fn is_by_time(&self) -> bool {
        self.since.is_some() || self.until.is_some()
    }

    /// What says whether it takes events of a type.
    fn takes_kind(&self) -> impl Fn(&str) -> bool + use<> {
        // What is no pattern, as none is that was checked, means no event.
        let read = |texts: &Vec<String>| -> Vec<TypePattern> {
            let patterns = texts.iter().map(|text| TypePattern::parse(text));
            patterns.filter_map(Result::ok).collect()
        };
        let patterns = self.event_types.as_ref().map(read);
        move |kind| {
            let patterns = patterns.as_deref();
            patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(kind)))
        }
    }

    /// The resource that it names.
    fn resource(&self) -> Option<(&str, &str)> {
        self.resource_type
            .as_deref()
            .zip(self.resource_id.as_deref())
    }
}

impl Validate for Selection {
    fn validate(&self, faults: &mut Faults) {
        if self.after_sequence.is_some_and(|sequence| sequence < 0) {
            faults.add("/afterSequence", "invalid", "must be a number from 0 on");
        }
        if self
            .since
            .zip(self.until)
            .is_some_and(|(since, until)| until <= since)
        {
            faults.add("/until", "invalid", "must be later than `since`");
        }
        check::event_types(faults, self.event_types.as_deref());
        faults.optional_text(
            "/resourceType",
            self.resource_type.as_deref(),
            WORD_LENGTH_MAX,
        );
        faults.optional_text("/resourceId", self.resource_id.as_deref(), WORD_LENGTH_MAX);
        match (&self.resource_type, &self.resource_id) {
            (Some(_), None) => faults.add("/resourceId", "required", "goes with `resourceType`"),
            (None, Some(_)) => faults.add("/resourceType", "required", "goes with `resourceId`"),
            _ => {}
        }
    }
}

/// Starts a replay of an endpoint's stream, in the transaction that is given. Called by [`Start`], and where an endpoint is enabled with catch-up.
///
/// The caller has seen to it that the actor sees the endpoint. It is a [`Refusal::TooManyReplays`] if [`RUNNING_MAX`] are
/// running already.
pub async fn start(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    selection: Selection,
    now: Timestamp,
) -> Result<Replay, Error> {
    let running = store::running(&mut *tx, merchant, endpoint, i64::from(RUNNING_MAX)).await?;
    if running >= i64::from(RUNNING_MAX) {
        return Err(Refusal::TooManyReplays.into());
    }
    let until_sequence = stream::last_sequence(&mut *tx, merchant, endpoint).await?;
    let replay = Replay {
        id: ReplayId::new(now),
        endpoint_id: endpoint,
        position: selection.after_sequence.unwrap_or(0).min(until_sequence),
        selection,
        status: ReplayStatus::Running,
        until_sequence,
        queued_count: 0,
        expired_count: 0,
        created_at: now,
        updated_at: now,
    };
    store::insert(tx, merchant, &replay).await?;
    Ok(replay)
}

/// One replay of an endpoint that the actor sees.
pub async fn get(tx: &mut PgConnection, actor: &Actor, id: ReplayId) -> Result<Replay, Error> {
    actor.access.require(Scope::WebhooksRead)?;
    let replay = store::find(&mut *tx, actor.merchant, id)
        .await?
        .ok_or(Error::ReplayNotFound(id))?;
    match endpoint::get(tx, actor, replay.endpoint_id).await {
        Ok(_) => Ok(replay),
        // Another app's is not there.
        Err(Error::EndpointNotFound(_)) => Err(Error::ReplayNotFound(id)),
        Err(error) => Err(error),
    }
}

/// The replays of one endpoint, the newest first.
pub async fn list(
    tx: &mut PgConnection,
    actor: &Actor,
    endpoint: EndpointId,
    page: &PageRequest<ReplayId>,
) -> Result<Page<Replay>, Error> {
    endpoint::get(&mut *tx, actor, endpoint).await?;
    let rows = store::list(tx, actor.merchant, endpoint, page.after, page.fetch_count()).await?;
    Ok(Page::from_rows(rows, page, |replay| replay.id))
}

impl Kept for Replay {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::WebhooksRead).is_ok()
    }
}

/// Starts a replay.
#[derive(Debug)]
pub struct Start {
    /// Of which endpoint, and of what.
    pub input: StartInput,
}

/// What [`Start`] is given.
#[derive(Debug, Clone, Serialize)]
pub struct StartInput {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What is to be queued again.
    pub selection: Selection,
}

impl Operation for Start {
    const NAME: &'static str = "replay.start";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = StartInput;
    type Output = Replay;
    type Error = Error;

    fn input(&self) -> &StartInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<Replay, Error> {
        let StartInput {
            endpoint: id,
            selection,
        } = &self.input;
        let endpoint = endpoint::get(&mut *tx, actor, *id).await?;
        if !endpoint.is_queued() {
            return Err(Refusal::EndpointWithoutUrl.into());
        }
        start(tx, actor.merchant, *id, selection.clone(), now).await
    }
}

/// Ends a replay. One that is over stays as it is.
#[derive(Debug)]
pub struct Cancel {
    /// The replay.
    pub id: ReplayId,
}

impl Operation for Cancel {
    const NAME: &'static str = "replay.cancel";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = ReplayId;
    type Output = Replay;
    type Error = Error;

    fn input(&self) -> &ReplayId {
        &self.id
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<Replay, Error> {
        get(&mut *tx, actor, self.id).await?;
        store::cancel(&mut *tx, actor.merchant, self.id, now).await?;
        get(tx, actor, self.id).await
    }
}

/// Queues one event of an endpoint's stream again under its number, for somebody who waits for it, and says which event it is. Called for an event that is named
/// by its number, and for a dead letter.
pub(crate) async fn queue_again(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: &Endpoint,
    sequence: i64,
    now: Timestamp,
) -> Result<EventId, Error> {
    if endpoint.status == Status::Disabled {
        return Err(Refusal::EndpointDisabled.into());
    }
    let outlet = endpoint.outlet();
    if !outlet.is_queued() {
        return Err(Refusal::EndpointWithoutUrl.into());
    }
    let detail = store::detail(&mut *tx, merchant, endpoint.id, sequence)
        .await?
        .ok_or(Error::SequenceNotFound(sequence))?;
    let chosen = Chosen::new(sequence, &detail, endpoint.is_ordered());
    store::bring_forward(&mut *tx, merchant, endpoint.id, &chosen, now).await?;
    store::mark_dead_letters(&mut *tx, merchant, endpoint.id, &[sequence], now).await?;
    if outlet == Outlet::Sent {
        // What was on the queue already is due when it was.
        let lane = [endpoint.id];
        raise_lanes(tx, &lane, &lane, now).await?;
    }
    Ok(detail.event)
}

/// Queues one event of an endpoint's stream again, to be attempted at once: somebody waits for it.
#[derive(Debug)]
pub struct ReplayEvent {
    /// Which one.
    pub input: ReplayEventInput,
}

/// What [`ReplayEvent`] is given.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReplayEventInput {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The event's number in its stream.
    pub sequence: i64,
}

/// An event that was queued again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayedEvent {
    /// The endpoint that will be sent it.
    pub endpoint_id: EndpointId,
    /// The number that it keeps.
    #[schema(example = 4711)]
    pub sequence: i64,
    /// The event.
    pub event_id: EventId,
    /// When it was queued.
    pub replayed_at: Timestamp,
}

impl Kept for ReplayedEvent {
    fn visible_to(&self, access: &Access) -> bool {
        access.require(Scope::WebhooksRead).is_ok()
    }
}

impl Operation for ReplayEvent {
    const NAME: &'static str = "event.replay";
    const SCOPE: Scope = Scope::WebhooksWrite;
    type Input = ReplayEventInput;
    type Output = ReplayedEvent;
    type Error = Error;

    fn input(&self) -> &ReplayEventInput {
        &self.input
    }

    async fn run(
        &self,
        tx: &mut PgConnection,
        Call { actor, now }: Call<'_>,
    ) -> Result<ReplayedEvent, Error> {
        let ReplayEventInput {
            endpoint: id,
            sequence,
        } = self.input;
        let endpoint = endpoint::get(&mut *tx, actor, id).await?;
        let event = queue_again(tx, actor.merchant, &endpoint, sequence, now).await?;
        Ok(ReplayedEvent {
            endpoint_id: id,
            sequence,
            event_id: event,
            replayed_at: now,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn of(json: serde_json::Value) -> Selection {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_selection_takes_types_by_name_and_by_beginning() {
        let kinds = |kinds: &[&str]| of(serde_json::json!({"eventTypes": kinds}));
        assert!(Selection::default().takes_kind()("order.placed"));
        assert!(kinds(&["order.placed"]).takes_kind()("order.placed"));
        assert!(!kinds(&["order.placed"]).takes_kind()("order.paid"));
        assert!(kinds(&["product.created", "order.*"]).takes_kind()(
            "order.paid"
        ));
        assert!(!kinds(&["order.*"]).takes_kind()("orders_of_magnitude"));
        assert!(kinds(&["*"]).takes_kind()("order.paid"));
    }

    #[test]
    fn an_event_of_a_time_lies_within_its_bounds_and_one_of_the_millisecond_before_does_not() {
        let time = |millis| Timestamp::from_unix_millis(millis);
        let selection = Selection {
            since: Some(time(1_700_000_000_001)),
            until: Some(time(1_700_000_000_002)),
            ..Selection::default()
        };
        let (least, end) = selection.event_bounds();
        for (millis, within) in [
            (1_700_000_000_000, false),
            (1_700_000_000_001, true),
            (1_700_000_000_002, false),
        ] {
            let id = EventId::new(time(millis));
            assert_eq!(least <= id && id < end, within, "{millis}");
        }
        let (least, end) = Selection::default().event_bounds();
        let id = EventId::new(time(1_700_000_000_000));
        assert!(least <= id && id < end);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_pointer() {
        for (json, pointer) in [
            (serde_json::json!({"afterSequence": -1}), "/afterSequence"),
            (
                serde_json::json!({"since": "2026-11-02T00:00:00Z", "until": "2026-11-01T00:00:00Z"}),
                "/until",
            ),
            (serde_json::json!({"eventTypes": []}), "/eventTypes"),
            (
                serde_json::json!({"eventTypes": ["Order"]}),
                "/eventTypes/0",
            ),
            (
                serde_json::json!({"eventTypes": ["order.*", "ord*"]}),
                "/eventTypes/1",
            ),
            (serde_json::json!({"resourceType": "order"}), "/resourceId"),
            (serde_json::json!({"resourceId": "ord_1"}), "/resourceType"),
        ] {
            let faults = kernel::validation::check(&of(json.clone())).unwrap_err();
            assert!(
                faults
                    .iter()
                    .any(|fault| format!("{fault:?}").contains(pointer)),
                "{json}: {faults:?}"
            );
        }
        for kinds in [&["order.*"], &["*"], &["ping"], &["x2.y_3"]] {
            let selection = of(serde_json::json!({"state": "all", "eventTypes": kinds}));
            assert!(kernel::validation::check(&selection).is_ok(), "{kinds:?}");
        }
    }
}
