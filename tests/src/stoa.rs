//! The real binary, in a process of its own.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{Client, Credentials, wait_for};

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
        let data_dir = options
            .data_dir
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join(format!("stoa-{}", uuid::Uuid::now_v7().simple())));
        let owns_data = options.data_dir.is_none();
        let port = free_port();
        let binary = PathBuf::from(binary);
        let child = spawn(&binary, &options, &data_dir, port);
        let mut stoa = Self { binary, options, data_dir, owns_data, port, child };
        stoa.wait_until_ready().await;
        stoa
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

    /// Waits until it can serve; fails if it ends first.
    pub async fn wait_until_ready(&mut self) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
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
        format!("http://127.0.0.1:{}", self.port)
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
        sqlx::PgConnection::connect(&self.database_url()).await.unwrap()
    }

    /// Ends it at once, without a chance to tidy up.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
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
        wait_for("the server to end", async || child.try_wait().unwrap()).await.code()
    }

    /// Runs a command of the binary on the same data, and gives the JSON that it prints.
    pub fn command(&self, arguments: &[&str]) -> Value {
        let output = Command::new(&self.binary)
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(self.options.database_url.iter().flat_map(|url| ["--database-url", url]))
            .args(["--log", "warn"])
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "stoa {arguments:?}: {}", output.status);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A new merchant.
    pub fn merchant(&self) -> String {
        self.command(&["merchant", "create", "--name", "Test", "--json"])["id"].as_str().unwrap().to_owned()
    }

    /// A new app.
    pub fn app(&self) -> (String, String) {
        let app = self.command(&["app", "create", "--name", "Test", "--json"]);
        (app["clientId"].as_str().unwrap().to_owned(), app["clientSecret"].as_str().unwrap().to_owned())
    }

    /// A client of a new app with a grant of `merchant`; `arguments` are further ones of `stoa grant create`.
    pub async fn client_of(&self, merchant: &str, scopes: &str, arguments: &[&str]) -> Client {
        let (client_id, client_secret) = self.app();
        let mut grant = vec!["grant", "create", "--merchant", merchant, "--app", &client_id, "--scope", scopes, "--json"];
        grant.extend(arguments);
        let grant = self.command(&grant);
        let credentials = Credentials {
            base_url: self.base_url(),
            merchant: merchant.to_owned(),
            client_id: client_id.clone(),
            client_secret,
            grant: grant["id"].as_str().unwrap().to_owned(),
        };
        Client::new(credentials).await
    }

    /// A client of a new app of a new merchant, with every scope.
    pub async fn client(&self) -> Client {
        let merchant = self.merchant();
        self.client_of(&merchant, ALL_SCOPES, &["--personal-data"]).await
    }

    /// A location, a product with one variant and `stock` pieces there: the ids of location and variant.
    pub async fn stocked(&self, client: &Client, stock: i64) -> (String, String) {
        let location = client.location("main").await;
        let variant = client.product("SHIRT-1", "49.00").await;
        client.set_stock(&variant, &location, stock).await;
        (location, variant)
    }
}

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
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"))
        .arg("--allow-private-targets")
        .args(["--log", "warn"])
        .args(options.database_url.iter().flat_map(|url| ["--database-url", url]))
        .args(options.retry_schedule.iter().flat_map(|schedule| ["--retry-schedule-s", schedule]))
        .args(options.role.iter().flat_map(|role| ["--role", role]))
        .stdout(Stdio::null());
    command.spawn().unwrap()
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// An order of one line.
pub fn order_of(variant: &str, quantity: i64) -> Value {
    json!({"lines": [{"variantId": variant, "quantity": quantity}]})
}
