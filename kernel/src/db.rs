//! The database: pools, transactions that enter their merchant, and what its errors mean.
//!
//! There are two pools, one per [`Role`]. A transaction starts in one round trip: `begin`, the role, and for a tenant's transaction the
//! merchant. Both last as long as the transaction, so a connection goes back to the pool as nobody. Row-level security shows the API role the
//! rows of the merchant that was entered and no others, whatever a statement forgets to filter.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Executor, PgConnection, PgPool, Postgres,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use uuid::Uuid;

use crate::{
    id::MerchantId,
    problem::{self, Problem},
};

/// A transaction; rolled back unless committed.
pub type Transaction = sqlx::Transaction<'static, Postgres>;

/// What a pool's transactions run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Requests: sees the merchant that was entered, and the global tables.
    Api,
    /// Relay, workers and sweepers: sees what they need of every merchant, and nothing of the catalog, orders or customers.
    Worker,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Api => "stoa_api",
            Self::Worker => "stoa_worker",
        }
    }
}

/// How long a request waits for a connection before it is told that the service is busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections that have idled this long are closed.
const IDLE_TIMEOUT: Duration = Duration::from_mins(5);

/// No statement of a request or a job takes longer; what does is stuck.
const STATEMENT_TIMEOUT: &str = "30s";

/// A transaction whose owner hangs gives its locks back after this.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "30s";

/// Every statement has an index that serves it. A plan made while a table was small, or had no statistics yet, must still be right when it is large.
const NO_SEQUENTIAL_SCANS: (&str, &str) = ("enable_seqscan", "off");

/// Nothing is compiled to be run. That pays for queries of seconds, and PostgreSQL would think some of ours to be such: a table that is scanned all the same,
/// because it is a queue of a few rows without an index, seems dear beyond measure.
const NO_JIT: (&str, &str) = ("jit", "off");

/// Plans are made once per connection and statement, whatever is bound. Left to itself, PostgreSQL plans statements that take arrays anew at every execution,
/// because it knows the length of the one at hand; that costs more than running them.
///
/// Without bitmaps, for they forget the order of their index: a queue that has just been drained and analyzed, and not yet vacuumed, seems to have many pages and
/// no rows, and there a bitmap of any index and a sort seem cheaper than the one index that has the order asked for.
const PLANNED_ONCE: [(&str, &str); 2] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_bitmapscan", "off"),
];

/// Merchants that one NOTIFY names: a payload has less than 8,000 bytes, and each takes 33.
const NOTIFIED_MERCHANTS_MAX: usize = 200;

/// A pool of connections whose transactions all run as one role.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    role: Role,
}

impl Database {
    /// A pool of at most `connections_max` connections, made when they are needed: the database may still be on its way up.
    pub fn new(options: PgConnectOptions, role: Role, connections_max: u32) -> Self {
        let options = options.application_name(role.name()).options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            (
                "idle_in_transaction_session_timeout",
                IDLE_IN_TRANSACTION_TIMEOUT,
            ),
            NO_SEQUENTIAL_SCANS,
            NO_JIT,
        ]);
        let options = match role {
            Role::Api => options,
            Role::Worker => options.options(PLANNED_ONCE),
        };
        let pool = PgPoolOptions::new()
            .max_connections(connections_max)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(IDLE_TIMEOUT)
            // A dead connection shows at once in `begin`; asking before each would double the round trips.
            .test_before_acquire(false)
            .after_release(|connection, _| Box::pin(is_outside_transaction(connection)))
            .connect_lazy_with(options);
        Self { pool, role }
    }

    /// Begins a transaction that has entered `merchant`. Its statements are planned by what is bound, as lists with filters that may be absent need it.
    pub async fn enter(&self, merchant: MerchantId) -> Result<Transaction, Error> {
        self.enter_with(merchant, "").await
    }

    /// Begins a transaction that has entered `merchant` and finds every row by its key, so that its statements need not be planned more than once.
    pub async fn enter_by_key(&self, merchant: MerchantId) -> Result<Transaction, Error> {
        let settings = PLANNED_ONCE.map(|(name, value)| format!("set local {name} = {value};"));
        self.enter_with(merchant, &settings.concat()).await
    }

    async fn enter_with(&self, merchant: MerchantId, settings: &str) -> Result<Transaction, Error> {
        let role = self.role.name();
        let merchant = merchant.uuid();
        self.begin_with(format!(
            "begin; set local role {role}; {settings} select stoa_enter('{merchant}')"
        ))
        .await
    }

    /// Begins a transaction that has entered no merchant: the API role then sees the global tables alone.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        let role = self.role.name();
        self.begin_with(format!("begin; set local role {role}"))
            .await
    }

    /// The same, for statements that take their order from an index: while a table is empty any other index and a sort would seem as good, and be kept. Not for
    /// those that sort what they have found by another order: they would rather read the whole of an index that has it.
    pub async fn begin_in_order(&self) -> Result<Transaction, Error> {
        let role = self.role.name();
        self.begin_with(format!(
            "begin; set local role {role}; set local enable_sort = off"
        ))
        .await
    }

    /// `statement` is made of our own words and the hexadecimal digits of a typed id.
    async fn begin_with(&self, statement: String) -> Result<Transaction, Error> {
        // The pool may have kept connections that the server has closed meanwhile, all of them if it was restarted. Each shows once and is
        // gone; a fresh one then tells whether the server is there.
        let mut closed_max = self.pool.size();
        loop {
            match self
                .pool
                .begin_with(AssertSqlSafe(statement.clone()))
                .await
                .map_err(Error::from)
            {
                Err(error) if closed_max > 0 && error.is_closed_connection() => closed_max -= 1,
                begun => return begun,
            }
        }
    }

    /// The role of this pool's transactions.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let mut closed_max = self.pool.size();
        loop {
            match self.ask().await {
                Err(error) if closed_max > 0 && error.is_closed_connection() => closed_max -= 1,
                asked => return asked,
            }
        }
    }

    async fn ask(&self) -> Result<(), Error> {
        let mut connection = self.pool.acquire().await?;
        connection.execute("select").await?;
        Ok(())
    }

    /// A connection that hears NOTIFY on `channel`, and connects again by itself.
    pub async fn listen(&self, channel: &str) -> Result<PgListener, Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Sends NOTIFY on `channel`, which is a word of ours: a hint to other processes. A transaction of its own, because it serialises commits.
    pub async fn notify(&self, channel: &'static str) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        tx.execute(AssertSqlSafe(format!("notify {channel}")))
            .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Sends NOTIFYs on `channel`, which is a word of ours, that name `merchants`: each payload is `sender` and some of them, in hexadecimal digits with spaces
    /// between. A transaction of its own, as [`notify`](Self::notify) is.
    pub async fn notify_of(
        &self,
        channel: &'static str,
        sender: Uuid,
        merchants: &[MerchantId],
    ) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        for some in merchants.chunks(NOTIFIED_MERCHANTS_MAX) {
            let mut payload = sender.simple().to_string();
            for merchant in some {
                payload.push(' ');
                payload.push_str(&merchant.uuid().simple().to_string());
            }
            tx.execute(AssertSqlSafe(format!("notify {channel}, '{payload}'")))
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Closes the pool once every connection has come back.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Enters `merchant` in a transaction that has begun, for the rest of it; it may have entered none, or another.
///
/// The statement is made of our own words and the hexadecimal digits of a typed id.
pub async fn enter_merchant(tx: &mut PgConnection, merchant: MerchantId) -> Result<(), Error> {
    let merchant = merchant.uuid();
    tx.execute(AssertSqlSafe(format!("select stoa_enter('{merchant}')")))
        .await?;
    Ok(())
}

/// Whether a connection may go back into the pool: only if no transaction is open on it.
///
/// sqlx counts a transaction as open once its begin statement has completed. If the future of `begin_with` is dropped before that, or a
/// statement after `begin` fails, nothing is rolled back, and the next user of the connection would run inside that transaction: as its role and
/// its merchant. Inside a transaction `now()` stands still at its beginning, or the question itself is refused; outside, it is the
/// time of the statement.
async fn is_outside_transaction(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    use sqlx::Row;
    let row = connection
        .fetch_one(sqlx::raw_sql(
            "select pg_catalog.now() = pg_catalog.statement_timestamp()",
        ))
        .await?;
    row.try_get(0)
}

/// What goes wrong between us and the database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed, or no connection was to be had.
    #[error("database: {0}")]
    Sqlx(#[from] sqlx::Error),
    /// What was to be made is there by now: another transaction was faster.
    #[error("a row of {table} was made by another transaction meanwhile")]
    Overtaken {
        /// The table.
        table: &'static str,
    },
    /// A row does not decode: it was written by another version, or by hand.
    #[error("row {id} of {table} can't be decoded")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
        /// What does not fit.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// A row that does not decode.
    pub fn corrupt(
        table: &'static str,
        id: impl std::fmt::Display,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Corrupt {
            table,
            id: id.to_string(),
            source: source.into(),
        }
    }

    /// Whether the same transaction, run again, may succeed: a serialization failure, a deadlock, or another that was faster.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Overtaken { .. })
            || matches!(self.sqlstate().as_deref(), Some("40001" | "40P01"))
    }

    /// Whether the database is away, starting, stopping or full, rather than displeased.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Sqlx(
                sqlx::Error::Io(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::BeginFailed
                | sqlx::Error::Protocol(_),
            ) => true,
            Self::Sqlx(_) => self.sqlstate().is_some_and(|state| {
                state.starts_with("08")
                    || state.starts_with("57P")
                    || matches!(state.as_str(), "53300" | "57014" | "25P03")
            }),
            Self::Overtaken { .. } | Self::Corrupt { .. } => false,
        }
    }

    /// Whether the server has ended this connection: it is gone, or said so with its last words.
    fn is_closed_connection(&self) -> bool {
        matches!(self, Self::Sqlx(sqlx::Error::Io(_)))
            || matches!(
                self.sqlstate().as_deref(),
                Some("57P01" | "57P02" | "57P05" | "25P03")
            )
    }

    /// The name of the constraint that a write violated. Taken from the message: a distributed database names the shard's constraint, whose
    /// suffix is cut off here.
    pub fn violated_constraint(&self) -> Option<String> {
        let Self::Sqlx(sqlx::Error::Database(error)) = self else {
            return None;
        };
        if !error.code()?.starts_with("23") {
            return None;
        }
        // A server that speaks another language has the name in its field alone.
        let quoted = error
            .message()
            .split_once("constraint \"")
            .and_then(|(_, rest)| rest.split_once('"'));
        let name = quoted
            .map(|(name, _)| name)
            .or_else(|| error.constraint())?;
        let shard = name.rsplit_once('_').filter(|(_, suffix)| {
            suffix.len() >= SHARD_SUFFIX_DIGITS_MIN
                && suffix.bytes().all(|byte| byte.is_ascii_digit())
        });
        Some(shard.map_or(name, |(base, _)| base).to_owned())
    }

    fn sqlstate(&self) -> Option<String> {
        match self {
            Self::Sqlx(sqlx::Error::Database(error)) => {
                error.code().map(std::borrow::Cow::into_owned)
            }
            _ => None,
        }
    }
}

/// Shards are numbered from 102008 on.
const SHARD_SUFFIX_DIGITS_MIN: usize = 6;

/// PostgreSQL keeps every character but one. Bodies are searched for it where their fields can be named; this is for the rest, such as filters and cursors.
const CHARACTER_NOT_IN_REPERTOIRE: &str = "22021";

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        if error.is_unavailable() || error.is_retryable() {
            Self::unavailable(error)
        } else if error.sqlstate().as_deref() == Some(CHARACTER_NOT_IN_REPERTOIRE) {
            Self::new(
                &problem::INVALID_FIELDS,
                "A text has the character U+0000, which no text here may have.",
            )
        } else {
            Self::internal(error)
        }
    }
}
