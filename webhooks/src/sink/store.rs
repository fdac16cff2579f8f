//! The statements of sinks.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{EventId, LocationId, MerchantId, RequestId},
};
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Json};

use super::{Bounds, Entry};
use crate::{
    delivery::OwnerId,
    event::{Event, Resource},
};

/// A position's row, and who works on it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) merchant: MerchantId,
    pub(super) sink: &'a str,
    pub(super) owner: OwnerId,
}

/// Takes the row for a while, and gives its position; `None` if another process has it.
pub(super) async fn lease(
    tx: &mut PgConnection,
    row: Row<'_>,
    now: Timestamp,
    until: Timestamp,
) -> Result<Option<i64>, Error> {
    let position = sqlx::query_scalar!(
        "insert into sink_positions (merchant_id, sink, position, owner, lease_until, updated_at)
        values ($1, $2, 0, $3, $4, $5)
        on conflict (merchant_id, sink) do update
        set owner = excluded.owner,
            lease_until = excluded.lease_until
        where sink_positions.owner is null
            or sink_positions.owner = excluded.owner
            or sink_positions.lease_until < excluded.updated_at
        returning position",
        row.merchant as MerchantId,
        row.sink,
        row.owner as OwnerId,
        until as Timestamp,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(position)
}

/// Gives the row back.
pub(super) async fn release(tx: &mut PgConnection, row: Row<'_>) -> Result<(), Error> {
    sqlx::query!(
        "update sink_positions
        set owner = null,
            lease_until = null
        where merchant_id = $1
            and sink = $2
            and owner = $3",
        row.merchant as MerchantId,
        row.sink,
        row.owner as OwnerId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves the position from one number to another and gives the row back. Says whether it was still there, and ours.
pub(super) async fn advance(
    tx: &mut PgConnection,
    row: Row<'_>,
    from: i64,
    to: i64,
    now: Timestamp,
) -> Result<bool, Error> {
    let advanced = sqlx::query!(
        "update sink_positions
        set position = $5,
            owner = null,
            lease_until = null,
            updated_at = $6
        where merchant_id = $1
            and sink = $2
            and owner = $3
            and position = $4",
        row.merchant as MerchantId,
        row.sink,
        row.owner as OwnerId,
        from,
        to,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(advanced.rows_affected() == 1)
}

/// The events of the merchant's feed after a number, as many as a batch takes, and one at least. Without their personal parts.
pub(super) async fn batch(
    tx: &mut PgConnection,
    merchant: MerchantId,
    after: i64,
    bounds: Bounds,
) -> Result<Vec<Entry>, Error> {
    let rows = sqlx::query!(
        r#"select
            id as "id!: EventId",
            feed_number as "feed_number!",
            type as "kind!",
            resource_type as "resource_type!",
            resource_id as "resource_id!",
            resource_version as "resource_version!",
            scope as "scope!",
            locations as "locations!: Vec<LocationId>",
            data as "data!: Json<Box<RawValue>>",
            request_id as "request_id: RequestId",
            occurred_at as "occurred_at!: Timestamp"
        from (
            select
                next.*,
                sum(octet_length(data::text)) over (order by feed_number rows between unbounded preceding and 1 preceding) as bytes_before
            from (
                select id, feed_number, type, resource_type, resource_id, resource_version, scope, locations, data, request_id, occurred_at
                from events
                where merchant_id = $1
                    and feed_number > $2
                order by feed_number
                limit $3
            ) as next
        ) as measured
        where coalesce(bytes_before, 0) < $4
        order by feed_number"#,
        merchant as MerchantId,
        after,
        i64::try_from(bounds.events).unwrap_or(i64::MAX),
        i64::try_from(bounds.bytes).unwrap_or(i64::MAX),
    )
    .fetch_all(tx)
    .await?;
    let entries = rows.into_iter().map(|row| Entry {
        number: row.feed_number,
        event: Event {
            id: row.id,
            kind: row.kind,
            resource: Resource {
                kind: row.resource_type,
                id: row.resource_id,
                version: row.resource_version,
            },
            scope: row.scope,
            locations: row.locations,
            data: row.data.0,
            request: row.request_id,
            occurred_at: row.occurred_at,
            personal: None,
        },
    });
    Ok(entries.collect())
}

/// The next feeds in the order of merchants, with their last numbers.
pub(super) async fn feeds(
    tx: &mut PgConnection,
    after: Option<MerchantId>,
    limit: i64,
) -> Result<Vec<(MerchantId, i64)>, Error> {
    let rows = sqlx::query!(
        r#"select
            merchant_id as "merchant: MerchantId",
            last_number
        from feeds
        where merchant_id > coalesce($1, '00000000-0000-0000-0000-000000000000'::uuid)
        order by merchant_id
        limit $2"#,
        after as Option<MerchantId>,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.merchant, row.last_number))
        .collect())
}

/// The positions of a sink for some merchants.
pub(super) async fn positions(
    tx: &mut PgConnection,
    sink: &str,
    merchants: &[MerchantId],
) -> Result<HashMap<MerchantId, i64>, Error> {
    let rows = sqlx::query!(
        r#"select
            merchant_id as "merchant: MerchantId",
            position
        from sink_positions
        where merchant_id = any($2)
            and sink = $1"#,
        sink,
        merchants as &[MerchantId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.merchant, row.position))
        .collect())
}
