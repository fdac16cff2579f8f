//! `stoa login`: a person allows the command line something in the browser, and the commands use that until it ends.

use std::{
    io::{BufRead, BufReader, Lines, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use serde_json::{Value, json};
use tests::{Browser, Person, Stoa, wait_for};

use crate::STOA;

/// A place for logins, removed when dropped.
struct Desk {
    url: String,
    directory: PathBuf,
}

impl Desk {
    fn at(stoa: &Stoa) -> Self {
        let directory = std::env::temp_dir().join(format!("stoa-login-{}", tests::new_key()));
        Self {
            url: stoa.base_url(),
            directory,
        }
    }

    fn credentials(&self) -> PathBuf {
        self.directory.join("stoa/credentials.json")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(STOA);
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", &self.directory)
            .env_remove("STOA_CLIENT_ID")
            .env_remove("STOA_CLIENT_SECRET")
            .env_remove("STOA_RESOURCE")
            .env_remove("STOA_URL")
            .env_remove("STOA_CREDENTIALS")
            .env_remove("DISPLAY")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command prints.
    #[track_caller]
    fn said(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command complains of.
    #[track_caller]
    fn complained(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The same of one that works until the server has heard what ends it.
    async fn complained_at_last(&self, arguments: &[&str]) -> String {
        wait_for("the end of the access", async || {
            let output = self.run(arguments);
            (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
        })
        .await
    }

    fn begin(&self, arguments: &[&str]) -> Login {
        let mut all = vec!["login", "--url", &self.url];
        all.extend(arguments);
        let mut child = self.command(&all).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.trim().starts_with("http"))
            .unwrap();
        Login {
            child,
            lines,
            address: address.trim().to_owned(),
        }
    }

    /// Logs in as `person` allows it.
    async fn log_in(&self, person: &Person, arguments: &[&str]) -> String {
        let login = self.begin(arguments);
        let browser = Browser::at(&self.url);
        let back = person.consent(&browser, &login.address, |form| form).await;
        let (status, page) = bring(back.as_str()).await;
        assert_eq!(status, 200, "{page}");
        assert!(page.contains("You are logged in"), "{page}");
        let (succeeded, said) = login.end();
        assert!(succeeded, "{said}");
        said
    }

    /// The logins as they are kept.
    fn kept(&self) -> Value {
        let text = std::fs::read_to_string(self.credentials()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Makes the access tokens of the file end now, as they would after ten minutes.
    fn let_tokens_end(&self) {
        let mut kept = self.kept();
        for login in kept["logins"].as_array_mut().unwrap() {
            login["accessTokenExpiresAt"] = json!("2026-01-01T00:00:00Z");
        }
        std::fs::write(self.credentials(), kept.to_string()).unwrap();
    }

    fn catalog(&self, rows: usize) -> PathBuf {
        std::fs::create_dir_all(&self.directory).unwrap();
        let path = self.directory.join("catalog.ndjson");
        let row = |number| {
            let price = json!({"amount": "4.00", "currency": "EUR"});
            json!({"externalId": format!("MUG-{number}"), "title": "Mug", "variants": [{"price": price}]})
        };
        let lines: Vec<String> = (0..rows).map(|number| row(number).to_string()).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        path
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A `stoa login` that waits for its answer.
struct Login {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Login {
    /// Whether it succeeded, and what it said.
    fn end(mut self) -> (bool, String) {
        let mut said: String = self
            .lines
            .by_ref()
            .map(|line| line.unwrap() + "\n")
            .collect();
        let mut errors = self.child.stderr.take().unwrap();
        errors.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().success(), said)
    }
}

/// Brings an answer to where the browser is sent.
async fn bring(address: &str) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(address).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_logs_in_and_the_commands_use_it_until_it_is_given_back() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    let owner = stoa.person(&merchant, "owner");
    let desk = Desk::at(&stoa);
    let catalog = desk.catalog(3);
    let import = ["import", catalog.to_str().unwrap()];
    assert!(desk.complained(&import).contains("run `stoa login`"));

    let said = desk.log_in(&owner, &["--no-browser"]).await;
    assert!(
        said.contains(&merchant) && said.contains("catalog:write"),
        "{said}"
    );
    assert_eq!(mode(&desk.credentials()), 0o600);
    assert_eq!(mode(desk.credentials().parent().unwrap()), 0o700);
    assert!(desk.said(&import).contains("3 rows"));

    let told: Value = serde_json::from_str(&desk.said(&["whoami", "--json"])).unwrap();
    assert_eq!(told[0]["merchantId"], *merchant);
    assert_eq!(told[0]["scope"], "catalog:write");

    // What it kept is worth nothing once it was given back.
    let kept = desk.kept();
    assert!(desk.said(&["logout"]).contains(&merchant));
    assert_eq!(desk.kept()["logins"], json!([]));
    assert!(desk.complained(&["whoami"]).contains("not logged in"));
    std::fs::write(desk.credentials(), kept.to_string()).unwrap();
    let complaint = desk.complained_at_last(&import).await;
    assert!(complaint.contains("has ended"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_refresh_at_once_do_not_lock_each_other_out() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    let desk = Desk::at(&stoa);
    desk.log_in(&stoa.person(&merchant, "owner"), &["--no-browser"])
        .await;
    let catalog = desk.catalog(1);
    for _ in 0..3 {
        desk.let_tokens_end();
        let commands: Vec<Child> = (0..6)
            .map(|_| {
                let mut command = desk.command(&["import", catalog.to_str().unwrap()]);
                command.spawn().unwrap()
            })
            .collect();
        for command in commands {
            let output = command.wait_with_output().unwrap();
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{complaint}");
        }
    }
    desk.said(&["whoami"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_whose_successor_was_never_written_down_goes_on() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    let desk = Desk::at(&stoa);
    desk.log_in(&stoa.person(&merchant, "owner"), &["--no-browser"])
        .await;
    let before = desk.kept();
    desk.said(&["whoami"]);
    let after = desk.kept();
    assert_ne!(
        before["logins"][0]["refreshToken"],
        after["logins"][0]["refreshToken"]
    );
    // As a crash between the server's answer and the file leaves it.
    std::fs::write(desk.credentials(), before.to_string()).unwrap();
    desk.said(&["whoami"]);
    let healed = desk.kept();
    assert_eq!(
        healed["logins"][0]["refreshToken"],
        after["logins"][0]["refreshToken"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchant_who_says_no_or_takes_it_back_is_heard() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    let owner = stoa.person(&merchant, "owner");
    let desk = Desk::at(&stoa);

    let login = desk.begin(&["--no-browser", "--merchant", &merchant]);
    let browser = Browser::at(&stoa.base_url());
    let page = owner.consent_page(&browser, &login.address).await;
    let cancels = |form: &tests::Form| {
        let mut controls = form.controls.iter();
        controls.any(|control| control.name == "decision" && control.value == "cancel")
    };
    let cancel = page.forms().into_iter().find(cancels).unwrap();
    let back = browser.submit(&cancel).await.left_for();
    let (status, page) = bring(back.as_str()).await;
    assert_eq!(status, 400);
    assert!(page.contains("You are not logged in"), "{page}");
    let (succeeded, said) = login.end();
    assert!(!succeeded && said.contains("access_denied"), "{said}");
    assert!(!desk.credentials().exists());

    desk.log_in(&owner, &["--no-browser", "--merchant", &merchant])
        .await;
    let grants = stoa.command(&["grant", "list", "--merchant", &merchant, "--json"]);
    let grant = grants[0]["grant"]["id"].as_str().unwrap();
    let end = ["grant", "revoke", "--merchant", &merchant, "--grant", grant];
    assert!(stoa.run(&end).status.success());
    let catalog = desk.catalog(1);
    let import = ["import", catalog.to_str().unwrap()];
    let complaint = desk.complained_at_last(&import).await;
    assert!(complaint.contains("Run `stoa login"), "{complaint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_others_can_read_is_refused() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    let desk = Desk::at(&stoa);
    desk.log_in(&stoa.person(&merchant, "owner"), &["--no-browser"])
        .await;
    std::fs::set_permissions(desk.credentials(), std::fs::Permissions::from_mode(0o644)).unwrap();
    for arguments in [&["whoami"][..], &["logout"], &["login", "--url", &desk.url]] {
        let complaint = desk.complained(arguments);
        assert!(complaint.contains("chmod 600"), "{complaint}");
    }
}
