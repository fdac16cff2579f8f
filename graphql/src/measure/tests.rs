#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::*;
use crate::limits::COST_MAX;

fn measured_with(query: &str, variables: Json) -> Result<Measured, String> {
    let shape = Shape::of_sdl(&crate::sdl()).unwrap();
    let document = async_graphql::parser::parse_query(query).unwrap();
    measure(&shape, &document, None, &Variables::from_json(variables)).map_err(|error| {
        let Some(Value::String(code)) = error
            .extensions
            .as_ref()
            .and_then(|extensions| extensions.get("code"))
            .cloned()
        else {
            panic!("no code: {error:?}")
        };
        code
    })
}

fn cost(query: &str) -> u64 {
    measured_with(query, json!({})).unwrap().cost
}

#[test]
fn the_shape_knows_lists_connections_and_leaves() {
    let shape = Shape::of_sdl(&crate::sdl()).unwrap();
    let query = shape.fields(QUERY).unwrap();
    assert!(
        query["products"].connection && query["orders"].connection && !query["product"].connection
    );
    assert!(shape.fields("ProductConnection").unwrap()["nodes"].list);
    assert!(shape.fields("Order").unwrap()["lines"].list);
    assert!(
        shape
            .fields(&shape.fields("Product").unwrap()["title"].of)
            .is_none()
    );
    assert!(shape.fields(MUTATION).unwrap().contains_key("orderPlace"));
}

#[test]
fn the_cost_is_the_number_of_values_that_the_answer_may_hold() {
    assert_eq!(cost("{ __typename }"), 1);
    assert_eq!(cost("{ product(id: 1) { id title } }"), 3);
    assert_eq!(
        cost("{ product(id: 1) { variants { sku price { amount } } } }"),
        1 + 1 + 4 * (1 + 2)
    );
    assert_eq!(
        cost("{ a: product(id: 1) { id } b: product(id: 2) { id } }"),
        4
    );
    assert_eq!(cost("mutation { orderPlace { replayed } }"), 12);
    assert_eq!(
        cost("mutation { ...A ...A } fragment A on Mutation { orderPlace { replayed } }"),
        24
    );
    assert_eq!(
        cost("{ products(first: 20) { nodes { id title } pageInfo { endCursor } } }"),
        1 + (1 + 20 * 2) + 2
    );
    assert_eq!(
        cost("{ products(first: 20) { edges { cursor node { id } } } }"),
        1 + 1 + 20 * 3
    );
    assert_eq!(cost("{ products { nodes { id } } }"), 1 + 1 + 50);
    assert_eq!(
        cost("{ orders(first: 10) { nodes { lines { product { id } } } } }"),
        1 + 1 + 10 * (1 + 4 * 2)
    );
}

#[test]
fn first_counts_wherever_it_comes_from() {
    let query = "query($n: Int) { products(first: $n) { nodes { id } } }";
    assert_eq!(measured_with(query, json!({"n": 7})).unwrap().cost, 2 + 7);
    assert_eq!(measured_with(query, json!({})).unwrap().cost, 2 + 50);
    assert_eq!(
        measured_with(query, json!({"n": null})).unwrap().cost,
        2 + 50
    );
    let with_default = "query($n: Int = 9) { products(first: $n) { nodes { id } } }";
    assert_eq!(measured_with(with_default, json!({})).unwrap().cost, 2 + 9);
    assert_eq!(
        measured_with(with_default, json!({"n": 3})).unwrap().cost,
        2 + 3
    );
    for full in [
        json!(4_000_000_000_u64),
        json!(-1),
        json!("7"),
        json!([7]),
        json!(2.5),
    ] {
        assert_eq!(
            measured_with(query, json!({"n": full})).unwrap().cost,
            2 + 250,
            "{full}"
        );
    }
    assert_eq!(measured_with(query, json!({"n": 0})).unwrap().cost, 2 + 1);
}

#[test]
fn fragments_count_as_often_as_they_are_used_with_the_elements_that_they_are_used_for() {
    let fragment =
        "fragment F on ProductConnection { nodes { ...P } } fragment P on Product { id title }";
    let query = format!(
        "{{ a: products(first: 10) {{ ...F }} b: products(first: 20) {{ ...F ...F }} }} {fragment}"
    );
    assert_eq!(cost(&query), (1 + 1 + 20) + (1 + 2 * (1 + 40)));
    assert_eq!(
        cost("{ products(first: 10) { ... on ProductConnection { ... { nodes { id } } } } }"),
        2 + 10
    );
    assert_eq!(
        cost("{ products(first: 10) { nodes { id @skip(if: true) } } }"),
        2 + 10
    );
}

#[test]
fn fragments_that_double_one_another_are_measured_at_once() {
    let mut query = String::from("{ product(id: 1) { ...F0 } }");
    for place in 0..28 {
        write!(
            query,
            " fragment F{place} on Product {{ ...F{} ...F{} }}",
            place + 1,
            place + 1
        )
        .unwrap();
    }
    query.push_str(" fragment F28 on Product { id }");
    // 2^28 fields, spread: without a memory this would not end within the test's patience.
    assert_eq!(
        measured_with(&query, json!({})).unwrap_err(),
        "invalid_query"
    );
    let mut wide = String::from("{ products(first: 250) { nodes { variants { ...F0 } } } }");
    for place in 0..10 {
        write!(
            wide,
            " fragment F{place} on Variant {{ ...F{} ...F{} }}",
            place + 1,
            place + 1
        )
        .unwrap();
    }
    wide.push_str(" fragment F10 on Variant { sku }");
    assert_eq!(cost(&wide), 2 + 250 * (1 + 4 * 1024));
}

#[test]
fn an_operation_that_is_not_executed_is_held_to_what_validation_can_walk_through() {
    let mut query =
        String::from("query A { product(id: 1) { id } } query B { product(id: 1) { ...F0 } }");
    for place in 0..20 {
        write!(
            query,
            " fragment F{place} on Product {{ ...F{} ...F{} }}",
            place + 1,
            place + 1
        )
        .unwrap();
    }
    query.push_str(" fragment F20 on Product { id }");
    let shape = Shape::of_sdl(&crate::sdl()).unwrap();
    let document = async_graphql::parser::parse_query(&query).unwrap();
    assert!(measure(&shape, &document, Some("A"), &Variables::default()).is_err());
}

#[test]
fn cycles_of_fragments_are_refused() {
    for query in [
        "{ ...A } fragment A on Query { ...A }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "{ product(id: 1) { ...A } } fragment A on Product { variants { ...B } } fragment B on Variant { ... { ...A } }",
        "{ __schema { types { ...A } } } fragment A on __Type { ofType { ...A } }",
    ] {
        assert_eq!(
            measured_with(query, json!({})).unwrap_err(),
            "invalid_query",
            "{query}"
        );
    }
}

#[test]
fn depth_and_nesting_are_bounded() {
    let nested =
        |levels: usize| format!("{{ {} id {} }}", "x { ".repeat(levels), "}".repeat(levels));
    assert!(measured_with(&nested(11), json!({})).is_ok());
    assert_eq!(
        measured_with(&nested(12), json!({})).unwrap_err(),
        "query_too_deep"
    );
    let inline = |levels: usize| {
        format!(
            "{{ {} __typename {} }}",
            "... { ".repeat(levels),
            "}".repeat(levels)
        )
    };
    assert!(measured_with(&inline(31), json!({})).is_ok());
    assert_eq!(
        measured_with(&inline(32), json!({})).unwrap_err(),
        "query_too_deep"
    );
    // A chain of fragments is as deep as its links together, in whatever order they are measured.
    let mut chain = String::from("{ ...F20 ...F0 }");
    for place in 0..40 {
        write!(chain, " fragment F{place} on Query {{ ...F{} }}", place + 1).unwrap();
    }
    chain.push_str(" fragment F40 on Query { __typename }");
    assert_eq!(
        measured_with(&chain, json!({})).unwrap_err(),
        "query_too_deep"
    );
}

#[test]
fn introspection_as_tools_send_it_fits_and_its_trees_without_an_end_do_not() {
    let of_type = "ofType { kind name ".repeat(9) + &"}".repeat(9);
    let query = format!(
        "query IntrospectionQuery {{ __schema {{ queryType {{ name }} mutationType {{ name }} subscriptionType {{ name }}
           types {{ ...FullType }} directives {{ name description locations args {{ ...InputValue }} }} }} }}
         fragment FullType on __Type {{ kind name description
           fields(includeDeprecated: true) {{ name description args {{ ...InputValue }} type {{ ...TypeRef }} isDeprecated deprecationReason }}
           inputFields {{ ...InputValue }} interfaces {{ ...TypeRef }}
           enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }} possibleTypes {{ ...TypeRef }} }}
         fragment InputValue on __InputValue {{ name description type {{ ...TypeRef }} defaultValue }}
         fragment TypeRef on __Type {{ kind name {of_type} }}"
    );
    assert!(cost(&query) <= COST_MAX, "{}", cost(&query));
    let tree = |levels: usize| {
        format!(
            "{{ __schema {{ types {{ {} name {} }} }} }}",
            "fields { type { ".repeat(levels),
            "} }".repeat(levels)
        )
    };
    assert!(measured_with(&tree(2), json!({})).is_ok());
    assert_eq!(
        measured_with(&tree(3), json!({})).unwrap_err(),
        "query_too_deep"
    );
    let chain = format!(
        "{{ __type(name: \"Product\") {{ {} name {} }} }}",
        "ofType { ".repeat(20),
        "}".repeat(20)
    );
    assert_eq!(
        measured_with(&chain, json!({})).unwrap_err(),
        "query_too_deep"
    );
}

#[test]
fn the_operation_is_the_one_that_is_named() {
    let shape = Shape::of_sdl(&crate::sdl()).unwrap();
    let document = async_graphql::parser::parse_query(
        "query A { __typename } mutation B { orderPlace { replayed } }",
    )
    .unwrap();
    let named = |name| {
        measure(&shape, &document, name, &Variables::default()).map_err(|error| error.message)
    };
    assert_eq!(
        named(Some("A")),
        Ok(Measured {
            cost: 1,
            mutation: false,
            type_names: HashMap::new(),
        })
    );
    assert_eq!(
        named(Some("B")),
        Ok(Measured {
            cost: 12,
            mutation: true,
            type_names: HashMap::new(),
        })
    );
    assert!(named(None).is_err() && named(Some("C")).is_err());
}
