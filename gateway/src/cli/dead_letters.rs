//! `stoa dead-letters`: what was given up on, to be looked at and replayed.

use clap::{Args, Subcommand};
use kernel::scope::Scope;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CommandResult, Failure,
    events::path_segment,
    say,
    server::{Breadth, Server},
};
use crate::client::Client;

/// Shows and replays deliveries that were given up on.
#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// Lists dead letters, the newest first.
    List(List),
    /// Shows one with its event and every attempt.
    Show(Show),
    /// Queues dead letters again, under their original numbers.
    Replay(Replay),
}

/// Lists dead letters, the newest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stoa dead-letters list\n  \
    stoa dead-letters list --endpoint whe_01jd3x5k8vfm7b2c9q0r4t6w8y --json | jq .reason")]
pub(super) struct List {
    /// Only those of this endpoint.
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,

    /// Prints JSON, a line each.
    #[arg(long)]
    json: bool,

    /// The server.
    #[command(flatten)]
    server: Server,
}

/// Shows a dead letter with its event and every attempt, as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  stoa dead-letters show dle_01jd3x5k8vfm7b2c9q0r4t6w8y")]
pub(super) struct Show {
    /// The dead letter.
    id: String,

    /// The server.
    #[command(flatten)]
    server: Server,
}

/// Queues dead letters again, under their original numbers.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  stoa dead-letters replay dle_01jd3x5k8vfm7b2c9q0r4t6w8y\n  \
    stoa dead-letters replay --all --endpoint whe_01jd3x5k8vfm7b2c9q0r4t6w8y"
)]
pub(super) struct Replay {
    /// Which.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,

    /// All that were not replayed yet.
    #[arg(long)]
    all: bool,

    /// With --all: only those of this endpoint.
    #[arg(long, value_name = "ID", requires = "all")]
    endpoint: Option<String>,

    /// Prints JSON, a line each.
    #[arg(long)]
    json: bool,

    /// The server.
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    data: Vec<Value>,
    next_cursor: Option<String>,
}

/// Some were not replayed.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {all} dead letters were not replayed")]
struct NotReplayed {
    failed: usize,
    all: usize,
}

impl DeadLetters {
    pub(super) async fn run(self) -> CommandResult {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(show) => show.run().await,
            Self::Replay(replay) => replay.run().await,
        }
    }
}

impl List {
    async fn run(mut self) -> CommandResult {
        let client = self
            .server
            .take_client([Scope::WebhooksRead].into_iter().collect(), Breadth::Grant)?;
        for endpoint in endpoints(&client, self.endpoint).await? {
            let mut pages = Pages::of(dead_letters_path(&endpoint));
            while let Some(letters) = pages.next(&client).await? {
                for letter in &letters {
                    if self.json {
                        say(serde_json::to_string(letter)?);
                    } else {
                        say(line(letter));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Show {
    async fn run(mut self) -> CommandResult {
        let client = self
            .server
            .take_client([Scope::WebhooksRead].into_iter().collect(), Breadth::Grant)?;
        let path = format!("/v1/dead-letters/{}", path_segment(&self.id));
        let letter: Value = client.get(&path).await?;
        say(serde_json::to_string_pretty(&letter)?);
        Ok(())
    }
}

impl Replay {
    async fn run(mut self) -> CommandResult {
        let client = self.server.take_client(
            [Scope::WebhooksWrite].into_iter().collect(),
            Breadth::Needed,
        )?;
        let ids = if self.all {
            unreplayed(&client, self.endpoint.take()).await?
        } else {
            std::mem::take(&mut self.ids)
        };
        let mut failed = 0;
        for id in &ids {
            let path = format!("/v1/dead-letters/{}/replay", path_segment(id));
            let key = format!("replay-{}", uuid::Uuid::from_bytes(rand::random()));
            match client.post::<Value>(&path, &key, &Value::Null).await {
                Ok(replayed) if self.json => say(serde_json::to_string(&replayed)?),
                Ok(replayed) => say(format_args!(
                    "{id} queued again as #{} of {}",
                    replayed.get("sequence").unwrap_or(&Value::Null),
                    text(&replayed, "endpointId")
                )),
                // The others have nothing to do with it.
                Err(error) => {
                    failed += 1;
                    if self.json {
                        say(json!({"deadLetterId": id, "error": error.to_string()}));
                    } else {
                        say(format_args!("{id} not replayed: {error}"));
                    }
                }
            }
        }
        if failed > 0 {
            return Err(NotReplayed {
                failed,
                all: ids.len(),
            }
            .into());
        }
        if ids.is_empty() && !self.json {
            say("there is nothing to replay");
        }
        Ok(())
    }
}

/// The dead letters that were not replayed yet, the oldest first.
async fn unreplayed(client: &Client, endpoint: Option<String>) -> Result<Vec<String>, Failure> {
    let mut ids = Vec::new();
    for endpoint in endpoints(client, endpoint).await? {
        let mut of_endpoint = Vec::new();
        let mut pages = Pages::of(dead_letters_path(&endpoint));
        while let Some(letters) = pages.next(client).await? {
            let new = letters
                .iter()
                .filter(|letter| letter["replayedAt"].is_null());
            of_endpoint.extend(new.map(|letter| text(letter, "id").to_owned()));
        }
        ids.extend(of_endpoint.into_iter().rev());
    }
    Ok(ids)
}

/// The endpoint that is named, or all.
async fn endpoints(client: &Client, named: Option<String>) -> Result<Vec<String>, Failure> {
    if let Some(named) = named {
        return Ok(vec![named]);
    }
    let mut ids = Vec::new();
    let mut pages = Pages::of("/v1/webhook-endpoints".to_owned());
    while let Some(endpoints) = pages.next(client).await? {
        ids.extend(
            endpoints
                .iter()
                .map(|endpoint| text(endpoint, "id").to_owned()),
        );
    }
    Ok(ids)
}

fn dead_letters_path(endpoint: &str) -> String {
    format!(
        "/v1/webhook-endpoints/{}/dead-letters",
        path_segment(endpoint)
    )
}

/// A list, page by page.
pub(super) struct Pages {
    path: String,
    cursor: Option<String>,
    is_done: bool,
}

impl Pages {
    pub(super) fn of(path: String) -> Self {
        Self {
            path,
            cursor: None,
            is_done: false,
        }
    }

    pub(super) async fn next(&mut self, client: &Client) -> Result<Option<Vec<Value>>, Failure> {
        if self.is_done {
            return Ok(None);
        }
        let cursor = self.cursor.take();
        let cursor = cursor.map_or_else(String::new, |cursor| {
            format!("&cursor={}", path_segment(&cursor))
        });
        let page: Page = client
            .get(&format!("{}?limit=100{cursor}", self.path))
            .await?;
        self.is_done = page.next_cursor.is_none();
        self.cursor = page.next_cursor;
        Ok(Some(page.data))
    }
}

/// A dead letter in a line for people.
fn line(letter: &Value) -> String {
    let replayed = match letter["replayedAt"].as_str() {
        Some(at) => format!(", replayed {at}"),
        None => String::new(),
    };
    format!(
        "{}  {} #{}  {}  {}: {} after {} attempts{replayed}",
        text(letter, "id"),
        text(letter, "endpointId"),
        letter["sequence"],
        text(&letter["event"], "type"),
        text(letter, "createdAt"),
        text(letter, "reason"),
        letter["attempts"].as_array().map_or(0, Vec::len),
    )
}

/// A member that is a text.
pub(super) fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}
