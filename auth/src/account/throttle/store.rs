//! The throttles' statements. A global table.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error};
use sqlx::PgConnection;

use super::Subject;

/// What is counted of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) failures: i32,
    pub(super) last_failure_at: Timestamp,
    pub(super) blocked_until: Timestamp,
}

/// The subject's row, locked; made if there is none, with no failures.
pub(super) async fn lock_or_insert(
    tx: &mut PgConnection,
    subject: &Subject,
    now: Timestamp,
) -> Result<Counted, Error> {
    let counted = sqlx::query_as!(
        Counted,
        r#"insert into throttles (subject_sha256, failures, last_failure_at, blocked_until)
        values ($1, 0, $2, $2)
        on conflict (subject_sha256) do update
        set failures = throttles.failures
        returning
            failures,
            last_failure_at as "last_failure_at: Timestamp",
            blocked_until as "blocked_until: Timestamp""#,
        subject,
        now as Timestamp,
    )
    .fetch_one(tx)
    .await?;
    Ok(counted)
}

pub(super) async fn lock(
    tx: &mut PgConnection,
    subject: &Subject,
) -> Result<Option<Counted>, Error> {
    let counted = sqlx::query_as!(
        Counted,
        r#"select
            failures,
            last_failure_at as "last_failure_at: Timestamp",
            blocked_until as "blocked_until: Timestamp"
        from throttles
        where subject_sha256 = $1
        for update"#,
        subject,
    )
    .fetch_optional(tx)
    .await?;
    Ok(counted)
}

pub(super) async fn update(
    tx: &mut PgConnection,
    subject: &Subject,
    counted: &Counted,
) -> Result<(), Error> {
    sqlx::query!(
        "update throttles
        set failures = $2, last_failure_at = $3, blocked_until = $4
        where subject_sha256 = $1",
        subject,
        counted.failures,
        counted.last_failure_at as Timestamp,
        counted.blocked_until as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut PgConnection, subject: &Subject) -> Result<(), Error> {
    sqlx::query!(
        "delete from throttles
        where subject_sha256 = $1",
        subject,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets whose last failure was before `before`.
pub(in crate::account) async fn delete_older(
    tx: &mut PgConnection,
    before: Timestamp,
) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from throttles
        where last_failure_at < $1",
        before as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected())
}
