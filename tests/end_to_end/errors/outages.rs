//! What the API says when something of it is broken: its tables, its history, its database.

use serde_json::{Value, json};
use sqlx::PgConnection;
use tests::Answer;

use super::{assert_declared, own_world, provoke::examples};
use crate::matrix::{document::Operation, world::World};

/// What authentication needs: the rest may be taken away, and a request still gets as far as its handler.
const OF_AUTHENTICATION: &str = "'apps', 'grants', 'merchants', 'signing_keys', 'merchant_keys'";

async fn execute(database: &mut PgConnection, statement: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(database)
        .await
        .unwrap();
}

/// Takes the tables that `condition` chooses away from the API.
async fn take_away(database: &mut PgConnection, condition: &str) {
    let each = format!(
        "do $$ declare name text; begin
            for name in select tablename from pg_tables where schemaname = 'public' and {condition} loop
                execute format('revoke all on %I from stoa_api', name);
            end loop;
        end $$"
    );
    execute(database, each).await;
}

/// Operations that may give this problem.
fn declaring<'w>(world: &'w World, slug: &'w str) -> impl Iterator<Item = &'w Operation> {
    world
        .operations
        .iter()
        .filter(move |operation| operation.problems.contains_key(slug))
}

async fn ask(world: &World, base_url: &str, operation: &Operation) -> Answer {
    operation
        .call(&examples(operation))
        .send(base_url, Some(&world.owner.token()))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_no_longer_kept_are_410() {
    let world = own_world().await;
    let (endpoint, _) = world.owner.endpoint(None, &["order.placed"]).await;
    world.place_order().await;
    tests::wait_for("the order's event", async || {
        (!world.owner.stream(&endpoint).await.is_empty()).then_some(())
    })
    .await;
    let feed = world.owner.get("/v1/events?limit=1").await.expect(200);
    let cursor = feed["nextCursor"].as_str().unwrap().to_owned();

    // Retention drops whole partitions, and truncating is as blunt.
    execute(
        &mut world.stoa.database().await,
        "truncate events, streams".to_owned(),
    )
    .await;
    for operation in declaring(&world, "events_expired") {
        let mut call = operation.call(&[("whe".to_owned(), endpoint.clone())].into());
        if operation.takes("cursor") {
            call.query.push(("cursor".to_owned(), cursor.clone()));
        }
        if operation.takes("Last-Event-ID") {
            let of_endpoint = operation.subject().is_some();
            let place = if of_endpoint { "0" } else { cursor.as_str() };
            call = call.with_header("last-event-id", place);
        }
        let answer = call
            .send(&world.stoa.base_url(), Some(&world.owner.token()))
            .await;
        assert_declared(operation, "events_expired", &answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_ours_is_500_and_says_nothing_of_its_cause() {
    let world = own_world().await;
    let mut database = world.stoa.database().await;
    take_away(
        &mut database,
        &format!("tablename not in ({OF_AUTHENTICATION})"),
    )
    .await;
    let mut asked = 0;
    for operation in declaring(&world, "internal_error") {
        let answer = ask(&world, &world.stoa.base_url(), operation).await;
        assert_declared(operation, "internal_error", &answer);
        for word in ["permission", "denied", "table", "sqlx", "42501"] {
            assert!(
                !answer.text.contains(word),
                "{} shows {word}: {}",
                operation.id,
                answer.text
            );
        }
        asked += 1;
    }
    // Whoever verifies signatures without a token is served from the database as well.
    let served = world.operations.iter().filter(|operation| {
        operation.path.starts_with("/v1/") || operation.path.starts_with("/webhook-keys/")
    });
    assert_eq!(asked, served.count());
    take_away(&mut database, "true").await;
    let token = world.owner.request_token(&[]).await;
    assert_eq!(
        (token.status.as_u16(), &token.json["error"]),
        (500, &json!("server_error")),
        "{}",
        token.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_everything_is_503_at_once_and_the_process_says_that_it_is_alive() {
    let world = own_world().await;
    // A second process on the same PostgreSQL, which ends with the first and is not started again.
    let mut beside = world.stoa.start_beside().await;
    let owner = world.owner.at(&beside.base_url());
    assert!(owner.get("/v1/products").await.status.is_success());
    let stop = world.stoa.pid();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(stop).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    tests::wait_for("the database to be away", async || {
        (owner.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    for operation in declaring(&world, "unavailable") {
        let answer = ask(&world, &beside.base_url(), operation).await;
        assert_declared(operation, "unavailable", &answer);
    }
    let token = owner.request_token(&[]).await;
    assert_eq!(
        (token.status.as_u16(), &token.json["error"]),
        (503, &json!("temporarily_unavailable")),
        "{}",
        token.text
    );
    assert!(token.headers.contains_key("retry-after"));
    assert_ne!(owner.get("/healthz").await.expect(200), Value::Null);
    beside.kill();
}
