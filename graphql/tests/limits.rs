//! Requests that ask for too much: refused before anything of them is executed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each binary uses its part of the support")]

#[path = "support/nowhere.rs"]
mod nowhere;

use std::fmt::Write;

use graphql::COST_MAX;
use nowhere::{JSON, ask, code, post, send};
use serde_json::{Value, json};

/// Whether a request was refused before execution: with the database away, what is executed says `unavailable`.
async fn refused_as(query: String, variables: Value, expected: &str) -> Value {
    let (status, answer) = ask(json!({"query": query, "variables": variables})).await;
    let error = answer["errors"][0].clone();
    assert_eq!(
        (status.as_u16(), code(&answer)),
        (400, expected),
        "{}",
        error["message"]
    );
    assert!(answer.get("data").is_none());
    error
}

#[tokio::test]
async fn what_costs_too_much_is_refused_with_its_cost_and_the_limit() {
    let query = "query($n: Int) { products(first: $n) { nodes { id title brand variants { id sku price { amount currency } } } } }";
    let (status, answer) = ask(json!({"query": query, "variables": {"n": 10}})).await;
    assert_eq!(
        (status.as_u16(), code(&answer)),
        (200, "unavailable"),
        "this one is executed: {answer}"
    );
    assert_eq!(
        answer["extensions"]["cost"],
        json!({"requested": 2 + 10 * (4 + 4 * 5), "limit": COST_MAX})
    );
    let nested = "query($n: Int) { orders(first: $n) { nodes { id lines { title product { title variants { id sku } } } } } }";
    let error = refused_as(nested.to_owned(), json!({"n": 250}), "query_too_costly").await;
    let cost = 2 + 250 * (1 + 1 + 4 * (1 + 1 + 1 + 1 + 4 * 2));
    assert_eq!(error["extensions"]["cost"], json!(cost), "{error}");
    assert_eq!(error["extensions"]["limit"], json!(COST_MAX));
}

#[tokio::test]
async fn thousands_of_aliases_are_refused() {
    let mut query = String::from("{");
    for place in 0..6_000 {
        write!(query, "a{place:x}:__typename ").unwrap();
    }
    query.push('}');
    assert!(query.len() > graphql::DOCUMENT_BYTES_MAX);
    refused_as(query, json!({}), "invalid_query").await;
    let mut query = String::from("{");
    for place in 0..1_200 {
        write!(query, "a{place:x}:products(first:9){{nodes{{id}}}} ").unwrap();
    }
    query.push('}');
    refused_as(query, json!({}), "query_too_costly").await;
}

#[tokio::test]
async fn fragment_bombs_are_refused() {
    let mut query = String::from("{ product(id: \"prod_01jd3x5k8vfm7b2c9q0r4t6w8y\") { ...F0 } }");
    for place in 0..25 {
        write!(
            query,
            " fragment F{place} on Product {{ ...F{0} ...F{0} ...F{0} ...F{0} }}",
            place + 1
        )
        .unwrap();
    }
    query.push_str(" fragment F25 on Product { id }");
    refused_as(query.clone(), json!({}), "invalid_query").await;
    // The same in an operation beside the one that is executed.
    let beside = query.replacen('{', "query Bomb {", 1) + " query Fine { __typename }";
    let (status, answer) = ask(json!({"query": beside, "operationName": "Fine"})).await;
    assert_eq!((status.as_u16(), code(&answer)), (400, "invalid_query"));
    for cycle in [
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "{ __typename } fragment A on Query { ...A }",
    ] {
        refused_as(cycle.to_owned(), json!({}), "invalid_query").await;
    }
}

#[tokio::test]
async fn deep_documents_are_refused_before_they_are_parsed() {
    for (opening, closing) in [
        ("{a", "}"),
        ("{a(b:[", "]){c}}"),
        ("{...", "}"),
        ("{a(b:{c:", "}){d}}"),
    ] {
        let levels = 60_000 / (opening.len() + closing.len());
        let query = opening.repeat(levels) + &closing.repeat(levels);
        refused_as(query, json!({}), "invalid_query").await;
        refused_as(
            opening.repeat(60_000 / opening.len()),
            json!({}),
            "invalid_query",
        )
        .await;
    }
    refused_as(
        format!("{{a(b:{}", "[".repeat(60_000)),
        json!({}),
        "invalid_query",
    )
    .await;
    refused_as(
        format!("query(${}", "a:[".repeat(20_000)),
        json!({}),
        "invalid_query",
    )
    .await;
    let fields = format!(
        "{{ {} id {} }}",
        "product(id: 1) { ".repeat(13),
        "}".repeat(13)
    );
    refused_as(fields, json!({}), "query_too_deep").await;
    // JSON that is nested without an end is refused by its own parser.
    let variables = format!(
        r#"{{"query": "{{ __typename }}", "variables": {{"x": {}"#,
        "[".repeat(500_000)
    );
    let (status, _, answer) = send(post(None, Some(JSON), variables)).await;
    assert_eq!((status.as_u16(), code(&answer)), (400, "malformed_request"));
}

#[tokio::test]
async fn large_variables_are_not_used_hundreds_of_times() {
    let mut query = String::from("query($id: ID!) {");
    for place in 0..500 {
        write!(query, "a{place}: product(id: $id) {{ id }} ").unwrap();
    }
    query.push('}');
    refused_as(query, json!({"id": "x".repeat(100_000)}), "invalid_query").await;
}

#[tokio::test]
async fn what_is_long_counts_as_often_as_its_fragment_is_spread() {
    let spread = |operation: &str, fragment: &str| {
        format!(
            "query{operation} {{ {} }} fragment F on Query {{ {fragment} }}",
            "...F ".repeat(1_000)
        )
    };
    let variable = spread("($id: ID!)", "product(id: $id) { id }");
    refused_as(
        variable.clone(),
        json!({"id": "x".repeat(100_000)}),
        "invalid_query",
    )
    .await;
    let in_directive = spread("($if: Boolean!)", "__typename @skip(if: $if)");
    refused_as(
        in_directive,
        json!({"if": "x".repeat(100_000)}),
        "invalid_query",
    )
    .await;
    let long = "x".repeat(30_000);
    for (operation, fragment) in [
        (
            format!("($id: ID = \"{long}\")"),
            "products(after: $id) { nodes { id } }".to_owned(),
        ),
        (String::new(), format!("product(id: \"{long}\") {{ id }}")),
        (String::new(), format!("{long}: __typename")),
        (String::new(), format!("... @{long} {{ __typename }}")),
    ] {
        refused_as(spread(&operation, &fragment), json!({}), "invalid_query").await;
    }
    // Beside the operation that is executed, literals are copied and variables are not.
    let literal = spread("", &format!("product(id: \"{long}\") {{ id }}"));
    for (beside, expected) in [(&literal, 400), (&variable, 200)] {
        let beside = beside.replacen("query", "query A", 1);
        let body = json!({"query": format!("{beside} query Fine {{ __typename }}"), "operationName": "Fine", "variables": {"id": "x".repeat(100_000)}});
        let (status, answer) = ask(body).await;
        assert_eq!(status.as_u16(), expected, "{}", answer["errors"]);
    }
    // What is long and used once, or short and used often, is executed.
    for query in [
        "query($id: ID!) { product(id: $id) { id } }".to_owned(),
        variable.replace("...F ", "").replacen('{', "{ ...F", 1),
    ] {
        let variables = json!({"id": "x".repeat(1_900_000)});
        let (status, answer) = ask(json!({"query": query, "variables": variables})).await;
        assert_eq!((status.as_u16(), code(&answer)), (200, "not_found"));
    }
    let (status, answer) = ask(json!({"query": variable, "variables": {"id": "x"}})).await;
    assert_eq!((status.as_u16(), code(&answer)), (200, "not_found"));
}

#[tokio::test]
async fn errors_repeat_only_the_beginning_of_what_is_long() {
    let long = "x\u{7f}".repeat(20_000);
    let word = "x".repeat(20_000);
    for body in [
        json!({"query": "query($id: ID!) { product(id: $id) { id } }", "variables": {"id": long}}),
        json!({"query": "query A { __typename }", "operationName": long}),
        json!({"query": "query($status: ProductStatus) { products(status: $status) { nodes { id } } }", "variables": {"status": long}}),
        json!({"query": format!("{{ {word} }}")}),
        json!({"query": format!("{{ ...{word} }} fragment {word} on Query {{ ...{word} }}")}),
        json!({"query": format!("query(${word}: Int!) {{ products(first: ${word}) {{ nodes {{ id }} }} }}")}),
    ] {
        let (_, answer) = ask(body).await;
        let message = answer["errors"][0]["message"].as_str().unwrap();
        assert!(
            ["xx", "x\u{7f}", "x\\u{7f}"]
                .iter()
                .any(|begins| message.contains(begins)),
            "it begins like what was sent: {message}"
        );
        assert!(message.len() < 1_100, "{}", message.len());
    }
}

#[tokio::test]
async fn directives_are_bounded_and_change_no_cost() {
    let query = format!("{{ __typename {} }}", "@skip(if: false) ".repeat(2_000));
    refused_as(query, json!({}), "invalid_query").await;
    let (_, answer) =
        ask(json!({"query": "{ __typename @include(if: true) b: __typename @skip(if: true) }"}))
            .await;
    assert_eq!(
        answer,
        json!({"data": {"__typename": "Query"}, "extensions": {"cost": {"requested": 2, "limit": COST_MAX}}})
    );
}

#[tokio::test]
async fn a_batch_is_charged_as_a_whole_and_bounded() {
    let one = json!({"query": "{ __typename }"});
    let (status, answer) = ask(json!([one, one, {"query": "{"}])).await;
    assert_eq!(status.as_u16(), 200, "something was executed");
    assert_eq!(answer.as_array().unwrap().len(), 3);
    assert_eq!(answer[1]["data"]["__typename"], "Query");
    assert_eq!(code(&answer[2]), "invalid_query");

    let page = json!({"query": "{ orders(first: 250) { nodes { id externalId status currency total { amount } } } }"});
    let (status, answer) = ask(json!([page, page, page, page, page, page, page])).await;
    assert_eq!(status.as_u16(), 400);
    for element in answer.as_array().unwrap() {
        assert_eq!(code(element), "query_too_costly");
        assert_eq!(
            element["errors"][0]["extensions"]["cost"],
            json!(7 * (2 + 250 * 6)),
            "the sum of all"
        );
        assert!(element.get("data").is_none(), "none is executed");
    }
    let (status, answer) = ask(Value::Array(vec![one; graphql::BATCH_MAX + 1])).await;
    assert_eq!((status.as_u16(), code(&answer[0])), (400, "invalid_query"));
}

#[tokio::test]
async fn thousands_of_mistakes_are_not_all_listed() {
    let query = format!(
        "{{ {} }}",
        (0..5_000).fold(String::new(), |mut query, place| {
            write!(query, "x{place:x} ").unwrap();
            query
        })
    );
    let (_, answer) = ask(json!({"query": query})).await;
    assert_eq!(answer["errors"].as_array().unwrap().len(), 100);
}
