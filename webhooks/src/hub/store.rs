//! The statement that looks at the feeds that are read.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use std::collections::HashMap;

use kernel::{
    db::{Database, Error},
    id::MerchantId,
};

/// The last numbers of these merchants' feeds.
pub(super) async fn last_numbers(
    database: &Database,
    merchants: &[MerchantId],
) -> Result<HashMap<MerchantId, i64>, Error> {
    let mut tx = database.begin().await?;
    let rows = sqlx::query!(
        r#"select merchant_id as "merchant: MerchantId", last_number
        from feeds
        where merchant_id = any($1)"#,
        merchants as &[MerchantId],
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.merchant, row.last_number))
        .collect())
}
