//! An endpoint's stream, read to catch up: exactly what the endpoint is sent, in order, without gaps.
//!
//! Each event is shown as the endpoint's owner may see it now; one that it may no longer see keeps its number and says only that.

use kernel::{
    actor::Actor, clock::Timestamp, db, id::MerchantId, keyring::Keyring, problem::FieldError,
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{
    endpoint::{self, EndpointId, settings::Settings},
    error::Error,
    event::{self, Envelope, Receiver},
    render::Form,
};

mod store;

/// What is read of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamRequest {
    /// The last number that the reader has; 0 for none.
    pub after: i64,
    /// Events at most.
    pub limit: u32,
}

/// Some events of an endpoint's stream.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamPage {
    /// The events, in the order of their numbers, without gaps.
    pub data: Vec<Envelope>,
    /// What to send as `after` for the next events: the number of the last one here, or what was sent if there is none.
    #[schema(example = 4711)]
    pub next_after: i64,
    /// The newest number of the stream: what is between the two is still to be read.
    #[schema(example = 4711)]
    pub last_sequence: i64,
}

/// Reads an endpoint's stream. What retention has dropped is an error that names the oldest number that is still there, and so is a number that the stream has
/// not come to: its reader would wait for what it takes for the future.
pub async fn read(
    tx: &mut PgConnection,
    actor: &Actor,
    keyring: &Keyring,
    endpoint: EndpointId,
    request: StreamRequest,
    now: Timestamp,
) -> Result<StreamPage, Error> {
    let form = form(&endpoint::get(&mut *tx, actor, endpoint).await?.settings);
    let merchant = actor.merchant;
    let StreamRequest { after, limit } = request;
    // Read before the entries: what is numbered meanwhile is then at most missing from this figure.
    let last_sequence = store::last_sequence(&mut *tx, merchant, endpoint).await?;
    if after > last_sequence {
        let detail = format!(
            "is beyond the newest number of this stream, which is {last_sequence}; is it another endpoint's?"
        );
        let beyond = FieldError::in_parameter("after", "out_of_range", detail);
        return Err(Error::InvalidFields(vec![beyond]));
    }
    let mut entries = store::entries(&mut *tx, merchant, endpoint, after, i64::from(limit)).await?;
    let ids: Vec<_> = entries.iter().map(|(event, _)| *event).collect();
    let mut events = event::select(&mut *tx, &[merchant], &ids).await?;
    // Partitions are dropped by events' days, which numbers may straddle: whatever follows a hole is for the next page, whose first entry
    // then shows the hole.
    let whole = entries.iter().zip(after.saturating_add(1)..).take_while(
        |((event, sequence), expected)| sequence == expected && events.contains_key(event),
    );
    let whole = whole.count();
    if whole == 0 && after < last_sequence {
        let oldest = entries
            .iter()
            .find(|(event, _)| events.contains_key(event))
            .map(|(_, sequence)| *sequence);
        return Err(Error::EventsExpired {
            oldest: oldest.unwrap_or(last_sequence.saturating_add(1)),
        });
    }
    entries.truncate(whole);
    let receiver = receiver(&mut *tx, actor, endpoint, now).await?;
    let wanted = events
        .values()
        .filter(|event| form.wants_personal(event, &receiver));
    let personal = event::select_personal(&mut *tx, keyring, merchant, wanted).await?;
    let mut data = Vec::with_capacity(entries.len());
    for (id, sequence) in &entries {
        let Some(event) = events.remove(id) else {
            continue;
        };
        data.push(form.show(
            &event,
            merchant,
            Some(*sequence),
            &receiver,
            personal.get(id),
        )?);
    }
    let next_after = entries.last().map_or(after, |(_, sequence)| *sequence);
    Ok(StreamPage {
        data,
        next_after,
        last_sequence: last_sequence.max(next_after),
    })
}

/// The form that an endpoint's settings ask for. A version of the API that this binary does not know was written by a newer one: then it is the newest of ours,
/// and says so.
pub(crate) fn form(settings: &Settings) -> Form {
    Form::of(&settings.payload).unwrap_or_default()
}

/// The newest number of an endpoint's stream; 0 for none.
pub(crate) async fn last_sequence(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
) -> Result<i64, db::Error> {
    store::last_sequence(tx, merchant, endpoint).await
}

/// What the owner of an endpoint may see now, as far as the actor may see it too.
pub(crate) async fn receiver(
    tx: &mut PgConnection,
    actor: &Actor,
    endpoint: EndpointId,
    now: Timestamp,
) -> Result<Receiver, Error> {
    let targets = crate::delivery::store::targets(tx, &[actor.merchant], &[endpoint], now).await?;
    let target = targets.into_iter().next();
    target
        .map(|target| target.receiver.read_by(&actor.access))
        .ok_or(Error::EndpointNotFound(endpoint))
}
