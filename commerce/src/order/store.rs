//! The statements of orders, their lines and transitions.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::{HashMap, HashSet};

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, LocationId, MerchantId, RequestId},
    money::{Currency, Money},
    page,
    version::Version,
};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{CustomerId, Order, OrderFilter, OrderId, OrderLine, OrderStatus, OrderTransition};
use crate::product::VariantId;

/// An order whose row this transaction has locked, and its personal part as the row keeps it.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) order: Order,
    pub(crate) sealed: Option<Vec<u8>>,
}

struct Row {
    id: OrderId,
    external_id: Option<String>,
    status: OrderStatus,
    currency: String,
    total_minor: i64,
    customer_id: Option<CustomerId>,
    version: Version,
    placed_at: Timestamp,
    updated_at: Timestamp,
}

struct LineRow {
    order_id: OrderId,
    line: i32,
    variant_id: VariantId,
    location_id: LocationId,
    sku: Option<String>,
    title: String,
    quantity: i32,
    fulfilled_quantity: i32,
    unit_price_minor: i64,
}

/// Keeps these external ids to this transaction until it ends, and says which of them orders have. Two statements: what is read must be read by a
/// snapshot that is younger than the locks.
pub(super) async fn lock_external_ids(
    tx: &mut PgConnection,
    merchant: MerchantId,
    external_ids: &[&str],
) -> Result<HashSet<String>, Error> {
    if external_ids.is_empty() {
        return Ok(HashSet::new());
    }
    // Sorted and each once: two groups that want the same ids wait in the same order.
    let mut locks: Vec<i64> = external_ids
        .iter()
        .map(|external_id| external_id_lock(merchant, external_id))
        .collect();
    locks.sort_unstable();
    locks.dedup();
    sqlx::query!(
        "select pg_advisory_xact_lock(wanted.lock)
        from unnest($1::bigint[]) with ordinality as wanted (lock, place)",
        &locks,
    )
    .fetch_all(&mut *tx)
    .await?;
    let taken = sqlx::query_scalar!(
        r#"select external_id as "external_id!"
        from orders
        where merchant_id = $1
            and external_id = any($2)"#,
        merchant as MerchantId,
        external_ids as &[&str],
    )
    .fetch_all(tx)
    .await?;
    Ok(taken.into_iter().collect())
}

fn external_id_lock(merchant: MerchantId, external_id: &str) -> i64 {
    let mut hash = Sha256::new();
    hash.update(b"order.external_id");
    hash.update(merchant.uuid());
    hash.update(external_id);
    let digest: [u8; 32] = hash.finalize().into();
    digest
        .first_chunk::<8>()
        .map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    orders: &[&Order],
    sealed: &[Option<Vec<u8>>],
) -> Result<(), Error> {
    let ids: Vec<OrderId> = orders.iter().map(|order| order.id).collect();
    let external_ids: Vec<Option<&str>> = orders
        .iter()
        .map(|order| order.external_id.as_deref())
        .collect();
    let statuses: Vec<&str> = orders.iter().map(|order| order.status.name()).collect();
    let currencies: Vec<&str> = orders.iter().map(|order| order.currency.as_str()).collect();
    let totals: Vec<i64> = orders.iter().map(|order| order.total.minor()).collect();
    let customers: Vec<Option<Uuid>> = orders
        .iter()
        .map(|order| order.customer_id.map(CustomerId::uuid))
        .collect();
    let versions: Vec<i64> = orders.iter().map(|order| order.version.number()).collect();
    let times: Vec<Timestamp> = orders.iter().map(|order| order.placed_at).collect();
    sqlx::query!(
        "insert into orders
            (merchant_id, id, external_id, status, currency, total_minor, customer_id, sealed, version, placed_at, updated_at)
        select $1, id, external_id, status, currency, total_minor, customer_id, sealed, version, placed_at, placed_at
        from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::uuid[], $8::bytea[], $9::bigint[], $10::timestamptz[])
            as new_order (id, external_id, status, currency, total_minor, customer_id, sealed, version, placed_at)
        on conflict (merchant_id, id) do nothing",
        merchant as MerchantId,
        &ids as &[OrderId],
        &external_ids as &[Option<&str>],
        &statuses as &[&str],
        &currencies as &[&str],
        &totals,
        &customers as &[Option<Uuid>],
        sealed as &[Option<Vec<u8>>],
        &versions,
        &times as &[Timestamp],
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn insert_lines(
    tx: &mut PgConnection,
    merchant: MerchantId,
    orders: &[&Order],
) -> Result<(), Error> {
    let lines = || {
        orders
            .iter()
            .flat_map(|order| order.lines.iter().map(|line| (order.id, line)))
    };
    let order_ids: Vec<OrderId> = lines().map(|(order, _)| order).collect();
    let numbers: Vec<i32> = lines().map(|(_, line)| line.line).collect();
    let variants: Vec<VariantId> = lines().map(|(_, line)| line.variant_id).collect();
    let locations: Vec<LocationId> = lines().map(|(_, line)| line.location_id).collect();
    let skus: Vec<Option<&str>> = lines().map(|(_, line)| line.sku.as_deref()).collect();
    let titles: Vec<&str> = lines().map(|(_, line)| line.title.as_str()).collect();
    let quantities: Vec<i32> = lines().map(|(_, line)| line.quantity).collect();
    let prices: Vec<i64> = lines().map(|(_, line)| line.unit_price.minor()).collect();
    sqlx::query!(
        "insert into order_lines
            (merchant_id, order_id, line, variant_id, location_id, sku, title, quantity, fulfilled_quantity, unit_price_minor)
        select $1, order_id, line, variant_id, location_id, sku, title, quantity, 0, unit_price_minor
        from unnest($2::uuid[], $3::integer[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::integer[], $9::bigint[])
            as new_line (order_id, line, variant_id, location_id, sku, title, quantity, unit_price_minor)
        on conflict (merchant_id, order_id, line) do nothing",
        merchant as MerchantId,
        &order_ids as &[OrderId],
        &numbers,
        &variants as &[VariantId],
        &locations as &[LocationId],
        &skus as &[Option<&str>],
        &titles as &[&str],
        &quantities,
        &prices,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn insert_transitions(
    tx: &mut PgConnection,
    merchant: MerchantId,
    transitions: &[(OrderId, OrderTransition)],
) -> Result<(), Error> {
    let orders: Vec<OrderId> = transitions.iter().map(|(order, _)| *order).collect();
    let versions: Vec<i64> = transitions
        .iter()
        .map(|(_, step)| step.order_version.number())
        .collect();
    let commands: Vec<&str> = transitions
        .iter()
        .map(|(_, step)| step.command.as_str())
        .collect();
    let before: Vec<Option<&str>> = transitions
        .iter()
        .map(|(_, step)| step.from_status.map(OrderStatus::name))
        .collect();
    let after: Vec<&str> = transitions
        .iter()
        .map(|(_, step)| step.to_status.name())
        .collect();
    let reasons: Vec<Option<&str>> = transitions
        .iter()
        .map(|(_, step)| step.reason.as_deref())
        .collect();
    let apps: Vec<AppId> = transitions.iter().map(|(_, step)| step.app_id).collect();
    let requests: Vec<RequestId> = transitions
        .iter()
        .map(|(_, step)| step.request_id)
        .collect();
    let times: Vec<Timestamp> = transitions
        .iter()
        .map(|(_, step)| step.occurred_at)
        .collect();
    sqlx::query!(
        "insert into order_transitions
            (merchant_id, order_id, order_version, command, from_status, to_status, reason, app_id, request_id, occurred_at)
        select $1, order_id, order_version, command, from_status, to_status, reason, app_id, request_id, occurred_at
        from unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::uuid[], $10::timestamptz[])
            as step (order_id, order_version, command, from_status, to_status, reason, app_id, request_id, occurred_at)
        on conflict (merchant_id, order_id, order_version) do nothing",
        merchant as MerchantId,
        &orders as &[OrderId],
        &versions,
        &commands as &[&str],
        &before as &[Option<&str>],
        &after as &[&str],
        &reasons as &[Option<&str>],
        &apps as &[AppId],
        &requests as &[RequestId],
        &times as &[Timestamp],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks an order's row; whoever changes an order or its lines holds this lock.
pub(super) async fn lock(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: OrderId,
) -> Result<Option<Locked>, Error> {
    let row = sqlx::query!(
        r#"select
            external_id, status as "status: OrderStatus", currency, total_minor, customer_id as "customer_id: CustomerId", sealed,
            version as "version: Version", placed_at as "placed_at: Timestamp", updated_at as "updated_at: Timestamp"
        from orders
        where merchant_id = $1
            and id = $2
        for update"#,
        merchant as MerchantId,
        id as OrderId,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let sealed = row.sealed;
    let row = Row {
        id,
        external_id: row.external_id,
        status: row.status,
        currency: row.currency,
        total_minor: row.total_minor,
        customer_id: row.customer_id,
        version: row.version,
        placed_at: row.placed_at,
        updated_at: row.updated_at,
    };
    let mut orders = with_lines(tx, merchant, vec![row]).await?;
    Ok(orders.pop().map(|order| Locked { order, sealed }))
}

/// Writes an order's status, version and time of change.
pub(crate) async fn update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    order: &Order,
) -> Result<(), Error> {
    sqlx::query!(
        "update orders
        set status = $3, version = $4, updated_at = $5
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        order.id as OrderId,
        order.status.name(),
        order.version as Version,
        order.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes how much of each line was shipped.
pub(crate) async fn update_fulfilled(
    tx: &mut PgConnection,
    merchant: MerchantId,
    order: &Order,
) -> Result<(), Error> {
    let numbers: Vec<i32> = order.lines.iter().map(|line| line.line).collect();
    let fulfilled: Vec<i32> = order
        .lines
        .iter()
        .map(|line| line.fulfilled_quantity)
        .collect();
    sqlx::query!(
        "update order_lines
        set fulfilled_quantity = shipped.quantity
        from unnest($3::integer[], $4::integer[]) as shipped (line, quantity)
        where order_lines.merchant_id = $1
            and order_lines.order_id = $2
            and order_lines.line = shipped.line
            and order_lines.fulfilled_quantity <> shipped.quantity",
        merchant as MerchantId,
        order.id as OrderId,
        &numbers,
        &fulfilled,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_many(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[OrderId],
) -> Result<Vec<Order>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: OrderId", external_id, status as "status: OrderStatus", currency, total_minor,
            customer_id as "customer_id: CustomerId", version as "version: Version", placed_at as "placed_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from orders
        where merchant_id = $1
            and id = any($2)"#,
        merchant as MerchantId,
        ids as &[OrderId],
    )
    .fetch_all(&mut *tx)
    .await?;
    with_lines(tx, merchant, rows).await
}

pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    visible: Option<&[Uuid]>,
    filter: &OrderFilter,
    after: Option<(Timestamp, OrderId)>,
    count: i64,
) -> Result<Vec<Order>, Error> {
    let (after_time, after_id) = after.map_or((None, None), |(time, id)| (Some(time), Some(id)));
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: OrderId", external_id, status as "status: OrderStatus", currency, total_minor,
            customer_id as "customer_id: CustomerId", version as "version: Version", placed_at as "placed_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from orders
        where merchant_id = $1
            and (
                $2::uuid[] is null
                or exists (
                    select
                    from order_lines
                    where order_lines.merchant_id = $1
                        and order_lines.order_id = orders.id
                        and order_lines.location_id = any($2)
                )
            )
            and ($3::text is null or status = $3)
            and ($4::uuid is null or customer_id = $4)
            and ($5::timestamptz is null or updated_at > $5)
            and ($6::text is null or external_id = $6)
            and ($7::timestamptz is null or (updated_at, id) > ($7, $8::uuid))
        order by updated_at, id
        limit $9"#,
        merchant as MerchantId,
        visible,
        filter.status.map(OrderStatus::name),
        filter.customer as Option<CustomerId>,
        page::overlapped(filter.updated_after) as Option<Timestamp>,
        filter.external_id.as_deref(),
        after_time as Option<Timestamp>,
        after_id as Option<OrderId>,
        count,
    )
    .fetch_all(&mut *tx)
    .await?;
    with_lines(tx, merchant, rows).await
}

/// The orders of these rows with their lines, in the rows' order.
async fn with_lines(
    tx: &mut PgConnection,
    merchant: MerchantId,
    rows: Vec<Row>,
) -> Result<Vec<Order>, Error> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<OrderId> = rows.iter().map(|row| row.id).collect();
    let lines = sqlx::query_as!(
        LineRow,
        r#"select
            order_id as "order_id: OrderId", line, variant_id as "variant_id: VariantId", location_id as "location_id: LocationId",
            sku, title, quantity::integer as "quantity!", fulfilled_quantity::integer as "fulfilled_quantity!", unit_price_minor
        from order_lines
        where merchant_id = $1
            and order_id = any($2)
        order by order_id, line"#,
        merchant as MerchantId,
        &ids as &[OrderId],
    )
    .fetch_all(tx)
    .await?;
    let mut by_order: HashMap<OrderId, Vec<LineRow>> = HashMap::with_capacity(ids.len());
    for line in lines {
        by_order.entry(line.order_id).or_default().push(line);
    }
    rows.into_iter()
        .map(|row| {
            let lines = by_order.remove(&row.id).unwrap_or_default();
            row.into_order(lines)
        })
        .collect()
}

impl Row {
    fn into_order(self, lines: Vec<LineRow>) -> Result<Order, Error> {
        let currency: Currency = self
            .currency
            .parse()
            .map_err(|error| Error::corrupt("orders", self.id, error))?;
        let lines = lines
            .into_iter()
            .map(|line| line.into_line(currency))
            .collect::<Result<_, _>>()?;
        Ok(Order {
            id: self.id,
            external_id: self.external_id,
            status: self.status,
            currency: self.currency,
            total: Money::new(self.total_minor, currency),
            lines,
            customer_id: self.customer_id,
            customer: None,
            shipping_address: None,
            version: self.version,
            placed_at: self.placed_at,
            updated_at: self.updated_at,
        })
    }
}

impl LineRow {
    fn into_line(self, currency: Currency) -> Result<OrderLine, Error> {
        let unit_price = Money::new(self.unit_price_minor, currency);
        let total = unit_price
            .checked_mul(i64::from(self.quantity))
            .map_err(|error| Error::corrupt("order_lines", self.order_id, error))?;
        Ok(OrderLine {
            line: self.line,
            variant_id: self.variant_id,
            sku: self.sku,
            title: self.title,
            quantity: self.quantity,
            fulfilled_quantity: self.fulfilled_quantity,
            unit_price,
            total,
            location_id: self.location_id,
        })
    }
}

/// The personal parts of these orders, sealed.
pub(super) async fn select_sealed(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[OrderId],
) -> Result<HashMap<OrderId, Vec<u8>>, Error> {
    let rows = sqlx::query!(
        r#"select id as "id: OrderId", sealed as "sealed!"
        from orders
        where merchant_id = $1
            and id = any($2)
            and sealed is not null"#,
        merchant as MerchantId,
        ids as &[OrderId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.sealed)).collect())
}

pub(super) async fn select_transitions(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: OrderId,
) -> Result<Vec<OrderTransition>, Error> {
    Ok(sqlx::query_as!(
        OrderTransition,
        r#"select
            order_version as "order_version: Version", command, from_status as "from_status: OrderStatus",
            to_status as "to_status: OrderStatus", reason, app_id as "app_id: AppId", request_id as "request_id: RequestId",
            occurred_at as "occurred_at: Timestamp"
        from order_transitions
        where merchant_id = $1
            and order_id = $2
        order by order_version"#,
        merchant as MerchantId,
        id as OrderId,
    )
    .fetch_all(tx)
    .await?)
}
