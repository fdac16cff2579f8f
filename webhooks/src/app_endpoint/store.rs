//! The statements of apps' endpoints. Their tables are global; what is a merchant's binds the merchant.

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

use super::{AppEndpoint, AppEndpointId, materialise::Stale};
use crate::endpoint::{
    EndpointId, Status,
    key::{KeyId, Stored},
    settings::{Settings, SignatureScheme},
};

struct Row {
    id: AppEndpointId,
    app_id: AppId,
    url: Option<String>,
    description: Option<String>,
    event_types: Option<Vec<String>>,
    settings: Value,
    sealed_credentials: Option<Vec<u8>>,
    status: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

type Read = (AppId, AppEndpoint, Option<Vec<u8>>);

impl TryFrom<Row> for Read {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let corrupt = |what: String| Error::corrupt("app_endpoints", row.id, what);
        let endpoint = AppEndpoint {
            status: match row.status.as_str() {
                "enabled" => Status::Enabled,
                "disabled" => Status::Disabled,
                _ => return Err(corrupt("unknown status".to_owned())),
            },
            settings: serde_json::from_value(row.settings)
                .map_err(|error| corrupt(format!("settings: {error}")))?,
            id: row.id,
            url: row.url,
            description: row.description,
            event_types: row.event_types,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok((row.app_id, endpoint, row.sealed_credentials))
    }
}

pub(super) async fn find(
    tx: &mut PgConnection,
    app: AppId,
    id: AppEndpointId,
) -> Result<Option<AppEndpoint>, Error> {
    let found = read(tx, id).await?;
    Ok(found
        .filter(|(owner, ..)| *owner == app)
        .map(|(_, endpoint, _)| endpoint))
}

/// Any app's endpoint, for the relay.
pub(super) async fn read(tx: &mut PgConnection, id: AppEndpointId) -> Result<Option<Read>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: AppEndpointId",
            app_id as "app_id: AppId",
            url,
            description,
            event_types,
            settings,
            sealed_credentials,
            status,
            version,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from app_endpoints
        where id = $1"#,
        id as AppEndpointId,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Read::try_from).transpose()
}

/// An app's endpoint and its sealed credentials, locked.
pub(super) async fn lock(
    tx: &mut PgConnection,
    app: AppId,
    id: AppEndpointId,
) -> Result<Option<(AppEndpoint, Option<Vec<u8>>)>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: AppEndpointId",
            app_id as "app_id: AppId",
            url,
            description,
            event_types,
            settings,
            sealed_credentials,
            status,
            version,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from app_endpoints
        where app_id = $1
            and id = $2
        for update"#,
        app as AppId,
        id as AppEndpointId,
    )
    .fetch_optional(tx)
    .await?;
    let row = row.map(Read::try_from).transpose()?;
    Ok(row.map(|(_, endpoint, sealed)| (endpoint, sealed)))
}

pub(super) async fn list(
    tx: &mut PgConnection,
    app: AppId,
    after: Option<AppEndpointId>,
    count: i64,
) -> Result<Vec<AppEndpoint>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            id as "id: AppEndpointId",
            app_id as "app_id: AppId",
            url,
            description,
            event_types,
            settings,
            sealed_credentials,
            status,
            version,
            created_at as "created_at: Timestamp",
            updated_at as "updated_at: Timestamp"
        from app_endpoints
        where app_id = $1
            and ($2::uuid is null or id > $2)
        order by id
        limit $3"#,
        app as AppId,
        after as Option<AppEndpointId>,
        count,
    )
    .fetch_all(tx)
    .await?;
    let rows = rows.into_iter().map(Read::try_from);
    rows.map(|row| row.map(|(_, endpoint, _)| endpoint))
        .collect()
}

pub(super) async fn count(tx: &mut PgConnection, app: AppId) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!"
        from app_endpoints
        where app_id = $1"#,
        app as AppId,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    app: AppId,
    endpoint: &AppEndpoint,
    sealed_credentials: Option<&[u8]>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into app_endpoints
            (id, app_id, url, description, event_types, settings, sealed_credentials, status, version, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        endpoint.id as AppEndpointId,
        app as AppId,
        endpoint.url,
        endpoint.description,
        endpoint.event_types.as_deref(),
        Json(&endpoint.settings) as Json<&Settings>,
        sealed_credentials,
        endpoint.status.as_str(),
        endpoint.version,
        endpoint.created_at as Timestamp,
        endpoint.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn update(
    tx: &mut PgConnection,
    app: AppId,
    endpoint: &AppEndpoint,
    sealed_credentials: Option<&[u8]>,
) -> Result<(), Error> {
    sqlx::query!(
        "update app_endpoints
        set url = $3,
            description = $4,
            event_types = $5,
            settings = $6,
            sealed_credentials = $7,
            status = $8,
            version = $9,
            updated_at = $10
        where app_id = $1
            and id = $2",
        app as AppId,
        endpoint.id as AppEndpointId,
        endpoint.url,
        endpoint.description,
        endpoint.event_types.as_deref(),
        Json(&endpoint.settings) as Json<&Settings>,
        sealed_credentials,
        endpoint.status.as_str(),
        endpoint.version,
        endpoint.updated_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete(
    tx: &mut PgConnection,
    app: AppId,
    id: AppEndpointId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from app_endpoint_keys
        where app_endpoint_id = $1",
        id as AppEndpointId,
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from app_endpoints
        where app_id = $1
            and id = $2",
        app as AppId,
        id as AppEndpointId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct KeyRow {
    id: KeyId,
    scheme: String,
    sealed: Vec<u8>,
    public_key: Option<Vec<u8>>,
    created_at: Timestamp,
    ends_at: Option<Timestamp>,
}

/// All keys of an app's endpoint, the newest first; also those that have ended.
pub(super) async fn keys(tx: &mut PgConnection, id: AppEndpointId) -> Result<Vec<Stored>, Error> {
    let rows = sqlx::query_as!(
        KeyRow,
        r#"select
            id as "id: KeyId",
            scheme,
            sealed,
            public_key,
            created_at as "created_at: Timestamp",
            ends_at as "ends_at: Timestamp"
        from app_endpoint_keys
        where app_endpoint_id = $1
        order by created_at desc, id desc"#,
        id as AppEndpointId,
    )
    .fetch_all(tx)
    .await?;
    let keys = rows.into_iter().map(|row| {
        Ok(Stored {
            scheme: SignatureScheme::read(&row.scheme)
                .ok_or_else(|| Error::corrupt("app_endpoint_keys", row.id, "unknown scheme"))?,
            id: row.id,
            sealed: row.sealed,
            public_key: row.public_key,
            created_at: row.created_at,
            ends_at: row.ends_at,
        })
    });
    keys.collect()
}

pub(super) async fn insert_key(
    tx: &mut PgConnection,
    id: AppEndpointId,
    key: &Stored,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into app_endpoint_keys (app_endpoint_id, id, scheme, sealed, public_key, created_at, ends_at)
        values ($1, $2, $3, $4, $5, $6, $7)",
        id as AppEndpointId,
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

/// Gives the keys of these schemes an end, unless they end before it anyway.
pub(super) async fn end_keys(
    tx: &mut PgConnection,
    id: AppEndpointId,
    schemes: &[SignatureScheme],
    end: Timestamp,
) -> Result<(), Error> {
    let schemes: Vec<&str> = schemes.iter().map(|scheme| scheme.as_str()).collect();
    sqlx::query!(
        "update app_endpoint_keys
        set ends_at = $3
        where app_endpoint_id = $1
            and scheme = any($2)
            and (ends_at is null or ends_at > $3)",
        id as AppEndpointId,
        &schemes as &[&str],
        end as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete_ended_keys(
    tx: &mut PgConnection,
    id: AppEndpointId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from app_endpoint_keys
        where app_endpoint_id = $1
            and ends_at <= $2",
        id as AppEndpointId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Leaves a hint for every merchant that has, or had, something to do with the app, so that relays look at them soon.
pub(super) async fn hint(tx: &mut PgConnection, app: AppId) -> Result<(), Error> {
    sqlx::query!(
        "insert into relay_hints (merchant_id)
        select merchant_id
        from grants
        where app_id = $1
        group by merchant_id
        order by merchant_id
        on conflict (merchant_id) do nothing",
        app as AppId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What of a merchant does not follow apps' endpoints: parts whose version or grant is another one, parts of what was deleted, and endpoints of which the
/// merchant has no part yet. Each half goes by an index, so it costs what the merchant's apps have, and nothing where they have none.
pub(super) async fn stale(
    tx: &mut PgConnection,
    merchant: MerchantId,
    now: Timestamp,
) -> Result<Vec<Stale>, Error> {
    let rows = sqlx::query_as!(
        Stale,
        r#"select
            endpoints.id as "endpoint?: EndpointId",
            app_endpoints.id as "app_endpoint?: AppEndpointId",
            grants.id as "grant?: GrantId"
        from endpoints
        left join app_endpoints
            on app_endpoints.id = endpoints.app_endpoint_id
        left join grants
            on grants.merchant_id = $1
            and grants.app_id = endpoints.app_id
            and grants.revoked_at is null
            and (grants.expires_at is null or grants.expires_at > $2)
        where endpoints.merchant_id = $1
            and endpoints.app_endpoint_id is not null
            and (
                app_endpoints.id is null
                or app_endpoints.version is distinct from endpoints.app_endpoint_version
                or grants.id <> endpoints.grant_id
            )
        union all
        select null, app_endpoints.id, grants.id
        from grants
        join app_endpoints
            on app_endpoints.app_id = grants.app_id
        where grants.merchant_id = $1
            and grants.revoked_at is null
            and (grants.expires_at is null or grants.expires_at > $2)
            and app_endpoints.status = 'enabled'
            and not exists (
                select 1
                from endpoints
                where endpoints.merchant_id = $1
                    and endpoints.app_endpoint_id = app_endpoints.id
            )"#,
        merchant as MerchantId,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// Notes which version of an app's endpoint a merchant's part now is of, and whose view it has.
pub(super) async fn follow(
    tx: &mut PgConnection,
    merchant: MerchantId,
    part: EndpointId,
    grant: GrantId,
    app_endpoint: AppEndpointId,
    version: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoints
        set grant_id = $3,
            app_endpoint_id = $4,
            app_endpoint_version = $5
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        part as EndpointId,
        grant as GrantId,
        app_endpoint as AppEndpointId,
        version,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The same where the app has no living grant at the merchant.
pub(super) async fn follow_without_grant(
    tx: &mut PgConnection,
    merchant: MerchantId,
    part: EndpointId,
    version: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "update endpoints
        set app_endpoint_version = $3
        where merchant_id = $1
            and id = $2",
        merchant as MerchantId,
        part as EndpointId,
        version,
    )
    .execute(tx)
    .await?;
    Ok(())
}
