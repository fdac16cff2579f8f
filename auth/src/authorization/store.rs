//! The statements of authorization requests and codes. Global tables: a handle and a code are known before a merchant is. Of both there are hashes
//! only.

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

use super::{code::Code, pkce::Challenge};
use crate::token::family::FamilyId;

/// Rows deleted by one statement of the sweeper: short enough to disturb nobody.
const SWEPT_AT_ONCE: i64 = 1_000;

/// A request as it is kept.
pub(super) struct RequestRow {
    pub(super) app_id: AppId,
    pub(super) redirect_uri: String,
    pub(super) scopes: Vec<String>,
    pub(super) state: Option<String>,
    pub(super) code_challenge: String,
    pub(super) merchant_id: Option<MerchantId>,
    pub(super) grant_expires_in_s: Option<i64>,
    pub(super) expires_at: Timestamp,
    pub(super) decided_at: Option<Timestamp>,
}

pub(super) async fn insert_request(
    tx: &mut PgConnection,
    handle_sha256: &[u8],
    row: &RequestRow,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into authorization_requests
            (handle_sha256, app_id, redirect_uri, scopes, state, code_challenge, merchant_id, grant_expires_in_s, created_at, expires_at,
            decided_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        handle_sha256,
        row.app_id as AppId,
        row.redirect_uri,
        &row.scopes,
        row.state,
        row.code_challenge,
        row.merchant_id as Option<MerchantId>,
        row.grant_expires_in_s,
        now as Timestamp,
        row.expires_at as Timestamp,
        row.decided_at as Option<Timestamp>,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_request(
    tx: &mut PgConnection,
    handle_sha256: &[u8],
) -> Result<Option<RequestRow>, Error> {
    let row = sqlx::query_as!(
        RequestRow,
        r#"select
            app_id as "app_id: AppId",
            redirect_uri,
            scopes,
            state,
            code_challenge,
            merchant_id as "merchant_id: MerchantId",
            grant_expires_in_s,
            expires_at as "expires_at: Timestamp",
            decided_at as "decided_at: Timestamp"
        from authorization_requests
        where handle_sha256 = $1"#,
        handle_sha256,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row)
}

pub(super) async fn select_request_for_update(
    tx: &mut PgConnection,
    handle_sha256: &[u8],
) -> Result<Option<RequestRow>, Error> {
    let row = sqlx::query_as!(
        RequestRow,
        r#"select
            app_id as "app_id: AppId",
            redirect_uri,
            scopes,
            state,
            code_challenge,
            merchant_id as "merchant_id: MerchantId",
            grant_expires_in_s,
            expires_at as "expires_at: Timestamp",
            decided_at as "decided_at: Timestamp"
        from authorization_requests
        where handle_sha256 = $1
        for update"#,
        handle_sha256,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row)
}

pub(super) async fn mark_request_decided(
    tx: &mut PgConnection,
    handle_sha256: &[u8],
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update authorization_requests
        set decided_at = $2
        where handle_sha256 = $1",
        handle_sha256,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

struct CodeRow {
    app_id: AppId,
    merchant_id: MerchantId,
    grant_id: GrantId,
    person_id: PersonId,
    redirect_uri: String,
    code_challenge: String,
    scopes: Vec<String>,
    expires_at: Timestamp,
    wrong_verifiers: i32,
    redeemed_at: Option<Timestamp>,
    family_id: Option<FamilyId>,
}

impl TryFrom<CodeRow> for Code {
    type Error = Error;

    fn try_from(row: CodeRow) -> Result<Self, Error> {
        let challenge = Challenge::parse(&row.code_challenge).ok_or_else(|| {
            Error::corrupt("authorization_codes", row.grant_id, "no challenge of S256")
        })?;
        Ok(Self {
            app: row.app_id,
            merchant: row.merchant_id,
            grant: row.grant_id,
            person: row.person_id,
            redirect_uri: row.redirect_uri,
            challenge,
            // A newer binary beside this one may know more scopes: what this one does not know, it does not allow.
            scopes: row
                .scopes
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            expires_at: row.expires_at,
            wrong_verifiers: row.wrong_verifiers,
            redeemed_at: row.redeemed_at,
            family: row.family_id,
        })
    }
}

pub(super) async fn insert_code(
    tx: &mut PgConnection,
    code_sha256: &[u8],
    code: &Code,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into authorization_codes
            (code_sha256, app_id, merchant_id, grant_id, person_id, redirect_uri, code_challenge, scopes, created_at, expires_at, wrong_verifiers)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        code_sha256,
        code.app as AppId,
        code.merchant as MerchantId,
        code.grant as GrantId,
        code.person as PersonId,
        code.redirect_uri,
        code.challenge.as_str(),
        &code.scopes.names(),
        now as Timestamp,
        code.expires_at as Timestamp,
        code.wrong_verifiers,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select_code_for_update(
    tx: &mut PgConnection,
    code_sha256: &[u8],
) -> Result<Option<Code>, Error> {
    let row = sqlx::query_as!(
        CodeRow,
        r#"select
            app_id as "app_id: AppId",
            merchant_id as "merchant_id: MerchantId",
            grant_id as "grant_id: GrantId",
            person_id as "person_id: PersonId",
            redirect_uri,
            code_challenge,
            scopes,
            expires_at as "expires_at: Timestamp",
            wrong_verifiers,
            redeemed_at as "redeemed_at: Timestamp",
            family_id as "family_id: FamilyId"
        from authorization_codes
        where code_sha256 = $1
        for update"#,
        code_sha256,
    )
    .fetch_optional(tx)
    .await?;
    row.map(Code::try_from).transpose()
}

pub(super) async fn count_wrong_verifier(
    tx: &mut PgConnection,
    code_sha256: &[u8],
) -> Result<(), Error> {
    sqlx::query!(
        "update authorization_codes
        set wrong_verifiers = wrong_verifiers + 1
        where code_sha256 = $1",
        code_sha256,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn mark_code_redeemed(
    tx: &mut PgConnection,
    code_sha256: &[u8],
    family: FamilyId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update authorization_codes
        set redeemed_at = $2,
            family_id = $3
        where code_sha256 = $1",
        code_sha256,
        now as Timestamp,
        family as FamilyId,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A batch of requests that expired before `now`, in a transaction of its own.
pub(super) async fn delete_expired_requests(
    worker: &Database,
    now: Timestamp,
) -> Result<u64, Error> {
    let mut tx = worker.begin().await?;
    let deleted = sqlx::query!(
        "delete from authorization_requests
        where handle_sha256 in (
            select handle_sha256
            from authorization_requests
            where expires_at < $1
            order by expires_at
            limit $2)",
        now as Timestamp,
        SWEPT_AT_ONCE,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(deleted.rows_affected())
}

/// A batch of codes that expired before `then`, in a transaction of its own.
pub(super) async fn delete_codes_expired_before(
    worker: &Database,
    then: Timestamp,
) -> Result<u64, Error> {
    let mut tx = worker.begin().await?;
    let deleted = sqlx::query!(
        "delete from authorization_codes
        where code_sha256 in (
            select code_sha256
            from authorization_codes
            where expires_at < $1
            order by expires_at
            limit $2)",
        then as Timestamp,
        SWEPT_AT_ONCE,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(deleted.rows_affected())
}
