//! The rules of the house that no lint knows: who imports whom, where SQL may be, who reads the clock and the environment.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// What each crate may import of ours. Siblings never know one another: what one needs of another arrives as an event or as an argument.
const IMPORTS: &[(&str, &[&str])] = &[
    ("kernel", &[]),
    ("commerce", &["kernel"]),
    ("auth", &["kernel"]),
    ("webhooks", &["kernel"]),
    ("graphql", &["kernel", "commerce"]),
    ("console", &["kernel", "commerce", "auth"]),
    (
        "gateway",
        &[
            "kernel", "commerce", "auth", "webhooks", "graphql", "console",
        ],
    ),
    ("tests", &[]),
    ("bench", &["gateway", "kernel", "tests"]),
];

/// Where statements are, beside `store.rs`, and why.
const STATEMENTS_ELSEWHERE: &[(&str, &str)] = &[
    ("kernel/src/db.rs", "enters a merchant, pings, and notifies"),
    (
        "kernel/src/migration.rs",
        "runs the migrations, and makes partitions",
    ),
    (
        "kernel/src/test_database.rs",
        "clones the databases of tests",
    ),
    (
        "gateway/src/private_postgres/bootstrap.rs",
        "makes the roles and the database of a new cluster",
    ),
];

/// Lines of a file at most: longer ones are about more than one subject.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every source file of every crate below `root`, by its path from there.
pub(crate) fn sources(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = IMPORTS.iter().map(|(name, _)| root.join(name)).collect();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 100, "the sources are found");
    found
}

/// Files of what is shipped: neither tests nor benchmarks.
fn shipped() -> impl Iterator<Item = (String, String)> {
    let aside = |name: &str| {
        name.starts_with("tests/")
            || name.starts_with("bench/")
            || name.contains("/tests/")
            || name.ends_with("/tests.rs")
    };
    sources(&root())
        .into_iter()
        .filter(move |(name, _)| !aside(name))
}

/// The lines of a file that are code: not comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
}

/// Fails unless `is_there` holds only for lines of the files that `is_allowed` names.
fn assert_only_in(what: &str, is_there: impl Fn(&str) -> bool, is_allowed: impl Fn(&str) -> bool) {
    let mut places = Vec::new();
    let mut allowed = 0;
    for (name, text) in shipped() {
        for line in code(&text).filter(|line| is_there(line)) {
            if is_allowed(&name) {
                allowed += 1;
            } else {
                places.push(format!("{name}: {line}"));
            }
        }
    }
    assert!(places.is_empty(), "{what}: {places:#?}");
    assert!(
        allowed > 0,
        "{what}: found nowhere, so the test looks for the wrong words"
    );
}

#[test]
fn crates_import_only_what_lies_below_them() {
    let names: Vec<&str> = IMPORTS.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in IMPORTS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest
            .split("\n[")
            .find_map(|section| section.strip_prefix("dependencies]"))
            .unwrap();
        let imported = dependencies
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|word| names.contains(word));
        for import in imported {
            assert!(allowed.contains(&import), "{name} must not import {import}");
        }
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = workspace
        .lines()
        .find(|line| line.starts_with("members"))
        .unwrap();
    assert_eq!(
        members.matches('"').count() / 2,
        IMPORTS.len(),
        "a new crate needs its line in IMPORTS"
    );
}

#[test]
fn statements_are_in_stores_alone() {
    let words = [
        "sqlx::query",
        "sqlx::raw_sql",
        "AssertSqlSafe",
        "query!(",
        "query_as!(",
        "query_scalar!(",
    ];
    assert_only_in(
        "SQL belongs into store.rs",
        |line| words.iter().any(|word| line.contains(word)),
        |name| {
            name.ends_with("/store.rs")
                || STATEMENTS_ELSEWHERE
                    .iter()
                    .any(|(allowed, _)| name == *allowed)
        },
    );
    for (name, _) in STATEMENTS_ELSEWHERE {
        assert!(
            root().join(name).is_file(),
            "{name} is gone: take it out of STATEMENTS_ELSEWHERE"
        );
    }
}

#[test]
fn every_statement_of_a_store_says_its_columns() {
    for (name, text) in shipped().filter(|(name, _)| name.ends_with("/store.rs")) {
        let stars =
            code(&text).filter(|line| line.contains("select *") || line.contains("returning *"));
        assert_eq!(stars.collect::<Vec<_>>(), [""; 0], "{name}");
    }
}

#[test]
fn apalis_is_known_to_the_worker_and_its_backend_alone() {
    assert_only_in(
        "apalis",
        |line| line.contains("apalis"),
        |name| ["webhooks/src/worker.rs", "webhooks/src/worker/backend.rs"].contains(&name),
    );
}

#[test]
fn the_clock_is_read_in_one_place() {
    let words = ["Utc::now", "SystemTime::now", "Local::now"];
    assert_only_in(
        "the clock",
        |line| words.iter().any(|word| line.contains(word)),
        |name| name == "kernel/src/clock.rs",
    );
}

#[test]
fn the_environment_is_read_by_the_configuration_alone() {
    let words = ["env::var", "env::vars", "env::var_os"];
    assert_only_in(
        "the environment",
        |line| words.iter().any(|word| line.contains(word)),
        |name| ["gateway/src/config.rs", "kernel/src/test_database.rs"].contains(&name),
    );
}

#[test]
fn files_are_short_and_modules_are_named_after_themselves() {
    for (name, text) in sources(&root()) {
        assert!(
            text.lines().count() <= LINES_MAX,
            "{name} has {} lines",
            text.lines().count()
        );
        assert!(!name.ends_with("/mod.rs"), "{name}");
        let is_of_tests = name.contains("/tests/") || name.ends_with("/tests.rs");
        assert!(
            text.starts_with("//!") || is_of_tests,
            "{name} must open with what it is"
        );
        let is_vague = |part: &str| {
            ["util", "utils", "common", "helpers", "manager", "types"]
                .contains(&part.trim_end_matches(".rs"))
        };
        assert!(
            !name.split('/').any(is_vague),
            "{name} has a name that says nothing"
        );
    }
}

#[test]
fn scripts_can_be_run_and_stop_at_errors() {
    let mut scripts: Vec<PathBuf> = fs::read_dir(root().join("scripts"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    scripts.push(root().join(".ci/run"));
    for script in scripts {
        let mode = fs::metadata(&script).unwrap().permissions().mode();
        assert_eq!(
            mode & 0o111,
            0o111,
            "{} is not executable",
            script.display()
        );
        let text = fs::read_to_string(&script).unwrap();
        assert!(
            text.starts_with("#!") && text.contains("set -euo pipefail"),
            "{}",
            script.display()
        );
    }
}

/// The committed document; that it is fresh is checked by `make check`.
fn document() -> Value {
    serde_json::from_str(&fs::read_to_string(root().join("openapi/stoa.json")).unwrap()).unwrap()
}

#[test]
fn every_event_that_the_code_appends_is_described_and_no_other() {
    // A type is one of these resources, a dot and a word.
    let nouns = [
        "product",
        "variant",
        "catalog",
        "inventory",
        "order",
        "fulfillment",
        "grant",
        "webhook_endpoint",
        "event",
    ];
    // What only shows what others do appends nothing, and names acts of the audit log.
    let is_coat = |name: &str| name.starts_with("gateway/") || name.starts_with("console/");
    let mut appended: BTreeSet<String> = ["ping".to_owned()].into();
    for (_, text) in shipped().filter(|(name, _)| !is_coat(name)) {
        // What follows are unit tests.
        let text = text.split("#[cfg(test)]").next().unwrap();
        // Operations and what the audit log calls acts have names of the same form.
        let others = ["const NAME", "schema(", "NewEntry::"];
        for line in code(text).filter(|line| !others.iter().any(|other| line.contains(other))) {
            for quoted in line.split('"').skip(1).step_by(2) {
                let past =
                    |verb: &str| verb.ends_with("ed") || ["expiring", "failing"].contains(&verb);
                if quoted
                    .split_once('.')
                    .is_some_and(|(noun, verb)| nouns.contains(&noun) && past(verb))
                {
                    appended.insert(quoted.to_owned());
                }
            }
        }
    }
    appended.extend(["event.withheld".to_owned()]);
    let document = document();
    let described: BTreeSet<String> = document["webhooks"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(described, appended);
}

#[test]
fn every_body_in_the_document_has_an_example() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut bodies = 0;
    for section in ["paths", "webhooks"] {
        let operations = document[section]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values());
        for operation in operations {
            let responses = operation["responses"].as_object().unwrap().values();
            for content in responses
                .chain([&operation["requestBody"]])
                .filter_map(|part| part["content"].as_object())
            {
                for (media_type, media) in content {
                    let has_example = !media["example"].is_null()
                        || media["examples"]
                            .as_object()
                            .is_some_and(|examples| !examples.is_empty());
                    assert!(
                        has_example,
                        "{} {media_type} has no example",
                        operation["operationId"]
                    );
                    bodies += 1;
                }
            }
        }
    }
    assert!(bodies > 100, "{bodies} bodies");
}
