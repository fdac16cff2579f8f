//! Configuration: every flag and every variable of the environment that Stoa reads, declared here and nowhere else.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::ParseError};
use url::Url;
use webhooks::sink;

use crate::{
    client::login::{self, LoginFile},
    private_postgres,
};

/// For how many days events are kept if nothing is said.
pub const EVENT_RETENTION_DAYS: u16 = 30;

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub struct Storage {
    /// The directory of the private PostgreSQL and the master key.
    #[arg(long, env = "STOA_DATA_DIR", default_value = "stoa-data")]
    pub data_dir: PathBuf,

    /// A PostgreSQL of your own instead of the private one, as `postgres://…`.
    #[arg(long, env = "STOA_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// The file of the master key (32 bytes in base64); made at first start. Default: `master.key` in the data directory.
    #[arg(long, env = "STOA_MASTER_KEY_FILE")]
    pub master_key_file: Option<PathBuf>,
}

impl Storage {
    /// How to run the private PostgreSQL.
    #[allow(
        clippy::disallowed_methods,
        reason = "the configuration reads the environment"
    )]
    pub fn private_postgres(&self) -> private_postgres::Options {
        private_postgres::Options {
            runtime_directory: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
            search_path: std::env::var_os("PATH"),
            ..private_postgres::Options::new(&self.data_dir)
        }
    }

    /// The file of the master key.
    pub fn master_key_path(&self) -> PathBuf {
        self.master_key_file
            .clone()
            .unwrap_or_else(|| self.data_dir.join("master.key"))
    }
}

/// How `stoa serve` runs.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where the data is.
    #[command(flatten)]
    pub storage: Storage,

    /// The address to listen on; port 0 takes a free one.
    #[arg(long, env = "STOA_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,

    /// The address that clients know: the issuer of tokens. Default: `http://` and the listening address.
    #[arg(long, env = "STOA_PUBLIC_URL")]
    pub public_url: Option<Url>,

    /// How many proxies of yours stand before this process, each of which appends to `X-Forwarded-For` whom it was called by: the client's address is
    /// the one that the outermost of them saw. 0: the connection's own.
    #[arg(long, env = "STOA_TRUSTED_PROXIES", default_value_t = 0)]
    pub trusted_proxies: u8,

    /// What this process does.
    #[arg(long, env = "STOA_ROLE", value_enum, default_value_t = ProcessRole::All)]
    pub role: ProcessRole,

    /// Connections of the API's pool; the worker's pool has half as many.
    #[arg(long, env = "STOA_DATABASE_CONNECTIONS", default_value_t = 32)]
    pub database_connections: u32,

    /// How webhooks are delivered.
    #[command(flatten)]
    pub delivery: Delivery,

    /// Where events go beside webhooks.
    #[command(flatten)]
    pub event_sinks: EventSinks,

    /// Where staff may sign in too.
    #[command(flatten)]
    pub upstream: Upstream,

    /// What operators see of it.
    #[command(flatten)]
    pub observation: Observation,
}

/// Streams and archives of the operator's; none unless one is named.
#[derive(Debug, Clone, Default, Args)]
pub struct EventSinks {
    /// A stream or an archive of yours that the events of all merchants go to, without personal data: `nats://host:4222?stream=NAME&subject_prefix=stoa`,
    /// `s3://bucket/prefix` or `file:///path`. Several by naming it again; in the variable they are parted by spaces.
    #[arg(
        long = "event-sink",
        env = "STOA_EVENT_SINKS",
        value_name = "URL",
        value_delimiter = ' '
    )]
    pub urls: Vec<String>,

    /// The user at NATS.
    #[arg(long, env = "STOA_NATS_USER", requires = "nats_password")]
    pub nats_user: Option<String>,

    /// That user's password.
    #[arg(
        long,
        env = "STOA_NATS_PASSWORD",
        hide_env_values = true,
        requires = "nats_user"
    )]
    pub nats_password: Option<String>,

    /// A token, for a NATS that takes tokens.
    #[arg(long, env = "STOA_NATS_TOKEN", hide_env_values = true)]
    pub nats_token: Option<String>,

    /// The access key of S3. Default: the role of the machine.
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    pub s3_access_key_id: Option<String>,

    /// Its secret.
    #[arg(long, env = "AWS_SECRET_ACCESS_KEY", hide_env_values = true)]
    pub s3_secret_access_key: Option<String>,

    /// The session's token, for keys that are temporary.
    #[arg(long, env = "AWS_SESSION_TOKEN", hide_env_values = true)]
    pub s3_session_token: Option<String>,

    /// The region of the buckets. Default: us-east-1.
    #[arg(long, env = "AWS_REGION")]
    pub s3_region: Option<String>,

    /// The address of an S3-compatible store that is not Amazon's.
    #[arg(long, env = "AWS_ENDPOINT_URL")]
    pub s3_endpoint: Option<String>,
}

impl EventSinks {
    /// The sinks.
    pub fn configs(&self) -> Result<Vec<sink::Config>, sink::ConfigError> {
        let credentials = sink::Credentials {
            nats_user: self.nats_user.clone(),
            nats_password: self.nats_password.clone(),
            nats_token: self.nats_token.clone(),
            s3_access_key_id: self.s3_access_key_id.clone(),
            s3_secret_access_key: self.s3_secret_access_key.clone(),
            s3_session_token: self.s3_session_token.clone(),
            s3_region: self.s3_region.clone(),
            s3_endpoint: self.s3_endpoint.clone(),
        };
        let urls = self.urls.iter().filter(|url| !url.is_empty());
        urls.map(|url| sink::Config::parse(url, credentials.clone()))
            .collect()
    }
}

/// What operators see of a process.
#[derive(Debug, Clone, Default, Args)]
pub struct Observation {
    /// The address to answer `GET /metrics` on, such as `127.0.0.1:9464`. Whoever reaches it needs no token. Default: none.
    #[arg(long, env = "STOA_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,

    /// The address of a collector that takes traces by OTLP over HTTP, such as `http://127.0.0.1:4318`. Default: none.
    #[arg(long, env = "STOA_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<Url>,

    /// Of how many in a hundred requests a trace is made; one that comes with a trace of its client's goes by that.
    #[arg(long, env = "STOA_OTLP_SAMPLE_PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub otlp_sample_percent: u8,
}

/// An OpenID provider through which people may sign on; none unless it is named.
#[derive(Debug, Clone, Default, Args)]
pub struct Upstream {
    /// The issuer of an OpenID provider through which people may sign on, letter for letter as the provider writes it, such as `https://login.example`.
    /// Register `{public address}/console/upstream/callback` there.
    #[arg(
        long = "upstream-issuer",
        env = "STOA_UPSTREAM_ISSUER",
        requires = "client_id"
    )]
    pub issuer: Option<String>,

    /// Our client id at the provider.
    #[arg(
        long = "upstream-client-id",
        env = "STOA_UPSTREAM_CLIENT_ID",
        requires = "issuer"
    )]
    pub client_id: Option<String>,

    /// Our client secret there; none: a public client.
    #[arg(
        long = "upstream-client-secret",
        env = "STOA_UPSTREAM_CLIENT_SECRET",
        hide_env_values = true,
        requires = "issuer"
    )]
    pub client_secret: Option<String>,

    /// What people call it: `Sign in with …`. Default: the issuer.
    #[arg(
        long = "upstream-name",
        env = "STOA_UPSTREAM_NAME",
        requires = "issuer"
    )]
    pub name: Option<String>,
}

/// What a process of several does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProcessRole {
    /// Serves the API.
    Api,
    /// Relays and delivers events.
    Worker,
    /// Both.
    All,
}

impl ProcessRole {
    /// Whether it serves the API.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Api | Self::All)
    }

    /// Whether it relays and delivers.
    pub const fn works(self) -> bool {
        matches!(self, Self::Worker | Self::All)
    }
}

/// How webhooks are delivered.
#[derive(Debug, Clone, Args)]
pub struct Delivery {
    /// Lets endpoints be on loopback and private addresses, and on plain HTTP; link-local addresses, where clouds hand out credentials, stay refused. For
    /// development: it opens the inner network to whoever may register an endpoint.
    #[arg(long, env = "STOA_ALLOW_PRIVATE_TARGETS", default_value_t = false)]
    pub allow_private_targets: bool,

    /// A proxy that webhooks leave by, as `http://proxy.example:3128`, asked by `CONNECT` for `https:` endpoints. It must refuse your own networks as well:
    /// Stoa refuses addresses and names of its own networks before it asks, but the proxy resolves the name again. Default: none, and none from the
    /// environment.
    #[arg(long, env = "STOA_WEBHOOK_PROXY", hide_env_values = true)]
    pub webhook_proxy: Option<webhooks::client::EgressProxy>,

    /// Pauses between attempts in seconds, such as `5,30,120`; after the last one a delivery becomes a dead letter. Default: an exponential schedule
    /// over three days.
    #[arg(long, env = "STOA_RETRY_SCHEDULE", value_delimiter = ',')]
    pub retry_schedule_s: Option<Vec<u64>>,

    /// For how many days events, endpoints' streams and attempts are kept; who wants to catch up later than that finds a gap.
    #[arg(long, env = "STOA_EVENT_RETENTION_DAYS", default_value_t = EVENT_RETENTION_DAYS, value_parser = clap::value_parser!(u16).range(7..=3650))]
    pub event_retention_days: u16,
}

/// Where logins are kept.
#[derive(Debug, Clone, Args)]
pub struct Credentials {
    /// The file of the logins that `stoa login` makes. Default: `stoa/credentials.json` in `$XDG_CONFIG_HOME` or `~/.config`.
    #[arg(long, env = "STOA_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
}

impl Credentials {
    /// The file.
    #[allow(
        clippy::disallowed_methods,
        reason = "the configuration reads the environment"
    )]
    pub fn file(&self) -> Result<LoginFile, login::Error> {
        // A relative path in XDG_CONFIG_HOME is to be ignored, says its specification; an empty HOME is none.
        let directory = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let path = match &self.credentials {
            Some(path) => path.clone(),
            None => directory("XDG_CONFIG_HOME")
                .or_else(|| directory("HOME").map(|home| home.join(".config")))
                .ok_or(login::Error::NoPlace)?
                .join("stoa/credentials.json"),
        };
        Ok(LoginFile::new(path))
    }
}

/// The program that opens an address in the person's browser; none where there is no screen.
#[allow(
    clippy::disallowed_methods,
    reason = "the configuration reads the environment"
)]
pub fn browser_opener() -> Option<&'static str> {
    if cfg!(target_os = "macos") {
        return Some("open");
    }
    ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        .then_some("xdg-open")
}

/// How to log; for every command.
#[derive(Debug, Clone, Args)]
pub struct Logging {
    /// What to log, such as `info` or `webhooks=debug,info`. Default: `info` for `serve`, `error` for the demo, whose story is on the same terminal, else `warn`.
    #[arg(long, env = "STOA_LOG", value_parser = log_filter, global = true)]
    pub log: Option<String>,

    /// The form of the log.
    #[arg(long, env = "STOA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// Refuses what the log would not understand.
fn log_filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}
