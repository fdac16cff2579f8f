//! Who gets at what: every REST operation and every root field of GraphQL, as somebody who may not.
//!
//! Nothing is listed by hand. Operations come from the running server's `/openapi.json`, root fields from introspection, requests from the
//! document's own examples; an operation about a new kind of thing fails until [`World::make`](world::World::make) knows how to make one.

use std::collections::BTreeSet;

use serde_json::Value;
use tests::{Answer, Client, Stoa, wait_for};

use crate::STOA;

pub(crate) mod document;
mod graphql;
mod same_json;
pub(crate) mod world;

use document::{Call, Things};
use world::{SECRET_TITLE, World, every_apps_scope, every_scope, every_scope_but, text};

/// Things that lie at a location or are shipped from one.
const AT_LOCATIONS: &[&str] = &["ord", "ful", "cus", "loc"];

/// Things that belong to an app.
const OF_APPS: &[&str] = &["whe", "dle", "lea", "rpl", "awe"];

/// Things of the merchant as a whole.
const OF_MERCHANTS: &[&str] = &["prod", "imp"];

/// Operations that show how far the delivery engine has come, which goes on by itself.
const OF_THE_ENGINE: &[&str] = &[
    "listWebhookAttempts",
    "getWebhookDelivery",
    "listWebhookDeliveries",
    "listWebhookReplays",
    "getWebhookReplay",
];

async fn world() -> World {
    World::new(Stoa::shared(STOA).await).await
}

impl World {
    async fn send(&self, call: &Call, token: &str) -> Answer {
        call.send(&self.stoa.base_url(), Some(token)).await
    }
}

/// Fails if an answer shows any of `secrets` that the request did not say itself.
fn assert_hides(operation: &str, said: &str, answer: &Answer, secrets: &BTreeSet<String>) {
    for secret in secrets
        .iter()
        .filter(|secret| !said.contains(secret.as_str()))
    {
        assert!(
            !answer.text.contains(secret.as_str()),
            "{operation} shows {secret}: {}",
            answer.text
        );
    }
}

/// An answer without what the worker writes to endpoints when it gets around to it.
fn without_notes(mut answer: Value) -> Value {
    let listed = answer["data"].as_array_mut().into_iter().flatten();
    for endpoint in listed.filter_map(Value::as_object_mut) {
        endpoint.remove("verifiedAt");
    }
    if let Some(endpoint) = answer.as_object_mut() {
        endpoint.remove("verifiedAt");
    }
    answer
}

/// Whether a request is told only that things which it names are not there.
fn is_told_that_nothing_is_there(answer: &Answer) -> bool {
    let errors = answer.json["errors"].as_array();
    match answer.slug() {
        "not_found" => answer.status == 404,
        "invalid_fields" => errors.is_some_and(|errors| {
            !errors.is_empty() && errors.iter().all(|error| error["code"] == "not_found")
        }),
        _ => false,
    }
}

/// All by which the owner's things would be known.
fn secrets(things: &Things) -> BTreeSet<String> {
    let ids = things
        .iter()
        .filter(|(kind, _)| *kind != document::URL)
        .map(|(_, id)| id.clone());
    ids.chain(["SECRET-1".to_owned(), SECRET_TITLE.to_owned()])
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_does_what_its_example_asks() {
    let world = world().await;
    let token = world.owner.token();
    for operation in &world.operations {
        if operation.path.starts_with("/oauth/") {
            continue; // their examples' clients are nobody's; client libraries that are not ours go through them
        }
        let things = world.things_for(operation).await;
        let answer = world.send(&operation.call(&things), &token).await;
        assert!(
            operation.successes.contains(&answer.status.as_u16()),
            "{}: {}",
            operation.id,
            answer.text
        );
        assert_eq!(
            answer.headers["stoa-version"], "2026-11-01",
            "{}",
            operation.id
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_without_a_token() {
    let world = world().await;
    let things = world.one_of_each().await;
    for operation in world.versioned() {
        let call = operation.call(&things);
        for token in [None, Some(""), Some("not.a.token")] {
            let answer = call.send(&world.stoa.base_url(), token).await;
            assert_eq!(
                (answer.status.as_u16(), answer.slug()),
                (401, "invalid_token"),
                "{}: {}",
                operation.id,
                answer.text
            );
            let challenge = answer.headers["www-authenticate"].to_str().unwrap();
            assert!(
                challenge.starts_with("Bearer"),
                "{}: {challenge}",
                operation.id
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_refuses_a_token_without_its_scope_and_names_it() {
    let world = world().await;
    let things = world.one_of_each().await;
    for operation in world.versioned() {
        let scope = operation.scope.as_deref().unwrap();
        let token = world.narrowed(&every_scope_but(scope)).await;
        let answer = world.send(&operation.call(&things), &token).await;
        assert_eq!(
            (answer.status.as_u16(), answer.slug()),
            (403, "insufficient_scope"),
            "{}: {}",
            operation.id,
            answer.text
        );
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(
            challenge.contains(&format!("scope=\"{scope}\"")),
            "{}: {challenge}",
            operation.id
        );
        assert_hides(
            &operation.id,
            &operation.call(&things).text(),
            &answer,
            &secrets(&things),
        );
        // And this one scope is enough for what the document says.
        let only = world.narrowed(scope).await;
        let things = world.things_for(operation).await;
        let answer = world.send(&operation.call(&things), &only).await;
        assert!(
            operation.successes.contains(&answer.status.as_u16()),
            "{} with {scope} alone: {}",
            operation.id,
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_merchants_token_finds_nothing_and_changes_nothing() {
    let world = world().await;
    let things = world.one_of_each().await;
    let before = world.everything(&things).await;
    let stranger = world.stoa.merchant();
    let stranger = world
        .stoa
        .client_of(&stranger, &every_scope(), &["--personal-data"])
        .await;
    for operation in world.versioned() {
        let call = operation.call(&things);
        let answer = world.send(&call, &stranger.token()).await;
        if operation.subject().is_some() {
            assert_eq!(
                (answer.status.as_u16(), answer.slug()),
                (404, "not_found"),
                "{}: {}",
                operation.id,
                answer.text
            );
        } else {
            let fine = answer.status.is_success() || is_told_that_nothing_is_there(&answer);
            assert!(fine, "{}: {} {}", operation.id, answer.status, answer.text);
        }
        assert_hides(&operation.id, &call.text(), &answer, &secrets(&things));
        assert_hides(
            &operation.id,
            &call.text(),
            &answer,
            &world.personal_texts(),
        );
    }
    for ((operation, before), (_, after)) in before.into_iter().zip(world.everything(&things).await)
    {
        // What the worker notes meanwhile.
        let (before, after) = (without_notes(before), without_notes(after));
        if operation == "getWebhookEndpointHealth" {
            continue;
        }
        if operation.ends_with("Events") {
            // What is on its way to feed and stream may come meanwhile.
            let (before, after) = (
                before["data"].as_array().unwrap(),
                after["data"].as_array().unwrap(),
            );
            assert!(after.starts_with(before), "{operation}");
        } else if OF_THE_ENGINE.contains(&operation.as_str()) {
            // What waits is sent meanwhile.
        } else {
            assert_eq!(after, before, "{operation}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_another_location_sees_nothing_of_this_one() {
    let world = world().await;
    let things = world.one_of_each().await;
    let arguments = ["--location", &world.other_location, "--personal-data"];
    let merchant = &world.owner.credentials.merchant;
    let elsewhere = world
        .stoa
        .client_of(merchant, &every_apps_scope(), &arguments)
        .await;
    let mut hidden: BTreeSet<String> = things
        .iter()
        .filter(|(kind, _)| hides(kind))
        .map(|(_, id)| id.clone())
        .collect();
    hidden.extend(world.personal_texts());
    for operation in world.versioned() {
        let call = operation.call(&things);
        let answer = world.send(&call, &elsewhere.token()).await;
        if operation.is_for_the_merchant_alone() {
            assert_eq!(answer.status, 403, "{}: {}", operation.id, answer.text);
            continue;
        }
        match operation.subject() {
            Some(kind) if hides(&kind) => {
                assert_eq!(
                    (answer.status.as_u16(), answer.slug()),
                    (404, "not_found"),
                    "{}: {}",
                    operation.id,
                    answer.text
                );
            }
            Some(kind) => {
                assert!(
                    OF_MERCHANTS.contains(&kind.as_str()),
                    "say whether a {kind} lies at a location"
                );
                assert!(
                    answer.status.is_success(),
                    "{}: {}",
                    operation.id,
                    answer.text
                );
            }
            None => {
                let fine = answer.status.is_success() || is_told_that_nothing_is_there(&answer);
                assert!(fine, "{}: {} {}", operation.id, answer.status, answer.text);
            }
        }
        assert_hides(&operation.id, &call.text(), &answer, &hidden);
    }
    // It is no wall: what is at its own location, it sees.
    let there = Things::from([
        ("var".to_owned(), world.variant.clone()),
        ("loc".to_owned(), world.other_location.clone()),
    ]);
    let placed = world
        .send(
            &world.operation("placeOrder").call(&there),
            &world.owner.token(),
        )
        .await
        .expect(201);
    let orders = elsewhere.get("/v1/orders").await.expect(200);
    assert_eq!(
        orders["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|order| &order["id"])
            .collect::<Vec<_>>(),
        [&placed["id"]]
    );
    let levels = elsewhere.get("/v1/inventory-levels").await.expect(200);
    let levels = levels["data"].as_array().unwrap();
    assert!(
        !levels.is_empty()
            && levels
                .iter()
                .all(|level| level["locationId"] == world.other_location.as_str())
    );
}

/// Whether a thing of this kind is hidden from an app with another location.
fn hides(kind: &str) -> bool {
    AT_LOCATIONS.contains(&kind) || OF_APPS.contains(&kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_operation_shows_personal_data_to_those_who_may_not_see_it() {
    let world = world().await;
    let persons = world.personal_texts();
    let order = world.place_order().await;
    let path = format!("/v1/orders/{}", text(&order, "id"));
    let shown = world.owner.get(&path).await;
    for person in &persons {
        assert!(
            shown.text.contains(person),
            "the owner must see {person}: {}",
            shown.text
        );
    }
    let merchant = &world.owner.credentials.merchant;
    let ungranted = world
        .stoa
        .client_of(merchant, &every_apps_scope(), &[])
        .await;
    let tokens = [
        ("a grant without personal data", ungranted.token()),
        (
            "a token without the scope",
            world.narrowed(&every_scope_but("orders.pii:read")).await,
        ),
    ];
    for (who, token) in &tokens {
        let operations = world.versioned();
        for operation in operations.filter(|operation| !operation.is_for_the_merchant_alone()) {
            let things = world.things_for(operation).await;
            let answer = world.send(&operation.call(&things), token).await;
            let of_another_app = operation
                .subject()
                .is_some_and(|kind| OF_APPS.contains(&kind.as_str()));
            if of_another_app && *who == "a grant without personal data" {
                assert_eq!(answer.status, 404, "{}: {}", operation.id, answer.text);
            } else {
                assert!(
                    operation.successes.contains(&answer.status.as_u16()),
                    "{} by {who}: {}",
                    operation.id,
                    answer.text
                );
            }
            assert_hides(&format!("{} by {who}", operation.id), "", &answer, &persons);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_has_ended_opens_nothing() {
    let world = world().await;
    let things = world.one_of_each().await;
    let merchant = &world.owner.credentials.merchant;
    let revoked = world
        .stoa
        .client_of(merchant, &every_scope(), &["--personal-data"])
        .await;
    let narrowed = world
        .stoa
        .client_of(merchant, &every_scope(), &["--personal-data"])
        .await;
    let expired = expiring(&world).await;
    assert!(revoked.get("/v1/products").await.status.is_success());
    world.stoa.revoke(&revoked);
    world.stoa.regrant(&narrowed, "catalog:read", &[]);
    for ended in [&revoked, &narrowed, &expired] {
        wait_for("the end of a grant to be felt", async || {
            (ended.get("/v1/products").await.status == 401).then_some(())
        })
        .await;
        for operation in world.versioned() {
            let answer = world.send(&operation.call(&things), &ended.token()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.slug()),
                (401, "invalid_token"),
                "{}: {}",
                operation.id,
                answer.text
            );
        }
        assert_eq!(graphql::anything(&world, &ended.token()).await.status, 401);
    }
    for ended in [&revoked, &expired] {
        assert_eq!(
            ended.request_token(&[]).await.json["error"],
            "invalid_target"
        );
    }
    assert!(
        narrowed.request_token(&[]).await.status.is_success(),
        "a narrowed grant goes on"
    );
}

/// A client whose grant ends by itself in a moment.
async fn expiring(world: &World) -> Client {
    let end = kernel::clock::Clock::system()
        .now()
        .plus(std::time::Duration::from_secs(10));
    let merchant = &world.owner.credentials.merchant;
    world
        .stoa
        .client_of(
            merchant,
            &every_scope(),
            &["--expires-at", &end.to_string()],
        )
        .await
}

#[test]
fn kinds_of_things_are_of_one_sort_each() {
    let all: Vec<_> = [AT_LOCATIONS, OF_APPS, OF_MERCHANTS].concat();
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!(all.len(), distinct.len());
}
