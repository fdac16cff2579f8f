use std::{collections::HashMap, sync::Arc};

use kernel::version::Version;
use serde_json::json;

use super::{
    placing::together::join_all,
    world::{World, tally},
};
use crate::{
    Error,
    fulfillment::{Fulfill, FulfillmentInput},
    order::{self, Cancel, OrderCancelInput, OrderId, OrderStatus},
};

fn cancel(order: OrderId) -> Cancel {
    Cancel::new(
        order,
        None,
        OrderCancelInput {
            reason: Some("changed their mind".to_owned()),
        },
    )
    .unwrap()
}

#[tokio::test]
async fn a_cancelled_order_gives_its_stock_back_and_says_who_and_why() {
    let world = World::new().await;
    let variant = world.stocked("thing", 2).await;
    let order = world.place_line(variant, 2).await.unwrap();
    let cancelled = world.run(&cancel(order.id)).await.unwrap();
    assert_eq!(
        (cancelled.status, cancelled.version),
        (OrderStatus::Cancelled, Version::new(2))
    );
    let level = world.level(variant, world.locations[0]).await;
    assert_eq!((level.on_hand, level.reserved, level.available), (2, 0, 2));
    world.check_books().await;
    assert_eq!(world.event_counts().await["inventory.restocked"], 1);
    let kinds: Vec<_> = world
        .events_of(order.id)
        .await
        .into_iter()
        .map(|(kind, version, _)| (kind, version))
        .collect();
    assert_eq!(
        kinds,
        [
            ("order.placed".to_owned(), 1),
            ("order.cancelled".to_owned(), 2)
        ]
    );
    let mut tx = world.tx().await;
    let steps = order::transitions(&mut tx, &world.actor, order.id)
        .await
        .unwrap();
    assert_eq!(steps.len(), 2);
    assert_eq!(
        (steps[1].command.as_str(), steps[1].from_status),
        ("cancel", Some(OrderStatus::Placed))
    );
    assert_eq!(
        (steps[1].reason.as_deref(), steps[1].app_id),
        (Some("changed their mind"), world.actor.app)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_cancellations_at_once_one_gives_the_stock_back() {
    let world = Arc::new(World::new().await);
    let variant = world.stocked("thing", 10).await;
    let order = world.place_line(variant, 4).await.unwrap();
    let results = join_all((0..16).map(|_| {
        let world = Arc::clone(&world);
        async move { world.run(&cancel(order.id)).await }
    }))
    .await;
    assert_eq!(
        tally(results),
        HashMap::from([("ok", 1), ("invalid_transition", 15)])
    );
    assert_eq!(world.level(variant, world.locations[0]).await.available, 10);
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_shipped_or_cancelled_but_never_both() {
    let world = Arc::new(World::new().await);
    let variant = world.stocked("thing", 100).await;
    for _ in 0..12 {
        let order = world.place_line(variant, 2).await.unwrap();
        let racers: Vec<_> = (0..6)
            .map(|number| {
                let world = Arc::clone(&world);
                tokio::spawn(async move {
                    if number % 2 == 0 {
                        world.run(&cancel(order.id)).await.map(|order| order.status)
                    } else {
                        let fulfill = Fulfill::new(order.id, FulfillmentInput::default()).unwrap();
                        world
                            .run(&fulfill)
                            .await
                            .map(|fulfilled| fulfilled.order.status)
                    }
                })
            })
            .collect();
        let mut results = Vec::new();
        for racer in racers {
            results.push(racer.await.unwrap());
        }
        let winners: Vec<_> = results.iter().flatten().copied().collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let mut tx = world.tx().await;
        assert_eq!(
            order::get(&mut tx, &world.actor, order.id)
                .await
                .unwrap()
                .status,
            winners[0]
        );
        drop(tx);
        world.check_books().await;
    }
}

#[tokio::test]
async fn a_cancellation_of_another_version_changes_nothing_and_is_not_kept() {
    let world = World::new().await;
    let variant = world.stocked("thing", 2).await;
    let order = world.place_line(variant, 2).await.unwrap();
    let key = world.key();
    let stale = Cancel::new(order.id, Some(Version::new(7)), OrderCancelInput::default()).unwrap();
    let failed = world
        .idempotency
        .once(&world.actor, &key, &stale)
        .await
        .unwrap_err();
    assert!(matches!(
        failed.error,
        Error::VersionMismatch {
            expected: 7,
            current: 1
        }
    ));
    let right = Cancel::new(order.id, Some(order.version), OrderCancelInput::default()).unwrap();
    assert!(
        world
            .idempotency
            .once(&world.actor, &key, &right)
            .await
            .is_ok(),
        "the key is still free"
    );
}

#[tokio::test]
async fn whoever_sees_a_part_of_an_order_does_not_cancel_the_whole() {
    let world = World::new().await;
    let (here, there) = (
        world.stocked("here", 2).await,
        world.variant("there", "1.00", "EUR").await,
    );
    world.stock(there, world.locations[1], 2).await;
    let order = world
        .place(json!({"lines": [{"variantId": here, "quantity": 1}, {"variantId": there, "quantity": 1}]}))
        .await
        .unwrap();
    let limited = world.limited("orders:write", Some(vec![world.locations[0]]), true);
    assert!(matches!(
        world.run_as(&limited, &cancel(order.id)).await,
        Err(Error::NotFound {
            noun: "location",
            ..
        })
    ));
    let blind = world.limited(
        "orders:write",
        Some(vec![kernel::id::LocationId::new(world.now())]),
        true,
    );
    assert!(matches!(
        world.run_as(&blind, &cancel(order.id)).await,
        Err(Error::NotFound { noun: "order", .. })
    ));
    let stranger = world.stranger().await;
    assert!(matches!(
        world.run_as(&stranger, &cancel(order.id)).await,
        Err(Error::NotFound { noun: "order", .. })
    ));
    let reader = world.limited("orders:read", None, true);
    assert!(matches!(
        world.run_as(&reader, &cancel(order.id)).await,
        Err(Error::MissingScope(_))
    ));
}

#[test]
fn a_reason_holds_no_card_number() {
    let reason = Some("refunded to 4111 1111 1111 1111".to_owned());
    let id = OrderId::new(kernel::clock::Timestamp::from_unix_millis(0));
    assert!(matches!(
        Cancel::new(id, None, OrderCancelInput { reason }),
        Err(Error::Invalid(_))
    ));
}
