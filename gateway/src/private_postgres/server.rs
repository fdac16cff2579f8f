//! One cluster: how it is made, with which settings it runs, and when it counts as started.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::directory::{Directory, PORT};
use super::error::Error;
use super::installation::Installation;
use super::log::Log;
use super::process::{Process, Spawner};

/// The cluster's superuser, whom only the preparation of role and database uses.
pub(super) const SUPERUSER: &str = "postgres";

/// How often `postmaster.pid` is looked at while PostgreSQL starts; it is a file of a few lines.
const READY_INTERVAL: Duration = Duration::from_millis(20);

/// How long a predecessor that still holds the cluster is waited for. A shutdown writes at most the shared buffers; longer
/// than this it is somebody else's server, or a statement that doesn't end.
const PREDECESSOR_TIMEOUT: Duration = Duration::from_mins(1);

/// The first and the longest pause before PostgreSQL is tried again while a predecessor holds the cluster.
const PREDECESSOR_DELAY_MIN: Duration = Duration::from_millis(100);
const PREDECESSOR_DELAY_MAX: Duration = Duration::from_secs(1);

/// What PostgreSQL runs with, whatever the cluster's own files say. Durability is at its defaults, written down
/// because everything that Stoa promises rests on it.
const SETTINGS: &[(&str, &str)] = &[
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    // A socket in a private directory is the only way in.
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    // Room for several processes' pools; an idle connection costs little.
    ("max_connections", "200"),
    // Enough for the hot rows of a large catalog, and small enough for a laptop; the rest is in the system's cache.
    ("shared_buffers", "256MB"),
    // Imports write much: fewer checkpoints than by default, and still a recovery of less than a minute.
    ("max_wal_size", "2GB"),
    ("min_wal_size", "256MB"),
    ("checkpoint_timeout", "10min"),
    // Before it recovers from a crash, PostgreSQL has every file reach the disk. One call for the file system takes a moment where one for each of a
    // thousand files takes seconds, during which requests are refused. Linux reports its failures since 5.8.
    #[cfg(target_os = "linux")]
    ("recovery_init_sync_method", "syncfs"),
    // Statements are short: compiling them, or spreading one over several processes, costs more than it saves. Without parallel
    // workers nothing depends on the size of /dev/shm either, which containers keep small.
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    // Data directories are on solid-state disks, where a random page costs little more than the next one.
    ("random_page_cost", "1.1"),
    // Sessions keep the plans of foreign keys that they made while tables were empty, until the tables are analyzed for the first time; by default that is
    // up to a minute away, and until then each order would read all that its merchant has.
    ("autovacuum_naptime", "5s"),
    // A statement whose client was killed ends soon, instead of holding its locks to the end.
    ("client_connection_check_interval", "2s"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    // To the inherited file. Values of rows and parameters stay out of it, because they may be personal data: no
    // details, no statements.
    ("log_destination", "stderr"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] "),
    ("log_error_verbosity", "terse"),
    ("log_min_error_statement", "panic"),
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_parameter_max_length", "0"),
    ("log_parameter_max_length_on_error", "0"),
    // The launcher recognises a predecessor by PostgreSQL's messages.
    ("lc_messages", "C"),
];

/// The cluster and what it takes to run it.
#[derive(Debug)]
pub(super) struct Server {
    directory: Directory,
    installation: Installation,
    spawner: Spawner,
}

impl Server {
    pub(super) fn new(directory: Directory, installation: Installation, spawner: Spawner) -> Self {
        Self {
            directory,
            installation,
            spawner,
        }
    }

    /// The directory that clients find the socket in.
    pub(super) fn socket_directory(&self) -> &Path {
        &self.directory.socket
    }

    /// Makes the cluster if there is none.
    pub(super) async fn initialise(&self) -> Result<(), Error> {
        if self.directory.cluster_version()?.is_some() {
            return Ok(());
        }
        // By code point, which no update of the system's library changes under the indexes; upper and lower case as in Unicode.
        // Not every system has C.UTF-8.
        let unicode: &[&str] = &["--locale=C.UTF-8", "--lc-collate=C", "--lc-messages=C"];
        if self.initialise_with(unicode).await.is_err() {
            self.initialise_with(&["--locale=C"]).await?;
        }
        Ok(())
    }

    async fn initialise_with(&self, locale: &[&str]) -> Result<(), Error> {
        let path = self.directory.begin_cluster()?;
        let log = Log::open(&self.directory.log_path())?;
        let mut command = self.command("initdb", &log)?;
        command
            .arg("-D")
            .arg(&path)
            .args([
                "--username",
                SUPERUSER,
                "--encoding=UTF8",
                "--data-checksums",
            ])
            // Who may enter the socket's directory may do everything, and nobody comes in by a network.
            .args([
                "--auth-local=trust",
                "--auth-host=reject",
                "--no-instructions",
            ])
            .args(locale);
        let status = self.spawner.spawn(command).await?.exited().await?;
        if !status.success() {
            return Err(Error::Initialisation {
                status,
                log: log.path(),
                tail: log.tail(),
            });
        }
        self.directory.finish_cluster(&path)
    }

    /// Starts PostgreSQL and waits until it accepts connections, recovery included. As long as a predecessor holds the
    /// cluster, it is tried again.
    pub(super) async fn launch(&self, timeout: Duration) -> Result<Process, Error> {
        let mut waited = Duration::ZERO;
        let mut delay = PREDECESSOR_DELAY_MIN;
        loop {
            let log = Log::open(&self.directory.log_path())?;
            let mut process = self.spawner.spawn(self.postgres_command(&log)?).await?;
            let pid = process.pid();
            let status = tokio::select! {
                status = process.exited() => status?,
                () = self.ready(pid) => return Ok(process),
                () = tokio::time::sleep(timeout) => {
                    return Err(Error::StartTimeout {
                        seconds: timeout.as_secs(),
                        log: log.path(),
                        tail: log.tail(),
                    });
                }
            };
            if !refused_for_predecessor(status, &log.written()) {
                return Err(Error::Start {
                    status,
                    log: log.path(),
                    tail: log.tail(),
                });
            }
            if waited >= PREDECESSOR_TIMEOUT {
                return Err(Error::Predecessor {
                    directory: self.directory.cluster.clone(),
                    holder: postmaster_pid(&self.directory.cluster),
                    log: log.path(),
                    tail: log.tail(),
                });
            }
            tracing::info!(
                postgres.retry_ms = delay.as_millis(),
                "waiting for the previous PostgreSQL to end"
            );
            tokio::time::sleep(delay).await;
            waited += delay;
            delay = (delay * 2).min(PREDECESSOR_DELAY_MAX);
        }
    }

    /// Waits until every process that was started has ended, and lets go of the data directory.
    pub(super) async fn finish(self) {
        self.spawner.finish().await;
        drop(self.directory);
    }

    /// Waits until PostgreSQL says that it accepts connections: by its own file, as `pg_ctl` does, because connecting could
    /// reach a predecessor that is about to end.
    async fn ready(&self, pid: u32) {
        let path = self.directory.cluster.join("postmaster.pid");
        loop {
            if let Ok(text) = tokio::fs::read_to_string(&path).await {
                let mut lines = text.lines();
                let holder = lines
                    .next()
                    .and_then(|line| line.trim().parse::<u32>().ok());
                // The eighth line of the file is the status.
                if holder == Some(pid)
                    && lines.nth(6).is_some_and(|status| status.trim() == "ready")
                {
                    return;
                }
            }
            tokio::time::sleep(READY_INTERVAL).await;
        }
    }

    fn postgres_command(&self, log: &Log) -> Result<Command, Error> {
        let mut command = self.command("postgres", log)?;
        command.arg("-D").arg(&self.directory.cluster);
        for (name, value) in SETTINGS {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.arg("-c").arg(format!("port={PORT}"));
        command
            .arg("-c")
            .arg(socket_directories(&self.directory.socket));
        if let Some(pid) = impostor(&self.directory.cluster) {
            // As pg_ctl tells PostgreSQL which process is no other server's. PostgreSQL still asks its shared memory whether the
            // cluster is in use.
            command.env("PG_GRANDPARENT_PID", pid.to_string());
        }
        Ok(command)
    }

    /// A command as PostgreSQL's user, with its output in the log and nothing of our environment, which holds secrets.
    fn command(&self, program: &str, log: &Log) -> Result<Command, Error> {
        let mut command = Command::new(self.installation.bin_dir.join(program));
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        command
            .stdin(Stdio::null())
            .stdout(log.writer()?)
            .stderr(log.writer()?);
        self.directory.account.apply(&mut command);
        Ok(command)
    }
}

/// The setting for one socket directory. It takes a list, so a comma or a blank in the path needs quoting.
fn socket_directories(directory: &Path) -> OsString {
    let mut setting = b"unix_socket_directories=\"".to_vec();
    for byte in directory.as_os_str().as_bytes() {
        if *byte == b'"' {
            setting.push(b'"');
        }
        setting.push(*byte);
    }
    setting.push(b'"');
    OsString::from_vec(setting)
}

/// Whether PostgreSQL ended because another one holds the cluster or the socket, or was itself killed, so that trying again
/// helps.
fn refused_for_predecessor(status: ExitStatus, written: &str) -> bool {
    status.code().is_none()
        || written.lines().any(|line| {
            line.contains("pre-existing shared memory block")
                || (line.contains("lock file \"")
                    && (line.contains("already exists") || line.contains("is empty")))
        })
}

/// The process that the cluster's `postmaster.pid` names.
fn postmaster_pid(cluster: &Path) -> Option<i32> {
    std::fs::read_to_string(cluster.join("postmaster.pid"))
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

/// The process id in `postmaster.pid`, if a process has it that can't be a PostgreSQL server: a zombie that
/// nobody reaps, or another program that got the same id, as happens when a container starts again. PostgreSQL
/// only sees that the id is taken, and would refuse for as long as it is.
fn impostor(cluster: &Path) -> Option<i32> {
    let pid = postmaster_pid(cluster)?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // `PID (NAME) STATE …`, where the name may have brackets itself.
    let (head, tail) = text.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let dead = tail.trim_start().starts_with(['Z', 'X']);
    (dead || !["postgres", "postmaster"].contains(&name)).then_some(pid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_a_predecessor_is_waited_for() {
        let exited = ExitStatus::from_raw(1 << 8);
        for (written, refused) in [
            ("FATAL:  lock file \"postmaster.pid\" already exists", true),
            (
                "FATAL:  lock file \"/tmp/x/.s.PGSQL.5432.lock\" already exists",
                true,
            ),
            (
                "FATAL:  pre-existing shared memory block (key 5, ID 7) is still in use",
                true,
            ),
            ("FATAL:  lock file \"postmaster.pid\" is empty", true),
            (
                "FATAL:  could not open file \"global/pg_control\": No such file or directory",
                false,
            ),
            ("", false),
        ] {
            assert_eq!(
                refused_for_predecessor(exited, written),
                refused,
                "{written}"
            );
        }
        assert!(
            refused_for_predecessor(ExitStatus::from_raw(9), ""),
            "killed"
        );
    }
}
