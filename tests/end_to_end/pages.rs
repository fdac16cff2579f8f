//! The pages in a real browser: journeys of people in headless Chromium, by mouse and by keyboard, and a look at every page.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use reqwest::Url;
use serde_json::{Value, json};
use tests::{ALL_SCOPES, Stoa, StoaOptions, TestClients};

use crate::STOA;

/// Where an app is answered whose requests are looked at, and go no further.
const REDIRECT_URI: &str = "https://parcel-desk.example/callback";

/// Where an app is answered that the browser comes back to: on whatever port it listens.
const LOOPBACK_REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// Any verifier of PKCE, and its challenge (RFC 7636, appendix B).
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// What people are shown is on `localhost`, because passkeys belong to a name. Shared while any journey runs.
async fn stoa() -> Arc<Stoa> {
    static SHARED: tokio::sync::Mutex<Weak<Stoa>> = tokio::sync::Mutex::const_new(Weak::new());
    let mut shared = SHARED.lock().await;
    if let Some(stoa) = shared.upgrade() {
        return stoa;
    }
    let options = StoaOptions {
        is_localhost: true,
        ..StoaOptions::default()
    };
    let stoa = Arc::new(Stoa::start_with(STOA, options).await);
    *shared = Arc::downgrade(&stoa);
    stoa
}

/// Runs a journey of `tests/browser`, and gives what it prints.
async fn journey(name: &str, input: &Value) -> Value {
    let script = format!("browser/{name}.mjs");
    let said = TestClients::of(STOA).run(&script, input).await;
    serde_json::from_str(&said).unwrap_or_default()
}

/// The address at which `app` asks for `scope`.
fn request(stoa: &Stoa, app: &Value, redirect_uri: &str, scope: &str, state: &str) -> String {
    let mut url = Url::parse(&stoa.base_url())
        .unwrap()
        .join("/oauth/authorize")
        .unwrap();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", app["clientId"].as_str().unwrap())
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("scope", scope)
        .append_pair("state", state)
        .append_pair("code_challenge", CHALLENGE)
        .append_pair("code_challenge_method", "S256");
    url.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journey_of_consent_needs_no_mouse() {
    let stoa = stoa().await;
    let merchant = stoa.merchant();
    let person = stoa.person(&merchant, "owner");
    let app = stoa.app_with(&["--redirect-uri", LOOPBACK_REDIRECT_URI]);
    let scope = "orders:read fulfillments:write orders.pii:read";
    let request = |state| request(&stoa, &app, LOOPBACK_REDIRECT_URI, scope, state);
    let input = json!({
        "request": request("first"),
        "again": request("second"),
        "person": person,
        "scope": "Ship orders",
    });
    let said = journey("consent_by_keyboard", &input).await;

    // What the app is given is what was left ticked, until the end that was chosen.
    let answer = Url::parse(said["answer"].as_str().unwrap()).unwrap();
    let parameters: HashMap<_, _> = answer.query_pairs().into_owned().collect();
    assert_eq!(parameters["iss"], stoa.base_url());
    assert_eq!(parameters["state"], "first");
    let mut redirect_uri = answer.clone();
    redirect_uri.set_query(None);
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &parameters["code"]),
        ("redirect_uri", redirect_uri.as_str()),
        ("code_verifier", VERIFIER),
    ];
    let id = app["clientId"].as_str().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let tokens = http
        .post(format!("{}/oauth/token", stoa.base_url()))
        .basic_auth(id, app["clientSecret"].as_str())
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(tokens.status(), 200);
    let tokens: Value = tokens.json().await.unwrap();
    let scopes: HashSet<&str> = tokens["scope"].as_str().unwrap().split(' ').collect();
    assert_eq!(scopes, HashSet::from(["orders:read", "orders.pii:read"]));
    let refusal = said["refusal"].as_str().unwrap();
    assert!(refusal.contains("state=second"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_set_up_and_asked_for() {
    let stoa = stoa().await;
    let person = stoa.person(&stoa.merchant(), "owner");
    let input = json!({"issuer": stoa.base_url(), "person": person});
    journey("second_factor", &input).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_added_and_signs_in() {
    let stoa = stoa().await;
    let person = stoa.person(&stoa.merchant(), "owner");
    let input = json!({"issuer": stoa.base_url(), "person": person});
    journey("passkey", &input).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_can_be_read_by_everybody_on_every_screen() {
    let stoa = stoa().await;
    let merchant = stoa.merchant();
    let client = stoa.client_of(&merchant, ALL_SCOPES, &[]).await;
    for name in [
        "Harbour store",
        "Warehouse at the old grain elevator on the northern quay",
    ] {
        client.location(name).await;
    }
    let plain = stoa.app_with(&["--redirect-uri", REDIRECT_URI]);
    let long = "The International Company for Parcels, Pallets and Everything Between, Continental Division";
    let long = stoa.app_named(
        long,
        &[
            "--redirect-uri",
            REDIRECT_URI,
            "--homepage",
            "https://parcel-desk.example",
            "--required-scope",
            "orders:read",
        ],
    );
    let expires_at = ["--expires-at", "2999-12-31T00:00:00Z"];
    stoa.grant(
        &merchant,
        long["clientId"].as_str().unwrap(),
        "orders:read",
        &expires_at,
    );

    let asks = |app, scope| request(&stoa, app, REDIRECT_URI, scope, "x");
    let state = |person: &str, name: &str, path: String| json!({"person": person, "name": name, "path": path});
    let invitation = stoa.command(&[
        "person",
        "invite",
        "--merchant",
        &merchant,
        "--role",
        "manager",
        "--label",
        "Robin",
        "--json",
        "--public-url",
        &stoa.base_url(),
    ]);
    let input = json!({
        "issuer": stoa.base_url(),
        "outside": {
            "sign-in": "/console/sign-in",
            "invitation": invitation["link"],
            "invitation-unknown": "/console/invitations/nobody-made-this-one",
            "request-of-nobody": "/oauth/authorize?client_id=app_00000000000000000000000000",
            "request-elsewhere": asks(&plain, "orders:read").replace("parcel-desk.example", "elsewhere.example"),
            "no-page": "/console/no-such-page",
        },
        "persons": {
            "owner": stoa.person(&merchant, "owner"),
            "viewer": stoa.person(&merchant, "viewer"),
            "operator": stoa.person_with(&["--operator", "--developer"]),
        },
        "states": [
            state("owner", "consent-many-scopes", asks(&plain, ALL_SCOPES)),
            state("owner", "consent-more", asks(&long, "orders:read fulfillments:write orders.pii:read")),
            state("owner", "consent-nothing-new", asks(&long, "orders:read")),
            state("owner", "consent-expired", "/console/consent/no-such-request".to_owned()),
            state("owner", "invitation-signed-in", invitation["link"].as_str().unwrap().to_owned()),
            state("viewer", "consent-viewer", asks(&plain, "orders:read")),
            state("operator", "consent-no-shop", asks(&plain, "orders:read")),
            state("owner", "step-up", "/console/step-up".to_owned()),
        ],
    });
    let seen = journey("appearance", &input).await;
    let seen = seen.as_array().map_or(0, Vec::len);
    assert!(seen > 15, "{seen} pages");
}
