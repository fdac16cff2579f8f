//! Settings of endpoints: given, changed group by group, kept with every version; credentials sealed and never shown.

use kernel::{problem::Problem, validation::from_json};
use serde_json::json;
use sqlx::Row;

use super::world::World;
use crate::{
    endpoint::{
        self, Create, CreatedEndpoint, EndpointChange, EndpointId, EndpointInput,
        settings::{Compression, Imports, Ordering, SignatureScheme},
    },
    error::Error,
};

async fn create(world: &World, input: serde_json::Value) -> Result<CreatedEndpoint, Error> {
    let input: EndpointInput = serde_json::from_value(input).unwrap();
    world
        .run(&Create {
            input,
            setting: world.setting(),
        })
        .await
}

fn change(json: serde_json::Value) -> EndpointChange {
    serde_json::from_value(json).unwrap()
}

fn faults(error: impl Into<Problem>) -> Vec<(String, String)> {
    let errors = error.into().errors.into_iter();
    errors
        .map(|error| (error.pointer.unwrap_or_default(), error.code.into_owned()))
        .collect()
}

fn pair(pointer: &str, code: &str) -> (String, String) {
    (pointer.to_owned(), code.to_owned())
}

async fn configured(world: &World, id: EndpointId) -> endpoint::Configuration {
    let mut tx = world.worker.begin().await.unwrap();
    let mut found = endpoint::configuration(&mut tx, &world.keyring, &[(world.merchant, id)]).await;
    found.as_mut().unwrap().remove(&id).unwrap().unwrap()
}

#[tokio::test]
async fn settings_are_shown_and_a_change_replaces_the_groups_that_it_names() {
    let world = World::new().await;
    let made = create(
        &world,
        json!({
            "url": "https://8.8.8.8/hook",
            "eventTypes": ["order.*", "*"],
            "settings": {
                "delivery": {"ordering": "resource", "rateLimitPerSecond": 5, "imports": "summary"},
                "payload": {"compression": "gzip", "apiVersion": "2026-11-01"},
                "signature": {"idHeader": "X-Sender-Id"},
            },
        }),
    );
    let made = made.await.unwrap().endpoint;
    let settings = &made.settings;
    assert_eq!(settings.delivery.ordering, Ordering::Resource);
    assert_eq!(settings.delivery.imports, Imports::Summary);
    assert_eq!(settings.payload.compression, Compression::Gzip);
    assert_eq!(settings.signature.id_header, "x-sender-id");
    assert_eq!(settings.signature.timestamp_header, "webhook-timestamp");
    let changed = world
        .change(
            made.id,
            change(json!({"settings": {"delivery": {"concurrencyMax": 2}}})),
        )
        .await
        .unwrap();
    assert_eq!(changed.version, 2);
    assert_eq!(changed.settings.delivery.concurrency_max, Some(2));
    assert_eq!(changed.settings.delivery.ordering, Ordering::None);
    assert_eq!(changed.settings.delivery.rate_limit_per_second, None);
    assert_eq!(changed.settings.payload, made.settings.payload);
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let read = endpoint::get(&mut tx, &world.actor, made.id).await.unwrap();
    assert_eq!(read, changed);
    let versions = sqlx::query(
        "select version, url, settings from endpoint_versions where merchant_id = $1 and endpoint_id = $2 order by version",
    )
    .bind(world.merchant)
    .bind(made.id)
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    let kept: Vec<(i64, serde_json::Value)> = versions
        .iter()
        .map(|row| (row.get("version"), row.get("settings")))
        .collect();
    assert_eq!(
        kept,
        [
            (1, serde_json::to_value(&made.settings).unwrap()),
            (2, serde_json::to_value(&changed.settings).unwrap())
        ]
    );
}

#[tokio::test]
async fn credentials_are_sealed_and_only_the_names_of_headers_are_shown() {
    let world = World::new().await;
    let made = create(
        &world,
        json!({
            "url": "https://8.8.8.8/hook",
            "settings": {"authentication": {
                "type": "oauth2_client_credentials", "tokenUrl": "https://8.8.4.4/token", "clientId": "stoa", "scope": null,
            }},
            "headers": {"X-Tenant": "hunter2-header"},
            "credentials": {"clientSecret": "hunter2-secret"},
        }),
    );
    let made = made.await.unwrap().endpoint;
    assert_eq!(made.settings.header_names, ["x-tenant"]);
    let shown = serde_json::to_string(&made).unwrap();
    assert!(!shown.contains("hunter2"), "{shown}");
    let stored = world
        .count("select count(*) from endpoints where endpoints::text like '%hunter2%' or sealed_credentials is null")
        .await;
    assert_eq!(stored, 0);
    let opened = configured(&world, made.id).await;
    assert_eq!(opened.credentials.headers["x-tenant"], "hunter2-header");
    assert_eq!(
        opened.credentials.client_secret.as_deref(),
        Some("hunter2-secret")
    );
    // What the new authentication has no use for goes with the old one; headers stay until they are named.
    world
        .change(
            made.id,
            change(json!({"settings": {"authentication": null}})),
        )
        .await
        .unwrap();
    let opened = configured(&world, made.id).await;
    assert_eq!(opened.credentials.client_secret, None);
    assert_eq!(opened.credentials.headers.len(), 1);
    let same = world
        .change(
            made.id,
            change(json!({"headers": {"x-tenant": "hunter2-header"}})),
        )
        .await
        .unwrap();
    assert_eq!(same.version, 2, "the same headers are no change");
    let other = world
        .change(made.id, change(json!({"headers": {"x-tenant": "other"}})))
        .await
        .unwrap();
    assert_eq!(other.version, 3, "another value is one");
    let cleared = world
        .change(made.id, change(json!({"headers": null})))
        .await
        .unwrap();
    assert!(cleared.settings.header_names.is_empty());
    let none = "select count(*) from endpoints where sealed_credentials is null";
    assert_eq!(world.count(none).await, 1);
}

#[tokio::test]
async fn what_does_not_fit_together_is_refused_by_its_place() {
    let world = World::new().await;
    let oauth = json!({"type": "oauth2_client_credentials", "tokenUrl": "https://8.8.4.4/token", "clientId": "stoa", "scope": null});
    let refused = create(
        &world,
        json!({
            "settings": {"authentication": oauth},
            "headers": {"Authorization": "Basic a", "webhook-id": "a"},
            "credentials": {"certificatePem": "-"},
        }),
    );
    let mut found = faults(refused.await.unwrap_err());
    found.sort();
    let expected = [
        pair("/credentials/certificatePem", "unused"),
        pair("/credentials/clientSecret", "required"),
        pair("/headers/authorization", "reserved"),
        pair("/headers/webhook-id", "reserved"),
    ];
    assert_eq!(found, expected);
    let refused = create(
        &world,
        json!({
            "url": "https://169.254.169.254/", "eventTypes": ["order.placed"],
            "settings": {"authentication": {
                "type": "oauth2_client_credentials", "tokenUrl": "https://a:b@example.com/", "clientId": "stoa", "scope": null,
            }},
            "credentials": {"clientSecret": "a"},
        }),
    );
    let expected = [
        pair("/url", "refused_address"),
        pair("/settings/authentication/tokenUrl", "credentials"),
    ];
    assert_eq!(faults(refused.await.unwrap_err()), expected);
    let refused = create(
        &world,
        json!({
            "settings": {"authentication": {"type": "mutual_tls"}},
            "credentials": {"certificatePem": "no certificate", "privateKeyPem": "no key"},
        }),
    );
    let expected = [
        pair("/credentials/certificatePem", "invalid"),
        pair("/credentials/privateKeyPem", "invalid"),
    ];
    assert_eq!(faults(refused.await.unwrap_err()), expected);
}

#[test]
fn every_fault_of_settings_is_named_at_once() {
    let input = json!({
        "eventTypes": ["order*"],
        "settings": {
            "filter": "x".repeat(4_001),
            "payload": {"apiVersion": "1999-01-01", "batchEventsMax": 1},
            "delivery": {"rateLimitPerSecond": 0, "concurrencyMax": 257, "retryWaitsSeconds": [1, 0, 604_801]},
            "signature": {"schemes": ["v1", "v1"], "idHeader": "host", "timestampHeader": "a b", "signatureHeader": "Host"},
        },
        "headers": {"content-length": "1"},
        "credentials": {"clientSecret": ""},
        "verify": true,
    });
    let refused = from_json::<EndpointInput>(input.to_string().as_bytes());
    let expected = [
        pair("/eventTypes/0", "invalid"),
        pair("/settings/filter", "too_long"),
        pair("/settings/payload/apiVersion", "unknown"),
        pair("/settings/payload/batchEventsMax", "out_of_range"),
        pair("/settings/delivery/rateLimitPerSecond", "out_of_range"),
        pair("/settings/delivery/concurrencyMax", "out_of_range"),
        pair("/settings/delivery/retryWaitsSeconds/1", "out_of_range"),
        pair("/settings/delivery/retryWaitsSeconds/2", "out_of_range"),
        pair("/settings/signature/schemes/1", "duplicate"),
        pair("/settings/signature/idHeader", "reserved"),
        pair("/settings/signature/timestampHeader", "invalid"),
        pair("/settings/signature/signatureHeader", "reserved"),
        pair("/settings/signature/signatureHeader", "duplicate"),
        pair("/headers/content-length", "reserved"),
        pair("/credentials/clientSecret", "required"),
        pair("/verify", "invalid"),
    ];
    assert_eq!(faults(refused.unwrap_err()), expected);
}

#[test]
fn a_condition_and_a_template_are_tried_when_they_are_given() {
    let input = json!({"settings": {"filter": "event.type ==", "payload": {"transformation": "{{ event.type"}}});
    let refused = from_json::<EndpointInput>(input.to_string().as_bytes()).unwrap_err();
    assert!(refused.errors[0].detail.contains("line 1"), "{refused:?}");
    let expected = [
        pair("/settings/filter", "invalid"),
        pair("/settings/payload/transformation", "invalid"),
    ];
    assert_eq!(faults(refused), expected);
    let input = json!({"settings": {
        "filter": "event.resource.type == 'order'",
        "payload": {"transformation": "{\"text\": {{ event.type | tojson }}}"},
    }});
    assert!(from_json::<EndpointInput>(input.to_string().as_bytes()).is_ok());
}

#[test]
fn inputs_print_without_their_secrets() {
    let input = EndpointInput {
        headers: Some([("a".to_owned(), "hunter2".to_owned())].into()),
        credentials: serde_json::from_value(json!({"clientSecret": "hunter2"})).unwrap(),
        ..EndpointInput::default()
    };
    let change =
        change(json!({"headers": {"a": "hunter2"}, "credentials": {"clientSecret": "hunter2"}}));
    let printed = format!("{input:?} {change:?}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[tokio::test]
async fn verifying_sends_a_test_event_and_another_url_is_not_verified_by_it() {
    let world = World::new().await;
    let made = create(
        &world,
        json!({"url": "https://8.8.8.8/hook", "verify": true}),
    );
    let id = made.await.unwrap().endpoint.id;
    let pings = "select count(*) from outbox where type = 'ping'";
    assert_eq!(world.count(pings).await, 1);
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("update endpoints set verified_at = $2 where id = $1")
        .bind(id)
        .bind(world.clock.now())
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let described = world
        .change(id, change(json!({"description": "ERP"})))
        .await;
    assert!(described.unwrap().verified_at.is_some());
    let moved = world
        .change(id, change(json!({"url": "https://8.8.4.4/"})))
        .await;
    assert_eq!(moved.unwrap().verified_at, None);
}

#[tokio::test]
async fn one_endpoint_that_does_not_open_spoils_no_other() {
    let world = World::new().await;
    let [good, sealed, unread] = [(); 3].map(|()| create(&world, json!({"headers": {"a": "b"}})));
    let (good, sealed, unread) = tokio::join!(good, sealed, unread);
    let [good, sealed, unread] = [good, sealed, unread].map(|made| made.unwrap().endpoint.id);
    let mut tx = world.worker.begin().await.unwrap();
    let spoil = [
        (
            "update endpoints set sealed_credentials = '\\x00' where id = $1",
            sealed,
        ),
        (
            "update endpoints set settings = '{\"pull\": 1}' where id = $1",
            unread,
        ),
    ];
    for (statement, id) in spoil {
        sqlx::query(statement)
            .bind(id)
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    let wanted = [good, sealed, unread].map(|id| (world.merchant, id));
    let found = endpoint::configuration(&mut tx, &world.keyring, &wanted)
        .await
        .unwrap();
    assert!(matches!(found[&sealed], Err(Error::Keyring(_))));
    assert!(matches!(found[&unread], Err(Error::Json(_))));
    let good = found[&good].as_ref().unwrap();
    assert_eq!(good.keys.len(), 1);
    assert_eq!(good.keys[0].scheme, SignatureScheme::V1);
}
