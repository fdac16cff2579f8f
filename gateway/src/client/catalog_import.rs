//! A catalog import as a client makes it: sends the lines while it reads their results, and continues by itself where a connection breaks.
//!
//! The import lives on the server under its key, and continues from its checkpoint when the same lines are sent again under the same key. So whatever
//! breaks, sending again is safe, and each line has its effect once. Memory is bounded: lines wait in a few chunks until they are sent, results are
//! counted as they come.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use commerce::catalog_import::{
    InterruptionReason, LineResult, LineStatus, Summary, SummaryLine, SummaryStatus,
};
use reqwest::{Body, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Client, Error};
use crate::feed::{self, Row};

/// Where imports are made.
const PATH: &str = "/v1/catalog-imports";

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that wait to be sent.
const CHUNKS_WAITING: usize = 8;

/// Bytes of a result: one with every fault of a line has some twenty thousand.
const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Times that an import is continued without having come further in between.
const FAILURES_MAX: u32 = 6;

/// The first pause before an import is continued; doubled each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Reasons that are told apart; further ones are counted together.
const REASONS_MAX: usize = 200;

/// Lines that are shown of each reason.
const LINES_SHOWN: usize = 5;

/// Rows of an import, from the first one on.
pub type Rows = Box<dyn Iterator<Item = Result<Row, feed::Error>> + Send>;

/// Where an import's rows come from. Each call begins anew and gives the same rows: an import that broke is sent again from its first row, and
/// the server skips what it has.
pub trait Source: Send + Sync + 'static {
    /// The rows from the first one on. Called where it may block.
    fn rows(&self) -> Result<Rows, feed::Error>;
}

impl<F: Fn() -> Result<Rows, feed::Error> + Send + Sync + 'static> Source for F {
    fn rows(&self) -> Result<Rows, feed::Error> {
        self()
    }
}

/// Who watches an import; `()` is nobody.
pub trait Progress: Send + Sync {
    /// So many rows have their result, and so many of them failed.
    fn counted(&self, rows: u64, failed: u64) {
        let _ = (rows, failed);
    }

    /// The import broke for this reason and is continued after a pause.
    fn continued(&self, reason: &str, pause: Duration) {
        let _ = (reason, pause);
    }
}

impl Progress for () {}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The idempotency key.
    pub key: String,
    /// The import at the server: `imp_…`.
    pub import_id: String,
    /// Rows that have a result.
    pub rows: u64,
    /// Rows that made a product.
    pub created: u64,
    /// Rows that changed a product.
    pub updated: u64,
    /// Rows that said what was there already.
    pub unchanged: u64,
    /// Rows that came to nothing.
    pub failed: u64,
    /// Why they did, the most frequent reason first. A row with several faults counts for each of them.
    pub reasons: Vec<Reason>,
    /// Times that the import broke and was continued.
    pub continued: u32,
    /// Whether the server knew the key before this: rows that were dealt with then have the results of then, whatever the file says now.
    pub replayed: bool,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Rows by time.
    pub rows_per_second: u64,
}

/// Why rows failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The server's word: `required`.
    pub code: String,
    /// The field, with `*` for the place in a list: `/variants/*/price`.
    pub pointer: String,
    /// What the server said of such a row.
    pub detail: String,
    /// How many rows.
    pub rows: u64,
    /// Where the first of them begin in the file, from 1.
    pub first_lines: Vec<u64>,
}

/// Why an import could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The rows can't be read.
    #[error(transparent)]
    Feed(#[from] feed::Error),
    /// A call failed.
    #[error(transparent)]
    Call(#[from] Error),
    /// The server gave up, and said why.
    #[error("the import was interrupted: {detail}")]
    Interrupted {
        /// In a word.
        reason: InterruptionReason,
        /// In a sentence.
        detail: String,
    },
    /// The results ended before their summary.
    #[error("the results broke off")]
    CutOff,
}

/// An import that could not be completed.
#[derive(Debug, thiserror::Error)]
#[error("the import stopped after {rows} rows (continue it with the same file and --key {key})")]
pub struct Broken {
    /// The key that continues it.
    pub key: String,
    /// Rows that have a result.
    pub rows: u64,
    /// What was the matter at last.
    #[source]
    pub failure: Failure,
}

impl Failure {
    /// Whether sending again may help.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Feed(_) => false,
            Self::Call(error) => {
                error.is_retryable() || error.status() == Some(http::StatusCode::UNAUTHORIZED)
            }
            Self::Interrupted { reason, .. } => !matches!(
                reason,
                InterruptionReason::BodyTooShort | InterruptionReason::TakenOver
            ),
            Self::CutOff => true,
        }
    }

    /// What the failure is, with its causes.
    fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

/// Imports rows under a key, and tells `progress` how far it is. What failed on the way is tried again as long as the import comes further.
pub async fn import_stream(
    client: &Client,
    key: &str,
    source: Arc<dyn Source>,
    progress: &dyn Progress,
) -> Result<Report, Broken> {
    let begun = Instant::now();
    let mut tally = Tally::default();
    let mut failures = 0;
    let mut continued = 0;
    loop {
        let rows_before = tally.rows;
        let failure = match attempt(client, key, &source, &mut tally, progress).await {
            Ok(summary) => return Ok(tally.report(key, &summary, continued, begun.elapsed())),
            Err(failure) => failure,
        };
        failures = if tally.rows > rows_before {
            1
        } else {
            failures + 1
        };
        if failures > FAILURES_MAX || !failure.is_retryable() {
            return Err(Broken {
                key: key.to_owned(),
                rows: tally.rows,
                failure,
            });
        }
        let asked = if let Failure::Call(error) = &failure {
            error.retry_after()
        } else {
            None
        };
        let pause = asked
            .unwrap_or(PAUSE_FIRST * 2_u32.pow(failures - 1))
            .min(PAUSE_MAX);
        progress.continued(&failure.sentence(), pause);
        continued += 1;
        tokio::time::sleep(pause).await;
    }
}

/// What the thread that reads rows and the task that reads results share.
#[derive(Debug, Default)]
struct Sending {
    /// Where the lines of the import are in the file.
    places: Mutex<Places>,
    /// Why the rows ended early.
    fault: Mutex<Option<feed::Error>>,
}

/// Sends all rows once, and reads results until there is a summary.
async fn attempt(
    client: &Client,
    key: &str,
    source: &Arc<dyn Source>,
    tally: &mut Tally,
    progress: &dyn Progress,
) -> Result<Summary, Failure> {
    let sending = Arc::new(Sending::default());
    let (chunks, body) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking({
        let (source, sending) = (Arc::clone(source), Arc::clone(&sending));
        move || send_rows(&*source, &sending, &chunks)
    });
    let body = Body::wrap_stream(ReceiverStream::new(body));
    let read = async {
        let response = client
            .post_stream(PATH, key, "application/x-ndjson", body)
            .await?;
        tally
            .replayed
            .get_or_insert(response.headers().contains_key(super::IDEMPOTENT_REPLAYED));
        read_results(response, &sending, tally, progress).await
    };
    let result = read.await;
    // The end of the rows breaks the request: the cause comes before the effect.
    let fault = sending
        .fault
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    match (result, fault) {
        (Err(_), Some(fault)) => Err(fault.into()),
        (result, _) => result,
    }
}

/// Puts rows into chunks and hands them to the request until there are no more, or nobody takes them.
fn send_rows(source: &dyn Source, sending: &Sending, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    let mut all = || -> Result<(), feed::Error> {
        for (line, row) in (1..).zip(source.rows()?) {
            let row = row?;
            lock(&sending.places).note(line, row.line);
            chunk.extend_from_slice(&row.json);
            chunk.push(b'\n');
            if chunk.len() >= CHUNK_BYTES {
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK_BYTES));
                if chunks.blocking_send(Ok(full.into())).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    };
    let last = match all() {
        Ok(()) => Ok(chunk.into()),
        Err(error) => {
            let message = error.to_string();
            *lock(&sending.fault) = Some(error);
            // An error breaks the request off. A body that merely ended would be a complete import.
            Err(io::Error::other(message))
        }
    };
    // Nobody takes it if the request has failed, and then that is what matters.
    let _ = chunks.blocking_send(last);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the last line of the answer begins with: `summary` is its only member.
const SUMMARY_BEGINS: &[u8] = b"{\"summary\":";

async fn read_results(
    mut response: Response,
    sending: &Sending,
    tally: &mut Tally,
    progress: &dyn Progress,
) -> Result<Summary, Failure> {
    let mut rest: Vec<u8> = Vec::new();
    let mut searched = 0;
    while let Some(chunk) = response.chunk().await.map_err(Error::from)? {
        rest.extend_from_slice(&chunk);
        let mut begin = 0;
        while let Some(length) = rest
            .get(searched..)
            .and_then(|text| text.iter().position(|byte| *byte == b'\n'))
        {
            let end = searched + length;
            let line = rest.get(begin..end).unwrap_or_default();
            (begin, searched) = (end + 1, end + 1);
            if line.trim_ascii().is_empty() {
                continue;
            }
            if line.starts_with(SUMMARY_BEGINS) {
                progress.counted(tally.rows, tally.failed);
                let last: SummaryLine = serde_json::from_slice(line)
                    .map_err(|error| Error::unreadable("the summary", error))?;
                return finished(last.summary);
            }
            let result: LineResult = serde_json::from_slice(line)
                .map_err(|error| Error::unreadable("a result", error))?;
            tally.count(&result, &mut lock(&sending.places));
        }
        rest.drain(..begin);
        searched = rest.len();
        if rest.len() > RESULT_BYTES_MAX {
            return Err(Error::TooLarge {
                limit: RESULT_BYTES_MAX,
            }
            .into());
        }
        progress.counted(tally.rows, tally.failed);
    }
    Err(Failure::CutOff)
}

fn finished(summary: Summary) -> Result<Summary, Failure> {
    match (summary.status, &summary.interruption) {
        (SummaryStatus::Completed, _) => Ok(summary),
        (_, Some(interruption)) => Err(Failure::Interrupted {
            reason: interruption.reason,
            detail: interruption.detail.clone(),
        }),
        (SummaryStatus::Interrupted | SummaryStatus::Running, None) => Err(Failure::CutOff),
    }
}

/// Where the lines of an import are in the file: they drift apart by the header, blank lines and rows of several lines.
#[derive(Debug, Default)]
struct Places {
    /// From a line on, how much further down it is in the file. Only changes are kept, and those that are not behind the results.
    drift: VecDeque<(i64, u64)>,
}

impl Places {
    fn note(&mut self, line: i64, in_file: u64) {
        let drift = in_file.saturating_sub(line.unsigned_abs());
        if self.drift.back().is_none_or(|&(_, last)| last != drift) {
            self.drift.push_back((line, drift));
        }
    }

    /// The place of a line that is not before any that was asked for.
    fn of(&mut self, line: i64) -> u64 {
        while self.drift.get(1).is_some_and(|&(from, _)| from <= line) {
            self.drift.pop_front();
        }
        line.unsigned_abs() + self.drift.front().map_or(0, |&(_, drift)| drift)
    }
}

/// What the results came to so far.
#[derive(Debug, Default)]
struct Tally {
    /// The last line that was counted: the results of a continued import begin again with the first.
    line: i64,
    rows: u64,
    failed: u64,
    reasons: Vec<Reason>,
    /// Rows whose reason is one too many.
    other_reasons: u64,
    /// Whether the server knew the key when it was first asked.
    replayed: Option<bool>,
}

impl Tally {
    fn count(&mut self, result: &LineResult, places: &mut Places) {
        let place = places.of(result.line);
        if result.line <= self.line {
            return;
        }
        self.line = result.line;
        self.rows += 1;
        if result.status != LineStatus::Failed {
            return;
        }
        self.failed += 1;
        let mut seen: Vec<(&str, String)> = Vec::new();
        for error in &result.errors {
            let fault = (
                error.code.as_ref(),
                pattern(error.pointer.as_deref().unwrap_or_default()),
            );
            if !seen.contains(&fault) {
                self.count_reason(fault.0, &fault.1, &error.detail, place);
                seen.push(fault);
            }
        }
        if seen.is_empty() {
            self.count_reason("unknown", "", "the server named no reason", place);
        }
    }

    fn count_reason(&mut self, code: &str, pointer: &str, detail: &str, place: u64) {
        let known = self.reasons.iter_mut().find(|reason| {
            reason.code == code && reason.pointer == pointer && reason.detail == detail
        });
        if let Some(reason) = known {
            reason.rows += 1;
            if reason.first_lines.len() < LINES_SHOWN {
                reason.first_lines.push(place);
            }
        } else if self.reasons.len() < REASONS_MAX {
            let (code, pointer, detail) = (code.to_owned(), pointer.to_owned(), detail.to_owned());
            self.reasons.push(Reason {
                code,
                pointer,
                detail,
                rows: 1,
                first_lines: vec![place],
            });
        } else {
            self.other_reasons += 1;
        }
    }

    fn report(self, key: &str, summary: &Summary, continued: u32, elapsed: Duration) -> Report {
        let mut reasons = self.reasons;
        if self.other_reasons > 0 {
            reasons.push(Reason {
                code: "other".to_owned(),
                pointer: String::new(),
                detail: format!("{REASONS_MAX} reasons are told apart; these are further ones"),
                rows: self.other_reasons,
                first_lines: Vec::new(),
            });
        }
        reasons.sort_by(|a, b| {
            b.rows
                .cmp(&a.rows)
                .then_with(|| (&a.pointer, &a.code).cmp(&(&b.pointer, &b.code)))
        });
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        Report {
            key: key.to_owned(),
            import_id: summary.import_id.to_string(),
            rows: self.rows,
            created: summary.created_count.unsigned_abs(),
            updated: summary.updated_count.unsigned_abs(),
            unchanged: summary.unchanged_count.unsigned_abs(),
            failed: summary.failed_count.unsigned_abs(),
            reasons,
            continued,
            replayed: self.replayed.unwrap_or(false),
            elapsed_ms,
            rows_per_second: self.rows.saturating_mul(1_000) / elapsed_ms.max(1),
        }
    }
}

/// A pointer with `*` for every place in a list, so that rows that fail alike are counted alike.
fn pattern(pointer: &str) -> String {
    let is_place = |step: &str| !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
    pointer
        .split('/')
        .map(|step| if is_place(step) { "*" } else { step })
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests;
