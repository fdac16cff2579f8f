//! `stoa events tail`: a merchant's events as they happen, a line of JSON each.

use clap::{Args, Subcommand};
use kernel::scope::Scope;
use serde::Deserialize;

use super::{
    CommandResult, say,
    server::{Breadth, Server},
    stopped,
};
use crate::client::event_stream::EventStream;

/// Shows a merchant's events.
#[derive(Debug, Subcommand)]
pub(super) enum Events {
    /// Prints events as they happen, one JSON object a line, until Ctrl-C.
    Tail(Tail),
}

/// Prints events as they happen, one JSON object a line, until Ctrl-C. Survives broken connections without loss.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    stoa events tail --type order.placed,order.cancelled\n  \
    stoa events tail --after \"$(cat cursor)\" --count 100 | jq .resource")]
pub(super) struct Tail {
    /// Only events of these types, with commas between.
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    r#type: Option<Vec<String>>,

    /// A cursor of the feed, as `GET /v1/events` gives it: begins with what comes after it. Default: from now on.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,

    /// Ends after this many events.
    #[arg(long)]
    count: Option<u64>,

    /// Adds to each event the cursor after it, as `cursor`.
    #[arg(long)]
    with_cursor: bool,

    /// The server.
    #[command(flatten)]
    server: Server,
}

#[derive(Deserialize)]
struct Head {
    r#type: String,
}

impl Events {
    pub(super) async fn run(self) -> CommandResult {
        match self {
            Self::Tail(tail) => tail.run().await,
        }
    }
}

impl Tail {
    async fn run(mut self) -> CommandResult {
        let client = self
            .server
            .take_client([Scope::EventsRead].into_iter().collect(), Breadth::Grant)?;
        let mut stream = EventStream::new(client, "/v1/events/stream".to_owned(), self.after);
        let stop = stopped();
        tokio::pin!(stop);
        let mut left = self.count;
        while left != Some(0) {
            let message = tokio::select! {
                message = stream.next() => message?,
                () = &mut stop => break,
            };
            let head: Head = serde_json::from_str(&message.data)?;
            let is_wanted = self
                .r#type
                .as_ref()
                .is_none_or(|wanted| wanted.contains(&head.r#type));
            if !is_wanted {
                continue;
            }
            if self.with_cursor {
                let mut event: serde_json::Map<_, _> = serde_json::from_str(&message.data)?;
                event.insert("cursor".to_owned(), message.id.into());
                say(serde_json::to_string(&event)?);
            } else {
                say(&message.data);
            }
            left = left.map(|left| left.saturating_sub(1));
        }
        Ok(())
    }
}

/// A text as a part of a path or a query.
pub(super) fn path_segment(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
