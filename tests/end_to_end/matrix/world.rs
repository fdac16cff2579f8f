//! What the tests try to get at: a merchant with something of everything, and those who may not see it.

use std::{
    collections::{BTreeSet, btree_map::Entry},
    sync::Arc,
};

use kernel::scope::Scope;
use serde_json::{Value, json};
use tests::{Client, Receiver, Stoa, new_key, wait_for};

use super::document::{self, Operation, Things, URL, each_text};

/// A merchant with something of everything.
pub(crate) struct World {
    pub(crate) stoa: Arc<Stoa>,
    pub(crate) operations: Vec<Operation>,
    /// Sees and does everything.
    pub(crate) owner: Client,
    /// Where the owner's stock lies.
    pub(crate) location: String,
    /// Another location of the same merchant, with stock of its own.
    pub(crate) other_location: String,
    pub(crate) variant: String,
    catalog_import: String,
    dead_letter: String,
    receiver: Receiver,
    /// Makes endpoints when the owner's app may have no more.
    spare: tokio::sync::Mutex<Option<Client>>,
}

/// What the owner calls each product.
pub(crate) const SECRET_TITLE: &str = "Secret of the owner";

/// Every scope there is.
pub(crate) fn every_scope() -> String {
    names(Scope::ALL.iter().copied())
}

/// Every scope but `scope` and those that bring it with them.
pub(crate) fn every_scope_but(scope: &str) -> String {
    let scope: Scope = scope.parse().unwrap();
    names(
        Scope::ALL
            .iter()
            .copied()
            .filter(|held| *held != scope && held.implied() != Some(scope)),
    )
}

/// Every scope but `merchant:admin`: who acts for the merchant as a whole may look after all of its endpoints, and reads what those are sent.
pub(crate) fn every_apps_scope() -> String {
    every_scope_but("merchant:admin")
}

fn names(scopes: impl Iterator<Item = Scope>) -> String {
    scopes.map(Scope::name).collect::<Vec<_>>().join(" ")
}

impl World {
    /// Makes one on a server that gives deliveries up at once.
    pub(crate) async fn new(stoa: Arc<Stoa>) -> Self {
        let operations = document::operations(&stoa.base_url()).await;
        let merchant = stoa.merchant();
        let owner = stoa
            .client_of(&merchant, &every_scope(), &["--personal-data"])
            .await;
        let receiver = Receiver::start().await;
        let failing = Receiver::start().await;
        failing.answer_with(500);
        let (location, other_location) = (
            owner.location("here").await,
            owner.location("elsewhere").await,
        );
        let variant = stocked(&owner, [&location, &other_location]).await;
        let mut world = Self {
            operations,
            location,
            other_location,
            variant,
            catalog_import: String::new(),
            dead_letter: String::new(),
            receiver,
            spare: tokio::sync::Mutex::default(),
            stoa,
            owner,
        };
        let import = world.operation("importCatalog").call(&Things::new());
        let imported = import
            .send(&world.stoa.base_url(), Some(&world.owner.token()))
            .await;
        let summary: Value = serde_json::from_str(imported.text.lines().last().unwrap()).unwrap();
        world.catalog_import = text(&summary["summary"], "importId");
        world.dead_letter = world.make_dead_letter(&failing).await;
        world
    }

    /// The operation of this id.
    pub(crate) fn operation(&self, id: &str) -> &Operation {
        self.operations
            .iter()
            .find(|operation| operation.id == id)
            .unwrap_or_else(|| panic!("there is no operation {id}"))
    }

    /// The operations of the API itself.
    pub(crate) fn versioned(&self) -> impl Iterator<Item = &Operation> {
        self.operations
            .iter()
            .filter(|operation| operation.path.starts_with("/v1/"))
    }

    async fn make_dead_letter(&self, failing: &Receiver) -> String {
        let (endpoint, _) = self
            .owner
            .endpoint(Some(failing.url()), &["order.placed"])
            .await;
        self.owner
            .post(
                &format!("/v1/webhook-endpoints/{endpoint}/ping"),
                &Value::Null,
            )
            .await
            .expect(200);
        let path = format!("/v1/webhook-endpoints/{endpoint}/dead-letters");
        wait_for("a dead letter", async || {
            let letters = self.owner.get(&path).await.expect(200);
            letters["data"][0]["id"].as_str().map(str::to_owned)
        })
        .await
    }

    /// An endpoint that has been sent something.
    async fn make_endpoint(&self) -> String {
        // With a public key too, for whoever reads those.
        let input = json!({"url": self.receiver.url(), "eventTypes": ["order.placed"],
            "settings": {"signature": {"schemes": ["v1", "v1a"]}}});
        let endpoint = self.make_endpoint_of(&input).await;
        let path = format!("/v1/webhook-endpoints/{endpoint}");
        self.owner
            .post(&format!("{path}/ping"), &Value::Null)
            .await
            .expect(200);
        wait_for("an event in the endpoint's stream", async || {
            let stream = self.owner.get(&format!("{path}/events")).await.expect(200);
            (!stream["data"].as_array().unwrap().is_empty()).then_some(())
        })
        .await;
        endpoint
    }

    /// One thing of this kind: a new one if using it changes it.
    pub(crate) async fn make(&self, kind: &str) -> String {
        match kind {
            "prod" => text(&upsert_secret(&self.owner).await, "id"),
            "var" => stocked(&self.owner, [&self.location, &self.other_location]).await,
            "loc" => self.location.clone(),
            "app" => self.owner.credentials.client_id.clone(),
            "mer" => self.owner.credentials.merchant.clone(),
            "imp" => self.catalog_import.clone(),
            "dle" => self.dead_letter.clone(),
            "ord" => text(&self.place_order().await, "id"),
            "cus" => text(&self.place_order().await, "customerId"),
            "ful" => {
                let order = text(&self.place_order().await, "id");
                let path = format!("/v1/orders/{order}/fulfillments");
                let fulfilled = self
                    .owner
                    .post(&path, &json!({"lines": [{"line": 1, "quantity": 1}]}))
                    .await
                    .expect(201);
                text(&fulfilled["fulfillments"][0], "id")
            }
            "awe" => {
                // An app has few of them, and each makes an endpoint at every merchant: the oldest makes room.
                let path = "/v1/app-webhook-endpoints";
                let there = self.owner.get(path).await.expect(200);
                let there = there["data"].as_array().unwrap();
                if there.len() > 4 {
                    let oldest = format!("{path}/{}", text(&there[0], "id"));
                    let delete = self.owner.request(reqwest::Method::DELETE, &oldest);
                    let answer = delete.send().await.unwrap();
                    let (status, text) = (answer.status(), answer.text().await.unwrap());
                    // Somebody else may have made room meanwhile.
                    let is_gone = status.is_success() || status == reqwest::StatusCode::NOT_FOUND;
                    assert!(is_gone, "{status}: {text}");
                }
                let input = json!({"url": self.receiver.url(), "eventTypes": ["order.placed"]});
                text(&self.owner.post(path, &input).await.expect(201), "id")
            }
            "whe" => self.make_endpoint().await,
            "rpl" => {
                let path = format!(
                    "/v1/webhook-endpoints/{}/replays",
                    self.make_endpoint().await
                );
                text(&self.owner.post(&path, &json!({})).await.expect(202), "id")
            }
            "lea" => self.make_lease(&self.make_leased(1).await).await,
            other => panic!("there is no way yet to make a {other}: teach it to `World::make`"),
        }
    }

    /// No things yet; and no URL that would lead out of this machine.
    fn nothing(&self) -> Things {
        Things::from([(URL.to_owned(), self.receiver.url().to_owned())])
    }

    /// One thing of each kind that a request of `operation` names.
    pub(crate) async fn things_for(&self, operation: &Operation) -> Things {
        let mut things = self.nothing();
        for kind in operation.named_kinds() {
            let thing = self.make(&kind).await;
            things.insert(kind, thing);
        }
        if is_about_leases(operation) {
            let endpoint = self.make_leased(1).await;
            if things.contains_key("lea") {
                things.insert("lea".to_owned(), self.make_lease(&endpoint).await);
            }
            things.insert("whe".to_owned(), endpoint);
        }
        things
    }

    /// An endpoint that is read by lease, with events that wait for it.
    pub(crate) async fn make_leased(&self, events: usize) -> String {
        let input = json!({"eventTypes": ["order.placed"], "settings": {"pull": "lease"}});
        let endpoint = self.make_endpoint_of(&input).await;
        let path = format!("/v1/webhook-endpoints/{endpoint}");
        for _ in 0..events {
            let ping = self.owner.post(&format!("{path}/ping"), &Value::Null).await;
            ping.expect(200);
        }
        wait_for("what waits to be leased", async || {
            let page = self.owner.get(&format!("{path}/events")).await.expect(200);
            // An order that somebody else places meanwhile comes on top.
            let count = page["data"].as_array().map_or(0, Vec::len);
            (count >= events).then_some(())
        })
        .await;
        endpoint
    }

    /// A new endpoint of the owner's app; once that has as many as it may have, of another app's, which the owner sees as the merchant's administrator.
    async fn make_endpoint_of(&self, input: &Value) -> String {
        let path = "/v1/webhook-endpoints";
        let mut made = self.owner.post(path, input).await;
        let mut spare = self.spare.lock().await;
        while made.slug() == "too_many_endpoints" {
            if let Some(app) = &*spare {
                made = app.post(path, input).await;
            }
            if made.slug() == "too_many_endpoints" {
                let merchant = &self.owner.credentials.merchant;
                let scopes = every_scope();
                let arguments = ["--personal-data"];
                *spare = Some(self.stoa.client_of(merchant, &scopes, &arguments).await);
            }
        }
        text(&made.expect(201), "id")
    }

    async fn make_lease(&self, endpoint: &str) -> String {
        let path = format!("/v1/webhook-endpoints/{endpoint}/lease");
        let lease = self.owner.post(&path, &json!({"leaseSeconds": 600})).await;
        text(&lease.expect(200), "leaseId")
    }

    /// An order of the document's own example, with a customer and an address.
    pub(crate) async fn place_order(&self) -> Value {
        let things = Things::from([
            ("var".to_owned(), self.variant.clone()),
            ("loc".to_owned(), self.location.clone()),
        ]);
        let call = self.operation("placeOrder").call(&things);
        call.send(&self.stoa.base_url(), Some(&self.owner.token()))
            .await
            .expect(201)
    }

    /// A token of the owner's app, narrowed to these scopes.
    pub(crate) async fn narrowed(&self, scopes: &str) -> String {
        let answer = self
            .owner
            .request_token(&[("scope", scopes)])
            .await
            .expect(200);
        text(&answer, "access_token")
    }

    /// The texts by which a person would be known: what the example of an order says of customer and address.
    pub(crate) fn personal_texts(&self) -> BTreeSet<String> {
        let example = &self.operation("placeOrder").body.as_ref().unwrap().example;
        let mut texts = BTreeSet::new();
        for part in ["customer", "shippingAddress"] {
            each_text(&example[part], &mut |text| {
                // "GB" and the like are found in anything.
                if text.len() > 4 {
                    texts.insert(text.to_owned());
                }
            });
        }
        assert!(
            texts.len() > 3,
            "the example of an order must say who it is for"
        );
        texts
    }

    /// All that the owner reads of what is there: every operation that only reads.
    pub(crate) async fn everything(&self, things: &Things) -> Vec<(String, Value)> {
        let mut seen = Vec::new();
        for operation in self
            .versioned()
            .filter(|operation| operation.method == reqwest::Method::GET)
        {
            let answer = operation
                .call(things)
                .send(&self.stoa.base_url(), Some(&self.owner.token()))
                .await;
            assert!(
                answer.status.is_success(),
                "{}: {}",
                operation.id,
                answer.text
            );
            seen.push((operation.id.clone(), answer.json));
        }
        seen
    }

    /// One thing of each kind that any operation names.
    pub(crate) async fn one_of_each(&self) -> Things {
        let mut things = self.nothing();
        for operation in self.versioned() {
            for kind in operation.named_kinds() {
                if let Entry::Vacant(vacant) = things.entry(kind) {
                    let thing = self.make(vacant.key()).await;
                    vacant.insert(thing);
                }
            }
        }
        things
    }
}

/// Whether an operation needs an endpoint that is read by lease.
fn is_about_leases(operation: &Operation) -> bool {
    ["/lease", "/acknowledge", "/release"]
        .iter()
        .any(|end| operation.path.ends_with(end))
}

/// A new product, by which the owner's catalog would be known.
async fn upsert_secret(owner: &Client) -> Value {
    let input = json!({"externalId": new_key(), "title": SECRET_TITLE,
        "variants": [{"sku": "SECRET-1", "price": {"amount": "49.00", "currency": "EUR"}}]});
    owner.post("/v1/products", &input).await.expect(201)["product"].clone()
}

/// The variant of a new product, of which a lot lies at these locations.
async fn stocked(owner: &Client, locations: [&str; 2]) -> String {
    let product = upsert_secret(owner).await;
    let variant = text(&product["variants"][0], "id");
    for location in locations {
        owner.set_stock(&variant, location, 10_000).await;
    }
    variant
}

/// A member that is a text.
pub(crate) fn text(value: &Value, member: &str) -> String {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("no {member} in {value}"))
        .to_owned()
}
