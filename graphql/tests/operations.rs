//! Queries and mutations on a real database: the same results, refusals and replays as the operations that REST runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "the other binaries use more of the world")]

#[path = "support/world.rs"]
mod world;

use std::sync::Arc;

use commerce::order::{OrderInput, Place};
use graphql::{ROOT_FIELDS, RootKind};
use kernel::{
    actor::{Access, Actor},
    idempotency::Key,
    scope::Scope,
};
use serde_json::{Value, json};
use world::{World, actor_of, now, order_json, product_json};

const UPSERT: &str = "mutation($input: ProductInput!, $key: String!, $version: Version) {
    productUpsert(input: $input, idempotencyKey: $key, ifVersion: $version) { outcome replayed product { id version title variants { sku } } } }";
const PLACE: &str = "mutation($input: OrderInput!, $key: String!) {
    orderPlace(input: $input, idempotencyKey: $key) { replayed order { id status total { amount } customer { name } lines { sku quantity } } } }";
const CANCEL: &str = "mutation($id: ID!, $key: String!, $version: Version) {
    orderCancel(id: $id, reason: \"changed their mind\", idempotencyKey: $key, ifVersion: $version) { replayed order { id status version } } }";

fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_default()
}

async fn stocked(world: &World, external_id: &str, on_hand: i32) -> commerce::product::Product {
    let location = world.location("north").await;
    let product = world.product(external_id, 1).await;
    world.stock(&product, &location, on_hand).await;
    product
}

#[tokio::test]
async fn a_product_is_upserted_once_per_key() {
    let world = World::new().await;
    let variables = json!({"input": product_json("A", 2), "key": "k1"});
    let first = world.ask(UPSERT, variables.clone()).await;
    let made = &first["data"]["productUpsert"];
    assert_eq!(
        (&made["outcome"], &made["replayed"]),
        (&json!("created"), &json!(false)),
        "{first}"
    );
    let again = world.ask(UPSERT, variables).await;
    assert_eq!(again["data"]["productUpsert"]["replayed"], true);
    assert_eq!(again["data"]["productUpsert"]["product"], made["product"]);
    let reused = world
        .ask(UPSERT, json!({"input": product_json("A", 3), "key": "k1"}))
        .await;
    assert_eq!(code(&reused), "idempotency_key_reused");
    assert_eq!(reused["data"], json!({"productUpsert": null}));
    let stale = world
        .ask(
            UPSERT,
            json!({"input": product_json("A", 3), "key": "k2", "version": 7}),
        )
        .await;
    assert_eq!(code(&stale), "version_mismatch");
    let current = world
        .ask(
            UPSERT,
            json!({"input": product_json("A", 3), "key": "k2", "version": 1}),
        )
        .await;
    assert_eq!(
        current["data"]["productUpsert"]["product"]["version"], 2,
        "{current}"
    );
}

#[tokio::test]
async fn every_invalid_field_is_named_with_the_pointer_that_rest_gives() {
    let world = World::new().await;
    let mut input = product_json("A", 2);
    input["title"] = json!(" ");
    input["variants"][1]["price"]["currency"] = json!("eur");
    let answer = world.ask(UPSERT, json!({"input": input, "key": "k"})).await;
    let rest = kernel::validation::from_json::<commerce::product::ProductInput>(
        input.to_string().as_bytes(),
    )
    .unwrap_err();
    assert_eq!(code(&answer), "invalid_fields");
    assert_eq!(
        answer["errors"][0]["extensions"]["errors"],
        serde_json::to_value(&rest.errors).unwrap()
    );
    assert_eq!(answer["errors"][0]["extensions"]["status"], 422);
    assert_eq!(answer["errors"][0]["path"], json!(["productUpsert"]));
    let mut input = product_json("A", 2);
    input["title"] = json!("");
    input["brand"] = json!("x".repeat(300));
    let answer = world.ask(UPSERT, json!({"input": input, "key": "k"})).await;
    let pointers: Vec<_> = answer["errors"][0]["extensions"]["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].clone())
        .collect();
    assert_eq!(pointers, [json!("/title"), json!("/brand")], "{answer}");
    for key in ["", "two words", "ключ"] {
        let answer = world
            .ask(UPSERT, json!({"input": product_json("A", 1), "key": key}))
            .await;
        assert_eq!(code(&answer), "idempotency_key_required", "{key}");
    }
    assert_eq!(
        world
            .database
            .count("select count(*) from outbox")
            .await
            .unwrap(),
        0,
        "nothing was changed"
    );
}

#[tokio::test]
async fn a_key_used_by_rest_is_replayed_by_graphql() {
    let world = World::new().await;
    let product = stocked(&world, "A", 10).await;
    let input: OrderInput = serde_json::from_value(order_json(&product, 2)).unwrap();
    let key: Key = "shared".parse().unwrap();
    let place = Place::new(input, Arc::clone(&world.keyring)).unwrap();
    let placed = world
        .idempotency
        .once(&world.actor, &key, &place)
        .await
        .unwrap();
    assert!(!placed.replayed);
    let answer = world
        .ask(
            PLACE,
            json!({"input": order_json(&product, 2), "key": "shared"}),
        )
        .await;
    let replay = &answer["data"]["orderPlace"];
    assert_eq!(replay["replayed"], true, "{answer}");
    assert_eq!(replay["order"]["id"], json!(placed.value.id));
    assert_eq!(
        replay["order"]["customer"]["name"], "Ada Lovelace",
        "shown to those who may see it, replayed or not"
    );
    let other = world
        .ask(
            PLACE,
            json!({"input": order_json(&product, 3), "key": "shared"}),
        )
        .await;
    assert_eq!(code(&other), "idempotency_key_reused");
}

#[tokio::test]
async fn sixty_four_equal_requests_make_one_order() {
    let world = World::new().await;
    let product = stocked(&world, "A", 100).await;
    let answers = (0..64).map(|_| {
        world.ask(
            PLACE,
            json!({"input": order_json(&product, 1), "key": "same"}),
        )
    });
    let answers = futures_util::future::join_all(answers).await;
    let ids: std::collections::HashSet<_> = answers
        .iter()
        .map(|answer| answer["data"]["orderPlace"]["order"]["id"].to_string())
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(
        answers
            .iter()
            .filter(|answer| answer["data"]["orderPlace"]["replayed"] == false)
            .count(),
        1
    );
}

#[tokio::test]
async fn refusals_have_the_codes_of_rest_and_are_replayed() {
    let world = World::new().await;
    let product = stocked(&world, "A", 1).await;
    let variables = json!({"input": order_json(&product, 2), "key": "k"});
    let refused = world.ask(PLACE, variables.clone()).await;
    assert_eq!(code(&refused), "insufficient_stock");
    let extensions = &refused["errors"][0]["extensions"];
    assert_eq!(extensions["errors"][0]["pointer"], "/lines/0/quantity");
    assert!(extensions.get("replayed").is_none());
    let again = world.ask(PLACE, variables).await;
    assert_eq!(
        (code(&again), &again["errors"][0]["extensions"]["replayed"]),
        ("insufficient_stock", &json!(true))
    );

    let order = world.order(&product, 1).await;
    let cancelled = world
        .ask(CANCEL, json!({"id": order.id, "key": "c1", "version": 1}))
        .await;
    assert_eq!(
        cancelled["data"]["orderCancel"]["order"]["status"], "cancelled",
        "{cancelled}"
    );
    let twice = world
        .ask(CANCEL, json!({"id": order.id, "key": "c2"}))
        .await;
    assert_eq!(code(&twice), "invalid_transition");
    for id in [
        "nonsense",
        "prod_01jd3x5k8vfm7b2c9q0r4t6w8y",
        "ord_01jd3x5k8vfm7b2c9q0r4t6w8y",
    ] {
        assert_eq!(
            code(&world.ask(CANCEL, json!({"id": id, "key": "c3"})).await),
            "not_found",
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_failed_mutation_leaves_the_answers_of_those_beside_it() {
    let world = World::new().await;
    let query = "mutation($good: ProductInput!, $bad: ProductInput!) {
        a: productUpsert(input: $good, idempotencyKey: \"a\") { outcome }
        b: productUpsert(input: $bad, idempotencyKey: \"b\") { outcome }
        c: productUpsert(input: $good, idempotencyKey: \"c\") { outcome } }";
    let mut bad = product_json("B", 1);
    bad["title"] = json!("");
    let answer = world
        .ask(query, json!({"good": product_json("A", 1), "bad": bad}))
        .await;
    assert_eq!(
        answer["data"],
        json!({"a": {"outcome": "created"}, "b": null, "c": {"outcome": "unchanged"}}),
        "one after the other: {answer}"
    );
    assert_eq!(
        (code(&answer), &answer["errors"][0]["path"]),
        ("invalid_fields", &json!(["b"]))
    );
}

#[tokio::test]
async fn an_argument_that_can_not_be_read_is_found_before_anything_is_changed() {
    let world = World::new().await;
    let product = stocked(&world, "A", 10).await;
    let query = |version: &str| {
        format!(
            "mutation($input: OrderInput!{}) {{
            a: orderPlace(input: $input, idempotencyKey: \"a\") {{ replayed }}
            b: orderCancel(id: \"ord_01jd3x5k8vfm7b2c9q0r4t6w8y\", idempotencyKey: \"b\", ifVersion: {version}) {{ replayed }} }}",
            if version == "$version" { ", $version: Version" } else { "" }
        )
    };
    for (version, variable) in [
        ("0", json!(1)),
        ("\"1\"", json!(1)),
        ("1.5", json!(1)),
        ("$version", json!(0)),
        ("$version", json!(-1)),
        ("$version", json!("1")),
        ("$version", json!([1])),
        ("$version", json!(u64::MAX)),
    ] {
        let variables = json!({"input": order_json(&product, 1), "version": variable});
        let answer = world.ask(&query(version), variables).await;
        assert_eq!(code(&answer), "invalid_query", "{version}: {answer}");
        assert!(answer.get("data").is_none(), "{answer}");
        let error = &answer["errors"][0];
        assert_eq!(error["locations"][0]["line"], 3, "{answer}");
        assert!(
            error["message"].as_str().unwrap().contains("ifVersion"),
            "{answer}"
        );
    }
    let orders = world.ask("{ orders { nodes { id } } }", json!({})).await;
    assert_eq!(orders["data"]["orders"]["nodes"], json!([]), "{orders}");
    let fine = json!({"input": order_json(&product, 1), "version": i64::MAX});
    let answer = world.ask(&query("$version"), fine).await;
    assert_eq!(
        (&answer["data"]["a"]["replayed"], code(&answer)),
        (&json!(false), "not_found"),
        "{answer}"
    );
}

/// A document that asks for one root field, in a way that would succeed or fail by its arguments alone.
fn document(field: &graphql::RootField, product: &str, order: &str) -> String {
    let selection = match field.name {
        "product" => format!("product(id: \"{product}\") {{ id }}"),
        "order" => format!("order(id: \"{order}\") {{ id }}"),
        "products" | "orders" => format!("{} {{ nodes {{ id }} }}", field.name),
        "productUpsert" => "productUpsert(input: {externalId: \"X\", title: \"\", variants: []}, idempotencyKey: \"m\") { replayed }".to_owned(),
        "orderPlace" => "orderPlace(input: {lines: []}, idempotencyKey: \"m\") { replayed }".to_owned(),
        "orderCancel" => format!("orderCancel(id: \"{order}\", idempotencyKey: \"m\") {{ replayed }}"),
        other => panic!("the matrix does not know {other}"),
    };
    let kind = if field.kind == RootKind::Query {
        "query"
    } else {
        "mutation"
    };
    format!("{kind} {{ field: {selection} }}")
}

#[tokio::test]
async fn every_root_field_needs_its_scope_and_shows_nobody_elses() {
    let world = World::new().await;
    let product = stocked(&world, "A", 5).await;
    let order = world.order(&product, 1).await;
    let foreign = actor_of(
        world
            .database
            .merchant(&world.keyring, now())
            .await
            .unwrap(),
    );
    for field in ROOT_FIELDS {
        let document = document(field, &product.id.to_string(), &order.id.to_string());
        let others: Vec<Scope> = Scope::ALL
            .iter()
            .copied()
            .filter(|&scope| scope != field.scope && scope.implied() != Some(field.scope))
            .collect();
        let answer = world
            .ask_as(&world.with_scopes(&others), &document, json!({}))
            .await;
        assert_eq!(
            code(&answer),
            "insufficient_scope",
            "{}: {answer}",
            field.name
        );
        assert_eq!(
            answer["errors"][0]["extensions"]["requiredScope"],
            field.scope.name()
        );
        let answer = world
            .ask_as(&world.with_scopes(&[field.scope]), &document, json!({}))
            .await;
        assert_ne!(
            code(&answer),
            "insufficient_scope",
            "{}: {answer}",
            field.name
        );
        let answer = world.ask_as(&foreign, &document, json!({})).await;
        match field.name {
            "products" | "orders" => {
                assert_eq!(answer["data"]["field"]["nodes"], json!([]), "{answer}");
            }
            "productUpsert" | "orderPlace" => assert_eq!(code(&answer), "invalid_fields"),
            _ => assert_eq!(code(&answer), "not_found", "{}: {answer}", field.name),
        }
    }
}

#[tokio::test]
async fn what_belongs_to_other_aggregates_needs_their_scopes_and_fails_alone() {
    let world = World::new().await;
    let product = stocked(&world, "A", 5).await;
    let order = world.order(&product, 1).await;
    world.fulfill(&order).await;
    let query = "query($id: ID!) { order(id: $id) { id customer { name } shippingAddress { city } fulfillments { status }
        lines { sku quantity variant { sku } product { title } location { name } } } }";
    let all = world.ask(query, json!({"id": order.id})).await;
    assert_eq!(
        all["data"]["order"],
        json!({"id": order.id, "customer": {"name": "Ada Lovelace"}, "shippingAddress": {"city": "London"}, "fulfillments": [{"status": "shipped"}],
               "lines": [{"sku": "A-S0", "quantity": 1, "variant": {"sku": "A-S0"}, "product": {"title": "Shirt A"}, "location": {"name": "north"}}]}),
        "{all}"
    );
    let narrow = world
        .ask_as(
            &world.with_scopes(&[Scope::OrdersRead]),
            query,
            json!({"id": order.id}),
        )
        .await;
    assert_eq!(
        narrow["data"]["order"],
        json!({"id": order.id, "customer": null, "shippingAddress": null, "fulfillments": null,
               "lines": [{"sku": "A-S0", "quantity": 1, "variant": null, "product": null, "location": null}]}),
        "{narrow}"
    );
    let errors = narrow["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 4, "{narrow}");
    assert!(
        errors
            .iter()
            .all(|error| error["extensions"]["code"] == "insufficient_scope")
    );
    assert!(
        errors
            .iter()
            .any(|error| error["path"] == json!(["order", "lines", 0, "variant"]))
    );
    let without_personal_data = Actor {
        access: Access {
            personal_data: false,
            ..Access::full()
        },
        ..world.actor.clone()
    };
    let shown = world
        .ask_as(&without_personal_data, query, json!({"id": order.id}))
        .await;
    assert_eq!(shown["data"]["order"]["customer"], Value::Null);
    assert!(shown.get("errors").is_none(), "{shown}");
}

#[tokio::test]
async fn connections_page_forward_through_everything_once() {
    let world = World::new().await;
    for place in 0..7 {
        world.product(&format!("P{place}"), 1).await;
    }
    let query = "query($after: String) { products(first: 3, after: $after) {
        edges { cursor node { externalId } } nodes { externalId } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";
    let (mut seen, mut after, mut pages) = (Vec::new(), Value::Null, 0);
    loop {
        let answer = world.ask(query, json!({"after": after})).await;
        let page = &answer["data"]["products"];
        seen.extend(
            page["edges"]
                .as_array()
                .unwrap()
                .iter()
                .map(|edge| edge["node"]["externalId"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        assert_eq!(page["edges"][0]["cursor"], page["pageInfo"]["startCursor"]);
        assert_eq!(page["edges"][0]["node"], page["nodes"][0]);
        assert_eq!(page["pageInfo"]["hasPreviousPage"], pages > 1);
        after = page["pageInfo"]["endCursor"].clone();
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
    }
    seen.sort();
    assert_eq!(
        (pages, seen),
        (
            3,
            (0..7).map(|place| format!("P{place}")).collect::<Vec<_>>()
        )
    );
    let answer = world
        .ask(
            "{ products(first: 251, after: \"%\") { nodes { id } } }",
            json!({}),
        )
        .await;
    let parameters: Vec<_> = answer["errors"][0]["extensions"]["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["parameter"].clone())
        .collect();
    assert_eq!(
        (code(&answer), parameters),
        ("invalid_fields", vec![json!("first"), json!("after")])
    );
}

#[tokio::test]
async fn a_product_is_the_same_json_in_graphql_as_elsewhere() {
    let world = World::new().await;
    let product = world.product("A", 2).await;
    let query = "query($id: ID!) { product(id: $id) {
        id externalId title description brand category status tags options { name values } attributes { name value } media { url alt kind }
        variants { id productId externalId sku barcode price { amount currency } compareAtPrice { amount currency } weightGrams optionValues
            attributes { name value } position archived }
        version createdAt updatedAt } }";
    let answer = world.ask(query, json!({"id": product.id})).await;
    assert_eq!(
        answer["data"]["product"],
        serde_json::to_value(&product).unwrap(),
        "{answer}"
    );
}
