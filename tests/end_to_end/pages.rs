//! The pages in a real browser: journeys of people in headless Chromium, by mouse and by keyboard, and a look at every page.

use std::sync::{Arc, Weak};

use serde_json::{Value, json};
use tests::{Stoa, StoaOptions, TestClients};

use crate::STOA;

/// Where the app is answered; the browser answers for it.
const REDIRECT_URI: &str = "https://parcel-desk.example/callback";

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
async fn journey(name: &str, input: Value) -> Value {
    let script = format!("browser/{name}.mjs");
    let said = TestClients::of(STOA).run(&script, &input).await;
    serde_json::from_str(&said).unwrap_or_default()
}

/// The address at which `app` asks for `scope`.
fn request(stoa: &Stoa, app: &Value, scope: &str, state: &str) -> String {
    let mut url = reqwest::Url::parse(&stoa.base_url())
        .unwrap()
        .join("/oauth/authorize")
        .unwrap();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", app["clientId"].as_str().unwrap())
        .append_pair("redirect_uri", REDIRECT_URI)
        .append_pair("scope", scope)
        .append_pair("state", state)
        .append_pair("code_challenge", CHALLENGE)
        .append_pair("code_challenge_method", "S256");
    url.into()
}
