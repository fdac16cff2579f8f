//! The real binary, in a process of its own.

use std::{
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Weak},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{Client, Credentials, Person, wait_for};

/// The server that tests share while any of them runs.
static SHARED: tokio::sync::Mutex<Weak<Stoa>> = tokio::sync::Mutex::const_new(Weak::new());

/// How to start the binary.
#[derive(Debug, Clone, Default)]
pub struct StoaOptions {
    /// Another server's database, for a second process on one database.
    pub database_url: Option<String>,
    /// Another server's data directory, for the master key.
    pub data_dir: Option<PathBuf>,
    /// Pauses between attempts, in seconds.
    pub retry_schedule: Option<String>,
    /// `api`, `worker` or `all`.
    pub role: Option<String>,
    /// The address that clients know, if it is not the one that is listened on: the processes of one service share their issuer.
    pub public_url: Option<String>,
    /// Is called `localhost` by everybody: an address of numbers is no name that passkeys can belong to.
    pub is_localhost: bool,
    /// Refuses endpoints on loopback and private networks, as in production. Receivers of tests are on loopback.
    pub refuse_private_targets: bool,
    /// What to log; warnings if nothing is said.
    pub log: Option<String>,
    /// Further arguments of `stoa serve`.
    pub arguments: Vec<String>,
}

/// A running `stoa serve`. Ended by kill -9 when dropped; its private PostgreSQL follows it.
#[derive(Debug)]
pub struct Stoa {
    binary: PathBuf,
    options: StoaOptions,
    data_dir: PathBuf,
    owns_data: bool,
    port: u16,
    child: Child,
}

impl Stoa {
    /// Starts `binary` with a private PostgreSQL in a new directory.
    pub async fn start(binary: &str) -> Self {
        Self::start_with(binary, StoaOptions::default()).await
    }

    /// Starts `binary` as `options` say, and waits until it is ready.
    pub async fn start_with(binary: &str, options: StoaOptions) -> Self {
        let data_dir = options.data_dir.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("stoa-{}", uuid::Uuid::now_v7().simple()))
        });
        let owns_data = options.data_dir.is_none();
        let port = free_port();
        let binary = PathBuf::from(binary);
        let child = spawn(&binary, &options, &data_dir, port);
        let mut stoa = Self {
            binary,
            options,
            data_dir,
            owns_data,
            port,
            child,
        };
        stoa.wait_until_ready().await;
        stoa
    }

    /// The server that tests share while any of them runs, each with a merchant of its own: it gives a delivery three attempts without a pause. A test
    /// that kills, or needs other options, starts its own.
    pub async fn shared(binary: &str) -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(stoa) = shared.upgrade() {
            return stoa;
        }
        let options = StoaOptions {
            retry_schedule: Some("0,0".to_owned()),
            ..StoaOptions::default()
        };
        let stoa = Arc::new(Self::start_with(binary, options).await);
        *shared = Arc::downgrade(&stoa);
        stoa
    }

    /// Starts a second process of the same service: on the same database, with the same master key and the same issuer.
    pub async fn start_beside(&self) -> Self {
        let options = StoaOptions {
            database_url: Some(self.database_url()),
            data_dir: Some(self.data_dir.clone()),
            public_url: Some(self.base_url()),
            ..self.options.clone()
        };
        Self::start_with(&self.binary.to_string_lossy(), options).await
    }

    /// How it is started the next time.
    pub fn options_mut(&mut self) -> &mut StoaOptions {
        &mut self.options
    }

    /// Starts it again on the same data and port, after a kill.
    pub async fn restart(&mut self) {
        self.spawn_again();
        self.wait_until_ready().await;
    }

    /// Starts it again without waiting for it.
    pub fn spawn_again(&mut self) {
        let _ = self.child.wait();
        self.child = spawn(&self.binary, &self.options, &self.data_dir, self.port);
    }

    /// Starts it again if it has ended, as whoever supervises it would.
    pub fn revive(&mut self) {
        if self.child.try_wait().unwrap().is_some() {
            self.spawn_again();
        }
    }

    /// Waits until it can serve; fails if it ends first.
    pub async fn wait_until_ready(&mut self) {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .build()
            .unwrap();
        let url = format!("{}/readyz", self.base_url());
        let child = &mut self.child;
        wait_for("the server to be ready", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the server ended: {status}");
            }
            let answer = client.get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Where it serves.
    pub fn base_url(&self) -> String {
        let host = if self.options.is_localhost {
            "localhost"
        } else {
            "127.0.0.1"
        };
        format!("http://{host}:{}", self.port)
    }

    /// The directory of its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its private PostgreSQL's process, as PostgreSQL itself writes it down.
    pub fn postgres_pid(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.data_dir.join("postgres/postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    /// The address of its private PostgreSQL, for a second process or a look behind the scenes.
    pub fn database_url(&self) -> String {
        let text = std::fs::read_to_string(self.data_dir.join("postgres/postmaster.pid")).unwrap();
        let socket = text.lines().nth(4).unwrap();
        format!("postgres://stoa@localhost/stoa?host={socket}")
    }

    /// A connection as the tables' owner.
    pub async fn database(&self) -> sqlx::PgConnection {
        use sqlx::Connection;
        sqlx::PgConnection::connect(&self.database_url())
            .await
            .unwrap()
    }

    /// How many rows a table of its private PostgreSQL has, of all merchants: a look behind the scenes, where row-level security does not apply.
    pub async fn count_rows(&self, table: &str) -> i64 {
        use sqlx::{AssertSqlSafe, Connection, Executor, Row};
        let url = self.database_url().replace("//stoa@", "//postgres@");
        let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
        let count = sqlx::raw_sql(AssertSqlSafe(format!("select count(*) from {table}")));
        let row = connection.fetch_one(count).await.unwrap();
        connection.close().await.unwrap();
        row.get(0)
    }

    /// Ends it at once, without a chance to tidy up.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }

    /// Kills its private PostgreSQL at once.
    pub fn kill_postgres(&self) {
        if let Some(pid) = self.postgres_pid() {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        }
    }

    /// Waits for its end, and gives its exit code.
    pub async fn wait(&mut self) -> Option<i32> {
        let child = &mut self.child;
        wait_for("the server to end", async || child.try_wait().unwrap())
            .await
            .code()
    }

    /// Runs a command of the binary on the same data, and gives the JSON that it prints.
    pub fn command(&self, arguments: &[&str]) -> Value {
        json_of(arguments, &self.run(arguments))
    }

    /// The same with something on its standard input.
    pub fn command_with(&self, input: &str, arguments: &[&str]) -> Value {
        json_of(arguments, &self.run_with(input, arguments))
    }

    /// Runs a command of the binary on the same data to its end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.on_the_same_data(arguments).output().unwrap()
    }

    /// The same with something on its standard input.
    pub fn run_with(&self, input: &str, arguments: &[&str]) -> Output {
        let mut child = self
            .on_the_same_data(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that does not read is refused for another reason, which its exit code tells.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn on_the_same_data(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(
                self.options
                    .database_url
                    .iter()
                    .flat_map(|url| ["--database-url", url]),
            )
            .args(["--log", "warn"]);
        command
    }

    /// A new merchant.
    pub fn merchant(&self) -> String {
        self.command(&["merchant", "create", "--name", "Test", "--json"])["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// A new person who is `role` at `merchant`.
    pub fn person(&self, merchant: &str, role: &str) -> Person {
        self.person_with(&["--merchant", merchant, "--role", role])
    }

    /// A new person; `arguments` are further ones of `stoa person create`.
    pub fn person_with(&self, arguments: &[&str]) -> Person {
        let login = format!("kim-{}", uuid::Uuid::now_v7().simple());
        let password = format!("{}-ferry", uuid::Uuid::now_v7().simple());
        let mut create = vec!["person", "create", "--login", &login];
        create.extend(["--name", "Kim Aarden", "--json"]);
        create.extend(arguments);
        let person = self.command_with(&password, &create);
        Person {
            id: person["id"].as_str().unwrap().to_owned(),
            login,
            password,
        }
    }

    /// A new app; `arguments` are further ones of `stoa app create`.
    pub fn app_with(&self, arguments: &[&str]) -> Value {
        self.app_named("Parcel Desk", arguments)
    }

    /// The same by this name.
    pub fn app_named(&self, name: &str, arguments: &[&str]) -> Value {
        let mut create = vec!["app", "create", "--name", name, "--json"];
        create.extend(arguments);
        self.command(&create)
    }

    /// A new app.
    pub fn app(&self) -> (String, String) {
        let app = self.command(&["app", "create", "--name", "Test", "--json"]);
        (
            app["clientId"].as_str().unwrap().to_owned(),
            app["clientSecret"].as_str().unwrap().to_owned(),
        )
    }

    /// A client of a new app with a grant of `merchant`; `arguments` are further ones of `stoa grant create`.
    pub async fn client_of(&self, merchant: &str, scopes: &str, arguments: &[&str]) -> Client {
        let (client_id, client_secret) = self.app();
        let grant = self.grant(merchant, &client_id, scopes, arguments);
        let credentials = Credentials {
            base_url: self.base_url(),
            merchant: merchant.to_owned(),
            client_id: client_id.clone(),
            client_secret,
            grant: grant["id"].as_str().unwrap().to_owned(),
        };
        Client::new(credentials).await
    }

    /// Grants, or changes what was granted; `arguments` are further ones of `stoa grant create`.
    pub fn grant(
        &self,
        merchant: &str,
        client_id: &str,
        scopes: &str,
        arguments: &[&str],
    ) -> Value {
        let mut grant = vec![
            "grant",
            "create",
            "--merchant",
            merchant,
            "--app",
            client_id,
            "--scope",
            scopes,
            "--json",
        ];
        grant.extend(arguments);
        self.command(&grant)
    }

    /// Changes what a client was granted.
    pub fn regrant(&self, client: &Client, scopes: &str, arguments: &[&str]) {
        let Credentials {
            merchant,
            client_id,
            grant,
            ..
        } = &client.credentials;
        assert_eq!(
            self.grant(merchant, client_id, scopes, arguments)["id"],
            grant.as_str()
        );
    }

    /// Ends a client's grant.
    pub fn revoke(&self, client: &Client) {
        let Credentials {
            merchant, grant, ..
        } = &client.credentials;
        self.command(&[
            "grant",
            "revoke",
            "--merchant",
            merchant,
            "--grant",
            grant,
            "--json",
        ]);
    }

    /// A client of a new app of a new merchant, with every scope.
    pub async fn client(&self) -> Client {
        let merchant = self.merchant();
        self.client_of(&merchant, ALL_SCOPES, &["--personal-data"])
            .await
    }

    /// A location, a product with one variant and `stock` pieces there: the ids of location and variant.
    pub async fn stocked(&self, client: &Client, stock: i64) -> (String, String) {
        let location = client.location("main").await;
        let variant = client.product("SHIRT-1", "49.00").await;
        client.set_stock(&variant, &location, stock).await;
        (location, variant)
    }
}

/// An answer that takes longer will never come: what hangs is to fail as such.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Every scope that an app may have.
pub const ALL_SCOPES: &str = "catalog:write inventory:write orders:write orders.pii:read locations:write customers:read \
    fulfillments:write webhooks:write events:read merchant:admin";

impl Drop for Stoa {
    fn drop(&mut self) {
        self.kill();
        if self.owns_data {
            let _ = std::fs::remove_dir_all(&self.data_dir);
        }
    }
}

fn spawn(binary: &Path, options: &StoaOptions, data_dir: &Path, port: u16) -> Child {
    let localhost = options
        .is_localhost
        .then(|| format!("http://localhost:{port}"));
    let public_url = options.public_url.as_ref().or(localhost.as_ref());
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"))
        .args((!options.refuse_private_targets).then_some("--allow-private-targets"))
        .args(["--log", options.log.as_deref().unwrap_or("warn")])
        .args(
            public_url
                .iter()
                .flat_map(|url| ["--public-url", url.as_str()]),
        )
        .args(
            options
                .database_url
                .iter()
                .flat_map(|url| ["--database-url", url]),
        )
        .args(
            options
                .retry_schedule
                .iter()
                .flat_map(|schedule| ["--retry-schedule-s", schedule]),
        )
        .args(&options.arguments)
        .args(options.role.iter().flat_map(|role| ["--role", role]))
        .stdout(Stdio::null());
    command.spawn().unwrap()
}

/// The JSON that a command has printed.
fn json_of(arguments: &[&str], output: &Output) -> Value {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "stoa {arguments:?}: {}: {complaint}",
        output.status
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// An order of one line.
pub fn order_of(variant: &str, quantity: i64) -> Value {
    json!({"lines": [{"variantId": variant, "quantity": quantity}]})
}
