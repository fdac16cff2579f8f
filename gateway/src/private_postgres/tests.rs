//! The private PostgreSQL with real processes: started, killed, started again. As root these tests run PostgreSQL as the
//! unprivileged user, otherwise as the user who runs them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use super::account::Account;
use super::{Error, Options, PrivatePostgres, State};

/// Set for the process that a test starts from its own executable, to be killed.
const ROLE_DIRECTORY: &str = "STOA_TEST_PRIVATE_POSTGRES_DIRECTORY";

/// When a condition that should come true counts as never.
const PATIENCE: Duration = Duration::from_secs(90);

/// A data directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self::named("stoa-test")
    }

    fn named(prefix: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{prefix}-{}", uuid::Uuid::now_v7().simple()));
        std::fs::DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .unwrap();
        Self(path)
    }

    fn options(&self) -> Options {
        Options::new(&self.0)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.0.join("postgres.log")).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// Waits until a condition holds.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, condition: impl Fn() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"))
}

async fn connect(postgres: &PrivatePostgres) -> PgConnection {
    PgConnection::connect_with(&postgres.connect_options())
        .await
        .unwrap()
}

async fn value(connection: &mut PgConnection, query: &'static str) -> String {
    let row: PgRow = sqlx::raw_sql(query).fetch_one(connection).await.unwrap();
    row.get(0)
}

/// Whether a process is there and not a zombie, which it stays for a while where nobody reaps orphans.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, state)| !state.trim_start().starts_with(['Z', 'X']))
}

fn kill_9(pid: u32) {
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_first_start_makes_a_durable_cluster_that_only_a_socket_leads_to() {
    let scratch = Scratch::new();
    let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
    let mut connection = connect(&postgres).await;

    assert_eq!(
        value(
            &mut connection,
            "select current_user || '@' || current_database()"
        )
        .await,
        "stoa@stoa"
    );
    for (setting, expected) in [
        ("show fsync", "on"),
        ("show synchronous_commit", "on"),
        ("show full_page_writes", "on"),
        ("show data_checksums", "on"),
        ("show listen_addresses", ""),
        ("show server_encoding", "UTF8"),
        ("show lc_collate", "C"),
        ("show jit", "off"),
    ] {
        assert_eq!(value(&mut connection, setting).await, expected, "{setting}");
    }
    let role = "select concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolbypassrls) from pg_roles where rolname = current_user";
    assert_eq!(value(&mut connection, role).await, "f f t f f");
    let owner =
        "select pg_get_userbyid(datdba)::text from pg_database where datname = current_database()";
    assert_eq!(value(&mut connection, owner).await, "stoa");

    let socket_directory = postgres
        .connect_options()
        .get_socket()
        .unwrap()
        .metadata()
        .unwrap();
    assert_eq!(socket_directory.permissions().mode() & 0o777, 0o700);
    assert_ne!(socket_directory.uid(), 0, "PostgreSQL must not run as root");
    assert!(postgres.bin_dir().join("postgres").is_file());
    let pid = postgres.pid().unwrap();
    assert_eq!(*postgres.state().borrow(), State::Running { pid });
    assert!(lives(pid));

    postgres.stop().await;
    assert_eq!(*postgres.state().borrow(), State::Stopped);
    assert_eq!(postgres.pid(), None);
    assert!(!lives(pid));
    assert!(
        scratch.log().contains("database system is shut down"),
        "a clean stop: {}",
        scratch.log()
    );
}

#[tokio::test]
async fn a_restart_keeps_the_data() {
    let scratch = Scratch::new();
    let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
    let mut connection = connect(&postgres).await;
    sqlx::raw_sql("create table kept (note text); insert into kept values ('still here')")
        .execute(&mut connection)
        .await
        .unwrap();
    postgres.stop().await;

    let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
    assert_eq!(
        value(&mut connect(&postgres).await, "select note from kept").await,
        "still here"
    );
    postgres.stop().await;
}

#[tokio::test]
async fn a_killed_postmaster_is_restarted_even_while_its_orphan_still_works() {
    let scratch = Scratch::new();
    let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
    sqlx::raw_sql("create table kept as select 'committed' as note")
        .execute(&mut connect(&postgres).await)
        .await
        .unwrap();
    let mut state = postgres.state();

    let mut pid = postgres.pid().unwrap();
    for round in 0..3 {
        // A backend that computes doesn't notice its postmaster's death, and keeps the shared memory until it is done.
        let mut busy = connect(&postgres).await;
        let work = tokio::spawn(async move {
            sqlx::raw_sql(
                "select count(*) from generate_series(1, 3000000) where sqrt(generate_series) > 5",
            )
            .execute(&mut busy)
            .await
        });
        let mut watcher = connect(&postgres).await;
        let active = "select (count(*) > 0)::text from pg_stat_activity where state = 'active' and query like 'select count(*) from gen%'";
        while !work.is_finished() && value(&mut watcher, active).await != "true" {}

        kill_9(pid);
        let seen =
            state.wait_for(|state| matches!(state, State::Running { pid: new } if *new != pid));
        let State::Running { pid: new } =
            *tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap()
        else {
            panic!("not running in round {round}");
        };
        assert_eq!(postgres.pid(), Some(new));
        assert_eq!(
            value(&mut connect(&postgres).await, "select note from kept").await,
            "committed"
        );
        pid = new;
        let _finished = work.await.unwrap();
    }
    postgres.stop().await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn a_second_start_on_one_directory_is_refused_by_name_of_the_holder() {
    let scratch = Scratch::new();
    let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
    let error = PrivatePostgres::start(scratch.options()).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains(&format!("process {}", std::process::id())),
        "{error}"
    );

    // The refusal harmed nothing, and a stop frees the directory at once.
    connect(&postgres).await;
    postgres.stop().await;
    PrivatePostgres::start(scratch.options())
        .await
        .unwrap()
        .stop()
        .await;
}

#[tokio::test]
async fn another_major_versions_directory_is_refused() {
    let scratch = Scratch::new();
    PrivatePostgres::start(scratch.options())
        .await
        .unwrap()
        .stop()
        .await;
    std::fs::write(scratch.0.join("postgres/PG_VERSION"), "12\n").unwrap();
    let error = PrivatePostgres::start(scratch.options()).await.unwrap_err();
    assert!(
        matches!(error, Error::OtherVersion { cluster: 12, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_directory_with_something_else_in_it_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let cluster = scratch.0.join("postgres");
    std::fs::create_dir(&cluster).unwrap();
    std::fs::write(cluster.join("thesis.txt"), "precious").unwrap();
    std::os::unix::fs::chown(
        &cluster,
        Account::choose(None).unwrap().uid_for_tests(),
        None,
    )
    .unwrap();
    let error = PrivatePostgres::start(scratch.options()).await.unwrap_err();
    assert!(matches!(error, Error::NotACluster { .. }), "{error:?}");
    assert_eq!(
        std::fs::read_to_string(cluster.join("thesis.txt")).unwrap(),
        "precious"
    );
}

#[tokio::test]
async fn a_data_directory_too_long_for_a_socket_gets_its_socket_elsewhere() {
    let scratch = Scratch::new();
    let deep = scratch.0.join("d".repeat(100));
    std::fs::DirBuilder::new()
        .mode(0o711)
        .create(&deep)
        .unwrap();
    let postgres = PrivatePostgres::start(Options::new(&deep)).await.unwrap();
    let socket = postgres.connect_options().get_socket().unwrap().clone();
    assert!(!socket.starts_with(&deep));
    assert_eq!(
        socket.metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );
    connect(&postgres).await;
    postgres.stop().await;
    std::fs::remove_dir_all(socket).unwrap();
}

#[tokio::test]
async fn a_data_directory_may_be_missing_and_have_an_awkward_name() {
    let scratch = Scratch::new();
    let awkward = scratch.0.join("missing/a, \"b\" c'd");
    let postgres = PrivatePostgres::start(Options::new(&awkward))
        .await
        .unwrap();
    connect(&postgres).await;
    assert!(
        postgres
            .connect_options()
            .get_socket()
            .unwrap()
            .starts_with(&awkward)
    );
    postgres.stop().await;
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_is_begun_again() {
    let scratch = Scratch::new();
    let leftover = scratch.0.join("postgres.initialising.0");
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("PG_VERSION"), "15\n").unwrap();
    // And one that is interrupted now, in the middle of initdb.
    let mut child = spawn_child(&scratch);
    let begun = async || {
        let entries = std::fs::read_dir(&scratch.0).unwrap().flatten();
        let mut initialising = entries.filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("postgres.init")
        });
        initialising
            .any(|entry| entry.path() != leftover && entry.path().join("PG_VERSION").exists())
            .then_some(())
    };
    eventually("initdb has begun", begun).await;
    child.kill().unwrap();
    child.wait().unwrap();

    let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
    connect(&postgres).await;
    assert!(!leftover.exists());
    postgres.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_quotes_the_log() {
    let scratch = Scratch::new();
    PrivatePostgres::start(scratch.options())
        .await
        .unwrap()
        .stop()
        .await;
    std::fs::remove_file(scratch.0.join("postgres/global/pg_control")).unwrap();
    let error = PrivatePostgres::start(scratch.options()).await.unwrap_err();
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("pg_control") && message.contains("postgres.log"),
        "{message}"
    );
}

#[tokio::test]
async fn a_process_id_that_is_taken_by_something_else_does_not_keep_it_from_starting() {
    let scratch = Scratch::new();
    PrivatePostgres::start(scratch.options())
        .await
        .unwrap()
        .stop()
        .await;

    // What a killed container leaves: the file of a server that is gone, with an id that another process of the same user has by
    // now. Once that process lives, and once it is a zombie.
    let account = Account::choose(None).unwrap();
    for (program, zombie) in [("cat", false), ("true", true)] {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).current_dir("/");
        account.apply(&mut command);
        let mut other = command.spawn().unwrap();
        let other_pid = other.id();
        if zombie {
            eventually("the other process is a zombie", async || {
                (!lives(other_pid)).then_some(())
            })
            .await;
        }
        let file = scratch.0.join("postgres/postmaster.pid");
        let text = format!(
            "{other_pid}\n{}\n1\n5432\n{}\n\n1 1\nready   \n",
            scratch.0.join("postgres").display(),
            scratch.0.display()
        );
        std::fs::write(&file, text).unwrap();
        account.give(&std::fs::File::open(&file).unwrap()).unwrap();

        let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
        connect(&postgres).await;
        postgres.stop().await;
        other.kill().unwrap();
        other.wait().unwrap();
    }
}

#[tokio::test]
async fn a_data_directory_behind_a_closed_one_is_refused_for_root() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let scratch = Scratch::new();
    let closed = scratch.0.join("closed");
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&closed)
        .unwrap();
    let error = PrivatePostgres::start(Options::new(closed.join("data")))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::NotTraversable { directory, .. } if *directory == closed),
        "{error:?}"
    );
}

/// Not a test of its own: the process that the next tests start, and kill.
#[tokio::test]
#[ignore = "the child process of other tests"]
async fn child_that_runs_until_it_is_killed() {
    let Some(directory) = std::env::var_os(ROLE_DIRECTORY) else {
        return;
    };
    let postgres = PrivatePostgres::start(Options::new(&directory))
        .await
        .unwrap();
    let mut connection = connect(&postgres).await;
    sqlx::raw_sql(
        "create table if not exists kept (note text); insert into kept values ('committed')",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    // Work in progress, so that ending is not easy: a backend that computes doesn't
    // notice its postmaster's death, and here its client's only some seconds later.
    tokio::spawn(async move {
        let work = "set client_connection_check_interval = '5s'; begin; insert into kept values ('uncommitted'); do $$ begin loop perform 1; end loop; end $$";
        sqlx::raw_sql(work).execute(&mut connection).await
    });
    let mut watcher = connect(&postgres).await;
    let active = "select (count(*) > 0)::text from pg_stat_activity where state = 'active' and query like 'set client%'";
    while value(&mut watcher, active).await != "true" {}

    let ready = Path::new(&directory).join("child.ready");
    std::fs::write(
        ready.with_extension("new"),
        postgres.pid().unwrap().to_string(),
    )
    .unwrap();
    std::fs::rename(ready.with_extension("new"), &ready).unwrap();
    std::future::pending::<()>().await;
}

/// Starts the child on the directory.
fn spawn_child(scratch: &Scratch) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "private_postgres::tests::child_that_runs_until_it_is_killed",
        ])
        .env(ROLE_DIRECTORY, &scratch.0)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts the child, and waits for its PostgreSQL's process id.
async fn start_child(scratch: &Scratch) -> (Child, u32) {
    let ready = scratch.0.join("child.ready");
    let _removed = std::fs::remove_file(&ready);
    let child = spawn_child(scratch);
    let pid = eventually("the child is ready", async || {
        std::fs::read_to_string(&ready).ok()
    })
    .await;
    (child, pid.parse().unwrap())
}

#[tokio::test]
async fn a_parent_killed_by_9_takes_postgres_along_and_the_next_start_works() {
    let scratch = Scratch::new();
    for _ in 0..2 {
        let (mut child, pid) = start_child(&scratch).await;
        assert!(lives(pid));
        let error = PrivatePostgres::start(scratch.options()).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("process {}", child.id())),
            "{error}"
        );

        child.kill().unwrap();
        child.wait().unwrap();
        eventually("PostgreSQL is gone", async || (!lives(pid)).then_some(())).await;

        let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
        let notes = "select string_agg(distinct note, ' ') from kept";
        assert_eq!(
            value(&mut connect(&postgres).await, notes).await,
            "committed"
        );
        postgres.stop().await;
    }
}

#[tokio::test]
async fn a_start_right_after_both_were_killed_waits_for_what_they_left() {
    let scratch = Scratch::new();
    for kill_postgres_too in [true, false] {
        let (mut child, pid) = start_child(&scratch).await;
        if kill_postgres_too {
            kill_9(pid);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // At once: the postmaster or its orphans may still be there.
        let postgres = PrivatePostgres::start(scratch.options()).await.unwrap();
        let notes = "select string_agg(distinct note, ' ') from kept";
        assert_eq!(
            value(&mut connect(&postgres).await, notes).await,
            "committed"
        );
        postgres.stop().await;
    }
}
