//! The documentation for app developers is true: its commands are run in their order, and the tests that it names are there.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;
use tests::{Browser, Person, Stoa};

use crate::{STOA, architecture, interop};

fn document() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::fs::read_to_string(root.join("docs/oauth.md")).unwrap()
}

/// The blocks of commands, in their order.
fn blocks(text: &str) -> Vec<String> {
    let parts = text.split("```sh\n").skip(1);
    parts
        .map(|part| part.split("\n```").next().unwrap().to_owned())
        .collect()
}

/// A shell whose variables and functions outlive each block.
struct Shell {
    directory: PathBuf,
    /// The directory of the binary.
    programs: String,
    url: String,
    data_dir: PathBuf,
}

impl Shell {
    fn new(stoa: &Stoa) -> Self {
        let directory = std::env::temp_dir().join(format!("stoa-docs-{}", tests::new_key()));
        std::fs::create_dir_all(&directory).unwrap();
        let own = Path::new(STOA).parent().unwrap().to_str().unwrap();
        Self {
            directory,
            programs: own.to_owned(),
            url: stoa.base_url(),
            data_dir: stoa.data_dir().to_owned(),
        }
    }

    /// Runs a block with `typed` as what a person types. It must succeed, and every variable that it sets must have a value.
    fn run(&self, block: &str, typed: &str) {
        let script = format!(
            "set -euo pipefail\nPATH={}:$PATH\n[ ! -e kept ] || source ./kept\nset -a\n{block}\nset +a\n\
             {{ declare -f; export -p; }} > kept\n",
            self.programs
        );
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&self.directory)
            .env("STOA_URL", &self.url)
            .env("STOA_DATA_DIR", &self.data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{typed}").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{block}\n{said}\n{complaint}");
        for line in block.lines() {
            let name = line.split('=').next().unwrap_or_default();
            let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if line.contains('=') && is_name && !name.is_empty() {
                assert!(
                    !self.variable(name).is_empty(),
                    "{name} is empty after\n{block}\n{said}\n{complaint}"
                );
            }
        }
    }

    fn variable(&self, name: &str) -> String {
        let script = format!("source ./kept; printf '%s' \"${{{name}-}}\"");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(&self.directory)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_app_developers_work_as_printed() {
    let stoa = Stoa::shared(STOA).await;
    let shell = Shell::new(&stoa);
    let blocks = blocks(&document());
    assert!(blocks.len() > 15, "{}", blocks.len());
    for block in &blocks {
        let typed = if block.contains(" CALLBACK") {
            let owner = Person {
                id: String::new(),
                login: shell.variable("OWNER_LOGIN"),
                password: shell.variable("OWNER_PASSWORD"),
            };
            let browser = Browser::at(&stoa.base_url());
            let request = shell.variable("AUTHORIZE_URL");
            let back = owner.consent(&browser, &request, |form| form).await;
            back.to_string()
        } else if block.contains(" KEY_CLIENT_ID") && block.contains("read ") {
            let jwk: Value = serde_json::from_str(&shell.variable("PUBLIC_JWK")).unwrap();
            interop::app_with_key(&stoa, &jwk).await
        } else {
            String::new()
        };
        shell.run(block, &typed);
    }
}

#[test]
fn the_tests_that_the_documentation_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources: BTreeMap<_, _> = architecture::sources(root).into_iter().collect();
    let text = document();
    let table = text.split("## What is held").nth(1).unwrap();
    let names: Vec<&str> = table
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.matches('_').count() >= 4 && !name.contains(' '))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let definition = format!("fn {name}(");
        let is_there = sources.values().any(|source| source.contains(&definition));
        assert!(is_there, "docs/oauth.md names {name}");
    }
}
