//! The keys' statements.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use sqlx::PgConnection;

use crate::{clock::Timestamp, db::Error, id::MerchantId};

pub(super) async fn insert_merchant_key(
    tx: &mut PgConnection,
    merchant: MerchantId,
    wrapped: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into merchant_keys (merchant_id, wrapped_key, created_at)
        values ($1, $2, $3)",
        merchant as MerchantId,
        wrapped,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_merchant_key(
    tx: &mut PgConnection,
    merchant: MerchantId,
) -> Result<Option<Vec<u8>>, Error> {
    let wrapped = sqlx::query_scalar!(
        "select wrapped_key
        from merchant_keys
        where merchant_id = $1",
        merchant as MerchantId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(wrapped)
}
