//! How many statements an answer takes: as many for twenty orders as for two. Alone in its binary, because it listens to every statement of the process.
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

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};
use world::World;

/// Counts the statements that sqlx tells of.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Statements {
    async fn of(&self, world: &World, query: &str, first: i32) -> (usize, serde_json::Value) {
        let before = self.0.load(Ordering::SeqCst);
        let answer = world.ask(query, json!({"first": first})).await;
        assert!(answer.get("errors").is_none(), "{answer}");
        (self.0.load(Ordering::SeqCst) - before, answer)
    }
}

/// Eighteen rows more take no statement more for each; connections that are made or given back meanwhile may add a few.
fn assert_same(for_two: usize, for_twenty: usize) {
    assert!(
        for_twenty < for_two + 9,
        "{for_two} statements for two, {for_twenty} for twenty"
    );
}

#[tokio::test]
async fn the_number_of_statements_does_not_grow_with_the_number_of_rows() {
    let statements = Statements::default();
    tracing_subscriber::registry()
        .with(statements.clone())
        .init();
    let world = World::new().await;
    let location = world.location("north").await;
    for place in 0..20 {
        let product = world.product(&format!("P{place}"), 3).await;
        world.stock(&product, &location, 100).await;
        let order = world.order(&product, 1).await;
        if place % 2 == 0 {
            world.fulfill(&order).await;
        }
    }
    let orders = "query($first: Int) { orders(first: $first) { nodes { id customer { name }
        lines { sku variant { sku } product { id title } location { name } } fulfillments { status } } } }";
    let products = "query($first: Int) { products(first: $first) { edges { cursor node { id title variants { sku price { amount } } } } } }";
    for (query, rows, at_most) in [
        (orders, "/data/orders/nodes", 30),
        (products, "/data/products/edges", 6),
    ] {
        let (for_two, answer) = statements.of(&world, query, 2).await;
        assert_eq!(answer.pointer(rows).unwrap().as_array().unwrap().len(), 2);
        let (for_twenty, answer) = statements.of(&world, query, 20).await;
        assert_eq!(answer.pointer(rows).unwrap().as_array().unwrap().len(), 20);
        assert!(for_two > 2, "the statements are counted at all");
        assert_same(for_two, for_twenty);
        assert!(for_twenty <= at_most, "{for_twenty}");
    }
    // Many fields of one kind are one batch, too.
    let ids: Vec<_> =
        world.ask("{ products { nodes { id } } }", json!({})).await["data"]["products"]["nodes"]
            .as_array()
            .unwrap()
            .clone();
    let aliases = |count: usize| {
        let fields = ids
            .iter()
            .take(count)
            .enumerate()
            .map(|(place, node)| format!("a{place}: product(id: {}) {{ title }}", node["id"]));
        format!("{{ {} }}", fields.collect::<Vec<_>>().join(" "))
    };
    let (for_two, _) = statements.of(&world, &aliases(2), 1).await;
    let (for_twenty, _) = statements.of(&world, &aliases(20), 1).await;
    assert_same(for_two, for_twenty);
}
