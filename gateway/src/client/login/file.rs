//! The file of logins: for its owner alone at every moment, replaced as a whole, and changed under a lock.
//!
//! The lock is a file of its own beside it (a lock on a file that is replaced holds nobody up who opens the next one), held by `flock`, so that a process that
//! dies lets go. Readers need no lock: what they read is one whole file or the next.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kernel::id::MerchantId;
use nix::libc;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Error, Login, Wanted, is_same_issuer};

/// How long another command may hold the lock. It holds it for one exchange at the server, which may be silent for a minute.
const LOCK_PATIENCE: Duration = Duration::from_mins(2);

/// How often the lock is tried meanwhile.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Bytes of the file that are read: some thousand logins.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file of logins; it need not exist yet.
#[derive(Debug, Clone)]
pub struct LoginFile {
    path: PathBuf,
}

/// What is in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Logins {
    /// One for each server and merchant.
    pub logins: Vec<Login>,
}

/// The file, while no other process changes it.
#[derive(Debug)]
pub struct Locked<'f> {
    file: &'f LoginFile,
    _lock: File,
}

impl LoginFile {
    /// The file at this path.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it; nothing if it is not there.
    pub fn read(&self) -> Result<Logins, Error> {
        let opened = OpenOptions::new()
            .read(true)
            // A link could point at a file of the attacker's choice.
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Logins::default()),
            Err(error) => return Err(self.failed("read", error)),
        };
        // Of the file that was opened, not of whatever has the name now.
        let metadata = file
            .metadata()
            .map_err(|error| self.failed("read", error))?;
        if !metadata.is_file() || metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Error::NotOurs {
                path: self.path.clone(),
            });
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::TooOpen {
                path: self.path.clone(),
                mode,
            });
        }
        let mut text = Vec::new();
        file.take(BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|error| self.failed("read", error))?;
        serde_json::from_slice(&text).map_err(|source| Error::NotLogins {
            path: self.path.clone(),
            source,
        })
    }

    /// Waits until no other process changes the file. Makes its directory if there is none.
    pub async fn lock(&self) -> Result<Locked<'_>, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.directory())
            .map_err(|error| self.failed("make the directory of", error))?;
        let lock = private()
            .create(true)
            .truncate(false)
            .open(self.beside("lock"))
            .map_err(|error| self.failed("lock", error))?;
        let started = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Locked {
                        file: self,
                        _lock: lock,
                    });
                }
                Err(TryLockError::Error(error)) => return Err(self.failed("lock", error)),
                Err(TryLockError::WouldBlock) if started.elapsed() > LOCK_PATIENCE => {
                    return Err(Error::Busy {
                        path: self.path.clone(),
                        waited: LOCK_PATIENCE,
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }

    fn directory(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// A hidden file in the same directory.
    fn beside(&self, ending: &str) -> PathBuf {
        let name = self
            .path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        self.directory().join(format!(".{name}.{ending}"))
    }

    fn failed(&self, act: &'static str, source: io::Error) -> Error {
        Error::File {
            act,
            path: self.path.clone(),
            source,
        }
    }
}

impl Locked<'_> {
    /// What is in it now.
    pub fn read(&self) -> Result<Logins, Error> {
        self.file.read()
    }

    /// Replaces what is in it. When this returns, it is on disk.
    pub fn write(&self, logins: &Logins) -> Result<(), Error> {
        let failed = |error| self.file.failed("write", error);
        // Also what cannot be read is not overwritten: it may be another program's.
        self.file.read()?;
        let new = self
            .file
            .beside(&uuid::Uuid::from_bytes(rand::random()).simple().to_string());
        let written = self.write_to(&new, logins);
        if written.is_err() {
            // The reason why it was not written says more than why it can't be removed.
            let _ = std::fs::remove_file(&new);
        }
        written.map_err(failed)
    }

    fn write_to(&self, new: &Path, logins: &Logins) -> io::Result<()> {
        let mut file = private().create_new(true).open(new)?;
        // Made for its owner alone; a strange umask may have taken even that away.
        file.set_permissions(Permissions::from_mode(0o600))?;
        let mut text = serde_json::to_vec_pretty(logins)?;
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(new, &self.file.path)?;
        File::open(self.file.directory())?.sync_all()
    }
}

/// How a file is opened for writing that nobody else may ever read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW);
    options
}

impl Logins {
    /// The one login for this server and merchant, either of which may be left open if that leaves one.
    pub fn one(&self, url: Option<&Url>, merchant: Option<MerchantId>) -> Result<&Login, Error> {
        let mut found = self
            .logins
            .iter()
            .filter(|login| login.is_for(url, merchant));
        match (found.next(), found.next()) {
            (Some(login), None) => Ok(login),
            (None, _) => Err(Error::NotLoggedIn(Wanted::new(url, merchant))),
            (Some(_), Some(_)) => Err(Error::Several {
                wanted: Wanted::new(url, merchant),
                choices: self
                    .logins
                    .iter()
                    .filter(|login| login.is_for(url, merchant))
                    .map(|login| {
                        format!(
                            "  --url {} --merchant {}",
                            login.server(),
                            login.merchant_id
                        )
                    })
                    .collect::<Vec<_>>()
                    .join("\n"),
            }),
        }
    }

    /// Keeps a login in the place of the one for the same server and merchant, which it gives.
    pub fn put(&mut self, login: Login) -> Option<Login> {
        let old = self.remove(&login.issuer, login.merchant_id);
        self.logins.push(login);
        old
    }

    /// Takes out the login for this server and merchant.
    pub fn remove(&mut self, issuer: &Url, merchant: MerchantId) -> Option<Login> {
        let place = self.logins.iter().position(|login| {
            is_same_issuer(login.issuer.as_str(), issuer.as_str()) && login.merchant_id == merchant
        })?;
        Some(self.logins.remove(place))
    }
}
