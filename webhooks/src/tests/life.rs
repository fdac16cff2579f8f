//! An endpoint's life: switched off and on, caught up with, deleted with all that is its own.

use serde_json::json;

use super::world::{World, made};
use crate::endpoint::{CatchUp, Delete, DeleteInput, EndpointChange, EndpointId, Status};

fn switch(status: Status, catch_up: Option<CatchUp>) -> EndpointChange {
    EndpointChange {
        status: Some(status),
        catch_up,
        ..EndpointChange::default()
    }
}

/// An endpoint with one event that waits, and two that came while it was disabled.
async fn disabled(world: &World) -> EndpointId {
    let id = world.endpoint(Some("https://8.8.8.8/hook")).await;
    let id = id.endpoint.id;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    world
        .change(id, switch(Status::Disabled, None))
        .await
        .unwrap();
    world.append(&[made("b", 1), made("c", 1)]).await;
    world.relay_all().await;
    id
}

const QUEUED: &str = "select count(*) from deliveries";
const REPLAYS: &str = "select count(*) from replays";

#[tokio::test]
async fn what_was_missed_is_replayed_from_where_it_was_disabled() {
    let world = World::new().await;
    let id = disabled(&world).await;
    let at = "select disabled_at_sequence from endpoints";
    assert_eq!((world.count(at).await, world.count(QUEUED).await), (1, 1));
    world
        .change(id, switch(Status::Enabled, Some(CatchUp::All)))
        .await
        .unwrap();
    let mut tx = world.worker.begin().await.unwrap();
    let replay: (i64, i64, serde_json::Value) = sqlx::query_as(
        "select position, until_sequence, selection from replays where endpoint_id = $1",
    )
    .bind(id)
    .fetch_one(&mut *tx)
    .await
    .unwrap();
    assert_eq!(replay.0, 1);
    assert!(replay.1 >= 3);
    assert_eq!(replay.2, json!({"afterSequence": 1, "state": "missed"}));
    assert_eq!(world.count("select count(*) from replay_hints").await, 1);
    let forgotten = "select count(*) from endpoints where disabled_at_sequence is null";
    assert_eq!(world.count(forgotten).await, 1);
}

#[tokio::test]
async fn without_catch_up_what_was_waiting_is_sent_and_with_none_not_even_that() {
    let world = World::new().await;
    let id = disabled(&world).await;
    world
        .change(id, switch(Status::Enabled, None))
        .await
        .unwrap();
    assert_eq!(world.count(QUEUED).await, 1);
    world
        .change(id, switch(Status::Disabled, None))
        .await
        .unwrap();
    world
        .change(id, switch(Status::Enabled, Some(CatchUp::None)))
        .await
        .unwrap();
    assert_eq!(
        (world.count(QUEUED).await, world.count(REPLAYS).await),
        (0, 0)
    );
    assert!(world.stream(id).await.len() >= 3, "the stream has it all");
}

#[tokio::test]
async fn who_is_enabled_or_goes_elsewhere_is_not_switched_off_for_what_was_before() {
    let world = World::new().await;
    let id = disabled(&world).await;
    let failing = "select count(*) from endpoint_health where failing_since is not null or warned_at is not null";
    let elsewhere = EndpointChange {
        url: Some(Some("https://8.8.4.4/hook".to_owned())),
        ..EndpointChange::default()
    };
    for (change, left) in [
        (switch(Status::Enabled, None), 0),
        (switch(Status::Disabled, None), 1),
        (elsewhere, 0),
    ] {
        let mut tx = world.worker.begin().await.unwrap();
        sqlx::query(
            "insert into endpoint_health (merchant_id, endpoint_id, failing_since, warned_at, failure_count) values ($1, $2, now(), now(), 7)
            on conflict (merchant_id, endpoint_id) do update set failing_since = now(), warned_at = now()",
        )
        .bind(world.merchant)
        .bind(id)
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let what = format!("{change:?}");
        world.change(id, change).await.unwrap();
        assert_eq!(world.count(failing).await, left, "{what}");
    }
}

#[tokio::test]
async fn who_has_missed_nothing_is_not_replayed_anything() {
    let world = World::new().await;
    let id = world.endpoint(Some("https://8.8.8.8/hook")).await;
    let id = id.endpoint.id;
    for change in [
        switch(Status::Enabled, Some(CatchUp::All)),
        switch(Status::Disabled, None),
        switch(Status::Enabled, Some(CatchUp::All)),
    ] {
        world.change(id, change).await.unwrap();
    }
    assert_eq!(world.count(REPLAYS).await, 0);
}

#[test]
fn catch_up_goes_with_enabling() {
    use kernel::validation::from_json;
    for (json, refused) in [
        (r#"{"catchUp": "all"}"#, true),
        (r#"{"catchUp": "none", "status": "disabled"}"#, true),
        (r#"{"catchUp": "all", "status": "enabled"}"#, false),
    ] {
        let read = from_json::<EndpointChange>(json.as_bytes());
        assert_eq!(read.is_err(), refused, "{json}");
    }
}

#[tokio::test]
async fn a_deleted_endpoint_leaves_nothing_but_history() {
    let world = World::new().await;
    let id = disabled(&world).await;
    world
        .change(id, switch(Status::Enabled, Some(CatchUp::All)))
        .await
        .unwrap();
    let mut tx = world.worker.begin().await.unwrap();
    for statement in [
        "insert into endpoint_health (merchant_id, endpoint_id, failure_count) values ($1, $2, 0)",
        "insert into endpoint_hours (merchant_id, endpoint_id, hour, succeeded, failed, duration_counts) values ($1, $2, now(), 0, 0, '{}')",
    ] {
        let insert = sqlx::query(statement).bind(world.merchant).bind(id);
        insert.execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let input = DeleteInput { id, version: None };
    world.run(&Delete { input }).await.unwrap();
    for table in [
        "endpoints",
        "endpoint_cursors",
        "endpoint_keys",
        "endpoint_versions",
        "endpoint_health",
        "endpoint_hours",
        "deliveries",
        "lanes",
        "replays",
        "replay_hints",
    ] {
        let left = world.count(&format!("select count(*) from {table}")).await;
        assert_eq!(left, 0, "{table}");
    }
}
