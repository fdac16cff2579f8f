//! The merchants' statements. A global table.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::MerchantId};
use sqlx::PgConnection;

use super::Merchant;

pub(super) async fn insert(tx: &mut PgConnection, merchant: &Merchant) -> Result<(), Error> {
    sqlx::query!(
        "insert into merchants (id, name, created_at)
        values ($1, $2, $3)",
        merchant.id as MerchantId,
        merchant.name,
        merchant.created_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(
    tx: &mut PgConnection,
    id: MerchantId,
) -> Result<Option<Merchant>, Error> {
    let merchant = sqlx::query_as!(
        Merchant,
        r#"select id as "id: MerchantId", name, created_at as "created_at: Timestamp"
        from merchants
        where id = $1"#,
        id as MerchantId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(merchant)
}

pub(super) async fn select_page(
    tx: &mut PgConnection,
    after: Option<MerchantId>,
    limit: i64,
) -> Result<Vec<Merchant>, Error> {
    let merchants = sqlx::query_as!(
        Merchant,
        r#"select id as "id: MerchantId", name, created_at as "created_at: Timestamp"
        from merchants
        where $1::uuid is null or id > $1
        order by id
        limit $2"#,
        after as Option<MerchantId>,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(merchants)
}
