//! PostgreSQL's log file: appended to by PostgreSQL itself, quoted in errors.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::error::Error;

/// A log beyond this is put aside at the next start, replacing the one before, so that the disk doesn't fill over the years.
const ROTATED_BYTES: u64 = 16 * 1024 * 1024;

/// How much of the log an error quotes.
const TAIL_LINES: usize = 12;

/// How far back from its end the log is read for that.
const TAIL_BYTES: u64 = 16 * 1024;

/// The log file, with the place where one run of a program began.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    begin: u64,
}

impl Log {
    /// Opens the log for a program's output. The program inherits the open file, so it needs no permission of its own.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if path.metadata().is_ok_and(|log| log.len() > ROTATED_BYTES) {
            fs::rename(path, path.with_extension("log.1"))
                .map_err(Error::system("rename", path))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::system("open", path))?;
        let begin = file
            .metadata()
            .map_err(Error::system("inspect", path))?
            .len();
        Ok(Self {
            path: path.to_owned(),
            file,
            begin,
        })
    }

    /// The file for a program to write to.
    pub(super) fn writer(&self) -> Result<File, Error> {
        self.file
            .try_clone()
            .map_err(Error::system("open", &self.path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// What was written since this was opened; the end of it, if that is much.
    pub(super) fn written(&self) -> String {
        let mut text = Vec::new();
        // The log only explains another error: if it can't be read, that error stands alone.
        if let Ok(mut file) = File::open(&self.path) {
            let length = file.metadata().map_or(0, |log| log.len());
            let from = self.begin.max(length.saturating_sub(TAIL_BYTES));
            let _unread = file
                .seek(SeekFrom::Start(from))
                .and_then(|_| file.take(TAIL_BYTES).read_to_end(&mut text));
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The last lines of that.
    pub(super) fn tail(&self) -> String {
        let written = self.written();
        let lines: Vec<&str> = written.lines().collect();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        lines
            .into_iter()
            .skip(skipped)
            .collect::<Vec<_>>()
            .join("\n")
    }
}
