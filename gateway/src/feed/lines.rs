//! Lines of a file, with their numbers, never longer than a row may be.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
    path::Path,
};

use super::{Error, ROW_BYTES_MAX};

/// A line without its end.
pub(super) struct Line {
    /// Its place in the file, from 1.
    pub(super) number: u64,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
}

/// Why there is no next line.
pub(super) enum Fault {
    /// It can't be read.
    Read(io::Error),
    /// This line is too long.
    TooLong(u64),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl Fault {
    /// The fault as that of a file.
    pub(super) fn of(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Read(source) => Error::Read { path, source },
            Self::TooLong(line) => Error::RowTooLong { path, line },
        }
    }
}

/// The lines of a reader. A byte order mark is left out, and so is the carriage return of a line end.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    read: u64,
    put_back: VecDeque<Line>,
}

impl Lines {
    pub(super) fn new(reader: Box<dyn BufRead + Send>) -> Self {
        Self {
            reader,
            read: 0,
            put_back: VecDeque::new(),
        }
    }

    /// The next line; the last one may lack its end.
    pub(super) fn next(&mut self) -> Result<Option<Line>, Fault> {
        if let Some(line) = self.put_back.pop_front() {
            return Ok(Some(line));
        }
        let number = self.read + 1;
        let mut bytes = Vec::new();
        let limit = u64::try_from(ROW_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut self.reader)
            .take(limit + 2)
            .read_until(b'\n', &mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.pop_if(|byte| *byte == b'\n').is_some() {
            bytes.pop_if(|byte| *byte == b'\r');
        }
        if bytes.len() > ROW_BYTES_MAX {
            return Err(Fault::TooLong(number));
        }
        if number == 1 && bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        self.read = number;
        Ok(Some(Line { number, bytes }))
    }

    /// The next line that is not blank.
    pub(super) fn next_not_blank(&mut self) -> Result<Option<Line>, Fault> {
        while let Some(line) = self.next()? {
            if !line.bytes.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
        Ok(None)
    }

    /// Gives back the line that was read last: it is the next one again.
    pub(super) fn put_back(&mut self, line: Line) {
        self.put_back.push_front(line);
    }
}
