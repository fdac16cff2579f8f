use std::{collections::HashMap, sync::Arc};

use kernel::personal;
use serde_json::{Value, json};
use sqlx::Row;

use super::{
    placing::together::join_all,
    world::{World, tally},
};
use crate::{
    customer,
    order::{self, Cancel, Order, OrderCancelInput},
    product::VariantId,
};

const SECRETS: [&str; 6] = [
    "Lovelace",
    "ada@example.com",
    "Ada@Example.com",
    "20 7946 0000",
    "James",
    "SW1Y",
];

fn input(variant: VariantId, email: &str) -> Value {
    json!({
        "lines": [{"variantId": variant, "quantity": 1}],
        "customer": {"name": "Ada Lovelace", "email": email, "phone": "+44 20 7946 0000"},
        "shippingAddress": {"line1": "12 St James's Square", "city": "London", "postalCode": "SW1Y 4JH", "country": "GB"},
    })
}

async fn revealed(world: &World, actor: &kernel::actor::Actor, order: &Order) -> Order {
    let mut tx = world.tx().await;
    let mut orders = order::reveal(&mut tx, &world.keyring, actor, vec![order.clone()])
        .await
        .unwrap();
    orders.pop().unwrap()
}

#[tokio::test]
async fn nothing_personal_is_readable_in_any_row() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    let order = world
        .place(input(variant, "Ada@Example.com"))
        .await
        .unwrap();
    world
        .run(&Cancel::new(order.id, None, OrderCancelInput::default()).unwrap())
        .await
        .unwrap();
    assert_eq!((order.customer, order.shipping_address), (None, None));
    let tables = world.rows("select table_name::text from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'").await;
    let mut seen = Vec::new();
    for table in tables {
        let table: String = table.get(0);
        // A row as text shows bytes as hexadecimal digits: the texts are looked for in that spelling too.
        let mut tx = world.tx().await;
        let Ok(rows) = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select t::text from {table} t"
        )))
        .fetch_all(&mut *tx)
        .await
        else {
            continue;
        };
        if !rows.is_empty() {
            seen.push(table.clone());
        }
        for row in rows {
            let text: String = row.get(0);
            for secret in SECRETS {
                let digits = secret.bytes().fold(String::new(), |digits, byte| {
                    digits + &format!("{byte:02x}")
                });
                assert!(
                    !text.contains(secret) && !text.contains(&digits),
                    "{secret} is readable in {table}: {text}"
                );
            }
        }
    }
    for table in ["orders", "customers", "outbox", "idempotency_keys"] {
        assert!(
            seen.iter().any(|seen| seen == table),
            "{table} was looked into"
        );
    }
}

#[tokio::test]
async fn whoever_may_see_it_is_shown_what_was_given_and_nobody_else() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    let order = world
        .place(input(variant, "ada@example.com"))
        .await
        .unwrap();
    let shown = revealed(&world, &world.actor, &order).await;
    assert_eq!(
        shown.customer.as_ref().unwrap().name.as_deref(),
        Some("Ada Lovelace")
    );
    assert_eq!(
        shown
            .shipping_address
            .as_ref()
            .unwrap()
            .postal_code
            .as_deref(),
        Some("SW1Y 4JH")
    );
    for (scopes, personal_data) in [
        ("orders:read", true),
        ("orders:read orders.pii:read", false),
    ] {
        let limited = world.limited(scopes, None, personal_data);
        assert_eq!(revealed(&world, &limited, &order).await, order);
    }
}

#[tokio::test]
async fn the_personal_part_of_every_event_opens_under_the_customers_key() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    let order = world
        .place(input(variant, "ada@example.com"))
        .await
        .unwrap();
    world
        .run(&Cancel::new(order.id, None, OrderCancelInput::default()).unwrap())
        .await
        .unwrap();
    let shown = serde_json::to_value(revealed(&world, &world.actor, &order).await).unwrap();
    let customer = order.customer_id.unwrap();
    let mut tx = world.tx().await;
    let keys = personal::keys(&mut tx, &world.keyring, world.actor.merchant, &[customer])
        .await
        .unwrap();
    drop(tx);
    let rows = world
        .rows("select type, data, personal, subject_id from outbox where resource_type = 'order'")
        .await;
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row.get::<uuid::Uuid, _>(3), customer.uuid());
        let opened = keys[&customer]
            .open(kernel::event::PERSONAL_CONTEXT, row.get(2))
            .unwrap();
        let part: serde_json::Map<String, Value> = serde_json::from_slice(&opened).unwrap();
        let mut data: Value = row.get(1);
        data.as_object_mut().unwrap().extend(part);
        assert_eq!(
            (&data["customer"], &data["shippingAddress"]),
            (&shown["customer"], &shown["shippingAddress"])
        );
    }
}

#[tokio::test]
async fn an_address_of_any_case_belongs_to_one_customer_and_no_address_to_a_new_one_each_time() {
    let world = World::new().await;
    let variant = world.stocked("thing", 9).await;
    let first = world
        .place(input(variant, "ada@example.com"))
        .await
        .unwrap();
    let second = world.place(input(variant, " ADA@example.COM ")).await;
    let second = second.unwrap();
    assert_eq!(first.customer_id, second.customer_id);
    let mut nobody = input(variant, "x@example.com");
    nobody["customer"] = json!({"name": "Ada Lovelace"});
    let (third, fourth) = (
        world.place(nobody.clone()).await.unwrap(),
        world.place(nobody).await.unwrap(),
    );
    assert_ne!(third.customer_id, fourth.customer_id);
    assert_ne!(third.customer_id, first.customer_id);
    let mut address_alone = input(variant, "x@example.com");
    address_alone.as_object_mut().unwrap().remove("customer");
    let fifth = world.place(address_alone).await.unwrap();
    assert!(
        revealed(&world, &world.actor, &fifth)
            .await
            .shipping_address
            .is_some()
    );
    let none = world.place_line(variant, 1).await.unwrap();
    assert_eq!(none.customer_id, None);
    assert_eq!(world.count("customers").await, 4);
    assert_eq!(world.count("data_subject_keys").await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_orders_of_one_address_at_once_make_one_customer() {
    let world = Arc::new(World::new().await);
    let mut variants = Vec::new();
    for number in 0..16 {
        variants.push(world.stocked(&format!("thing {number}"), 5).await);
    }
    let results = join_all(variants.into_iter().map(|variant| {
        let world = Arc::clone(&world);
        async move { world.place(input(variant, "ada@example.com")).await }
    }))
    .await;
    assert_eq!(tally(results), HashMap::from([("ok", 16)]));
    assert_eq!(world.count("customers").await, 1);
    assert_eq!(
        world.count("data_subject_keys").await,
        1,
        "no key is left of those who came second"
    );
    assert_eq!(
        world
            .rows("select distinct customer_id from orders")
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn after_erasure_an_order_shows_nobody_and_goes_on() {
    let world = World::new().await;
    let variant = world.stocked("thing", 5).await;
    let order = world
        .place(input(variant, "ada@example.com"))
        .await
        .unwrap();
    let customer = order.customer_id.unwrap();
    let mut tx = world.tx().await;
    personal::erase(&mut tx, world.actor.merchant, customer)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(revealed(&world, &world.actor, &order).await, order);
    let mut tx = world.tx().await;
    assert_eq!(
        customer::get(&mut tx, &world.keyring, &world.actor, customer)
            .await
            .unwrap()
            .contact,
        None
    );
    drop(tx);
    world
        .run(&Cancel::new(order.id, None, OrderCancelInput::default()).unwrap())
        .await
        .unwrap();
    let again = world
        .place(input(variant, "ada@example.com"))
        .await
        .unwrap();
    assert_ne!(
        again.customer_id,
        Some(customer),
        "whoever comes back is somebody new"
    );
    assert!(
        revealed(&world, &world.actor, &again)
            .await
            .customer
            .is_some()
    );
    let third = world
        .place(input(variant, "ada@example.com"))
        .await
        .unwrap();
    assert_eq!(third.customer_id, again.customer_id);
}
