use kernel::page::{self, PageRequest};
use serde_json::json;

use super::world::World;
use crate::{
    Error,
    order::{self, Cancel, OrderCancelInput, OrderFilter, OrderKey, OrderStatus},
};

fn first_page(limit: u32) -> PageRequest<OrderKey> {
    PageRequest { limit, after: None }
}

#[tokio::test]
async fn orders_are_paged_by_time_of_change_and_filtered() {
    let world = World::new().await;
    let variant = world.stocked("thing", 50).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        world.clock.advance(std::time::Duration::from_millis(10));
        ids.push(world.place_line(variant, 1).await.unwrap().id);
    }
    let minutes = std::time::Duration::from_mins(2);
    world.clock.advance(minutes);
    let start = world.now();
    world.clock.advance(std::time::Duration::from_millis(10));
    world
        .run(&Cancel::new(ids[1], None, OrderCancelInput::default()).unwrap())
        .await
        .unwrap();

    let mut tx = world.tx().await;
    let (mut seen, mut request) = (Vec::new(), first_page(2));
    loop {
        let page = order::list(&mut tx, &world.actor, &OrderFilter::default(), &request)
            .await
            .unwrap();
        seen.extend(page.data.iter().map(|order| order.id));
        let Some(cursor) = page.next_cursor else {
            break;
        };
        request.after = Some(page::decode(&cursor).unwrap());
    }
    assert_eq!(
        seen,
        [ids[0], ids[2], ids[3], ids[4], ids[1]],
        "what changed is at the end"
    );
    for filter in [
        OrderFilter {
            status: Some(OrderStatus::Cancelled),
            ..OrderFilter::default()
        },
        OrderFilter {
            updated_after: Some(start),
            ..OrderFilter::default()
        },
        // Shown again: what was committed late may bear a time before it.
        OrderFilter {
            updated_after: Some(start.plus(std::time::Duration::from_secs(30))),
            ..OrderFilter::default()
        },
    ] {
        let page = order::list(&mut tx, &world.actor, &filter, &first_page(10))
            .await
            .unwrap();
        assert_eq!(
            page.data.iter().map(|order| order.id).collect::<Vec<_>>(),
            [ids[1]],
            "{filter:?}"
        );
    }
    let none = OrderFilter {
        updated_after: Some(start.plus(minutes)),
        ..OrderFilter::default()
    };
    let page = order::list(&mut tx, &world.actor, &none, &first_page(10)).await;
    assert!(page.unwrap().data.is_empty());
    let many = order::get_many(&mut tx, &world.actor, &ids).await.unwrap();
    assert_eq!(many.len(), 5);
    assert_eq!(many[&ids[0]].lines.len(), 1);
}

#[tokio::test]
async fn only_orders_of_visible_locations_are_seen_and_no_other_merchants() {
    let world = World::new().await;
    let (here, there) = (
        world.stocked("here", 5).await,
        world.variant("there", "1.00", "EUR").await,
    );
    world.stock(there, world.locations[1], 5).await;
    let near = world
        .place(json!({"externalId": "near", "lines": [{"variantId": here, "quantity": 1}]}))
        .await
        .unwrap();
    let far = world.place_line(there, 1).await.unwrap();
    let both = world.place(json!({"lines": [{"variantId": here, "quantity": 1}, {"variantId": there, "quantity": 1}]})).await.unwrap();

    let limited = world.limited("orders:read", Some(vec![world.locations[0]]), false);
    let mut tx = world.tx().await;
    let page = order::list(&mut tx, &limited, &OrderFilter::default(), &first_page(10))
        .await
        .unwrap();
    let seen: Vec<_> = page.data.iter().map(|order| order.id).collect();
    assert!(seen.len() == 2 && seen.contains(&near.id) && seen.contains(&both.id));
    assert!(matches!(
        order::get(&mut tx, &limited, far.id).await,
        Err(Error::NotFound { .. })
    ));
    assert_eq!(
        order::get_many(&mut tx, &limited, &[near.id, far.id])
            .await
            .unwrap()
            .len(),
        1
    );
    for (external_id, expected) in [("near", vec![near.id]), ("far", vec![]), ("", vec![])] {
        let filter = OrderFilter {
            external_id: Some(external_id.to_owned()),
            ..OrderFilter::default()
        };
        let page = order::list(&mut tx, &limited, &filter, &first_page(10))
            .await
            .unwrap();
        let found: Vec<_> = page.data.iter().map(|order| order.id).collect();
        assert_eq!(found, expected, "{external_id:?}");
    }
    assert!(matches!(
        order::get(&mut tx, &world.limited("catalog:read", None, true), near.id).await,
        Err(Error::MissingScope(_))
    ));
    drop(tx);

    let stranger = world.stranger().await;
    let mut tx = world.api.enter(stranger.merchant).await.unwrap();
    assert!(matches!(
        order::get(&mut tx, &stranger, near.id).await,
        Err(Error::NotFound { .. })
    ));
    // Even a statement that names the other merchant sees nothing of it.
    assert!(matches!(
        order::get(&mut tx, &world.actor, near.id).await,
        Err(Error::NotFound { .. })
    ));
    let page = order::list(
        &mut tx,
        &world.actor,
        &OrderFilter::default(),
        &first_page(10),
    )
    .await
    .unwrap();
    assert!(page.data.is_empty());
}

#[tokio::test]
async fn row_level_security_hides_every_table_of_another_merchant() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    world.place(json!({"lines": [{"variantId": variant, "quantity": 1}], "customer": {"email": "ada@example.com"}})).await.unwrap();
    let stranger = world.stranger().await;
    for table in [
        "locations",
        "inventory_levels",
        "inventory_movements",
        "customers",
        "orders",
        "order_lines",
        "order_transitions",
    ] {
        assert!(world.count(table).await > 0, "{table} has rows");
        let mut tx = world.api.enter(stranger.merchant).await.unwrap();
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("select from {table}")))
            .fetch_all(&mut *tx)
            .await
            .unwrap();
        assert!(rows.is_empty(), "{table} shows another merchant's rows");
        let changed = sqlx::query(sqlx::AssertSqlSafe(format!(
            "update {table} set merchant_id = merchant_id"
        )))
        .execute(&mut *tx)
        .await;
        assert!(
            changed.is_err() || changed.is_ok_and(|done| done.rows_affected() == 0),
            "{table}"
        );
    }
}
