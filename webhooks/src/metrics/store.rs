//! The statements of the sampler. None of them counts a table: each touches a bounded number of rows, whatever waits.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::MerchantId};
use sqlx::PgConnection;

use crate::endpoint::EndpointId;

/// Lanes that are looked into: those that have been due longest. More than these are due only where the lag is seen anyway.
const LANES_MAX: i64 = 500;

/// Breakers that are counted at most.
const BREAKERS_MAX: i64 = 10_000;

/// Replays that are counted at most.
const REPLAYS_MAX: i64 = 10_000;

/// A lane that is looked into.
pub(super) struct Lane {
    endpoint: EndpointId,
    merchant: MerchantId,
}

/// Lanes that are due and whose breaker is closed, those that have been due longest.
pub(super) async fn due_lanes(tx: &mut PgConnection, now: Timestamp) -> Result<Vec<Lane>, Error> {
    let lanes = sqlx::query_as!(
        Lane,
        r#"select endpoint_id as "endpoint: EndpointId", merchant_id as "merchant: MerchantId"
        from lanes
        where due_at <= $1
            and breaker_count = 0
        order by due_at
        limit $2"#,
        now as Timestamp,
        LANES_MAX,
    )
    .fetch_all(tx)
    .await?;
    Ok(lanes)
}

/// Lanes whose breaker is not closed, those that rest for longest. When they are due is when they are probed, and so says nothing of what waits in them.
pub(super) async fn resting_lanes(tx: &mut PgConnection) -> Result<Vec<Lane>, Error> {
    let lanes = sqlx::query_as!(
        Lane,
        r#"select endpoint_id as "endpoint: EndpointId", merchant_id as "merchant: MerchantId"
        from lanes
        where breaker_count > 0
            and due_at is not null
        order by rest_until desc
        limit $1"#,
        LANES_MAX,
    )
    .fetch_all(tx)
    .await?;
    Ok(lanes)
}

/// When the oldest due delivery of these lanes became due.
///
/// Lanes say where to look, and not how old it is: while a lane is owned, its `due_at` is what it was when it was leased.
pub(super) async fn oldest_due(
    tx: &mut PgConnection,
    lanes: &[Lane],
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    if lanes.is_empty() {
        return Ok(None);
    }
    let merchants: Vec<MerchantId> = lanes.iter().map(|lane| lane.merchant).collect();
    let endpoints: Vec<EndpointId> = lanes.iter().map(|lane| lane.endpoint).collect();
    // The first of each lane and priority by the index, rather than the minimum of all.
    let oldest = sqlx::query_scalar!(
        r#"select min(first.due_at) as "oldest: Timestamp"
        from unnest($1::uuid[], $2::uuid[]) as lane (merchant_id, endpoint_id)
        cross join unnest(array[0, 1]::smallint[]) as level (priority)
        cross join lateral (
            select due_at
            from deliveries
            where deliveries.merchant_id = any($1)
                and deliveries.merchant_id = lane.merchant_id
                and deliveries.endpoint_id = lane.endpoint_id
                and deliveries.priority = level.priority
                and deliveries.due_at <= $3
            order by deliveries.due_at
            limit 1
        ) as first"#,
        &merchants as &[MerchantId],
        &endpoints as &[EndpointId],
        now as Timestamp,
    )
    .fetch_one(tx)
    .await?;
    Ok(oldest)
}

/// Deliveries on the queue, as the statistics of PostgreSQL have them: current to about a second, and begun anew after a crash of it.
pub(super) async fn queued(tx: &mut PgConnection) -> Result<i64, Error> {
    let queued = sqlx::query_scalar!(
        r#"select greatest(n_live_tup, 0) as "queued!"
        from pg_catalog.pg_stat_user_tables
        where relid = 'deliveries'::regclass"#,
    )
    .fetch_optional(tx)
    .await?;
    Ok(queued.unwrap_or(0))
}

/// Breakers by their state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Breakers {
    pub(super) open: i64,
    pub(super) half_open: i64,
    /// Lanes in all, as the statistics of PostgreSQL have them.
    pub(super) lanes: i64,
}

/// The breakers that are not closed, of lanes that have something to send, counted up to a number; and how many lanes there are.
pub(super) async fn breakers(tx: &mut PgConnection, now: Timestamp) -> Result<Breakers, Error> {
    let breakers = sqlx::query_as!(
        Breakers,
        r#"select
            count(*) filter (where rest_until > $1) as "open!",
            count(*) filter (where rest_until is null or rest_until <= $1) as "half_open!",
            coalesce((
                select n_live_tup
                from pg_catalog.pg_stat_user_tables
                where relid = 'lanes'::regclass
            ), 0) as "lanes!"
        from (
            select rest_until
            from lanes
            where breaker_count > 0
                and due_at is not null
            limit $2
        ) as not_closed"#,
        now as Timestamp,
        BREAKERS_MAX,
    )
    .fetch_one(tx)
    .await?;
    Ok(breakers)
}

pub(super) async fn replays_running(tx: &mut PgConnection) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from (
            select 1
            from replay_hints
            limit $1
        ) as running"#,
        REPLAYS_MAX,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}
