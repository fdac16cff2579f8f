//! The private PostgreSQL: a cluster of Stoa's own, made and run from the system's binaries, so that nothing has to be
//! configured before the first start.
//!
//! The composition of the server starts one when no external database is configured, takes [`connect_options`]
//! for its pools, watches [`state`] to answer 503 while the database is away, and calls [`stop`] last.
//!
//! Invariants:
//! - What is in `<data directory>/postgres` was made completely: a cluster is initialised beside it and then renamed.
//! - One process at a time owns a data directory, by a lock that the kernel releases when that process ends, however it
//!   ends.
//! - PostgreSQL never outlives this process, and is never reachable but through a socket in a directory that only its
//!   own user may enter. Nothing listens on TCP.
//! - A `postmaster.pid` is never deleted here. Whether a predecessor is really gone is PostgreSQL's own decision, because only it
//!   knows the shared memory that orphaned backends may still be attached to.
//!
//! [`connect_options`]: PrivatePostgres::connect_options
//! [`state`]: PrivatePostgres::state
//! [`stop`]: PrivatePostgres::stop

mod account;
mod bootstrap;
mod directory;
mod error;
mod installation;
mod log;
mod process;
mod server;
mod supervisor;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::directory::Directory;
pub use self::error::Error;
use self::installation::Installation;
use self::process::Spawner;
use self::server::Server;

/// How to run the private PostgreSQL. Read from the configuration, because nothing in here reads the environment.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory (`STOA_DATA_DIR`); made if it isn't there. The cluster is its subdirectory `postgres`.
    pub data_directory: PathBuf,
    /// The user's runtime directory (`XDG_RUNTIME_DIR`): a place for the socket when the data directory's path is too long.
    pub runtime_directory: Option<PathBuf>,
    /// The environment's `PATH`, where PostgreSQL is looked for last.
    pub search_path: Option<OsString>,
    /// How long one start may take, recovery from a crash included.
    pub start_timeout: Duration,
    /// How long a stop may take before open work is cut off. Nothing committed is lost either way.
    pub stop_timeout: Duration,
}

impl Options {
    /// The options for a data directory with everything else at its default.
    pub fn new(data_directory: impl Into<PathBuf>) -> Self {
        Self {
            data_directory: data_directory.into(),
            runtime_directory: None,
            search_path: None,
            // Replaying MAX_WAL_SIZE after a crash takes well under a minute on a slow disk.
            start_timeout: Duration::from_mins(5),
            stop_timeout: Duration::from_secs(20),
        }
    }
}

/// What the private PostgreSQL is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It accepts connections.
    Running {
        /// The postmaster's process id; another one after a restart.
        pid: u32,
    },
    /// It died and is being started again.
    Restarting,
    /// It was stopped, and stays so.
    Stopped,
}

/// A running private PostgreSQL, supervised until [`PrivatePostgres::stop`].
///
/// Dropped without a stop, PostgreSQL is asked to end but not waited for.
#[derive(Debug)]
pub struct PrivatePostgres {
    connect_options: PgConnectOptions,
    installation: Installation,
    state: watch::Receiver<State>,
    stop: CancellationToken,
}

impl PrivatePostgres {
    /// Makes the cluster if there is none, starts it, and returns when the database `stoa` can be connected to.
    ///
    /// Waits while a predecessor's PostgreSQL still shuts down or recovers.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let start_timeout = options.start_timeout;
        let stop_timeout = options.stop_timeout;
        let (directory, installation) = tokio::task::spawn_blocking(move || {
            let directory = Directory::open(&options)?;
            let installation = Installation::find(
                options.search_path.as_deref(),
                directory.cluster_version()?,
                &directory.cluster,
            )?;
            Ok::<_, Error>((directory, installation))
        })
        .await
        .map_err(Error::Preparation)??;

        let spawner = Spawner::start()?;
        let server = Server::new(directory, installation.clone(), spawner);
        server.initialise().await?;
        let process = server.launch(start_timeout).await?;
        bootstrap::run(server.socket_directory()).await?;
        tracing::info!(
            postgres.pid = process.pid(),
            postgres.version = installation.version,
            postgres.socket_directory = %server.socket_directory().display(),
            "private PostgreSQL is running"
        );

        let connect_options = bootstrap::connect_options(server.socket_directory());
        let stop = CancellationToken::new();
        let state = supervisor::run(server, process, stop.clone(), stop_timeout);
        Ok(Self {
            connect_options,
            installation,
            state,
            stop,
        })
    }

    /// How to connect as the login role `stoa` to the database `stoa`. The same before and after a restart.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.connect_options.clone()
    }

    /// The postmaster's process id, which changes with a restart; none while it isn't running.
    pub fn pid(&self) -> Option<u32> {
        match *self.state.borrow() {
            State::Running { pid } => Some(pid),
            State::Restarting | State::Stopped => None,
        }
    }

    /// What PostgreSQL is doing, now and whenever that changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The directory of the binaries it runs from; `psql` and `pg_dump` of the same version are usually there.
    pub fn bin_dir(&self) -> &Path {
        &self.installation.bin_dir
    }

    /// Ends PostgreSQL: open transactions are rolled back, everything is written to disk. Returns when it is gone and the data
    /// directory is free for another start. Calling it again only waits.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut state = self.state.clone();
        // An error means that the supervisor is gone with its runtime, and then there is nothing to wait for.
        let _gone = state.wait_for(|state| *state == State::Stopped).await;
    }
}

/// How to connect to the private PostgreSQL that another process runs in this data directory, if one does. PostgreSQL itself says where its
/// socket is: the fifth line of its `postmaster.pid`.
pub fn running(data_directory: &Path) -> Option<PgConnectOptions> {
    let text =
        std::fs::read_to_string(data_directory.join("postgres").join("postmaster.pid")).ok()?;
    let socket_directory = text.lines().nth(4).filter(|line| !line.is_empty())?;
    Some(bootstrap::connect_options(Path::new(socket_directory)))
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
