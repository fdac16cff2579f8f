//! Endpoints: made, seen, changed and deleted by those who may.

use kernel::{
    actor::Access,
    idempotency::{Idempotency, Key},
    page::PageRequest,
    problem::Problem,
    validation::from_json,
};

use super::world::{World, made, scopes};
use crate::{
    endpoint::{
        self, Create, Delete, DeleteInput, EndpointChange, EndpointInput, Owner, PER_APP_MAX,
        Status, Update, UpdateInput,
    },
    error::{Error, Refusal},
    sign::Secret,
};

fn input(url: Option<&str>) -> EndpointInput {
    EndpointInput {
        url: url.map(str::to_owned),
        ..EndpointInput::default()
    }
}

#[tokio::test]
async fn a_secret_is_shown_once_and_kept_sealed() {
    let world = World::new().await;
    let idempotency = Idempotency::new(
        world.api.clone(),
        world.clock.clone(),
        world.keyring.clone(),
        world.announcer.clone(),
    );
    let key: Key = "first".parse().unwrap();
    let create = Create {
        input: input(Some("https://8.8.8.8/hook")),
        setting: world.setting(),
    };
    let made = idempotency.once(&world.actor, &key, &create).await.unwrap();
    let secret = made.value.secret.clone().unwrap();
    assert!(Secret::parse(&secret).is_ok());
    let again = idempotency.once(&world.actor, &key, &create).await.unwrap();
    assert!(again.replayed);
    assert_eq!(
        (again.value.endpoint, again.value.secret),
        (made.value.endpoint, None)
    );
    assert_eq!(world.count("select count(*) from endpoints").await, 1);
    let kept = "select count(*) from idempotency_keys where outcome::text like '%whsec%'";
    assert_eq!(world.count(kept).await, 0);
}

#[tokio::test]
async fn a_url_must_be_one_that_may_be_called() {
    let world = World::new().await;
    for (url, code) in [
        (
            "https://169.254.169.254/latest/meta-data",
            "refused_address",
        ),
        ("ftp://example.com/", "scheme"),
        ("https://user:word@example.com/", "credentials"),
        ("https://example.com/#there", "fragment"),
        ("nowhere", "malformed"),
    ] {
        let refused = world
            .run(&Create {
                input: input(Some(url)),
                setting: world.setting(),
            })
            .await
            .unwrap_err();
        let problem = Problem::from(refused);
        assert_eq!(problem.kind.slug, "invalid_fields");
        assert_eq!(
            (
                problem.errors[0].pointer.as_deref(),
                &*problem.errors[0].code
            ),
            (Some("/url"), code),
            "{url}"
        );
    }
}

#[test]
fn every_fault_of_an_input_is_named() {
    let faults = from_json::<EndpointInput>(
        br#"{"eventTypes": ["order.placed", "Order!", ""], "description": "\u0007", "x": 1}"#,
    );
    let pointers: Vec<_> = faults
        .unwrap_err()
        .errors
        .into_iter()
        .filter_map(|error| error.pointer)
        .collect();
    assert_eq!(
        pointers,
        ["/x", "/description", "/eventTypes/1", "/eventTypes/2"]
    );
    let change = from_json::<EndpointChange>(br#"{"url": null, "eventTypes": []}"#).unwrap_err();
    assert_eq!(change.errors[0].pointer.as_deref(), Some("/eventTypes"));
    let change = from_json::<EndpointChange>(br#"{"url": null}"#).unwrap();
    assert_eq!((change.url, change.description), (Some(None), None));
}

#[tokio::test]
async fn an_app_sees_its_own_endpoints_and_an_administrator_sees_all() {
    let world = World::new().await;
    let access = |names: &str| Access {
        scopes: scopes(names),
        locations: None,
        personal_data: false,
    };
    let other = world.other_app(access("webhooks:write")).await;
    let admin = world
        .other_app(access("webhooks:write merchant:admin"))
        .await;
    let blind = world.other_app(access("orders:read")).await;
    let mine = world.endpoint(None).await.endpoint.id;
    let theirs = world.endpoint_of(&other, None, None).await.endpoint.id;
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let ids = async |tx: &mut sqlx::PgConnection, actor| {
        let page = endpoint::list(tx, actor, &page).await.unwrap();
        page.data
            .into_iter()
            .map(|endpoint| endpoint.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&mut tx, &world.actor).await, [mine]);
    assert_eq!(ids(&mut tx, &other).await, [theirs]);
    let mut all = [mine, theirs];
    all.sort_unstable();
    assert_eq!(ids(&mut tx, &admin).await, all);
    assert!(
        matches!(endpoint::get(&mut tx, &other, mine).await, Err(Error::EndpointNotFound(id)) if id == mine)
    );
    assert!(matches!(
        endpoint::list(&mut tx, &blind, &page).await,
        Err(Error::MissingScope(_))
    ));
    tx.commit().await.unwrap();
    let foreign = Delete {
        input: DeleteInput {
            id: mine,
            version: None,
        },
    };
    assert!(matches!(
        world.run_as(&other, &foreign).await,
        Err(Error::EndpointNotFound(_))
    ));
    let of_merchant = EndpointInput {
        owner: Owner::Merchant,
        ..input(None)
    };
    let create = Create {
        input: of_merchant,
        setting: world.setting(),
    };
    assert!(matches!(
        world.run_as(&other, &create).await,
        Err(Error::MissingScope(_))
    ));
    assert_eq!(
        world.run_as(&admin, &create).await.unwrap().endpoint.owner,
        Owner::Merchant
    );
}

#[tokio::test]
async fn a_change_takes_the_version_that_it_was_made_from() {
    let world = World::new().await;
    let made = world.endpoint(Some("https://8.8.8.8/hook")).await.endpoint;
    let change = |version, change| Update {
        input: UpdateInput {
            id: made.id,
            version,
            change,
        },
        setting: world.setting(),
    };
    let describe = EndpointChange {
        description: Some(Some("ERP".to_owned())),
        ..EndpointChange::default()
    };
    let changed = world.run(&change(Some(1), describe.clone())).await.unwrap();
    assert_eq!(
        (changed.version, changed.description.as_deref()),
        (2, Some("ERP"))
    );
    assert!(matches!(
        world.run(&change(Some(1), describe.clone())).await,
        Err(Error::VersionMismatch)
    ));
    let same = world.run(&change(None, describe)).await.unwrap();
    assert_eq!(same, changed, "nothing changes, and the version stays");
    let clear = EndpointChange {
        description: Some(None),
        ..EndpointChange::default()
    };
    assert_eq!(
        world.run(&change(None, clear)).await.unwrap().description,
        None
    );
    assert_eq!(world.count("select count(*) from outbox").await, 0);
    let disable = EndpointChange {
        status: Some(Status::Disabled),
        ..EndpointChange::default()
    };
    world.run(&change(None, disable)).await.unwrap();
    assert_eq!(
        world
            .count("select count(*) from outbox where type = 'webhook_endpoint.disabled'")
            .await,
        1
    );
}

#[tokio::test]
async fn taking_the_url_away_takes_what_waits_off_the_queue() {
    let world = World::new().await;
    let endpoint = world
        .endpoint(Some("https://8.8.8.8/hook"))
        .await
        .endpoint
        .id;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    assert_eq!(world.count("select count(*) from deliveries").await, 1);
    world
        .change(
            endpoint,
            EndpointChange {
                url: Some(None),
                ..EndpointChange::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(world.count("select count(*) from deliveries").await, 0);
    assert_eq!(
        world
            .count("select count(*) from lanes where due_at is null")
            .await,
        1
    );
    assert_eq!(world.stream(endpoint).await.len(), 1);
}

#[tokio::test]
async fn an_app_may_have_so_many_endpoints_and_no_more() {
    let world = World::new().await;
    for _ in 0..PER_APP_MAX {
        world.endpoint(None).await;
    }
    let refused = world
        .run(&Create {
            input: input(None),
            setting: world.setting(),
        })
        .await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::TooManyEndpoints))
    ));
}
