//! PostgreSQL by itself: psql and pgbench on a schema beside Stoa's, in the same private cluster.
//!
//! The tables there are like Stoa's, with their indexes, checks and foreign keys, but without row-level security and partitions.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tests::Stoa;

use crate::{cpu::Cpu, figure::Sample};

/// Tables like Stoa's in a schema `ceiling`.
const SCHEMA: &str = include_str!("../sql/schema.sql");

/// Who may read all of Stoa's rows; on the socket of the private cluster, whoever gets that far is trusted.
const SUPERUSER: &str = "postgres";

/// How often to look whether the relay is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What a long transaction does.
const LONG_LOOK: &str = "select count(*), pg_sleep(3600) from public.merchants";

/// Those that do so, and see the database as it was.
const LOOKING: &str =
    "from pg_stat_activity where backend_xmin is not null and wait_event = 'PgSleep'";

/// A long transaction begins within this.
const LOOKS_WITHIN: Duration = Duration::from_secs(10);

/// A private cluster's programs and socket.
#[derive(Debug)]
pub(crate) struct Ceiling<'s> {
    stoa: &'s Stoa,
    programs: PathBuf,
    socket: String,
    directory: PathBuf,
}

impl<'s> Ceiling<'s> {
    /// Makes the schema, unless it is there.
    pub(crate) fn new(stoa: &'s Stoa) -> Self {
        let ceiling = Self::again(stoa);
        if ceiling
            .psql("select to_regnamespace('ceiling')")
            .trim()
            .is_empty()
        {
            ceiling.psql(SCHEMA);
        }
        ceiling
    }

    /// With the schema as it is.
    pub(crate) fn again(stoa: &'s Stoa) -> Self {
        let postmaster = stoa.postgres_pid().expect("PostgreSQL runs");
        let program = std::fs::read_link(format!("/proc/{postmaster}/exe")).unwrap();
        let url = stoa.database_url();
        let (_, socket) = url.split_once("host=").unwrap();
        let ceiling = Self {
            stoa,
            programs: program.parent().unwrap().to_owned(),
            socket: socket.to_owned(),
            directory: stoa.data_dir().join("bench"),
        };
        std::fs::create_dir_all(&ceiling.directory).unwrap();
        ceiling
    }

    /// Where files may lie that go with the server.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs statements, and gives what they print.
    pub(crate) fn psql(&self, statements: &str) -> String {
        let script = self.directory.join("script.sql");
        std::fs::write(&script, statements).unwrap();
        let mut command = self.command("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f"])
            .arg(&script);
        run(command)
    }

    /// Begins a transaction that sees the database as it now is, as a dump does, until it is dropped.
    pub(crate) fn look_long(&self) -> LongLook<'_> {
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        command.args(["-c", "begin isolation level repeatable read"]);
        command.args(["-c", LONG_LOOK]);
        command.stdin(Stdio::null());
        // Its last words are that it was ended.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let looking = command.spawn().unwrap();
        let deadline = Instant::now() + LOOKS_WITHIN;
        while self.psql(&format!("select count(*) {LOOKING}")).trim() != "1" {
            assert!(Instant::now() < deadline, "the transaction did not begin");
        }
        LongLook {
            ceiling: self,
            looking,
        }
    }

    /// Waits until the relay has nothing left to do. Looks seldom: each look is a process and a connection.
    pub(crate) async fn relayed(&self) {
        while self
            .psql("select exists (select from public.outbox)")
            .trim()
            == "t"
        {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Times statements that do so many things.
    pub(crate) fn timed(&self, statements: &str, operations: u64) -> Sample {
        let (before, started) = (Cpu::of(self.stoa), Instant::now());
        self.psql(statements);
        Sample {
            operations,
            elapsed: started.elapsed(),
            cpu: Cpu::of(self.stoa) - before,
            ..Sample::default()
        }
    }

    /// Runs a script over and over by pgbench. New sessions plan by the latest statistics: without them, foreign keys would be checked by the wrong index.
    pub(crate) fn pgbench(&self, script: &str, connections: u32, duration: Duration) -> Sample {
        self.psql("analyze ceiling.orders, ceiling.order_lines, ceiling.variants, ceiling.inventory_levels;");
        self.pgbench_with(script, connections, duration, &[])
    }

    /// The same with variables, which each connection goes on from where it was left.
    pub(crate) fn pgbench_with(
        &self,
        script: &str,
        connections: u32,
        duration: Duration,
        variables: &[(&str, &str)],
    ) -> Sample {
        let path = self.directory.join("pgbench.sql");
        std::fs::write(&path, script).unwrap();
        let mut command = self.command("pgbench");
        command.args([
            "--no-vacuum",
            "--protocol=prepared",
            "--jobs=2",
            "--client",
            &connections.to_string(),
        ]);
        for (name, value) in variables {
            command.args(["--define", &format!("{name}={value}")]);
        }
        command
            .args(["--time", &duration.as_secs().to_string(), "--file"])
            .arg(&path);
        let before = Cpu::of(self.stoa);
        let printed = run(command);
        let cpu = Cpu::of(self.stoa) - before;
        let number = |before: &str| {
            let (_, after) = printed
                .split_once(before)
                .unwrap_or_else(|| panic!("pgbench printed {printed}"));
            after
                .split([' ', '\n'])
                .next()
                .unwrap()
                .parse::<f64>()
                .unwrap()
        };
        let failed = number("number of failed transactions: ");
        assert!(failed == 0.0, "pgbench printed {printed}");
        let (operations, rate) = (
            number("number of transactions actually processed: "),
            number("tps = "),
        );
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        let count = operations as u64;
        Sample {
            operations: count,
            elapsed: Duration::from_secs_f64(operations / rate),
            cpu,
            ..Sample::default()
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(["-h", &self.socket, "-U", SUPERUSER]);
        command.env("PGDATABASE", "stoa");
        command
    }
}

/// A transaction that goes on for long.
#[derive(Debug)]
pub(crate) struct LongLook<'c> {
    ceiling: &'c Ceiling<'c>,
    looking: Child,
}

impl Drop for LongLook<'_> {
    fn drop(&mut self) {
        self.ceiling
            .psql(&format!("select pg_terminate_backend(pid) {LOOKING}"));
        // Its end says that it was ended.
        let _ = self.looking.wait();
    }
}

fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (printed, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{complaint}",
        output.status
    );
    printed.into_owned()
}
