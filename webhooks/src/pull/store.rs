//! The statements of leases.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, DataSubjectId, EventId, MerchantId},
};
use sqlx::{PgConnection, types::Json};

use super::{Candidate, Held, LeaseId, Reading, Taken};
use crate::{
    dead_letter::DeadLetterId,
    endpoint::{EndpointId, Visible, settings::Settings},
    event::Event,
    retry::DeadLetterReason,
    stream,
};

pub(super) async fn reading(
    tx: &mut PgConnection,
    visible: Visible,
    id: EndpointId,
) -> Result<Option<Reading>, Error> {
    let row = sqlx::query!(
        r#"select
            url is not null as "is_pushed!",
            status,
            version,
            settings as "settings: Json<Settings>"
        from endpoints
        where merchant_id = $1
            and id = $2
            and ($3::uuid is null or app_id = $3)"#,
        visible.merchant as MerchantId,
        id as EndpointId,
        visible.app as Option<AppId>,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| {
        let Json(settings) = row.settings;
        let waits = settings.delivery.retry_waits_seconds.as_ref();
        Reading {
            is_pushed: row.is_pushed,
            is_disabled: row.status == "disabled",
            version: row.version,
            pull: settings.pull,
            form: stream::form(&settings),
            attempts_max: waits.map(|waits| {
                u32::try_from(waits.len())
                    .unwrap_or(u32::MAX)
                    .saturating_add(1)
            }),
        }
    }))
}

/// What is due, locked; what somebody else is at work on is passed over. A row whose resource is held back by an earlier one is not due.
pub(super) async fn due(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    priority: i16,
    now: Timestamp,
    count: i64,
) -> Result<Vec<Candidate>, Error> {
    let rows = sqlx::query_as!(
        Candidate,
        r#"select
            sequence,
            attempt_count,
            data_bytes::bigint as "data_bytes!"
        from deliveries as candidate
        where merchant_id = $1
            and endpoint_id = $2
            and priority = $3
            and due_at <= $4
            and (
                resource_key is null
                or not exists (
                    select
                    from deliveries as earlier
                    where earlier.merchant_id = $1
                        and earlier.endpoint_id = $2
                        and earlier.resource_key = candidate.resource_key
                        and earlier.sequence < candidate.sequence
                )
            )
        order by due_at, sequence
        limit $5
        for update skip locked"#,
        merchant as MerchantId,
        id as EndpointId,
        priority,
        now as Timestamp,
        count,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// When something will be due that is not due now.
pub(super) async fn next_due_at(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let mut next = None;
    // Each priority has its own range of the index.
    for priority in [0_i16, 1] {
        let due_at = sqlx::query_scalar!(
            r#"select due_at as "due_at: Timestamp"
            from deliveries
            where merchant_id = $1
                and endpoint_id = $2
                and priority = $3
                and due_at > $4
            order by due_at
            limit 1"#,
            merchant as MerchantId,
            id as EndpointId,
            priority,
            now as Timestamp,
        )
        .fetch_optional(&mut *tx)
        .await?;
        next = [next, due_at].into_iter().flatten().min();
    }
    Ok(next)
}

pub(super) async fn lease(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    sequences: &[i64],
    taken: &Taken,
) -> Result<(), Error> {
    sqlx::query!(
        "update deliveries
        set lease_id = $4,
            due_at = $5,
            attempt_count = attempt_count + 1
        where merchant_id = $1
            and endpoint_id = $2
            and sequence = any($3)",
        merchant as MerchantId,
        id as EndpointId,
        sequences,
        taken.lease_id as LeaseId,
        taken.expires_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What a lease holds, in the order of sequences; nothing once it is over.
pub(super) async fn held(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    lease: LeaseId,
    now: Timestamp,
) -> Result<Vec<Held>, Error> {
    let rows = sqlx::query_as!(
        Held,
        r#"select
            sequence,
            event_id as "event: EventId",
            attempt_count as attempt
        from deliveries
        where merchant_id = $1
            and endpoint_id = $2
            and lease_id = $3
            and due_at > $4
        order by sequence"#,
        merchant as MerchantId,
        id as EndpointId,
        lease as LeaseId,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// Takes what a lease holds off the queue, and gives it; nothing once it is over.
pub(super) async fn remove(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    lease: LeaseId,
    sequences: Option<&[i64]>,
    now: Timestamp,
) -> Result<Vec<Held>, Error> {
    let removed = sqlx::query_as!(
        Held,
        r#"delete from deliveries
        where merchant_id = $1
            and endpoint_id = $2
            and lease_id = $3
            and due_at > $4
            and ($5::bigint[] is null or sequence = any($5))
        returning sequence, event_id as "event: EventId", attempt_count as attempt"#,
        merchant as MerchantId,
        id as EndpointId,
        lease as LeaseId,
        now as Timestamp,
        sequences,
    )
    .fetch_all(tx)
    .await?;
    Ok(removed)
}

/// Makes what a lease holds due at another time, and gives the sequences; nothing once it is over.
pub(super) async fn release(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    lease: LeaseId,
    sequences: Option<&[i64]>,
    now: Timestamp,
    due_at: Timestamp,
) -> Result<Vec<i64>, Error> {
    let released = sqlx::query_scalar!(
        "update deliveries
        set lease_id = null,
            due_at = $6
        where merchant_id = $1
            and endpoint_id = $2
            and lease_id = $3
            and due_at > $4
            and ($5::bigint[] is null or sequence = any($5))
        returning sequence",
        merchant as MerchantId,
        id as EndpointId,
        lease as LeaseId,
        now as Timestamp,
        sequences,
        due_at as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(released)
}

/// Takes those of `sequences` off the queue that are due and were leased as often as they may be.
pub(super) async fn take_exhausted(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    sequences: &[i64],
    attempts_max: i32,
    now: Timestamp,
) -> Result<Vec<(i64, EventId)>, Error> {
    let rows = sqlx::query!(
        r#"delete from deliveries
        where merchant_id = $1
            and endpoint_id = $2
            and sequence = any($3)
            and attempt_count >= $4
            and due_at <= $5
        returning sequence, event_id as "event: EventId""#,
        merchant as MerchantId,
        id as EndpointId,
        sequences,
        attempts_max,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.sequence, row.event))
        .collect())
}

/// Puts events that were given up on with the dead letters. There are no attempts to copy: nothing was sent.
pub(super) async fn bury(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    buried: &[(DeadLetterId, i64, &Event)],
    reason: DeadLetterReason,
    now: Timestamp,
) -> Result<(), Error> {
    for (letter, sequence, event) in buried {
        let personal = event.personal.as_ref();
        sqlx::query!(
            "insert into dead_letters
                (merchant_id, id, endpoint_id, sequence, event_id, reason, event, subject_id, personal, attempts, created_at, replayed_at)
            values ($1, $2, $3, $4, $5, $6, $7, $8, $9, '[]', $10, null)",
            merchant as MerchantId,
            *letter as DeadLetterId,
            id as EndpointId,
            sequence,
            event.id as EventId,
            reason.as_str(),
            Json(*event) as Json<&Event>,
            personal.map(|sealed| sealed.subject) as Option<DataSubjectId>,
            personal.map(|sealed| sealed.bytes.as_slice()),
            now as Timestamp,
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
