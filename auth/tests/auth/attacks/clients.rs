//! Clients that say they are another, and refresh tokens in the wrong hands (RFC 9700, sections 2.2.2, 2.5, 4.14 and 4.15).

use std::time::Duration;

use auth::{client::app::ClientKind, token::family::RETRY_GRACE};
use axum::http::{HeaderName, StatusCode, header};

use super::{Scene, redemption};
use crate::{
    fixture::{ISSUER, basic, basic_of, secret_of},
    flow::{VERIFIER, assert_error, tokens_of},
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SAML_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";

/// A way to say that one is somebody else: what it is, the headers, what the form says beside the request itself, and what is answered.
type Pretence = (
    &'static str,
    Vec<(HeaderName, String)>,
    String,
    &'static str,
);

/// What somebody with the client `own` and its secret may try to pass for `victim`, or for the `public` client.
fn pretences(
    (own, own_secret): (&str, &str),
    (victim, victims_secret): (&str, &str),
    public: &str,
) -> Vec<Pretence> {
    let own_basic = || basic_of(own, own_secret);
    let mixed_basic = || basic_of(victim, own_secret);
    let bearer = (header::AUTHORIZATION, "Bearer a.b.c".to_owned());
    let in_form = [
        ("without a secret", format!("&client_id={victim}")),
        (
            "an empty secret",
            format!("&client_id={victim}&client_secret="),
        ),
        (
            "another's secret",
            format!("&client_id={victim}&client_secret={own_secret}"),
        ),
        (
            "a public client with a secret",
            format!("&client_id={public}&client_secret={own_secret}"),
        ),
        ("nobody", String::new()),
        (
            "an assertion that is none",
            format!(
                "&client_id={victim}&client_assertion=a.b.c&client_assertion_type={JWT_BEARER}"
            ),
        ),
        (
            "an assertion of another kind",
            format!("&client_id={victim}&client_assertion=x&client_assertion_type={SAML_BEARER}"),
        ),
    ];
    let by_header = [
        (
            "an empty secret by Basic",
            basic_of(victim, ""),
            String::new(),
        ),
        ("another's secret by Basic", mixed_basic(), String::new()),
        (
            "a public client by Basic",
            basic_of(public, ""),
            String::new(),
        ),
        ("another scheme", bearer, format!("&client_id={victim}")),
    ];
    let contradicting = [
        (
            "another in the form",
            vec![own_basic()],
            format!("&client_id={victim}"),
        ),
        (
            "another by Basic",
            vec![mixed_basic()],
            format!("&client_id={own}"),
        ),
        (
            "two proofs",
            vec![own_basic()],
            format!("&client_id={own}&client_secret={own_secret}"),
        ),
        (
            "two names",
            vec![],
            format!("&client_id={own}&client_id={victim}&client_secret={own_secret}"),
        ),
        (
            "two secrets",
            vec![],
            format!("&client_id={own}&client_secret={own_secret}&client_secret={victims_secret}"),
        ),
        (
            "two headers",
            vec![own_basic(), mixed_basic()],
            String::new(),
        ),
    ];
    let in_form = in_form.map(|(case, form)| (case, vec![], form, "invalid_client"));
    let by_header =
        by_header.map(|(case, header, form)| (case, vec![header], form, "invalid_client"));
    let contradicting =
        contradicting.map(|(case, headers, form)| (case, headers, form, "invalid_request"));
    in_form
        .into_iter()
        .chain(by_header)
        .chain(contradicting)
        .collect()
}

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
    let cases = pretences(
        (&thief.id(), secret_of(&thief.app)),
        (&desk.id(), secret_of(&desk.app)),
        &public.id(),
    );
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
