//! Authorization codes (RFC 6749, sections 4.1.2 and 10.5): 256 random bits that stand for a decision, good once, for a minute, for the client and
//! the redirect URI of the request and for whoever knows the verifier of its challenge.
//!
//! A code is kept, as its hash, for a day after it is over: one that comes again then is known for a replay.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    db,
    id::{AppId, GrantId, MerchantId, PersonId},
    scope::ScopeSet,
};
use sqlx::PgConnection;

use super::{pkce::Challenge, store};
use crate::{client::secret::Secret, token::family::FamilyId};

/// How long a code is good: long enough for a redirect and a request.
pub const LIFETIME: Duration = Duration::from_mins(1);

/// Wrong verifiers that burn a code.
pub const WRONG_VERIFIERS_MAX: i32 = 3;

/// How long a code is kept when it is over.
pub(super) const KEPT: Duration = Duration::from_hours(24);

/// What a code begins with, so that scanners for leaked secrets find it.
const PREFIX: &str = "stoa_code_";

/// What a code stands for.
#[derive(Debug)]
pub(crate) struct Code {
    /// The client that it is for.
    pub(crate) app: AppId,
    /// Whose decision it stands for.
    pub(crate) merchant: MerchantId,
    /// The grant that came of the decision.
    pub(crate) grant: GrantId,
    /// Who decided.
    pub(crate) person: PersonId,
    /// The redirect URI of the request, as it was sent.
    pub(crate) redirect_uri: String,
    /// The hash of the verifier.
    pub(crate) challenge: Challenge,
    /// What was asked for and given.
    pub(crate) scopes: ScopeSet,
    /// When it is over.
    pub(crate) expires_at: Timestamp,
    /// How often it came with a wrong verifier.
    pub(crate) wrong_verifiers: i32,
    /// When it was exchanged for tokens.
    pub(crate) redeemed_at: Option<Timestamp>,
    /// The family of those tokens.
    pub(crate) family: Option<FamilyId>,
}

/// Makes a code for what `code` says.
pub(super) async fn issue(
    tx: &mut PgConnection,
    code: &Code,
    now: Timestamp,
) -> Result<Secret, db::Error> {
    let secret = Secret::generate(PREFIX);
    store::insert_code(tx, &secret.sha256(), code, now).await?;
    Ok(secret)
}

/// What `secret` stands for, locked: only one redeems it. `None`: there is no such code, or none any more.
pub(crate) async fn lock(
    tx: &mut PgConnection,
    secret: &Secret,
) -> Result<Option<Code>, db::Error> {
    store::select_code_for_update(tx, &secret.sha256()).await
}

/// Notes that `secret` came with a wrong verifier.
pub(crate) async fn note_wrong_verifier(
    tx: &mut PgConnection,
    secret: &Secret,
) -> Result<(), db::Error> {
    store::count_wrong_verifier(tx, &secret.sha256()).await
}

/// Notes that `secret` was exchanged for the tokens of `family` at `now`.
pub(crate) async fn note_redeemed(
    tx: &mut PgConnection,
    secret: &Secret,
    family: FamilyId,
    now: Timestamp,
) -> Result<(), db::Error> {
    store::mark_code_redeemed(tx, &secret.sha256(), family, now).await
}
