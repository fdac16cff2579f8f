//! The merchant's feed: every event that the actor may see, in the order in which they were relayed.
//!
//! The relay numbers it under a lock that it holds until its commit, so a number that shows is preceded by all smaller ones: reading on from a
//! cursor misses nothing. A cursor stands for how far the feed was gone through, which may be past the last event that was shown; each read
//! goes only so far, so what it costs depends neither on how much is kept nor on how little of it the actor may see. The numbers themselves are not shown, because their holes would tell how much happens that is none of the reader's business.

use kernel::{
    actor::Actor,
    id::MerchantId,
    keyring::Keyring,
    page::{self, PageRequest},
    scope::Scope,
};
use serde::Serialize;
use sqlx::PgConnection;

use crate::{
    endpoint::{self, Visible},
    error::Error,
    event::{self, Envelope, Receiver},
};

mod store;

/// Numbers that one read goes through at most, however little of it the actor may see: some tens of milliseconds, and about a second from a cold
/// disk, where the statement timeout is thirty.
pub(crate) const SCANNED_NUMBERS_MAX: i64 = 10_000;

/// Some events of the feed.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedPage {
    /// The events, oldest first.
    pub data: Vec<Envelope>,
    /// What to send as `cursor` for what comes after these; also on the last page, because a feed goes on.
    pub next_cursor: String,
    /// Whether the feed goes on already: ask again at once. A page may have fewer events than `limit`, or none, and the feed go on all the same.
    pub has_more: bool,
}

/// Reads the feed on from a cursor.
pub async fn read(
    tx: &mut PgConnection,
    actor: &Actor,
    keyring: &Keyring,
    request: &PageRequest<i64>,
) -> Result<FeedPage, Error> {
    let read = read_numbered(tx, actor, keyring, request).await?;
    Ok(FeedPage {
        data: read.data.into_iter().map(|(_, event)| event).collect(),
        next_cursor: page::encode(&read.until),
        has_more: read.has_more,
    })
}

/// Events of the feed with their numbers.
pub(crate) struct Numbered {
    pub(crate) data: Vec<(i64, Envelope)>,
    /// The number up to which the feed was gone through.
    pub(crate) until: i64,
    pub(crate) has_more: bool,
}

/// The feed's last number; 0 for none.
pub(crate) async fn last_number(tx: &mut PgConnection, merchant: MerchantId) -> Result<i64, Error> {
    Ok(store::last_number(tx, merchant).await?)
}

/// Reads the feed on from a number.
pub(crate) async fn read_numbered(
    tx: &mut PgConnection,
    actor: &Actor,
    keyring: &Keyring,
    request: &PageRequest<i64>,
) -> Result<Numbered, Error> {
    actor.access.require(Scope::EventsRead)?;
    let merchant = actor.merchant;
    // The last number is read before what follows the cursor: an event that is relayed between the two is then no sign of a hole. And whatever
    // has a number up to this one was committed with it, or earlier, so all of it shows below.
    let last = store::last_number(&mut *tx, merchant).await?;
    let oldest = store::first_number_after(&mut *tx, merchant, request.after.unwrap_or(0)).await?;
    let after = match request.after {
        // A hole after the cursor is what retention has dropped.
        Some(after) if oldest.map_or(last > after, |oldest| oldest > after.saturating_add(1)) => {
            return Err(Error::FeedExpired);
        }
        Some(after) => after,
        // Whoever begins does so where something is kept.
        None => oldest.map_or(last, |oldest| oldest.saturating_sub(1)),
    };
    let until = after
        .saturating_add(SCANNED_NUMBERS_MAX)
        .min(last)
        .max(after);
    let about_endpoints = endpoint::store::visible_ids(&mut *tx, Visible::to(actor)).await?;
    let filter = store::Filter {
        scopes: Scope::ALL
            .iter()
            .filter(|scope| actor.access.scopes.allows(**scope))
            .map(|scope| scope.name())
            .collect(),
        locations: actor.access.location_uuids(),
        about_endpoints,
    };
    let mut rows = store::numbers(
        &mut *tx,
        merchant,
        after,
        until,
        request.fetch_count(),
        &filter,
    )
    .await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let is_full = rows.len() > limit;
    rows.truncate(limit);
    let read_until = rows
        .last()
        .filter(|_| is_full)
        .map_or(until, |(_, number)| *number);
    let ids: Vec<_> = rows.iter().map(|(id, _)| *id).collect();
    let mut events = event::select(&mut *tx, &[merchant], &ids).await?;
    let receiver = Receiver(Some(actor.access.clone()));
    let wanted = events
        .values()
        .filter(|event| receiver.wants_personal(event));
    let personal = event::select_personal(&mut *tx, keyring, merchant, wanted).await?;
    let mut data = Vec::with_capacity(rows.len());
    for (id, number) in &rows {
        let Some(event) = events.remove(id) else {
            continue;
        };
        let shown = event::envelope(&event, merchant, None, &receiver, personal.get(id))?;
        data.push((*number, shown));
    }
    Ok(Numbered {
        data,
        until: read_until,
        has_more: is_full || until < last,
    })
}
