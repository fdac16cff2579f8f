//! Grants: consent, change, revocation, and their events.

use std::{collections::HashSet, sync::Arc, time::Duration};

use auth::{
    Error,
    client::app,
    grant::{self, GrantInput},
    merchant,
};
use kernel::{
    clock::Timestamp,
    id::{AppId, LocationId, MerchantId, RequestId},
    problem::Problem,
};

use crate::fixture::{Installation, terms};

type Change = fn(&mut GrantInput, LocationId, Timestamp);

const LIVING: &str = "select count(*) from grants where revoked_at is null";

#[tokio::test]
async fn concurrent_consents_make_one_living_grant() {
    let installation = Arc::new(Installation::new().await);
    let (merchant, app) = (
        installation.merchant().await,
        installation.app().await.app.id,
    );
    let consents: Vec<_> = (0..32)
        .map(|turn| {
            let installation = Arc::clone(&installation);
            let scopes = if turn % 2 == 0 {
                "orders:read"
            } else {
                "orders:write"
            };
            tokio::spawn(async move {
                installation
                    .consent(merchant, app, terms(scopes))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut ids = HashSet::new();
    let mut versions = Vec::new();
    for consent in consents {
        let grant = consent.await.unwrap();
        ids.insert(grant.id);
        versions.push(grant.version);
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(installation.database.count(LIVING).await.unwrap(), 1);
    assert_eq!(
        installation
            .database
            .count("select count(*) from outbox where type = 'grant.created'")
            .await
            .unwrap(),
        1
    );
    let last = installation
        .database
        .count("select version from grants")
        .await
        .unwrap();
    assert_eq!(
        versions.into_iter().max(),
        Some(last),
        "each change is a version"
    );
}

#[tokio::test]
async fn concurrent_consents_and_revocations_leave_at_most_one_living_grant() {
    let installation = Arc::new(Installation::new().await);
    let (merchant, app) = (
        installation.merchant().await,
        installation.app().await.app.id,
    );
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let installation = Arc::clone(&installation);
            tokio::spawn(async move {
                for _ in 0..8 {
                    let grant = installation
                        .consent(merchant, app, terms("orders:read"))
                        .await
                        .unwrap();
                    installation.revoke(merchant, grant.id).await;
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(installation.database.count(LIVING).await.unwrap(), 0);
    let grants = installation
        .database
        .count("select count(*) from grants")
        .await
        .unwrap();
    for kind in ["created", "revoked"] {
        let told = installation
            .database
            .count(&format!(
                "select count(*) from outbox where type = 'grant.{kind}'"
            ))
            .await;
        assert_eq!(told.unwrap(), grants, "every grant is {kind} once");
    }
}

#[tokio::test]
async fn the_epoch_rises_with_what_is_taken_away_and_only_then() {
    let installation = Installation::new().await;
    let install = installation.install(terms("orders:read")).await;
    let (merchant, app) = (install.merchant, install.app.app.id);
    let mut input = terms("orders:write");
    let mut before = install.grant;
    let location = LocationId::new(installation.clock.now());
    let end = installation.clock.now().plus(Duration::from_hours(1));
    let steps: [(&str, Change, i64); 6] = [
        ("widened", |_, _, _| {}, 0),
        ("ending", |input, _, end| input.expires_at = Some(end), 1),
        (
            "longer",
            |input, _, end| input.expires_at = Some(end.plus(Duration::from_secs(1))),
            0,
        ),
        (
            "somewhere",
            |input, location, _| input.locations = Some(vec![location, location]),
            1,
        ),
        ("personal", |input, _, _| input.personal_data = true, 0),
        ("impersonal", |input, _, _| input.personal_data = false, 1),
    ];
    for (step, change, raised) in steps {
        installation.clock.advance(Duration::from_secs(1));
        change(&mut input, location, end);
        let after = installation
            .consent(merchant, app, input.clone())
            .await
            .unwrap();
        assert_eq!(after.id, before.id, "{step}");
        assert_eq!(after.epoch - before.epoch, raised, "{step}");
        assert_eq!(after.version - before.version, 1, "{step}");
        assert_eq!(after.changed_at, installation.clock.now(), "{step}");
        let mut tx = installation.database.api().begin().await.unwrap();
        assert_eq!(
            grant::get(&mut tx, merchant, after.id).await.unwrap(),
            after,
            "{step}"
        );
        before = after;
    }
    assert_eq!(
        before.locations,
        Some(vec![location]),
        "named twice, kept once"
    );
    installation.clock.advance(Duration::from_secs(1));
    let again = installation.consent(merchant, app, input).await.unwrap();
    assert_eq!(again, before, "consent to the same changes nothing");
    let revoked = installation.revoke(merchant, before.id).await;
    assert_eq!(
        (revoked.epoch, revoked.revoked_at),
        (before.epoch + 1, Some(installation.clock.now()))
    );
    assert_eq!(
        installation.revoke(merchant, before.id).await,
        revoked,
        "once is enough"
    );
    let next = installation
        .consent(merchant, app, terms("orders:read"))
        .await
        .unwrap();
    assert_ne!(next.id, revoked.id);
}

#[tokio::test]
async fn events_tell_of_the_grant_as_the_api_shows_it() {
    use sqlx::{Executor, Row};
    let installation = Installation::new().await;
    let install = installation.install(terms("orders:read")).await;
    installation
        .revoke(install.merchant, install.grant.id)
        .await;
    let mut tx = installation.database.worker().begin().await.unwrap();
    let rows = tx
        .fetch_all("select type, resource_type, resource_id, resource_version, scope, data::text from outbox order by resource_version")
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    for (row, (kind, version)) in rows
        .iter()
        .zip([("grant.created", 1_i64), ("grant.revoked", 2)])
    {
        assert_eq!(
            (row.get::<String, _>(0).as_str(), row.get::<i64, _>(3)),
            (kind, version)
        );
        assert_eq!(
            (
                row.get::<String, _>(1).as_str(),
                row.get::<String, _>(4).as_str()
            ),
            ("grant", "merchant:admin")
        );
        assert_eq!(row.get::<String, _>(2), install.grant.id.to_string());
        let data: serde_json::Value = serde_json::from_str(&row.get::<String, _>(5)).unwrap();
        assert_eq!(data["scopes"], serde_json::json!(["orders:read"]));
        assert_eq!(data["merchantId"], install.merchant.to_string());
        assert_eq!(data["revokedAt"].is_null(), kind == "grant.created");
        assert!(data.get("epoch").is_none());
    }
}

#[tokio::test]
async fn a_grant_needs_a_merchant_an_app_and_sound_terms() {
    let installation = Installation::new().await;
    let (merchant, app) = (
        installation.merchant().await,
        installation.app().await.app.id,
    );
    let now = installation.clock.now();
    let (nobody, nothing) = (MerchantId::new(now), AppId::new(now));
    let missing = installation
        .consent(nobody, app, terms("orders:read"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            missing,
            Error::NotFound {
                noun: "merchant",
                ..
            }
        ),
        "{missing:?}"
    );
    let missing = installation
        .consent(merchant, nothing, terms("orders:read"))
        .await
        .unwrap_err();
    assert!(
        matches!(missing, Error::NotFound { noun: "app", .. }),
        "{missing:?}"
    );
    let mut over = terms("orders:read");
    over.expires_at = Some(now);
    let mut nowhere = terms("orders:read");
    nowhere.locations = Some(vec![]);
    let mut everywhere = terms("orders:read");
    everywhere.locations = Some(
        (0..=grant::LOCATIONS_MAX)
            .map(|_| LocationId::new(now))
            .collect(),
    );
    for (input, pointer) in [
        (over, "/expiresAt"),
        (nowhere, "/locations"),
        (everywhere, "/locations"),
        (terms(""), "/scopes"),
    ] {
        let problem = Problem::from(
            installation
                .consent(merchant, app, input)
                .await
                .unwrap_err(),
        );
        assert_eq!(problem.kind.slug, "invalid_fields");
        assert_eq!(problem.errors[0].pointer.as_deref(), Some(pointer));
    }
    // Another merchant's grant is not there.
    let install = installation.install(terms("orders:read")).await;
    let mut tx = installation.database.api().enter(merchant).await.unwrap();
    let foreign = grant::revoke(
        &mut tx,
        merchant,
        install.grant.id,
        RequestId::new(now),
        now,
    )
    .await
    .unwrap_err();
    assert!(
        matches!(foreign, Error::NotFound { noun: "grant", .. }),
        "{foreign:?}"
    );
    assert!(matches!(
        grant::get(&mut tx, merchant, install.grant.id).await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        merchant::get(&mut tx, nobody).await,
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        app::get(&mut tx, nothing).await,
        Err(Error::NotFound { .. })
    ));
    assert_eq!(merchant::get(&mut tx, merchant).await.unwrap().id, merchant);
    assert_eq!(app::get(&mut tx, app).await.unwrap().id, app);
}
