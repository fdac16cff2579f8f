//! One noun, one JSON: a product and an order are the same in REST, in GraphQL and in the events about them.

use serde_json::{Map, Value, json};
use tests::wait_for;

use super::{document::Call, world, world::text};

/// The GraphQL selection of what `value` has.
fn selection(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let fields: Vec<String> = members
                .iter()
                .map(|(name, member)| format!("{name} {}", selection(member)))
                .collect();
            format!("{{ {} }}", fields.join(" "))
        }
        Value::Array(elements) => elements.first().map(selection).unwrap_or_default(),
        _ => String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_graphql_and_events_say_the_same_of_a_product_and_an_order() {
    let world = world().await;
    let order = world.place_order().await;
    for (noun, id, created) in [
        ("product", world.make("prod").await, "product.created"),
        ("order", text(&order, "id"), "order.placed"),
    ] {
        let rest = world
            .owner
            .get(&format!("/v1/{noun}s/{id}"))
            .await
            .expect(200);
        let query = format!(
            "query($id: ID!) {{ {noun}(id: $id) {} }}",
            selection(&with_some_of_each(&rest))
        );
        let graphql = world
            .owner
            .graphql(&query, json!({"id": id}))
            .await
            .expect(200);
        assert_eq!(graphql["data"][noun], rest, "{noun} in GraphQL");

        let event = wait_for("the event", async || {
            let events = world.owner.feed().await;
            events
                .into_iter()
                .find(|event| event["type"] == created && event["data"]["id"] == id.as_str())
        })
        .await;
        assert_eq!(event["data"], rest, "{noun} in {created}");
    }
}

/// What is empty has no first element to tell its fields by: those of a product that has one of everything do.
fn with_some_of_each(value: &Value) -> Value {
    let Value::Object(members) = value else {
        return value.clone();
    };
    let filled = members.iter().map(|(name, member)| {
        let member = match name.as_str() {
            "attributes" => json!([{"name": "", "value": ""}]),
            "options" => json!([{"name": "", "values": []}]),
            "compareAtPrice" => json!({"amount": "", "currency": ""}),
            "media" => json!([{"url": "", "alt": "", "kind": ""}]),
            _ => match member {
                Value::Array(elements) => {
                    Value::Array(elements.iter().map(with_some_of_each).collect())
                }
                other => with_some_of_each(other),
            },
        };
        (name.clone(), member)
    });
    Value::Object(filled.collect::<Map<_, _>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_with_one_of_everything_is_the_same_in_rest_and_graphql() {
    let world = world().await;
    let mut body = world
        .operation("upsertProduct")
        .body
        .as_ref()
        .unwrap()
        .example
        .clone();
    body["description"] = json!("<p>Linen</p>");
    body["tags"] = json!(["summer", "linen"]);
    body["attributes"] = json!([{"name": "material", "value": "linen"}]);
    body["media"] =
        json!([{"url": "https://shop.example/shirt.jpg", "alt": "the shirt", "kind": "image"}]);
    body["variants"][0]["compareAtPrice"] = json!({"amount": "59.00", "currency": "EUR"});
    body["variants"][0]["weightGrams"] = json!(180);
    body["variants"][0]["attributes"] = json!([{"name": "cut", "value": "wide"}]);
    let call: Call = world
        .operation("upsertProduct")
        .call(&std::collections::BTreeMap::new())
        .with_body(body);
    let upserted = call
        .send(&world.stoa.base_url(), Some(&world.owner.token()))
        .await;
    let rest = upserted.json["product"].clone();
    let query = format!(
        "query($id: ID!) {{ product(id: $id) {} }}",
        selection(&with_some_of_each(&rest))
    );
    let graphql = world
        .owner
        .graphql(&query, json!({"id": rest["id"]}))
        .await
        .expect(200);
    assert_eq!(graphql["data"]["product"], rest);
}
