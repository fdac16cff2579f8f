//! Client libraries that are not ours get along with the authorization server: npm's openid-client (and oauth4webapi, which it is made of) and Python's
//! Authlib, each by every kind of client that it can be.

use serde_json::{Value, json};
use tests::{Consenter, Stoa, TestClients};

use crate::STOA;

const OPENID_CLIENT: &str = "interop/openid_client.mjs";
const AUTHLIB: &str = "interop/authlib_client.py";

/// What the apps ask for.
const SCOPE: &str = "orders:read fulfillments:write";

/// Where web apps are answered. Nothing listens there: who consents only says where the browser was sent to. (openid-client knows no redirect URI with a
/// query.)
const PLAIN_REDIRECT_URI: &str = "https://app.example/callback";
const REDIRECT_URI_WITH_QUERY: &str = "https://app.example/callback?from=stoa";

/// Where an app on somebody's machine is answered: on any port.
const LOOPBACK_REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// Has `script` be an app that proves itself by `method`, from discovery to revocation.
async fn get_along(script: &str, method: &str) {
    let stoa = Stoa::shared(STOA).await;
    let clients = TestClients::of(STOA);
    let merchant = stoa.merchant();
    let owner = stoa.person(&merchant, "owner");
    let consenter = Consenter::start(owner, &stoa.base_url()).await;
    let redirect_uri = match (method, script) {
        ("none", _) => LOOPBACK_REDIRECT_URI,
        (_, OPENID_CLIENT) => PLAIN_REDIRECT_URI,
        _ => REDIRECT_URI_WITH_QUERY,
    };
    let mut client = client(&stoa, &clients, method, redirect_uri).await;
    client["method"] = method.into();
    client["redirectUri"] = redirect_uri.into();
    let resource = format!("{}/merchants/{merchant}", stoa.base_url());
    let input = json!({
        "issuer": stoa.base_url(),
        "resource": resource,
        "api": format!("{}/v1/orders", stoa.base_url()),
        "scope": SCOPE,
        "consenter": consenter.url,
        "client": client,
    });
    clients.run(script, &input).await;
}

/// A new app that proves itself by `method`, as the scripts are told of it.
async fn client(stoa: &Stoa, clients: &TestClients, method: &str, redirect_uri: &str) -> Value {
    match method {
        "none" => {
            let app = stoa.app_with(&["--public", "--redirect-uri", redirect_uri]);
            json!({"id": app["clientId"]})
        }
        "private_key_jwt" => {
            let pair = clients.run("interop/new_key.mjs", &Value::Null).await;
            let pair: Value = serde_json::from_str(&pair).unwrap();
            let id = app_with_key(stoa, &pair["public"]).await;
            json!({"id": id, "key": pair["private"]})
        }
        _ => {
            let app = stoa.app_with(&["--redirect-uri", redirect_uri]);
            json!({"id": app["clientId"], "secret": app["clientSecret"]})
        }
    }
}

/// A new app that a developer makes on the pages, with this public key, answered at either address of web apps. Gives its id.
pub(crate) async fn app_with_key(stoa: &Stoa, jwk: &Value) -> String {
    let developer = stoa.person_with(&["--developer"]);
    let browser = developer.browser(&stoa.base_url()).await;
    let page = browser.open("/console/developer/apps/new").await;
    let form = page
        .expect(200)
        .form("redirect_uris")
        .choose("kind", "confidential")
        .fill("name", "Parcel Desk")
        .fill(
            "redirect_uris",
            &format!("{PLAIN_REDIRECT_URI}\n{REDIRECT_URI_WITH_QUERY}"),
        )
        .tick("scopes_all");
    let made = browser.submit(&form).await.expect(200).text();
    let id = made.split(' ').find(|word| word.starts_with("app_"));
    let id = id.unwrap_or_else(|| panic!("no client id: {made}"));
    let page = browser.open(&format!("/console/developer/apps/{id}")).await;
    let form = page.expect(200).form("jwk").fill("jwk", &jwk.to_string());
    let page = browser.submit(&form).await.expect(200);
    let kid = jwk["kid"].as_str().unwrap();
    assert!(page.text().contains(kid), "{page}");
    id.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_completes_every_step_with_a_secret() {
    get_along(OPENID_CLIENT, "client_secret_basic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_completes_every_step_with_a_secret_in_the_body() {
    get_along(OPENID_CLIENT, "client_secret_post").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_completes_every_step_with_a_key() {
    get_along(OPENID_CLIENT, "private_key_jwt").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_completes_every_step_as_an_app_on_somebodys_machine() {
    get_along(OPENID_CLIENT, "none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_completes_every_step_with_a_secret() {
    get_along(AUTHLIB, "client_secret_basic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_completes_every_step_with_a_key() {
    get_along(AUTHLIB, "private_key_jwt").await;
}
