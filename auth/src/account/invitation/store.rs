//! The invitations' statements. A global table. Of links there are hashes only.

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

use super::{Invitation, InvitationId, InvitationView, Invited};
use crate::account::{Role, token::Hash};

fn invited(merchant: Option<MerchantId>, role: Option<Role>, is_operator: bool) -> Invited {
    match (merchant, role) {
        (Some(merchant), Some(role)) => Invited::Staff { merchant, role },
        _ if is_operator => Invited::Operator,
        _ => Invited::Developer,
    }
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    invitation: &Invitation,
    token: &Hash,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into invitations
            (id, token_sha256, merchant_id, role, is_operator, is_developer, label, invited_by, created_at, expires_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        invitation.id as InvitationId,
        token,
        invitation.invited.merchant() as Option<MerchantId>,
        invitation.invited.role() as Option<Role>,
        invitation.invited == Invited::Operator,
        invitation.invited == Invited::Developer,
        invitation.label,
        invitation.invited_by as Option<PersonId>,
        invitation.created_at as Timestamp,
        invitation.expires_at as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What an invitation that waits is shown as. One whose inviter may not invite any more is gone.
pub(super) async fn view(
    tx: &mut PgConnection,
    token: &Hash,
    now: Timestamp,
) -> Result<Option<InvitationView>, Error> {
    let row = sqlx::query!(
        r#"select
            merchant_id as "merchant_id: MerchantId",
            role as "role: Role",
            invitations.is_operator,
            label,
            expires_at as "expires_at: Timestamp",
            (select name from merchants where merchants.id = merchant_id) as merchant_name,
            (select name from persons where persons.id = invited_by) as inviter_name
        from invitations
        where token_sha256 = $1
            and accepted_at is null
            and withdrawn_at is null
            and expires_at > $2
            and (invited_by is null or exists (
                select 1
                from persons
                where persons.id = invited_by
                    and disabled_at is null
                    and (persons.is_operator or exists (
                        select 1
                        from memberships
                        where memberships.merchant_id = invitations.merchant_id
                            and person_id = invited_by
                            and memberships.role = 'owner'))))"#,
        token,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| InvitationView {
        invited: invited(row.merchant_id, row.role, row.is_operator),
        merchant_name: row.merchant_name,
        inviter_name: row.inviter_name,
        label: row.label,
        expires_at: row.expires_at,
    }))
}

/// Takes an invitation that waits, under the same conditions as [`view`]; of two at once one gets it.
pub(super) async fn accept(
    tx: &mut PgConnection,
    token: &Hash,
    person: PersonId,
    now: Timestamp,
) -> Result<Option<(InvitationId, Invited)>, Error> {
    let row = sqlx::query!(
        r#"update invitations
        set accepted_at = $3, accepted_by = $2
        where token_sha256 = $1
            and accepted_at is null
            and withdrawn_at is null
            and expires_at > $3
            and (invited_by is null or exists (
                select 1
                from persons
                where persons.id = invited_by
                    and disabled_at is null
                    and (persons.is_operator or exists (
                        select 1
                        from memberships
                        where memberships.merchant_id = invitations.merchant_id
                            and person_id = invited_by
                            and memberships.role = 'owner'))))
        returning
            id as "id: InvitationId",
            merchant_id as "merchant_id: MerchantId",
            role as "role: Role",
            is_operator"#,
        token,
        person as PersonId,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| (row.id, invited(row.merchant_id, row.role, row.is_operator))))
}

/// To what an invitation that waits invites.
pub(super) async fn select(
    tx: &mut PgConnection,
    id: InvitationId,
    now: Timestamp,
) -> Result<Option<Invited>, Error> {
    let row = sqlx::query!(
        r#"select merchant_id as "merchant_id: MerchantId", role as "role: Role", is_operator
        from invitations
        where id = $1
            and accepted_at is null
            and withdrawn_at is null
            and expires_at > $2"#,
        id as InvitationId,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| invited(row.merchant_id, row.role, row.is_operator)))
}

/// Those to `merchant` that wait, or with none those to no merchant, the newest first.
pub(super) async fn list(
    tx: &mut PgConnection,
    merchant: Option<MerchantId>,
    now: Timestamp,
) -> Result<Vec<Invitation>, Error> {
    let rows = sqlx::query!(
        r#"select
            id as "id: InvitationId",
            merchant_id as "merchant_id: MerchantId",
            role as "role: Role",
            is_operator,
            label,
            invited_by as "invited_by: PersonId",
            created_at as "created_at: Timestamp",
            expires_at as "expires_at: Timestamp"
        from invitations
        where merchant_id is not distinct from $1
            and accepted_at is null
            and withdrawn_at is null
            and expires_at > $2
        order by created_at desc, id desc"#,
        merchant as Option<MerchantId>,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    let listed = rows.into_iter().map(|row| Invitation {
        id: row.id,
        invited: invited(row.merchant_id, row.role, row.is_operator),
        label: row.label,
        invited_by: row.invited_by,
        created_at: row.created_at,
        expires_at: row.expires_at,
    });
    Ok(listed.collect())
}

/// False if it was accepted or withdrawn meanwhile.
pub(super) async fn withdraw(
    tx: &mut PgConnection,
    id: InvitationId,
    now: Timestamp,
) -> Result<bool, Error> {
    let withdrawn = sqlx::query!(
        "update invitations
        set withdrawn_at = $2
        where id = $1 and accepted_at is null and withdrawn_at is null",
        id as InvitationId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(withdrawn.rows_affected() > 0)
}

pub(in crate::account) async fn delete_expired(
    tx: &mut PgConnection,
    now: Timestamp,
) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from invitations
        where expires_at <= $1",
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected())
}
