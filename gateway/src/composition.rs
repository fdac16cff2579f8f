//! Composition: the only place where the parts are put together.
//!
//! A [`Foundation`] is what every command that touches the data stands on: a database that is up and migrated, and the key ring. A [`Server`] is
//! the API, the relay and the workers over it, each as the process's role asks.

use std::sync::Arc;

use kernel::{
    clock::Clock,
    db::{Database, Role},
    keyring::{self, Keyring},
    migration::{self, MigrationError},
};
use sqlx::postgres::PgConnectOptions;

use crate::{
    config::Storage,
    private_postgres::{self, PrivatePostgres},
};

mod server;
mod subscription;

pub use server::{Server, StartError};

/// A database that is up and migrated, and the key ring.
#[derive(Debug)]
pub struct Foundation {
    options: PgConnectOptions,
    /// Ours to run and to stop; `None` if the database is somebody else's.
    postgres: Option<PrivatePostgres>,
    keyring: Arc<Keyring>,
    clock: Clock,
}

/// Why there is nothing to stand on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The private PostgreSQL does not start.
    #[error("the private PostgreSQL does not start: {0}")]
    PrivatePostgres(#[from] private_postgres::Error),
    /// `STOA_DATABASE_URL` is no address of a PostgreSQL.
    #[error("STOA_DATABASE_URL can't be read: {0}")]
    DatabaseUrl(#[source] sqlx::Error),
    /// The data directory has no database.
    #[error(
        "there is no Stoa in {path}: name the server's directory by --data-dir or STOA_DATA_DIR, or start `stoa serve` there first"
    )]
    NothingThere {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// The schema can't be brought up to date.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// The master key can't be read or made.
    #[error(transparent)]
    Keyring(#[from] keyring::Error),
    /// The data directory can't be made.
    #[error("data directory {path}: {source}")]
    DataDirectory {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Foundation {
    /// Starts the private PostgreSQL (or takes the one of `STOA_DATABASE_URL`), migrates, and opens the key ring.
    pub async fn open(storage: &Storage) -> Result<Self, OpenError> {
        let (options, postgres) = if let Some(url) = &storage.database_url {
            (url.parse().map_err(OpenError::DatabaseUrl)?, None)
        } else {
            let postgres = PrivatePostgres::start(storage.private_postgres()).await?;
            (postgres.connect_options(), Some(postgres))
        };
        Self::over(storage, options, postgres).await
    }

    /// As [`open`](Self::open), but beside a server that already runs the private PostgreSQL of this data directory.
    /// Makes no new database: a merchant in one that nobody serves would help nobody.
    pub async fn open_beside(storage: &Storage) -> Result<Self, OpenError> {
        if storage.database_url.is_none() && !storage.data_dir.join("postgres").exists() {
            return Err(OpenError::NothingThere {
                path: storage.data_dir.clone(),
            });
        }
        match Self::open(storage).await {
            Err(OpenError::PrivatePostgres(error @ private_postgres::Error::InUse { .. })) => {
                let options = private_postgres::running(&storage.data_dir).ok_or(error)?;
                Self::over(storage, options, None).await
            }
            opened => opened,
        }
    }

    async fn over(
        storage: &Storage,
        options: PgConnectOptions,
        postgres: Option<PrivatePostgres>,
    ) -> Result<Self, OpenError> {
        let clock = Clock::system();
        std::fs::create_dir_all(&storage.data_dir).map_err(|source| OpenError::DataDirectory {
            path: storage.data_dir.clone(),
            source,
        })?;
        let keyring = Arc::new(Keyring::load_or_create(&storage.master_key_path())?);
        migration::run(&options, clock.now()).await?;
        Ok(Self {
            options,
            postgres,
            keyring,
            clock,
        })
    }

    /// A pool of the API role.
    pub fn api_database(&self, connections_max: u32) -> Database {
        Database::new(self.options.clone(), Role::Api, connections_max)
    }

    /// A pool of the worker role.
    pub fn worker_database(&self, connections_max: u32) -> Database {
        Database::new(self.options.clone(), Role::Worker, connections_max)
    }

    /// How to connect as the tables' owner.
    pub fn connect_options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// The key ring.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The private PostgreSQL's process.
    pub fn postgres_pid(&self) -> Option<u32> {
        self.postgres.as_ref().and_then(PrivatePostgres::pid)
    }

    /// What the private PostgreSQL is doing, if there is one.
    pub fn postgres_state(&self) -> Option<tokio::sync::watch::Receiver<private_postgres::State>> {
        self.postgres.as_ref().map(PrivatePostgres::state)
    }

    /// Stops the private PostgreSQL.
    pub async fn close(self) {
        if let Some(postgres) = &self.postgres {
            postgres.stop().await;
        }
    }
}
