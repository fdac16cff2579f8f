//! The memberships' statements. A global table: the merchant is bound all the same.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    clock::Timestamp,
    db::Error,
    id::{MerchantId, PersonId},
};
use sqlx::PgConnection;

use super::{Role, Staff};

/// One of a merchant's staff, locked.
pub(super) struct Locked {
    pub(super) person: PersonId,
    pub(super) role: Role,
    pub(super) is_disabled: bool,
}

/// Locks the merchant, so that its staff is changed by one at a time, and reads them.
pub(super) async fn lock(
    tx: &mut PgConnection,
    merchant: MerchantId,
) -> Result<Vec<Locked>, Error> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtext('stoa.memberships'), hashtext($1))",
        merchant.to_string(),
    )
    .execute(&mut *tx)
    .await?;
    let staff = sqlx::query_as!(
        Locked,
        r#"select
            person_id as "person: PersonId",
            role as "role: Role",
            disabled_at is not null as "is_disabled!"
        from memberships
        join persons on persons.id = person_id
        where merchant_id = $1"#,
        merchant as MerchantId,
    )
    .fetch_all(tx)
    .await?;
    Ok(staff)
}

pub(super) async fn list(tx: &mut PgConnection, merchant: MerchantId) -> Result<Vec<Staff>, Error> {
    let staff = sqlx::query_as!(
        Staff,
        r#"select
            person_id as "person: PersonId",
            login,
            name,
            role as "role: Role",
            disabled_at is not null as "is_disabled!",
            memberships.created_at as "created_at: Timestamp"
        from memberships
        join persons on persons.id = person_id
        where merchant_id = $1
        order by name, person_id"#,
        merchant as MerchantId,
    )
    .fetch_all(tx)
    .await?;
    Ok(staff)
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    merchant: MerchantId,
    person: PersonId,
    role: Role,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into memberships (merchant_id, person_id, role, created_at)
        values ($1, $2, $3, $4)",
        merchant as MerchantId,
        person as PersonId,
        role as Role,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    person: PersonId,
    role: Role,
) -> Result<(), Error> {
    sqlx::query!(
        "update memberships
        set role = $3
        where merchant_id = $1 and person_id = $2",
        merchant as MerchantId,
        person as PersonId,
        role as Role,
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn delete(
    tx: &mut PgConnection,
    merchant: MerchantId,
    person: PersonId,
) -> Result<(), Error> {
    sqlx::query!(
        "delete from memberships
        where merchant_id = $1 and person_id = $2",
        merchant as MerchantId,
        person as PersonId,
    )
    .execute(tx)
    .await?;
    Ok(())
}
