//! The view of the grants: by which every process feels within a second that a grant was revoked or narrowed.
//!
//! Every 250 ms a process rereads the grants changed in the last quarter of an hour. A token lasts ten minutes, so a grant that is not among
//! them is as it was when the token was issued, and nobody has to be asked. Once the view is older than 800 ms, the database itself is asked
//! for the one grant; if it does not answer, the token is not accepted.
//!
//! The same rereads keep the access of grants fresh for those who act without a token: deliveries and streams ask [`GrantView::access`].

use std::{
    collections::HashMap,
    fmt,
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use futures_util::future::BoxFuture;
use kernel::{
    actor::{Access, AccessSource},
    clock::{Clock, Timestamp},
    db::{self, Database},
    id::{GrantId, MerchantId},
};

use super::{Grant, store};
use crate::{Error, TokenFault, deadline, token};

/// Between two rereads.
pub const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// A view older than this is not relied on. With the interval before and the time of a reread after it, a change is felt within a second.
pub const VIEW_AGE_MAX: Duration = Duration::from_millis(800);

/// How far back a reread looks: longer than a token lasts, with minutes to spare for clocks that differ and for transactions that commit after
/// the time that they have written.
pub const WINDOW: Duration = Duration::from_mins(15);

const _: () = assert!(
    WINDOW.as_secs() > token::LIFETIME.as_secs() + 240,
    "a token must not outlive the view's window"
);

/// Grants kept because somebody asked for their access; beyond that the memory starts anew.
const LOADED_MAX: usize = 50_000;

/// What a token claims of its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The merchant of the token's resource.
    pub merchant: MerchantId,
    /// The grant.
    pub grant: GrantId,
    /// The grant's epoch when the token was issued.
    pub epoch: i64,
}

/// What is known of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    merchant: MerchantId,
    access: Access,
    expires_at: Option<Timestamp>,
    is_revoked: bool,
    epoch: i64,
}

impl From<Grant> for Known {
    fn from(grant: Grant) -> Self {
        Self {
            merchant: grant.merchant_id,
            access: grant.access(),
            expires_at: grant.expires_at,
            is_revoked: grant.revoked_at.is_some(),
            epoch: grant.epoch,
        }
    }
}

impl Known {
    fn is_living(&self, merchant: MerchantId, now: Timestamp) -> bool {
        self.merchant == merchant && !self.is_revoked && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether a token that holds `held` is still good.
    fn judge(&self, held: &Held, now: Timestamp) -> Result<(), TokenFault> {
        if !self.is_living(held.merchant, now) {
            return Err(TokenFault::GrantEnded);
        }
        if held.epoch < self.epoch {
            Err(TokenFault::GrantNarrowed)
        } else {
            Ok(())
        }
    }
}

/// What the view alone can say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The grant lives and has not been narrowed since.
    Accept,
    /// The token is refused.
    Refuse(TokenFault),
    /// The view is too old: the database must be asked.
    AskDatabase,
}

/// Decides by the view: `read_at` is when its last reread began, `known` what that holds of the grant.
pub fn decide(
    read_at: Option<Timestamp>,
    known: Option<&Known>,
    held: &Held,
    now: Timestamp,
) -> Verdict {
    if !is_fresh(read_at, now) {
        return Verdict::AskDatabase;
    }
    // A grant that the view does not hold has not changed for a quarter of an hour, and the token is younger than that.
    match known.map_or(Ok(()), |known| known.judge(held, now)) {
        Ok(()) => Verdict::Accept,
        Err(fault) => Verdict::Refuse(fault),
    }
}

/// A view from the future is not fresh: the clock has been set back, and nothing tells by how much.
fn is_fresh(read_at: Option<Timestamp>, now: Timestamp) -> bool {
    read_at.is_some_and(|read_at| read_at <= now && now.since(read_at) <= VIEW_AGE_MAX)
}

#[derive(Default)]
struct State {
    read_at: Option<Timestamp>,
    /// What the last reread found: every grant changed within the window. Replaced as a whole.
    changed: HashMap<GrantId, Known>,
    /// Grants that somebody asked for. What is in `changed` too is looked up there, and mended here by each reread.
    loaded: HashMap<GrantId, Known>,
}

impl State {
    fn find(&self, grant: GrantId) -> Option<&Known> {
        self.changed.get(&grant).or_else(|| self.loaded.get(&grant))
    }
}

/// This process's view of the grants.
pub struct GrantView {
    database: Database,
    clock: Clock,
    state: RwLock<State>,
}

impl fmt::Debug for GrantView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GrantView")
            .field("read_at", &self.state().read_at)
            .finish_non_exhaustive()
    }
}

impl GrantView {
    /// A view that has read nothing yet, and so asks the database each time until [`run`](Self::run) has read once. Either role may read grants.
    pub fn new(database: Database, clock: Clock) -> Self {
        Self {
            database,
            clock,
            state: RwLock::default(),
        }
    }

    /// Rereads every 250 ms, for as long as it is polled.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            ticks.tick().await;
            let reread = self.reread().await;
            // Told once when it begins and once when it is over, not four times a second.
            match &reread {
                Ok(()) if !answered => tracing::info!("grants are reread"),
                Err(error) if answered => {
                    tracing::warn!(error = %error, "grants can't be reread; each token asks the database");
                }
                Ok(()) | Err(_) => {}
            }
            answered = reread.is_ok();
        }
    }

    /// Rereads the grants changed within the window before this view was read last, so that a gap between two rereads hides no change.
    pub async fn reread(&self) -> Result<(), db::Error> {
        let now = self.clock.now();
        let last = self.state().read_at.map_or(now, |read_at| read_at.min(now));
        let changed: HashMap<GrantId, Known> =
            deadline::in_time(store::select_changed(&self.database, last.minus(WINDOW)))
                .await?
                .into_iter()
                .map(|grant| (grant.id, Known::from(grant)))
                .collect();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (id, known) in &changed {
            if let Some(loaded) = state.loaded.get_mut(id) {
                loaded.clone_from(known);
            }
        }
        state.changed = changed;
        state.read_at = Some(now);
        Ok(())
    }

    /// Whether a token that holds `held` is still good: by the view, or by the database if the view is too old. A database that does not answer
    /// is an error, never a yes.
    pub async fn check(&self, held: &Held) -> Result<(), Error> {
        let now = self.clock.now();
        let verdict = {
            let state = self.state();
            decide(state.read_at, state.find(held.grant), held, now)
        };
        match verdict {
            Verdict::Accept => Ok(()),
            Verdict::Refuse(fault) => Err(fault.into()),
            Verdict::AskDatabase => {
                let known = self.load(held.merchant, held.grant).await?;
                Ok(known.ok_or(TokenFault::GrantEnded)?.judge(held, now)?)
            }
        }
    }

    /// What `merchant`'s `grant` allows at this moment; `None` once it is revoked or has ended, and where there is none.
    pub async fn access(
        &self,
        merchant: MerchantId,
        grant: GrantId,
    ) -> Result<Option<Access>, db::Error> {
        let now = self.clock.now();
        let known = {
            let state = self.state();
            if is_fresh(state.read_at, now) {
                state.find(grant).cloned()
            } else {
                None
            }
        };
        let known = match known {
            Some(known) => Some(known),
            None => self.load(merchant, grant).await?,
        };
        Ok(known
            .filter(|known| known.is_living(merchant, now))
            .map(|known| known.access))
    }

    /// Asks the database for one grant, and keeps the answer for when the view is fresh: whatever changes after this is found by a reread.
    async fn load(&self, merchant: MerchantId, grant: GrantId) -> Result<Option<Known>, db::Error> {
        let answer = async {
            let mut tx = self.database.begin().await?;
            store::select(&mut tx, merchant, grant).await
        };
        let known = deadline::in_time(answer).await?.map(Known::from);
        if let Some(known) = &known {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if state.loaded.len() >= LOADED_MAX {
                state.loaded.clear();
            }
            state.loaded.insert(grant, known.clone());
        }
        Ok(known)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessSource for GrantView {
    fn access(
        &self,
        merchant: MerchantId,
        grant: GrantId,
    ) -> BoxFuture<'_, Result<Option<Access>, db::Error>> {
        Box::pin(Self::access(self, merchant, grant))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(epoch: i64) -> Held {
        let uuid = Uuid::from_u128(1);
        Held {
            merchant: MerchantId::from_uuid(uuid),
            grant: GrantId::from_uuid(uuid),
            epoch,
        }
    }

    fn known(now: Timestamp) -> Known {
        Known {
            merchant: held(0).merchant,
            access: Access::full(),
            expires_at: Some(now.plus(SECOND)),
            is_revoked: false,
            epoch: 3,
        }
    }

    #[test]
    fn a_fresh_view_decides_by_revocation_end_epoch_and_merchant() {
        let now = Timestamp::from_unix_millis(1_000_000);
        let at = |known: &Known, epoch, now| decide(Some(now), Some(known), &held(epoch), now);
        let living = known(now);
        assert_eq!(at(&living, 3, now), Verdict::Accept);
        assert_eq!(
            at(&living, 4, now),
            Verdict::Accept,
            "the token may be younger than the view"
        );
        assert_eq!(
            at(&living, 2, now),
            Verdict::Refuse(TokenFault::GrantNarrowed)
        );
        assert_eq!(
            at(&living, 3, now.plus(SECOND)),
            Verdict::Refuse(TokenFault::GrantEnded)
        );
        let revoked = Known {
            is_revoked: true,
            ..living.clone()
        };
        assert_eq!(
            at(&revoked, 3, now),
            Verdict::Refuse(TokenFault::GrantEnded)
        );
        let foreign = Known {
            merchant: MerchantId::from_uuid(Uuid::from_u128(2)),
            ..living
        };
        assert_eq!(
            at(&foreign, 3, now),
            Verdict::Refuse(TokenFault::GrantEnded)
        );
        assert_eq!(
            decide(Some(now), None, &held(1), now),
            Verdict::Accept,
            "not changed within the window"
        );
    }

    #[test]
    fn a_view_that_is_old_or_from_the_future_decides_nothing() {
        let now = Timestamp::from_unix_millis(1_000_000);
        let cases = [
            (None, Verdict::AskDatabase),
            (Some(now.minus(VIEW_AGE_MAX)), Verdict::Accept),
            (
                Some(now.minus(VIEW_AGE_MAX + Duration::from_micros(1))),
                Verdict::AskDatabase,
            ),
            (
                Some(now.plus(Duration::from_micros(1))),
                Verdict::AskDatabase,
            ),
        ];
        for (read_at, expected) in cases {
            assert_eq!(
                decide(read_at, Some(&known(now)), &held(3), now),
                expected,
                "{read_at:?}"
            );
            assert_eq!(
                decide(read_at, None, &held(3), now),
                expected,
                "{read_at:?}, not known"
            );
        }
    }
}
