//! `stoa listen`: a merchant's events on a laptop. What an app is sent is posted to an address of the developer's, signed anew.

use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use kernel::{clock::Clock, scope::Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use url::Url;
use webhooks::sign::{ID_HEADER, SIGNATURE_HEADER, Secret, TIMESTAMP_HEADER};

use super::{
    CommandResult, Failure,
    events::path_segment,
    say,
    server::{Breadth, Server},
    stopped,
};
use crate::client::{self, Client, event_stream::EventStream};

/// What the endpoint is called, by which a kept one is found again.
const DESCRIPTION: &str = "stoa listen";

/// Times that an event is posted where nobody answers: a server of a developer's is often just starting again.
const TRIES_MAX: u32 = 4;

/// The pause before it is posted again; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(250);

/// Posts a merchant's events to an address of this machine as they happen, signed as webhooks are, and shows what is answered.
///
/// Makes an endpoint without a URL and follows its stream, through broken connections and without loss. Ctrl-C removes the endpoint.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    stoa listen --forward-to http://localhost:3000/webhooks\n  \
    stoa listen --forward-to http://localhost:3000/webhooks --events order.placed,order.cancelled --json")]
pub(super) struct Listen {
    /// Where events are posted to.
    #[arg(long, value_name = "URL", value_parser = http_url)]
    forward_to: Url,

    /// The types of events, with commas between. Default: all that the app may see.
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    events: Option<Vec<String>>,

    /// What deliveries are signed with: `whsec_` and base64. Default: a new one, which is printed.
    #[arg(
        long,
        env = "STOA_LISTEN_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    secret: Option<SigningSecret>,

    /// Keeps the endpoint at the end, and uses one that was kept.
    #[arg(long)]
    keep: bool,

    /// Prints JSON, a line for each event.
    #[arg(long)]
    json: bool,

    /// The server.
    #[command(flatten)]
    server: Server,
}

/// A secret that does not show where arguments are printed.
#[derive(Clone)]
struct SigningSecret(Secret);

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

impl std::str::FromStr for SigningSecret {
    type Err = webhooks::sign::InvalidSecret;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Secret::parse(text).map(Self)
    }
}

/// An endpoint, as far as it is needed here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    id: String,
    url: Option<String>,
    description: Option<String>,
    event_types: Option<Vec<String>>,
    status: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoints {
    data: Vec<Endpoint>,
    next_cursor: Option<String>,
}

/// What of an event is shown.
#[derive(Debug, Deserialize)]
struct Head {
    id: String,
    r#type: String,
    sequence: i64,
}

/// What came of posting an event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Forwarded<'e> {
    sequence: i64,
    id: &'e str,
    r#type: &'e str,
    /// The answer's status; null if there was none.
    status: Option<u16>,
    /// Why there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    tries: u32,
    duration_ms: u64,
}

/// A URL that something can be posted to.
fn http_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("it must begin with http:// or https://".to_owned()),
    }
}

impl Listen {
    pub(super) async fn run(mut self) -> CommandResult {
        let scopes = [Scope::WebhooksWrite].into_iter().collect();
        // What the endpoint is sent is the grant's to say; what the stream shows of it is the token's: so the token has all of the grant.
        let client = self.server.take_client(scopes, Breadth::Grant)?;
        let secret = match self.secret.take() {
            Some(SigningSecret(secret)) => secret,
            None => Secret::generate(),
        };
        let signer = Webhook::new(&secret.reveal()).map_err(|error| error.to_string())?;
        let endpoint = self.endpoint(&client).await?;
        let path = format!("/v1/webhook-endpoints/{}", path_segment(&endpoint));
        let listened = self.listen(&client, &path, &signer, &secret).await;
        if !self.keep {
            let removed = client
                .call(Method::DELETE, &path, None, None::<&()>)
                .await
                .and_then(|answer| answer.json::<Value>());
            if let Err(error) = removed {
                // Said, and the reason to end with if there is no better one.
                listened?;
                return Err(NotRemoved {
                    endpoint,
                    source: error,
                }
                .into());
            }
        }
        listened
    }

    async fn listen(
        &self,
        client: &Client,
        path: &str,
        signer: &Webhook,
        secret: &Secret,
    ) -> CommandResult {
        let mut stream = EventStream::new(client.clone(), format!("{path}/events/stream"), None);
        let stop = stopped();
        tokio::pin!(stop);
        tokio::select! {
            begun = stream.begin() => begun?,
            () = &mut stop => return Ok(()),
        }
        let forwarding = client::forwarding()?;
        if self.json {
            say(json!({"secret": secret.reveal(), "forwardTo": self.forward_to.as_str()}));
        } else {
            say(format_args!(
                "Signing secret: {}\nForwarding to {}; Ctrl-C ends it.",
                secret.reveal(),
                self.forward_to
            ));
        }
        loop {
            let message = tokio::select! {
                message = stream.next() => message?,
                () = &mut stop => return Ok(()),
            };
            let head: Head = serde_json::from_str(&message.data)?;
            tokio::select! {
                forwarded = self.forward(&forwarding, signer, &head, &message.data) => self.show(&forwarded?)?,
                () = &mut stop => return Ok(()),
            }
        }
    }

    /// Posts an event until somebody answers, a few times at most.
    async fn forward<'e>(
        &self,
        forwarding: &reqwest::Client,
        signer: &Webhook,
        head: &'e Head,
        body: &str,
    ) -> Result<Forwarded<'e>, Failure> {
        let began = Instant::now();
        let mut pause = PAUSE_FIRST;
        let mut tries = 1;
        let posted = loop {
            let timestamp = Clock::system().now().unix_seconds();
            let signature = signer.sign(&head.id, timestamp, body.as_bytes())?;
            let request = forwarding
                .post(self.forward_to.clone())
                .header(http::header::CONTENT_TYPE, "application/json")
                .header(ID_HEADER, &head.id)
                .header(TIMESTAMP_HEADER, timestamp)
                .header(SIGNATURE_HEADER, signature)
                .body(body.to_owned());
            match request.send().await {
                Err(error) if error.is_connect() && tries < TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                posted => break posted,
            }
        };
        let (status, error) = match posted {
            Ok(answer) => (Some(answer.status().as_u16()), None),
            Err(error) if error.is_timeout() => (None, Some("no answer in time".to_owned())),
            Err(error) if error.is_connect() => (None, Some("can't connect".to_owned())),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(Forwarded {
            sequence: head.sequence,
            id: &head.id,
            r#type: &head.r#type,
            status,
            error,
            tries,
            duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn show(&self, forwarded: &Forwarded<'_>) -> CommandResult {
        if self.json {
            say(serde_json::to_string(forwarded)?);
            return Ok(());
        }
        let Forwarded {
            sequence,
            id,
            r#type,
            status,
            error,
            duration_ms,
            ..
        } = forwarded;
        let answer = status.map_or_else(
            || error.clone().unwrap_or_default(),
            |status| status.to_string(),
        );
        say(format_args!(
            "{} #{sequence} {type} {id} -> {answer} ({duration_ms} ms)",
            Clock::system().now()
        ));
        Ok(())
    }

    /// The endpoint to follow: one that was kept, if it is to be kept, or a new one.
    async fn endpoint(&self, client: &Client) -> Result<String, Failure> {
        if self.keep {
            let mut cursor = String::new();
            loop {
                let page: Endpoints = client
                    .get(&format!("/v1/webhook-endpoints?limit=250{cursor}"))
                    .await?;
                let kept = page.data.into_iter().find(|endpoint| {
                    endpoint.url.is_none()
                        && endpoint.status == "enabled"
                        && endpoint.description.as_deref() == Some(DESCRIPTION)
                        && endpoint.event_types == self.events
                });
                if let Some(kept) = kept {
                    return Ok(kept.id);
                }
                match page.next_cursor {
                    Some(next) => cursor = format!("&cursor={}", path_segment(&next)),
                    None => break,
                }
            }
        }
        let input = json!({"description": DESCRIPTION, "eventTypes": self.events});
        let key = format!("listen-{}", uuid::Uuid::from_bytes(rand::random()));
        let made: Endpoint = client.post("/v1/webhook-endpoints", &key, &input).await?;
        Ok(made.id)
    }
}

/// The endpoint could not be taken away.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint {endpoint} could not be removed")]
struct NotRemoved {
    endpoint: String,
    source: crate::client::Error,
}
