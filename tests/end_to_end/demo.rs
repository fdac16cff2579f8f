//! The demo tells its story to the end, and leaves what other programs need.

use std::process::Command;

use serde_json::Value;
use tests::{ALL_SCOPES, new_key};

use crate::STOA;

#[test]
fn the_demo_shows_every_step_and_exits() {
    let file = std::env::temp_dir().join(format!("stoa-demo-{}.json", new_key()));
    let output = Command::new(STOA)
        .args(["demo", "--once", "--log", "warn", "--json"])
        .arg(&file)
        .output()
        .unwrap();
    let story = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{story}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    std::fs::remove_file(&file).unwrap();
    let text = |name: &str| {
        written[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {written}"))
    };
    assert!(text("base_url").starts_with("http://127.0.0.1:"));
    assert!(text("merchant_id").starts_with("mer_"));
    assert_eq!(
        text("resource"),
        format!("{}/merchants/{}", text("base_url"), text("merchant_id"))
    );
    assert!(text("client_id").starts_with("app_"));
    assert!(!text("client_secret").is_empty());
    assert!(
        text("scope")
            .split(' ')
            .all(|scope| ALL_SCOPES.contains(scope))
    );
    assert!(text("webhook_endpoint_id").starts_with("whe_"));
    assert!(text("webhook_secret").starts_with("whsec_"));
    for name in ["server_pid", "postgres_pid"] {
        let pid = i32::try_from(written[name].as_i64().unwrap()).unwrap();
        let alive = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok();
        assert!(!alive, "{name} outlived the demo");
    }
    for step in [
        "token",
        "catalog",
        "orders",
        "signed webhooks",
        "dead letter",
        "replayed",
    ] {
        assert!(story.to_lowercase().contains(step), "{step} in {story}");
    }
    assert!(
        !story.contains(text("client_secret")),
        "the story is no place for a secret unless it stays up to be used"
    );
}
