//! The audit log's statements.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use sqlx::PgConnection;

use super::{AuditEntry, Filter, Log, NewEntry, Outcome};
use crate::{
    caller::Caller,
    clock::Timestamp,
    db::Error,
    id::{AppId, AuditEntryId, MerchantId, PersonId, RequestId},
};

/// The merchant under which the installation's own entries lie.
const fn merchant_of(log: Log) -> MerchantId {
    match log {
        Log::Installation => MerchantId::from_uuid(uuid::Uuid::nil()),
        Log::Merchant(merchant) => merchant,
    }
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    log: Log,
    id: AuditEntryId,
    caller: &Caller,
    now: Timestamp,
    entry: &NewEntry,
) -> Result<(), Error> {
    let (target_type, target_id) = entry
        .target
        .as_ref()
        .map_or((None, None), |(kind, id)| (Some(*kind), Some(id.as_str())));
    sqlx::query!(
        "insert into audit_entries
            (merchant_id, id, occurred_at, action, outcome, person_id, app_id, target_type, target_id, details, address, user_agent, request_id)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        merchant_of(log) as MerchantId,
        id as AuditEntryId,
        now as Timestamp,
        entry.action,
        entry.outcome as Outcome,
        entry.person as Option<PersonId>,
        entry.app as Option<AppId>,
        target_type,
        target_id,
        entry.details,
        caller.address.map(|address| address.to_string()),
        caller.user_agent,
        caller.request as RequestId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// From `before` on backwards. Ids are made by clocks that differ by little: entries of one moment may change places, none is lost.
pub(super) async fn select(
    tx: &mut PgConnection,
    log: Log,
    filter: &Filter,
    before: Option<AuditEntryId>,
    limit: i64,
) -> Result<Vec<AuditEntry>, Error> {
    let entries = sqlx::query_as!(
        AuditEntry,
        r#"select
            id as "id: AuditEntryId",
            occurred_at as "occurred_at: Timestamp",
            action,
            outcome as "outcome: Outcome",
            person_id as "person_id: PersonId",
            app_id as "app_id: AppId",
            target_type,
            target_id,
            details,
            address,
            user_agent,
            request_id as "request_id: RequestId"
        from audit_entries
        where merchant_id = $1
            and ($2::uuid is null or id < $2)
            and ($3::uuid is null or person_id = $3)
            and ($4::uuid is null or app_id = $4)
        order by id desc
        limit $5"#,
        merchant_of(log) as MerchantId,
        before as Option<AuditEntryId>,
        filter.person as Option<PersonId>,
        filter.app as Option<AppId>,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(entries)
}
