//! The statement that claims what is to be announced.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, GrantId, LocationId, MerchantId},
};
use sqlx::PgConnection;

use super::NOTICE;
use crate::grant::{Grant, store::Row};

/// Marks grants whose end is near at `now` as announced, and hands them over. What another worker is about to claim is left to it; a grant that is
/// being changed waits for the next time. A grant's time runs from its last change, which set or kept its end.
pub(super) async fn claim(
    tx: &mut PgConnection,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Grant>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"with due as (
            select id
            from grants
            where expires_at > $1
                and expires_at <= $2
                and revoked_at is null
                and expiring_announced_for is distinct from expires_at
                and (expires_at - changed_at >= $2 - $1 or expires_at - (expires_at - changed_at) / 4 <= $1)
            order by expires_at
            limit $3
            for update skip locked
        )
        update grants
        set expiring_announced_for = grants.expires_at
        from due
        where grants.id = due.id
        returning
            grants.id as "id: GrantId",
            grants.merchant_id as "merchant_id: MerchantId",
            grants.app_id as "app_id: AppId",
            grants.scopes,
            grants.locations as "locations: Vec<LocationId>",
            grants.personal_data,
            grants.expires_at as "expires_at: Timestamp",
            grants.revoked_at as "revoked_at: Timestamp",
            grants.epoch,
            grants.version,
            grants.created_at as "created_at: Timestamp",
            grants.changed_at as "changed_at: Timestamp""#,
        now as Timestamp,
        now.plus(NOTICE) as Timestamp,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(Grant::from).collect())
}
