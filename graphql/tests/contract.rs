//! The contract: the schema's text, and that every root field is listed with its scope.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::HashSet;

use async_graphql::parser::{
    parse_schema,
    types::{TypeKind, TypeSystemDefinition},
};
use graphql::{ROOT_FIELDS, RootKind};

/// The committed schema; `stoa describe graphql` writes it anew.
#[test]
fn the_committed_schema_is_fresh() {
    let committed = include_str!("../schema.graphql");
    assert!(
        committed.trim_end() == graphql::sdl().trim_end(),
        "graphql/schema.graphql is stale: write it anew with `make openapi`"
    );
}

#[test]
fn every_root_field_is_listed_and_names_its_scope() {
    let mut listed = HashSet::new();
    for definition in parse_schema(graphql::sdl()).unwrap().definitions {
        let TypeSystemDefinition::Type(definition) = definition else {
            continue;
        };
        let kind = match definition.node.name.node.as_str() {
            "Query" => RootKind::Query,
            "Mutation" => RootKind::Mutation,
            _ => continue,
        };
        let TypeKind::Object(object) = &definition.node.kind else {
            panic!("a root type is an object")
        };
        for field in &object.fields {
            let name = field.node.name.node.as_str();
            let root_field = ROOT_FIELDS
                .iter()
                .find(|listed| listed.kind == kind && listed.name == name);
            let root_field =
                root_field.unwrap_or_else(|| panic!("{name} is missing in ROOT_FIELDS"));
            let description = &field
                .node
                .description
                .as_ref()
                .unwrap_or_else(|| panic!("{name} has no description"))
                .node;
            assert!(
                description.contains(&format!("`{}`", root_field.scope)),
                "{name} does not say that it needs {}",
                root_field.scope
            );
            assert!(listed.insert((kind, name.to_owned())));
            if kind == RootKind::Mutation {
                let key = field
                    .node
                    .arguments
                    .iter()
                    .find(|argument| argument.node.name.node == "idempotencyKey")
                    .unwrap();
                assert_eq!(key.node.ty.node.to_string(), "String!", "{name}");
            }
        }
    }
    assert_eq!(listed.len(), ROOT_FIELDS.len());
}

#[test]
fn types_of_the_domain_show_under_their_own_names() {
    let sdl = graphql::sdl();
    for name in [
        "type Product ",
        "type Variant ",
        "type Order ",
        "type OrderLine ",
        "type Fulfillment ",
        "type ProductConnection ",
        "type PageInfo ",
    ] {
        assert!(sdl.contains(name), "{name}");
    }
    for name in ["OrderFields", "OrderLineFields", "ProductFields"] {
        assert!(!sdl.contains(name), "{name}");
    }
}
