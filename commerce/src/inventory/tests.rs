//! Stock against PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{collections::HashMap, sync::Arc};

use kernel::{
    idempotency::Member,
    page::{self, PageRequest},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    Error, Refusal,
    order::tests::world::{World, tally},
    product::VariantId,
};

fn set(entries: &Value) -> Set {
    Set::new(serde_json::from_value(json!({"entries": entries, "note": "counted"})).unwrap())
        .unwrap()
}

fn adjust(entries: &Value) -> Adjust {
    Adjust::new(serde_json::from_value(json!({"entries": entries})).unwrap()).unwrap()
}

#[tokio::test]
async fn levels_are_set_and_adjusted_and_every_change_is_in_the_ledger() {
    let world = World::new().await;
    let (variant, place) = (
        world.variant("thing", "1.00", "EUR").await,
        world.locations[0],
    );
    let entry =
        |on_hand: i32| json!([{"variantId": variant, "locationId": place, "onHand": on_hand}]);
    let first = world.run(&set(&entry(0))).await.unwrap();
    assert_eq!(
        (first.levels[0].on_hand, first.levels[0].version),
        (0, Version::FIRST)
    );
    world.run(&set(&entry(5))).await.unwrap();
    let same = world.run(&set(&entry(5))).await.unwrap();
    assert_eq!(
        same.levels[0].version,
        Version::new(2),
        "what is already so changes nothing"
    );
    let left = world
        .run(&adjust(
            &json!([{"variantId": variant, "locationId": place, "delta": -5}]),
        ))
        .await
        .unwrap();
    assert_eq!(
        (left.levels[0].on_hand, left.levels[0].version),
        (0, Version::new(3))
    );
    world.check_books().await;

    let mut tx = world.tx().await;
    let page = list_movements(
        &mut tx,
        &world.actor,
        variant,
        place,
        &PageRequest {
            limit: 1,
            after: None,
        },
    )
    .await
    .unwrap();
    let rest = PageRequest {
        limit: 9,
        after: Some(page::decode(&page.next_cursor.unwrap()).unwrap()),
    };
    let rest = list_movements(&mut tx, &world.actor, variant, place, &rest)
        .await
        .unwrap();
    let deltas: Vec<_> = page
        .data
        .iter()
        .chain(&rest.data)
        .map(|movement| {
            (
                movement.reason,
                movement.on_hand_delta,
                movement.note.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        deltas,
        [
            (MovementReason::Set, 5, Some("counted")),
            (MovementReason::Adjusted, -5, None)
        ]
    );
    drop(tx);
    let events: Vec<_> = world
        .events_of(first.levels[0].resource_id())
        .await
        .into_iter()
        .map(|(kind, version, _)| (kind, version))
        .collect();
    let expected = [
        ("inventory.level_changed", 1),
        ("inventory.level_changed", 2),
        ("inventory.restocked", 2),
        ("inventory.exhausted", 3),
        ("inventory.level_changed", 3),
    ];
    assert_eq!(
        events,
        expected.map(|(kind, version)| (kind.to_owned(), version))
    );
}

#[tokio::test]
async fn a_call_is_done_as_a_whole_or_names_every_entry_that_stands_against_it() {
    let world = World::new().await;
    let (held, free) = (
        world.stocked("held", 5).await,
        world.stocked("free", 5).await,
    );
    world.place_line(held, 3).await.unwrap();
    let (here, there) = (world.locations[0], world.locations[1]);
    let refused = world
        .run(&set(&json!([
            {"variantId": free, "locationId": here, "onHand": 9},
            {"variantId": held, "locationId": here, "onHand": 2},
            {"variantId": held, "locationId": there, "onHand": 1},
        ])))
        .await;
    let Err(Error::Refused(Refusal::StockOutOfRange { entries })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].index, entries[0].on_hand, entries[0].reserved),
        (1, 2, 3)
    );
    assert_eq!(world.level(free, here).await.on_hand, 5);
    let refused = world
        .run(&adjust(&json!([
            {"variantId": held, "locationId": here, "delta": -3},
            {"variantId": free, "locationId": here, "delta": 1_000_000_000},
        ])))
        .await;
    let Err(Error::Refused(Refusal::StockOutOfRange { entries })) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(
        entries.iter().map(|entry| entry.index).collect::<Vec<_>>(),
        [0, 1]
    );
    let unknown = crate::product::VariantId::new(world.now());
    let nowhere = LocationId::new(world.now());
    let refused = world
        .run(&adjust(
            &json!([{"variantId": unknown, "locationId": nowhere, "delta": 1}]),
        ))
        .await;
    let Err(Error::Invalid(errors)) = refused else {
        panic!("{refused:?}")
    };
    let pointers: Vec<_> = errors
        .iter()
        .map(|error| error.pointer.as_deref().unwrap())
        .collect();
    assert_eq!(pointers, ["/entries/0/variantId", "/entries/0/locationId"]);
    world.check_books().await;
}

#[test]
fn a_level_is_named_once_and_numbers_are_bounded() {
    let entry = json!({"variantId": "var_01jd3x5k8vfm7b2c9q0r4t6w8y", "locationId": "loc_01jd3x5k8vfm7b2c9q0r4t6w8y", "onHand": -1});
    let input =
        serde_json::from_value(json!({"entries": [entry, entry], "note": "4111 1111 1111 1111"}))
            .unwrap();
    let Err(Error::Invalid(errors)) = Set::new(input) else {
        panic!("must be refused")
    };
    let codes: Vec<_> = errors
        .iter()
        .map(|error| (error.pointer.as_deref().unwrap(), &*error.code))
        .collect();
    assert_eq!(
        codes,
        [
            ("/entries/1", "duplicate"),
            ("/note", "card_number"),
            ("/entries/0/onHand", "out_of_range"),
            ("/entries/1/onHand", "out_of_range")
        ]
    );
}

#[tokio::test]
async fn changes_of_a_group_are_decided_in_their_order_and_a_refused_one_leaves_nothing() {
    let world = World::new().await;
    let known = world.stocked("known", 5).await;
    let new = world.variant("new", "1.00", "EUR").await;
    let unknown = VariantId::new(world.now());
    let (here, there) = (world.locations[0], world.locations[1]);
    let delta = |variant: VariantId, location: LocationId, delta: i32| json!({"variantId": variant, "locationId": location, "delta": delta});
    let operations = [
        adjust(&json!([delta(known, here, -4)])),
        // Only one is left by now, and so the other level doesn't come into being either.
        adjust(&json!([delta(new, there, 3), delta(known, here, -2)])),
        adjust(&json!([delta(unknown, here, 1)])),
        adjust(&json!([delta(new, here, 2)])),
        adjust(&json!([delta(new, here, 2), delta(known, here, -1)])),
    ];
    let keys: Vec<_> = operations.iter().map(|_| world.key()).collect();
    let members: Vec<_> = operations
        .iter()
        .zip(&keys)
        .map(|(operation, key)| Member {
            actor: &world.actor,
            key,
            operation,
        })
        .collect();
    let before = world.rows("select distinct xmin::text from inventory_movements");
    let before = before.await.len();
    let outcomes = world
        .idempotency
        .once_many(world.actor.merchant, &members)
        .await;
    let found: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(answer) => answer
                .value
                .levels
                .iter()
                .map(|level| level.on_hand)
                .collect(),
            Err(failed) => match &failed.error {
                Error::Refused(Refusal::StockOutOfRange { .. }) => vec![-1],
                Error::Invalid(_) => vec![-2],
                error => panic!("{error}"),
            },
        })
        .collect();
    assert_eq!(found, [vec![1], vec![-1], vec![-2], vec![2], vec![4, 0]]);
    assert_eq!(
        world.rows("select from inventory_levels").await.len(),
        2,
        "the refused change's new level isn't there"
    );
    let after = world.rows("select distinct xmin::text from inventory_movements");
    assert_eq!(
        after.await.len(),
        before + 1,
        "one transaction did them all"
    );
    let told = world
        .events_of(world.level(new, here).await.resource_id())
        .await;
    let told: Vec<_> = told
        .into_iter()
        .map(|(kind, version, _)| (kind, version))
        .collect();
    assert_eq!(
        told,
        [("inventory.level_changed".to_owned(), 2)],
        "where it ends, not every step"
    );
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_and_orders_of_the_same_goods_at_once_lose_nothing() {
    let world = Arc::new(World::new().await);
    let mut pairs = Vec::new();
    for name in ["a", "b", "c"] {
        let variant = world.variant(name, "1.00", "EUR").await;
        pairs.push((variant, world.locations[0]));
        pairs.push((variant, world.locations[1]));
    }
    let tasks: Vec<_> = (0..60_usize)
        .map(|number| {
            let (world, mut pairs) = (Arc::clone(&world), pairs.clone());
            tokio::spawn(async move {
                pairs.rotate_left(number % 6);
                if number % 3 == 0 {
                    let lines: Vec<_> = pairs.iter().map(|(variant, _)| json!({"variantId": variant, "quantity": 1})).collect();
                    world.place(json!({"lines": lines})).await.map(drop)
                } else {
                    let entries: Vec<_> =
                        pairs.iter().map(|(variant, place)| json!({"variantId": variant, "locationId": place, "delta": 1})).collect();
                    world.run(&adjust(&json!(entries))).await.map(drop)
                }
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    let tally = tally(results);
    assert_eq!(tally.values().sum::<usize>(), 60);
    assert!(
        tally
            .keys()
            .all(|slug| ["ok", "insufficient_stock"].contains(slug)),
        "{tally:?}"
    );
    for (variant, place) in pairs {
        assert_eq!(world.level(variant, place).await.on_hand, 40);
    }
    world.check_books().await;
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one world is listed in every way")]
async fn levels_are_listed_by_time_of_change_within_what_is_visible() {
    let world = World::new().await;
    let (one, two) = (world.stocked("one", 5).await, world.stocked("two", 5).await);
    world.clock.advance(std::time::Duration::from_mins(2));
    let start = world.now();
    world.clock.advance(std::time::Duration::from_millis(5));
    world.stock(one, world.locations[1], 7).await;
    let everything = PageRequest {
        limit: 50,
        after: None,
    };
    let mut tx = world.tx().await;
    let page = list(
        &mut tx,
        &world.actor,
        &InventoryFilter::default(),
        &PageRequest {
            limit: 2,
            after: None,
        },
    )
    .await
    .unwrap();
    let next = PageRequest {
        limit: 2,
        after: Some(page::decode(&page.next_cursor.unwrap()).unwrap()),
    };
    let next = list(&mut tx, &world.actor, &InventoryFilter::default(), &next)
        .await
        .unwrap();
    assert_eq!(
        (page.data.len(), next.data.len(), next.data[0].on_hand),
        (2, 1, 7)
    );
    for (filter, count) in [
        (
            InventoryFilter {
                variant: Some(two),
                ..InventoryFilter::default()
            },
            1,
        ),
        (
            InventoryFilter {
                location: Some(world.locations[0]),
                ..InventoryFilter::default()
            },
            2,
        ),
        (
            InventoryFilter {
                updated_after: Some(start),
                ..InventoryFilter::default()
            },
            1,
        ),
    ] {
        let page = list(&mut tx, &world.actor, &filter, &everything)
            .await
            .unwrap();
        assert_eq!(page.data.len(), count, "{filter:?}");
    }
    let limited = world.limited("inventory:write", Some(vec![world.locations[1]]), false);
    assert_eq!(
        list(&mut tx, &limited, &InventoryFilter::default(), &everything)
            .await
            .unwrap()
            .data
            .len(),
        1
    );
    let hidden = list_movements(
        &mut tx,
        &limited,
        one,
        world.locations[0],
        &PageRequest {
            limit: 5,
            after: None,
        },
    )
    .await;
    assert!(matches!(hidden, Err(Error::NotFound { .. })));
    assert_eq!(
        levels_of(&mut tx, &limited, &[one, two])
            .await
            .unwrap()
            .len(),
        1
    );
    drop(tx);
    let elsewhere =
        adjust(&json!([{"variantId": one, "locationId": world.locations[0], "delta": 1}]));
    assert_eq!(
        tally([world.run_as(&limited, &elsewhere).await]),
        HashMap::from([("invalid_fields", 1)])
    );
    let stranger = world.stranger().await;
    assert_eq!(
        tally([world.run_as(&stranger, &elsewhere).await]),
        HashMap::from([("invalid_fields", 1)])
    );
    let reader = world.limited("inventory:read", None, false);
    assert_eq!(
        tally([world.run_as(&reader, &elsewhere).await]),
        HashMap::from([("insufficient_scope", 1)])
    );
}
