//! The data directory: its lock, the cluster in it, and the place of the socket.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::Uid;
use sha2::{Digest, Sha256};

use super::Options;
use super::account::Account;
use super::error::Error;

/// The port that names the socket; nothing listens on it.
pub(super) const PORT: u16 = 5432;

/// The bytes of a socket's path that the system's `sockaddr_un` has room for, without its closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where a socket directory of our own goes when neither the data directory nor the runtime directory will do.
const TEMPORARY_DIRECTORY: &str = "/tmp";

/// The prefix of the directory in which a cluster is made before it gets its name.
const INITIALISING: &str = "postgres.initialising";

/// A data directory that is locked for this process and ready for PostgreSQL.
#[derive(Debug)]
pub(super) struct Directory {
    /// `<data>`, absolute and without symbolic links.
    data: PathBuf,
    /// `<data>/postgres`, PostgreSQL's own data directory.
    pub(super) cluster: PathBuf,
    /// The directory of the socket.
    pub(super) socket: PathBuf,
    /// As whom PostgreSQL runs.
    pub(super) account: Account,
    /// Held until this is dropped or the process ends.
    _lock: Lock,
}

/// The lock on a data directory. It belongs to the open file, which a child process that is just being forked has open too until it executes its program: so it
/// is given up by name, and not by closing the file.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(error = %error, "the data directory's lock ends with the process");
        }
    }
}

impl Directory {
    /// Makes what is missing, locks the directory, and finds a place for the socket.
    pub(super) fn open(options: &Options) -> Result<Self, Error> {
        let data = make_data_directory(&options.data_directory)?;
        let lock = lock(&data)?;
        let cluster = data.join("postgres");
        let account = Account::choose(has_content(&cluster).then_some(cluster.as_path()))?;
        if let Some(directory) = account.barred_from(&data) {
            return Err(Error::NotTraversable {
                directory,
                user: account.name(),
            });
        }
        let candidates = socket_candidates(&data, options.runtime_directory.as_deref(), &account);
        let socket = choose_socket_directory(&candidates)?.to_owned();
        make_private_directory(&socket, &account)?;
        Ok(Self {
            data,
            cluster,
            socket,
            account,
            _lock: lock,
        })
    }

    /// The file that PostgreSQL's messages are appended to.
    pub(super) fn log_path(&self) -> PathBuf {
        self.data.join("postgres.log")
    }

    /// The major version that made the cluster; none if there is no cluster yet.
    pub(super) fn cluster_version(&self) -> Result<Option<u32>, Error> {
        let path = self.cluster.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(version) => match version.trim().parse() {
                Ok(version) => Ok(Some(version)),
                Err(_not_a_number) => Err(Error::NotACluster {
                    directory: self.cluster.clone(),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_content(&self.cluster) {
                    return Err(Error::NotACluster {
                        directory: self.cluster.clone(),
                    });
                }
                Ok(None)
            }
            Err(error) => Err(Error::system("read", path)(error)),
        }
    }

    /// Makes the empty directory for a new cluster, and clears away what an interrupted first start left.
    pub(super) fn begin_cluster(&self) -> Result<PathBuf, Error> {
        for entry in fs::read_dir(&self.data).map_err(Error::system("list", &self.data))? {
            let entry = entry.map_err(Error::system("list", &self.data))?;
            if entry
                .file_name()
                .as_bytes()
                .starts_with(INITIALISING.as_bytes())
            {
                // An initdb whose parent was killed may still be writing there; then it stays until the next time,
                // which is why each attempt has a name of its own.
                let _leftover = fs::remove_dir_all(entry.path());
            }
        }
        let path = self
            .data
            .join(format!("{INITIALISING}.{}", uuid::Uuid::now_v7().simple()));
        make_private_directory(&path, &self.account)?;
        Ok(path)
    }

    /// Gives a completely initialised cluster its name. After this the cluster exists, even if the power fails.
    pub(super) fn finish_cluster(&self, initialised: &Path) -> Result<(), Error> {
        fs::rename(initialised, &self.cluster).map_err(Error::system("rename", initialised))?;
        File::open(&self.data)
            .and_then(|data| data.sync_all())
            .map_err(Error::system("write to disk", &self.data))
    }
}

/// Makes the data directory, and those above it that are missing, for their owner alone. When PostgreSQL will run as another user,
/// that one may pass through to its own directory, but not list these.
fn make_data_directory(path: &Path) -> Result<PathBuf, Error> {
    let path = std::path::absolute(path).map_err(Error::system("find", path))?;
    let mut missing: Vec<&Path> = path
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    while let Some(directory) = missing.pop() {
        match DirBuilder::new().mode(0o700).create(directory) {
            // Somebody else was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made.map_err(Error::system("make", directory))?,
        }
        if Uid::effective().is_root() {
            fs::set_permissions(directory, Permissions::from_mode(0o711))
                .map_err(Error::system("set the permissions of", directory))?;
        }
    }
    path.canonicalize().map_err(Error::system("find", path))
}

/// Whether a directory exists with anything in it, or with what we may not see.
fn has_content(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Locks the data directory for as long as the lock is held, and notes who we are for whoever finds it locked.
fn lock(data: &Path) -> Result<Lock, Error> {
    let path = data.join("postgres.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(Error::system("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only a courtesy to the reader of the message: the lock is what counts.
            let _unread = file.read_to_string(&mut holder);
            let holder = Some(holder.trim().to_owned()).filter(|holder| !holder.is_empty());
            return Err(Error::InUse {
                directory: data.to_owned(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(Error::system("lock", &path)(error)),
    }
    let mut lock = Lock(file);
    lock.0
        .set_len(0)
        .and_then(|()| lock.0.rewind())
        .and_then(|()| writeln!(lock.0, "{}", std::process::id()))
        .map_err(Error::system("write", &path))?;
    Ok(lock)
}

/// The places for the socket, the best first. The short ones are named by a hash of data directory and user, so that they are found
/// again and don't collide.
fn socket_candidates(data: &Path, runtime: Option<&Path>, account: &Account) -> Vec<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(data.as_os_str().as_bytes());
    hash.update([0]);
    hash.update(account.name());
    let mut name = String::from("stoa-");
    for byte in hash.finalize().iter().take(8) {
        // Writing to a string does not fail.
        let _written = write!(name, "{byte:02x}");
    }
    let mut candidates = vec![data.join("run")];
    // Root's runtime directory is closed to the user that PostgreSQL runs as.
    candidates.extend(
        runtime
            .filter(|runtime| {
                runtime.is_absolute() && runtime.is_dir() && account.barred_from(runtime).is_none()
            })
            .map(|runtime| runtime.join(&name)),
    );
    candidates.push(Path::new(TEMPORARY_DIRECTORY).join(&name));
    candidates
}

/// The first candidate whose socket has a path that is short enough.
fn choose_socket_directory(candidates: &[PathBuf]) -> Result<&Path, Error> {
    let mut shortest: Option<PathBuf> = None;
    for candidate in candidates {
        let path = candidate.join(format!(".s.PGSQL.{PORT}"));
        if length(&path) <= SOCKET_PATH_BYTES_MAX {
            return Ok(candidate);
        }
        if shortest
            .as_deref()
            .is_none_or(|shortest| length(&path) < length(shortest))
        {
            shortest = Some(path);
        }
    }
    let path = shortest.unwrap_or_default();
    Err(Error::SocketPathTooLong {
        length: length(&path),
        path,
        limit: SOCKET_PATH_BYTES_MAX,
    })
}

fn length(path: &Path) -> usize {
    let path: &OsStr = path.as_os_str();
    path.as_bytes().len()
}

/// Makes a directory that only PostgreSQL's user may enter, or checks that an existing one is that user's own: in a
/// directory that everybody may write to, it could be somebody's trap.
fn make_private_directory(path: &Path, account: &Account) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::system("make", path)(error));
        }
        _ => {}
    }
    // Opened once, and without following symbolic links: what is checked is what is changed, even if somebody exchanges it
    // meanwhile.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let directory = directory.map_err(|error| match path.symlink_metadata() {
        Ok(found) if !account.owns(&found) => account.other_owner(path, found.uid()),
        _ => Error::system("open", path)(error),
    })?;
    let found = directory
        .metadata()
        .map_err(Error::system("inspect", path))?;
    // What root made and has not given away yet is still root's.
    let unfinished = account.drops_privileges() && found.uid() == 0;
    if !account.owns(&found) && !unfinished {
        return Err(account.other_owner(path, found.uid()));
    }
    directory
        .set_permissions(Permissions::from_mode(0o700))
        .and_then(|()| account.give(&directory))
        .map_err(Error::system("set the owner and permissions of", path))
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        reason = "a test fails by panicking"
    )]

    use super::*;

    #[test]
    fn the_socket_goes_to_the_first_place_whose_path_is_short_enough() {
        // `/.s.PGSQL.5432` has 14 bytes, which leaves 93.
        let longest = PathBuf::from(format!("/{}", "x".repeat(92)));
        let too_long = PathBuf::from(format!("/{}", "x".repeat(93)));
        let places = [
            too_long.clone(),
            longest.clone(),
            PathBuf::from("/tmp/short"),
        ];
        assert_eq!(choose_socket_directory(&places).unwrap(), longest);
    }

    #[test]
    fn a_socket_path_that_is_too_long_everywhere_is_a_clear_error() {
        let too_long = PathBuf::from(format!("/{}", "x".repeat(93)));
        let longer = PathBuf::from(format!("/{}", "x".repeat(200)));
        let error = choose_socket_directory(&[longer, too_long.clone()]).unwrap_err();
        assert!(
            matches!(&error, Error::SocketPathTooLong { length: 108, .. }),
            "{error:?}"
        );
        let message = error.to_string();
        assert!(
            message.contains(too_long.to_str().unwrap()) && message.contains("107"),
            "{message}"
        );
    }

    #[test]
    fn a_socket_directory_that_is_a_link_or_another_users_is_refused() {
        let account = Account::choose(None).unwrap();
        let base =
            std::env::temp_dir().join(format!("stoa-trap-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&base).unwrap();
        let link = base.join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        assert!(make_private_directory(&link, &account).is_err());
        if nix::unistd::Uid::effective().is_root() {
            let foreign = base.join("foreign");
            fs::create_dir(&foreign).unwrap();
            std::os::unix::fs::chown(&foreign, Some(12_345), None).unwrap();
            assert!(matches!(
                make_private_directory(&foreign, &account),
                Err(Error::OtherOwner { .. })
            ));
        }
        fs::remove_dir_all(&base).unwrap();
    }
}
