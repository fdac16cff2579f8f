//! The statements of customers. Nothing in them is readable.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashSet;

use kernel::{clock::Timestamp, db::Error, id::MerchantId, version::Version};
use sqlx::PgConnection;
use uuid::Uuid;

use super::CustomerId;

/// A customer to insert.
#[derive(Debug)]
pub(crate) struct NewCustomer {
    pub(crate) id: CustomerId,
    pub(crate) email_index: Option<Vec<u8>>,
    pub(crate) sealed: Vec<u8>,
}

pub(super) struct Row {
    pub(super) sealed: Vec<u8>,
    pub(super) version: Version,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// The customers of these e-mail addresses.
pub(crate) async fn select_by_email(
    tx: &mut PgConnection,
    merchant: MerchantId,
    indexes: &[[u8; 32]],
) -> Result<Vec<([u8; 32], CustomerId)>, Error> {
    if indexes.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<&[u8]> = indexes.iter().map(<[u8; 32]>::as_slice).collect();
    let rows = sqlx::query!(
        r#"select id as "id: CustomerId", email_index as "email_index!"
        from customers
        where merchant_id = $1
            and email_index = any($2)"#,
        merchant as MerchantId,
        &wanted as &[&[u8]],
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|row| {
            let index = <[u8; 32]>::try_from(row.email_index.as_slice());
            Ok((
                index.map_err(|error| Error::corrupt("customers", row.id, error))?,
                row.id,
            ))
        })
        .collect()
}

/// Inserts those whose e-mail address nobody has, and says which they are. Somebody else who is just inserting the same address is waited for.
pub(crate) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    customers: &[NewCustomer],
    now: Timestamp,
) -> Result<HashSet<CustomerId>, Error> {
    if customers.is_empty() {
        return Ok(HashSet::new());
    }
    let ids: Vec<CustomerId> = customers.iter().map(|customer| customer.id).collect();
    let indexes: Vec<Option<&[u8]>> = customers
        .iter()
        .map(|customer| customer.email_index.as_deref())
        .collect();
    let sealed: Vec<&[u8]> = customers
        .iter()
        .map(|customer| customer.sealed.as_slice())
        .collect();
    let inserted = sqlx::query_scalar!(
        r#"insert into customers (merchant_id, id, email_index, sealed, version, created_at, updated_at)
        select $1, id, email_index, sealed, 1, $5, $5
        from unnest($2::uuid[], $3::bytea[], $4::bytea[]) as customer (id, email_index, sealed)
        on conflict (merchant_id, email_index) do nothing
        returning id as "id: CustomerId""#,
        merchant as MerchantId,
        &ids as &[CustomerId],
        &indexes as &[Option<&[u8]>],
        &sealed as &[&[u8]],
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Takes their e-mail address from customers who have been erased.
pub(crate) async fn forget_email(
    tx: &mut PgConnection,
    merchant: MerchantId,
    ids: &[CustomerId],
) -> Result<(), Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update customers
        set email_index = null
        where merchant_id = $1
            and id = any($2)",
        merchant as MerchantId,
        ids as &[CustomerId],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A customer; where only some locations are visible, one who has ordered from there.
pub(super) async fn select(
    tx: &mut PgConnection,
    merchant: MerchantId,
    visible: Option<&[Uuid]>,
    id: CustomerId,
) -> Result<Option<Row>, Error> {
    Ok(sqlx::query_as!(
        Row,
        r#"select
            sealed, version as "version: Version", created_at as "created_at: Timestamp", updated_at as "updated_at: Timestamp"
        from customers
        where merchant_id = $1
            and id = $2
            and (
                $3::uuid[] is null
                or exists (
                    select
                    from orders
                    join order_lines
                        on order_lines.merchant_id = orders.merchant_id
                        and order_lines.order_id = orders.id
                    where orders.merchant_id = $1
                        and order_lines.merchant_id = $1
                        and orders.customer_id = customers.id
                        and order_lines.location_id = any($3)
                )
            )"#,
        merchant as MerchantId,
        id as CustomerId,
        visible,
    )
    .fetch_optional(tx)
    .await?)
}
