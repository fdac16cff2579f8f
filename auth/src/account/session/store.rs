//! The sessions' statements. A global table. Of tokens there are hashes only.

#![allow(
    clippy::as_conversions,
    reason = "sqlx's macros spell a bind's type with `as`"
)]

use kernel::{
    caller::Caller,
    clock::Timestamp,
    db::Error,
    id::{MerchantId, PersonId},
};
use sqlx::PgConnection;

use super::{Factor, Membership, Person, Role, Session, SessionId, SessionSummary};
use crate::account::token::Hash;

/// A session to be.
pub(super) struct NewRow<'a> {
    pub(super) id: SessionId,
    pub(super) token: Hash,
    pub(super) person: PersonId,
    pub(super) factors: &'a [Factor],
    pub(super) expires_at: Timestamp,
}

pub(super) async fn insert(
    tx: &mut PgConnection,
    row: &NewRow<'_>,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into sessions
            (id, token_sha256, person_id, created_at, last_seen_at, expires_at, authenticated_at, factors, address, user_agent)
        values ($1, $2, $3, $4, $4, $5, $4, $6, $7, $8)",
        row.id as SessionId,
        &row.token,
        row.person as PersonId,
        now as Timestamp,
        row.expires_at as Timestamp,
        row.factors as &[Factor],
        caller.address.map(|address| address.to_string()),
        caller.user_agent,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A living session that was seen after `seen_after`, without its memberships; and when it was last seen.
pub(super) async fn select(
    tx: &mut PgConnection,
    token: &Hash,
    seen_after: Timestamp,
    now: Timestamp,
) -> Result<Option<(Session, Timestamp)>, Error> {
    let row = sqlx::query!(
        r#"select
            sessions.id as "id: SessionId",
            sessions.created_at as "created_at: Timestamp",
            last_seen_at as "last_seen_at: Timestamp",
            authenticated_at as "authenticated_at: Timestamp",
            factors as "factors: Vec<Factor>",
            persons.id as "person_id: PersonId",
            login,
            name,
            is_operator,
            is_developer,
            password_hash is not null as "has_password!",
            sealed_totp_secret is not null as "has_totp!",
            version,
            persons.created_at as "person_created_at: Timestamp"
        from sessions
        join persons on persons.id = sessions.person_id
        where token_sha256 = $1
            and ended_at is null
            and expires_at > $3
            and last_seen_at > $2
            and disabled_at is null"#,
        token,
        seen_after as Timestamp,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| {
        let session = Session {
            id: row.id,
            person: Person {
                id: row.person_id,
                login: row.login,
                name: row.name,
                is_operator: row.is_operator,
                is_developer: row.is_developer,
                has_password: row.has_password,
                has_totp: row.has_totp,
                version: row.version,
                created_at: row.person_created_at,
            },
            memberships: Vec::new(),
            authenticated_at: row.authenticated_at,
            factors: row.factors,
            created_at: row.created_at,
        };
        (session, row.last_seen_at)
    }))
}

/// Where the person is staff, by the merchants' names.
pub(in crate::account) async fn select_memberships(
    tx: &mut PgConnection,
    person: PersonId,
) -> Result<Vec<Membership>, Error> {
    let memberships = sqlx::query_as!(
        Membership,
        r#"select
            merchant_id as "merchant: MerchantId",
            merchants.name as merchant_name,
            role as "role: Role"
        from memberships
        join merchants on merchants.id = merchant_id
        where person_id = $1
        order by merchants.name, merchant_id"#,
        person as PersonId,
    )
    .fetch_all(tx)
    .await?;
    Ok(memberships)
}

pub(super) async fn touch(
    tx: &mut PgConnection,
    id: SessionId,
    now: Timestamp,
) -> Result<(), Error> {
    sqlx::query!(
        "update sessions
        set last_seen_at = greatest(last_seen_at, $2)
        where id = $1",
        id as SessionId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The person's living sessions that were seen after `seen_after`, the last used first.
pub(super) async fn list(
    tx: &mut PgConnection,
    person: PersonId,
    current: SessionId,
    seen_after: Timestamp,
    now: Timestamp,
) -> Result<Vec<SessionSummary>, Error> {
    let sessions = sqlx::query_as!(
        SessionSummary,
        r#"select
            id as "id: SessionId",
            created_at as "created_at: Timestamp",
            last_seen_at as "last_seen_at: Timestamp",
            address,
            user_agent,
            factors as "factors: Vec<Factor>",
            id = $2 as "is_current!"
        from sessions
        where person_id = $1
            and ended_at is null
            and expires_at > $4
            and last_seen_at > $3
        order by last_seen_at desc, id desc"#,
        person as PersonId,
        current as SessionId,
        seen_after as Timestamp,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(sessions)
}

/// Puts a new token in the place of the old one; `None` if the session has ended. When it ends at the latest stays as it was.
pub(super) async fn renew(
    tx: &mut PgConnection,
    person: PersonId,
    id: SessionId,
    token: &Hash,
    factors: &[Factor],
    caller: &Caller,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let expires_at = sqlx::query_scalar!(
        r#"update sessions
        set token_sha256 = $3, factors = $4, address = $5, user_agent = $6, authenticated_at = $7, last_seen_at = $7
        where id = $2
            and person_id = $1
            and ended_at is null
            and expires_at > $7
        returning expires_at as "expires_at: Timestamp""#,
        person as PersonId,
        id as SessionId,
        token,
        factors as &[Factor],
        caller.address.map(|address| address.to_string()),
        caller.user_agent,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(expires_at)
}

/// Whether the session lives.
pub(in crate::account) async fn is_living(
    tx: &mut PgConnection,
    person: PersonId,
    id: SessionId,
    now: Timestamp,
) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"select true as "found!"
        from sessions
        where id = $2
            and person_id = $1
            and ended_at is null
            and expires_at > $3"#,
        person as PersonId,
        id as SessionId,
        now as Timestamp,
    )
    .fetch_optional(tx)
    .await?;
    Ok(found.is_some())
}

/// Ends a session; false if it had ended.
pub(super) async fn end(
    tx: &mut PgConnection,
    person: PersonId,
    id: SessionId,
    now: Timestamp,
) -> Result<bool, Error> {
    let ended = sqlx::query!(
        "update sessions
        set ended_at = $3
        where id = $2
            and person_id = $1
            and ended_at is null
            and expires_at > $3",
        person as PersonId,
        id as SessionId,
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(ended.rows_affected() > 0)
}

/// Ends all of the person's sessions but `kept`, and names them.
pub(super) async fn end_others(
    tx: &mut PgConnection,
    person: PersonId,
    kept: Option<SessionId>,
    now: Timestamp,
) -> Result<Vec<SessionId>, Error> {
    let ended = sqlx::query_scalar!(
        r#"update sessions
        set ended_at = $3
        where person_id = $1
            and ended_at is null
            and expires_at > $3
            and ($2::uuid is null or id <> $2)
        returning id as "id: SessionId""#,
        person as PersonId,
        kept as Option<SessionId>,
        now as Timestamp,
    )
    .fetch_all(tx)
    .await?;
    Ok(ended)
}

pub(in crate::account) async fn delete_expired(
    tx: &mut PgConnection,
    now: Timestamp,
) -> Result<u64, Error> {
    let deleted = sqlx::query!(
        "delete from sessions
        where expires_at <= $1",
        now as Timestamp,
    )
    .execute(tx)
    .await?;
    Ok(deleted.rows_affected())
}
