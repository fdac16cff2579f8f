//! Endpoints that an app has for all of its installs, and each merchant's part of them.

use std::{sync::Arc, time::Duration};

use kernel::{
    actor::{Access, Actor},
    caller::Caller,
    clock::Clock,
    id::{GrantId, MerchantId},
    page::PageRequest,
};
use serde_json::{Value, json};

use super::world::{World, made, scopes};
use crate::{
    app_endpoint::{
        self, AppEndpointId, Create, CreatedAppEndpoint, Delete, DeleteInput, Materialised,
        PER_APP_MAX, Rotate, RotateInput, Update, UpdateInput, materialise,
    },
    endpoint::{
        self, Configuration, DisabledReason, Endpoint, EndpointChange, EndpointId, Status, key,
        settings::{Ordering, SignatureScheme},
    },
    error::{Error, Refusal},
    sign::Secret,
};

fn access(names: &str) -> Access {
    Access {
        scopes: scopes(names),
        locations: None,
        personal_data: false,
    }
}

async fn logistics(world: &World) -> Actor {
    world
        .other_app(access("apps:admin orders:read webhooks:write"))
        .await
}

async fn create(world: &World, app: &Actor, input: Value) -> CreatedAppEndpoint {
    let create = Create {
        input: serde_json::from_value(input).unwrap(),
        setting: world.setting(),
    };
    world.run_as(app, &create).await.unwrap()
}

async fn update(world: &World, app: &Actor, id: AppEndpointId, change: Value) {
    let update = Update {
        input: UpdateInput {
            id,
            version: None,
            change: serde_json::from_value(change).unwrap(),
        },
        setting: world.setting(),
    };
    world.run_as(app, &update).await.unwrap();
}

async fn follow(world: &World, merchant: MerchantId) -> Materialised {
    let mut tx = world.worker.begin().await.unwrap();
    let come_to = materialise(&mut tx, &world.keyring, merchant, world.clock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    come_to
}

/// The one part that the app has at its merchant.
async fn part(world: &World, app: &Actor) -> Endpoint {
    let mut tx = world.api.enter(app.merchant).await.unwrap();
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let mut listed = endpoint::list(&mut tx, app, &page).await.unwrap().data;
    assert_eq!(listed.len(), 1);
    listed.remove(0)
}

async fn configured(world: &World, merchant: MerchantId, id: EndpointId) -> Configuration {
    let mut tx = world.worker.begin().await.unwrap();
    let mut found = endpoint::configuration(&mut tx, &world.keyring, &[(merchant, id)]).await;
    found.as_mut().unwrap().remove(&id).unwrap().unwrap()
}

/// Another merchant that has granted the app the same.
async fn installed_elsewhere(world: &World, app: &Actor) -> Actor {
    let now = world.clock.now();
    let merchant = world.database.merchant(&world.keyring, now).await.unwrap();
    let grant = GrantId::new(now);
    let mut tx = world.api.begin().await.unwrap();
    sqlx::query(
        "insert into grants (id, merchant_id, app_id, scopes, personal_data, epoch, version, created_at, changed_at)
        values ($1, $2, $3, $4, false, 1, 1, $5, $5)",
    )
    .bind(grant)
    .bind(merchant)
    .bind(app.app)
    .bind(app.access.scopes.names())
    .bind(now)
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    Actor {
        merchant,
        grant,
        ..app.clone()
    }
}

fn come_to(made: usize, changed: usize, deleted: usize) -> Materialised {
    Materialised {
        made,
        changed,
        deleted,
    }
}

#[tokio::test]
async fn each_merchant_has_a_part_and_all_of_them_one_secret() {
    let world = World::new().await;
    let app = logistics(&world).await;
    let elsewhere = installed_elsewhere(&world, &app).await;
    let stranger = world
        .database
        .merchant(&world.keyring, world.clock.now())
        .await
        .unwrap();
    let input = json!({
        "url": "https://8.8.8.8/hook", "eventTypes": ["order.*"],
        "settings": {"delivery": {"ordering": "resource"}, "signature": {"schemes": ["v1", "v1a"]}},
        "headers": {"X-Tenant": "hunter2"},
    });
    let created = create(&world, &app, input).await;
    let hinted = "select count(*) from relay_hints";
    assert_eq!(world.count(hinted).await, 2, "relays look at both soon");
    for app in [&app, &elsewhere] {
        assert_eq!(follow(&world, app.merchant).await, come_to(1, 0, 0));
        assert_eq!(follow(&world, app.merchant).await, come_to(0, 0, 0));
    }
    assert_eq!(follow(&world, stranger).await, come_to(0, 0, 0));
    let (here, there) = (part(&world, &app).await, part(&world, &elsewhere).await);
    assert_ne!(here.id, there.id);
    assert_eq!(here.app_endpoint_id, Some(created.endpoint.id));
    assert_eq!(here.settings.delivery.ordering, Ordering::Resource);
    assert_eq!(here.settings.header_names, ["x-tenant"]);
    let here = configured(&world, app.merchant, here.id).await;
    let there = configured(&world, elsewhere.merchant, there.id).await;
    assert_eq!(here.credentials.headers["x-tenant"], "hunter2");
    let known = Secret::parse(&created.secret.unwrap()).unwrap();
    for configuration in [&here, &there] {
        let mut keys = configuration.keys.iter();
        let shared = keys.find(|key| key.scheme == SignatureScheme::V1).unwrap();
        assert_eq!(shared.secret.as_slice(), known.as_bytes());
        assert_eq!(configuration.keys.len(), 2);
    }
    let ids = |configuration: &Configuration| {
        let keys = configuration.keys.iter();
        keys.map(|key| key.id).collect::<Vec<_>>()
    };
    assert_eq!(ids(&here), ids(&there));
    let stored = "select count(*) from app_endpoints where app_endpoints::text like '%hunter2%'";
    assert_eq!(world.count(stored).await, 0);
}

#[tokio::test]
async fn a_part_is_sent_what_its_grant_lets_it_see() {
    let world = World::new().await;
    let app = logistics(&world).await;
    create(
        &world,
        &app,
        json!({"url": "https://8.8.8.8/hook", "eventTypes": ["order.placed"]}),
    )
    .await;
    follow(&world, app.merchant).await;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    let part = part(&world, &app).await;
    assert_eq!(world.stream(part.id).await.len(), 1);
    assert_eq!(world.count("select count(*) from deliveries").await, 1);
}

#[tokio::test]
async fn parts_follow_changes_and_go_with_their_apps_endpoint() {
    let clock = Clock::manual(Clock::system().now());
    let world = World::at(clock.clone()).await;
    let app = logistics(&world).await;
    let created = create(&world, &app, json!({"url": "https://8.8.8.8/hook"})).await;
    let id = created.endpoint.id;
    follow(&world, app.merchant).await;
    let before = part(&world, &app).await;
    let change =
        json!({"url": "https://8.8.4.4/", "settings": {"delivery": {"concurrencyMax": 3}}});
    update(&world, &app, id, change).await;
    assert_eq!(follow(&world, app.merchant).await, come_to(0, 1, 0));
    assert_eq!(follow(&world, app.merchant).await, come_to(0, 0, 0));
    let after = part(&world, &app).await;
    assert_eq!((after.id, after.version), (before.id, 2));
    assert_eq!(after.url.as_deref(), Some("https://8.8.4.4/"));
    assert_eq!(after.settings.delivery.concurrency_max, Some(3));
    // Keys are followed as well.
    clock.advance(Duration::from_secs(1));
    let rotate = Rotate {
        input: RotateInput {
            id,
            rotation: serde_json::from_value(json!({"overlapSeconds": 60})).unwrap(),
        },
        keyring: Arc::clone(&world.keyring),
        caller: Caller::local(app.request),
    };
    let rotated = world.run_as(&app, &rotate).await.unwrap();
    assert_ne!(rotated.secret, created.secret);
    follow(&world, app.merchant).await;
    let configuration = configured(&world, app.merchant, after.id).await;
    let secrets: Vec<_> = configuration
        .keys
        .iter()
        .map(|key| Some(Secret::from_bytes(&key.secret).unwrap().reveal()))
        .collect();
    assert_eq!(secrets, [rotated.secret, created.secret]);
    assert!(configuration.keys[1].ends_at.is_some());
    let delete = Delete {
        input: DeleteInput { id, version: None },
    };
    world.run_as(&app, &delete).await.unwrap();
    assert_eq!(follow(&world, app.merchant).await, come_to(0, 0, 1));
    for table in ["endpoints", "lanes", "endpoint_keys", "app_endpoint_keys"] {
        let left = world.count(&format!("select count(*) from {table}")).await;
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn a_change_leaves_the_queue_of_a_part_that_is_read_by_lease_and_takes_that_of_one_read_by_number()
 {
    let world = World::new().await;
    let app = logistics(&world).await;
    let created = create(&world, &app, json!({"settings": {"pull": "lease"}})).await;
    let id = created.endpoint.id;
    follow(&world, app.merchant).await;
    world.append(&[made("a", 1), made("b", 1)]).await;
    world.relay_all().await;
    let queued = "select count(*) from deliveries";
    assert_eq!(world.count(queued).await, 2);
    update(&world, &app, id, json!({"description": "Shipments"})).await;
    assert_eq!(follow(&world, app.merchant).await, come_to(0, 1, 0));
    assert_eq!(world.count(queued).await, 2);
    update(&world, &app, id, json!({"settings": {"pull": "cursor"}})).await;
    assert_eq!(follow(&world, app.merchant).await, come_to(0, 1, 0));
    assert_eq!(world.count(queued).await, 0);
}

#[tokio::test]
async fn a_part_is_switched_with_its_apps_endpoint_unless_its_merchant_said_otherwise() {
    let world = World::new().await;
    let app = logistics(&world).await;
    let id = create(&world, &app, json!({"url": "https://8.8.8.8/"})).await;
    let id = id.endpoint.id;
    follow(&world, app.merchant).await;
    let status = async |change| {
        update(&world, &app, id, change).await;
        follow(&world, app.merchant).await;
        let part = part(&world, &app).await;
        (part.status, part.disabled_reason)
    };
    assert_eq!(
        status(json!({"status": "disabled"})).await,
        (Status::Disabled, Some(DisabledReason::App))
    );
    assert_eq!(
        status(json!({"status": "enabled"})).await,
        (Status::Enabled, None)
    );
    let part_id = part(&world, &app).await.id;
    let switch = EndpointChange {
        status: Some(Status::Disabled),
        ..EndpointChange::default()
    };
    let switch = endpoint::Update {
        input: endpoint::UpdateInput {
            id: part_id,
            version: None,
            change: switch,
        },
        setting: world.setting(),
    };
    world.run_as(&app, &switch).await.unwrap();
    assert_eq!(
        status(json!({"status": "enabled"})).await,
        (Status::Disabled, Some(DisabledReason::Requested))
    );
    let announced = "select count(*) from outbox where type like 'webhook_endpoint.%abled'";
    assert_eq!(world.count(announced).await, 3);
}

#[tokio::test]
async fn a_part_is_changed_at_its_apps_endpoint_alone() {
    let world = World::new().await;
    let app = logistics(&world).await;
    create(&world, &app, json!({"url": "https://8.8.8.8/"})).await;
    follow(&world, app.merchant).await;
    let id = part(&world, &app).await.id;
    let update = endpoint::Update {
        input: endpoint::UpdateInput {
            id,
            version: None,
            change: serde_json::from_value(json!({"url": "https://8.8.4.4/"})).unwrap(),
        },
        setting: world.setting(),
    };
    let delete = endpoint::Delete {
        input: endpoint::DeleteInput { id, version: None },
    };
    let rotate = key::Rotate {
        input: key::RotateInput {
            id,
            rotation: key::Rotation::default(),
        },
        keyring: Arc::clone(&world.keyring),
        caller: Caller::local(app.request),
    };
    let refused = |error| matches!(error, Error::Refused(Refusal::EndpointOfApp));
    assert!(refused(world.run_as(&app, &update).await.unwrap_err()));
    assert!(refused(world.run_as(&app, &delete).await.unwrap_err()));
    assert!(refused(world.run_as(&app, &rotate).await.unwrap_err()));
}

#[tokio::test]
async fn a_grant_that_was_given_anew_is_the_parts_grant() {
    let world = World::new().await;
    let app = logistics(&world).await;
    create(&world, &app, json!({"url": "https://8.8.8.8/"})).await;
    follow(&world, app.merchant).await;
    let mut tx = world.api.begin().await.unwrap();
    sqlx::query("update grants set revoked_at = $2 where id = $1")
        .bind(app.grant)
        .bind(world.clock.now())
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query(
        "insert into grants (id, merchant_id, app_id, scopes, personal_data, epoch, version, created_at, changed_at)
        select $2, merchant_id, app_id, scopes, personal_data, 1, 1, $3, $3 from grants where id = $1",
    )
    .bind(app.grant)
    .bind(GrantId::new(world.clock.now()))
    .bind(world.clock.now())
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(follow(&world, app.merchant).await, come_to(0, 1, 0));
    let followed = "select count(*) from endpoints join grants on grants.id = endpoints.grant_id where grants.revoked_at is null";
    assert_eq!(world.count(followed).await, 1);
}

#[tokio::test]
async fn an_app_sees_its_own_endpoints_and_has_so_many_and_no_more() {
    let world = World::new().await;
    let app = logistics(&world).await;
    let other = logistics(&world).await;
    let mine = create(&world, &app, json!({})).await.endpoint.id;
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    assert!(app_endpoint::get(&mut tx, &app, mine).await.is_ok());
    assert!(matches!(
        app_endpoint::get(&mut tx, &other, mine).await,
        Err(Error::AppEndpointNotFound(_))
    ));
    assert!(matches!(
        app_endpoint::get(&mut tx, &world.actor, mine).await,
        Err(Error::MissingScope(_))
    ));
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let listed = app_endpoint::list(&mut tx, &other, &page).await.unwrap();
    assert!(listed.data.is_empty());
    tx.commit().await.unwrap();
    let delete = Delete {
        input: DeleteInput {
            id: mine,
            version: None,
        },
    };
    assert!(matches!(
        world.run_as(&other, &delete).await,
        Err(Error::AppEndpointNotFound(_))
    ));
    for _ in 1..PER_APP_MAX {
        create(&world, &app, json!({})).await;
    }
    let one_more = Create {
        input: app_endpoint::AppEndpointInput::default(),
        setting: world.setting(),
    };
    assert!(matches!(
        world.run_as(&app, &one_more).await,
        Err(Error::Refused(Refusal::TooManyAppEndpoints))
    ));
}

#[tokio::test]
async fn what_is_wrong_with_one_apps_endpoint_holds_up_no_other() {
    let world = World::new().await;
    let app = logistics(&world).await;
    let spoilt = create(&world, &app, json!({"headers": {"a": "b"}})).await;
    create(&world, &app, json!({})).await;
    let mut tx = world.api.begin().await.unwrap();
    sqlx::query("update app_endpoints set sealed_credentials = '\\x00' where id = $1")
        .bind(spoilt.endpoint.id)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(follow(&world, app.merchant).await, come_to(1, 0, 0));
}
