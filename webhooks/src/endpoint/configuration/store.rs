//! The statement of configurations.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{db::Error, id::MerchantId};
use serde_json::Value;
use sqlx::PgConnection;

use crate::endpoint::EndpointId;

pub(super) struct Row {
    pub(super) merchant: MerchantId,
    pub(super) endpoint: EndpointId,
    pub(super) version: i64,
    pub(super) settings: Value,
    pub(super) sealed_secrets: Vec<Vec<u8>>,
    pub(super) sealed_credentials: Option<Vec<u8>>,
}

pub(super) async fn select(
    tx: &mut PgConnection,
    merchants: &[MerchantId],
    endpoints: &[EndpointId],
) -> Result<Vec<Row>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            merchant_id as "merchant: MerchantId",
            id as "endpoint: EndpointId",
            version,
            settings,
            sealed_secrets,
            sealed_credentials
        from endpoints
        where merchant_id = any($1)
            and id = any($2)"#,
        merchants as &[MerchantId],
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}
