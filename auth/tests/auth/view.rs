//! The grant view among processes: revoked and narrowed is felt by each poll, and a view that is old is not relied on.

use std::time::Duration;

use auth::{Error, TokenFault, grant::view::VIEW_AGE_MAX};
use kernel::{actor::AccessSource, id::GrantId, problem::Problem};

use crate::fixture::{Installation, Process, terms};

async fn fault(process: &Process, token: &str) -> Option<TokenFault> {
    match process.verify(token).await {
        Ok(_) => None,
        Err(Error::Token(fault)) => Some(fault),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_process_refuses_a_revoked_and_a_narrowed_grant_after_its_poll() {
    let installation = Installation::new().await;
    let processes = [installation.process().await, installation.process().await];
    let revoked = installation.install(terms("orders:write")).await;
    let narrowed = installation.install(terms("orders:write")).await;
    let widened = installation.install(terms("orders:write")).await;
    let mut tokens = Vec::new();
    for install in [&revoked, &narrowed, &widened] {
        tokens.push(processes[0].token(install).await);
    }
    for process in &processes {
        process.view.reread().await.unwrap();
        for token in &tokens {
            assert_eq!(fault(process, token).await, None);
        }
    }
    installation
        .revoke(revoked.merchant, revoked.grant.id)
        .await;
    installation
        .consent(narrowed.merchant, narrowed.app.app.id, terms("orders:read"))
        .await
        .unwrap();
    installation
        .consent(
            widened.merchant,
            widened.app.app.id,
            terms("orders:write catalog:read"),
        )
        .await
        .unwrap();
    for process in &processes {
        process.view.reread().await.unwrap();
        assert_eq!(
            fault(process, &tokens[0]).await,
            Some(TokenFault::GrantEnded)
        );
        assert_eq!(
            fault(process, &tokens[1]).await,
            Some(TokenFault::GrantNarrowed)
        );
        assert_eq!(
            fault(process, &tokens[2]).await,
            None,
            "what was only added leaves tokens valid"
        );
    }
    // A new token of the narrowed grant has what is left.
    let next = processes[0].token(&narrowed).await;
    let actor = processes[1].verify(&next).await.unwrap();
    assert_eq!(actor.access.scopes.to_string(), "orders:read");
}

#[tokio::test]
async fn a_fresh_view_asks_nobody_and_an_old_one_asks_the_database() {
    let installation = Installation::new().await;
    let (process, other) = (installation.process().await, installation.process().await);
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    process.view.reread().await.unwrap();
    installation
        .revoke(install.merchant, install.grant.id)
        .await;
    assert_eq!(
        fault(&process, &token).await,
        None,
        "the next reread is still to come"
    );
    installation.clock.advance(VIEW_AGE_MAX);
    assert_eq!(fault(&process, &token).await, None);
    installation.clock.advance(Duration::from_millis(1));
    assert_eq!(
        fault(&process, &token).await,
        Some(TokenFault::GrantEnded),
        "no reread, yet felt within a second"
    );
    assert_eq!(
        fault(&other, &token).await,
        Some(TokenFault::GrantEnded),
        "a process that has never read"
    );
}

#[tokio::test]
async fn without_a_database_an_old_view_accepts_nothing() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    process.view.reread().await.unwrap();
    process.database.close().await;
    assert_eq!(
        fault(&process, &token).await,
        None,
        "a fresh view needs no database"
    );
    installation
        .clock
        .advance(VIEW_AGE_MAX + Duration::from_millis(1));
    assert!(process.view.reread().await.is_err());
    for _ in 0..2 {
        let problem = Problem::from(process.verify(&token).await.unwrap_err());
        assert_eq!(
            (problem.kind.slug, problem.kind.status),
            ("unavailable", 503)
        );
    }
    assert!(
        process
            .view
            .access(install.merchant, install.grant.id)
            .await
            .unwrap_err()
            .is_unavailable()
    );
}

#[tokio::test]
async fn a_grant_that_ends_is_refused_when_its_end_comes() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let mut ending = terms("orders:read");
    ending.expires_at = Some(installation.clock.now().plus(Duration::from_mins(1)));
    let install = installation.install(ending).await;
    assert!(
        process
            .view
            .access(install.merchant, install.grant.id)
            .await
            .unwrap()
            .is_some()
    );
    installation.clock.advance(Duration::from_mins(1));
    process.view.reread().await.unwrap();
    assert!(
        process
            .view
            .access(install.merchant, install.grant.id)
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_token_ends_with_its_grant_whatever_the_view_knows() {
    let installation = Installation::new().await;
    let (reread, never_read) = (installation.process().await, installation.process().await);
    let end = installation.clock.now().plus(Duration::from_mins(2));
    let mut ending = terms("orders:read");
    ending.expires_at = Some(end);
    let install = installation.install(ending).await;
    let token = reread.token(&install).await;
    let almost = end
        .since(installation.clock.now())
        .saturating_sub(Duration::from_secs(2));
    installation.clock.advance(almost);
    reread.view.reread().await.unwrap();
    for process in [&reread, &never_read] {
        assert_eq!(fault(process, &token).await, None);
    }
    installation.clock.advance(Duration::from_secs(2));
    reread.view.reread().await.unwrap();
    for process in [&reread, &never_read] {
        assert_eq!(fault(process, &token).await, Some(TokenFault::Expired));
    }
    // Extended too late: the grant lives on, the token does not.
    let mut longer = terms("orders:read");
    longer.expires_at = Some(end.plus(Duration::from_hours(1)));
    installation
        .consent(install.merchant, install.app.app.id, longer)
        .await
        .unwrap();
    reread.view.reread().await.unwrap();
    assert_eq!(fault(&reread, &token).await, Some(TokenFault::Expired));
    assert_eq!(
        fault(&reread, &never_read.token(&install).await).await,
        None
    );
}

#[tokio::test]
async fn a_grant_that_is_shortened_is_felt_before_its_new_end() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    process.view.reread().await.unwrap();
    let mut shorter = terms("orders:read");
    shorter.expires_at = Some(installation.clock.now().plus(Duration::from_mins(1)));
    installation
        .consent(install.merchant, install.app.app.id, shorter)
        .await
        .unwrap();
    process.view.reread().await.unwrap();
    assert_eq!(
        fault(&process, &token).await,
        Some(TokenFault::GrantNarrowed),
        "it says that it lasts longer than the grant"
    );
    let next = process.token(&install).await;
    assert_eq!(fault(&process, &next).await, None);
    installation.clock.advance(Duration::from_mins(1));
    assert_eq!(fault(&process, &next).await, Some(TokenFault::Expired));
}

#[tokio::test]
async fn the_access_of_a_grant_is_kept_and_kept_fresh() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let source: &dyn AccessSource = &*process.view;
    let install = installation.install(terms("orders:write")).await;
    let (merchant, grant) = (install.merchant, install.grant.id);
    // Long ago: no reread finds it, it is loaded when it is asked for.
    installation.clock.advance(Duration::from_hours(24));
    process.view.reread().await.unwrap();
    assert_eq!(
        source.access(merchant, grant).await.unwrap(),
        Some(install.grant.access())
    );
    let other = installation.merchant().await;
    assert_eq!(
        source.access(other, grant).await.unwrap(),
        None,
        "another merchant's grant is not there"
    );
    assert_eq!(
        source
            .access(merchant, GrantId::new(installation.clock.now()))
            .await
            .unwrap(),
        None
    );
    // Widened: no epoch is raised, yet what it sees is what it is given now.
    let widened = installation
        .consent(
            merchant,
            install.app.app.id,
            terms("orders:write catalog:read"),
        )
        .await
        .unwrap();
    process.view.reread().await.unwrap();
    assert_eq!(
        source.access(merchant, grant).await.unwrap(),
        Some(widened.access())
    );
    // Once it has left the window it is still what it was changed to.
    installation.clock.advance(Duration::from_hours(1));
    process.view.reread().await.unwrap();
    process.view.reread().await.unwrap();
    assert_eq!(
        source.access(merchant, grant).await.unwrap(),
        Some(widened.access())
    );
}

#[tokio::test]
async fn a_change_is_found_after_a_gap_longer_than_the_window() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:write")).await;
    let (merchant, grant) = (install.merchant, install.grant.id);
    process.view.reread().await.unwrap();
    assert!(
        process
            .view
            .access(merchant, grant)
            .await
            .unwrap()
            .is_some()
    );
    installation.clock.advance(Duration::from_mins(20));
    // The first of these still looks back to before the gap, the second finds nothing changed.
    process.view.reread().await.unwrap();
    process.view.reread().await.unwrap();
    assert!(
        process
            .view
            .access(merchant, grant)
            .await
            .unwrap()
            .is_some(),
        "loaded, and out of the window"
    );
    // The process sleeps for an hour; the grant is revoked a minute into it.
    installation.clock.advance(Duration::from_mins(1));
    installation.revoke(merchant, grant).await;
    installation.clock.advance(Duration::from_hours(1));
    process.view.reread().await.unwrap();
    process.database.close().await;
    assert_eq!(
        process.view.access(merchant, grant).await.unwrap(),
        None,
        "from the view alone"
    );
}

#[tokio::test]
async fn a_database_that_hangs_is_away_too_and_harms_no_later_request() {
    use sqlx::{Connection, Executor};
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    let mut owner = installation.database.owner().await.unwrap();
    let mut holding = owner.begin().await.unwrap();
    holding
        .execute("lock table grants in access exclusive mode")
        .await
        .unwrap();
    let (verified, reread) = tokio::join!(process.verify(&token), process.view.reread());
    assert_eq!(
        Problem::from(verified.unwrap_err()).kind.slug,
        "unavailable"
    );
    assert!(reread.unwrap_err().is_unavailable());
    holding.rollback().await.unwrap();
    process.verify(&token).await.unwrap();
    process.view.reread().await.unwrap();
}
