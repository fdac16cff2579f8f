//! Plans of the queue's statements: one index each, whatever was known of the table when they were made.

use kernel::{clock::Clock, db::Transaction};
use sqlx::{AssertSqlSafe, Executor, Row};

use super::world::World;
use crate::{
    delivery::{Lease, Signal, store},
    worker::Want,
};

/// The plans of the statements about deliveries that this connection has prepared.
async fn plans(tx: &mut Transaction) -> Vec<String> {
    let prepared = tx
        .fetch_all(
            "select name, cardinality(parameter_types) as parameters
            from pg_prepared_statements
            where statement ~ 'from deliveries'
            order by prepare_time",
        )
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

#[tokio::test]
async fn a_queue_that_was_drained_and_not_yet_vacuumed_is_read_by_the_index_of_its_order() {
    let world = World::at(Clock::system()).await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    let mut owner = world.database.owner().await.unwrap();
    let of_owner = [
        "alter table deliveries set (autovacuum_enabled = off)",
        "analyze deliveries",
    ];
    let fill = format!(
        "insert into deliveries (merchant_id, endpoint_id, sequence, event_id, attempt_count, due_at, created_at)
        select '{}', '{}', number, gen_random_uuid(), 0, now() + number * interval '1 ms', now()
        from generate_series(1, 20000) as number",
        world.merchant.uuid(),
        endpoint.uuid(),
    );
    for of_worker in [fill.as_str(), "delete from deliveries"] {
        let mut tx = world.worker.begin().await.unwrap();
        tx.execute(AssertSqlSafe(of_worker.to_owned()))
            .await
            .unwrap();
        tx.commit().await.unwrap();
        for statement in of_owner {
            owner.execute(statement).await.unwrap();
        }
    }

    let mut tx = world.worker.begin().await.unwrap();
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
    let plans = plans(&mut tx).await;
    assert_eq!(plans.len(), indexes.len(), "{plans:#?}");
    for (plan, index) in plans.iter().zip(indexes) {
        assert!(plan.contains(&format!(" using {index} on ")), "{plan}");
        assert!(!plan.contains("Bitmap") && !plan.contains("Sort"), "{plan}");
    }
}
