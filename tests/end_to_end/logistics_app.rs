//! The example of a logistics app, from its installation to its end: what the merchant narrows and ends, the app feels.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Browser, Person, Stoa, wait_for};

use crate::STOA;

/// The example at work; killed when dropped.
struct App {
    child: Child,
    url: String,
    directory: PathBuf,
    http: reqwest::Client,
}

impl App {
    fn start(stoa: &Stoa, app: &Value) -> Self {
        let path = Path::new(STOA)
            .with_file_name("examples")
            .join("logistics_app");
        assert!(
            path.exists(),
            "cargo test -p gateway builds {}",
            path.display()
        );
        let directory = std::env::temp_dir().join(format!("stoa-desk-{}", tests::new_key()));
        let mut child = Command::new(path)
            .args(["127.0.0.1:0".as_ref(), directory.as_os_str()])
            .env("STOA_URL", stoa.base_url())
            .env("STOA_CLIENT_ID", app["clientId"].as_str().unwrap())
            .env("STOA_CLIENT_SECRET", app["clientSecret"].as_str().unwrap())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        // What it says further is read, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let url = first.strip_prefix("listening on ").unwrap();
        Self {
            child,
            url: url.trim_end_matches('/').to_owned(),
            directory,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    /// Installs it as `person` decides on the page of consent, and gives what the app then shows.
    async fn install(
        &self,
        stoa: &Stoa,
        person: &Person,
        decide: impl FnOnce(tests::Form) -> tests::Form,
    ) -> Value {
        let app = Browser::at(&self.url);
        let request = app.open("/install").await.left_for();
        let back = person
            .consent(&Browser::at(&stoa.base_url()), request.as_str(), decide)
            .await;
        let page = app.open(back.as_str()).await.expect(200);
        serde_json::from_str(&page.body).unwrap()
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logistics_app_ships_for_a_merchant_until_the_merchant_ends_it() {
    let stoa = Stoa::shared(STOA).await;
    let shop = stoa.client().await;
    let merchant = shop.credentials.merchant.clone();
    let (_, variant) = stoa.stocked(&shop, 100).await;
    let order = shop.place(&variant, 2).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let owner = stoa.person(&merchant, "owner");
    let registered = stoa.app_with(&["--redirect-uri", "http://127.0.0.1/callback"]);
    let app = App::start(&stoa, &registered);

    // The merchant gives a month, and no personal data.
    let installed = app
        .install(&stoa, &owner, |form| {
            form.choose("end", "month").untick("personal_data")
        })
        .await;
    assert_eq!(installed["merchant"], *merchant);
    assert_eq!(installed["status"], "installed");
    assert_eq!(installed["scope"], "orders:read fulfillments:write");
    assert!(installed["grantEndsAt"].is_u64(), "{installed}");
    let file = app.directory.join(format!("{merchant}.json"));
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);

    // An answer that another browser brings is nobody's.
    let (status, refused) = app.get("/callback?code=stoa_code_x&state=x").await;
    assert_eq!((status, &refused["error"]), (400, &json!("not installed")));

    // It ships, and says how to follow the parcel; done again it is the same parcel.
    let base = format!("/merchants/{merchant}");
    let (status, orders) = app.get(&format!("{base}/orders")).await;
    assert_eq!(status, 200, "{orders}");
    assert_eq!(orders["orders"][0]["id"], *order);
    assert_eq!(orders["orders"][0]["shippingAddress"], Value::Null);
    let parcel = json!({"carrier": "DHL", "trackingNumber": "00340434161094042557"});
    let path = format!("{base}/orders/{order}/ship");
    let (status, shipped) = app.post(&path, parcel.clone()).await;
    assert_eq!(status, 200, "{shipped}");
    assert_eq!(app.post(&path, parcel).await, (200, shipped.clone()));
    let seen = shop
        .get(&format!("/v1/orders/{order}/fulfillments"))
        .await
        .expect(200);
    assert_eq!(seen["data"].as_array().unwrap().len(), 1);
    assert_eq!(seen["data"][0]["trackingNumber"], "00340434161094042557");
    let (_, orders) = app.get(&format!("{base}/orders")).await;
    assert_eq!(orders["orders"], json!([]));

    // Many at once: one refresh after the other, and none locks the app out.
    let mut refreshing = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (http, url) = (app.http.clone(), format!("{}{base}/refresh", app.url));
        refreshing.spawn(async move { http.post(url).send().await.unwrap().status() });
    }
    for status in refreshing.join_all().await {
        assert_eq!(status, 200);
    }

    // The merchant narrows: the app may see, and no longer ship.
    let client_id = registered["clientId"].as_str().unwrap();
    stoa.grant(&merchant, client_id, "orders:read", &[]);
    let another = shop.place(&variant, 1).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("{base}/orders/{another}/ship");
    let parcel = json!({"carrier": "DHL", "trackingNumber": "00340434161094042558"});
    wait_for("the narrowing to be felt", async || {
        let (status, answer) = app.post(&path, parcel.clone()).await;
        assert!([200, 403].contains(&status), "{status} {answer}");
        (status == 403).then_some(())
    })
    .await;
    assert_eq!(app.get(&format!("{base}/orders")).await.0, 200);
    assert_eq!(app.get(&base).await.1["scope"], "orders:read");

    // The merchant ends it: the app notices, and says what to do.
    let grants = stoa.command(&["grant", "list", "--merchant", &merchant, "--json"]);
    let mut grants = grants.as_array().unwrap().iter();
    let of_app = grants.find(|grant| grant["app"]["id"] == client_id);
    let grant = of_app.unwrap()["grant"]["id"].as_str().unwrap();
    stoa.command(&[
        "grant",
        "revoke",
        "--merchant",
        &merchant,
        "--grant",
        grant,
        "--json",
    ]);
    let ended = wait_for("the end to be noticed", async || {
        let (status, answer) = app.get(&format!("{base}/orders")).await;
        (status != 200).then_some((status, answer))
    })
    .await;
    assert_eq!(ended.0, 410, "{}", ended.1);
    assert_eq!(ended.1["error"], "access ended, install again");
    assert_eq!(app.get(&base).await.1["status"], "ended");

    // Installed again it goes on, and gives back what it has when it is done.
    let installed = app.install(&stoa, &owner, |form| form).await;
    assert_eq!(installed["status"], "installed");
    assert_eq!(app.get(&format!("{base}/orders")).await.0, 200);
    app.post(&format!("{base}/uninstall"), json!({})).await;
    assert_eq!(app.get(&base).await.0, 404);
}
