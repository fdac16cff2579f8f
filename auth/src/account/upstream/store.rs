//! The identities' statements. A global table.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::PersonId};
use sqlx::PgConnection;

use super::id_token::Identity;

/// Whose identity it is.
pub(super) async fn select(
    tx: &mut PgConnection,
    identity: &Identity,
) -> Result<Option<PersonId>, Error> {
    let person = sqlx::query_scalar!(
        r#"select person_id as "person_id: PersonId"
        from person_identities
        where issuer = $1 and subject = $2"#,
        identity.issuer,
        identity.subject,
    )
    .fetch_optional(tx)
    .await?;
    Ok(person)
}

/// False if it is somebody's already.
pub(super) async fn insert(
    tx: &mut PgConnection,
    identity: &Identity,
    person: PersonId,
    now: Timestamp,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into person_identities (issuer, subject, person_id, created_at)
        values ($1, $2, $3, $4)
        on conflict (issuer, subject) do nothing",
        identity.issuer,
        identity.subject,
        person as PersonId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

pub(super) async fn is_linked(
    tx: &mut PgConnection,
    issuer: &str,
    person: PersonId,
) -> Result<bool, Error> {
    let is_linked = sqlx::query_scalar!(
        r#"select exists (
            select 1
            from person_identities
            where issuer = $1 and person_id = $2) as "is_linked!""#,
        issuer,
        person as PersonId,
    )
    .fetch_one(tx)
    .await?;
    Ok(is_linked)
}

/// False if there is none.
pub(super) async fn delete(
    tx: &mut PgConnection,
    issuer: &str,
    person: PersonId,
) -> Result<bool, Error> {
    let deleted = sqlx::query!(
        "delete from person_identities
        where issuer = $1 and person_id = $2",
        issuer,
        person as PersonId,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected() > 0)
}
