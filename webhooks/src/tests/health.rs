//! What is told of an endpoint's health.

use std::time::Duration;

use serde_json::json;

use super::world::{World, made};
use crate::{
    delivery::AttemptId,
    endpoint::{
        EndpointChange, EndpointId, Status, announce_failing,
        health::{self, CLASSES, Health, HealthStatus, class_of},
    },
    error::Error,
};

async fn health(world: &World, id: EndpointId) -> Health {
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    health::get(&mut tx, &world.actor, id, world.clock.now())
        .await
        .unwrap()
}

#[tokio::test]
async fn an_endpoint_that_was_sent_nothing_is_healthy() {
    let world = World::new().await;
    let id = world.endpoint(Some("https://8.8.8.8/")).await.endpoint.id;
    let told = serde_json::to_value(health(&world, id).await).unwrap();
    assert_eq!(
        told,
        json!({
            "endpointId": id, "status": "healthy", "failingSince": null, "lastSuccessAt": null,
            "lastDay": {"succeeded": 0, "failed": 0, "successRate": null, "p50Ms": null, "p95Ms": null, "p99Ms": null},
            "lastErrors": [],
            "queue": {"count": 0, "hasMore": false, "oldestDueAt": null, "oldestDueSeconds": null},
        })
    );
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let unknown = EndpointId::new(world.clock.now());
    let missing = health::get(&mut tx, &world.actor, unknown, world.clock.now()).await;
    assert!(matches!(missing, Err(Error::EndpointNotFound(_))));
}

#[tokio::test]
async fn rates_durations_errors_and_backlog_are_told() {
    let world = World::new().await;
    let id = world.endpoint(Some("https://8.8.8.8/")).await.endpoint.id;
    let now = world.clock.now();
    let mut counts = vec![0_i64; CLASSES];
    counts[class_of(50)] = 98;
    counts[class_of(20_000)] = 2;
    let mut tx = world.worker.begin().await.unwrap();
    let hours = [
        (now.minus(Duration::from_hours(2)), 90_i64, 10_i64),
        (now.minus(Duration::from_hours(30)), 0, 1_000),
    ];
    for (hour, succeeded, failed) in hours {
        sqlx::query("insert into endpoint_hours values ($1, $2, $3, $4, $5, $6)")
            .bind(world.merchant)
            .bind(id)
            .bind(hour)
            .bind(succeeded)
            .bind(failed)
            .bind(&counts)
            .execute(&mut *tx)
            .await
            .unwrap();
    }
    for number in 0..15_i32 {
        let at = now.minus(Duration::from_secs(60 - u64::try_from(number).unwrap()));
        let failed = number % 3 != 0;
        sqlx::query(
            "insert into attempts (merchant_id, id, endpoint_id, event_id, sequence, number, started_at, duration_ms, status, error)
            values ($1, $2, $3, $2, $4, 1, $5, 7, $6, $7)",
        )
        .bind(world.merchant)
        .bind(AttemptId::new(at))
        .bind(id)
        .bind(i64::from(number))
        .bind(at)
        .bind((number % 3 != 2).then_some(if failed { 503 } else { 204 }))
        .bind((number % 3 == 2).then_some("timeout"))
        .execute(&mut *tx)
        .await
        .unwrap();
    }
    sqlx::query("insert into endpoint_health (merchant_id, endpoint_id, failing_since, failure_count) values ($1, $2, $3, 5)")
        .bind(world.merchant)
        .bind(id)
        .bind(now)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    world.append(&[made("a", 1), made("b", 1)]).await;
    world.relay_all().await;
    let told = health(&world, id).await;
    assert_eq!(told.status, HealthStatus::Failing);
    let day = told.last_day;
    assert_eq!(
        (day.succeeded, day.failed, day.success_rate),
        (90, 10, Some(0.9))
    );
    assert_eq!(
        (day.p50_ms, day.p95_ms, day.p99_ms),
        (Some(60), Some(60), Some(15_000))
    );
    let errors: Vec<(i64, Option<i32>)> = told
        .last_errors
        .iter()
        .map(|attempt| (attempt.sequence, attempt.status))
        .collect();
    let expected = [14, 13, 11, 10, 8, 7, 5, 4, 2, 1];
    assert_eq!(
        errors,
        expected.map(|number| (number, (number % 3 == 1).then_some(503)))
    );
    assert_eq!((told.queue.count, told.queue.has_more), (2, false));
    assert!(told.queue.oldest_due_at.is_some());
    let disable = EndpointChange {
        status: Some(Status::Disabled),
        ..EndpointChange::default()
    };
    world.change(id, disable).await.unwrap();
    assert_eq!(health(&world, id).await.status, HealthStatus::Disabled);
}

#[tokio::test]
async fn failing_is_announced_as_an_event_of_the_endpoint() {
    let world = World::new().await;
    let endpoint = world.endpoint(Some("https://8.8.8.8/")).await.endpoint;
    let mut tx = world.worker.begin().await.unwrap();
    let now = world.clock.now();
    announce_failing(&mut tx, world.merchant, world.actor.request, now, &endpoint)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let announced = "select count(*) from outbox where type = 'webhook_endpoint.failing'";
    assert_eq!(world.count(announced).await, 1);
}
