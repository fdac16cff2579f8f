//! Clients that say they are another, and refresh tokens in the wrong hands (RFC 9700, sections 2.2.2, 2.5, 4.14 and 4.15).

use auth::{client::app::ClientKind, token::family::RETRY_GRACE};
use axum::http::{HeaderName, StatusCode};
use std::time::Duration;

use super::{Scene, redemption};
use crate::{
    fixture::{ISSUER, basic, basic_of, secret_of},
    flow::{VERIFIER, assert_error, tokens_of},
};

#[tokio::test]
async fn a_client_is_who_it_has_proved_to_be_at_every_endpoint() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let (desk, process) = (&scene.desk, &scene.process);
    let (thief, public) = (
        scene.installation.desk(ClientKind::Confidential).await,
        scene.installation.desk(ClientKind::Public).await,
    );
    let tokens = scene
        .installation
        .tokens(process, desk, "orders:read")
        .await;
    let code = scene.installation.code(process, desk, "orders:read").await;
    let (victim, victims_secret) = (desk.id(), secret_of(&desk.app).to_owned());
    let (own, own_secret) = (thief.id(), secret_of(&thief.app).to_owned());
    let nothing: Vec<(HeaderName, String)> = Vec::new();
    let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    let cases: Vec<(&str, Vec<(HeaderName, String)>, String, &str)> = vec![
        (
            "a confidential client without its secret",
            nothing.clone(),
            format!("&client_id={victim}"),
            "invalid_client",
        ),
        (
            "an empty secret",
            nothing.clone(),
            format!("&client_id={victim}&client_secret="),
            "invalid_client",
        ),
        (
            "an empty secret by Basic",
            vec![basic_of(&victim, "")],
            String::new(),
            "invalid_client",
        ),
        (
            "its own secret under another name",
            nothing.clone(),
            format!("&client_id={victim}&client_secret={own_secret}"),
            "invalid_client",
        ),
        (
            "the same by Basic",
            vec![basic_of(&victim, &own_secret)],
            String::new(),
            "invalid_client",
        ),
        (
            "itself by Basic, another in the form",
            vec![basic_of(&own, &own_secret)],
            format!("&client_id={victim}"),
            "invalid_request",
        ),
        (
            "another by Basic, itself in the form",
            vec![basic_of(&victim, &own_secret)],
            format!("&client_id={own}"),
            "invalid_request",
        ),
        (
            "two proofs",
            vec![basic_of(&own, &own_secret)],
            format!("&client_id={own}&client_secret={own_secret}"),
            "invalid_request",
        ),
        (
            "two names",
            nothing.clone(),
            format!("&client_id={own}&client_id={victim}&client_secret={own_secret}"),
            "invalid_request",
        ),
        (
            "two secrets",
            nothing.clone(),
            format!("&client_id={own}&client_secret={own_secret}&client_secret={victims_secret}"),
            "invalid_request",
        ),
        (
            "two headers",
            vec![basic_of(&own, &own_secret), basic_of(&victim, &own_secret)],
            String::new(),
            "invalid_request",
        ),
        (
            "a public client with a secret",
            nothing.clone(),
            format!("&client_id={}&client_secret={own_secret}", public.id()),
            "invalid_client",
        ),
        (
            "a public client with a secret by Basic",
            vec![basic_of(&public.id(), "")],
            String::new(),
            "invalid_client",
        ),
        ("nobody", nothing.clone(), String::new(), "invalid_client"),
        (
            "another scheme",
            vec![(
                axum::http::header::AUTHORIZATION,
                format!("Bearer {}", tokens.access),
            )],
            format!("&client_id={victim}"),
            "invalid_client",
        ),
        (
            "an assertion that is none",
            nothing.clone(),
            format!(
                "&client_id={victim}&client_assertion=a.b.c&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            ),
            "invalid_client",
        ),
        (
            "an assertion of another kind",
            nothing,
            format!("&client_id={victim}&client_assertion=x&client_assertion_type={saml}"),
            "invalid_client",
        ),
    ];
    for (case, headers, more, error) in &cases {
        for (path, form) in [
            ("/oauth/token", redemption(&code, VERIFIER)),
            (
                "/oauth/token",
                format!("grant_type=refresh_token&refresh_token={}", tokens.refresh),
            ),
            (
                "/oauth/token",
                format!(
                    "grant_type=client_credentials&resource={ISSUER}/merchants/{}",
                    desk.merchant
                ),
            ),
            ("/oauth/introspect", format!("token={}", tokens.access)),
            ("/oauth/revoke", format!("token={}", tokens.refresh)),
        ] {
            let answer = scene.post(path, headers, &format!("{form}{more}")).await;
            assert_error(&answer, error, &format!("{case} at {path}: {form}"));
        }
    }
    // Proved to be somebody, but not the one: a stranger's code and tokens are of no use, and live on.
    let shown = [basic(&thief.app)];
    let answer = scene
        .post("/oauth/token", &shown, &redemption(&code, VERIFIER))
        .await;
    assert_error(&answer, "invalid_grant", "another's code");
    let answer = scene
        .post(
            "/oauth/introspect",
            &shown,
            &format!("token={}", tokens.access),
        )
        .await;
    assert_eq!(answer.json, serde_json::json!({"active": false}));
    let answer = scene
        .post(
            "/oauth/revoke",
            &shown,
            &format!("token={}", tokens.refresh),
        )
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = scene
        .post("/oauth/revoke", &shown, &format!("token={}", tokens.access))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(process.takes(&tokens.access).await);
    tokens_of(&process.redeem(desk, &code).await);
    tokens_of(&process.refresh(desk, &tokens.refresh).await);
}

#[tokio::test]
async fn a_refresh_token_that_was_stolen_ends_with_its_first_use_by_two() {
    let scene = Scene::new(ClientKind::Public).await;
    let (desk, process) = (&scene.desk, &scene.process);
    for theft in 1..=2 {
        let stolen = scene
            .installation
            .tokens(process, desk, "orders:read")
            .await;
        // One of them uses it, and then what came of it; the other comes with the old one.
        let first = tokens_of(&process.refresh(desk, &stolen.refresh).await);
        scene.installation.clock.advance(Duration::from_secs(1));
        let second = tokens_of(&process.refresh(desk, &first.refresh).await);
        scene
            .installation
            .clock
            .advance(RETRY_GRACE + Duration::from_secs(1));
        assert_error(
            &process.refresh(desk, &stolen.refresh).await,
            "invalid_grant",
            "the copy",
        );
        // Whoever was first has nothing any more either.
        for token in [&second.refresh, &first.refresh, &stolen.refresh] {
            assert_error(
                &process.refresh(desk, token).await,
                "invalid_grant",
                &format!("theft {theft}"),
            );
        }
        assert!(!process.takes(&second.access).await);
        scene.installation.clock.advance(Duration::from_mins(2));
    }
    let told = scene
        .installation
        .audited(desk.merchant, "refresh_token.reused")
        .await;
    assert_eq!(told, 2, "the merchant reads of it");
}

#[tokio::test]
async fn a_stolen_refresh_token_gets_no_more_than_was_given() {
    let scene = Scene::new(ClientKind::Public).await;
    let (desk, process) = (&scene.desk, &scene.process);
    let tokens = scene
        .installation
        .tokens(process, desk, "orders:read")
        .await;
    // The app has more by another consent of the same merchant.
    scene
        .installation
        .tokens(process, desk, "catalog:write")
        .await;
    let other = scene.installation.merchant().await;
    for (more, error) in [
        ("&scope=orders:write".to_owned(), "invalid_scope"),
        ("&scope=catalog:write".to_owned(), "invalid_scope"),
        (
            "&scope=orders:read+catalog:read".to_owned(),
            "invalid_scope",
        ),
        ("&scope=merchant:admin".to_owned(), "invalid_scope"),
        (
            format!("&resource={ISSUER}/merchants/{other}"),
            "invalid_target",
        ),
        (format!("&resource={ISSUER}"), "invalid_target"),
        (
            format!(
                "&resource={ISSUER}/merchants/{}&resource={ISSUER}/merchants/{other}",
                desk.merchant
            ),
            "invalid_target",
        ),
    ] {
        let answer = process.refresh_with(desk, &tokens.refresh, &more).await;
        assert_error(&answer, error, &more);
    }
    let answer = process.refresh(desk, &tokens.refresh).await;
    assert_eq!(answer.json["scope"], "orders:read");
}
