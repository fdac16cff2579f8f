//! Why a private PostgreSQL could not be started. Every message says what to do about it, because its reader is the operator.

use std::path::PathBuf;
use std::process::ExitStatus;

/// What kept the private PostgreSQL from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No PostgreSQL server is installed, or only one that is too old.
    #[error(
        "no PostgreSQL server of version {minimum} or newer found in {searched}{}; install one (on Debian and Ubuntu: \
         `apt-get install postgresql`), or set STOA_DATABASE_URL to use another database",
        too_old.as_ref().map(|version| format!(" (version {version} is too old)")).unwrap_or_default()
    )]
    NotInstalled {
        /// The oldest major version that will do.
        minimum: u32,
        /// Where it was looked for.
        searched: String,
        /// The newest version found, if it is too old.
        too_old: Option<String>,
    },
    /// The cluster was made by another major version than any that is installed.
    #[error(
        "{} was made by PostgreSQL {cluster}, but the PostgreSQL installed here is {installed}; install PostgreSQL {cluster}, \
         or upgrade the directory with pg_upgrade",
        directory.display()
    )]
    OtherVersion {
        /// The cluster's directory.
        directory: PathBuf,
        /// The major version that made it.
        cluster: u32,
        /// The versions that are installed.
        installed: String,
    },
    /// Another process runs a private PostgreSQL in this data directory.
    #[error(
        "{} is in use by another Stoa{}; stop that one, or choose another STOA_DATA_DIR",
        directory.display(),
        holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
        /// The process that holds it, as it wrote it down.
        holder: Option<String>,
    },
    /// The directory for the cluster has content, but none that PostgreSQL made.
    #[error("{} is neither empty nor a PostgreSQL data directory; move it away, or choose another STOA_DATA_DIR", directory.display())]
    NotACluster {
        /// The cluster's directory.
        directory: PathBuf,
    },
    /// A directory belongs to a user as whom PostgreSQL can't be run from here.
    #[error("{} belongs to user {owner}, but PostgreSQL would run as {user}; change its owner, or start Stoa as that user", directory.display())]
    OtherOwner {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        owner: String,
        /// As whom PostgreSQL would run.
        user: String,
    },
    /// The user as whom PostgreSQL is to run can't get to its files.
    #[error(
        "PostgreSQL refuses to run as root and would run as {user}, but that user may not enter {}; make it enterable (`chmod o+x`), \
         choose another STOA_DATA_DIR, or start Stoa as an ordinary user",
        directory.display()
    )]
    NotTraversable {
        /// The first directory on the path that can't be entered.
        directory: PathBuf,
        /// As whom PostgreSQL would run.
        user: String,
    },
    /// Started as root on a system without an unprivileged user.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor `nobody`; make one, or start Stoa as an ordinary user"
    )]
    NoAccount,
    /// No place for the socket has a path that is short enough.
    #[error(
        "the socket's path would be {} ({length} bytes), and a unix socket's path may have {limit} bytes at most; choose a shorter STOA_DATA_DIR",
        path.display()
    )]
    SocketPathTooLong {
        /// The shortest path that was tried.
        path: PathBuf,
        /// Its length.
        length: usize,
        /// The longest that the system allows.
        limit: usize,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}); the end of {}:\n{tail}", log.display())]
    Initialisation {
        /// How it ended.
        status: ExitStatus,
        /// The log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// PostgreSQL ended instead of starting.
    #[error("PostgreSQL did not start ({status}); the end of {}:\n{tail}", log.display())]
    Start {
        /// How it ended.
        status: ExitStatus,
        /// The log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// Another PostgreSQL holds the cluster and does not go away.
    #[error(
        "another PostgreSQL{} still uses {}; stop it and start again. The end of {}:\n{tail}",
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        directory.display(),
        log.display()
    )]
    Predecessor {
        /// The cluster's directory.
        directory: PathBuf,
        /// The process that `postmaster.pid` names.
        holder: Option<i32>,
        /// The log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// PostgreSQL runs but did not become ready in time.
    #[error("PostgreSQL was not ready after {seconds} s; the end of {}:\n{tail}", log.display())]
    StartTimeout {
        /// How long it was waited for.
        seconds: u64,
        /// The log file.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The role or the database could not be made.
    #[error("could not prepare the private PostgreSQL's role and database")]
    Bootstrap(#[source] sqlx::Error),
    /// The system refused an operation on a file, or could not start a program.
    #[error("could not {action} {}", path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The thread that prepares the start ended by panicking or with its runtime.
    #[error("preparing the private PostgreSQL was interrupted")]
    Preparation(#[source] tokio::task::JoinError),
    /// The thread that PostgreSQL is started from is gone.
    #[error("the thread that starts PostgreSQL has ended")]
    SpawnerGone,
}

impl Error {
    /// For `map_err`: names the operation and the file.
    pub(super) fn system(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::System {
            action,
            path,
            source,
        }
    }
}
