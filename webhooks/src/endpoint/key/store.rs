//! The statements of endpoints' keys.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::MerchantId};
use sqlx::PgConnection;

use super::{KeyId, Stored};
use crate::endpoint::{EndpointId, settings::SignatureScheme};

/// A row, together with the endpoint that it belongs to.
struct Row {
    endpoint_id: EndpointId,
    id: KeyId,
    scheme: String,
    sealed: Vec<u8>,
    public_key: Option<Vec<u8>>,
    created_at: Timestamp,
    ends_at: Option<Timestamp>,
}

impl TryFrom<Row> for Stored {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            scheme: SignatureScheme::read(&row.scheme)
                .ok_or_else(|| Error::corrupt("endpoint_keys", row.id, "unknown scheme"))?,
            id: row.id,
            sealed: row.sealed,
            public_key: row.public_key,
            created_at: row.created_at,
            ends_at: row.ends_at,
        })
    }
}

/// All keys of an endpoint, the newest first; also those that have ended.
pub(super) async fn select(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
) -> Result<Vec<Stored>, Error> {
    let keys = select_many(tx, &[merchant], &[endpoint]).await?;
    keys.into_iter().map(|(_, key)| key).collect()
}

/// All keys of many endpoints, the newest first. A row that can't be read is its endpoint's fault alone.
pub(in crate::endpoint) async fn select_many(
    tx: &mut PgConnection,
    merchants: &[MerchantId],
    endpoints: &[EndpointId],
) -> Result<Vec<(EndpointId, Result<Stored, Error>)>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            endpoint_id as "endpoint_id: EndpointId",
            id as "id: KeyId",
            scheme,
            sealed,
            public_key,
            created_at as "created_at: Timestamp",
            ends_at as "ends_at: Timestamp"
        from endpoint_keys
        where merchant_id = any($1)
            and endpoint_id = any($2)
        order by created_at desc, id desc"#,
        merchants as &[MerchantId],
        endpoints as &[EndpointId],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.endpoint_id, Stored::try_from(row)))
        .collect())
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    key: &Stored,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into endpoint_keys (merchant_id, endpoint_id, id, scheme, sealed, public_key, created_at, ends_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)",
        merchant as MerchantId,
        endpoint as EndpointId,
        key.id as KeyId,
        key.scheme.as_str(),
        &key.sealed,
        key.public_key.as_deref(),
        key.created_at as Timestamp,
        key.ends_at as Option<Timestamp>,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Gives the keys of a scheme an end, unless they end before it anyway.
pub(super) async fn end(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    scheme: SignatureScheme,
    end: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoint_keys
        set ends_at = $4
        where merchant_id = $1
            and endpoint_id = $2
            and scheme = $3
            and (ends_at is null or ends_at > $4)",
        merchant as MerchantId,
        endpoint as EndpointId,
        scheme.as_str(),
        end as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes all keys of an endpoint.
pub(super) async fn delete(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from endpoint_keys
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        endpoint as EndpointId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete_ended(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: EndpointId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from endpoint_keys
        where merchant_id = $1
            and endpoint_id = $2
            and ends_at <= $3",
        merchant as MerchantId,
        endpoint as EndpointId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Whose endpoint it is: its lane, which is global, knows.
pub(super) async fn merchant_of(
    tx: &mut PgConnection,
    endpoint: EndpointId,
) -> Result<Option<MerchantId>, Error> {
    let merchant = sqlx::query_scalar!(
        r#"select merchant_id as "merchant_id: MerchantId"
        from lanes
        where endpoint_id = $1"#,
        endpoint as EndpointId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(merchant)
}
