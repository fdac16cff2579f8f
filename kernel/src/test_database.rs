//! For tests: a database of their own, cloned from a migrated template.
//!
//! `STOA_TEST_DATABASE_URL` names a PostgreSQL where a login role may create databases and roles; `make test` starts one. The template is made once per set of
//! migrations.

use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};

use crate::{
    clock::Timestamp,
    db::{Database, Role},
    id::MerchantId,
    keyring::{DataKey, Keyring},
    migration,
};

/// A database that belongs to one test.
#[derive(Debug)]
pub struct TestDatabase {
    options: PgConnectOptions,
    server: PgConnectOptions,
    name: String,
}

/// What may go wrong while a test sets itself up.
pub type SetUpError = Box<dyn std::error::Error + Send + Sync>;

/// Connections of each pool of a test.
const CONNECTIONS_MAX: u32 = 32;

impl TestDatabase {
    /// Clones the template, and makes that first if nobody has.
    #[allow(
        clippy::disallowed_methods,
        reason = "tests are configured by their environment"
    )]
    pub async fn create() -> Result<Self, SetUpError> {
        let url = std::env::var("STOA_TEST_DATABASE_URL")
            .map_err(|_missing| "STOA_TEST_DATABASE_URL must name a PostgreSQL for tests; `make test` starts one")?;
        let server: PgConnectOptions = url.parse()?;
        let mut connection = PgConnection::connect_with(&server).await?;
        let mut hash = Sha256::new();
        migration::MIGRATOR
            .iter()
            .for_each(|migration| hash.update(&migration.checksum));
        let version = hash
            .finalize()
            .iter()
            .take(8)
            .fold(0_u64, |version, &byte| (version << 8) | u64::from(byte));
        let template = format!("stoa_template_{version:016x}");
        // One test makes the template; the others wait. Cloning takes the lock too: PostgreSQL copies a template only while nobody uses it.
        connection.execute("select pg_advisory_lock(7305)").await?;
        let known = connection
            .fetch_optional(
                sqlx::query("select 1 from pg_database where datname = $1").bind(&template),
            )
            .await?;
        if known.is_none() {
            let making = format!("{template}_new");
            connection
                .execute(AssertSqlSafe(format!("drop database if exists {making}")))
                .await?;
            connection
                .execute(AssertSqlSafe(format!("create database {making}")))
                .await?;
            migration::run(
                &server.clone().database(&making),
                crate::clock::Clock::system().now(),
            )
            .await?;
            connection
                .execute(AssertSqlSafe(format!(
                    "alter database {making} rename to {template}"
                )))
                .await?;
        }
        let name = format!("stoa_test_{}", uuid::Uuid::now_v7().simple());
        connection
            .execute(AssertSqlSafe(format!(
                "create database {name} template {template}"
            )))
            .await?;
        connection
            .execute("select pg_advisory_unlock(7305)")
            .await?;
        connection.close().await?;
        Ok(Self {
            options: server.clone().database(&name),
            server,
            name,
        })
    }

    /// How to reach it as the tables' owner.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// A pool of the API role.
    pub fn api(&self) -> Database {
        Database::new(self.options.clone(), Role::Api, CONNECTIONS_MAX)
    }

    /// A pool of the worker role.
    pub fn worker(&self) -> Database {
        Database::new(self.options.clone(), Role::Worker, CONNECTIONS_MAX)
    }

    /// A connection as the owner, outside of any role: for looking behind the scenes.
    pub async fn owner(&self) -> Result<PgConnection, SetUpError> {
        Ok(PgConnection::connect_with(&self.options).await?)
    }

    /// A merchant with a key, under a key ring of its own.
    pub async fn merchant(
        &self,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<MerchantId, SetUpError> {
        let merchant = MerchantId::new(now);
        let mut tx = self.api().enter(merchant).await?;
        let insert = format!(
            "insert into merchants (id, name, created_at) values ('{}', 'Test', now())",
            merchant.uuid()
        );
        tx.execute(AssertSqlSafe(insert)).await?;
        keyring.create_merchant_key(&mut tx, merchant, now).await?;
        tx.commit().await?;
        Ok(merchant)
    }

    /// A count, as the worker role sees it: `count("select count(*) from events")`.
    pub async fn count(&self, sql: &str) -> Result<i64, SetUpError> {
        let mut tx = self.worker().begin().await?;
        let row = tx.fetch_one(AssertSqlSafe(sql.to_owned())).await?;
        Ok(row.try_get(0)?)
    }
}

impl Drop for TestDatabase {
    /// Drops the database: a run of all tests makes more than a disk holds. In a thread of its own, because a drop can't wait for a future.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let mut connection = PgConnection::connect_with(&server).await?;
                let statement = format!("drop database if exists {name} with (force)");
                connection.execute(AssertSqlSafe(statement)).await?;
                Ok::<_, SetUpError>(())
            })
        });
        // What is left behind goes with the test's PostgreSQL.
        let _ = dropping.join();
    }
}

/// A key ring under a random master key.
pub fn keyring() -> Result<Keyring, SetUpError> {
    Ok(Keyring::new(DataKey::generate()?))
}
