//! CPU time of processes, from `/proc`.
//!
//! A server's is that of its own threads. The database's is that of the postmaster and of every process under it, and of those that have ended: whoever
//! waits for a process is charged with its time, and the postmaster waits for all of its own.

use std::{fs, ops::Sub};

use tests::Stoa;

/// Linux counts in hundredths of a second, whatever its timer does.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds that were used up to some moment, or between two.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    /// By the server.
    pub(crate) server: f64,
    /// By PostgreSQL.
    pub(crate) database: f64,
    /// By what is at the other end: this process, which makes the load, or a receiver.
    pub(crate) load: f64,
}

impl Cpu {
    /// What `stoa`, its private PostgreSQL and this process have used until now.
    pub(crate) fn of(stoa: &Stoa) -> Self {
        Self::of_processes(stoa.pid(), stoa.postgres_pid().expect("PostgreSQL runs"))
    }

    /// What one process has used until now, in seconds.
    pub(crate) fn of_process(pid: u32) -> f64 {
        Process::read(pid).unwrap_or_default().own
    }

    /// The same, for a server that is not the one that runs PostgreSQL.
    pub(crate) fn of_processes(server: u32, postmaster: u32) -> Self {
        let read = |pid| Process::read(pid).unwrap_or_default();
        let own = read(server);
        let load = read(std::process::id());
        let main = read(postmaster);
        let backends: f64 = processes()
            .filter(|process| process.parent == postmaster)
            .map(|process| process.own + process.ended_children)
            .sum();
        Self {
            server: own.own,
            database: main.own + main.ended_children + backends,
            load: load.own,
        }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            server: self.server - before.server,
            database: self.database - before.database,
            load: self.load - before.load,
        }
    }
}

#[derive(Debug, Default)]
struct Process {
    parent: u32,
    own: f64,
    ended_children: f64,
}

impl Process {
    /// `None` once it is gone.
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may hold anything, blanks and parentheses too.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let seconds = |place: usize| fields[place].parse::<f64>().unwrap() / TICKS_PER_SECOND;
        Some(Self {
            parent: fields[1].parse().ok()?,
            own: seconds(11) + seconds(12),
            ended_children: seconds(13) + seconds(14),
        })
    }
}

fn processes() -> impl Iterator<Item = Process> {
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read)
}
