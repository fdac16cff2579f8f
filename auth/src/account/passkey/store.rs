//! The passkeys' statements. A global table.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::PersonId};
use sqlx::{PgConnection, types::Json};
use webauthn_rs::prelude::Passkey;

use super::{PasskeyId, PasskeySummary};

/// False if the authenticator's passkey is there already.
pub(super) async fn insert(
    tx: &mut PgConnection,
    person: PersonId,
    passkey: &Passkey,
    name: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into passkeys (credential_id, person_id, name, passkey, created_at)
        values ($1, $2, $3, $4, $5)
        on conflict (credential_id) do nothing",
        passkey.cred_id().as_slice(),
        person as PersonId,
        name,
        Json(passkey) as Json<&Passkey>,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected() > 0)
}

/// A passkey and its person, locked: its counter is compared and written by one at a time.
pub(super) async fn lock(
    tx: &mut PgConnection,
    id: &PasskeyId,
) -> Result<Option<(PersonId, Passkey)>, Error> {
    let row = sqlx::query!(
        r#"select person_id as "person_id: PersonId", passkey as "passkey: Json<Passkey>"
        from passkeys
        where credential_id = $1
        for update"#,
        id.0,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| (row.person_id, row.passkey.0)))
}

pub(super) async fn select_of(
    tx: &mut PgConnection,
    person: PersonId,
) -> Result<Vec<Passkey>, Error> {
    let passkeys = sqlx::query_scalar!(
        r#"select passkey as "passkey: Json<Passkey>"
        from passkeys
        where person_id = $1
        order by created_at, credential_id"#,
        person as PersonId,
    )
    .fetch_all(tx)
    .await?;
    Ok(passkeys.into_iter().map(|passkey| passkey.0).collect())
}

pub(super) async fn list(
    tx: &mut PgConnection,
    person: PersonId,
) -> Result<Vec<PasskeySummary>, Error> {
    let rows = sqlx::query!(
        r#"select
            credential_id,
            name,
            created_at as "created_at: Timestamp",
            last_used_at as "last_used_at: Timestamp"
        from passkeys
        where person_id = $1
        order by created_at, credential_id"#,
        person as PersonId,
    )
    .fetch_all(tx)
    .await?;
    let summaries = rows.into_iter().map(|row| PasskeySummary {
        id: PasskeyId(row.credential_id),
        name: row.name,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
    });
    Ok(summaries.collect())
}

pub(super) async fn set_used(
    tx: &mut PgConnection,
    passkey: &Passkey,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update passkeys
        set passkey = $2, last_used_at = $3
        where credential_id = $1",
        passkey.cred_id().as_slice(),
        Json(passkey) as Json<&Passkey>,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// False if the person has no such passkey.
pub(super) async fn rename(
    tx: &mut PgConnection,
    person: PersonId,
    id: &PasskeyId,
    name: &str,
) -> Result<bool, Error> {
    let renamed = sqlx::query!(
        "update passkeys
        set name = $3
        where credential_id = $1 and person_id = $2",
        id.0,
        person as PersonId,
        name,
    )
    .execute(tx)
    .await?;
    Ok(renamed.rows_affected() > 0)
}

/// False if the person has no such passkey.
pub(super) async fn delete(
    tx: &mut PgConnection,
    person: PersonId,
    id: &PasskeyId,
) -> Result<bool, Error> {
    let deleted = sqlx::query!(
        "delete from passkeys
        where credential_id = $1 and person_id = $2",
        id.0,
        person as PersonId,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected() > 0)
}
