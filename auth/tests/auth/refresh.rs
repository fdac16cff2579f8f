//! Refresh tokens (RFC 6749, section 6; RFC 9700, section 4.14): rotation, retries, and what a copy leads to.

use std::time::Duration;

use auth::{
    client::app::ClientKind,
    token::family::{IDLE_MAX, RETRY_GRACE},
};
use axum::http::StatusCode;
use futures_util::future::join_all;

use crate::{
    fixture::{ISSUER, Installation, Process, terms},
    flow::{Desk, assert_error, tokens_of},
};

async fn setting() -> (Installation, Process, Desk) {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Public).await;
    (installation, process, desk)
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_refresh_token_is_exchanged_for_the_next_and_an_access_token() {
    let (installation, process, desk) = setting().await;
    let first = installation
        .tokens(&process, &desk, "orders:write catalog:read")
        .await;
    installation.clock.advance(Duration::from_mins(11));
    assert!(!process.takes(&first.access).await);
    let answer = process.refresh(&desk, &first.refresh).await;
    let second = tokens_of(&answer);
    assert_ne!(first.refresh, second.refresh);
    assert_eq!(answer.json["scope"], "catalog:read orders:write");
    assert_eq!(answer.json["merchant_id"], desk.merchant.to_string());
    assert!(process.takes(&second.access).await);
    let claims = crate::tokens::claims_of(&second.access);
    assert_eq!(claims["sub"], desk.merchant.to_string());
}

#[tokio::test]
async fn scopes_are_narrowed_for_one_access_token_and_never_widened() {
    let (installation, process, desk) = setting().await;
    let mut tokens = installation
        .tokens(&process, &desk, "orders:write catalog:read")
        .await;
    // The grant has more than this family was given.
    let grant = terms("orders:write catalog:write locations:read");
    installation
        .consent(desk.merchant, desk.app.app.id, grant)
        .await
        .unwrap();
    for (wanted, given) in [
        ("orders:read", "orders:read"),
        ("catalog:read orders:read", "catalog:read orders:read"),
        ("", "catalog:read orders:write"),
    ] {
        let answer = process
            .refresh_with(&desk, &tokens.refresh, &format!("&scope={wanted}"))
            .await;
        assert_eq!(answer.json["scope"], given, "{wanted}: {}", answer.json);
        tokens = tokens_of(&answer);
    }
    for wanted in [
        "locations:read",
        "catalog:write",
        "orders:raed",
        "orders:read+locations:read",
    ] {
        let answer = process
            .refresh_with(&desk, &tokens.refresh, &format!("&scope={wanted}"))
            .await;
        assert_error(&answer, "invalid_scope", wanted);
    }
    let other = installation.merchant().await;
    let answer = process
        .refresh_with(
            &desk,
            &tokens.refresh,
            &format!("&resource={ISSUER}/merchants/{other}"),
        )
        .await;
    assert_error(&answer, "invalid_target", "another merchant");
    // What was refused has used up nothing.
    tokens_of(&process.refresh(&desk, &tokens.refresh).await);
}

#[tokio::test]
async fn a_narrowed_grant_narrows_what_a_refresh_gives_and_a_revoked_one_gives_nothing() {
    let (installation, process, desk) = setting().await;
    let app = desk.app.app.id;
    let tokens = installation
        .tokens(&process, &desk, "orders:write catalog:read")
        .await;
    let grant = installation
        .consent(desk.merchant, app, terms("orders:read"))
        .await
        .unwrap();
    assert!(!process.takes(&tokens.access).await);
    let answer = process.refresh(&desk, &tokens.refresh).await;
    assert_eq!(answer.json["scope"], "orders:read", "{}", answer.json);
    let tokens = tokens_of(&answer);
    installation.revoke(desk.merchant, grant.id).await;
    assert_error(
        &process.refresh(&desk, &tokens.refresh).await,
        "invalid_grant",
        "revoked",
    );
    // A new grant does not bring the old one's tokens back.
    installation
        .consent(desk.merchant, app, terms("orders:read"))
        .await
        .unwrap();
    assert_error(
        &process.refresh(&desk, &tokens.refresh).await,
        "invalid_grant",
        "of the old grant",
    );
}

#[tokio::test]
async fn a_lost_answer_is_given_again_until_its_token_is_used() {
    let (installation, process, desk) = setting().await;
    let other = installation.process().await;
    let first = installation.tokens(&process, &desk, "orders:read").await;
    let second = tokens_of(&process.refresh(&desk, &first.refresh).await);
    installation.clock.advance(RETRY_GRACE);
    let again = tokens_of(&other.refresh(&desk, &first.refresh).await);
    assert_eq!(again.refresh, second.refresh, "the same successor");
    assert_ne!(again.access, second.access, "and a fresh access token");
    let third = tokens_of(&process.refresh(&desk, &second.refresh).await);
    assert!(other.takes(&third.access).await);
    // Now the second is known to be in somebody's hands: whoever shows the first is another.
    installation.clock.advance(SECOND);
    assert_error(
        &process.refresh(&desk, &first.refresh).await,
        "invalid_grant",
        "reuse",
    );
    for process in [&process, &other] {
        assert!(!process.takes(&third.access).await, "its access tokens end");
        assert_error(
            &process.refresh(&desk, &third.refresh).await,
            "invalid_grant",
            "ended",
        );
    }
    let reused = installation
        .audited(desk.merchant, "refresh_token.reused")
        .await;
    assert_eq!(reused, 1);
}

#[tokio::test]
async fn a_retry_that_comes_too_late_is_a_reuse() {
    let (installation, process, desk) = setting().await;
    let first = installation.tokens(&process, &desk, "orders:read").await;
    let second = tokens_of(&process.refresh(&desk, &first.refresh).await);
    installation.clock.advance(RETRY_GRACE + SECOND);
    assert_error(
        &process.refresh(&desk, &first.refresh).await,
        "invalid_grant",
        "too late",
    );
    assert_error(
        &process.refresh(&desk, &second.refresh).await,
        "invalid_grant",
        "ended",
    );
    assert!(!process.takes(&second.access).await);
}

#[tokio::test]
async fn an_old_token_ends_the_family_however_often_it_was_rotated() {
    let (installation, process, desk) = setting().await;
    let first = installation.tokens(&process, &desk, "orders:read").await;
    let mut last = first.clone();
    for _ in 0..4 {
        installation.clock.advance(Duration::from_mins(9));
        last = tokens_of(&process.refresh(&desk, &last.refresh).await);
    }
    assert_error(
        &process.refresh(&desk, &first.refresh).await,
        "invalid_grant",
        "a copy",
    );
    assert!(!process.takes(&last.access).await);
    assert_error(
        &process.refresh(&desk, &last.refresh).await,
        "invalid_grant",
        "ended",
    );
}

#[tokio::test]
async fn fifty_refreshes_at_once_leave_one_living_family_and_lock_nobody_out() {
    let (installation, process, desk) = setting().await;
    let processes = [process, installation.process().await];
    let first = installation
        .tokens(&processes[0], &desk, "orders:read")
        .await;
    let answers = join_all(
        (0..50).map(|turn| processes[turn % processes.len()].refresh(&desk, &first.refresh)),
    )
    .await;
    let tokens: Vec<_> = answers.iter().map(tokens_of).collect();
    for each in &tokens {
        assert_eq!(each.refresh, tokens[0].refresh);
        assert!(processes[1].takes(&each.access).await);
    }
    let next = tokens_of(&processes[1].refresh(&desk, &tokens[0].refresh).await);
    assert!(processes[0].takes(&next.access).await);
    let families = "select count(*) from refresh_families where ended_at is null";
    assert_eq!(installation.count(families).await, 1);
    assert_eq!(
        installation
            .count("select count(*) from refresh_tokens")
            .await,
        3
    );
}

#[tokio::test]
async fn a_request_that_was_overtaken_ends_nothing() {
    let (installation, process, desk) = setting().await;
    let first = installation.tokens(&process, &desk, "orders:read").await;
    let second = tokens_of(&process.refresh(&desk, &first.refresh).await);
    let third = tokens_of(&process.refresh(&desk, &second.refresh).await);
    // It arrived no later than the successor was used: it was under way already.
    assert_error(
        &process.refresh(&desk, &first.refresh).await,
        "invalid_grant",
        "overtaken",
    );
    assert!(process.takes(&third.access).await);
    tokens_of(&process.refresh(&desk, &third.refresh).await);
}

#[tokio::test]
async fn another_clients_token_is_refused_and_ends_nothing() {
    let (installation, process, desk) = setting().await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    for kind in [ClientKind::Public, ClientKind::Confidential] {
        let thief = installation.desk(kind).await;
        assert_error(
            &process.refresh(&thief, &tokens.refresh).await,
            "invalid_grant",
            "stolen",
        );
    }
    let next = tokens_of(&process.refresh(&desk, &tokens.refresh).await);
    let thief = installation.desk(ClientKind::Public).await;
    installation.clock.advance(RETRY_GRACE + SECOND);
    assert_error(
        &process.refresh(&thief, &tokens.refresh).await,
        "invalid_grant",
        "an old one",
    );
    tokens_of(&process.refresh(&desk, &next.refresh).await);
}

#[tokio::test]
async fn other_tokens_are_no_refresh_tokens() {
    let (installation, process, desk) = setting().await;
    let code = installation.code(&process, &desk, "orders:read").await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    for token in [&code, &tokens.access, "stoa_refresh_", "x"] {
        assert_error(&process.refresh(&desk, token).await, "invalid_grant", token);
    }
    // And a refresh token is no access token.
    assert!(!process.takes(&tokens.refresh).await);
    let answer = process
        .refresh_with(
            &desk,
            &tokens.refresh,
            &format!("&refresh_token={}", tokens.refresh),
        )
        .await;
    assert_error(&answer, "invalid_request", "repeated");
    assert_error(
        &process.refresh(&desk, "").await,
        "invalid_request",
        "missing",
    );
    tokens_of(&process.redeem(&desk, &code).await);
}

#[tokio::test]
async fn a_token_that_lies_unused_expires_and_none_outlives_its_grant() {
    let (installation, process, desk) = setting().await;
    for (idle, is_good) in [(IDLE_MAX.saturating_sub(SECOND), true), (IDLE_MAX, false)] {
        let tokens = installation.tokens(&process, &desk, "orders:read").await;
        installation.clock.advance(idle);
        let answer = process.refresh(&desk, &tokens.refresh).await;
        assert_eq!(answer.status == StatusCode::OK, is_good, "{idle:?}");
    }
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    let mut ending = terms("orders:read");
    ending.expires_at = Some(installation.clock.now().plus(Duration::from_mins(5)));
    installation
        .consent(desk.merchant, desk.app.app.id, ending)
        .await
        .unwrap();
    let answer = process.refresh(&desk, &tokens.refresh).await;
    assert!((299..=300).contains(&answer.json["expires_in"].as_i64().unwrap()));
    let tokens = tokens_of(&answer);
    installation.clock.advance(Duration::from_mins(5));
    assert_error(
        &process.refresh(&desk, &tokens.refresh).await,
        "invalid_grant",
        "the grant has ended",
    );
    // Given anew, the grant is not the old one's tokens' to use.
    installation
        .consent(desk.merchant, desk.app.app.id, terms("orders:read"))
        .await
        .unwrap();
    assert_error(
        &process.refresh(&desk, &tokens.refresh).await,
        "invalid_grant",
        "beyond the grant's end",
    );
}

#[tokio::test]
async fn only_hashes_of_codes_and_tokens_are_kept() {
    let (installation, process, desk) = setting().await;
    let code = installation.code(&process, &desk, "orders:read").await;
    let first = tokens_of(&process.redeem(&desk, &code).await);
    let second = tokens_of(&process.refresh(&desk, &first.refresh).await);
    for secret in [&code, &first.refresh, &second.refresh] {
        for table in [
            "authorization_requests",
            "authorization_codes",
            "refresh_families",
            "refresh_tokens",
            "audit_entries",
        ] {
            let found = format!(
                "select count(*) from {table} kept where strpos(kept::text, '{secret}') > 0
                    or strpos(kept::text, encode('{secret}'::bytea, 'hex')) > 0"
            );
            assert_eq!(installation.count(&found).await, 0, "{table}");
        }
    }
}

#[tokio::test]
async fn what_is_over_is_swept() {
    let (installation, process, desk) = setting().await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    process.authorize(&desk.request("orders:read")).await;
    let worker = installation.database.worker();
    let sweep = || auth::sweep(&worker, installation.clock.now());
    assert_eq!(sweep().await.unwrap(), 0);
    installation.clock.advance(Duration::from_hours(1));
    assert_eq!(sweep().await.unwrap(), 2, "two requests");
    installation.clock.advance(Duration::from_hours(24));
    assert_eq!(sweep().await.unwrap(), 1, "a code");
    tokens_of(&process.refresh(&desk, &tokens.refresh).await);
    installation.clock.advance(IDLE_MAX);
    sweep().await.unwrap();
    installation.clock.advance(IDLE_MAX);
    sweep().await.unwrap();
    for table in [
        "authorization_requests",
        "authorization_codes",
        "refresh_tokens",
        "refresh_families",
    ] {
        let left = format!("select count(*) from {table}");
        assert_eq!(installation.count(&left).await, 0, "{table}");
    }
}
