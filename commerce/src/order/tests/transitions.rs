use sqlx::{AssertSqlSafe, Executor, Row};

use super::world::World;
use crate::order::{OrderStatus, transition};

/// The constraint's expression, as the database has it, is asked about every command and every pair of statuses.
#[tokio::test]
async fn the_table_in_the_code_and_the_constraint_in_the_database_agree() {
    let world = World::new().await;
    let mut owner = world.database.owner().await.unwrap();
    let expression: String = owner
        .fetch_one("select pg_get_expr(conbin, conrelid) from pg_constraint where conname = 'order_transitions_allowed'")
        .await
        .unwrap()
        .get(0);
    let befores: Vec<Option<OrderStatus>> = std::iter::once(None)
        .chain(OrderStatus::ALL.iter().copied().map(Some))
        .collect();
    for command in ["place", "cancel", "fulfill", "delete"] {
        for &before in &befores {
            for &after in OrderStatus::ALL {
                let in_code = transition::TABLE.iter().any(|(known, from, to)| {
                    known.name() == command && *from == before && *to == after
                });
                let before_sql =
                    before.map_or("null".to_owned(), |status| format!("'{}'", status.name()));
                let sql = format!(
                    "select {expression} from (values ('{command}'::text, {before_sql}::text, '{}'::text))
                        as step (command, from_status, to_status)",
                    after.name()
                );
                let in_database: bool = owner.fetch_one(AssertSqlSafe(sql)).await.unwrap().get(0);
                assert_eq!(in_code, in_database, "{command} {before:?} {after:?}");
            }
        }
    }
}
