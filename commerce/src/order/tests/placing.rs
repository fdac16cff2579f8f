use std::{collections::HashMap, sync::Arc};

use kernel::{
    idempotency::{Failed, Member},
    problem::Problem,
};
use serde_json::json;
use together::join_all;

use super::world::{World, tally};
use crate::{Error, Refusal, order::Order};

/// Futures at once, each in a task of its own.
pub(super) mod together {
    pub(crate) async fn join_all<T: Send + 'static>(
        futures: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
    ) -> Vec<T> {
        let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
        let mut results = Vec::with_capacity(tasks.len());
        for task in tasks {
            results.push(task.await.unwrap());
        }
        results
    }
}

#[tokio::test]
async fn an_order_has_the_catalogs_prices_and_reserves_its_stock() {
    let world = World::new().await;
    let (shirt, book) = (
        world.stocked("shirt", 5).await,
        world.variant("book", "7.45", "EUR").await,
    );
    world.stock(book, world.locations[1], 3).await;
    let order = world
        .place(json!({"externalId": "W-1", "lines": [{"variantId": shirt, "quantity": 2}, {"variantId": book, "quantity": 3}]}))
        .await
        .unwrap();
    assert_eq!(order.total.to_string(), "42.35 EUR");
    let lines: Vec<_> = order
        .lines
        .iter()
        .map(|line| (line.line, line.sku.as_deref().unwrap(), line.location_id))
        .collect();
    assert_eq!(
        lines,
        [
            (1, "shirt", world.locations[0]),
            (2, "book", world.locations[1])
        ]
    );
    let level = world.level(book, world.locations[1]).await;
    assert_eq!((level.on_hand, level.reserved, level.available), (3, 3, 0));
    world.check_books().await;

    let events = world.events_of(order.id).await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].0.as_str(), events[0].1), ("order.placed", 1));
    assert_eq!(
        events[0].2,
        serde_json::to_value(&order).unwrap(),
        "the event's data is the order as the API shows it"
    );
    let stock: Vec<_> = world
        .events_of(level.resource_id())
        .await
        .into_iter()
        .map(|(kind, version, _)| (kind, version))
        .collect();
    assert_eq!(
        stock,
        [
            ("inventory.level_changed".to_owned(), 1),
            ("inventory.exhausted".to_owned(), 2),
            ("inventory.level_changed".to_owned(), 2)
        ]
    );
}

#[tokio::test]
async fn what_can_not_be_filled_is_named_line_by_line_and_nothing_is_reserved() {
    let world = World::new().await;
    let (full, short, nowhere) = (
        world.stocked("full", 5).await,
        world.stocked("short", 2).await,
        world.variant("nowhere", "1.00", "EUR").await,
    );
    world.stock(short, world.locations[1], 1).await;
    let refused = world
        .place(json!({"lines": [
            {"variantId": full, "quantity": 3}, {"variantId": short, "quantity": 3}, {"variantId": full, "quantity": 3},
            {"variantId": nowhere, "quantity": 1},
        ]}))
        .await;
    let Err(Error::Refused(Refusal::InsufficientStock { lines })) = refused else {
        panic!("{refused:?}")
    };
    let lines: Vec<_> = lines
        .iter()
        .map(|line| (line.index, line.requested, line.available))
        .collect();
    assert_eq!(
        lines,
        [(1, 3, 2), (2, 3, 2), (3, 1, 0)],
        "what the first line takes is not there for the third"
    );
    assert_eq!(world.level(full, world.locations[0]).await.reserved, 0);
    assert_eq!(world.count("orders").await, 0);
    world.check_books().await;
}

#[tokio::test]
async fn what_is_not_for_sale_not_there_or_in_another_currency_is_named_by_its_pointer() {
    let world = World::new().await;
    let (euro, dollar) = (
        world.stocked("euro", 5).await,
        world.variant("dollar", "1.00", "USD").await,
    );
    let draft = world
        .variant_of_status("draft", "1.00", "EUR", "draft")
        .await;
    let unknown = crate::product::VariantId::new(world.now());
    let refused = world
        .place(json!({"lines": [
            {"variantId": euro, "quantity": 1}, {"variantId": dollar, "quantity": 1}, {"variantId": draft, "quantity": 1},
            {"variantId": unknown, "quantity": 1},
        ], "locationId": kernel::id::LocationId::new(world.now())}))
        .await;
    let Err(Error::Invalid(errors)) = refused else {
        panic!("{refused:?}")
    };
    let errors: Vec<_> = errors
        .iter()
        .map(|error| (error.pointer.as_deref().unwrap(), &*error.code))
        .collect();
    assert_eq!(
        errors,
        [
            ("/locationId", "not_found"),
            ("/lines/1/variantId", "mixed_currencies"),
            ("/lines/2/variantId", "not_for_sale"),
            ("/lines/3/variantId", "not_found")
        ]
    );
    assert_eq!(
        world
            .count("idempotency_keys where operation = 'order.place'")
            .await,
        0,
        "missing things are never kept"
    );
}

#[tokio::test]
async fn an_external_id_is_taken_once_even_by_orders_that_come_together() {
    let world = Arc::new(World::new().await);
    let variant = world.stocked("thing", 50).await;
    let results = join_all((0..20).map(|_| {
        let world = Arc::clone(&world);
        async move {
            world
                .place(
                    json!({"externalId": "same", "lines": [{"variantId": variant, "quantity": 1}]}),
                )
                .await
        }
    }))
    .await;
    assert_eq!(
        tally(results),
        HashMap::from([("ok", 1), ("external_id_taken", 19)])
    );
    assert_eq!(world.level(variant, world.locations[0]).await.reserved, 1);
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_500_orders_for_100_pieces_100_are_placed_and_400_refused() {
    let world = Arc::new(World::new().await);
    let variant = world.stocked("hot", 100).await;
    let results = join_all((0..500).map(|_| {
        let world = Arc::clone(&world);
        async move {
            let (key, operation) = (
                world.key(),
                world.order(json!({"lines": [{"variantId": variant, "quantity": 1}]})),
            );
            loop {
                match world.idempotency.once(&world.actor, &key, &operation).await {
                    Ok(answer) => break Ok(answer.value),
                    // On a busy machine 500 don't get one of the pool's connections in time: they come again with their key, as clients do.
                    Err(Failed {
                        error: Error::Database(error),
                        ..
                    }) if error.is_unavailable() => {}
                    Err(Failed { error, .. }) => break Err(error),
                }
            }
        }
    }))
    .await;
    assert_eq!(
        tally(results),
        HashMap::from([("ok", 100), ("insufficient_stock", 400)])
    );
    let level = world.level(variant, world.locations[0]).await;
    assert_eq!(
        (level.on_hand, level.reserved, level.available),
        (100, 100, 0)
    );
    assert_eq!(world.count("orders").await, 100);
    assert_eq!(world.event_counts().await["inventory.exhausted"], 1);
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_that_name_the_same_goods_in_opposite_orders_do_not_wait_in_a_circle() {
    let world = Arc::new(World::new().await);
    let mut variants = Vec::new();
    for name in ["a", "b", "c", "d"] {
        variants.push(world.stocked(name, 1_000).await);
    }
    let deadlocks = || async {
        world
            .database
            .count("select deadlocks from pg_stat_database where datname = current_database()")
            .await
            .unwrap()
    };
    let before = deadlocks().await;
    let results = join_all((0..120).map(|number| {
        let (world, mut variants) = (Arc::clone(&world), variants.clone());
        async move {
            if number % 2 == 0 {
                variants.reverse();
            }
            variants.rotate_left(number % 3);
            let lines: Vec<_> = variants
                .iter()
                .map(|variant| json!({"variantId": variant, "quantity": 1}))
                .collect();
            world.place(json!({"lines": lines})).await
        }
    }))
    .await;
    assert_eq!(tally(results), HashMap::from([("ok", 120)]));
    assert_eq!(deadlocks().await, before);
    world.check_books().await;
}

#[tokio::test]
async fn a_key_gives_the_same_order_again_and_another_input_is_refused() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    let key = world.key();
    let operation = world.order(json!({"lines": [{"variantId": variant, "quantity": 2}], "customer": {"email": "ada@example.com"}}));
    let first = world
        .idempotency
        .once(&world.actor, &key, &operation)
        .await
        .unwrap();
    let again = world
        .idempotency
        .once(&world.actor, &key, &operation)
        .await
        .unwrap();
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.value, again.value);
    assert_eq!(world.level(variant, world.locations[0]).await.reserved, 2);
    let other = world.order(json!({"lines": [{"variantId": variant, "quantity": 1}]}));
    let Err(Failed { error, .. }) = world.idempotency.once(&world.actor, &key, &other).await else {
        panic!("must be refused")
    };
    assert_eq!(Problem::from(error).kind.slug, "idempotency_key_reused");
    let elsewhere = world.limited("orders:write", Some(vec![world.locations[1]]), true);
    let Err(Failed { error, .. }) = world.idempotency.once(&elsewhere, &key, &operation).await
    else {
        panic!("must not be shown")
    };
    assert_eq!(Problem::from(error).kind.slug, "not_found");
}

#[tokio::test]
async fn a_refusal_is_kept_and_replayed_even_when_stock_has_come_back() {
    let world = World::new().await;
    let variant = world.stocked("thing", 1).await;
    let (key, operation) = (
        world.key(),
        world.order(json!({"lines": [{"variantId": variant, "quantity": 2}]})),
    );
    assert!(
        world
            .idempotency
            .once(&world.actor, &key, &operation)
            .await
            .is_err()
    );
    world.stock(variant, world.locations[0], 10).await;
    let Err(Failed { error, replayed }) =
        world.idempotency.once(&world.actor, &key, &operation).await
    else {
        panic!("must be kept")
    };
    assert!(replayed);
    assert_eq!(Problem::from(error).kind.slug, "insufficient_stock");
}

#[tokio::test]
async fn whoever_is_limited_to_a_location_orders_from_there_alone() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    world.stock(variant, world.locations[1], 1).await;
    let limited = world.limited("orders:write", Some(vec![world.locations[1]]), true);
    let two = world.order(json!({"lines": [{"variantId": variant, "quantity": 2}]}));
    assert_eq!(
        tally([world.run_as(&limited, &two).await]),
        HashMap::from([("insufficient_stock", 1)])
    );
    let elsewhere = world.order(
        json!({"lines": [{"variantId": variant, "quantity": 1}], "locationId": world.locations[0]}),
    );
    assert_eq!(
        tally([world.run_as(&limited, &elsewhere).await]),
        HashMap::from([("invalid_fields", 1)])
    );
    let one = world.order(json!({"lines": [{"variantId": variant, "quantity": 1}]}));
    let order: Order = world.run_as(&limited, &one).await.unwrap();
    assert_eq!(order.locations(), [world.locations[1]]);
    world.check_books().await;
}

#[tokio::test]
async fn another_merchants_goods_and_places_are_not_there() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    let stranger = world.stranger().await;
    let operation = world.order(
        json!({"lines": [{"variantId": variant, "quantity": 1}], "locationId": world.locations[0]}),
    );
    let Err(Error::Invalid(errors)) = world.run_as(&stranger, &operation).await else {
        panic!("must be refused")
    };
    assert_eq!(
        errors
            .iter()
            .map(|error| error.pointer.as_deref().unwrap())
            .collect::<Vec<_>>(),
        ["/locationId", "/lines/0/variantId"]
    );
    assert_eq!(world.level(variant, world.locations[0]).await.reserved, 0);
}

#[tokio::test]
async fn a_group_of_keys_is_placed_in_one_transaction_in_the_order_of_arrival() {
    let world = World::new().await;
    let variant = world.stocked("hot", 3).await;
    let operation = world.order(json!({"lines": [{"variantId": variant, "quantity": 1}]}));
    let keys: Vec<_> = (0..5).map(|_| world.key()).collect();
    let members: Vec<_> = keys
        .iter()
        .map(|key| Member {
            actor: &world.actor,
            key,
            operation: &operation,
        })
        .collect();
    let outcomes = world
        .idempotency
        .once_many(world.actor.merchant, &members)
        .await;
    let placed: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(placed, [true, true, true, false, false]);
    assert_eq!(
        world
            .rows("select distinct xmin::text from orders")
            .await
            .len(),
        1,
        "one transaction wrote them all"
    );
    let stock = world
        .events_of(world.level(variant, world.locations[0]).await.resource_id())
        .await;
    assert_eq!(
        stock.last().map(|event| event.1),
        Some(4),
        "three reservations after the first count"
    );
    assert_eq!(stock.len(), 3, "a group tells once where a level ends");
    world.check_books().await;
}

#[tokio::test]
async fn an_input_is_told_every_fault_at_once() {
    let bad = json!({
        "externalId": " ",
        "lines": [{"variantId": "var_01jd3x5k8vfm7b2c9q0r4t6w8y", "quantity": 0}],
        "customer": {"name": "4111 1111 1111 1111", "email": "nobody"},
        "shippingAddress": {"line1": "", "city": "Berlin", "country": "de"},
    });
    let Err(kernel::validation::JsonError::Fields(errors)) =
        kernel::validation::from_json_line::<crate::order::OrderInput>(bad.to_string().as_bytes())
    else {
        panic!("must be refused")
    };
    let errors: Vec<_> = errors
        .iter()
        .map(|error| (error.pointer.as_deref().unwrap(), &*error.code))
        .collect();
    assert_eq!(
        errors,
        [
            ("/externalId", "required"),
            ("/lines/0/quantity", "out_of_range"),
            ("/customer/name", "card_number"),
            ("/customer/email", "invalid"),
            ("/shippingAddress/line1", "required"),
            ("/shippingAddress/country", "invalid"),
        ]
    );
}
