//! Refresh tokens (RFC 6749, section 1.5) in families: all that came from one code, of which one at a time is good.
//!
//! Each use exchanges a token for its successor (RFC 9700, section 4.14.2). A client whose answer was lost may ask again for a short while and gets the
//! same successor, which is kept sealed under a key that only the predecessor opens. A token that comes when its successor is known to be in
//! somebody's hands, or later than that while, has been copied: nobody can tell who holds the copy, so the family ends as a whole, and with it every
//! access token of its grant.
//!
//! Whoever reads a family's tokens to change something holds the lock of the family's row, and takes the grant's after it.

use std::time::Duration;

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db,
    id::{AppId, GrantId, Id, Kind, MerchantId, PersonId},
    keyring::DataKey,
    scope::ScopeSet,
};
use sqlx::PgConnection;

use crate::{
    Error,
    client::secret::Secret,
    grant::{self, Grant},
};

mod store;

/// How long a token may lie unused.
pub const IDLE_MAX: Duration = Duration::from_hours(30 * 24);

/// For how long a client may ask again for an answer that was lost.
pub const RETRY_GRACE: Duration = Duration::from_secs(30);

/// What a refresh token begins with, so that scanners for leaked secrets find it.
const PREFIX: &str = "stoa_refresh_";

/// What the key is for that a token stands for.
const SUCCESSOR_PURPOSE: &str = "refresh successor";

/// All refresh tokens that came from one code.
#[derive(Debug, Clone)]
pub struct Family {
    /// The family.
    pub id: FamilyId,
    /// The client that its tokens are for.
    pub app: AppId,
    /// Whose grant it is.
    pub merchant: MerchantId,
    /// The grant.
    pub grant: GrantId,
    /// Who consented.
    pub person: Option<PersonId>,
    /// What the app asked for and was given; a token has what is left of it in the grant.
    pub scopes: ScopeSet,
    /// Since when.
    pub created_at: Timestamp,
    /// Since when no token of it is taken any more.
    pub ended_at: Option<Timestamp>,
}

impl Kind for Family {
    const PREFIX: &'static str = "fam";
}

/// The id of a family.
pub type FamilyId = Id<Family>;

/// Why a family ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub(crate) enum EndReason {
    /// The code that it came from was used again.
    CodeReused,
    /// A token of it was used again.
    TokenReused,
    /// Its client has revoked it (RFC 7009).
    Revoked,
}

impl EndReason {
    fn entry(self) -> NewEntry {
        match self {
            Self::CodeReused => NewEntry::refused("authorization_code.reused"),
            Self::TokenReused => NewEntry::refused("refresh_token.reused"),
            Self::Revoked => NewEntry::succeeded("refresh_family.ended"),
        }
    }
}

/// A refresh token as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct RefreshToken {
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// When it ends if nobody uses it.
    pub(crate) expires_at: Timestamp,
    /// When it was exchanged for its successor.
    pub(crate) rotated_at: Option<Timestamp>,
    /// The successor, for the holder of this token.
    sealed_successor: Option<Vec<u8>>,
    /// When the successor was exchanged itself, and so was in its holder's hands.
    successor_rotated_at: Option<Timestamp>,
}

/// What a token is when it is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The one that is good.
    Good,
    /// It has been exchanged a moment ago, and the answer may have been lost: the same answer is due.
    Retried,
    /// It was on its way while another request used its successor: too late, and no sign of a copy.
    Overtaken,
    /// Nobody has used it for too long.
    Expired,
    /// It was used again when that could not be a retry any more.
    Reused,
}

impl RefreshToken {
    /// What it is to a request that arrived at `arrived`.
    pub(crate) fn standing(&self, arrived: Timestamp) -> Standing {
        match (self.rotated_at, self.successor_rotated_at) {
            (None, _) if arrived >= self.expires_at => Standing::Expired,
            (None, _) => Standing::Good,
            (Some(_), Some(used_at)) if arrived <= used_at => Standing::Overtaken,
            (Some(rotated_at), None) if arrived.since(rotated_at) <= RETRY_GRACE => {
                Standing::Retried
            }
            (Some(_), _) => Standing::Reused,
        }
    }
}

/// Whether `token` is meant for one: it begins as they do.
pub(crate) fn is_refresh_token(token: &Secret) -> bool {
    token.expose().starts_with(PREFIX)
}

/// Begins `family` under `grant`, and answers its first token.
pub(crate) async fn begin(
    tx: &mut PgConnection,
    family: &Family,
    grant: &Grant,
    now: Timestamp,
) -> Result<Secret, db::Error> {
    store::insert(tx, family).await?;
    let token = Secret::generate(PREFIX);
    store::insert_token(
        tx,
        &token.sha256(),
        family.id,
        now,
        end_of_token(grant, now),
    )
    .await?;
    Ok(token)
}

/// A token lasts as long as it may lie unused, and never beyond its grant.
fn end_of_token(grant: &Grant, now: Timestamp) -> Timestamp {
    let idle = now.plus(IDLE_MAX);
    grant.expires_at.map_or(idle, |end| idle.min(end))
}

/// The family `id`, locked.
pub(crate) async fn lock(tx: &mut PgConnection, id: FamilyId) -> Result<Option<Family>, db::Error> {
    store::select_for_update(tx, id).await
}

/// The family of `token`, locked, and the token as it is under that lock. `None`: there is no such token, or none any more.
pub(crate) async fn lock_by_token(
    tx: &mut PgConnection,
    token: &Secret,
) -> Result<Option<(Family, RefreshToken)>, db::Error> {
    let hash = token.sha256();
    let Some(family) = store::select_by_token_for_update(tx, &hash).await? else {
        return Ok(None);
    };
    // A statement of its own: only now is seen what whoever held the lock has written.
    let token = store::select_token(tx, &hash).await?;
    Ok(token.map(|token| (family, token)))
}

/// The family of `token` and the token, to look at only.
pub(crate) async fn find_by_token(
    tx: &mut PgConnection,
    token: &Secret,
) -> Result<Option<(Family, RefreshToken)>, db::Error> {
    let hash = token.sha256();
    let Some(family) = store::select_by_token(tx, &hash).await? else {
        return Ok(None);
    };
    let token = store::select_token(tx, &hash).await?;
    Ok(token.map(|token| (family, token)))
}

/// Exchanges `token`, which is good, for its successor. The family's row must be locked.
pub(crate) async fn rotate(
    tx: &mut PgConnection,
    family: &Family,
    token: &Secret,
    grant: &Grant,
    now: Timestamp,
) -> Result<Secret, Error> {
    let successor = Secret::generate(PREFIX);
    let sealed =
        successor_key(token)?.seal(&family.id.to_string(), successor.expose().as_bytes())?;
    let (hash, successor_hash) = (token.sha256(), successor.sha256());
    store::insert_token(
        tx,
        &successor_hash,
        family.id,
        now,
        end_of_token(grant, now),
    )
    .await?;
    store::mark_rotated(tx, &hash, &successor_hash, &sealed, now).await?;
    Ok(successor)
}

/// The successor that `token` was exchanged for already.
pub(crate) fn successor(
    family: &Family,
    token: &Secret,
    kept: &RefreshToken,
) -> Result<Secret, Error> {
    let sealed = kept.sealed_successor.as_deref().unwrap_or_default();
    let opened = successor_key(token)?.open(&family.id.to_string(), sealed)?;
    let text = str::from_utf8(&opened)
        .map_err(|cause| db::Error::corrupt("refresh_tokens", family.id, cause))?;
    Ok(Secret::new(text.to_owned()))
}

fn successor_key(token: &Secret) -> Result<DataKey, kernel::keyring::Error> {
    DataKey::derive(token.expose().as_bytes(), SUCCESSOR_PURPOSE)
}

/// Ends `family` and every access token of its grant; one that has ended stays as it is. Its row must be locked, and the transaction must have entered
/// its merchant.
pub(crate) async fn end(
    tx: &mut PgConnection,
    caller: &Caller,
    family: &Family,
    reason: EndReason,
    now: Timestamp,
) -> Result<(), Error> {
    if family.ended_at.is_some() {
        return Ok(());
    }
    store::mark_ended(tx, family.id, reason, now).await?;
    grant::raise_epoch(tx, family.merchant, family.grant, now).await?;
    let entry = reason
        .entry()
        .by_app(family.app)
        .to("refresh_family", family.id)
        .with(serde_json::json!({"grantId": family.grant, "consentedBy": family.person}));
    audit::record(tx, Log::Merchant(family.merchant), caller, now, &entry).await?;
    tracing::warn!(family.id = %family.id, family.end = ?reason, app.id = %family.app, "refresh family ended");
    Ok(())
}

/// Deletes tokens that have expired, and families that have none left, a batch at a time. `worker` is a pool of the worker role.
pub async fn sweep(worker: &db::Database, now: Timestamp) -> Result<u64, db::Error> {
    store::delete_expired(worker, now).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_retried_for_a_short_while() {
        let at = |seconds: i64| Timestamp::from_unix_millis(seconds * 1_000);
        let token = |rotated: Option<i64>, used: Option<i64>| RefreshToken {
            created_at: at(0),
            expires_at: at(1_000),
            rotated_at: rotated.map(at),
            sealed_successor: None,
            successor_rotated_at: used.map(at),
        };
        for (rotated, used, arrived, expected) in [
            (None, None, 999, Standing::Good),
            (None, None, 1_000, Standing::Expired),
            (Some(100), None, 99, Standing::Retried),
            (Some(100), None, 130, Standing::Retried),
            (Some(100), None, 131, Standing::Reused),
            (Some(100), Some(110), 110, Standing::Overtaken),
            (Some(100), Some(110), 111, Standing::Reused),
            (Some(100), Some(500), 501, Standing::Reused),
        ] {
            assert_eq!(
                token(rotated, used).standing(at(arrived)),
                expected,
                "{rotated:?} {used:?} {arrived}"
            );
        }
    }
}
