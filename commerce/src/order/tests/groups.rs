use std::{cell::Cell, collections::HashMap};

use kernel::{id::LocationId, idempotency::Call};
use proptest::prelude::*;
use serde_json::json;
use sqlx::Row;

use super::world::World;
use crate::{
    Error,
    order::{Order, OrderInput, place, place_many},
    product::VariantId,
};

/// An order as a model has it: lines of (variant, quantity), a location or none, an external id or none, a customer or none, an actor limited or not.
#[derive(Debug, Clone)]
struct Wish {
    lines: Vec<(usize, i32)>,
    location: Option<usize>,
    external_id: Option<u8>,
    email: Option<u8>,
    limited_to: Option<usize>,
}

fn wish() -> impl Strategy<Value = Wish> {
    (
        prop::collection::vec((0..4_usize, 1..5_i32), 1..4),
        prop::option::weighted(0.3, 0..2_usize),
        prop::option::weighted(0.3, 0..4_u8),
        prop::option::weighted(0.4, 0..3_u8),
        prop::option::weighted(0.3, 0..2_usize),
    )
        .prop_map(|(lines, location, external_id, email, limited_to)| Wish {
            lines,
            location,
            external_id,
            email,
            limited_to,
        })
}

/// What an outcome comes to, without ids and versions of their own.
fn outcome(result: &Result<Order, Error>) -> String {
    match result {
        Ok(order) => {
            let lines: Vec<_> = order
                .lines
                .iter()
                .map(|line| {
                    (
                        line.line,
                        line.variant_id,
                        line.quantity,
                        line.location_id,
                        line.total.minor(),
                    )
                })
                .collect();
            format!(
                "{:?} {} {} {lines:?}",
                order.external_id,
                order.total,
                order.customer_id.is_some()
            )
        }
        Err(error) => format!("{error:?}"),
    }
}

/// What is stored, without ids and times.
async fn state(tx: &mut kernel::db::Transaction) -> Vec<String> {
    let mut state = Vec::new();
    for sql in [
        "select (variant_id, location_id, on_hand, reserved, version)::text from inventory_levels order by 1",
        "select (variant_id, location_id, reason, on_hand_delta, reserved_delta, level_version)::text from inventory_movements order by 1",
        "select (external_id, status, total_minor, version, (select count(*) from order_lines where order_id = o.id))::text from orders o order by 1",
        "select (type, count(*))::text from outbox where resource_type = 'order' group by type",
        "select (email_index)::text from customers order by 1",
        "select count(*)::text from data_subject_keys",
        "select (command, from_status, to_status, count(*))::text from order_transitions group by command, from_status, to_status",
    ] {
        for row in sqlx::query(sql).fetch_all(&mut **tx).await.unwrap() {
            state.push(row.get(0));
        }
        state.push("--".to_owned());
    }
    state
}

async fn compare(world: &World, variants: &[VariantId], wishes: Vec<Wish>) {
    let place_of = |number: usize| -> LocationId { world.locations[number] };
    let inputs: Vec<OrderInput> = wishes
        .iter()
        .map(|wish| {
            let lines: Vec<_> =
                wish.lines.iter().map(|&(variant, quantity)| json!({"variantId": variants[variant], "quantity": quantity})).collect();
            serde_json::from_value(json!({
                "lines": lines,
                "locationId": wish.location.map(place_of),
                "externalId": wish.external_id.map(|number| format!("W-{number}")),
                "customer": wish.email.map(|number| json!({"email": format!("{number}@example.com")})),
            }))
            .unwrap()
        })
        .collect();
    let actors: Vec<_> = wishes
        .iter()
        .map(|wish| {
            world.limited(
                "orders:write",
                wish.limited_to.map(|place| vec![place_of(place)]),
                true,
            )
        })
        .collect();
    let members: Vec<_> = inputs
        .iter()
        .zip(&actors)
        .map(|(input, actor)| {
            (
                input,
                Call {
                    actor,
                    now: world.now(),
                },
            )
        })
        .collect();

    let mut tx = world.tx().await;
    let together = place_many(&mut tx, &world.keyring, &members).await.unwrap();
    let state_together = state(&mut tx).await;
    tx.rollback().await.unwrap();

    let mut tx = world.tx().await;
    let mut alone = Vec::new();
    for (input, call) in &members {
        alone.push(place(&mut tx, &world.keyring, input, *call).await);
    }
    let state_alone = state(&mut tx).await;
    tx.rollback().await.unwrap();

    let outcomes =
        |results: &[Result<Order, Error>]| results.iter().map(outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(&together), outcomes(&alone), "{wishes:#?}");
    assert_eq!(state_together, state_alone, "{wishes:#?}");
}

/// The group's in-memory decision is compared with what the same orders come to one by one, each with its own statements.
#[test]
fn a_group_comes_to_what_its_members_come_to_one_by_one() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (world, variants) = runtime.block_on(async {
        let world = World::new().await;
        let mut variants = Vec::new();
        for (number, (first, second)) in [(6, 4), (10, 0), (3, 9), (0, 2)].into_iter().enumerate() {
            let variant = world
                .variant(
                    &format!("v{number}"),
                    "2.50",
                    if number == 3 { "USD" } else { "EUR" },
                )
                .await;
            world.stock(variant, world.locations[0], first).await;
            world.stock(variant, world.locations[1], second).await;
            variants.push(variant);
        }
        (world, variants)
    });
    let config = ProptestConfig {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 40,
        ..ProptestConfig::default()
    };
    proptest!(config, |(wishes in prop::collection::vec(wish(), 1..14))| {
        runtime.block_on(compare(&world, &variants, wishes));
    });
}

thread_local! {
    /// The statements of this thread, which is the test's own.
    static STATEMENTS: Cell<usize> = const { Cell::new(0) };
}

/// The fields of a logged statement, run together.
struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        std::fmt::Write::write_fmt(&mut self.0, format_args!("{value:?}")).unwrap();
    }
}

/// Counts the statements that sqlx logs. For the whole process, once: a subscriber of one thread misses what another has registered without it.
struct Statements;

impl tracing::Subscriber for Statements {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        // The pool asks each connection that comes back whether it is clean, whenever that may be.
        let mut text = Text(String::new());
        event.record(&mut text);
        if event.metadata().target() == "sqlx::query" && !text.0.contains("statement_timestamp") {
            STATEMENTS.set(STATEMENTS.get() + 1);
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn the_number_of_statements_does_not_grow_with_the_group() {
    tracing::subscriber::set_global_default(Statements).unwrap();
    let world = World::new().await;
    let mut variants = Vec::new();
    for number in 0..20 {
        variants.push(world.stocked(&format!("v{number}"), 1_000).await);
    }
    let mut counts = HashMap::new();
    // The first group is also the first to need the merchant's key, which is then known.
    for size in [1, 2, 100] {
        let inputs: Vec<OrderInput> = (0..size)
            .map(|number| {
                serde_json::from_value(json!({
                    "externalId": format!("{size}-{number}"),
                    "lines": [{"variantId": variants[number % 20], "quantity": 1}, {"variantId": variants[(number + 7) % 20], "quantity": 1}],
                    "customer": {"email": format!("{size}-{number}@example.com")},
                }))
                .unwrap()
            })
            .collect();
        let members: Vec<_> = inputs
            .iter()
            .map(|input| {
                (
                    input,
                    Call {
                        actor: &world.actor,
                        now: world.now(),
                    },
                )
            })
            .collect();
        let mut tx = world.tx().await;
        let before = STATEMENTS.get();
        let results = place_many(&mut tx, &world.keyring, &members).await.unwrap();
        assert!(results.iter().all(Result::is_ok));
        counts.insert(size, STATEMENTS.get() - before);
        tx.commit().await.unwrap();
    }
    assert!(counts[&2] > 5, "the statements are counted: {counts:?}");
    assert_eq!(counts[&2], counts[&100]);
    world.check_books().await;
}
