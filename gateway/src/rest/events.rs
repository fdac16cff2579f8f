//! `/v1/events`: the merchant's whole feed.

use axum::extract::State;
use utoipa_axum::{router::OpenApiRouter, routes};
use webhooks::feed::{self, FeedPage};

use super::{Services, parameters::PageParameters};
use crate::edge::{Authenticated, Paging, extract::NoFilters, fault::Fault};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new().routes(routes!(list_events))
}

/// Read the merchant's feed
///
/// Every event that this token may see, in the order of the feed. Keep `nextCursor` and ask again with it: also the last page has one. One
/// request goes through the feed only so far, so a page may have fewer events than `limit`, or none: only `hasMore` says whether it was the last.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "listEvents", tag = "Events",
    params(PageParameters),
    responses((status = 200, description = "Events after the cursor.", body = FeedPage)),
    extensions(("x-problem-types" = json!(["events_expired"]))),
    security(("oauth" = ["events:read"])),
)]
async fn list_events(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging {
        page,
        filters: NoFilters {},
    }: Paging<i64, NoFilters>,
) -> Result<axum::Json<FeedPage>, Fault> {
    let mut tx = services.enter(&actor).await?;
    Ok(axum::Json(
        feed::read(&mut tx, &actor, &services.keyring, &page).await?,
    ))
}
