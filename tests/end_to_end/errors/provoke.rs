//! How each problem is provoked.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use kernel::id::{AppId, MerchantId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::Connection;
use tests::{Answer, Client, new_key};

use crate::matrix::{
    document::{Call, Operation, Things},
    world::{World, every_apps_scope, every_scope, every_scope_but, text},
};

/// A body of more than any operation reads.
const TOO_LARGE_BYTES: usize = 2 * 1024 * 1024 + 1;

/// Endpoints that an app may have at a merchant.
const ENDPOINTS_MAX: usize = 100;

/// Endpoints that an app may have for all of its merchants.
const APP_ENDPOINTS_MAX: usize = 20;

/// Streams that an app may have open at a merchant.
const STREAMS_MAX: usize = 20;

/// Replays of an endpoint that may be running at once.
const REPLAYS_MAX: usize = 10;

/// Living keys that an endpoint may have of one scheme.
const KEYS_MAX: usize = 8;

/// What provocations work with.
pub(super) struct Provocation {
    world: Arc<World>,
    /// An app of the same merchant that is limited to another location.
    elsewhere: Client,
    /// The locks of one key under every operation of the domain, held by a connection that stands for another process.
    locked_key: String,
    _locks: sqlx::PgConnection,
}

impl Provocation {
    pub(super) async fn new(world: Arc<World>) -> Self {
        let merchant = &world.owner.credentials.merchant;
        let arguments = ["--location", &world.other_location];
        let elsewhere = world
            .stoa
            .client_of(merchant, &every_apps_scope(), &arguments)
            .await;
        let locked_key = new_key();
        let mut locks = sqlx::PgConnection::connect(&world.stoa.database_url())
            .await
            .unwrap();
        for name in operation_names() {
            let lock = lock_of(&world.owner, &name, &locked_key);
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
                "select pg_advisory_lock({lock})"
            )))
            .execute(&mut locks)
            .await
            .unwrap();
        }
        Self {
            world,
            elsewhere,
            locked_key,
            _locks: locks,
        }
    }

    async fn send(&self, call: &Call) -> Answer {
        call.send(&self.world.stoa.base_url(), Some(&self.world.owner.token()))
            .await
    }

    /// A request as the document's example has it, about things that are there.
    async fn right(&self, operation: &Operation) -> Call {
        operation.call(&self.world.things_for(operation).await)
    }

    /// The answers of every way that is known to provoke this problem; none if there is no way yet.
    pub(super) async fn of(&self, operation: &Operation, slug: &str) -> Vec<Answer> {
        let base_url = self.world.stoa.base_url();
        match slug {
            "invalid_token" => {
                let call = self.right(operation).await;
                vec![
                    call.send(&base_url, None).await,
                    call.send(&base_url, Some("no.such.token")).await,
                ]
            }
            "insufficient_scope" => {
                let token = self
                    .world
                    .narrowed(&every_scope_but(operation.scope.as_deref().unwrap()))
                    .await;
                vec![
                    self.right(operation)
                        .await
                        .send(&base_url, Some(&token))
                        .await,
                ]
            }
            "not_found" => vec![self.not_found(operation).await],
            "malformed_request" => self.malformed(operation).await,
            "invalid_fields" => self.invalid(operation).await,
            "unsupported_media_type" => {
                let call = self.right(operation).await;
                vec![
                    self.send(&call.with_header("content-type", "text/plain"))
                        .await,
                ]
            }
            "payload_too_large" => {
                let call = self
                    .right(operation)
                    .await
                    .with_body(json!({"title": "x".repeat(TOO_LARGE_BYTES)}));
                vec![self.send(&call).await]
            }
            "idempotency_key_required" => self.unkeyed(operation).await,
            "idempotency_key_reused" => vec![self.reused(operation).await],
            "version_mismatch" => {
                let call = self.right(operation).await;
                if operation.subject().is_none() {
                    // What it makes must be there before it can have moved on.
                    assert!(self.send(&call).await.status.is_success());
                }
                let call = call.with_header("if-match", "\"99\"");
                vec![
                    self.send(&if operation.needs("Idempotency-Key") {
                        rekeyed(&call)
                    } else {
                        call
                    })
                    .await,
                ]
            }
            _ => self.refused(operation, slug).await,
        }
    }

    async fn not_found(&self, operation: &Operation) -> Answer {
        if operation.subject().is_some() {
            // The document's own ids are of nothing.
            let mut call = self.right(operation).await;
            call.path = operation.call(&examples(operation)).path;
            return self.send(&call).await;
        }
        if !operation.needs("Idempotency-Key") {
            return self
                .right(operation)
                .await
                .send(&self.world.stoa.base_url(), Some(&self.elsewhere.token()))
                .await;
        }
        // Done for an app that may see it, and asked for again when it no longer may.
        let merchant = &self.world.owner.credentials.merchant;
        let app = self
            .world
            .stoa
            .client_of(merchant, &every_scope(), &[])
            .await;
        let call = self.right(operation).await;
        let done = call
            .send(&self.world.stoa.base_url(), Some(&app.token()))
            .await;
        assert!(done.status.is_success(), "{}: {}", operation.id, done.text);
        self.world.stoa.regrant(
            &app,
            &every_scope(),
            &["--location", &self.world.other_location],
        );
        app.refresh().await;
        call.send(&self.world.stoa.base_url(), Some(&app.token()))
            .await
    }

    async fn malformed(&self, operation: &Operation) -> Vec<Answer> {
        let things = if operation.path.starts_with("/v1/") {
            self.world.things_for(operation).await
        } else {
            examples(operation)
        };
        let call = operation.call(&things);
        let mut answers = vec![
            self.send(&call.with_header("stoa-version", "1999-01-01"))
                .await,
        ];
        if operation.takes_json() {
            answers.push(self.send(&call.with_body(json!("{\"broken\": "))).await);
        }
        if operation.takes("If-Match") {
            answers.push(self.send(&call.with_header("if-match", "three")).await);
        }
        answers
    }

    async fn invalid(&self, operation: &Operation) -> Vec<Answer> {
        let call = self.right(operation).await;
        let mut answers = Vec::new();
        if operation.takes_json() {
            let mut body = call.body.clone().unwrap();
            body["colourOfTheMoon"] = json!("red");
            answers.push(self.send(&call.with_body(body)).await);
            answers.push(self.send(&call.with_body(json!([]))).await);
        }
        if operation
            .parameters
            .iter()
            .any(|parameter| parameter.place == "query")
        {
            let mut call = call.clone();
            call.query
                .push(("colourOfTheMoon".to_owned(), "red".to_owned()));
            answers.push(self.send(&call).await);
        }
        if operation.takes("limit") {
            let mut call = call.clone();
            call.query.push(("limit".to_owned(), "0".to_owned()));
            answers.push(self.send(&call).await);
        }
        if operation.takes("cursor") {
            let mut call = call;
            call.query.push(("cursor".to_owned(), "%".to_owned()));
            answers.push(self.send(&call).await);
        }
        answers
    }

    async fn unkeyed(&self, operation: &Operation) -> Vec<Answer> {
        let mut call = self.right(operation).await;
        let mut answers = Vec::new();
        if operation.needs("Idempotency-Key") {
            call.headers.remove("idempotency-key");
            answers.push(self.send(&call).await);
        }
        answers.push(
            self.send(&call.with_header("idempotency-key", &"k".repeat(256)))
                .await,
        );
        answers
    }

    async fn reused(&self, operation: &Operation) -> Answer {
        let call = self
            .right(operation)
            .await
            .with_header("idempotency-key", &new_key());
        let done = self.send(&call).await;
        assert!(done.status.is_success(), "{}: {}", operation.id, done.text);
        let replay = self.send(&call).await;
        assert_eq!(
            (replay.status, &replay.headers["idempotent-replayed"]),
            (done.status, &"true".parse().unwrap()),
            "{}",
            operation.id
        );
        let mut other = call.clone();
        if operation.subject().is_some() {
            other.path = operation.call(&examples(operation)).path;
        } else if operation.takes_json() {
            let body = other.body.as_mut().unwrap();
            let free = ["title", "name", "note", "description", "externalId"]
                .into_iter()
                .find(|name| body[name].is_string());
            let free = free.unwrap_or_else(|| {
                panic!("{}: no text is known that may be anything", operation.id)
            });
            body[free] = json!("another input");
        } else {
            other
                .query
                .push(("label".to_owned(), "another input".to_owned()));
        }
        self.send(&other).await
    }

    /// The refusals of the domain's own functions.
    #[allow(clippy::too_many_lines, reason = "a list of them, one after another")]
    async fn refused(&self, operation: &Operation, slug: &str) -> Vec<Answer> {
        let world = &self.world;
        let call = self.right(operation).await;
        let changed = |pointer: &str, value: Value| {
            let mut body = call.body.clone().unwrap();
            *body
                .pointer_mut(pointer)
                .unwrap_or_else(|| panic!("{}: no {pointer}", operation.id)) = value;
            call.with_body(body)
        };
        let answer = match (operation.id.as_str(), slug) {
            ("placeOrder", "insufficient_stock") => {
                self.send(&changed("/lines/0/quantity", json!(1_000_000)))
                    .await
            }
            ("placeOrder", "external_id_taken") => {
                assert_eq!(self.send(&call).await.status, 201);
                self.send(&rekeyed(&call)).await
            }
            ("setInventory", "stock_out_of_range") => {
                let entry = &call.body.as_ref().unwrap()["entries"][0];
                let things = Things::from([
                    ("var".to_owned(), text(entry, "variantId")),
                    ("loc".to_owned(), text(entry, "locationId")),
                ]);
                assert_eq!(
                    self.send(&world.operation("placeOrder").call(&things))
                        .await
                        .status,
                    201
                );
                self.send(&changed("/entries/0/onHand", json!(0))).await
            }
            ("adjustInventory", "stock_out_of_range") => {
                self.send(&changed("/entries/0/delta", json!(-100_000_000)))
                    .await
            }
            ("fulfillOrder", "quantity_exceeded") => {
                self.send(&changed("/lines/0/quantity", json!(1_000))).await
            }
            ("cancelOrder" | "fulfillOrder", "invalid_transition") => {
                let cancel = world.operation("cancelOrder");
                let things = world.things_for(cancel).await;
                assert_eq!(self.send(&cancel.call(&things)).await.status, 200);
                self.send(&operation.call(&things)).await
            }
            _ => return self.refused_by_webhooks(operation, slug, &call).await,
        };
        vec![answer]
    }

    /// The refusals of webhooks' functions.
    #[allow(clippy::too_many_lines, reason = "a case for each refusal")]
    async fn refused_by_webhooks(
        &self,
        operation: &Operation,
        slug: &str,
        call: &Call,
    ) -> Vec<Answer> {
        let world = &self.world;
        let answer = match (operation.id.as_str(), slug) {
            ("pingWebhookEndpoint", "endpoint_disabled") => {
                let endpoint = call.path.strip_suffix("/ping").unwrap();
                world
                    .owner
                    .patch(endpoint, &json!({"status": "disabled"}))
                    .await
                    .expect(200);
                self.send(call).await
            }
            (
                "updateWebhookEndpoint" | "deleteWebhookEndpoint" | "rotateWebhookEndpointKeys",
                "endpoint_of_app",
            ) => {
                world.make("awe").await;
                let part =
                    tests::wait_for("the merchant's part of an app's endpoint", async || {
                        let listed = world.owner.get("/v1/webhook-endpoints?limit=250").await;
                        let listed = listed.expect(200);
                        let mut endpoints = listed["data"].as_array().unwrap().iter();
                        endpoints
                            .find(|endpoint| endpoint["appEndpointId"].is_string())
                            .map(|endpoint| text(endpoint, "id"))
                    })
                    .await;
                self.send(&operation.call(&Things::from([("whe".to_owned(), part)])))
                    .await
            }
            ("updateWebhookEndpoint", "too_many_replays") => {
                // A disabled endpoint's replays wait, and so run; what it misses meanwhile would be one more.
                let disable = json!({"status": "disabled"});
                world.owner.patch(&call.path, &disable).await.expect(200);
                let replays = format!("{}/replays", call.path);
                for _ in 0..REPLAYS_MAX {
                    world.owner.post(&replays, &json!({})).await.expect(202);
                }
                let endpoint = call.path.rsplit('/').next().unwrap();
                let before = world.owner.stream(endpoint).await.len();
                world.place_order().await;
                tests::wait_for("an event that the endpoint misses", async || {
                    (world.owner.stream(endpoint).await.len() > before).then_some(())
                })
                .await;
                self.send(call).await
            }
            ("startWebhookReplay", "too_many_replays") => {
                // A disabled endpoint's replays wait, and so run.
                let endpoint = call.path.strip_suffix("/replays").unwrap();
                world
                    .owner
                    .patch(endpoint, &json!({"status": "disabled"}))
                    .await
                    .expect(200);
                for _ in 0..REPLAYS_MAX {
                    assert_eq!(self.send(&rekeyed(call)).await.status, 202);
                }
                self.send(&rekeyed(call)).await
            }
            ("startWebhookReplay" | "replayWebhookEvent", "endpoint_without_url") => {
                world
                    .owner
                    .patch(endpoint_of(&call.path), &json!({"url": null}))
                    .await
                    .expect(200);
                self.send(call).await
            }
            ("replayWebhookEvent", "endpoint_disabled") => {
                world
                    .owner
                    .patch(endpoint_of(&call.path), &json!({"status": "disabled"}))
                    .await
                    .expect(200);
                self.send(call).await
            }
            ("rotateWebhookEndpointKeys" | "rotateAppWebhookEndpointKeys", "too_many_keys") => {
                let mut answer = self.send(call).await;
                for _ in 0..KEYS_MAX {
                    answer = self.send(&rekeyed(call)).await;
                }
                answer
            }
            ("replayDeadLetter", "endpoint_disabled" | "endpoint_without_url") => {
                let letter = world
                    .owner
                    .get(call.path.strip_suffix("/replay").unwrap())
                    .await
                    .expect(200);
                let endpoint = format!("/v1/webhook-endpoints/{}", text(&letter, "endpointId"));
                let url = world.owner.get(&endpoint).await.expect(200)["url"].clone();
                let (spoilt, mended) = match slug {
                    "endpoint_disabled" => {
                        (json!({"status": "disabled"}), json!({"status": "enabled"}))
                    }
                    _ => (json!({"url": null}), json!({"url": url})),
                };
                world.owner.patch(&endpoint, &spoilt).await.expect(200);
                let answer = self.send(call).await;
                world.owner.patch(&endpoint, &mended).await.expect(200);
                answer
            }
            ("leaseWebhookEndpoint" | "sendTestEvent", "endpoint_disabled") => {
                let (endpoint, _) = call.path.rsplit_once('/').unwrap();
                let disabled = json!({"status": "disabled"});
                world.owner.patch(endpoint, &disabled).await.expect(200);
                self.send(call).await
            }
            ("leaseWebhookEndpoint", "endpoint_not_leased") => {
                let endpoint = world.make("whe").await;
                let things = Things::from([("whe".to_owned(), endpoint)]);
                self.send(&operation.call(&things)).await
            }
            ("leaseWebhookEndpoint", "lease_expired") => {
                assert_eq!(self.send(call).await.status, 200);
                let locks = "update idempotency_keys set outcome = jsonb_set(outcome, '{expiresAt}', '\"2026-01-01T00:00:00Z\"') \
                    where operation = 'webhook_endpoint.lease' and not refused";
                behind_the_scenes(world, locks).await;
                self.send(call).await
            }
            ("acknowledgeLeasedEvents" | "releaseLeasedEvents", "lease_expired") => {
                assert_eq!(self.send(call).await.status, 200);
                self.send(&rekeyed(call)).await
            }
            (_, "too_many_streams") => {
                let merchant = &world.owner.credentials.merchant;
                let app = world.stoa.client_of(merchant, &every_scope(), &[]).await;
                let mut open = Vec::new();
                for _ in 0..STREAMS_MAX {
                    open.push(app.follow("/v1/events/stream", None).await);
                }
                let mut call = call.clone();
                if operation.id == "leaseWebhookEndpoint" {
                    // Only who waits has a stream.
                    let endpoint = world.make_leased(0).await;
                    let things = Things::from([("whe".to_owned(), endpoint)]);
                    call = operation
                        .call(&things)
                        .with_body(json!({"waitSeconds": 20}));
                }
                call.send(&world.stoa.base_url(), Some(&app.token())).await
            }
            ("createWebhookEndpoint" | "createAppWebhookEndpoint", "too_many_endpoints") => {
                let app = world
                    .stoa
                    .client_of(&world.owner.credentials.merchant, &every_scope(), &[])
                    .await;
                let most = match operation.id.as_str() {
                    "createAppWebhookEndpoint" => APP_ENDPOINTS_MAX,
                    _ => ENDPOINTS_MAX,
                };
                for _ in 0..most {
                    assert_eq!(
                        rekeyed(call)
                            .send(&world.stoa.base_url(), Some(&app.token()))
                            .await
                            .status,
                        201
                    );
                }
                rekeyed(call)
                    .send(&world.stoa.base_url(), Some(&app.token()))
                    .await
            }
            _ => return Vec::new(),
        };
        vec![answer]
    }

    /// Asks while another process is at work on the same key.
    pub(super) async fn in_progress<'o>(
        &self,
        operation: &'o Operation,
    ) -> (&'o Operation, Answer) {
        let call = self
            .right(operation)
            .await
            .with_header("idempotency-key", &self.locked_key);
        (operation, self.send(&call).await)
    }
}

/// Changes the database itself, where row-level security does not apply.
async fn behind_the_scenes(world: &World, statement: &str) {
    let url = world.stoa.database_url().replace("//stoa@", "//postgres@");
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// The same request under a new key.
fn rekeyed(call: &Call) -> Call {
    call.with_header("idempotency-key", &new_key())
}

/// The ids of the document's examples, which are of nothing.
pub(super) fn examples(operation: &Operation) -> Things {
    let kinds: BTreeSet<String> = operation.named_kinds();
    kinds
        .into_iter()
        .map(|kind| (kind.clone(), format!("{kind}_01jd3x5k8vfm7b2c9q0r4t6w8y")))
        .collect()
}

/// The path of the endpoint that a path is about.
fn endpoint_of(path: &str) -> &str {
    let end = path.match_indices('/').nth(3).unwrap().0;
    &path[..end]
}

/// The advisory lock of a key: what two processes at work on it would contend for.
fn lock_of(client: &Client, operation: &str, key: &str) -> i64 {
    let merchant: MerchantId = client.credentials.merchant.parse().unwrap();
    let app: AppId = client.credentials.client_id.parse().unwrap();
    let mut hash = Sha256::new();
    hash.update(merchant.uuid());
    hash.update(app.uuid());
    hash.update(operation);
    hash.update([0]);
    hash.update(key);
    i64::from_be_bytes(*hash.finalize().first_chunk::<8>().unwrap())
}

/// The names of all operations of the domain, as its sources declare them.
fn operation_names() -> Vec<String> {
    let mut names = Vec::new();
    for (_, source) in
        crate::architecture::sources(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
    {
        for line in source.lines() {
            if let Some(name) = line.trim().strip_prefix("const NAME: &'static str = \"") {
                names.push(name.split('"').next().unwrap().to_owned());
            }
        }
    }
    assert!(
        names.len() > 10,
        "the sources declare operations: {names:?}"
    );
    names
}
