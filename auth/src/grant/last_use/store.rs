//! The statement that writes when grants were last used.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::{Database, Error},
    id::GrantId,
};

/// Writes `uses` where they are later than what is written. A transaction of its own.
pub(super) async fn upsert(
    database: &Database,
    uses: &[(GrantId, Timestamp)],
) -> Result<(), Error> {
    let (grants, hours): (Vec<GrantId>, Vec<Timestamp>) = uses.iter().copied().unzip();
    let mut tx = database.begin().await?;
    sqlx::query!(
        "insert into grant_uses (grant_id, last_used_at)
        select uses.grant_id, uses.at
        from unnest($1::uuid[], $2::timestamptz[]) with ordinality as uses (grant_id, at, place)
        join grants on grants.id = uses.grant_id
        order by uses.place
        on conflict (grant_id) do update
        set last_used_at = excluded.last_used_at
        where grant_uses.last_used_at < excluded.last_used_at",
        &grants as &[GrantId],
        &hours as &[Timestamp],
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}
