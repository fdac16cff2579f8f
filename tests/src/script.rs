//! Scripts of the tests: client libraries that are not ours, and journeys in Chromium, in processes of their own.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

/// A script that takes longer hangs.
const SCRIPT_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(3);

/// What `scripts/install-test-clients` has installed.
#[derive(Debug, Clone)]
pub struct TestClients {
    home: PathBuf,
    tests: PathBuf,
}

impl TestClients {
    /// What is installed in the target directory that `binary` is in.
    pub fn of(binary: &str) -> Self {
        let ancestors = Path::new(binary).ancestors();
        let mut homes = ancestors.map(|directory| directory.join("test-clients"));
        let home = homes
            .find(|home| home.join("installed").is_file())
            .expect("scripts/install-test-clients has to run first, as `make test` does");
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).to_owned();
        Self { home, tests }
    }

    /// Runs a script of `tests/` by node or Python to its end, and gives what it printed; fails with that if the script does. It finds `input` as JSON
    /// in its first argument.
    pub async fn run(&self, script: &str, input: &Value) -> String {
        let program = if Path::new(script).extension() == Some("py".as_ref()) {
            self.home.join("venv/bin/python")
        } else {
            self.home.join("bin/node")
        };
        let mut command = Command::new(program);
        command
            .arg(self.tests.join(script))
            .arg(input.to_string())
            .env("STOA_TEST_CLIENTS", &self.home)
            .env("AUTHLIB_INSECURE_TRANSPORT", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .kill_on_drop(true);
        let output = tokio::time::timeout(SCRIPT_TIMEOUT, command.output())
            .await
            .unwrap_or_else(|_| panic!("{script} took longer than {SCRIPT_TIMEOUT:?}"))
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}:\n{said}\n{complaint}");
        said
    }

    /// Where pictures of the pages go.
    pub fn screenshots(&self) -> PathBuf {
        self.home.join("screenshots")
    }
}
