//! The statements behind a merchant's list of apps. Grants are global, and so the merchant is bound in each.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, GrantId, LocationId, MerchantId},
    scope::ScopeSet,
};
use sqlx::PgConnection;

use super::{AppSummary, InstalledApp};
use crate::grant::{Grant, store};

struct Row {
    id: GrantId,
    merchant_id: MerchantId,
    app_id: AppId,
    scopes: Vec<String>,
    locations: Option<Vec<LocationId>>,
    personal_data: bool,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    epoch: i64,
    version: i64,
    created_at: Timestamp,
    changed_at: Timestamp,
    app_name: String,
    homepage_url: Option<String>,
    required_scopes: Vec<String>,
    last_used_at: Option<Timestamp>,
    consented_by: Option<String>,
}

impl From<Row> for InstalledApp {
    fn from(row: Row) -> Self {
        let app = AppSummary {
            id: row.app_id,
            name: row.app_name,
            homepage_url: row.homepage_url,
        };
        let grant = Grant::from(store::Row {
            id: row.id,
            merchant_id: row.merchant_id,
            app_id: row.app_id,
            scopes: row.scopes,
            locations: row.locations,
            personal_data: row.personal_data,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            epoch: row.epoch,
            version: row.version,
            created_at: row.created_at,
            changed_at: row.changed_at,
        });
        Self {
            grant,
            app,
            last_used_at: row.last_used_at,
            consented_by: row.consented_by,
            required_scopes: store::known_scopes(&row.required_scopes),
        }
    }
}

/// The apps of `merchant`, of one grant if `id` says so, without those that ended at `ended_after` or before. At `now` living ones first.
pub(super) async fn select_installed(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: Option<GrantId>,
    ended_after: Timestamp,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<InstalledApp>, Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"select
            grants.id as "id: GrantId",
            grants.merchant_id as "merchant_id: MerchantId",
            grants.app_id as "app_id: AppId",
            grants.scopes,
            grants.locations as "locations: Vec<LocationId>",
            grants.personal_data,
            grants.expires_at as "expires_at: Timestamp",
            grants.revoked_at as "revoked_at: Timestamp",
            grants.epoch,
            grants.version,
            grants.created_at as "created_at: Timestamp",
            grants.changed_at as "changed_at: Timestamp",
            apps.name as app_name,
            apps.homepage_url,
            apps.required_scopes,
            grant_uses.last_used_at as "last_used_at?: Timestamp",
            persons.name as "consented_by?"
        from grants
        join apps on apps.id = grants.app_id
        left join grant_uses on grant_uses.grant_id = grants.id
        left join persons on persons.id = grants.consented_by
        cross join lateral (select least(grants.revoked_at, grants.expires_at) as at) as ended
        where grants.merchant_id = $1
            and ($2::uuid is null or grants.id = $2)
            and (ended.at is null or ended.at > $3)
        order by
            grants.revoked_at is not null or coalesce(grants.expires_at <= $4, false),
            case when grants.revoked_at is not null or grants.expires_at <= $4 then ended.at end desc,
            lower(apps.name),
            grants.id
        limit $5"#,
        merchant as MerchantId,
        id as Option<GrantId>,
        ended_after as Timestamp,
        now as Timestamp,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(InstalledApp::from).collect())
}

/// What an app can't do without.
pub(super) async fn select_required_scopes(
    tx: &mut PgConnection,
    app: AppId,
) -> Result<ScopeSet, Error> {
    let names = sqlx::query_scalar!(
        "select required_scopes
        from apps
        where id = $1",
        app as AppId,
    )
    .fetch_one(tx)
    .await?;
    Ok(store::known_scopes(&names))
}
