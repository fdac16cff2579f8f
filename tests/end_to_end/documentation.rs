//! The documentation is true: its commands are run in their order, what it shows of programs and metrics is what there is, and the tests that it names are
//! there.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tests::{Browser, Person, Receiver, Stoa, StoaOptions, wait_for};

use crate::{STOA, architecture, interop};

fn docs() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("docs")
}

fn document(name: &str) -> String {
    std::fs::read_to_string(docs().join(name)).unwrap()
}

/// The blocks in a language, in their order; those in `sh` are commands.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    let parts = text.split(opening.as_str()).skip(1);
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
        if std::thread::panicking() {
            // The block that ends what another has started was not come to.
            let _ = Command::new("bash")
                .args(["-c", "source ./kept && kill \"$RECEIVER_PID\""])
                .current_dir(&self.directory)
                .output();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_app_developers_work_as_printed() {
    let stoa = Stoa::shared(STOA).await;
    let shell = Shell::new(&stoa);
    let blocks = blocks(&document("oauth.md"), "sh");
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

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_for_receivers_work_as_printed() {
    let stoa = Stoa::shared(STOA).await;
    let shell = Shell::new(&stoa);
    let verify = docs().join("verifying-webhooks/verify.py");
    std::fs::copy(verify, shell.directory.join("verify.py")).unwrap();
    let blocks = blocks(&document("webhooks.md"), "sh");
    assert!(blocks.len() > 15, "{}", blocks.len());
    for block in &blocks {
        shell.run(block, "");
    }
}

#[test]
fn the_listings_for_receivers_are_parts_of_the_programs() {
    let text = document("webhooks.md");
    for (language, file) in [
        ("python", "verify.py"),
        ("js", "verify.mjs"),
        ("go", "verify.go"),
        ("php", "verify.php"),
        ("rust", "verify.rs"),
    ] {
        let program = document(&format!("verifying-webhooks/{file}"));
        let listings = blocks(&text, language);
        assert_eq!(listings.len(), 1, "{language}");
        assert!(
            program.contains(&listings[0]),
            "{file} has no such part:\n{}",
            listings[0]
        );
    }
}

/// The metrics of the operators' table with what each is.
fn explained_metrics() -> BTreeMap<String, String> {
    let text = document("operations.md");
    let (_, section) = text.split_once("\n## Metrics\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.strip_suffix('`')?;
        let kind = cells.next()?.split(',').next()?;
        Some((name.to_owned(), kind.to_owned()))
    });
    rows.collect()
}

/// The metrics of an answer in Prometheus's text format with what each is.
fn served_metrics(text: &str) -> BTreeMap<String, String> {
    let types = text.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    });
    types.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_is_served_is_explained_to_operators_and_no_other() {
    let explained = explained_metrics();
    assert!(explained.len() > 10, "{explained:?}");
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let options = StoaOptions {
        retry_schedule: Some("0".to_owned()),
        arguments: vec!["--metrics-listen".to_owned(), address.to_string()],
        ..StoaOptions::default()
    };
    let stoa = Stoa::start_with(STOA, options).await;
    let client = stoa.client().await;
    let receiver = Receiver::start().await;
    receiver.answer_with(500);
    let (endpoint, _) = client
        .endpoint(Some(receiver.url()), &["product.created"])
        .await;
    let path = format!("/v1/webhook-endpoints/{endpoint}");
    // A metric shows once something is counted: an event is followed, given up on and replayed.
    let mut stream = client.follow(&format!("{path}/events/stream"), None).await;
    stream.begun().await;
    client.product("a", "1.00").await;
    wait_for("the dead letter", async || {
        let letters = client.get(&format!("{path}/dead-letters")).await;
        (letters.expect(200)["data"] != json!([])).then_some(())
    })
    .await;
    let everything_missed = json!({});
    client
        .post(&format!("{path}/replays"), &everything_missed)
        .await
        .expect(202);
    let operator = client.at(&format!("http://{address}"));
    let served = wait_for("as many metrics as are explained", async || {
        let served = served_metrics(&operator.get("/metrics").await.text);
        (served.len() >= explained.len()).then_some(served)
    })
    .await;
    assert_eq!(served, explained);
    drop(stream);
}

#[test]
fn the_tests_that_the_documentation_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let sources: BTreeMap<_, _> = architecture::sources(root).into_iter().collect();
    let text = document("oauth.md");
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
