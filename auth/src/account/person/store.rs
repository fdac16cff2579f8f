//! The people's statements. A global table. Passwords are there as hashes, the secrets of time-based codes sealed.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{clock::Timestamp, db::Error, id::PersonId};
use sqlx::PgConnection;

use super::{ListedPerson, Person};

/// What a person proves themselves by, and whether they may.
pub(in crate::account) struct Credentials {
    pub(in crate::account) id: PersonId,
    pub(in crate::account) login: String,
    pub(in crate::account) name: String,
    pub(in crate::account) password_hash: Option<String>,
    pub(in crate::account) sealed_totp_secret: Option<Vec<u8>>,
    pub(in crate::account) is_disabled: bool,
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    person: &Person,
    password_hash: Option<&str>,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into persons (id, login, name, password_hash, is_operator, is_developer, version, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8)",
        person.id as PersonId,
        person.login,
        person.name,
        password_hash,
        person.is_operator,
        person.is_developer,
        person.version,
        person.created_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(in crate::account) async fn select_by_login(
    tx: &mut PgConnection,
    login: &str,
) -> Result<Option<Credentials>, Error> {
    let credentials = sqlx::query_as!(
        Credentials,
        r#"select
            id as "id: PersonId",
            login,
            name,
            password_hash,
            sealed_totp_secret,
            disabled_at is not null as "is_disabled!"
        from persons
        where login = $1"#,
        login,
    )
    .fetch_optional(tx)
    .await?;
    Ok(credentials)
}

pub(in crate::account) async fn select(
    tx: &mut PgConnection,
    id: PersonId,
) -> Result<Option<Credentials>, Error> {
    let credentials = sqlx::query_as!(
        Credentials,
        r#"select
            id as "id: PersonId",
            login,
            name,
            password_hash,
            sealed_totp_secret,
            disabled_at is not null as "is_disabled!"
        from persons
        where id = $1"#,
        id as PersonId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(credentials)
}

/// The same, and until the end of the transaction nobody changes it.
pub(in crate::account) async fn lock(
    tx: &mut PgConnection,
    id: PersonId,
) -> Result<Option<Credentials>, Error> {
    let credentials = sqlx::query_as!(
        Credentials,
        r#"select
            id as "id: PersonId",
            login,
            name,
            password_hash,
            sealed_totp_secret,
            disabled_at is not null as "is_disabled!"
        from persons
        where id = $1
        for update"#,
        id as PersonId,
    )
    .fetch_optional(tx)
    .await?;
    Ok(credentials)
}

/// Puts a newer hash of the same password in the place of `old`.
pub(in crate::account) async fn replace_hash(
    tx: &mut PgConnection,
    id: PersonId,
    old: &str,
    new: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "update persons
        set password_hash = $3
        where id = $1 and password_hash = $2",
        id as PersonId,
        old,
        new,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn set_password(
    tx: &mut PgConnection,
    id: PersonId,
    hash: &str,
) -> Result<(), Error> {
    sqlx::query!(
        "update persons
        set password_hash = $2, version = version + 1
        where id = $1",
        id as PersonId,
        hash,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn set_name(tx: &mut PgConnection, id: PersonId, name: &str) -> Result<(), Error> {
    sqlx::query!(
        "update persons
        set name = $2, version = version + 1
        where id = $1",
        id as PersonId,
        name,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes the person an operator or a developer, or both; takes neither away.
pub(in crate::account) async fn add_flags(
    tx: &mut PgConnection,
    id: PersonId,
    is_operator: bool,
    is_developer: bool,
) -> Result<(), Error> {
    sqlx::query!(
        "update persons
        set is_operator = is_operator or $2, is_developer = is_developer or $3, version = version + 1
        where id = $1",
        id as PersonId,
        is_operator,
        is_developer,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The secret of time-based codes, sealed, and the step whose code has proved it; none: there are no such codes any more.
pub(in crate::account) async fn set_totp(
    tx: &mut PgConnection,
    id: PersonId,
    sealed_secret: Option<&[u8]>,
    step_used: Option<i64>,
) -> Result<(), Error> {
    sqlx::query!(
        "update persons
        set sealed_totp_secret = $2, totp_step_used = $3, version = version + 1
        where id = $1",
        id as PersonId,
        sealed_secret,
        step_used,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Uses the code of a step up, and of all steps before; false if it is used up.
pub(in crate::account) async fn use_totp_step(
    tx: &mut PgConnection,
    id: PersonId,
    step: i64,
) -> Result<bool, Error> {
    let used = sqlx::query!(
        "update persons
        set totp_step_used = $2
        where id = $1 and (totp_step_used is null or totp_step_used < $2)",
        id as PersonId,
        step,
    )
    .execute(tx)
    .await?;
    Ok(used.rows_affected() > 0)
}

/// False if there is no such person.
pub(super) async fn set_disabled(
    tx: &mut PgConnection,
    id: PersonId,
    disabled_at: Option<Timestamp>,
) -> Result<bool, Error> {
    let changed = sqlx::query!(
        "update persons
        set disabled_at = $2, version = version + 1
        where id = $1",
        id as PersonId,
        disabled_at as Option<Timestamp>,
    )
    .execute(tx)
    .await?;
    Ok(changed.rows_affected() > 0)
}

/// In how many ways the person can sign in: password, passkeys, upstream.
pub(in crate::account) async fn count_ways_in(
    tx: &mut PgConnection,
    id: PersonId,
) -> Result<i64, Error> {
    let count = sqlx::query_scalar!(
        r#"select
            (select count(*) from persons where id = $1 and password_hash is not null)
            + (select count(*) from passkeys where person_id = $1)
            + (select count(*) from person_identities where person_id = $1) as "count!""#,
        id as PersonId,
    )
    .fetch_one(tx)
    .await?;
    Ok(count)
}

pub(super) async fn list(
    tx: &mut PgConnection,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<ListedPerson>, Error> {
    let rows = sqlx::query!(
        r#"select
            id as "id: PersonId",
            login,
            name,
            is_operator,
            is_developer,
            password_hash is not null as "has_password!",
            sealed_totp_secret is not null as "has_totp!",
            version,
            created_at as "created_at: Timestamp",
            disabled_at as "disabled_at: Timestamp",
            (select count(*) from memberships where person_id = persons.id) as "merchants!"
        from persons
        where $1::text is null or login > $1 collate "C"
        order by login
        limit $2"#,
        after,
        limit,
    )
    .fetch_all(tx)
    .await?;
    let listed = rows.into_iter().map(|row| ListedPerson {
        person: Person {
            id: row.id,
            login: row.login,
            name: row.name,
            is_operator: row.is_operator,
            is_developer: row.is_developer,
            has_password: row.has_password,
            has_totp: row.has_totp,
            version: row.version,
            created_at: row.created_at,
        },
        merchants: row.merchants,
        disabled_at: row.disabled_at,
    });
    Ok(listed.collect())
}
