//! What whoever runs an installation does by the command line, beside a running server, and where it is written down.

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Client, Stoa, wait_for};

use crate::STOA;

const PASSWORD: &str = "a lantern under seven elms";

fn ids(list: &Value) -> HashSet<&str> {
    let rows = list.as_array().unwrap().iter();
    rows.filter_map(|row| row["id"].as_str()).collect()
}

fn actions(log: &Value) -> Vec<&str> {
    let entries = log.as_array().unwrap().iter();
    entries
        .filter_map(|entry| entry["action"].as_str())
        .collect()
}

/// The key ids that are published.
async fn published(client: &Client) -> HashSet<String> {
    let set = client.get("/.well-known/jwks.json").await.expect(200);
    let keys = set["keys"].as_array().unwrap().iter();
    keys.map(|key| key["kid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn merchants_apps_and_grants_are_made_listed_and_shown() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    assert!(ids(&stoa.command(&["merchant", "list", "--json"])).contains(merchant.as_str()));
    let shown = stoa.command(&["merchant", "show", "--merchant", &merchant, "--json"]);
    assert_eq!(shown["name"], "Test");
    let app = stoa.command(&[
        "app",
        "create",
        "--json",
        "--name",
        "Parcel Desk",
        "--public",
        "--redirect-uri",
        "https://parcel-desk.example/callback",
        "--redirect-uri",
        "http://127.0.0.1/callback",
        "--scope",
        "orders:read fulfillments:write",
        "--required-scope",
        "orders:read",
        "--homepage",
        "https://parcel-desk.example",
    ]);
    assert!(
        app["clientSecret"].is_null(),
        "a public client has none: {app}"
    );
    let id = app["clientId"].as_str().unwrap();
    assert!(ids(&stoa.command(&["app", "list", "--json"])).contains(id));
    let shown = stoa.command(&["app", "show", "--app", id, "--json"]);
    assert_eq!(shown["kind"], "public");
    assert_eq!(shown["redirectUris"].as_array().unwrap().len(), 2);
    assert_eq!(shown["requiredScopes"], json!(["orders:read"]));
    assert_eq!(shown["homepageUrl"], "https://parcel-desk.example");
    let refused = stoa.run(&["app", "create", "--name", "x", "--public"]);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("at least one"),
        "{refused:?}"
    );

    let grant = stoa.grant(&merchant, id, "orders:read", &[]);
    stoa.grant(&merchant, id, "orders:read", &[]);
    stoa.grant(&merchant, id, "fulfillments:write orders:read", &[]);
    let grant = grant["id"].as_str().unwrap();
    let of = ["--merchant", &merchant, "--json"];
    let listed = stoa.command(&[&["grant", "list"][..], &of].concat());
    assert_eq!(listed[0]["app"]["name"], "Parcel Desk");
    assert_eq!(listed[0]["grant"]["id"], grant);
    let shown = stoa.command(&[&["grant", "show", "--grant", grant][..], &of].concat());
    assert_eq!(shown, listed[0]);
    stoa.command(&[&["grant", "revoke", "--grant", grant][..], &of].concat());
    let log = stoa.command(&[&["audit"][..], &of].concat());
    assert_eq!(
        actions(&log),
        [
            "merchant.created",
            "grant.consented",
            "grant.changed",
            "grant.revoked"
        ],
        "what changes nothing is no act"
    );
    assert_eq!(log[3]["targetId"], grant);
    assert!(log[3]["personId"].is_null() && log[3]["address"].is_null());
    // For people it is a table.
    let table = stoa.run(&["grant", "list", "--merchant", &merchant]);
    let table = String::from_utf8(table.stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[0].starts_with("id ") && lines[1].contains("Parcel Desk"),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_secret_is_replaced_with_overlap_or_at_once() {
    let stoa = Stoa::shared(STOA).await;
    let client = stoa.client().await;
    let id = client.credentials.client_id.clone();
    let rotate = |overlap: &str| {
        let made = [
            "app",
            "rotate-secret",
            "--app",
            &id,
            "--overlap",
            overlap,
            "--json",
        ];
        let mut next = client.clone();
        next.credentials.client_secret = stoa.command(&made)["clientSecret"]
            .as_str()
            .unwrap()
            .to_owned();
        next
    };
    let second = rotate("day");
    client.refresh().await;
    second.refresh().await;
    let third = rotate("now");
    third.refresh().await;
    for old in [&client, &second] {
        assert_eq!(old.request_token(&[]).await.status, 401);
    }
    let log = stoa.command(&["audit", "--app", &id, "--json"]);
    // The refused clients are there too.
    assert_eq!(
        actions(&log)[..3],
        ["app.created", "app_secret.created", "app_secret.created"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_invited_made_disabled_and_enabled() {
    let stoa = Stoa::shared(STOA).await;
    let merchant = stoa.merchant();
    let invited = stoa.command(&[
        "person",
        "invite",
        "--merchant",
        &merchant,
        "--role",
        "owner",
        "--label",
        "Ada",
        "--public-url",
        "https://stoa.example",
        "--json",
    ]);
    let link = invited["link"].as_str().unwrap();
    let token = link
        .strip_prefix("https://stoa.example/console/invitations/")
        .unwrap();
    assert!(token.len() >= 43, "{link}");
    for wrong in [
        &["person", "invite"][..],
        &["person", "invite", "--merchant", &merchant],
        &[
            "person",
            "invite",
            "--merchant",
            &merchant,
            "--role",
            "king",
        ],
        &["person", "invite", "--operator", "--developer"],
    ] {
        assert_eq!(stoa.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let login = format!("ada-{}", uuid::Uuid::now_v7().simple());
    let create = [
        "person",
        "create",
        "--login",
        &login,
        "--name",
        "Ada",
        "--merchant",
        &merchant,
        "--role",
        "manager",
        "--json",
    ];
    let person = stoa.command_with(PASSWORD, &create);
    let weak = stoa.run_with(
        "password",
        &["person", "create", "--login", "b", "--name", "B"],
    );
    assert!(!weak.status.success());
    let id = person["id"].as_str().unwrap();
    let find = || {
        let everybody = stoa.command(&["person", "list", "--json"]);
        let mut rows = everybody.as_array().unwrap().iter();
        rows.find(|row| row["id"] == id).unwrap().clone()
    };
    assert_eq!(
        (&find()["login"], &find()["merchants"]),
        (&json!(login), &json!(1))
    );
    stoa.command(&["person", "disable", "--person", id, "--json"]);
    assert!(find()["disabledAt"].is_string());
    stoa.command(&["person", "enable", "--person", id, "--json"]);
    assert!(find()["disabledAt"].is_null());
    stoa.command_with(
        PASSWORD,
        &["person", "reset-password", "--login", &login, "--json"],
    );
    let operator = format!("op-{}", uuid::Uuid::now_v7().simple());
    let create = [
        "person",
        "create",
        "--login",
        &operator,
        "--name",
        "Op",
        "--operator",
        "--json",
    ];
    assert_eq!(stoa.command_with(PASSWORD, &create)["isOperator"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_keys_are_rotated_by_hand_beside_a_running_server() {
    // A server of its own: tokens of others would be refused.
    let stoa = Stoa::start(STOA).await;
    let second = stoa.start_beside().await;
    let client = stoa.client().await;
    let elsewhere = client.at(&second.base_url());
    let first = published(&client).await;
    assert_eq!(first.len(), 1);
    let keys = stoa.command(&["signing-key", "rotate", "--json"]);
    assert_eq!(
        (&keys[0]["state"], &keys[1]["state"]),
        (&json!("upcoming"), &json!("signing"))
    );
    for process in [&client, &elsewhere] {
        wait_for("the successor to be published", async || {
            (published(process).await.len() == 2).then_some(())
        })
        .await;
        process.get("/v1/orders").await.expect(200);
    }
    let old = client.token();
    let keys = stoa.command(&["signing-key", "rotate", "--now", "--json"]);
    let signing: Vec<_> = keys
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["state"] != "retired")
        .collect();
    assert_eq!(signing.len(), 1, "{keys}");
    let kid = signing[0]["kid"].as_str().unwrap();
    for process in [&client, &elsewhere] {
        wait_for("the new key to be the only one", async || {
            (published(process).await == HashSet::from([kid.to_owned()])).then_some(())
        })
        .await;
        assert_eq!(process.get("/v1/orders").await.status, 401);
    }
    assert_eq!(client.token(), old);
    client.refresh().await;
    for process in [&client, &elsewhere] {
        process.get("/v1/orders").await.expect(200);
    }
    let log = stoa.command(&["audit", "--json"]);
    let told: HashSet<_> = actions(&log).into_iter().collect();
    for action in [
        "signing_key.created",
        "signing_key.rotated",
        "signing_key.retired",
    ] {
        assert!(told.contains(action), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merchants_audit_log_is_read_by_the_api_page_by_page() {
    let stoa = Stoa::shared(STOA).await;
    let owner = stoa.client().await;
    let merchant = &owner.credentials.merchant;
    let app = stoa.client_of(merchant, "orders:read", &[]).await;
    stoa.revoke(&app);
    let others = stoa.client().await;
    let mut seen = Vec::new();
    let mut path = "/v1/audit-entries?limit=2".to_owned();
    loop {
        let page = owner.get(&path).await.expect(200);
        seen.extend(page["data"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/v1/audit-entries?limit=2&cursor={cursor}");
    }
    let newest_first: Vec<_> = seen
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        newest_first,
        [
            "grant.revoked",
            "grant.consented",
            "grant.consented",
            "merchant.created"
        ]
    );
    assert_eq!(seen[0]["targetId"], app.credentials.grant.as_str());
    let theirs = others.get("/v1/audit-entries").await.expect(200);
    assert_eq!(theirs["data"].as_array().unwrap().len(), 2, "{theirs}");
    let nobody = "per_01jd3x5k8vfm7b2c9q0r4t6w8y";
    let none = owner
        .get(&format!("/v1/audit-entries?personId={nobody}"))
        .await
        .expect(200);
    assert_eq!(none["data"], json!([]));
    assert_eq!(
        owner.get("/v1/audit-entries?personId=ada").await.status,
        422
    );
    let narrow = stoa.client_of(merchant, "orders:write", &[]).await;
    assert_eq!(
        narrow.get("/v1/audit-entries").await.slug(),
        "insufficient_scope"
    );
}
