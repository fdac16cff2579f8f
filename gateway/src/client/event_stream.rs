//! Streams of server-sent events, read through broken connections: whoever reads gets each event once, in order.
//!
//! A stream that breaks off is taken up again after the last event that was given, by `Last-Event-ID`. So is one that the server ended because the token had
//! ended, with a new token; what says that there is nothing more to be had is an error.

use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use kernel::problem;
use reqwest::Response;

use super::{Client, Error, ProblemDocument};

/// Bytes of one message: an event's data is below two megabytes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The pause before a stream is taken up again; doubled each time up to the most, until something has come.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// An event as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The place after it, by which a stream goes on.
    pub id: String,
    /// The event, a JSON object.
    pub data: String,
}

/// A stream that is read for as long as it is asked.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    path: String,
    /// The place after what was given last.
    last_id: Option<String>,
    open: Option<Open>,
    pause: Duration,
    /// Whether the last token was refused, so that a second refusal is an error.
    was_refused: bool,
}

#[derive(Debug)]
struct Open {
    response: Response,
    parser: Parser,
}

impl EventStream {
    /// A stream of `path`, read on after the place `after`, or from now on.
    pub fn new(client: Client, path: String, after: Option<String>) -> Self {
        Self {
            client,
            path,
            last_id: after,
            open: None,
            pause: PAUSE_FIRST,
            was_refused: false,
        }
    }

    /// Opens the stream, and waits until the server has said where it begins: from then on nothing is missed.
    pub async fn begin(&mut self) -> Result<(), Error> {
        let mut open = self.connect().await?;
        while self.last_id.is_none() && open.parser.last_id.is_none() {
            open.fill().await?;
            open.parser.find_place();
        }
        self.open = Some(open);
        Ok(())
    }

    /// The next event, for as long as that takes; through as many connections as it takes. An error is final.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            match self.read().await {
                Ok(message) => {
                    self.pause = PAUSE_FIRST;
                    self.was_refused = false;
                    self.last_id = Some(message.id.clone());
                    return Ok(message);
                }
                Err(error) if self.may_go_on(&error).await => {
                    tracing::info!(error = %error, "the stream broke off; it is taken up again");
                    if let Some(place) = self.open.take().and_then(|open| open.parser.last_id) {
                        self.last_id = Some(place);
                    }
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the stream may be had again. A token is replaced once; a second one that is refused says that the grant has ended.
    async fn may_go_on(&mut self, error: &Error) -> bool {
        if error.status() == Some(StatusCode::UNAUTHORIZED) {
            let Ok(token) = self.client.tokens.get().await else {
                return false;
            };
            self.client.tokens.forget(&token).await;
            return !std::mem::replace(&mut self.was_refused, true);
        }
        error.is_retryable()
    }

    async fn read(&mut self) -> Result<Message, Error> {
        if self.open.is_none() {
            self.open = Some(self.connect().await?);
        }
        let Some(open) = &mut self.open else {
            return Err(broke_off());
        };
        loop {
            if let Some(block) = open.parser.next() {
                return match block {
                    Block::Event(message) => Ok(message),
                    Block::Problem(document) => Err(Error::Problem(document)),
                };
            }
            open.fill().await?;
        }
    }

    async fn connect(&self) -> Result<Open, Error> {
        let response = self
            .client
            .open_stream(&self.path, self.last_id.as_deref())
            .await?;
        Ok(Open {
            response,
            parser: Parser::default(),
        })
    }
}

impl Open {
    async fn fill(&mut self) -> Result<(), Error> {
        let chunk = self.response.chunk().await?.ok_or_else(broke_off)?;
        if self.parser.buffer.len() + chunk.len() > MESSAGE_BYTES_MAX {
            return Err(Error::TooLarge {
                limit: MESSAGE_BYTES_MAX,
            });
        }
        self.parser.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

/// A server that went away without a word is as good as one that says that it stops.
fn broke_off() -> Error {
    Error::Status {
        status: StatusCode::SERVICE_UNAVAILABLE,
        retry_after: None,
    }
}

/// What a stream's bytes say, as the HTML standard reads them; of it what our server writes: lines that end in a line feed.
#[derive(Debug, Default)]
struct Parser {
    buffer: BytesMut,
    last_id: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Block {
    Event(Message),
    /// Why the stream ends.
    Problem(Box<ProblemDocument>),
}

impl Parser {
    /// The next whole message that has data.
    fn next(&mut self) -> Option<Block> {
        loop {
            let end = self.end_of_block()?;
            let bytes = self.buffer.split_to(end);
            let text = String::from_utf8_lossy(&bytes);
            let (mut kind, mut data) = ("", String::new());
            for line in text.lines() {
                let (name, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match name {
                    "id" => self.last_id = Some(value.to_owned()),
                    "event" => kind = value,
                    "data" => {
                        if !data.is_empty() {
                            data.push('\n');
                        }
                        data.push_str(value);
                    }
                    _ => {}
                }
            }
            match kind {
                "" | "message" if !data.is_empty() => {
                    let id = self.last_id.clone().unwrap_or_default();
                    return Some(Block::Event(Message { id, data }));
                }
                "problem" => {
                    let problem = serde_json::from_str(&data).unwrap_or_else(|_| unknown());
                    return Some(Block::Problem(Box::new(problem)));
                }
                _ => {}
            }
        }
    }

    /// Notes the place in a first message without data, and leaves the rest.
    fn find_place(&mut self) {
        let has_data = self
            .end_of_block()
            .and_then(|end| self.buffer.get(..end))
            .is_some_and(|block| block.split(|&byte| byte == b'\n').any(is_data));
        if !has_data && let Some(end) = self.end_of_block() {
            let block = self.buffer.split_to(end);
            let text = String::from_utf8_lossy(&block);
            if let Some(id) = text.lines().find_map(|line| line.strip_prefix("id: ")) {
                self.last_id = Some(id.to_owned());
            }
        }
    }

    fn end_of_block(&self) -> Option<usize> {
        let place = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        Some(place + 2)
    }
}

fn is_data(line: &[u8]) -> bool {
    line.starts_with(b"data:")
}

/// A problem that could not be read: the server ended the stream, for whatever reason.
fn unknown() -> ProblemDocument {
    ProblemDocument {
        r#type: problem::UNAVAILABLE.slug.to_owned(),
        title: problem::UNAVAILABLE.title.to_owned(),
        status: problem::UNAVAILABLE.status,
        detail: String::new(),
        request_id: None,
        errors: Vec::new(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn blocks(chunks: &[&str]) -> (Vec<Block>, Option<String>) {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for chunk in chunks {
            parser.buffer.extend_from_slice(chunk.as_bytes());
            while let Some(block) = parser.next() {
                found.push(block);
            }
        }
        (found, parser.last_id)
    }

    fn event(id: &str, data: &str) -> Block {
        Block::Event(Message {
            id: id.to_owned(),
            data: data.to_owned(),
        })
    }

    #[test]
    fn messages_are_found_wherever_the_bytes_are_parted() {
        let text = "id: 4\nretry: 1000\n: alive\n\nid: 5\ndata: {\"a\":1}\n\nid: 6\ndata: {\ndata: }\n\n: alive\nid: 7\n\n";
        let expected = (
            vec![event("5", "{\"a\":1}"), event("6", "{\n}")],
            Some("7".to_owned()),
        );
        assert_eq!(blocks(&[text]), expected);
        for place in 0..text.len() {
            let (before, after) = text.split_at(place);
            assert_eq!(blocks(&[before, after]), expected, "{place}");
        }
    }

    #[test]
    fn the_end_of_a_stream_says_why() {
        let (found, _) = blocks(&[
            "event: problem\ndata: {\"type\":\"urn:stoa:problem:invalid_token\",\"status\":401}\n\n",
        ]);
        let [Block::Problem(problem)] = found.as_slice() else {
            unreachable!("{found:?}");
        };
        assert_eq!((problem.slug(), problem.status), ("invalid_token", 401));
    }

    #[test]
    fn the_place_at_which_a_stream_begins_is_known_before_its_first_event() {
        let mut parser = Parser::default();
        parser
            .buffer
            .extend_from_slice(b"id: 41\n: alive\n\nid: 42\ndata: {}\n\n");
        parser.find_place();
        assert_eq!(parser.last_id.as_deref(), Some("41"));
        assert_eq!(parser.next(), Some(event("42", "{}")));
    }
}
