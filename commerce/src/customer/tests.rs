//! Customers against PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use serde_json::json;

use super::*;
use crate::order::tests::world::World;

#[tokio::test]
async fn a_customer_is_shown_to_those_who_may_see_them() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    let contact = json!({"name": "Ada Lovelace", "email": "ada@example.com", "phone": null});
    let order = world
        .place(json!({"lines": [{"variantId": variant, "quantity": 1}], "customer": contact}))
        .await
        .unwrap();
    let id = order.customer_id.unwrap();
    let mut tx = world.tx().await;
    let seen = get(&mut tx, &world.keyring, &world.actor, id)
        .await
        .unwrap();
    assert_eq!(
        serde_json::to_value(seen.contact.as_ref().unwrap()).unwrap(),
        contact
    );
    let found = find_by_email(&mut tx, &world.keyring, &world.actor, "ADA@example.com")
        .await
        .unwrap();
    assert_eq!(found, Some(seen));
    assert_eq!(
        find_by_email(&mut tx, &world.keyring, &world.actor, "da@example.com")
            .await
            .unwrap(),
        None
    );

    let blind = world.limited("customers:read", None, true);
    assert_eq!(
        get(&mut tx, &world.keyring, &blind, id)
            .await
            .unwrap()
            .contact,
        None
    );
    assert!(matches!(
        find_by_email(&mut tx, &world.keyring, &blind, "ada@example.com").await,
        Err(Error::MissingScope(_))
    ));
    let elsewhere = world.limited("customers:read", Some(vec![world.locations[1]]), true);
    assert!(matches!(
        get(&mut tx, &world.keyring, &elsewhere, id).await,
        Err(Error::NotFound { .. })
    ));
    let here = world.limited("customers:read", Some(vec![world.locations[0]]), true);
    assert!(get(&mut tx, &world.keyring, &here, id).await.is_ok());
    drop(tx);
    let stranger = world.stranger().await;
    let mut tx = world.api.enter(stranger.merchant).await.unwrap();
    assert!(matches!(
        get(&mut tx, &world.keyring, &stranger, id).await,
        Err(Error::NotFound { .. })
    ));
}
