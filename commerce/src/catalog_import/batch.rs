//! Gathering lines into batches, read but not yet written.

use std::fmt;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use kernel::{
    problem::FieldError,
    validation::{JsonError, from_json_line},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    BATCH_BYTES_MAX, BATCH_FILLED_FOR, BATCH_LINES_MAX, LINE_BYTES_MAX,
    lines::{Line, Splitter},
    session::{Interruption, InterruptionReason},
};
use crate::product::{EXTERNAL_ID_CHARACTERS_MAX, ProductInput, Upsert};

/// Characters of an error's sentence in a result; some quote what was sent.
const DETAIL_CHARACTERS_MAX: usize = 300;

/// Consecutive lines of input.
#[derive(Debug)]
pub(super) struct Batch {
    /// The last line before it.
    pub(super) after_line: i64,
    /// Its own last line, which may be a blank one.
    pub(super) last_line: i64,
    /// Its lines that are not blank.
    pub(super) entries: Vec<Entry>,
    bytes: usize,
}

/// A line that is not blank.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: i64,
    pub(super) read: Read,
}

/// What a line says.
#[derive(Debug)]
pub(super) enum Read {
    /// A valid upsert.
    Upsert(Box<Upsert>),
    /// Something else.
    Failed(Failure),
}

/// Why a line comes to nothing.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) external_id: Option<String>,
    pub(super) errors: Vec<FieldError>,
}

impl Batch {
    const fn after(line: i64) -> Self {
        Self {
            after_line: line,
            last_line: line,
            entries: Vec::new(),
            bytes: 0,
        }
    }

    fn add(&mut self, number: i64, line: &Line) {
        self.last_line = number;
        let read = match line {
            Line::Blank => return,
            Line::TooLong => Read::Failed(Failure::whole(
                "line_too_long",
                format!("must have at most {LINE_BYTES_MAX} bytes"),
            )),
            Line::Text(text) => {
                self.bytes += text.len();
                read(text)
            }
        };
        self.entries.push(Entry { line: number, read });
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_LINES_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Takes what is there; what is added from now on comes after it.
    fn take(&mut self) -> Self {
        let next = Self::after(self.last_line);
        std::mem::replace(self, next)
    }

    /// The two halves of a batch of several lines, or the batch itself.
    pub(super) fn halved(mut self) -> Result<(Self, Self), Self> {
        let half = self.entries.len() / 2;
        if half == 0 {
            return Err(self);
        }
        let entries = self.entries.split_off(half);
        let boundary = self
            .entries
            .last()
            .map_or(self.after_line, |entry| entry.line);
        let second = Self {
            after_line: boundary,
            last_line: self.last_line,
            entries,
            bytes: 0,
        };
        self.last_line = boundary;
        Ok((self, second))
    }
}

impl Failure {
    /// A failure of the line as a whole.
    pub(super) fn whole(code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            external_id: None,
            errors: vec![FieldError::at("", code, detail)],
        }
    }
}

fn read(text: &[u8]) -> Read {
    let failure = match from_json_line::<ProductInput>(text) {
        Ok(input) => match Upsert::of_valid(input, None) {
            Ok(upsert) => return Read::Upsert(Box::new(upsert)),
            Err(error) => {
                tracing::error!(error = %error, "a line of an import can't be hashed");
                Failure::whole("internal_error", "something went wrong on our side")
            }
        },
        Err(JsonError::Syntax(detail)) => Failure::whole("malformed_json", detail),
        Err(JsonError::Fields(errors)) if errors.is_empty() => {
            Failure::whole("invalid", "must be a product")
        }
        Err(JsonError::Fields(errors)) => Failure {
            external_id: external_id(text),
            errors,
        },
    };
    let errors = failure.errors.into_iter().map(|error| FieldError {
        detail: shortened(&error.detail, DETAIL_CHARACTERS_MAX),
        ..error
    });
    Read::Failed(Failure {
        external_id: failure.external_id,
        errors: errors.collect(),
    })
}

/// The external id of a product that is not valid otherwise.
fn external_id(text: &[u8]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_slice(text).ok()?;
    let external_id = document.get("externalId")?.as_str()?;
    Some(shortened(external_id, EXTERNAL_ID_CHARACTERS_MAX))
}

fn shortened(text: &str, characters_max: usize) -> String {
    text.chars().take(characters_max).collect()
}

/// Reads a body to its end and sends it on in batches, leaving out the first `skipped` lines. Gives the number of lines, or why the end was not
/// reached; whole lines that arrived before an error are sent on.
pub(super) async fn gather<S, E>(
    body: S,
    skipped: i64,
    batches: mpsc::Sender<Batch>,
) -> Result<i64, Interruption>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: fmt::Display,
{
    let mut body = std::pin::pin!(body);
    let mut splitter = Splitter::default();
    let mut batch = Batch::after(skipped);
    let mut due: Option<Instant> = None;
    loop {
        let piece = tokio::select! {
            biased;
            () = batches.closed() => return Err(Interruption::stopped()),
            // What is there already is taken before the clock is looked at: whoever sends fast gets full batches.
            piece = body.next() => piece,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                send(&batches, &mut batch).await?;
                continue;
            }
        };
        match piece {
            Some(Ok(mut chunk)) => {
                while let Some(line) = splitter.next(&mut chunk) {
                    if splitter.lines() > skipped {
                        batch.add(splitter.lines(), &line);
                    }
                    if batch.is_full() {
                        send(&batches, &mut batch).await?;
                    }
                }
                due = if batch.entries.is_empty() {
                    None
                } else {
                    due.or_else(|| Some(Instant::now() + BATCH_FILLED_FOR))
                };
            }
            Some(Err(error)) => {
                send(&batches, &mut batch).await?;
                return Err(Interruption::new(
                    InterruptionReason::BodyFailed,
                    format!("The request's body broke off: {error}."),
                ));
            }
            None => {
                if let Some(line) = splitter.end()
                    && splitter.lines() > skipped
                {
                    batch.add(splitter.lines(), &line);
                }
                send(&batches, &mut batch).await?;
                return Ok(splitter.lines());
            }
        }
    }
}

async fn send(batches: &mpsc::Sender<Batch>, batch: &mut Batch) -> Result<(), Interruption> {
    // Blank lines alone are not worth a transaction; the checkpoint passes them with the next line or at the end.
    if batch.entries.is_empty() {
        return Ok(());
    }
    batches
        .send(batch.take())
        .await
        .map_err(|mpsc::error::SendError(_)| Interruption::stopped())
}
