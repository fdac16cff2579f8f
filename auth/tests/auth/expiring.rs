//! `grant.expiring`: once for each end, by however many workers.

use std::{sync::Arc, time::Duration};

use auth::grant::expiring::{self, NOTICE};
use kernel::event::Announcer;

use crate::fixture::{Install, Installation, terms};

const HOUR: Duration = Duration::from_hours(1);

async fn announced(installation: &Installation) -> i64 {
    let sql = "select count(*) from outbox where type = 'grant.expiring'";
    installation.database.count(sql).await.unwrap()
}

async fn announce(installation: &Installation) -> usize {
    let worker = installation.database.worker();
    expiring::announce(&worker, &Announcer::default(), installation.clock.now())
        .await
        .unwrap()
}

async fn install_for(installation: &Installation, lifetime: Duration) -> Install {
    let mut input = terms("orders:read");
    input.expires_at = Some(installation.clock.now().plus(lifetime));
    installation.install(input).await
}

#[tokio::test]
async fn an_end_is_announced_three_days_ahead_and_once() {
    let installation = Installation::new().await;
    installation.install(terms("orders:read")).await;
    install_for(&installation, NOTICE + HOUR).await;
    assert_eq!(announce(&installation).await, 0);
    installation.clock.advance(HOUR);
    assert_eq!(announce(&installation).await, 1);
    for _ in 0..3 {
        installation.clock.advance(HOUR);
        assert_eq!(announce(&installation).await, 0);
    }
    assert_eq!(announced(&installation).await, 1);
}

#[tokio::test]
async fn a_short_grant_is_announced_for_its_last_quarter() {
    let installation = Installation::new().await;
    install_for(&installation, HOUR * 4).await;
    installation
        .clock
        .advance((HOUR * 3).saturating_sub(Duration::from_secs(1)));
    assert_eq!(announce(&installation).await, 0);
    installation.clock.advance(Duration::from_secs(1));
    assert_eq!(announce(&installation).await, 1);
}

#[tokio::test]
async fn another_end_is_announced_again_when_it_comes_near() {
    let installation = Installation::new().await;
    let install = install_for(&installation, NOTICE).await;
    assert_eq!(announce(&installation).await, 1);
    for (lifetime, expected) in [(NOTICE * 2, [0, 1]), (HOUR * 4, [0, 1])] {
        let mut input = terms("orders:read");
        input.expires_at = Some(installation.clock.now().plus(lifetime));
        installation
            .consent(install.merchant, install.app.app.id, input)
            .await
            .unwrap();
        assert_eq!(announce(&installation).await, expected[0]);
        installation
            .clock
            .advance(lifetime.min(NOTICE) * 3 / 4 + lifetime.saturating_sub(NOTICE));
        assert_eq!(announce(&installation).await, expected[1]);
    }
    assert_eq!(announced(&installation).await, 3);
}

#[tokio::test]
async fn what_is_revoked_or_over_is_not_announced() {
    let installation = Installation::new().await;
    let revoked = install_for(&installation, NOTICE).await;
    installation
        .revoke(revoked.merchant, revoked.grant.id)
        .await;
    install_for(&installation, HOUR).await;
    installation.clock.advance(HOUR);
    assert_eq!(announce(&installation).await, 0);
}

#[tokio::test]
async fn several_workers_at_once_announce_each_end_once() {
    let installation = Arc::new(Installation::new().await);
    let app = installation.app().await.app.id;
    for _ in 0..20 {
        let merchant = installation.merchant().await;
        let mut input = terms("orders:read");
        input.expires_at = Some(installation.clock.now().plus(NOTICE));
        installation.consent(merchant, app, input).await.unwrap();
    }
    let workers: Vec<_> = (0..8)
        .map(|_| {
            let installation = Arc::clone(&installation);
            tokio::spawn(async move { announce(&installation).await })
        })
        .collect();
    let mut total = 0;
    for worker in workers {
        total += worker.await.unwrap();
    }
    // Whoever meets a row that another one has in hand leaves it to that one.
    assert_eq!(total, 20);
    assert_eq!(announced(&installation).await, 20);
    let told = "select count(distinct resource_id) from outbox where type = 'grant.expiring'";
    assert_eq!(installation.database.count(told).await.unwrap(), 20);
}
