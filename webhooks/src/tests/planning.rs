//! Plans of the queue's statements: one index each, whatever was known of the table when they were made.

use kernel::{
    clock::Clock,
    db::{Database, Role, Transaction},
};
use sqlx::{AssertSqlSafe, Executor, Row};

use super::world::{World, made};
use crate::{
    delivery::{Lease, Signal, store},
    worker::Want,
};

/// The plans of the statements with these words that this connection has prepared.
async fn plans(tx: &mut Transaction, about: &str) -> Vec<String> {
    let prepared = tx
        .fetch_all(AssertSqlSafe(format!(
            "select name, cardinality(parameter_types) as parameters
            from pg_prepared_statements
            where statement ~ '{about}'
            order by prepare_time"
        )))
        .await
        .unwrap();
    let mut plans = Vec::new();
    for statement in prepared {
        let name: String = statement.get("name");
        let parameters: i32 = statement.get("parameters");
        let nulls = vec!["null"; usize::try_from(parameters).unwrap()].join(", ");
        let explain = AssertSqlSafe(format!("explain execute {name}({nulls})"));
        let lines = tx.fetch_all(explain).await.unwrap();
        let lines: Vec<String> = lines.iter().map(|line| line.get(0)).collect();
        plans.push(lines.join("\n"));
    }
    plans
}

/// A table that was filled and emptied by the worker, and what its owner did to it after each; with a state in which other indexes than the right ones seem as
/// good.
async fn emptied(world: &World, table: &str, fill: &str, after: &[&str]) {
    let mut owner = world.database.owner().await.unwrap();
    let never = format!("alter table {table} set (autovacuum_enabled = off)");
    owner.execute(AssertSqlSafe(never)).await.unwrap();
    for of_worker in [fill.to_owned(), format!("delete from {table}")] {
        let mut tx = world.worker.begin().await.unwrap();
        tx.execute(AssertSqlSafe(of_worker)).await.unwrap();
        tx.commit().await.unwrap();
        for statement in after {
            owner
                .execute(AssertSqlSafe((*statement).to_owned()))
                .await
                .unwrap();
        }
    }
}

/// What the plans of the queue's statements are to be.
async fn assert_queue_is_read_by_the_right_indexes(after: &[&str]) {
    let world = World::at(Clock::system()).await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    let fill = format!(
        "insert into deliveries (merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, created_at)
        select '{}', '{}', number, gen_random_uuid(), 0, now() + number * interval '1 ms', now()
        from generate_series(1, 20000) as number",
        world.merchant.uuid(),
        endpoint.uuid(),
    );
    emptied(&world, "deliveries", &fill, after).await;

    let mut tx = world.worker.begin_in_order().await.unwrap();
    let lease = Lease {
        endpoint,
        merchant: world.merchant,
        fence: 1,
        signal: Signal::default(),
    };
    let want = Want::first(lease, 10);
    let place = (world.merchant, endpoint, 1);
    store::due(&mut tx, &[want], world.clock.now())
        .await
        .unwrap();
    store::first_of_resources(&mut tx, &[(lease, 1, 10)])
        .await
        .unwrap();
    store::next_due(&mut tx, &[lease]).await.unwrap();
    store::remove(&mut tx, vec![place]).await.unwrap();
    let indexes = [
        "deliveries_turn",
        "deliveries_resource",
        "deliveries_turn",
        "deliveries_pkey",
    ];
    let plans = plans(&mut tx, "from deliveries").await;
    assert_eq!(plans.len(), indexes.len(), "{plans:#?}");
    for (plan, index) in plans.iter().zip(indexes) {
        assert!(plan.contains(&format!(" using {index} on ")), "{plan}");
        assert!(!plan.contains("Bitmap") && !plan.contains("Sort"), "{plan}");
    }
}

#[tokio::test]
async fn a_queue_that_was_drained_and_not_yet_vacuumed_is_read_by_the_index_of_its_order() {
    assert_queue_is_read_by_the_right_indexes(&["analyze deliveries"]).await;
}

#[tokio::test]
async fn a_queue_that_was_vacuumed_is_read_by_the_index_of_its_order_however_large_it_was_left() {
    assert_queue_is_read_by_the_right_indexes(&[
        "vacuum analyze deliveries",
        "reindex index deliveries_pkey",
    ])
    .await;
}

#[tokio::test]
async fn an_outbox_that_was_drained_is_read_by_the_index_of_its_order_and_emptied_by_place() {
    for after in [
        &["analyze outbox"][..],
        &["vacuum analyze outbox", "reindex index outbox_pkey"],
    ] {
        let mut world = World::at(Clock::system()).await;
        let fill = format!(
            "insert into outbox
                (merchant_id, id, type, resource_type, resource_id, resource_version, scope, locations, data, request_id, occurred_at)
            select '{}', gen_random_uuid(), 'order.placed', 'order', 'ord_' || number, 1, 'orders:read', '{{}}', '{{}}', gen_random_uuid(), now()
            from generate_series(1, 20000) as number",
            world.merchant.uuid(),
        );
        emptied(&world, "outbox", &fill, after).await;
        // One connection, so that it is the relay's that is looked at.
        world.worker = Database::new(world.database.options().clone(), Role::Worker, 1);
        world.append(&[made("a", 1)]).await;
        assert_eq!(world.relay().pass(world.merchant).await.unwrap().events, 1);

        let mut tx = world.worker.begin_in_order().await.unwrap();
        let plans = plans(&mut tx, "from outbox").await;
        let scans = ["using outbox_priority on", "Tid Scan on", "Tid Scan on"];
        assert_eq!(plans.len(), scans.len(), "{plans:#?}");
        for (plan, scan) in plans.iter().zip(scans) {
            let others = [
                "Seq Scan",
                "Bitmap",
                "Sort  (",
                "outbox_pkey",
                "outbox_resource",
            ];
            assert!(plan.contains(&format!("{scan} outbox")), "{plan}");
            assert!(!others.iter().any(|other| plan.contains(other)), "{plan}");
        }
    }
}
