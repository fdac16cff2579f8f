//! As whom PostgreSQL runs: as we do, or, because it refuses to run as root, as an unprivileged user.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, User};

use super::error::Error;

/// The users that root gives way to, the better one first.
const UNPRIVILEGED_USERS: [&str; 2] = ["postgres", "nobody"];

/// The user as whom PostgreSQL runs.
#[derive(Debug, Clone)]
pub(super) struct Account {
    uid: Uid,
    gid: Gid,
    /// Whether that is another user than ours, because we are root.
    drops: bool,
}

impl Account {
    /// Chooses the user for a cluster that may exist already: started as root, an existing cluster keeps its owner.
    pub(super) fn choose(cluster: Option<&Path>) -> Result<Self, Error> {
        let owner = match cluster {
            Some(cluster) => {
                let metadata = cluster
                    .metadata()
                    .map_err(Error::system("inspect", cluster))?;
                Some((cluster, metadata.uid(), metadata.gid()))
            }
            None => None,
        };
        if !Uid::effective().is_root() {
            let account = Self {
                uid: Uid::effective(),
                gid: Gid::effective(),
                drops: false,
            };
            return match owner {
                Some((cluster, uid, _)) if uid != account.uid.as_raw() => {
                    Err(account.other_owner(cluster, uid))
                }
                _ => Ok(account),
            };
        }
        match owner {
            Some((_, uid, gid)) if uid != 0 => Ok(Self {
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
                drops: true,
            }),
            found => {
                let account = Self::unprivileged()?;
                match found {
                    Some((cluster, uid, _)) => Err(account.other_owner(cluster, uid)),
                    None => Ok(account),
                }
            }
        }
    }

    fn unprivileged() -> Result<Self, Error> {
        for name in UNPRIVILEGED_USERS {
            let user = User::from_name(name)
                .map_err(io::Error::from)
                .map_err(Error::system("look up the users in", "/etc/passwd"))?;
            if let Some(user) = user
                && !user.uid.is_root()
            {
                return Ok(Self {
                    uid: user.uid,
                    gid: user.gid,
                    drops: true,
                });
            }
        }
        Err(Error::NoAccount)
    }

    /// Whether PostgreSQL runs as another user than this process.
    pub(super) fn drops_privileges(&self) -> bool {
        self.drops
    }

    /// Makes the command run as this user, without any of our supplementary groups.
    pub(super) fn apply(&self, command: &mut Command) {
        if self.drops {
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
    }

    /// Hands over a file or directory that we made.
    pub(super) fn give(&self, file: &File) -> io::Result<()> {
        if self.drops {
            std::os::unix::fs::fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
        }
        Ok(())
    }

    /// Whether this is the user that a file belongs to.
    pub(super) fn owns(&self, metadata: &Metadata) -> bool {
        metadata.uid() == self.uid.as_raw()
    }

    /// The first directory from the root down to `directory` that this user may not enter. Always none for ourselves: then the
    /// system's own errors say it better.
    pub(super) fn barred_from(&self, directory: &Path) -> Option<PathBuf> {
        if !self.drops {
            return None;
        }
        let mut ancestors: Vec<&Path> = directory.ancestors().collect();
        ancestors.reverse();
        ancestors
            .into_iter()
            .find(|ancestor| {
                !ancestor
                    .metadata()
                    .is_ok_and(|found| self.may_enter(&found))
            })
            .map(Path::to_owned)
    }

    fn may_enter(&self, directory: &Metadata) -> bool {
        let execute = if directory.uid() == self.uid.as_raw() {
            0o100
        } else if directory.gid() == self.gid.as_raw() {
            0o010
        } else {
            0o001
        };
        directory.mode() & execute != 0
    }

    /// The user id, for tests that make what PostgreSQL would.
    #[cfg(test)]
    pub(super) fn uid_for_tests(&self) -> Option<u32> {
        self.drops.then_some(self.uid.as_raw())
    }

    /// The error that a directory is another user's.
    pub(super) fn other_owner(&self, directory: &Path, owner: u32) -> Error {
        Error::OtherOwner {
            directory: directory.to_owned(),
            owner: name_of(Uid::from_raw(owner)),
            user: self.name(),
        }
    }

    /// The user's name, or number if it has none.
    pub(super) fn name(&self) -> String {
        name_of(self.uid)
    }
}

fn name_of(uid: Uid) -> String {
    User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}
