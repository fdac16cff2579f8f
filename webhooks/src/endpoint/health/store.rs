//! The statements of endpoints' health.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::MerchantId};
use sqlx::PgConnection;

use super::{FailedAttempt, Hour};
use crate::{delivery::AttemptId, endpoint::EndpointId};

/// What the worker has noted.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) failing_since: Option<Timestamp>,
    pub(super) last_success_at: Option<Timestamp>,
}

pub(super) async fn noted(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
) -> Result<Noted, Error> {
    let noted = sqlx::query_as!(
        Noted,
        r#"select
            failing_since as "failing_since: Timestamp",
            last_success_at as "last_success_at: Timestamp"
        from endpoint_health
        where merchant_id = $1
            and endpoint_id = $2"#,
        merchant as MerchantId,
        endpoint as EndpointId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(noted.unwrap_or_default())
}

/// The counts of the hours that begin after `since`.
pub(super) async fn hours(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    since: Timestamp,
) -> Result<Vec<Hour>, Error> {
    let rows = sqlx::query!(
        "select succeeded, failed, duration_counts
        from endpoint_hours
        where merchant_id = $1
            and endpoint_id = $2
            and hour > $3",
        merchant as MerchantId,
        endpoint as EndpointId,
        since as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    let count = |count: i64| {
        u64::try_from(count).map_err(|error| Error::corrupt("endpoint_hours", endpoint, error))
    };
    let hours = rows.into_iter().map(|row| {
        Ok(Hour {
            succeeded: count(row.succeeded)?,
            failed: count(row.failed)?,
            durations: row
                .duration_counts
                .into_iter()
                .map(count)
                .collect::<Result<_, _>>()?,
        })
    });
    hours.collect()
}

/// The newest failed attempts since then, by the index that holds nothing else.
pub(super) async fn last_errors(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    since: Timestamp,
    limit: i64,
) -> Result<Vec<FailedAttempt>, Error> {
    let rows = sqlx::query_as!(
        FailedAttempt,
        r#"select
            sequence,
            started_at as "started_at: Timestamp",
            duration_ms,
            status,
            error
        from attempts
        where merchant_id = $1
            and endpoint_id = $2
            and id >= $3
            and (status is null or status not between 200 and 299)
        order by id desc
        limit $4"#,
        merchant as MerchantId,
        endpoint as EndpointId,
        AttemptId::least(since) as AttemptId,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// Since when the oldest due delivery is due: the first of each priority by the index that hands out turns, which is asked once for each.
pub(super) async fn oldest_due(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let mut oldest: Option<Timestamp> = None;
    for priority in [0_i16, 1] {
        let due = sqlx::query_scalar!(
            r#"select due_at as "due_at: Timestamp"
            from deliveries
            where merchant_id = $1
                and endpoint_id = $2
                and priority = $3
                and due_at <= $4
            order by due_at
            limit 1"#,
            merchant as MerchantId,
            endpoint as EndpointId,
            priority,
            now as Timestamp,
        )
        .fetch_optional(&mut *tx)
        .await?;
        oldest = match (oldest, due) {
            (Some(oldest), Some(due)) => Some(oldest.min(due)),
            (oldest, due) => oldest.or(due),
        };
    }
    Ok(oldest)
}

/// Holds how an endpoint fares against a change until the end of the transaction. Before the endpoint is locked: who settles what came of attempts does so
/// in that order.
pub(crate) async fn hold(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
) -> Result<(), Error> {
    sqlx::query_scalar!(
        "select failure_count
        from endpoint_health
        where merchant_id = $1
            and endpoint_id = $2
        for update",
        merchant as MerchantId,
        endpoint as EndpointId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

/// Forgets that an endpoint was failing: it is enabled again or goes elsewhere, and nothing has come of that yet.
pub(crate) async fn forget_failing(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoint_health
        set failing_since = null,
            failure_count = 0,
            warned_at = null
        where merchant_id = $1
            and endpoint_id = $2
            and failing_since is not null",
        merchant as MerchantId,
        endpoint as EndpointId,
    )
    .execute(tx)
    .await?;
    Ok(())
}
