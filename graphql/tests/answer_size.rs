//! Answers that would be too large: they fail whole, wherever it shows.
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

use std::fmt::Write;

use serde_json::{Value, json};
use tower::ServiceExt;
use world::{World, product_json};

fn code(answer: &Value) -> &str {
    answer["errors"][0]["extensions"]["code"]
        .as_str()
        .unwrap_or_default()
}

#[tokio::test]
async fn long_texts_are_not_gathered_without_end() {
    let world = World::new().await;
    let mut input = product_json("A", 1);
    input["description"] = json!("x".repeat(60_000));
    let upsert = "mutation($input: ProductInput!) { productUpsert(input: $input, idempotencyKey: \"k\") { product { id } } }";
    let upserted = world.ask(upsert, json!({"input": input})).await;
    let id = &upserted["data"]["productUpsert"]["product"]["id"];
    let times = |times: usize| {
        let fields: Vec<_> = (0..times)
            .map(|place| format!("a{place}: description"))
            .collect();
        let fields = fields.join(" ");
        format!(
            "query($id: ID!) {{ product(id: $id) {{ {fields} }} other: product(id: $id) {{ title }} }}"
        )
    };
    let fine = world
        .ask(
            &times(usize::try_from(graphql::TEXT_BYTES_MAX).unwrap() / 60_000 - 1),
            json!({"id": id}),
        )
        .await;
    assert!(fine.get("errors").is_none());
    let answer = world
        .ask(
            &times(usize::try_from(graphql::TEXT_BYTES_MAX).unwrap() / 60_000 + 2),
            json!({"id": id}),
        )
        .await;
    assert_answer_too_large(&answer);
}

/// The whole answer has failed, not the parts of it that came last.
fn assert_answer_too_large(answer: &Value) {
    assert_eq!(code(answer), "answer_too_large");
    assert_eq!(answer["errors"].as_array().unwrap().len(), 1);
    assert_eq!(answer["errors"][0]["path"][0], "product");
    assert_eq!(answer["data"], Value::Null);
}

fn values_max() -> usize {
    graphql::VALUES_MAX.try_into().unwrap()
}

/// So many of `selection`, each under a name of its own if it has one.
fn fields(selection: &str, times: usize) -> String {
    (0..times).fold(String::new(), |mut fields, place| {
        let selection = selection.replace("a:", &format!("a{place:x}:"));
        write!(fields, "{selection} ").unwrap();
        fields
    })
}

/// A product of 250 variants, and a document that asks each of them for so many of `selection`.
async fn wide_product(world: &World) -> impl Fn(&str, usize) -> String {
    let id = world.product("W", 250).await.id;
    move |selection, times| {
        let fields = fields(selection, times);
        format!(
            "{{ product(id: \"{id}\") {{ variants {{ {fields} }} }} other: product(id: \"{id}\") {{ title }} }}"
        )
    }
}

#[tokio::test]
async fn values_are_counted_as_often_as_they_are_resolved() {
    let world = World::new().await;
    let document = wide_product(&world).await;
    let many = values_max() / 250 + 1;
    for (selection, each) in [
        ("a: position", 1),
        ("a: archived", 1),
        ("a: sku", 1),
        ("a: __typename", 1),
        ("__typename", 1),
        ("...T", 1),
        ("a: price { amount }", 2),
        ("a: optionValues", 2),
    ] {
        let mut query = document(selection, many / each);
        if selection == "...T" {
            query.push_str(" fragment T on Variant { __typename }");
        }
        assert_answer_too_large(&world.ask(&query, json!({})).await);
    }
    let answer = world
        .ask(&document("a: position", many / 2), json!({}))
        .await;
    assert!(answer.get("errors").is_none(), "{}", answer["errors"]);
    assert_eq!(
        answer["data"]["product"]["variants"][249]["a0"], 250,
        "a large answer is still an answer"
    );
}

#[tokio::test]
async fn the_names_of_fields_count_as_text() {
    let world = World::new().await;
    let document = wide_product(&world).await;
    let long = "x".repeat(50_000);
    for selection in ["position", "__typename"] {
        let query =
            document("...L", 3) + &format!(" fragment L on Variant {{ {long}: {selection} }}");
        assert_answer_too_large(&world.ask(&query, json!({})).await);
    }
}

#[tokio::test]
async fn the_answers_of_a_batch_are_counted_together() {
    let world = World::new().await;
    let document = wide_product(&world).await;
    let half = values_max() / 250 * 2 / 3;
    let small = "{ products(first: 1) { nodes { id } } }";
    let batch = json!([
        {"query": document("a: position", half)},
        {"query": document("a: position", half)},
        {"query": small},
    ]);
    let mut request = axum::http::Request::post("/graphql")
        .header("content-type", "application/json")
        .body(axum::body::Body::from(batch.to_string()))
        .unwrap();
    request.extensions_mut().insert(world.actor.clone());
    let response = graphql::router(world.schema.clone())
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(response.status().as_u16(), 200, "something was executed");
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    let answers: Value = serde_json::from_slice(&bytes).unwrap();
    assert!(
        answers[0].get("errors").is_none(),
        "{}",
        answers[0]["errors"]
    );
    assert_answer_too_large(&answers[1]);
    assert_eq!(code(&answers[2]), "answer_too_large");
    assert!(answers[2].get("data").is_none(), "it was not executed");
}

#[tokio::test]
async fn a_mutation_whose_answer_was_too_large_can_be_asked_again() {
    let world = World::new().await;
    let fields = fields("a: position", values_max() / 250 + 1);
    let query = |fields: &str| {
        format!(
            "mutation($input: ProductInput!) {{
            product: productUpsert(input: $input, idempotencyKey: \"a\") {{ product {{ variants {{ {fields} }} }} outcome replayed }}
            later: productUpsert(input: $input, idempotencyKey: \"b\") {{ outcome }} }}"
        )
    };
    let variables = json!({"input": product_json("W", 250)});
    assert_answer_too_large(&world.ask(&query(&fields), variables.clone()).await);
    let again = world.ask(&query("position"), variables).await;
    assert_eq!(
        (
            &again["data"]["product"]["replayed"],
            &again["data"]["later"]["outcome"]
        ),
        (&json!(true), &json!("unchanged")),
        "{}",
        again["errors"]
    );
}
