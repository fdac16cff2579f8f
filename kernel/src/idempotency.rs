//! Idempotency: a key stands for one change, however often it is sent.
//!
//! A mutation is an [`Operation`]: its name, scope, input, result and the function that does it. The edge runs it by
//! [`Idempotency::once`], in one transaction that holds the key, the effect, the events and the answer: they commit together or not at all.
//!
//! - A key belongs to merchant, app and operation, so REST and GraphQL share it. Its fingerprint is an HMAC of the canonical input.
//! - Kept for [`KEPT_FOR`]: success, and refusals that depend on stored state, as the domain's result and not as bytes. Never kept: what the
//!   request alone decides, missing things, and failures of ours.
//! - A twin in this process waits without a connection until the first is done; a twin in another process is kept out by an advisory lock, tried for
//!   [`LOCK_TRIED_FOR`].
//! - Groups share a transaction. A single mutation is a group of one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::{
    actor::Actor,
    clock::{Clock, Timestamp},
    db::{self, Database},
    event::Announcer,
    id::MerchantId,
    keyring::Keyring,
};

mod flights;
mod groups;
mod key;
mod operation;
mod store;

pub use groups::Groups;
pub use key::{InvalidKey, Key};
pub use operation::{Answer, Call, Error, Failed, Failure, Kept, Member, Operation, Outcome};

use flights::{Boarding, Flights};

/// How long a key's answer is kept.
pub const KEPT_FOR: Duration = Duration::from_hours(72);

/// How long a twin in another process is waited for before the client is told to come back.
pub const LOCK_TRIED_FOR: Duration = Duration::from_secs(5);

/// Times that a transaction is run again after a serialization failure or a deadlock.
const RERUNS_MAX: u32 = 5;

/// The first pause before a lock is tried or a transaction is run again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(2);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Members of one group at most: bounds what one transaction locks.
pub const GROUP_MAX: usize = 256;

/// The [`weight`](Operation::weight) of a group from which nobody else joins it: so a small change never waits for long behind those that came before it.
pub const GROUP_WEIGHT_MAX: usize = 1_000;

/// Members that are run at once when their group has failed: each takes a connection.
const SINGLES_AT_ONCE: usize = 4;

/// Runs operations once per key. One per process; clones share it.
#[derive(Debug, Clone)]
pub struct Idempotency {
    database: Database,
    clock: Clock,
    keyring: Arc<Keyring>,
    announcer: Announcer,
    flights: Arc<Flights>,
}

impl Idempotency {
    /// Over the API role's database.
    pub fn new(
        database: Database,
        clock: Clock,
        keyring: Arc<Keyring>,
        announcer: Announcer,
    ) -> Self {
        Self {
            database,
            clock,
            keyring,
            announcer,
            flights: Arc::default(),
        }
    }

    /// Does `operation` if this key has not done it yet; otherwise gives what it came to.
    pub async fn once<O: Operation>(&self, actor: &Actor, key: &Key, operation: &O) -> Outcome<O> {
        actor.access.require(O::SCOPE)?;
        let member = self.identify(Member {
            actor,
            key,
            operation,
        })?;
        loop {
            match self.flights.board(member.flight) {
                Boarding::Leads(_flight) => {
                    return self.alone(actor.merchant, member).await;
                }
                Boarding::Waits(mut landed) => {
                    // An error means that the leader is done, whatever it came to.
                    let _ = landed.changed().await;
                    if let Some(outcome) = self.find(&member).await.map_err(Failed::now)? {
                        return outcome;
                    }
                }
            }
        }
    }

    /// Does several operations of one merchant, in one transaction where it can; the results are in the members' order. At most [`GROUP_MAX`] share
    /// a transaction.
    pub async fn once_many<O: Operation>(
        &self,
        merchant: MerchantId,
        members: &[Member<'_, O>],
    ) -> Vec<Outcome<O>> {
        let outcomes = self.try_many(merchant, members).await;
        let finished = members
            .iter()
            .zip(outcomes)
            .map(|(member, outcome)| async move {
                match outcome {
                    Some(outcome) => outcome,
                    None => self.once(member.actor, member.key, member.operation).await,
                }
            });
        join_all(finished).await
    }

    /// The same, but waits for nobody: `None` for a member whose key somebody else is at work on, here or in another process, and for one of another
    /// merchant. [`once`](Self::once) is for those.
    async fn try_many<O: Operation>(
        &self,
        merchant: MerchantId,
        members: &[Member<'_, O>],
    ) -> Vec<Option<Outcome<O>>> {
        let mut outcomes: Vec<Option<Outcome<O>>> = members.iter().map(|_| None).collect();
        let mut flights = Vec::new();
        let mut leading = Vec::new();
        for (member, outcome) in members.iter().zip(&mut outcomes) {
            let checked = member.actor.access.require(O::SCOPE).map_err(Failed::from);
            match checked.and_then(|()| self.identify(*member).map_err(Failed::from)) {
                Err(error) => *outcome = Some(Err(error)),
                // A member of another merchant has no place in this transaction.
                Ok(_) if member.actor.merchant != merchant => {}
                // So does the key of a second member of this group, or of a call elsewhere.
                Ok(identified) => {
                    if let Boarding::Leads(flight) = self.flights.board(identified.flight) {
                        flights.push(flight);
                        leading.push((identified, outcome));
                    }
                }
            }
        }
        for chunk in leading.chunks_mut(GROUP_MAX) {
            let group: Vec<_> = chunk.iter().map(|(member, _)| *member).collect();
            let results = self.group(merchant, &group).await;
            for ((_, outcome), result) in chunk.iter_mut().zip(results) {
                **outcome = result;
            }
        }
        outcomes
    }

    fn identify<'m, O: Operation>(
        &self,
        member: Member<'m, O>,
    ) -> Result<Identified<'m, O>, Error> {
        // Sorted, a value's text is canonical however the client ordered its fields.
        let mut input = serde_json::to_value(member.operation.input()).map_err(Error::Input)?;
        input.sort_all_objects();
        let fingerprint = self
            .keyring
            .master()
            .blind_index("idempotency", input.to_string().as_bytes());
        let mut hash = Sha256::new();
        hash.update(member.actor.merchant.uuid());
        hash.update(member.actor.app.uuid());
        hash.update(O::NAME);
        hash.update([0]);
        hash.update(member.key.as_str());
        Ok(Identified {
            member,
            fingerprint,
            flight: hash.finalize().into(),
        })
    }

    /// Runs a group whose flights the caller holds; a few at a time if the group as a whole fails. `None` for those whose lock is held elsewhere.
    async fn group<O: Operation>(
        &self,
        merchant: MerchantId,
        members: &[Identified<'_, O>],
    ) -> Vec<Option<Outcome<O>>> {
        match self.transaction(merchant, members).await {
            Ok(outcomes) => outcomes,
            Err(error) if members.len() <= 1 => vec![Some(Err(error))],
            Err(_) => {
                let mut outcomes = Vec::with_capacity(members.len());
                for few in members.chunks(SINGLES_AT_ONCE) {
                    let singles = few.iter().map(|member| async move {
                        let one = std::slice::from_ref(member);
                        match self.transaction(merchant, one).await {
                            Ok(mut outcomes) => outcomes.pop().flatten(),
                            Err(error) => Some(Err(error)),
                        }
                    });
                    outcomes.extend(join_all(singles).await);
                }
                outcomes
            }
        }
    }

    /// Runs one member whose flight the caller holds, and waits for a twin elsewhere that holds its lock, but not for long.
    async fn alone<O: Operation>(
        &self,
        merchant: MerchantId,
        member: Identified<'_, O>,
    ) -> Outcome<O> {
        let deadline = Instant::now() + LOCK_TRIED_FOR;
        let mut pause = PAUSE_FIRST;
        loop {
            let mut outcomes = self.transaction(merchant, &[member]).await?;
            if let Some(outcome) = outcomes.pop().flatten() {
                return outcome;
            }
            if Instant::now() >= deadline {
                return Err(Error::InProgress.into());
            }
            pause_and_double(&mut pause).await;
        }
    }

    /// Tries a transaction until it is done or fails for good.
    async fn transaction<O: Operation>(
        &self,
        merchant: MerchantId,
        members: &[Identified<'_, O>],
    ) -> Result<Vec<Option<Outcome<O>>>, Failed<O::Error>> {
        let mut pause = PAUSE_FIRST;
        let mut reruns = 0;
        loop {
            match self.attempt(merchant, members).await {
                Ok(outcomes) => return Ok(outcomes),
                Err(error) if error.is_retryable() && reruns < RERUNS_MAX => reruns += 1,
                Err(error) => return Err(Failed::now(error)),
            }
            pause_and_double(&mut pause).await;
        }
    }

    /// One transaction; `None` for those whose lock a twin elsewhere holds.
    async fn attempt<O: Operation>(
        &self,
        merchant: MerchantId,
        members: &[Identified<'_, O>],
    ) -> Result<Vec<Option<Outcome<O>>>, O::Error> {
        let mut tx = self.database.enter_by_key(merchant).await?;
        match self.attempt_in(&mut tx, merchant, members).await {
            Ok((outcomes, changed_at)) => {
                tx.commit().await.map_err(db::Error::from)?;
                if let Some(changed_at) = changed_at {
                    self.announcer.announce(merchant, changed_at);
                }
                Ok(outcomes)
            }
            Err(error) => {
                // What went wrong is said already; a connection that can't even roll back does not return to the pool.
                let _ = tx.rollback().await;
                Err(error)
            }
        }
    }

    /// The outcomes, `None` where a lock is held elsewhere; and if one of them changed something, the time that they were given.
    async fn attempt_in<O: Operation>(
        &self,
        tx: &mut PgConnection,
        merchant: MerchantId,
        members: &[Identified<'_, O>],
    ) -> Result<(Vec<Option<Outcome<O>>>, Option<Timestamp>), O::Error> {
        let now = self.clock.now();
        let locks: Vec<i64> = members.iter().map(Identified::lock).collect();
        let taken = store::try_lock(tx, &locks).await?;
        let mut outcomes: Vec<_> = members.iter().map(|_| None).collect();
        let ours: Vec<_> = members
            .iter()
            .zip(&mut outcomes)
            .zip(taken)
            .filter_map(|((member, outcome), taken)| taken.then_some((*member, outcome)))
            .collect();
        if ours.is_empty() {
            return Ok((outcomes, None));
        }
        let asked: Vec<_> = ours.iter().map(|(member, _)| *member).collect();
        let kept = find_kept(tx, merchant, &asked).await?;
        let mut fresh = Vec::new();
        for ((member, outcome), kept) in ours.into_iter().zip(kept) {
            match kept {
                Some(kept) => *outcome = Some(member.replay(kept)),
                None => fresh.push((member, outcome)),
            }
        }
        let mut changed_at = None;
        if !fresh.is_empty() {
            let calls: Vec<_> = fresh
                .iter()
                .map(|(member, _)| {
                    (
                        member.member.operation,
                        Call {
                            actor: member.member.actor,
                            now,
                        },
                    )
                })
                .collect();
            let results = O::run_many(tx, &calls).await?;
            debug_assert_eq!(
                results.len(),
                calls.len(),
                "a member without a result would be done and not kept"
            );
            let mut rows = Vec::with_capacity(results.len());
            for ((member, outcome), result) in fresh.into_iter().zip(results) {
                *outcome = Some(match result {
                    Ok(output) => {
                        changed_at = Some(now);
                        rows.push(member.row(false, &*output.without_secrets())?);
                        Ok(Answer {
                            value: output,
                            replayed: false,
                        })
                    }
                    Err(error) => Err(match error.into_refusal() {
                        Ok(refusal) => {
                            rows.push(member.row(true, &refusal)?);
                            Failed {
                                error: O::Error::from_refusal(refusal),
                                replayed: false,
                            }
                        }
                        Err(error) => Failed::now(error),
                    }),
                });
            }
            store::insert(tx, merchant, O::NAME, &rows, now).await?;
        }
        Ok((outcomes, changed_at))
    }

    /// The kept outcome of a member's key, if there is one.
    async fn find<O: Operation>(
        &self,
        member: &Identified<'_, O>,
    ) -> Result<Option<Outcome<O>>, O::Error> {
        let merchant = member.member.actor.merchant;
        let mut tx = self.database.enter_by_key(merchant).await?;
        let mut kept = find_kept(&mut tx, merchant, std::slice::from_ref(member)).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(kept.pop().flatten().map(|kept| member.replay(kept)))
    }
}

/// Deletes the keys older than [`KEPT_FOR`], some thousands at a time; says how many.
pub async fn sweep(worker: &Database, now: Timestamp) -> Result<u64, db::Error> {
    let mut deleted = 0_u64;
    loop {
        let count = store::delete_before(worker, now.minus(KEPT_FOR)).await?;
        deleted = deleted.saturating_add(count);
        if count < u64::from(store::SWEPT_AT_ONCE) {
            return Ok(deleted);
        }
    }
}

/// No connection is held meanwhile. The random part keeps twins from meeting again.
async fn pause_and_double(pause: &mut Duration) {
    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
    *pause = (*pause * 2).min(PAUSE_MAX);
}

/// A member whose input has been hashed.
struct Identified<'m, O> {
    member: Member<'m, O>,
    fingerprint: [u8; 32],
    /// The hash of merchant, app, operation and key.
    flight: [u8; 32],
}

impl<O> Clone for Identified<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<O> Copy for Identified<'_, O> {}

impl<O: Operation> Identified<'_, O> {
    fn lock(&self) -> i64 {
        self.flight
            .first_chunk::<8>()
            .map_or(0, |bytes| i64::from_be_bytes(*bytes))
    }

    fn row(&self, refused: bool, outcome: &impl Serialize) -> Result<store::NewRow, Error> {
        Ok(store::NewRow {
            app: self.member.actor.app,
            key: self.member.key.as_str().to_owned(),
            fingerprint: self.fingerprint.to_vec(),
            refused,
            outcome: serde_json::to_value(outcome).map_err(Error::Input)?,
        })
    }

    fn replay(&self, kept: store::Row) -> Outcome<O> {
        if !bool::from(kept.fingerprint.as_slice().ct_eq(&self.fingerprint)) {
            return Err(Error::KeyReused.into());
        }
        let corrupt = |error: serde_json::Error| {
            Failed::from(db::Error::corrupt(
                "idempotency_keys",
                self.member.key,
                error,
            ))
        };
        if kept.refused {
            let refusal = serde_json::from_value(kept.outcome).map_err(corrupt)?;
            return Err(Failed {
                error: O::Error::from_refusal(refusal),
                replayed: true,
            });
        }
        let value: O::Output = serde_json::from_value(kept.outcome).map_err(corrupt)?;
        if !value.visible_to(&self.member.actor.access) {
            return Err(Error::NotVisible.into());
        }
        Ok(Answer {
            value,
            replayed: true,
        })
    }
}

async fn find_kept<O: Operation>(
    tx: &mut PgConnection,
    merchant: MerchantId,
    members: &[Identified<'_, O>],
) -> Result<Vec<Option<store::Row>>, db::Error> {
    let apps: Vec<_> = members
        .iter()
        .map(|member| member.member.actor.app)
        .collect();
    let keys: Vec<_> = members
        .iter()
        .map(|member| member.member.key.as_str())
        .collect();
    let mut rows: HashMap<_, _> = store::select(tx, merchant, O::NAME, &apps, &keys).await?;
    Ok(apps
        .into_iter()
        .zip(keys)
        .map(|(app, key)| rows.remove(&(app, key.to_owned())))
        .collect())
}
