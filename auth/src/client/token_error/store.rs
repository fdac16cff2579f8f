//! The token errors' statements. A global table.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{AppId, RequestId},
};
use sqlx::PgConnection;

use super::{TokenError, TokenErrorId};

/// False if there is no such app.
pub(super) async fn insert(
    tx: &mut PgConnection,
    app: AppId,
    error: &TokenError,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into token_errors (app_id, id, occurred_at, grant_type, error, description, address, request_id)
        select id, $2, $3, $4, $5, $6, $7, $8
        from apps
        where id = $1",
        app as AppId,
        error.id as TokenErrorId,
        error.occurred_at as Timestamp,
        error.grant_type,
        error.error,
        error.description,
        error.address,
        error.request_id as Option<RequestId>,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Leaves the newest `kept` of them.
pub(super) async fn delete_older(
    tx: &mut PgConnection,
    app: AppId,
    kept: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from token_errors
        where app_id = $1
            and id in (
                select id
                from token_errors
                where app_id = $1
                order by id desc
                offset $2
            )",
        app as AppId,
        kept,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn select(
    tx: &mut PgConnection,
    app: AppId,
    limit: i64,
) -> Result<Vec<TokenError>, Error> {
    let errors = sqlx::query_as!(
        TokenError,
        r#"select
            id as "id: TokenErrorId",
            occurred_at as "occurred_at: Timestamp",
            grant_type,
            error,
            description,
            address,
            request_id as "request_id: RequestId"
        from token_errors
        where app_id = $1
        order by id desc
        limit $2"#,
        app as AppId,
        limit,
    )
    .fetch_all(tx)
    .await?;
    Ok(errors)
}
