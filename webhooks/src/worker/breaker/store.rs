//! What the table of lanes knows of breakers while their lanes are owned. What it knows of the others is written as they are let go.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::db::{Database, Error};

use crate::{
    delivery::{Lease, OwnerId},
    endpoint::EndpointId,
};

/// Notes that the breakers of these lanes have closed, of those that the owner still has. Rows are locked in the order of endpoints, as by everybody.
pub(in crate::worker) async fn close(
    database: &Database,
    owner: OwnerId,
    leases: &[Lease],
) -> Result<(), Error> {
    let endpoints: Vec<EndpointId> = leases.iter().map(|lease| lease.endpoint).collect();
    let fences: Vec<i64> = leases.iter().map(|lease| lease.fence).collect();
    let mut tx = database.begin().await?;
    sqlx::query!(
        "with closed as (
            select lanes.endpoint_id
            from lanes
            join unnest($2::uuid[], $3::bigint[]) as seen (endpoint_id, fence)
                on seen.endpoint_id = lanes.endpoint_id
                and seen.fence = lanes.fence
            where lanes.owner = $1
            order by lanes.endpoint_id
            for no key update of lanes
        )
        update lanes
        set breaker_count = 0,
            rest_until = null
        from closed
        where lanes.endpoint_id = closed.endpoint_id",
        owner as OwnerId,
        &endpoints as &[EndpointId],
        &fences,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}
