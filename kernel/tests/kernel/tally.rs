//! An operation for the tests of idempotency: each run leaves a row and an event, and then does what the test has told it to.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use kernel::{
    actor::{Access, Actor, MissingScope},
    clock::Clock,
    db::{self, Database},
    event::{self, Announcer, NewEvent, ResourceRef},
    id::{LocationId, MerchantId},
    idempotency::{self, Call, Failed, Failure, Idempotency, Kept, Key, Operation, Outcome},
    scope::Scope,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{Executor, PgConnection, Row};
use tokio::sync::{Barrier, Semaphore, mpsc};

use crate::World;

/// What a run does once its row is written.
#[derive(Default)]
pub(crate) enum Then {
    /// Succeeds.
    #[default]
    Succeed,
    /// Is refused for a reason that lies in stored state.
    Refuse,
    /// Finds that what it is about is not there.
    Miss,
    /// Stands at a gate, and panics when it is let through.
    Panic(Gate),
    /// Reports its backend's process id, and waits until it is let through.
    Wait(Gate),
    /// Fails with a serialization failure, as many times as this says.
    Conflict(AtomicUsize),
    /// Locks two rows, one after the other; the first time both sides wait for each other in between.
    Lock {
        first: i32,
        second: i32,
        met: AtomicUsize,
        between: Arc<Barrier>,
    },
    /// Writes a row whose uniqueness is checked at the commit.
    Claim(&'static str),
    /// Fails as only a group does.
    FailInGroup,
}

/// Where a run stands still.
pub(crate) struct Gate {
    arrived: mpsc::UnboundedSender<i32>,
    opened: Arc<Semaphore>,
}

/// The test's side of a [`Gate`].
pub(crate) struct Keeper {
    arrivals: mpsc::UnboundedReceiver<i32>,
    opened: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> (Self, Keeper) {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let opened = Arc::new(Semaphore::new(0));
        (
            Self {
                arrived,
                opened: Arc::clone(&opened),
            },
            Keeper { arrivals, opened },
        )
    }
}

impl Keeper {
    /// Waits until a run stands at the gate; its backend's process id.
    pub(crate) async fn arrival(&mut self) -> i32 {
        crate::soon(self.arrivals.recv()).await.unwrap()
    }

    /// Lets everyone through from now on.
    pub(crate) fn open(&self) {
        self.opened.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Input {
    pub(crate) name: String,
}

/// Writes one row.
pub(crate) struct Tally {
    input: Input,
    then: Then,
    location: Option<LocationId>,
    weight: usize,
}

impl Tally {
    pub(crate) fn new(name: &str, then: Then) -> Self {
        Self {
            input: Input {
                name: name.to_owned(),
            },
            then,
            location: None,
            weight: 1,
        }
    }

    /// How often a [`Then::Lock`] has been tried.
    pub(crate) fn meetings(&self) -> usize {
        if let Then::Lock { met, .. } = &self.then {
            met.load(Ordering::SeqCst)
        } else {
            0
        }
    }

    pub(crate) fn weighing(self, weight: usize) -> Self {
        Self { weight, ..self }
    }

    pub(crate) fn at(self, location: LocationId) -> Self {
        Self {
            location: Some(location),
            ..self
        }
    }
}

/// What a run returns: another id each time, so that equal answers come from one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tallied {
    pub(crate) id: uuid::Uuid,
    pub(crate) name: String,
    pub(crate) location: Option<LocationId>,
    pub(crate) secret: Option<String>,
}

/// What only the first caller is told.
pub(crate) const SECRET: &str = "whsec_not_to_be_kept";

impl Kept for Tallied {
    fn visible_to(&self, access: &Access) -> bool {
        self.location
            .is_none_or(|location| access.sees_location(location))
    }

    fn without_secrets(&self) -> Cow<'_, Self> {
        Cow::Owned(Self {
            secret: None,
            ..self.clone()
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Database(#[from] db::Error),
    #[error(transparent)]
    Idempotency(#[from] idempotency::Error),
    #[error(transparent)]
    Scope(#[from] MissingScope),
    #[error("refused: {}", .0.reason)]
    Refused(Refusal),
    #[error("there is no such thing")]
    Missing,
    #[error("not as a group")]
    Group,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
}

impl Failure for Error {
    type Refusal = Refusal;

    fn into_refusal(self) -> Result<Refusal, Self> {
        match self {
            Self::Refused(refusal) => Ok(refusal),
            other => Err(other),
        }
    }

    fn from_refusal(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }

    fn is_retryable(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_retryable())
    }
}

impl Operation for Tally {
    const NAME: &'static str = "test.tally";
    const SCOPE: Scope = Scope::OrdersWrite;
    type Input = Input;
    type Output = Tallied;
    type Error = Error;

    fn input(&self) -> &Input {
        &self.input
    }

    fn weight(&self) -> usize {
        self.weight
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Tallied, Error> {
        let merchant = call.actor.merchant;
        let id = uuid::Uuid::now_v7();
        execute(tx, sqlx::query("insert into tallies (merchant_id, id, name, xid) values ($1, $2, $3, pg_current_xact_id()::text)")
            .bind(merchant).bind(id).bind(&self.input.name)).await?;
        let event = NewEvent {
            kind: "tally.made",
            resource: ResourceRef {
                kind: "tally",
                id: id.to_string(),
                version: 1,
            },
            scope: Scope::OrdersRead,
            locations: Vec::new(),
            data: RawValue::from_string("{}".to_owned()).unwrap(),
            personal: None,
        };
        event::append(tx, merchant, call.actor.request, call.now, &[event]).await?;
        match &self.then {
            Then::Succeed | Then::FailInGroup => {}
            Then::Refuse => {
                return Err(Error::Refused(Refusal {
                    reason: format!("no {}", self.input.name),
                }));
            }
            Then::Miss => return Err(Error::Missing),
            Then::Wait(gate) | Then::Panic(gate) => {
                let backend: i32 = tx
                    .fetch_one("select pg_backend_pid()")
                    .await
                    .map_err(db::Error::from)?
                    .get(0);
                let _ = gate.arrived.send(backend);
                gate.opened.acquire().await.unwrap().forget();
                assert!(!matches!(self.then, Then::Panic(_)), "a run that panics");
            }
            Then::Conflict(left) => {
                if left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(1)
                    })
                    .is_ok()
                {
                    execute(tx, sqlx::query("do $$ begin raise exception 'conflict' using errcode = '40001'; end $$")).await?;
                }
            }
            Then::Lock {
                first,
                second,
                met,
                between,
            } => {
                let lock = "update tally_rows set touched = touched + 1 where merchant_id = $1 and row = $2";
                execute(tx, sqlx::query(lock).bind(merchant).bind(first)).await?;
                if met.fetch_add(1, Ordering::SeqCst) == 0 {
                    between.wait().await;
                }
                execute(tx, sqlx::query(lock).bind(merchant).bind(second)).await?;
            }
            Then::Claim(name) => {
                let claim = "insert into tally_claims (merchant_id, id, name) values ($1, $2, $3)";
                execute(tx, sqlx::query(claim).bind(merchant).bind(id).bind(name)).await?;
            }
        }
        let secret = Some(SECRET.to_owned());
        Ok(Tallied {
            id,
            name: self.input.name.clone(),
            location: self.location,
            secret,
        })
    }
}

/// The same under another name, deciding groups itself: no savepoints, so that any error is one of the whole.
pub(crate) struct Grouped(pub(crate) Tally);

impl Operation for Grouped {
    const NAME: &'static str = "test.grouped";
    const SCOPE: Scope = Tally::SCOPE;
    type Input = Input;
    type Output = Tallied;
    type Error = Error;

    fn input(&self) -> &Input {
        self.0.input()
    }

    async fn run(&self, tx: &mut PgConnection, call: Call<'_>) -> Result<Tallied, Error> {
        self.0.run(tx, call).await
    }

    async fn run_many<'m>(
        tx: &'m mut PgConnection,
        members: &'m [(&'m Self, Call<'m>)],
    ) -> Result<Vec<Result<Tallied, Error>>, Error> {
        let mut results = Vec::new();
        for (operation, call) in members {
            if members.len() > 1 && matches!(operation.0.then, Then::FailInGroup) {
                return Err(Error::Group);
            }
            results.push(Ok(operation.run(tx, *call).await?));
        }
        Ok(results)
    }
}

async fn execute(
    tx: &mut PgConnection,
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
) -> Result<(), Error> {
    query.execute(tx).await.map_err(db::Error::from)?;
    Ok(())
}

/// A world with the operation's tables.
pub(crate) async fn world() -> World {
    let world = World::create().await;
    let mut owner = world.database.owner().await.unwrap();
    for (table, columns) in [
        (
            "tallies",
            "id uuid, name text, xid text, primary key (merchant_id, id)",
        ),
        (
            "tally_rows",
            "row integer, touched integer, primary key (merchant_id, row)",
        ),
        (
            "tally_claims",
            "id uuid, name text, unique (merchant_id, name) deferrable initially deferred",
        ),
    ] {
        let sql = format!(
            "create table {table} (merchant_id uuid not null, {columns});
            alter table {table} enable row level security, force row level security;
            create policy {table}_api on {table} to stoa_api
                using (merchant_id = stoa_merchant()) with check (merchant_id = stoa_merchant());
            create policy {table}_worker on {table} to stoa_worker using (true);
            grant select, insert, update on {table} to stoa_api;
            grant select on {table} to stoa_worker"
        );
        owner.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    world
}

/// One process: a pool and what runs operations over it.
pub(crate) struct Process {
    pub(crate) database: Database,
    pub(crate) idempotency: Idempotency,
    pub(crate) announcer: Announcer,
}

impl Process {
    pub(crate) fn start(world: &World, connections_max: u32, clock: Clock) -> Self {
        let database = Database::new(
            world.database.options().clone(),
            db::Role::Api,
            connections_max,
        );
        let announcer = Announcer::default();
        let idempotency = Idempotency::new(
            database.clone(),
            clock,
            Arc::clone(&world.keyring),
            announcer.clone(),
        );
        Self {
            database,
            idempotency,
            announcer,
        }
    }

    /// With as many connections as a test needs.
    pub(crate) fn new(world: &World) -> Self {
        Self::start(world, 16, Clock::system())
    }

    pub(crate) async fn once(&self, actor: &Actor, key: &str, name: &str) -> Outcome<Tally> {
        self.run(actor, key, Tally::new(name, Then::Succeed)).await
    }

    pub(crate) async fn run(&self, actor: &Actor, key: &str, operation: Tally) -> Outcome<Tally> {
        self.idempotency
            .once(actor, &self::key(key), &operation)
            .await
    }
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// Rows that runs have left.
pub(crate) async fn rows(world: &World) -> i64 {
    world
        .database
        .count("select count(*) from tallies")
        .await
        .unwrap()
}

/// Rows under a name.
pub(crate) async fn rows_named(world: &World, name: &str) -> i64 {
    world
        .database
        .count(&format!(
            "select count(*) from tallies where name = '{name}'"
        ))
        .await
        .unwrap()
}

/// Events that runs have left, and answers that are kept.
pub(crate) async fn events_and_answers(world: &World) -> (i64, i64) {
    let events = world
        .database
        .count("select count(*) from outbox")
        .await
        .unwrap();
    (
        events,
        world
            .database
            .count("select count(*) from idempotency_keys")
            .await
            .unwrap(),
    )
}

/// Makes a row to be locked.
pub(crate) async fn make_row(process: &Process, merchant: MerchantId, row: i32) {
    let mut tx = process.database.enter(merchant).await.unwrap();
    let insert =
        sqlx::query("insert into tally_rows (merchant_id, row, touched) values ($1, $2, 0)");
    insert
        .bind(merchant)
        .bind(row)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// The error without its wrapping.
pub(crate) fn error_of(outcome: Outcome<Tally>) -> Error {
    match outcome {
        Err(Failed { error, .. }) => error,
        Ok(answer) => panic!("{answer:?} should have failed"),
    }
}
