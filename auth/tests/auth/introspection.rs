//! Introspection (RFC 7662): for whom a token was issued to and for its audience, and for nobody else.

use std::time::Duration;

use auth::client::app::ClientKind;
use axum::http::StatusCode;
use serde_json::json;

use crate::{
    fixture::{ISSUER, Installation, basic, terms},
    flow::{assert_error, tokens_of},
};

#[tokio::test]
async fn a_token_is_shown_to_its_owner_and_its_audience() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Confidential).await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    let own = installation.app().await;
    installation
        .consent(desk.merchant, own.app.id, terms("merchant:admin"))
        .await
        .unwrap();
    for app in [&desk.app, &own] {
        let answer = process.introspect(app, &tokens.access).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["cache-control"], "no-store");
        for (name, expected) in [
            ("active", json!(true)),
            ("scope", json!("orders:read")),
            ("client_id", json!(desk.id())),
            ("token_type", json!("Bearer")),
            ("sub", json!(desk.merchant.to_string())),
            (
                "aud",
                json!(format!("{ISSUER}/merchants/{}", desk.merchant)),
            ),
            ("iss", json!(ISSUER)),
        ] {
            assert_eq!(answer.json[name], expected, "{name}");
        }
        let lasting = answer.json["exp"].as_i64().unwrap() - answer.json["iat"].as_i64().unwrap();
        assert_eq!(lasting, 600);
        let answer = process.introspect(app, &tokens.refresh).await;
        assert_eq!(answer.json["active"], true);
        assert_eq!(answer.json["scope"], "orders:read");
        assert!(answer.json.get("token_type").is_none());
    }
    // Looking uses nothing up.
    tokens_of(&process.refresh(&desk, &tokens.refresh).await);
}

#[tokio::test]
async fn to_everybody_else_a_token_is_like_one_that_is_none() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Confidential).await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    let stranger = installation.app().await;
    let colleague = installation.app().await;
    installation
        .consent(desk.merchant, colleague.app.id, terms("orders:write"))
        .await
        .unwrap();
    let elsewhere = installation.app().await;
    let other = installation.merchant().await;
    installation
        .consent(other, elsewhere.app.id, terms("merchant:admin"))
        .await
        .unwrap();
    let former = installation.app().await;
    let grant = installation
        .consent(desk.merchant, former.app.id, terms("merchant:admin"))
        .await
        .unwrap();
    installation.revoke(desk.merchant, grant.id).await;
    for app in [&stranger, &colleague, &elsewhere, &former] {
        for token in [
            &tokens.access,
            &tokens.refresh,
            "stoa_refresh_x",
            "a.b.c",
            "x",
        ] {
            let answer = process.introspect(app, token).await;
            assert_eq!(
                (answer.status, answer.json),
                (StatusCode::OK, json!({"active": false})),
                "{token}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_that_is_over_is_not_active() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Confidential).await;
    let active = async |token: &str| {
        let answer = process.introspect(&desk.app, token).await;
        assert_eq!(answer.status, StatusCode::OK);
        answer.json["active"].as_bool().unwrap()
    };
    let first = installation.tokens(&process, &desk, "orders:write").await;
    let second = tokens_of(&process.refresh(&desk, &first.refresh).await);
    assert!(!active(&first.refresh).await, "exchanged");
    assert!(active(&second.refresh).await && active(&second.access).await);
    installation
        .consent(desk.merchant, desk.app.app.id, terms("orders:read"))
        .await
        .unwrap();
    assert!(!active(&second.access).await, "narrowed since");
    let answer = process.introspect(&desk.app, &second.refresh).await;
    assert_eq!(answer.json["scope"], "orders:read");
    let third = tokens_of(&process.refresh(&desk, &second.refresh).await);
    installation.clock.advance(Duration::from_mins(10));
    assert!(!active(&third.access).await, "expired");
    assert!(active(&third.refresh).await);
    let grant = installation
        .authorizations()
        .living_grant(desk.merchant, desk.app.app.id)
        .await
        .unwrap()
        .unwrap();
    installation.revoke(desk.merchant, grant.id).await;
    assert!(!active(&third.refresh).await, "revoked");
}

#[tokio::test]
async fn only_who_proves_who_they_are_may_ask() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Public).await;
    let tokens = installation.tokens(&process, &desk, "orders:read").await;
    let form = format!("token={}{}", tokens.access, desk.credentials());
    let answer = process.post_to("/oauth/introspect", &[], &form).await;
    assert_error(&answer, "invalid_client", "a public client");
    let answer = process
        .post_to(
            "/oauth/introspect",
            &[],
            &format!("token={}", tokens.access),
        )
        .await;
    assert_error(&answer, "invalid_client", "nobody");
    let app = installation.app().await;
    for form in ["", "token=", "token=a&token=b"] {
        let answer = process
            .post_to("/oauth/introspect", &[basic(&app)], form)
            .await;
        assert_error(&answer, "invalid_request", form);
    }
    let hinted = "token=a&token_type_hint=something_else";
    let answer = process
        .post_to("/oauth/introspect", &[basic(&app)], hinted)
        .await;
    assert_eq!(answer.json, json!({"active": false}));
}
