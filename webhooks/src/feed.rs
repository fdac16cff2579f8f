//! The merchant's feed: every event that the actor may see, in the order in which they were relayed.
//!
//! The relay numbers it under a lock, so a number that shows is preceded by all smaller ones: reading on from a cursor misses nothing. The
//! numbers themselves are not shown, because their holes would tell how much happens that is none of the reader's business.

use kernel::{
    actor::Actor,
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

/// Some events of the feed.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeedPage {
    /// The events, oldest first.
    pub data: Vec<Envelope>,
    /// What to send as `cursor` for the events after these; also on the last page, because a feed goes on.
    pub next_cursor: String,
    /// Whether there is more already.
    pub has_more: bool,
}

/// Reads the feed on from a cursor.
pub async fn read(
    tx: &mut PgConnection,
    actor: &Actor,
    keyring: &Keyring,
    request: &PageRequest<i64>,
) -> Result<FeedPage, Error> {
    actor.access.require(Scope::EventsRead)?;
    let merchant = actor.merchant;
    if let Some(after) = request.after {
        // The last number is read before what follows the cursor: an event that is relayed between the two is then no sign of a hole.
        let last = store::last_number(&mut *tx, merchant).await?;
        let oldest = store::first_number_after(&mut *tx, merchant, after).await?;
        let next = after.saturating_add(1);
        // A hole after the cursor is what retention has dropped.
        if oldest.map_or(last > after, |oldest| oldest > next) {
            return Err(Error::FeedExpired);
        }
    }
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
        request.after.unwrap_or(0),
        request.fetch_count(),
        &filter,
    )
    .await?;
    let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let ids: Vec<_> = rows.iter().map(|(id, _)| *id).collect();
    let mut events = event::select(&mut *tx, &[merchant], &ids).await?;
    let receiver = Receiver(Some(actor.access.clone()));
    let wanted = events
        .values()
        .filter(|event| receiver.wants_personal(event));
    let personal = event::select_personal(&mut *tx, keyring, merchant, wanted).await?;
    let mut data = Vec::with_capacity(rows.len());
    for (id, _) in &rows {
        let Some(event) = events.remove(id) else {
            continue;
        };
        data.push(event::envelope(
            &event,
            merchant,
            None,
            &receiver,
            personal.get(id),
        )?);
    }
    let last = rows
        .last()
        .map_or(request.after.unwrap_or(0), |(_, number)| *number);
    Ok(FeedPage {
        data,
        next_cursor: page::encode(&last),
        has_more,
    })
}
