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

use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use subtle::ConstantTimeEq;
use tokio::{sync::watch, time::Instant};

use crate::{
    actor::{Access, Actor, MissingScope},
    clock::{Clock, Timestamp},
    db::{self, Database},
    event::Announcer,
    id::MerchantId,
    keyring::Keyring,
    problem::{self, Problem},
    scope::Scope,
};

mod groups;
mod store;

pub use groups::Groups;

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

/// Members that are run at once when their group has failed: each takes a connection.
const SINGLES_AT_ONCE: usize = 4;

/// A client's name for one change: 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(String);

/// A text that can't be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 visible ASCII characters")]
pub struct InvalidKey;

impl From<InvalidKey> for Problem {
    fn from(error: InvalidKey) -> Self {
        Self::new(
            &problem::IDEMPOTENCY_KEY_REQUIRED,
            format!("The idempotency key {error}."),
        )
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    /// Reads a key bare, or in quotes as the HTTP working group's draft has it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(text);
        let legal =
            (1..=255).contains(&bare.len()) && bare.bytes().all(|byte| byte.is_ascii_graphic());
        if legal {
            Ok(Self(bare.to_owned()))
        } else {
            Err(InvalidKey)
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Key {
    /// The characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who does an operation, and when.
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// On whose behalf.
    pub actor: &'c Actor,
    /// The time of the request.
    pub now: Timestamp,
}

/// A result that may be kept for a retry.
pub trait Kept: Serialize + DeserializeOwned + Clone + Send + Sync {
    /// Whether somebody with this access may be shown it. Asked before each replay: a grant may have been narrowed since.
    fn visible_to(&self, access: &Access) -> bool;

    /// What is kept of it: everything but personal data and secrets.
    fn without_secrets(&self) -> Cow<'_, Self> {
        Cow::Borrowed(self)
    }
}

/// The error of an operation.
pub trait Failure: From<db::Error> + From<Error> + From<MissingScope> + Send {
    /// Refusals that depend on stored state, and are kept.
    type Refusal: Serialize + DeserializeOwned + Send + Sync;

    /// The refusal that this is, or the error itself if it is something else.
    fn into_refusal(self) -> Result<Self::Refusal, Self>;

    /// The error that a kept refusal is.
    fn from_refusal(refusal: Self::Refusal) -> Self;

    /// Whether the transaction, run again, may succeed.
    fn is_retryable(&self) -> bool;
}

/// A mutation: what `POST /v1/orders` and `orderPlace` both are.
pub trait Operation: Send + Sync {
    /// The domain's name: `order.place`.
    const NAME: &'static str;
    /// The scope that it needs; checked before anything else.
    const SCOPE: Scope;
    /// What the client asks for. Two calls with equal JSON are equal calls.
    type Input: Serialize + Sync;
    /// What it returns.
    type Output: Kept;
    /// How it fails.
    type Error: Failure;

    /// The input.
    fn input(&self) -> &Self::Input;

    /// Does it, in a transaction that has entered the actor's merchant. May be run again after a rollback.
    fn run(
        &self,
        tx: &mut PgConnection,
        call: Call<'_>,
    ) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;

    /// Does several in one transaction, in the order of arrival. One that is refused leaves nothing behind; an error of the whole makes the caller
    /// run them singly. An operation that can decide a group at once replaces this.
    #[allow(
        clippy::type_complexity,
        reason = "results of members within the result of the whole are what it is"
    )]
    fn run_many<'m>(
        tx: &'m mut PgConnection,
        members: &'m [(&'m Self, Call<'m>)],
    ) -> impl Future<Output = Result<Vec<Result<Self::Output, Self::Error>>, Self::Error>> + Send + 'm
    {
        async move {
            let mut results = Vec::with_capacity(members.len());
            for (operation, call) in members {
                let mut savepoint = tx.begin().await.map_err(db::Error::from)?;
                match operation.run(&mut savepoint, *call).await {
                    Ok(output) => {
                        savepoint.commit().await.map_err(db::Error::from)?;
                        results.push(Ok(output));
                    }
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(error) => {
                        savepoint.rollback().await.map_err(db::Error::from)?;
                        results.push(Err(error));
                    }
                }
            }
            Ok(results)
        }
    }
}

/// What idempotency itself refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key was used with another input.
    #[error("the idempotency key was used with another input")]
    KeyReused,
    /// A twin in another process is at it.
    #[error("a request with this idempotency key is in progress")]
    InProgress,
    /// The kept answer is no longer visible to this token.
    #[error("the kept answer is not visible to this token")]
    NotVisible,
    /// The input does not serialize: a fault of ours.
    #[error("the input has no JSON: {0}")]
    Input(#[source] serde_json::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::KeyReused => Self::new(
                &problem::IDEMPOTENCY_KEY_REUSED,
                "This idempotency key was used with another input within the last 72 hours.",
            ),
            Error::InProgress => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    &problem::IDEMPOTENCY_KEY_IN_PROGRESS,
                    "A request with this idempotency key is still being worked on.",
                )
            },
            Error::NotVisible => Self::new(
                &problem::NOT_FOUND,
                "What this idempotency key made is not visible to this token.",
            ),
            Error::Database(error) => error.into(),
            error @ Error::Input(_) => Self::internal(error),
        }
    }
}

/// An operation's result, and whether it was made just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The result.
    pub value: T,
    /// Whether it is the kept result of an earlier call: `Idempotent-Replayed: true`.
    pub replayed: bool,
}

/// What an operation with a key comes to: a result or a refusal, each perhaps replayed.
pub type Outcome<O> = Result<Answer<<O as Operation>::Output>, Failed<<O as Operation>::Error>>;

/// An operation's error, and whether it is the kept refusal of an earlier call.
#[derive(Debug)]
pub struct Failed<E> {
    /// The error.
    pub error: E,
    /// Whether it was kept.
    pub replayed: bool,
}

impl<E: Failure> Failed<E> {
    fn now(error: impl Into<E>) -> Self {
        Self {
            error: error.into(),
            replayed: false,
        }
    }
}

impl<E: Failure> From<Error> for Failed<E> {
    fn from(error: Error) -> Self {
        Self::now(error)
    }
}

impl<E: Failure> From<db::Error> for Failed<E> {
    fn from(error: db::Error) -> Self {
        Self::now(error)
    }
}

impl<E: Failure> From<MissingScope> for Failed<E> {
    fn from(error: MissingScope) -> Self {
        Self::now(error)
    }
}

/// One call with its key.
#[derive(Debug)]
pub struct Member<'m, O> {
    /// Who calls.
    pub actor: &'m Actor,
    /// The client's key.
    pub key: &'m Key,
    /// What is to be done.
    pub operation: &'m O,
}

impl<O> Clone for Member<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<O> Copy for Member<'_, O> {}

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
            Ok((outcomes, changed)) => {
                tx.commit().await.map_err(db::Error::from)?;
                if changed {
                    self.announcer.announce(merchant);
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

    /// The outcomes, `None` where a lock is held elsewhere; and whether one of them changed something.
    async fn attempt_in<O: Operation>(
        &self,
        tx: &mut PgConnection,
        merchant: MerchantId,
        members: &[Identified<'_, O>],
    ) -> Result<(Vec<Option<Outcome<O>>>, bool), O::Error> {
        let now = self.clock.now();
        let locks: Vec<i64> = members.iter().map(Identified::lock).collect();
        let taken = store::try_lock(tx, &locks).await?;
        let kept = find_kept(tx, merchant, members).await?;
        let mut outcomes = Vec::with_capacity(members.len());
        let mut fresh = Vec::new();
        let mut places = Vec::new();
        for (place, ((member, kept), taken)) in members.iter().zip(kept).zip(taken).enumerate() {
            if taken && kept.is_none() {
                fresh.push(*member);
                places.push(place);
            }
            outcomes.push(kept.filter(|_| taken).map(|kept| member.replay(kept)));
        }
        let mut changed = false;
        if !fresh.is_empty() {
            let calls: Vec<_> = fresh
                .iter()
                .map(|member| {
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
            for ((member, place), result) in fresh.iter().zip(places).zip(results) {
                let outcome = match result {
                    Ok(output) => {
                        changed = true;
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
                };
                if let Some(slot) = outcomes.get_mut(place) {
                    *slot = Some(outcome);
                }
            }
            store::insert(tx, merchant, O::NAME, &rows, now).await?;
        }
        Ok((outcomes, changed))
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

/// The calls that are under way in this process, by the hash of their key.
#[derive(Debug, Default)]
struct Flights(Mutex<HashMap<[u8; 32], watch::Receiver<()>>>);

enum Boarding {
    /// Nobody else is at it.
    Leads(#[allow(dead_code, reason = "held for its drop")] Flight),
    /// Somebody is; the channel closes when they are done.
    Waits(watch::Receiver<()>),
}

/// The right to be the only one at a key; given back when dropped, which a cancelled request does too.
struct Flight {
    flights: Arc<Flights>,
    key: [u8; 32],
    _landed: watch::Sender<()>,
}

impl Flights {
    fn board(self: &Arc<Self>, key: [u8; 32]) -> Boarding {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landed) = flights.get(&key) {
            return Boarding::Waits(landed.clone());
        }
        let (sender, receiver) = watch::channel(());
        flights.insert(key, receiver);
        Boarding::Leads(Flight {
            flights: Arc::clone(self),
            key,
            _landed: sender,
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.key);
    }
}
