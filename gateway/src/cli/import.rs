//! `stoa import`: streams a file into a merchant's catalog, through the API as any app would.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kernel::scope::Scope;
use serde::Serialize;

use super::{
    CommandResult, say,
    server::{Breadth, Server},
};
use crate::{
    client::catalog_import::{self, Progress, Reason, Report, Rows, import_stream},
    feed::{self, BytesRead, Feed, Notes},
};

/// Streams a catalog into a merchant's products.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The catalog: NDJSON, or a Google Merchant feed as tab-separated text; plain or gzipped.
    file: PathBuf,

    /// The server.
    #[command(flatten)]
    server: Server,

    /// The idempotency key: continues the import that was begun with it. Default: a new one.
    #[arg(long)]
    key: Option<String>,

    /// Writes what the import came to into this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Fails if any row failed.
    #[arg(long)]
    strict: bool,
}

/// What the import is for: no more than this is asked of an app's token.
pub(super) const SCOPE: Scope = Scope::CatalogWrite;

/// How often the bar moves while nothing comes.
const TICK: Duration = Duration::from_millis(200);

/// Some rows failed, and that was to be a failure.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {rows} rows failed")]
struct RowsFailed {
    failed: u64,
    rows: u64,
}

/// The user has interrupted the import.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; continue with the same file and --key {key}")]
struct Stopped {
    key: String,
}

/// What is written for other programs.
#[derive(Serialize)]
struct Written<'r> {
    #[serde(flatten)]
    report: &'r Report,
    notes: Notes,
}

impl Import {
    pub(super) async fn run(mut self) -> CommandResult {
        let client = self
            .server
            .take_client([SCOPE].into_iter().collect(), Breadth::Needed)?;
        let key = self
            .key
            .unwrap_or_else(|| format!("import-{}", uuid::Uuid::from_bytes(rand::random())));
        let file = Arc::new(FileSource::new(self.file)?);
        // A wrong address or secret is said at once; only what breaks later is tried again.
        client.token().await?;
        let bar = Bar::new(&file);
        let import = import_stream(&client, &key, file.clone(), &bar);
        let report = tokio::select! {
            report = import => report,
            _ = tokio::signal::ctrl_c() => {
                bar.clear();
                return Err(Stopped { key }.into());
            }
        };
        bar.clear();
        let report = report?;
        let notes = file.notes();
        if let Some(path) = &self.json {
            std::fs::write(
                path,
                serde_json::to_vec_pretty(&Written {
                    report: &report,
                    notes,
                })?,
            )?;
        }
        say(summary(&report, &notes));
        if self.strict && report.failed > 0 {
            return Err(RowsFailed {
                failed: report.failed,
                rows: report.rows,
            }
            .into());
        }
        Ok(())
    }
}

/// What an import came to, in lines for people.
pub(super) fn summary(report: &Report, notes: &Notes) -> String {
    let mut lines = vec![format!(
        "{} rows in {} ({} rows/s): {} created, {} updated, {} unchanged, {} failed",
        grouped(report.rows),
        seconds(report.elapsed_ms),
        grouped(report.rows_per_second),
        grouped(report.created),
        grouped(report.updated),
        grouped(report.unchanged),
        grouped(report.failed),
    )];
    if !report.reasons.is_empty() {
        let widest = |column: fn(&Reason) -> &str, name: &str| {
            report
                .reasons
                .iter()
                .map(|reason| column(reason).len())
                .max()
                .unwrap_or_default()
                .max(name.len())
        };
        let codes = widest(|reason| &reason.code, "reason");
        let pointers = widest(|reason| &reason.pointer, "field");
        lines.push(String::new());
        lines.push(format!(
            "{:>9}  {:<codes$}  {:<pointers$}  first lines",
            "failed", "reason", "field"
        ));
        for Reason {
            code,
            pointer,
            detail,
            rows,
            first_lines,
        } in &report.reasons
        {
            let shown = first_lines
                .iter()
                .map(u64::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            let more = if *rows > u64::try_from(first_lines.len()).unwrap_or_default() {
                " …"
            } else {
                ""
            };
            lines.push(format!(
                "{:>9}  {code:<codes$}  {pointer:<pointers$}  {shown}{more}",
                grouped(*rows)
            ));
            lines.push(format!("{:>9}  {detail}", ""));
        }
    }
    let remarks = [
        (
            notes.undecodable_rows,
            "rows had bytes that are not UTF-8; they are shown as \u{fffd}",
        ),
        (
            notes.ragged_rows,
            "rows had more or fewer fields than the header",
        ),
        (
            notes.shortened_fields,
            "fields were longer than a product's may be, and were shortened",
        ),
        (
            notes.sale_prices_left_out,
            "sale prices did not become the price: not readable, not lower, or for some days only",
        ),
        (
            u64::from(report.continued),
            "times the import broke and was continued",
        ),
        (
            u64::from(report.replayed),
            "import of this key was there already: what it had dealt with was not read from the file again",
        ),
    ];
    let remarks = remarks.into_iter().filter(|(count, _)| *count > 0);
    lines.extend(remarks.map(|(count, sentence)| format!("note: {} {sentence}", grouped(count))));
    lines.join("\n")
}

/// A number with its thousands apart: `297,116`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds as seconds with one decimal.
fn seconds(elapsed_ms: u64) -> String {
    format!("{}.{} s", elapsed_ms / 1_000, elapsed_ms % 1_000 / 100)
}

/// A file as an import's source: opened anew for each attempt.
#[derive(Debug)]
pub(super) struct FileSource {
    path: PathBuf,
    bytes: u64,
    bytes_read: BytesRead,
    notes: Arc<Mutex<Notes>>,
}

impl FileSource {
    /// A file that is there and looks like a feed: better said before a server is asked.
    pub(super) fn new(path: PathBuf) -> Result<Self, feed::Error> {
        Feed::open(&path, &BytesRead::default())?;
        let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Ok(Self {
            path,
            bytes,
            bytes_read: BytesRead::default(),
            notes: Arc::default(),
        })
    }

    /// What was not kept as it was found, once the rows have been read to their end.
    pub(super) fn notes(&self) -> Notes {
        *self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl catalog_import::Source for FileSource {
    fn rows(&self) -> Result<Rows, feed::Error> {
        let mut feed = Feed::open(&self.path, &self.bytes_read)?;
        let notes = Arc::clone(&self.notes);
        Ok(Box::new(std::iter::from_fn(move || {
            let row = feed.next();
            if row.is_none() {
                *notes.lock().unwrap_or_else(PoisonError::into_inner) = feed.notes();
            }
            row
        })))
    }
}

/// The bar that shows how much of a file has been read, and how many rows have come back. Shows nothing where standard error is no terminal.
pub(super) struct Bar {
    bar: ProgressBar,
    bytes_read: BytesRead,
}

impl Bar {
    /// A bar for a file.
    pub(super) fn new(file: &FileSource) -> Self {
        let bar = ProgressBar::new(file.bytes);
        if let Ok(style) = ProgressStyle::with_template(
            "{spinner} {name} {wide_bar} {percent}% · {msg} · {elapsed}",
        ) {
            bar.set_style(style.with_key("name", name_of(&file.path)));
        }
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            bytes_read: file.bytes_read.clone(),
        }
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// A file's name as a part of the bar.
fn name_of(path: &Path) -> impl indicatif::style::ProgressTracker + use<> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    move |_: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
        // The bar has room or it has not.
        let _ = out.write_str(&name);
    }
}

impl Progress for Bar {
    fn counted(&self, rows: u64, failed: u64) {
        self.bar.set_position(self.bytes_read.get());
        let elapsed_ms = u64::try_from(self.bar.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate = grouped(rows.saturating_mul(1_000) / elapsed_ms);
        self.bar.set_message(format!(
            "{} rows, {} failed, {rate} rows/s",
            grouped(rows),
            grouped(failed)
        ));
    }

    fn continued(&self, reason: &str, pause: Duration) {
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        // The bar and the log share the terminal.
        self.bar.suspend(|| {
            tracing::warn!(
                reason,
                pause_ms,
                "the import broke off and will be continued"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_names_every_reason() {
        let report = Report {
            key: "k".to_owned(),
            import_id: "imp_1".to_owned(),
            rows: 297_116,
            created: 296_123,
            updated: 0,
            unchanged: 0,
            failed: 993,
            reasons: vec![Reason {
                code: "required".to_owned(),
                pointer: "/externalId".to_owned(),
                detail: "must not be empty".to_owned(),
                rows: 993,
                first_lines: vec![12, 400],
            }],
            continued: 1,
            replayed: false,
            elapsed_ms: 21_470,
            rows_per_second: 13_838,
        };
        let text = summary(
            &report,
            &Notes {
                ragged_rows: 2,
                ..Notes::default()
            },
        );
        for part in [
            "297,116 rows in 21.4 s (13,838 rows/s): 296,123 created, 0 updated, 0 unchanged, 993 failed",
            "      993  required  /externalId  12, 400 …\n           must not be empty",
            "note: 2 rows had more or fewer fields",
            "note: 1 times the import broke and was continued",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
