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
        let script = self.tests.join(script);
        let mut command = self.command(&script);
        command.arg(input.to_string());
        Self::finish(&script, command)
            .await
            .expect("node and Python are there")
    }

    /// Runs a program of the documentation on a file, by what its extension names; none if the machine has no such thing.
    pub async fn run_file(&self, script: &Path, file: &Path) -> Option<String> {
        let mut command = self.command(script);
        command.arg(file);
        Self::finish(script, command).await
    }

    /// What runs a script, up to its arguments.
    fn command(&self, script: &Path) -> Command {
        let extension = script.extension().and_then(|extension| extension.to_str());
        let mut command = match extension {
            Some("py") => Command::new(self.home.join("venv/bin/python")),
            Some("php") => Command::new("php"),
            Some("go") => {
                let mut command = Command::new("go");
                command.arg("run");
                command
            }
            _ => Command::new(self.home.join("bin/node")),
        };
        command
            .arg(script)
            .env("STOA_TEST_CLIENTS", &self.home)
            .env("AUTHLIB_INSECURE_TRANSPORT", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .kill_on_drop(true);
        command
    }

    /// What a script printed; none if there is no such program.
    async fn finish(script: &Path, mut command: Command) -> Option<String> {
        let script = script.display();
        let output = tokio::time::timeout(SCRIPT_TIMEOUT, command.output())
            .await
            .unwrap_or_else(|_| panic!("{script} took longer than {SCRIPT_TIMEOUT:?}"));
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("{script}: {error}"),
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}:\n{said}\n{complaint}");
        Some(said)
    }

    /// Where pictures of the pages go.
    pub fn screenshots(&self) -> PathBuf {
        self.home.join("screenshots")
    }
}
