//! Keys of endpoints: made with them, rotated with an overlap, public where they can be.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, ParsedPublicKey};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use kernel::{
    audit::{self, Log},
    caller::Caller,
    clock::Clock,
    idempotency::{Idempotency, Key as IdempotencyKey},
    page::PageRequest,
    problem::Problem,
    validation::from_json,
};
use serde_json::json;

use super::world::World;
use crate::{
    endpoint::{
        self, Configuration, Create, CreatedEndpoint, EndpointId,
        key::{self, EndpointKey, LIVING_PER_SCHEME_MAX, Rotate, RotateInput, Rotated, Rotation},
        settings::SignatureScheme,
    },
    error::{Error, Refusal},
    sign::Secret,
};

async fn create(world: &World, schemes: &[&str]) -> CreatedEndpoint {
    let input =
        json!({"url": "https://8.8.8.8/hook", "settings": {"signature": {"schemes": schemes}}});
    world
        .run(&Create {
            input: serde_json::from_value(input).unwrap(),
            setting: world.setting(),
        })
        .await
        .unwrap()
}

fn rotate(world: &World, id: EndpointId, rotation: serde_json::Value) -> Rotate {
    Rotate {
        input: RotateInput {
            id,
            rotation: serde_json::from_value(rotation).unwrap(),
        },
        keyring: Arc::clone(&world.keyring),
        caller: Caller::local(world.actor.request),
    }
}

async fn rotated(world: &World, id: EndpointId, rotation: serde_json::Value) -> Rotated {
    world.run(&rotate(world, id, rotation)).await.unwrap()
}

async fn configured(world: &World, id: EndpointId) -> Configuration {
    let mut tx = world.worker.begin().await.unwrap();
    let mut found = endpoint::configuration(&mut tx, &world.keyring, &[(world.merchant, id)]).await;
    found.as_mut().unwrap().remove(&id).unwrap().unwrap()
}

async fn listed(world: &World, id: EndpointId) -> Vec<EndpointKey> {
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let keys = key::list(&mut tx, &world.actor, id, world.clock.now()).await;
    keys.unwrap().data
}

#[tokio::test]
async fn an_endpoint_has_a_key_for_each_of_its_schemes() {
    let world = World::new().await;
    let made = create(&world, &["v1", "v1a"]).await;
    let id = made.endpoint.id;
    let configuration = configured(&world, id).await;
    let of = |scheme| {
        let mut keys = configuration.keys.iter().filter(|key| key.scheme == scheme);
        let key = keys.next().unwrap();
        assert!(keys.next().is_none());
        key
    };
    let secret = Secret::from_bytes(&of(SignatureScheme::V1).secret).unwrap();
    assert_eq!(made.secret, Some(secret.reveal()));
    let private = of(SignatureScheme::V1a);
    assert_eq!(private.secret.len(), 32);
    let shown = listed(&world, id).await;
    let public = shown.iter().find_map(|key| key.public_key.clone()).unwrap();
    let public = STANDARD
        .decode(public.strip_prefix("whpk_").unwrap())
        .unwrap();
    let signature = Ed25519KeyPair::from_seed_unchecked(&private.secret)
        .unwrap()
        .sign(b"message");
    let verifier = ParsedPublicKey::new(&ED25519, &public).unwrap();
    verifier.verify_sig(b"message", signature.as_ref()).unwrap();
    let debugged = format!("{:?}", configuration.keys);
    assert!(debugged.contains("***") && !debugged.contains(&format!("{:?}", private.secret)));
    let mut tx = world.api.begin().await.unwrap();
    let set = key::public_keys(&mut tx, id, world.clock.now())
        .await
        .unwrap()
        .unwrap();
    let set = serde_json::to_value(set).unwrap();
    assert_eq!(
        set,
        json!({"keys": [{
            "kty": "OKP", "crv": "Ed25519", "kid": private.id, "x": URL_SAFE_NO_PAD.encode(&public), "use": "sig", "alg": "EdDSA",
        }]})
    );
}

#[tokio::test]
async fn an_endpoint_without_public_keys_has_no_key_set() {
    let world = World::new().await;
    let shared = create(&world, &["v1"]).await.endpoint.id;
    for id in [shared, EndpointId::new(world.clock.now())] {
        let mut tx = world.api.begin().await.unwrap();
        let set = key::public_keys(&mut tx, id, world.clock.now())
            .await
            .unwrap();
        assert_eq!(set, None);
    }
    let public = create(&world, &["v1a"]).await;
    assert_eq!(public.secret, None, "nothing is shared");
    assert_eq!(configured(&world, public.endpoint.id).await.keys.len(), 1);
}

#[tokio::test]
async fn while_keys_rotate_both_sign_until_the_older_one_ends() {
    let clock = Clock::manual(Clock::system().now());
    let world = World::at(clock.clone()).await;
    let made = create(&world, &["v1", "v1a"]).await;
    let id = made.endpoint.id;
    let before = configured(&world, id).await;
    clock.advance(Duration::from_secs(1));
    let after = rotated(&world, id, json!({"schemes": ["v1"], "overlapSeconds": 60})).await;
    assert_eq!((after.endpoint_version, after.keys.len()), (2, 3));
    assert_ne!(after.secret, made.secret);
    let signing = |configuration: &Configuration, now| {
        let keys = configuration.keys.iter();
        let living = keys.filter(|key| key.scheme == SignatureScheme::V1 && key.is_living(now));
        living
            .map(|key| Secret::from_bytes(&key.secret).unwrap().reveal())
            .collect::<Vec<_>>()
    };
    let configuration = configured(&world, id).await;
    assert_eq!(configuration.version, 2);
    assert_eq!(
        signing(&configuration, clock.now()),
        [after.secret.clone().unwrap(), made.secret.clone().unwrap()]
    );
    clock.advance(Duration::from_mins(1));
    assert_eq!(
        signing(&configuration, clock.now()),
        [after.secret.clone().unwrap()]
    );
    assert_eq!(listed(&world, id).await.len(), 2);
    let public = |configuration: &Configuration| {
        let mut keys = configuration.keys.iter();
        keys.find(|key| key.scheme == SignatureScheme::V1a)
            .unwrap()
            .id
    };
    assert_eq!(public(&configuration), public(&before));
    // The next change takes the ended one away, and one without overlap leaves nothing of the older ones.
    let last = rotated(&world, id, json!({"overlapSeconds": 0})).await;
    assert_eq!(last.keys.len(), 2);
    assert_eq!(world.count("select count(*) from endpoint_keys").await, 2);
    assert_ne!(public(&configured(&world, id).await), public(&before));
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let (log, filter) = (Log::Merchant(world.merchant), audit::Filter::default());
    let noted = audit::list(&mut tx, log, &filter, &page)
        .await
        .unwrap()
        .data;
    assert_eq!(noted.len(), 2);
    assert_eq!(noted[1].action, "webhook_secret.rotated");
    assert_eq!(noted[1].target_id, Some(id.to_string()));
    assert_eq!(
        noted[1].details,
        json!({"schemes": ["v1"], "overlapSeconds": 60})
    );
}

#[tokio::test]
async fn a_rotated_secret_is_shown_once() {
    let world = World::new().await;
    let id = create(&world, &["v1"]).await.endpoint.id;
    let idempotency = Idempotency::new(
        world.api.clone(),
        world.clock.clone(),
        world.keyring.clone(),
        world.announcer.clone(),
    );
    let key: IdempotencyKey = "rotation".parse().unwrap();
    let rotation = rotate(&world, id, json!({}));
    let first = idempotency
        .once(&world.actor, &key, &rotation)
        .await
        .unwrap();
    assert!(Secret::parse(&first.value.secret.clone().unwrap()).is_ok());
    let again = idempotency
        .once(&world.actor, &key, &rotation)
        .await
        .unwrap();
    assert_eq!(
        (again.value.secret, again.value.keys),
        (None, first.value.keys)
    );
    assert_eq!(world.count("select count(*) from endpoint_keys").await, 2);
}

#[tokio::test]
async fn a_scheme_has_so_many_living_keys_and_no_more() {
    let world = World::new().await;
    let id = create(&world, &["v1"]).await.endpoint.id;
    for _ in 1..LIVING_PER_SCHEME_MAX {
        rotated(&world, id, json!({})).await;
    }
    let refused = world.run(&rotate(&world, id, json!({}))).await;
    assert!(matches!(refused, Err(Error::Refused(Refusal::TooManyKeys))));
    assert_eq!(
        rotated(&world, id, json!({"overlapSeconds": 0}))
            .await
            .keys
            .len(),
        1
    );
}

#[tokio::test]
async fn a_scheme_is_chosen_once_it_has_a_key() {
    let world = World::new().await;
    let id = create(&world, &["v1a"]).await.endpoint.id;
    let choose = |schemes: &[&str]| {
        serde_json::from_value(json!({"settings": {"signature": {"schemes": schemes}}})).unwrap()
    };
    let refused = world.change(id, choose(&["v1a", "v1"])).await.unwrap_err();
    let problem = Problem::from(refused);
    assert_eq!(
        (
            problem.errors[0].pointer.as_deref(),
            &*problem.errors[0].code
        ),
        (Some("/settings/signature/schemes/1"), "without_key")
    );
    let key = rotated(&world, id, json!({"schemes": ["v1"]})).await;
    assert!(key.secret.is_some());
    assert_eq!(
        configured(&world, id).await.keys.len(),
        1,
        "it does not sign yet"
    );
    world.change(id, choose(&["v1a", "v1"])).await.unwrap();
    assert_eq!(configured(&world, id).await.keys.len(), 2);
    // A public key needs nobody to be told, and is made when it is asked for.
    let shared = create(&world, &["v1"]).await.endpoint.id;
    world.change(shared, choose(&["v1", "v1a"])).await.unwrap();
    assert_eq!(configured(&world, shared).await.keys.len(), 2);
}

#[tokio::test]
async fn an_endpoint_of_an_older_binary_keeps_its_secret() {
    let world = World::new().await;
    let made = create(&world, &["v1"]).await;
    let id = made.endpoint.id;
    let mut tx = world.worker.begin().await.unwrap();
    sqlx::query("delete from endpoint_keys")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let known = Secret::parse(&made.secret.unwrap()).unwrap();
    let configuration = configured(&world, id).await;
    assert_eq!(configuration.keys[0].secret.as_slice(), known.as_bytes());
    let older = listed(&world, id).await;
    assert_eq!(older[0].id, configuration.keys[0].id);
    let rotated = rotated(&world, id, json!({})).await;
    assert_eq!(rotated.keys[1].id, older[0].id);
    let configuration = configured(&world, id).await;
    assert_eq!(configuration.keys[1].secret.as_slice(), known.as_bytes());
    let both = "select count(*) from endpoints where cardinality(sealed_secrets) = 2";
    assert_eq!(
        world.count(both).await,
        1,
        "older binaries sign with both too"
    );
}

#[test]
fn a_rotation_names_known_schemes_once_and_an_overlap_within_bounds() {
    let refused = from_json::<Rotation>(br#"{"schemes": ["v1", "v1"], "overlapSeconds": 604801}"#);
    let pointers: Vec<_> = refused
        .unwrap_err()
        .errors
        .into_iter()
        .filter_map(|error| error.pointer)
        .collect();
    assert_eq!(pointers, ["/schemes/1", "/overlapSeconds"]);
    assert!(from_json::<Rotation>(br#"{"schemes": []}"#).is_err());
    assert!(from_json::<Rotation>(b"{}").is_ok());
}
