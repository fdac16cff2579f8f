//! Which sinks there are, by the operator's configuration: one URL each, without secrets.
//!
//! - `nats://host:4222?stream=STOA&subject_prefix=stoa` (`tls://` with TLS);
//! - `s3://bucket/prefix` (`?linger_seconds=60`);
//! - `file:///path` (`?linger_seconds=60`).

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use super::{Sink, jetstream::Stream, object_store::Archive};

/// How long an archive waits for more before it writes an object: a day of a merchant who sells all the time is 1,440 of them.
const LINGER_DEFAULT: Duration = Duration::from_mins(1);

/// An hour: what is in no archive yet is only in the database.
const LINGER_SECONDS_MAX: u64 = 3_600;

/// What sinks let us in by. From the environment of the process; prints as `***`.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The user at NATS.
    pub nats_user: Option<String>,
    /// That user's password.
    pub nats_password: Option<String>,
    /// A token, for a NATS that takes tokens.
    pub nats_token: Option<String>,
    /// The access key of S3; without one, the instance's own role is asked.
    pub s3_access_key_id: Option<String>,
    /// Its secret.
    pub s3_secret_access_key: Option<String>,
    /// The session's token, for keys that are temporary.
    pub s3_session_token: Option<String>,
    /// The region.
    pub s3_region: Option<String>,
    /// The address of an S3-compatible store that is not Amazon's; `http://` is allowed here.
    pub s3_endpoint: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credentials(***)")
    }
}

/// Why a sink can't be.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is no URL of a sink.
    #[error(
        "{0:?} is no sink: write nats://host:4222?stream=NAME&subject_prefix=stoa, s3://bucket/prefix or file:///path"
    )]
    Url(String),
    /// A part of the URL is wrong.
    #[error("the sink {sink}: {reason}")]
    Part {
        /// The sink, without what is secret.
        sink: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The directory can't be made.
    #[error("the directory {} can't be made: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The object store can't be opened.
    #[error("the object store: {0}")]
    ObjectStore(#[from] object_store::Error),
}

/// One sink.
#[derive(Debug, Clone)]
pub struct Config {
    target: Target,
    credentials: Credentials,
}

#[derive(Debug, Clone)]
enum Target {
    JetStream(JetStream),
    S3 {
        bucket: String,
        prefix: String,
        linger: Duration,
    },
    Directory {
        path: PathBuf,
        linger: Duration,
    },
}

/// A stream at a server.
#[derive(Debug, Clone)]
pub(super) struct JetStream {
    /// `nats://host:4222`.
    pub(super) server: Url,
    pub(super) stream: String,
    /// What subjects begin with.
    pub(super) subject_prefix: String,
}

impl Config {
    /// Reads a sink's URL.
    pub fn parse(text: &str, credentials: Credentials) -> Result<Self, ConfigError> {
        // What is no URL may hold a secret, so only its scheme is said.
        let unknown = || {
            let scheme = text.split("://").next().unwrap_or_default();
            ConfigError::Url(format!("{scheme}://…"))
        };
        let url: Url = text.parse().map_err(|_invalid| unknown())?;
        let wrong = |reason: &'static str| ConfigError::Part {
            sink: format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()),
            reason,
        };
        if !matches!(url.scheme(), "nats" | "tls" | "s3" | "file") {
            return Err(unknown());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "credentials come from the environment, not from the URL",
            ));
        }
        let mut stream = None;
        let mut subject_prefix = "stoa".to_owned();
        let mut linger = LINGER_DEFAULT;
        let is_stream = matches!(url.scheme(), "nats" | "tls");
        for (name, value) in url.query_pairs() {
            match (is_stream, name.as_ref()) {
                (true, "stream") if is_token(&value) => stream = Some(value.into_owned()),
                (true, "stream") => {
                    return Err(wrong("a stream's name has letters, digits, - and _"));
                }
                (true, "subject_prefix") if value.split('.').all(is_token) => {
                    subject_prefix = value.into_owned();
                }
                (true, "subject_prefix") => {
                    return Err(wrong(
                        "a subject has words of letters, digits, - and _, parted by full stops",
                    ));
                }
                (false, "linger_seconds") => {
                    let seconds = value
                        .parse()
                        .ok()
                        .filter(|seconds| *seconds <= LINGER_SECONDS_MAX);
                    linger = seconds
                        .map(Duration::from_secs)
                        .ok_or_else(|| wrong("linger_seconds is a number up to 3600"))?;
                }
                _ => return Err(wrong("there is a parameter that is not known")),
            }
        }
        let target = match url.scheme() {
            "nats" | "tls" => {
                let mut server = url.clone();
                server.set_query(None);
                if url.host_str().unwrap_or_default().is_empty() {
                    return Err(wrong("a host is missing"));
                }
                Target::JetStream(JetStream {
                    server,
                    stream: stream.ok_or_else(|| wrong("the parameter stream is missing"))?,
                    subject_prefix,
                })
            }
            "s3" => Target::S3 {
                bucket: url
                    .host_str()
                    .filter(|bucket| !bucket.is_empty())
                    .ok_or_else(|| wrong("a bucket is missing"))?
                    .to_owned(),
                prefix: url.path().trim_matches('/').to_owned(),
                linger,
            },
            "file" => Target::Directory {
                path: url
                    .to_file_path()
                    .map_err(|()| wrong("a path on this machine is missing"))?,
                linger,
            },
            _ => return Err(unknown()),
        };
        Ok(Self {
            target,
            credentials,
        })
    }

    /// The name under which positions are kept: what is written where, and nothing of how. A server that has moved goes on where it was.
    pub fn name(&self) -> String {
        match &self.target {
            Target::JetStream(at) => format!("nats:{}/{}", at.stream, at.subject_prefix),
            Target::S3 { bucket, prefix, .. } => format!("s3://{bucket}/{prefix}"),
            Target::Directory { path, .. } => format!("file://{}", path.display()),
        }
    }

    pub(super) fn open(self) -> Result<Sink, ConfigError> {
        let credentials = self.credentials;
        Ok(match self.target {
            Target::JetStream(at) => Sink::JetStream(Box::new(Stream::new(at, credentials))),
            Target::S3 {
                bucket,
                prefix,
                linger,
            } => Sink::ObjectStore(Archive::s3(&bucket, &prefix, &credentials, linger)?),
            Target::Directory { path, linger } => {
                Sink::ObjectStore(Archive::directory(path, linger)?)
            }
        })
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn name(url: &str) -> String {
        Config::parse(url, Credentials::default()).unwrap().name()
    }

    fn refusal(url: &str) -> String {
        Config::parse(url, Credentials::default())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn a_sink_is_a_url() {
        assert_eq!(name("nats://127.0.0.1:4222?stream=STOA"), "nats:STOA/stoa");
        assert_eq!(
            name("tls://nats.example?stream=events&subject_prefix=shop.eu"),
            "nats:events/shop.eu"
        );
        assert_eq!(
            name("s3://archive/stoa/events/"),
            "s3://archive/stoa/events"
        );
        assert_eq!(name("s3://archive?linger_seconds=5"), "s3://archive/");
        assert_eq!(name("file:///var/lib/stoa"), "file:///var/lib/stoa");
    }

    #[test]
    fn what_is_no_sink_is_refused_without_telling_secrets() {
        for (url, says) in [
            (
                "nats://127.0.0.1:4222",
                "the sink nats://127.0.0.1: the parameter stream is missing",
            ),
            (
                "nats://ada:hunter2@127.0.0.1?stream=a",
                "the sink nats://127.0.0.1: credentials come from the environment, not from the URL",
            ),
            (
                "nats://h?stream=a.b",
                "the sink nats://h: a stream's name has letters, digits, - and _",
            ),
            (
                "nats://h?stream=a&subject_prefix=a.*",
                "the sink nats://h: a subject has words of letters, digits, - and _, parted by full stops",
            ),
            (
                "s3://bucket?linger_seconds=1e9",
                "the sink s3://bucket: linger_seconds is a number up to 3600",
            ),
            (
                "s3://bucket?secret=hunter2",
                "the sink s3://bucket: there is a parameter that is not known",
            ),
        ] {
            assert_eq!(refusal(url), says);
        }
        let said = refusal("kafka://ada:hunter2@h");
        assert!(said.starts_with("\"kafka://…\" is no sink"), "{said}");
        assert!(refusal("hunter2").contains("is no sink"));
    }

    #[test]
    fn credentials_print_as_stars() {
        let credentials = Credentials {
            nats_password: Some("hunter2".to_owned()),
            ..Credentials::default()
        };
        let config = Config::parse("nats://h?stream=a", credentials).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
