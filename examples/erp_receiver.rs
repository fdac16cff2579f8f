//! An ERP that keeps its books equal to a merchant's orders: the least that a receiver of webhooks needs to be right, whatever happens on the way.
//!
//! Every event of an endpoint has a number, and the numbers have no gaps. So a delivery under the next number is taken as it is, one under an older number has
//! been seen, and one under a later number says that something is still to come: then the endpoint's stream is read from where the books end. What was missed
//! while the ERP was down is read from there too.
//!
//! The books are a file with an event a line; a real ERP would write event and number in one transaction of its database.
//!
//! Register `http://127.0.0.1:9000/webhooks` as an endpoint by `POST /v1/webhook-endpoints`, which answers with its id and secret. The server refuses endpoints on
//! loopback unless it is started as `stoa serve --allow-private-targets`; `stoa demo` allows them. Then:
//!
//! ```sh
//! export STOA_URL=http://127.0.0.1:8080 STOA_RESOURCE=$STOA_URL/merchants/mer_…     # which merchant
//! export STOA_CLIENT_ID=app_… STOA_CLIENT_SECRET=stoa_secret_…                      # an app with a grant that has webhooks:read
//! export STOA_ENDPOINT=whe_… STOA_WEBHOOK_SECRET=whsec_…
//! cargo run -p gateway --example erp_receiver -- 127.0.0.1:9000 books.ndjson
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program's user is at a terminal"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "this program is not the gateway, and has a configuration of its own"
)]
#![allow(
    clippy::indexing_slicing,
    reason = "what a JSON value does not have is null"
)]

use std::{error::Error, io::Write, path::Path, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Mutex};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: erp_receiver ADDRESS BOOKS".into());
    };
    let receiver = Arc::new(Receiver {
        stoa: Stoa::from_environment()?,
        webhook: standardwebhooks::Webhook::new(&env("STOA_WEBHOOK_SECRET")?)?,
        books: Mutex::new(Books::open(Path::new(&path))?),
    });
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}/webhooks", listener.local_addr()?);
    receiver.catch_up(&mut *receiver.books.lock().await).await?;
    let router = Router::new()
        .route("/webhooks", post(receive))
        .with_state(receiver);
    Ok(axum::serve(listener, router).await?)
}

/// Answers 2xx only for what is in the books: anything else is sent again.
async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if let Err(error) = receiver.webhook.verify(&body, &headers) {
        eprintln!("refused: {error}");
        return StatusCode::UNAUTHORIZED;
    }
    match receiver.take(&body).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(error) => {
            eprintln!("not taken: {error}");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

struct Receiver {
    stoa: Stoa,
    webhook: standardwebhooks::Webhook,
    books: Mutex<Books>,
}

impl Receiver {
    async fn take(&self, body: &[u8]) -> Result<()> {
        let event: Value = serde_json::from_slice(body)?;
        let sequence = sequence(&event)?;
        let mut books = self.books.lock().await;
        if sequence == books.last + 1 {
            books.enter(&event)
        } else if sequence > books.last {
            self.catch_up(&mut books).await
        } else {
            Ok(())
        }
    }

    /// Reads what the stream has beyond the books.
    async fn catch_up(&self, books: &mut Books) -> Result<()> {
        loop {
            let page = self.stoa.events_after(books.last).await?;
            for event in page["data"].as_array().ok_or("a page without data")? {
                books.enter(event)?;
            }
            if page["lastSequence"].as_i64() <= Some(books.last) {
                return Ok(());
            }
        }
    }
}

/// A file with an event a line, in the order of their numbers.
struct Books {
    file: std::fs::File,
    last: i64,
}

impl Books {
    fn open(path: &Path) -> Result<Self> {
        let written = std::fs::read_to_string(path).unwrap_or_default();
        // What a crash left half-written is cut off, and read from the stream again.
        let whole = written.rfind('\n').map_or(0, |end| end + 1);
        let last = match written[..whole].lines().last() {
            Some(line) => sequence(&serde_json::from_str(line)?)?,
            None => 0,
        };
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)?;
        file.set_len(u64::try_from(whole)?)?;
        Ok(Self { file, last })
    }

    fn enter(&mut self, event: &Value) -> Result<()> {
        let sequence = sequence(event)?;
        if sequence != self.last + 1 {
            return Err(format!("{sequence} does not follow {}", self.last).into());
        }
        self.file.write_all(format!("{event}\n").as_bytes())?;
        self.file.sync_data()?;
        self.last = sequence;
        println!("{sequence} {} {}", event["type"], event["resource"]["id"]);
        Ok(())
    }
}

/// A variable of the environment.
fn env(name: &str) -> Result<String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

/// The answer, or what the server said instead.
async fn answer(request: reqwest::RequestBuilder) -> Result<Value> {
    let response = request.send().await?;
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await?;
    if !status.is_success() {
        return Err(format!("{url} answered {status}: {text}").into());
    }
    Ok(serde_json::from_str(&text)?)
}

fn sequence(event: &Value) -> Result<i64> {
    Ok(event["sequence"]
        .as_i64()
        .ok_or("an event without a sequence")?)
}

/// The merchant's gateway, as this app may use it.
struct Stoa {
    http: reqwest::Client,
    url: String,
    resource: String,
    client_id: String,
    client_secret: String,
    endpoint: String,
}

impl Stoa {
    fn from_environment() -> Result<Self> {
        Ok(Self {
            http: reqwest::Client::new(),
            url: env("STOA_URL")?,
            resource: env("STOA_RESOURCE")?,
            client_id: env("STOA_CLIENT_ID")?,
            client_secret: env("STOA_CLIENT_SECRET")?,
            endpoint: env("STOA_ENDPOINT")?,
        })
    }

    async fn events_after(&self, after: i64) -> Result<Value> {
        let (url, endpoint) = (&self.url, &self.endpoint);
        let url = format!("{url}/v1/webhook-endpoints/{endpoint}/events?limit=250&after={after}");
        answer(self.http.get(url).bearer_auth(self.token().await?)).await
    }

    /// A token with all that the grant allows, so that the stream shows what deliveries show; good for ten minutes, and here got anew each time.
    async fn token(&self) -> Result<String> {
        let form = [
            ("grant_type", "client_credentials"),
            ("resource", &self.resource),
        ];
        let request = self
            .http
            .post(format!("{}/oauth/token", self.url))
            .basic_auth(&self.client_id, Some(&self.client_secret))
            .form(&form);
        let answer = answer(request).await?;
        let token = answer["access_token"].as_str();
        Ok(token.ok_or("an answer without a token")?.to_owned())
    }
}
