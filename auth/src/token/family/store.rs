//! The statements of refresh families and their tokens. Global tables: a token is known before its merchant is. Of tokens there are hashes only, and
//! successors sealed under keys that are not kept.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::{Database, Error},
    id::{AppId, GrantId, MerchantId, PersonId},
};
use sqlx::PgConnection;

use super::{EndReason, Family, FamilyId, RefreshToken};

/// Tokens deleted by one statement of the sweeper: short enough to disturb nobody.
const SWEPT_AT_ONCE: i64 = 1_000;

struct Row {
    id: FamilyId,
    app_id: AppId,
    merchant_id: MerchantId,
    grant_id: GrantId,
    person_id: Option<PersonId>,
    scopes: Vec<String>,
    created_at: Timestamp,
    ended_at: Option<Timestamp>,
}

impl From<Row> for Family {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            app: row.app_id,
            merchant: row.merchant_id,
            grant: row.grant_id,
            person: row.person_id,
            // A newer binary beside this one may know more scopes: what this one does not know, it does not allow.
            scopes: row
                .scopes
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            created_at: row.created_at,
            ended_at: row.ended_at,
        }
    }
}

pub(super) async fn insert(tx: &mut PgConnection, family: &Family) -> Result<(), Error> {
    sqlx::query!(
        "insert into refresh_families (id, app_id, merchant_id, grant_id, person_id, scopes, created_at)
        values ($1, $2, $3, $4, $5, $6, $7)",
        family.id as FamilyId,
        family.app as AppId,
        family.merchant as MerchantId,
        family.grant as GrantId,
        family.person as Option<PersonId>,
        &family.scopes.names(),
        family.created_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_for_update(
    tx: &mut PgConnection,
    id: FamilyId,
) -> Result<Option<Family>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: FamilyId",
            app_id as "app_id: AppId",
            merchant_id as "merchant_id: MerchantId",
            grant_id as "grant_id: GrantId",
            person_id as "person_id: PersonId",
            scopes,
            created_at as "created_at: Timestamp",
            ended_at as "ended_at: Timestamp"
        from refresh_families
        where id = $1
        for update"#,
        id as FamilyId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Family::from))
}

pub(super) async fn select_by_token(
    tx: &mut PgConnection,
    token_sha256: &[u8],
) -> Result<Option<Family>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: FamilyId",
            app_id as "app_id: AppId",
            merchant_id as "merchant_id: MerchantId",
            grant_id as "grant_id: GrantId",
            person_id as "person_id: PersonId",
            scopes,
            created_at as "created_at: Timestamp",
            ended_at as "ended_at: Timestamp"
        from refresh_families
        where id = (select family_id from refresh_tokens where token_sha256 = $1)"#,
        token_sha256,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Family::from))
}

pub(super) async fn select_by_token_for_update(
    tx: &mut PgConnection,
    token_sha256: &[u8],
) -> Result<Option<Family>, Error> {
    let row = sqlx::query_as!(
        Row,
        r#"select
            id as "id: FamilyId",
            app_id as "app_id: AppId",
            merchant_id as "merchant_id: MerchantId",
            grant_id as "grant_id: GrantId",
            person_id as "person_id: PersonId",
            scopes,
            created_at as "created_at: Timestamp",
            ended_at as "ended_at: Timestamp"
        from refresh_families
        where id = (select family_id from refresh_tokens where token_sha256 = $1)
        for update"#,
        token_sha256,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(Family::from))
}

pub(super) async fn mark_ended(
    tx: &mut PgConnection,
    id: FamilyId,
    reason: EndReason,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update refresh_families
        set ended_at = $2,
            end_reason = $3
        where id = $1
            and ended_at is null",
        id as FamilyId,
        now as Timestamp,
        reason as EndReason,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn insert_token(
    tx: &mut PgConnection,
    token_sha256: &[u8],
    family: FamilyId,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into refresh_tokens (token_sha256, family_id, created_at, expires_at)
        values ($1, $2, $3, $4)",
        token_sha256,
        family as FamilyId,
        now as Timestamp,
        expires_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_token(
    tx: &mut PgConnection,
    token_sha256: &[u8],
) -> Result<Option<RefreshToken>, Error> {
    let token = sqlx::query_as!(
        RefreshToken,
        r#"select
            token.created_at as "created_at: Timestamp",
            token.expires_at as "expires_at: Timestamp",
            token.rotated_at as "rotated_at: Timestamp",
            token.sealed_successor,
            successor.rotated_at as "successor_rotated_at?: Timestamp"
        from refresh_tokens token
        left join refresh_tokens successor
            on successor.token_sha256 = token.successor_sha256
        where token.token_sha256 = $1"#,
        token_sha256,
    )
    .fetch_optional(tx)
    .await?;
    Ok(token)
}

pub(super) async fn mark_rotated(
    tx: &mut PgConnection,
    token_sha256: &[u8],
    successor_sha256: &[u8],
    sealed_successor: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update refresh_tokens
        set rotated_at = $4,
            successor_sha256 = $2,
            sealed_successor = $3
        where token_sha256 = $1",
        token_sha256,
        successor_sha256,
        sealed_successor,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A batch of expired tokens, and the families that have lost their last; in a transaction of its own. A family whose every token has expired can
/// gain none, so nobody is overtaken.
pub(super) async fn delete_expired(worker: &Database, now: Timestamp) -> Result<u64, Error> {
    let mut tx = worker.begin().await?;
    let families = sqlx::query_scalar!(
        r#"delete from refresh_tokens
        where token_sha256 in (
            select token_sha256
            from refresh_tokens
            where expires_at < $1
            order by expires_at
            limit $2)
        returning family_id as "family_id: FamilyId""#,
        now as Timestamp,
        SWEPT_AT_ONCE,
    )
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from refresh_families
        where id = any($1)
            and not exists (
                select
                from refresh_tokens
                where family_id = refresh_families.id)",
        &families as &[FamilyId],
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(u64::try_from(families.len()).unwrap_or(u64::MAX))
}
