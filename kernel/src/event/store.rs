//! The outbox's statements.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use sqlx::{Executor, PgConnection};

use super::{NewEvent, Priority, RELAY_CHANNEL};
use crate::{
    clock::Timestamp,
    db::{Database, Error},
    id::{EventId, MerchantId, RequestId},
};

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    requests: &[RequestId],
    now: Timestamp,
    events: &[NewEvent],
    priority: Priority,
) -> Result<Vec<EventId>, Error> {
    let ids: Vec<EventId> = events.iter().map(|_| EventId::new(now)).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind).collect();
    let resource_kinds: Vec<&str> = events.iter().map(|event| event.resource.kind).collect();
    let resource_ids: Vec<&str> = events
        .iter()
        .map(|event| event.resource.id.as_str())
        .collect();
    let versions: Vec<i64> = events.iter().map(|event| event.resource.version).collect();
    let scopes: Vec<&str> = events.iter().map(|event| event.scope.name()).collect();
    // Arrays of arrays do not unnest by row: each row's locations travel as an array's text.
    let locations: Vec<String> = events
        .iter()
        .map(|event| {
            let uuids: Vec<_> = event
                .locations
                .iter()
                .map(|location| location.uuid().to_string())
                .collect();
            format!("{{{}}}", uuids.join(","))
        })
        .collect();
    // As text: sqlx would bind it as jsonb, which forgets the order of the fields.
    let data: Vec<&str> = events.iter().map(|event| event.data.get()).collect();
    let subjects: Vec<Option<uuid::Uuid>> = events
        .iter()
        .map(|event| {
            event
                .personal
                .as_ref()
                .map(|personal| personal.subject.uuid())
        })
        .collect();
    let personal: Vec<Option<&[u8]>> = events
        .iter()
        .map(|event| {
            event
                .personal
                .as_ref()
                .map(|personal| personal.sealed.as_slice())
        })
        .collect();
    let traces = crate::trace::of_requests(requests);
    sqlx::query!(
        "insert into outbox
            (merchant_id, id, type, resource_type, resource_id, resource_version, scope, locations, data, subject_id, personal,
             request_id, trace_parent, occurred_at, priority)
        select $1, id, type, resource_type, resource_id, resource_version, scope, locations::uuid[], data::json, subject_id, personal, request_id,
            trace_parent, $13, $14
        from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::uuid[], $11::bytea[],
            $12::uuid[], $15::text[])
            as event
                (id, type, resource_type, resource_id, resource_version, scope, locations, data, subject_id, personal, request_id, trace_parent)
        on conflict (merchant_id, id) do nothing",
        merchant as MerchantId,
        &ids as &[EventId],
        &kinds as &[&str],
        &resource_kinds as &[&str],
        &resource_ids as &[&str],
        &versions,
        &scopes as &[&str],
        &locations,
        &data as &[&str],
        &subjects as &[Option<uuid::Uuid>],
        &personal as &[Option<&[u8]>],
        requests as &[RequestId],
        now as Timestamp,
        priority.number(),
        &traces as &[Option<String>],
    )
    .execute(tx)
    .await?;
    Ok(ids)
}

pub(super) async fn hint(
    database: &Database,
    mut announced: Vec<(MerchantId, Timestamp)>,
) -> Result<(), Error> {
    // In one order: two processes that hint at the same merchants would otherwise wait for each other.
    announced.sort_unstable();
    let (merchants, times): (Vec<MerchantId>, Vec<Timestamp>) = announced.into_iter().unzip();
    let mut tx = database.begin().await?;
    // A hint without a time, as older processes leave it, stays one: it says more.
    sqlx::query!(
        "insert into relay_hints (merchant_id, since)
        select merchant_id, since
        from unnest($1::uuid[], $2::timestamptz[]) as hint (merchant_id, since)
        on conflict (merchant_id) do update
        set since = excluded.since
        where excluded.since < relay_hints.since",
        &merchants as &[MerchantId],
        &times as &[Timestamp],
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    // A statement of its own, outside of any transaction that matters: NOTIFY serialises commits.
    let mut tx = database.begin().await?;
    tx.execute(sqlx::AssertSqlSafe(format!("notify {RELAY_CHANNEL}")))
        .await?;
    tx.commit().await?;
    Ok(())
}
