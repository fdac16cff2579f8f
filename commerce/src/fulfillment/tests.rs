//! Fulfilments against PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;
use crate::{
    Error, Refusal,
    order::{
        OrderStatus,
        tests::world::{World, tally},
    },
};

fn fulfill_with(order: OrderId, input: Value) -> Fulfill {
    Fulfill::new(order, serde_json::from_value(input).unwrap()).unwrap()
}

async fn order_of_two_places(world: &World) -> Order {
    let (here, there) = (
        world.stocked("here", 5).await,
        world.variant("there", "1.00", "EUR").await,
    );
    world.stock(there, world.locations[1], 5).await;
    world.place(json!({"lines": [{"variantId": here, "quantity": 3}, {"variantId": there, "quantity": 2}]})).await.unwrap()
}

#[tokio::test]
async fn an_order_is_shipped_in_parts_and_its_stock_leaves_with_them() {
    let world = World::new().await;
    let order = order_of_two_places(&world).await;
    let part = world
        .run(&fulfill_with(order.id, json!({"lines": [{"line": 1, "quantity": 2}], "carrier": "DHL", "trackingNumber": "00340434161094042557"})))
        .await
        .unwrap();
    assert_eq!(part.order.status, OrderStatus::PartiallyFulfilled);
    assert_eq!(part.fulfillments.len(), 1);
    assert_eq!(
        part.fulfillments[0].lines,
        [FulfillmentLine {
            line: 1,
            quantity: 2
        }]
    );
    let level = world
        .level(order.lines[0].variant_id, world.locations[0])
        .await;
    assert_eq!((level.on_hand, level.reserved, level.available), (3, 1, 2));

    let rest = world.run(&fulfill_with(order.id, json!({}))).await.unwrap();
    assert_eq!(rest.order.status, OrderStatus::Fulfilled);
    let places: Vec<_> = rest
        .fulfillments
        .iter()
        .map(|fulfillment| (fulfillment.location_id, fulfillment.lines[0].quantity))
        .collect();
    assert_eq!(
        places,
        [(world.locations[0], 1), (world.locations[1], 2)],
        "one for each location"
    );
    world.check_books().await;
    let kinds: Vec<_> = world
        .events_of(order.id)
        .await
        .into_iter()
        .map(|(kind, version, _)| (kind, version))
        .collect();
    let expected = [
        ("order.placed", 1),
        ("order.partially_fulfilled", 2),
        ("order.fulfilled", 3),
    ];
    assert_eq!(
        kinds,
        expected.map(|(kind, version)| (kind.to_owned(), version))
    );
    assert_eq!(world.event_counts().await["fulfillment.shipped"], 3);

    let again = world.run(&fulfill_with(order.id, json!({}))).await;
    assert_eq!(tally([again]), HashMap::from([("invalid_transition", 1)]));
    let mut tx = world.tx().await;
    assert_eq!(
        list_of_order(&mut tx, &world.actor, order.id)
            .await
            .unwrap()
            .len(),
        3
    );
    let stored = get(&mut tx, &world.actor, part.fulfillments[0].id)
        .await
        .unwrap();
    assert_eq!(stored, part.fulfillments[0]);
}

#[tokio::test]
async fn more_than_is_left_and_lines_that_are_not_there_are_named() {
    let world = World::new().await;
    let order = order_of_two_places(&world).await;
    let refused = world
        .run(&fulfill_with(
            order.id,
            json!({"lines": [{"line": 2, "quantity": 1}, {"line": 1, "quantity": 4}]}),
        ))
        .await;
    let Err(Error::Refused(Refusal::QuantityExceeded { lines })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        (
            lines.len(),
            lines[0].index,
            lines[0].requested,
            lines[0].available
        ),
        (1, 1, 4, 3)
    );
    let refused = world
        .run(&fulfill_with(
            order.id,
            json!({"lines": [{"line": 7, "quantity": 1}]}),
        ))
        .await;
    assert_eq!(tally([refused]), HashMap::from([("invalid_fields", 1)]));
    assert_eq!(world.count("fulfillments").await, 0);
    world.check_books().await;
}

#[tokio::test]
async fn whoever_is_limited_to_a_location_ships_and_sees_what_leaves_it() {
    let world = World::new().await;
    let order = order_of_two_places(&world).await;
    let limited = world.limited("fulfillments:write", Some(vec![world.locations[1]]), false);
    let elsewhere = world
        .run_as(
            &limited,
            &fulfill_with(order.id, json!({"lines": [{"line": 1, "quantity": 1}]})),
        )
        .await;
    assert_eq!(tally([elsewhere]), HashMap::from([("invalid_fields", 1)]));
    let own = world
        .run_as(&limited, &fulfill_with(order.id, json!({})))
        .await
        .unwrap();
    assert_eq!(own.order.status, OrderStatus::PartiallyFulfilled);
    let nothing_left = world
        .run_as(&limited, &fulfill_with(order.id, json!({})))
        .await;
    assert_eq!(
        tally([nothing_left]),
        HashMap::from([("quantity_exceeded", 1)])
    );
    let rest = world
        .run(&fulfill_with(
            order.id,
            json!({"locationId": world.locations[0]}),
        ))
        .await
        .unwrap();
    let mut tx = world.tx().await;
    assert_eq!(
        list_of_order(&mut tx, &limited, order.id).await.unwrap(),
        own.fulfillments
    );
    assert!(matches!(
        get(&mut tx, &limited, rest.fulfillments[0].id).await,
        Err(Error::NotFound { .. })
    ));
    drop(tx);
    let stranger = world.stranger().await;
    let foreign = world
        .run_as(&stranger, &fulfill_with(order.id, json!({})))
        .await;
    assert_eq!(tally([foreign]), HashMap::from([("not_found", 1)]));
}

#[tokio::test]
async fn tracking_is_changed_at_the_version_that_is_expected() {
    let world = World::new().await;
    let order = order_of_two_places(&world).await;
    let shipped = world
        .run(&fulfill_with(
            order.id,
            json!({"lines": [{"line": 1, "quantity": 3}]}),
        ))
        .await
        .unwrap();
    let fulfillment = &shipped.fulfillments[0];
    let input = |number: &str| TrackingInput {
        tracking_number: Some(number.to_owned()),
        ..TrackingInput::default()
    };
    let stale = UpdateTracking::new(fulfillment.id, Some(Version::new(9)), input("1")).unwrap();
    assert_eq!(
        tally([world.run(&stale).await]),
        HashMap::from([("version_mismatch", 1)])
    );
    let update = UpdateTracking::new(
        fulfillment.id,
        Some(fulfillment.version),
        input("4111111111111111"),
    )
    .unwrap();
    let updated = world.run(&update).await.unwrap();
    assert_eq!(
        updated.tracking_number.as_deref(),
        Some("4111111111111111"),
        "a tracking number may look like a card number"
    );
    assert_eq!(updated.version, Version::new(2));
    let same = UpdateTracking::new(fulfillment.id, None, input("4111111111111111")).unwrap();
    assert_eq!(world.run(&same).await.unwrap(), updated);
    assert_eq!(
        world.event_counts().await["fulfillment.tracking_updated"],
        1
    );
    for bad in ["javascript:alert(1)", "https://", "http://a b"] {
        let input = TrackingInput {
            tracking_url: Some(bad.to_owned()),
            ..TrackingInput::default()
        };
        assert!(
            UpdateTracking::new(fulfillment.id, None, input).is_err(),
            "{bad}"
        );
    }
}
