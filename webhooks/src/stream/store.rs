//! The statements that read streams.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    db::Error,
    id::{EventId, MerchantId},
};
use sqlx::PgConnection;

use crate::endpoint::EndpointId;

pub(super) async fn last_sequence(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
) -> Result<i64, Error> {
    let last_sequence = sqlx::query_scalar!(
        "select last_sequence
        from endpoint_cursors
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        endpoint as EndpointId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(last_sequence.unwrap_or(0))
}

pub(super) async fn entries(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    after: i64,
    limit: i64,
) -> Result<Vec<(EventId, i64)>, Error> {
    let rows = sqlx::query!(
        r#"select event_id as "event: EventId", sequence
        from streams
        where merchant_id = $1
            and endpoint_id = $2
            and sequence > $3
        order by sequence
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        after,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.event, row.sequence))
        .collect())
}
