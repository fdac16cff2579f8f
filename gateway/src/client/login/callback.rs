//! Where the browser brings the answer: a port of 127.0.0.1 that is open for one of them (RFC 8252, section 7.3).

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::oneshot};
use url::form_urlencoded;

use super::Error;
use crate::client::Error as CallError;

/// How long a person may take in the browser. The server keeps a request for as long.
const PATIENCE: Duration = Duration::from_mins(10);

/// How long the browser may take to fetch the last page.
const FAREWELL: Duration = Duration::from_secs(2);

/// The path of the redirect URI.
const PATH: &str = "/callback";

/// A port that waits for the answer.
#[derive(Debug)]
pub(super) struct Callback {
    listener: TcpListener,
    port: u16,
}

/// What the server sent by way of the browser (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) code: Option<String>,
    pub(super) state: Option<String>,
    pub(super) iss: Option<String>,
    pub(super) error: Option<String>,
    pub(super) error_description: Option<String>,
}

/// What waits for the one answer.
struct Waiting {
    state: String,
    sender: Mutex<Option<oneshot::Sender<Asked>>>,
}

/// The answer, and who waits for the page about it.
type Asked = (Answer, oneshot::Sender<Page>);

/// What the person reads at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// There are tokens.
    Done,
    /// There are none; the terminal says why.
    Failed,
}

impl Callback {
    /// Opens a free port.
    pub(super) async fn bind() -> Result<Self, CallError> {
        let opened = async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = listener.local_addr()?.port();
            Ok(Self { listener, port })
        };
        opened
            .await
            .map_err(|source: std::io::Error| CallError::unreadable("the loopback's ports", source))
    }

    /// The redirect URI.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://127.0.0.1:{}{PATH}", self.port)
    }

    /// Waits for the answer with this state, has it decided upon, and shows the person what came of it. Whatever else is asked meanwhile is not found, an answer
    /// with another state among it: any page in the browser may send one.
    pub(super) async fn answered<T>(
        self,
        state: String,
        decide: impl AsyncFnOnce(Answer) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let (sender, receiver) = oneshot::channel();
        let waiting = Arc::new(Waiting {
            state,
            sender: Mutex::new(Some(sender)),
        });
        let router = Router::new().route(PATH, any(receive)).with_state(waiting);
        let (finish, finished) = oneshot::channel::<()>();
        let serving = tokio::spawn(
            axum::serve(self.listener, router)
                .with_graceful_shutdown(async {
                    // Dropped when this function is left early; then it is over too.
                    let _ = finished.await;
                })
                .into_future(),
        );
        let stop = serving.abort_handle();
        let result = match tokio::time::timeout(PATIENCE, receiver).await {
            Ok(Ok((answer, reply))) => {
                let result = decide(answer).await;
                let page = if result.is_ok() {
                    Page::Done
                } else {
                    Page::Failed
                };
                // The browser may be gone; the terminal tells it too.
                let _ = reply.send(page);
                result
            }
            Ok(Err(_)) | Err(_) => Err(Error::TimedOut { waited: PATIENCE }.into()),
        };
        drop(finish);
        if tokio::time::timeout(FAREWELL, serving).await.is_err() {
            stop.abort();
        }
        result
    }
}

async fn receive(
    State(waiting): State<Arc<Waiting>>,
    method: Method,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(answer) = (method == Method::GET)
        .then(|| read(&query.unwrap_or_default()))
        .flatten()
        .filter(|answer| answer.state.as_deref() == Some(&waiting.state))
    else {
        return StatusCode::NOT_FOUND.into_response();
    };
    // The first one takes the sender away.
    let sender = waiting
        .sender
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(sender) = sender else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (reply, replied) = oneshot::channel();
    let page = match sender.send((answer, reply)) {
        Ok(()) => replied.await.unwrap_or(Page::Failed),
        Err(_) => Page::Failed,
    };
    show(page)
}

/// The answer's parameters; none if one is there twice (RFC 6749, section 3.1).
fn read(query: &str) -> Option<Answer> {
    let mut answer = Answer::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = match &*name {
            "code" => &mut answer.code,
            "state" => &mut answer.state,
            "iss" => &mut answer.iss,
            "error" => &mut answer.error,
            "error_description" => &mut answer.error_description,
            _ => continue,
        };
        if place.replace(value.into_owned()).is_some() {
            return None;
        }
    }
    Some(answer)
}

/// The look of the last page.
const STYLE: &str = "html{color-scheme:light dark;font:17px/1.6 system-ui,sans-serif}\
body{margin:0;min-height:100vh;display:grid;place-content:center;padding:1.5rem;box-sizing:border-box}\
h1{font-size:1.5rem;font-weight:600;margin:0 0 .5rem}p{margin:0;max-width:32rem}";

fn show(page: Page) -> Response {
    let (title, text) = match page {
        Page::Done => (
            "You are logged in",
            "The command line has what it needs. You can close this page.",
        ),
        Page::Failed => (
            "You are not logged in",
            "Nothing was kept. The terminal says why; you can close this page.",
        ),
    };
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} · Stoa</title><style>{STYLE}</style></head><body><main><h1>{title}</h1><p>{text}</p></main></body></html>"
    );
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        BASE64_STANDARD.encode(Sha256::digest(STYLE))
    );
    let status = match page {
        Page::Done => StatusCode::OK,
        Page::Failed => StatusCode::BAD_REQUEST,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        // The address has a code in it, even if that was used up before this is shown.
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (header::CONNECTION, "close".to_owned()),
    ];
    (status, headers, body).into_response()
}
