//! The statements of endpoints, their cursors and lanes.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, GrantId, MerchantId},
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};

use super::{DisabledReason, Endpoint, EndpointId, Owner, Status, Visible, settings::Settings};
use crate::app_endpoint::AppEndpointId;

/// What a row has beside what is shown of an endpoint.
pub(crate) struct Owned {
    pub(crate) app: AppId,
    /// `None`: the merchant's.
    pub(crate) grant: Option<GrantId>,
    /// The shared secrets as older binaries read them, the newest first.
    pub(crate) sealed_secrets: Vec<Vec<u8>>,
    pub(crate) sealed_credentials: Option<Vec<u8>>,
}

pub(crate) struct Row {
    id: EndpointId,
    grant_id: Option<GrantId>,
    url: Option<String>,
    description: Option<String>,
    event_types: Option<Vec<String>>,
    status: String,
    disabled_reason: Option<String>,
    settings: Value,
    app_endpoint_id: Option<AppEndpointId>,
    verified_at: Option<Timestamp>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl TryFrom<Row> for Endpoint {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let unknown =
            |column: &str| Error::corrupt("endpoints", row.id, format!("unknown {column}"));
        Ok(Self {
            status: match row.status.as_str() {
                "enabled" => Status::Enabled,
                "disabled" => Status::Disabled,
                _ => return Err(unknown("status")),
            },
            disabled_reason: match row.disabled_reason.as_deref() {
                None => None,
                Some("requested") => Some(DisabledReason::Requested),
                Some("gone") => Some(DisabledReason::Gone),
                Some("failing") => Some(DisabledReason::Failing),
                Some("app") => Some(DisabledReason::App),
                Some(_) => return Err(unknown("disabled_reason")),
            },
            settings: serde_json::from_value(row.settings).map_err(|error| {
                Error::corrupt("endpoints", row.id, format!("settings: {error}"))
            })?,
            app_endpoint_id: row.app_endpoint_id,
            verified_at: row.verified_at,
            id: row.id,
            url: row.url,
            description: row.description,
            event_types: row.event_types,
            owner: if row.grant_id.is_some() {
                Owner::Grant
            } else {
                Owner::Merchant
            },
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

pub(crate) async fn find(
    tx: &mut PgConnection,
    visible: Visible,
    id: EndpointId,
) -> Result<Option<Endpoint>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: EndpointId",
            grant_id as "grant_id: GrantId",
            url,
            description,
            event_types,
            status,
            disabled_reason,
            settings,
            app_endpoint_id as "app_endpoint_id: AppEndpointId",
            verified_at as "verified_at: Timestamp",
            version,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
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
    row.map(Endpoint::try_from).transpose()
}

pub(crate) async fn lock(
    tx: &mut PgConnection,
    visible: Visible,
    id: EndpointId,
) -> Result<Option<Endpoint>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: EndpointId",
            grant_id as "grant_id: GrantId",
            url,
            description,
            event_types,
            status,
            disabled_reason,
            settings,
            app_endpoint_id as "app_endpoint_id: AppEndpointId",
            verified_at as "verified_at: Timestamp",
            version,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from endpoints
        where merchant_id = $1
            and id = $2
            and ($3::uuid is null or app_id = $3)
        for update"#,
        visible.merchant as MerchantId,
        id as EndpointId,
        visible.app as Option<AppId>,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Endpoint::try_from).transpose()
}

pub(super) async fn list(
    tx: &mut PgConnection,
    visible: Visible,
    after: Option<EndpointId>,
    count: i64,
) -> Result<Vec<Endpoint>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: EndpointId",
            grant_id as "grant_id: GrantId",
            url,
            description,
            event_types,
            status,
            disabled_reason,
            settings,
            app_endpoint_id as "app_endpoint_id: AppEndpointId",
            verified_at as "verified_at: Timestamp",
            version,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from endpoints
        where merchant_id = $1
            and ($2::uuid is null or app_id = $2)
            and ($3::uuid is null or id > $3)
        order by id
        limit $4"#,
        visible.merchant as MerchantId,
        visible.app as Option<AppId>,
        after as Option<EndpointId>,
        count,
    )
    .fetch_all(tx)
    .await?;
    rows.into_iter().map(Endpoint::try_from).collect()
}

/// The ids of all endpoints that are visible, as events about them spell them.
pub(crate) async fn visible_ids(
    tx: &mut PgConnection,
    visible: Visible,
) -> Result<Vec<String>, Error> {
    let ids = sqlx::query_scalar!(
        r#"select id as "id: EndpointId"
        from endpoints
        where merchant_id = $1
            and ($2::uuid is null or app_id = $2)"#,
        visible.merchant as MerchantId,
        visible.app as Option<AppId>,
    )
    .fetch_all(tx)
    .await?;
    Ok(ids.into_iter().map(|id| id.to_string()).collect())
}

pub(super) async fn count(
    tx: &mut PgConnection,
    merchant: MerchantId,
    app: AppId,
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from endpoints
        where merchant_id = $1
            and app_id = $2
            and app_endpoint_id is null"#,
        merchant as MerchantId,
        app as AppId,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

pub(crate) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: &Endpoint,
    owned: &Owned,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into endpoints
            (merchant_id, id, app_id, grant_id, url, description, event_types, status, disabled_reason, settings, sealed_secrets,
             sealed_credentials, version, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        merchant as MerchantId,
        endpoint.id as EndpointId,
        owned.app as AppId,
        owned.grant as Option<GrantId>,
        endpoint.url,
        endpoint.description,
        endpoint.event_types.as_deref(),
        endpoint.status.as_str(),
        endpoint.disabled_reason.map(DisabledReason::as_str),
        Json(&endpoint.settings) as Json<&Settings>,
        &owned.sealed_secrets,
        owned.sealed_credentials.as_deref(),
        endpoint.version,
        endpoint.created_at as Timestamp,
        endpoint.updated_at as Timestamp,
    )
    .execute(&mut *tx)
    .await?;
    insert_version(&mut *tx, merchant, endpoint).await?;
    sqlx::query!(
        "insert into endpoint_cursors (merchant_id, endpoint_id, last_sequence)
        values ($1, $2, 0)",
        merchant as MerchantId,
        endpoint.id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into lanes (endpoint_id, merchant_id, due_at, signal, owner, lease_until, fence)
        values ($1, $2, null, 0, null, null, 0)",
        endpoint.id as EndpointId,
        merchant as MerchantId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Keeps what an endpoint was at this version, as far as it decides what is sent.
async fn insert_version(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: &Endpoint,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into endpoint_versions (merchant_id, endpoint_id, version, url, settings, created_at)
        values ($1, $2, $3, $4, $5, $6)",
        merchant as MerchantId,
        endpoint.id as EndpointId,
        endpoint.version,
        endpoint.url,
        Json(&endpoint.settings) as Json<&Settings>,
        endpoint.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    endpoint: &Endpoint,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoints
        set url = $3,
            description = $4,
            event_types = $5,
            status = $6,
            disabled_reason = $7,
            version = $8,
            updated_at = $9,
            settings = $10,
            verified_at = $11
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        endpoint.id as EndpointId,
        endpoint.url,
        endpoint.description,
        endpoint.event_types.as_deref(),
        endpoint.status.as_str(),
        endpoint.disabled_reason.map(DisabledReason::as_str),
        endpoint.version,
        endpoint.updated_at as Timestamp,
        Json(&endpoint.settings) as Json<&Settings>,
        endpoint.verified_at as Option<Timestamp>,
    )
    .execute(&mut *tx)
    .await?;
    insert_version(tx, merchant, endpoint).await
}

pub(super) async fn sealed_secrets(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<Vec<Vec<u8>>, Error> {
    let sealed = sqlx::query_scalar!(
        "select sealed_secrets
        from endpoints
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(sealed.unwrap_or_default())
}

pub(crate) async fn set_sealed_secrets(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    sealed: &[Vec<u8>],
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoints
        set sealed_secrets = $3
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as EndpointId,
        sealed,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn sealed_credentials(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<Option<Vec<u8>>, Error> {
    let sealed = sqlx::query_scalar!(
        "select sealed_credentials
        from endpoints
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(sealed.flatten())
}

pub(crate) async fn set_sealed_credentials(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    sealed: Option<&[u8]>,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoints
        set sealed_credentials = $3
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as EndpointId,
        sealed,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Locks an endpoint's cursor and gives the last number of its stream.
pub(super) async fn lock_cursor(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<i64, Error> {
    let last = sqlx::query_scalar!(
        "select last_sequence
        from endpoint_cursors
        where merchant_id = $1
            and endpoint_id = $2
        for update",
        merchant as MerchantId,
        id as EndpointId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(last.unwrap_or_default())
}

/// Locks an endpoint's lane for its deletion.
pub(super) async fn lock_lane(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<(), Error> {
    sqlx::query_scalar!(
        "select fence
        from lanes
        where endpoint_id = $1
            and merchant_id = $2
        for update",
        id as EndpointId,
        merchant as MerchantId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(())
}

/// The stream's last number when the endpoint was disabled; `None` if an older binary disabled it.
pub(super) async fn disabled_at(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<Option<i64>, Error> {
    let sequence = sqlx::query_scalar!(
        "select disabled_at_sequence
        from endpoints
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .fetch_one(tx)
    .await?;
    Ok(sequence)
}

pub(crate) async fn set_disabled_at(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    sequence: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoints
        set disabled_at_sequence = $3
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as EndpointId,
        sequence,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Tells whoever owns the lane that the endpoint has changed; what is due, and when, stays.
pub(crate) async fn signal_lane(tx: &mut PgConnection, id: EndpointId) -> Result<(), Error> {
    sqlx::query!(
        "update lanes
        set signal = signal + 1
        where endpoint_id = $1",
        id as EndpointId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Disables an enabled endpoint that still has this URL, and gives it back as it then is; `None` if somebody else has, or it is gone or has
/// moved.
pub(crate) async fn disable(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
    url: &str,
    reason: DisabledReason,
    now: Timestamp,
) -> Result<Option<Endpoint>, Error> {
    let last_sequence = crate::stream::last_sequence(&mut *tx, merchant, id).await?;
    let row = sqlx::query_as!(
        Row,
        r#"update endpoints
        set status = 'disabled',
            disabled_reason = $4,
            version = version + 1,
            updated_at = $5,
            disabled_at_sequence = $6
        where merchant_id = $1
            and id = $2
            and url = $3
            and status = 'enabled'
        returning
            id as "id: EndpointId",
            grant_id as "grant_id: GrantId",
            url,
            description,
            event_types,
            status,
            disabled_reason,
            settings,
            app_endpoint_id as "app_endpoint_id: AppEndpointId",
            verified_at as "verified_at: Timestamp",
            version,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp""#,
        merchant as MerchantId,
        id as EndpointId,
        url,
        reason.as_str(),
        now as Timestamp,
        last_sequence,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let endpoint = Endpoint::try_from(row)?;
    insert_version(tx, merchant, &endpoint).await?;
    Ok(Some(endpoint))
}

/// Tells whoever owns the lane, or will, that there is something to look at, from its beginning; `due_at` null if nothing may be sent.
pub(crate) async fn raise_lane(
    tx: &mut PgConnection,
    id: EndpointId,
    due_at: Option<Timestamp>,
) -> Result<(), Error> {
    sqlx::query!(
        "update lanes
        set due_at = $2,
            breaker_count = 0,
            rest_until = null,
            signal = signal + 1,
            unordered_signal = signal + 1
        where endpoint_id = $1",
        id as EndpointId,
        due_at as Option<Timestamp>,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn delete_deliveries(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from deliveries
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The cursor goes first: the relay holds it while it adds to this endpoint, and adds nothing once it is gone.
pub(crate) async fn delete(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from endpoint_cursors
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from lanes
        where endpoint_id = $1",
        id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    delete_deliveries(&mut *tx, merchant, id).await?;
    sqlx::query!(
        "delete from dead_letters
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    delete_belongings(&mut *tx, merchant, id).await?;
    sqlx::query!(
        "delete from endpoints
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes what is of no use without its endpoint: keys, versions, health, replays.
async fn delete_belongings(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: EndpointId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from endpoint_keys
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from endpoint_versions
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from endpoint_health
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from endpoint_hours
        where merchant_id = $1
            and endpoint_id = $2",
        merchant as MerchantId,
        id as EndpointId,
    )
    .execute(&mut *tx)
    .await?;
    let replays = sqlx::query_scalar!(
        "delete from replays
        where merchant_id = $1
            and endpoint_id = $2
        returning id",
        merchant as MerchantId,
        id as EndpointId,
    )
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from replay_hints
        where replay_id = any($1)",
        &replays,
    )
    .execute(tx)
    .await?;
    Ok(())
}
