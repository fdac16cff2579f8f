//! The statements that read the feed.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    db::Error,
    id::{EventId, MerchantId},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::event::{ENDPOINT_RESOURCE, TEST};

/// What of the feed an actor may see.
pub(super) struct Filter {
    pub(super) scopes: Vec<&'static str>,
    /// `None`: all.
    pub(super) locations: Option<Vec<Uuid>>,
    /// The endpoints about which events may be seen.
    pub(super) about_endpoints: Vec<String>,
}

/// Events with numbers beyond `after` up to `until`, the first `count` of those that may be seen. Test events are for their endpoints alone.
pub(super) async fn numbers(
    tx: &mut PgConnection,
    merchant: MerchantId,
    after: i64,
    until: i64,
    count: i64,
    filter: &Filter,
) -> Result<Vec<(EventId, i64)>, Error> {
    let rows = sqlx::query!(
        r#"select id as "id: EventId", feed_number
        from events
        where merchant_id = $1
            and feed_number > $2
            and feed_number <= $3
            and scope = any($5)
            and ($6::uuid[] is null or locations = '{}' or locations && $6)
            and (resource_type <> $7 or resource_id = any($8))
            and type <> $9
        order by feed_number
        limit $4"#,
        merchant as MerchantId,
        after,
        until,
        count,
        &filter.scopes as &[&str],
        filter.locations.as_deref(),
        ENDPOINT_RESOURCE,
        &filter.about_endpoints,
        TEST,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, row.feed_number))
        .collect())
}

/// The smallest number beyond `after` that is still kept.
pub(super) async fn first_number_after(
    tx: &mut PgConnection,
    merchant: MerchantId,
    after: i64,
) -> Result<Option<i64>, Error> {
    let number = sqlx::query_scalar!(
        "select feed_number
        from events
        where merchant_id = $1
            and feed_number > $2
        order by feed_number
        limit 1",
        merchant as MerchantId,
        after,
    )
    .fetch_optional(tx)
    .await?;
    Ok(number)
}

pub(super) async fn last_number(tx: &mut PgConnection, merchant: MerchantId) -> Result<i64, Error> {
    let number = sqlx::query_scalar!(
        "select last_number
        from feeds
        where merchant_id = $1",
        merchant as MerchantId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(number.unwrap_or(0))
}
