//! `stoa trigger`: a test event for an app's endpoints.

use clap::Args;
use kernel::scope::Scope;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CommandResult,
    dead_letters::{Pages, text},
    events::path_segment,
    say,
    server::{Breadth, Server},
};

/// Sends a test event of a type to the app's endpoints: with example data, and `test: true`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  stoa trigger order.placed\n  \
    stoa trigger product.created --endpoint whe_01jd3x5k8vfm7b2c9q0r4t6w8y")]
pub(super) struct Trigger {
    /// The type of the event, such as order.placed.
    #[arg(value_name = "TYPE")]
    r#type: String,

    /// To this endpoint only. Default: to all enabled endpoints of the app.
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,

    /// Prints JSON, a line for each endpoint.
    #[arg(long)]
    json: bool,

    /// The server.
    #[command(flatten)]
    server: Server,
}

#[derive(Serialize)]
struct Input<'t> {
    r#type: &'t str,
}

impl Trigger {
    pub(super) async fn run(mut self) -> CommandResult {
        let scopes = [Scope::WebhooksWrite].into_iter().collect();
        let client = self.server.take_client(scopes, Breadth::Needed)?;
        let mut endpoints: Vec<String> = self.endpoint.into_iter().collect();
        if endpoints.is_empty() {
            let mut pages = Pages::of("/v1/webhook-endpoints".to_owned());
            while let Some(page) = pages.next(&client).await? {
                let enabled = page.iter().filter(|one| one["status"] == json!("enabled"));
                endpoints.extend(enabled.map(|one| text(one, "id").to_owned()));
            }
        }
        if endpoints.is_empty() {
            return Err("the app has no enabled webhook endpoint at this merchant: make one by POST /v1/webhook-endpoints, or run `stoa listen`".into());
        }
        for endpoint in endpoints {
            let path = format!(
                "/v1/webhook-endpoints/{}/test-events",
                path_segment(&endpoint)
            );
            let key = format!("trigger-{}", uuid::Uuid::from_bytes(rand::random()));
            let input = Input {
                r#type: &self.r#type,
            };
            let sent: Value = client.post(&path, &key, &input).await?;
            if self.json {
                say(serde_json::to_string(&sent)?);
            } else {
                say(format_args!(
                    "{} of type {} is on its way to {endpoint}",
                    text(&sent, "eventId"),
                    self.r#type
                ));
            }
        }
        Ok(())
    }
}
