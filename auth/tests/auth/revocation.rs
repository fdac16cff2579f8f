//! Revocation by the client (RFC 7009).

use auth::client::app::ClientKind;
use axum::http::StatusCode;

use crate::{
    fixture::Installation,
    flow::{assert_error, tokens_of},
};

#[tokio::test]
async fn a_refresh_token_that_is_given_back_ends_its_family_and_the_access_tokens() {
    for kind in [ClientKind::Public, ClientKind::Confidential] {
        let installation = Installation::new().await;
        let (process, other) = (installation.process().await, installation.process().await);
        let desk = installation.desk(kind).await;
        let first = installation.tokens(&process, &desk, "orders:read").await;
        let bystander = installation.tokens(&process, &desk, "orders:read").await;
        let second = tokens_of(&process.refresh(&desk, &first.refresh).await);
        for _ in 0..2 {
            let answer = process.revoke(&desk, &second.refresh).await;
            assert_eq!(answer.status, StatusCode::OK);
        }
        assert!(!other.takes(&second.access).await);
        assert_error(
            &other.refresh(&desk, &second.refresh).await,
            "invalid_grant",
            "given back",
        );
        let ended = installation
            .audited(desk.merchant, "refresh_family.ended")
            .await;
        assert_eq!(ended, 1);
        // Another family of the same grant gets new access tokens.
        let tokens = tokens_of(&process.refresh(&desk, &bystander.refresh).await);
        assert!(other.takes(&tokens.access).await);
    }
}

#[tokio::test]
async fn an_access_token_that_is_given_back_ends_with_its_like_and_refresh_tokens_live_on() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Confidential).await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    assert_eq!(
        process.revoke(&desk, &tokens.access).await.status,
        StatusCode::OK
    );
    assert!(!process.takes(&tokens.access).await);
    let next = tokens_of(&process.refresh(&desk, &tokens.refresh).await);
    assert!(process.takes(&next.access).await);
    // One that is not good any more ends nothing.
    assert_eq!(
        process.revoke(&desk, &tokens.access).await.status,
        StatusCode::OK
    );
    assert!(process.takes(&next.access).await);
}

#[tokio::test]
async fn another_clients_token_and_what_is_none_are_passed_over() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Confidential).await;
    let stranger = installation.desk(ClientKind::Confidential).await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    for token in [
        &tokens.access,
        &tokens.refresh,
        "stoa_refresh_x",
        "a.b.c",
        "x",
    ] {
        let answer = process.revoke(&stranger, token).await;
        assert_eq!(answer.status, StatusCode::OK, "{token}");
    }
    assert!(process.takes(&tokens.access).await);
    tokens_of(&process.refresh(&desk, &tokens.refresh).await);
    assert_error(
        &process.revoke(&desk, "").await,
        "invalid_request",
        "no token",
    );
    let unproved = format!("token={}&client_id={}", tokens.refresh, desk.id());
    let answer = process.post_to("/oauth/revoke", &[], &unproved).await;
    assert_error(&answer, "invalid_client", "no secret");
}
