//! The statements of fulfilments.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{LocationId, MerchantId},
    version::Version,
};
use sqlx::{PgConnection, types::Json};

use super::{Fulfillment, FulfillmentId, FulfillmentLine, FulfillmentStatus};
use crate::order::OrderId;

struct Row {
    id: FulfillmentId,
    order_id: OrderId,
    location_id: LocationId,
    status: FulfillmentStatus,
    carrier: Option<String>,
    tracking_number: Option<String>,
    tracking_url: Option<String>,
    lines: Json<Vec<FulfillmentLine>>,
    version: Version,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Row> for Fulfillment {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            order_id: row.order_id,
            location_id: row.location_id,
            status: row.status,
            carrier: row.carrier,
            tracking_number: row.tracking_number,
            tracking_url: row.tracking_url,
            lines: row.lines.0,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl FulfillmentStatus {
    const fn name(self) -> &'static str {
        match self {
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    fulfillments: &[Fulfillment],
) -> Result<(), Error> {
    let ids: Vec<FulfillmentId> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.id)
        .collect();
    let orders: Vec<OrderId> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.order_id)
        .collect();
    let locations: Vec<LocationId> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.location_id)
        .collect();
    let statuses: Vec<&str> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.status.name())
        .collect();
    let carriers: Vec<Option<&str>> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.carrier.as_deref())
        .collect();
    let numbers: Vec<Option<&str>> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.tracking_number.as_deref())
        .collect();
    let urls: Vec<Option<&str>> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.tracking_url.as_deref())
        .collect();
    let lines: Vec<Json<&[FulfillmentLine]>> = fulfillments
        .iter()
        .map(|fulfillment| Json(fulfillment.lines.as_slice()))
        .collect();
    let versions: Vec<i64> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.version.number())
        .collect();
    let times: Vec<Timestamp> = fulfillments
        .iter()
        .map(|fulfillment| fulfillment.created_at)
        .collect();
    sqlx::query!(
        "insert into fulfillments
            (merchant_id, id, order_id, location_id, status, carrier, tracking_number, tracking_url, lines, version, created_at, updated_at)
        select $1, id, order_id, location_id, status, carrier, tracking_number, tracking_url, lines, version, created_at, created_at
        from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::bigint[],
                $11::timestamptz[])
            as fulfillment
                (id, order_id, location_id, status, carrier, tracking_number, tracking_url, lines, version, created_at)
        on conflict (merchant_id, id) do nothing",
        merchant as MerchantId,
        &ids as &[FulfillmentId],
        &orders as &[OrderId],
        &locations as &[LocationId],
        &statuses as &[&str],
        &carriers as &[Option<&str>],
        &numbers as &[Option<&str>],
        &urls as &[Option<&str>],
        &lines as &[Json<&[FulfillmentLine]>],
        &versions,
        &times as &[Timestamp],
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn lock(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: FulfillmentId,
) -> Result<Option<Fulfillment>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: FulfillmentId", order_id as "order_id: OrderId", location_id as "location_id: LocationId",
            status as "status: FulfillmentStatus", carrier, tracking_number, tracking_url,
            lines as "lines: Json<Vec<FulfillmentLine>>", version as "version: Version",
            created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from fulfillments
        where merchant_id = $1
            and id = $2
        for update"#,
        merchant as MerchantId,
        id as FulfillmentId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Fulfillment::from))
}

pub(super) async fn update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    fulfillment: &Fulfillment,
) -> Result<(), Error> {
    sqlx::query!(
        "update fulfillments
        set carrier = $3, tracking_number = $4, tracking_url = $5, version = $6, updated_at = $7
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        fulfillment.id as FulfillmentId,
        fulfillment.carrier,
        fulfillment.tracking_number,
        fulfillment.tracking_url,
        fulfillment.version as Version,
        fulfillment.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: FulfillmentId,
) -> Result<Option<Fulfillment>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: FulfillmentId", order_id as "order_id: OrderId", location_id as "location_id: LocationId",
            status as "status: FulfillmentStatus", carrier, tracking_number, tracking_url,
            lines as "lines: Json<Vec<FulfillmentLine>>", version as "version: Version",
            created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from fulfillments
        where merchant_id = $1
            and id = $2"#,
        merchant as MerchantId,
        id as FulfillmentId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Fulfillment::from))
}

pub(super) async fn select_of_orders(
    tx: &mut PgConnection,
    merchant: MerchantId,
    orders: &[OrderId],
) -> Result<Vec<Fulfillment>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: FulfillmentId", order_id as "order_id: OrderId", location_id as "location_id: LocationId",
            status as "status: FulfillmentStatus", carrier, tracking_number, tracking_url,
            lines as "lines: Json<Vec<FulfillmentLine>>", version as "version: Version",
            created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from fulfillments
        where merchant_id = $1
            and order_id = any($2)
        order by order_id, created_at, id"#,
        merchant as MerchantId,
        orders as &[OrderId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(Fulfillment::from).collect())
}
