//! Feeds: files of products, read as the lines that a catalog import takes.
//!
//! Called by `stoa import` and `stoa demo`. A feed is NDJSON of the import's own contract, or the tab-separated text that merchants upload to Google
//! Merchant Center; plain or gzipped. Both are told by their content, not by their names. Invariants:
//!
//! - Every row of the file becomes one line, in the file's order. A row that can't be a product becomes a line all the same, so that the server
//!   refuses it with a reason and a pointer: a feed refuses no row of its own.
//! - A row of a Google feed fails only without an id, a title or a readable price. Whatever else can't be kept as it is, is shortened, kept as an
//!   attribute or left out, and [`Notes`] counts it.
//! - Memory is bounded: a row has at most [`ROW_BYTES_MAX`] bytes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;
use serde::Serialize;

pub mod generated;
mod google;
mod lines;
mod price;
mod tsv;

use lines::Lines;

/// Bytes that a row may have. Descriptions of real feeds stay below 64 KiB; what has no line end for this long is not a feed.
pub const ROW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes read from a file at once.
const READ_BYTES: usize = 128 * 1024;

/// Why a file can't be read as a feed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be opened or read, or its compression is broken.
    #[error("can't read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The content is none of the known formats.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it seems to be, and what would do.
        reason: String,
    },
    /// A row has more than [`ROW_BYTES_MAX`] bytes.
    #[error("{}: line {line} has more than {ROW_BYTES_MAX} bytes", path.display())]
    RowTooLong {
        /// The file.
        path: PathBuf,
        /// The row's line, from 1.
        line: u64,
    },
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Products as the import takes them, one JSON object a line.
    Ndjson,
    /// A Google Merchant feed as tab-separated text.
    GoogleTsv,
}

/// A row of a feed: what the import is sent, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The line of the file at which the row begins, from 1.
    pub line: u64,
    /// One line of NDJSON, without its end.
    pub json: Vec<u8>,
}

/// What was not kept as it was found. None of it makes a row fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// Rows with bytes that are not UTF-8; these bytes are shown as U+FFFD.
    pub undecodable_rows: u64,
    /// Rows with more or fewer fields than the header has columns; missing fields are empty, surplus ones are left out.
    pub ragged_rows: u64,
    /// Fields that were longer, or lists that had more elements, than a product may have.
    pub shortened_fields: u64,
    /// Sale prices that did not become the price: unreadable, not below the price, in another currency, or for a limited time only. They are kept as
    /// attributes.
    pub sale_prices_left_out: u64,
}

impl Notes {
    /// Whether everything was kept as it was found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How much of a file has been read; shared with whoever shows it.
#[derive(Debug, Clone, Default)]
pub struct BytesRead(Arc<AtomicU64>);

impl BytesRead {
    /// Bytes of the file as it lies on disk.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An open feed: an iterator over its rows.
pub struct Feed {
    path: PathBuf,
    rows: Rows,
}

/// By format, what reads the rows.
enum Rows {
    Ndjson(Lines),
    Google(google::Reader),
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Feed")
            .field("path", &self.path)
            .field("format", &self.format())
            .finish_non_exhaustive()
    }
}

impl Feed {
    /// Opens a file and finds out what it is. `bytes_read` is set back to nothing, and then follows the reading.
    pub fn open(path: &Path, bytes_read: &BytesRead) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        bytes_read.0.store(0, Ordering::Relaxed);
        let counted = Counted {
            inner: file,
            bytes_read: bytes_read.clone(),
        };
        Self::read(path, counted)
    }

    /// A feed from any reader; `path` names it in errors.
    pub fn read(path: &Path, reader: impl Read + Send + 'static) -> Result<Self, Error> {
        let fail = |fault: lines::Fault| fault.of(path);
        let mut file = BufReader::with_capacity(READ_BYTES, reader);
        let compressed = file
            .fill_buf()
            .map_err(|source| fail(source.into()))?
            .starts_with(&[0x1f, 0x8b]);
        let text: Box<dyn BufRead + Send> = if compressed {
            Box::new(BufReader::with_capacity(
                READ_BYTES,
                MultiGzDecoder::new(file),
            ))
        } else {
            Box::new(file)
        };
        let mut lines = Lines::new(text);
        let refuse = |reason: &str| Error::Format {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let Some(first) = lines.next_not_blank().map_err(fail)? else {
            return Err(refuse(
                "the file is empty; a feed is NDJSON or a Google Merchant TSV",
            ));
        };
        let rows = match first.bytes.trim_ascii_start().first() {
            Some(b'{') => {
                lines.put_back(first);
                Rows::Ndjson(lines)
            }
            Some(b'[') => {
                return Err(refuse(
                    "this is a JSON array; write one product a line (`jq -c '.[]'`)",
                ));
            }
            Some(b'<') => {
                return Err(refuse(
                    "this is XML, which is not read yet; a feed is NDJSON or a Google Merchant TSV",
                ));
            }
            _ => {
                let header = String::from_utf8_lossy(&first.bytes);
                Rows::Google(google::Reader::new(&header, lines).map_err(|reason| refuse(&reason))?)
            }
        };
        Ok(Self {
            path: path.to_owned(),
            rows,
        })
    }

    /// What the file holds.
    pub fn format(&self) -> Format {
        match &self.rows {
            Rows::Ndjson(_) => Format::Ndjson,
            Rows::Google(_) => Format::GoogleTsv,
        }
    }

    /// What was not kept as it was found, in the rows read so far.
    pub fn notes(&self) -> Notes {
        match &self.rows {
            Rows::Ndjson(_) => Notes::default(),
            Rows::Google(reader) => reader.notes(),
        }
    }
}

impl Iterator for Feed {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match &mut self.rows {
            // As it is, be it UTF-8 or not: what the line is worth is the server's to say.
            Rows::Ndjson(lines) => lines.next_not_blank().map(|line| {
                line.map(|line| Row {
                    line: line.number,
                    json: line.bytes,
                })
            }),
            Rows::Google(reader) => reader.next_row(),
        };
        row.map_err(|fault| fault.of(&self.path)).transpose()
    }
}

/// A reader that tells how far it is.
struct Counted<R> {
    inner: R,
    bytes_read: BytesRead,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes_read
            .0
            .fetch_add(u64::try_from(count).unwrap_or_default(), Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
