//! Resident memory of a process, from `/proc`.

use std::fs;

/// Megabytes that a process has in memory, and the most that it ever had or had since [`forget`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident_mb: f64,
    pub(crate) peak_mb: f64,
}

impl Memory {
    /// Of this process now.
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
            kilobytes.unwrap().trim().parse::<f64>().unwrap() / 1_024.0
        };
        Self {
            resident_mb: megabytes("VmRSS:"),
            peak_mb: megabytes("VmHWM:"),
        }
    }
}

/// Forgets a process's peak.
pub(crate) fn forget(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}
