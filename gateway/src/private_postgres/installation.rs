//! Finds PostgreSQL's server binaries on this system.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::Error;

/// Where Debian and Ubuntu put the server's binaries, as `VERSION/bin`; they are not in `PATH` there.
const VERSIONED_ROOT: &str = "/usr/lib/postgresql";

/// The oldest major version that Stoa's statements are tested on.
const MAJOR_VERSION_MIN: u32 = 15;

/// An installed PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installation {
    /// The directory of `postgres` and `initdb`.
    pub(super) bin_dir: PathBuf,
    /// The major version, as a cluster's `PG_VERSION` has it.
    pub(super) major: u32,
    /// The whole version, for people.
    pub(super) version: String,
}

impl Installation {
    /// The installation to run: the one of the cluster's major version, or the newest for a cluster that is still to be
    /// made.
    pub(super) fn find(
        search_path: Option<&OsStr>,
        cluster: Option<u32>,
        directory: &Path,
    ) -> Result<Self, Error> {
        Self::find_in(
            &candidates(Path::new(VERSIONED_ROOT), search_path),
            cluster,
            directory,
        )
    }

    fn find_in(
        candidates: &[PathBuf],
        cluster: Option<u32>,
        directory: &Path,
    ) -> Result<Self, Error> {
        let installed: Vec<Self> = candidates
            .iter()
            .filter_map(|bin_dir| Self::inspect(bin_dir))
            .collect();
        let supported = |found: &&Self| found.major >= MAJOR_VERSION_MIN;
        let chosen = match cluster {
            Some(major) => installed
                .iter()
                .filter(supported)
                .find(|found| found.major == major),
            None => installed.iter().find(supported),
        };
        if let Some(found) = chosen {
            return Ok(found.clone());
        }
        match (cluster, installed.iter().any(|found| supported(&found))) {
            (Some(cluster), true) => {
                let mut versions = String::new();
                for found in installed.iter().filter(supported) {
                    let separator = if versions.is_empty() { "" } else { " and " };
                    // Writing to a string does not fail.
                    let _written = write!(
                        versions,
                        "{separator}{} ({})",
                        found.version,
                        found.bin_dir.display()
                    );
                }
                Err(Error::OtherVersion {
                    directory: directory.to_owned(),
                    cluster,
                    installed: versions,
                })
            }
            _ => Err(Error::NotInstalled {
                minimum: MAJOR_VERSION_MIN,
                searched: format!("{VERSIONED_ROOT}, by pg_config, and in PATH"),
                too_old: installed.into_iter().next().map(|found| found.version),
            }),
        }
    }

    /// The installation in a directory, if it is complete and runs.
    fn inspect(bin_dir: &Path) -> Option<Self> {
        if !bin_dir.join("initdb").is_file() {
            return None;
        }
        let text = output(Command::new(bin_dir.join("postgres")).arg("--version"))?;
        let (major, version) = parse_version(&text)?;
        Some(Self {
            bin_dir: bin_dir.to_owned(),
            major,
            version,
        })
    }
}

/// The directories to look in, the preferred first.
fn candidates(versioned_root: &Path, search_path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut versioned: Vec<(u32, PathBuf)> = std::fs::read_dir(versioned_root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versioned.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut candidates: Vec<PathBuf> = versioned.into_iter().map(|(_, bin_dir)| bin_dir).collect();
    let search_directories: Vec<PathBuf> = search_path
        .map(|path| std::env::split_paths(path).collect())
        .unwrap_or_default();
    // The configured PATH and not this process's own, so that what is found depends on the options alone.
    let pg_config = search_directories
        .iter()
        .map(|directory| directory.join("pg_config"))
        .find(|path| path.is_file());
    if let Some(bin_dir) = pg_config.and_then(|path| output(Command::new(path).arg("--bindir"))) {
        candidates.push(PathBuf::from(bin_dir.trim()));
    }
    candidates.extend(
        search_directories
            .into_iter()
            .filter(|directory| directory.is_absolute()),
    );
    candidates
}

/// What a program prints, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    String::from_utf8(output.stdout).ok()
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, and `18beta1` as 18.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let digits = version
        .find(|character: char| !character.is_ascii_digit())
        .map_or(version, |end| version.split_at(end).0);
    Some((digits.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// A directory of installations that only know their version.
    struct Fakes(PathBuf);

    impl Fakes {
        fn new(versions: &[&str]) -> Self {
            let root =
                std::env::temp_dir().join(format!("stoa-fakes-{}", uuid::Uuid::now_v7().simple()));
            for version in versions {
                let bin_dir = root.join(version).join("bin");
                std::fs::create_dir_all(&bin_dir).unwrap();
                std::fs::write(bin_dir.join("initdb"), "").unwrap();
                let script =
                    format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}.4 (Some 1)'\n");
                // Written by a process of its own: a file that is open here is open in whatever other tests start meanwhile, and so too busy to be run.
                let written = Command::new("sh")
                    .args([
                        "-c",
                        "printf %s \"$1\" > postgres && chmod 755 postgres",
                        "sh",
                    ])
                    .arg(script)
                    .current_dir(&bin_dir)
                    .status();
                assert!(written.unwrap().success());
            }
            Self(root)
        }

        fn find(&self, cluster: Option<u32>) -> Result<Installation, Error> {
            Installation::find_in(
                &candidates(&self.0, None),
                cluster,
                Path::new("/data/postgres"),
            )
        }
    }

    impl Drop for Fakes {
        fn drop(&mut self) {
            let _removed = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn versions_are_read_in_all_their_forms() {
        for (text, major, version) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                15,
                "15.18",
            ),
            ("postgres (PostgreSQL) 17.2\n", 17, "17.2"),
            ("postgres (PostgreSQL) 18beta1", 18, "18beta1"),
        ] {
            assert_eq!(parse_version(text), Some((major, version.to_owned())));
        }
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn a_new_cluster_gets_the_newest_and_an_old_one_its_own_version() {
        let fakes = Fakes::new(&["9", "16", "15", "100"]);
        assert_eq!(fakes.find(None).unwrap().major, 100);
        assert_eq!(fakes.find(Some(15)).unwrap().major, 15);
    }

    #[test]
    fn another_major_version_is_an_error_that_names_both() {
        let error = Fakes::new(&["16", "17"]).find(Some(15)).unwrap_err();
        assert!(matches!(error, Error::OtherVersion { cluster: 15, .. }));
        let message = error.to_string();
        assert!(
            ["15", "16.4", "17.4", "/data/postgres"]
                .iter()
                .all(|part| message.contains(part)),
            "{message}"
        );
    }

    #[test]
    fn without_a_server_the_error_says_what_to_install() {
        let message = Fakes::new(&[]).find(None).unwrap_err().to_string();
        assert!(
            message.contains("apt-get install postgresql") && message.contains("STOA_DATABASE_URL"),
            "{message}"
        );
        let message = Fakes::new(&["13"]).find(None).unwrap_err().to_string();
        assert!(message.contains("13.4 is too old"), "{message}");
    }

    #[test]
    fn the_path_is_looked_through_last() {
        let fakes = Fakes::new(&["16", "17"]);
        let path = std::env::join_paths([fakes.0.join("17/bin")]).unwrap();
        let found = Installation::find_in(
            &candidates(Path::new("/nowhere"), Some(&path)),
            None,
            Path::new("/x"),
        )
        .unwrap();
        assert_eq!(found.major, 17);
        assert_eq!(
            candidates(&fakes.0, Some(&path)).last().unwrap(),
            &fakes.0.join("17/bin")
        );
    }
}
