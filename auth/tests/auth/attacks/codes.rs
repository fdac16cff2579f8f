//! Injected codes, PKCE taken away, and flows that are not spoken (RFC 9700, sections 2.1, 2.4, 4.5 and 4.8).

use auth::{authorization::Decision, client::app::ClientKind};
use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::{Scene, redemption, redemption_of};
use crate::{
    fixture::ISSUER,
    flow::{
        CHALLENGE, VERIFIER, approve, assert_error, handle_of, location, parameter, tokens_of, with,
    },
};

fn challenge_of(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// The code that comes of consent to a request with `challenge`.
async fn code_for(scene: &Scene, challenge: &str) -> String {
    let request = with(
        &scene.desk.request("orders:read"),
        "code_challenge",
        Some(challenge),
    );
    let handle = handle_of(&scene.process.authorize(&request).await);
    let authorizations = scene.installation.authorizations();
    let (app, merchant) = (scene.desk.app.app.id, scene.desk.merchant);
    let living = authorizations.living_grant(merchant, app).await.unwrap();
    let decision = Decision {
        grant_version: living.map(|grant| grant.version),
        ..approve("orders:read")
    };
    let url = authorizations
        .consent(
            &scene.installation.decider(),
            &scene.desk.session,
            &handle,
            merchant,
            decision,
        )
        .await
        .unwrap();
    parameter(&url, "code").unwrap()
}

#[tokio::test]
async fn a_code_injected_into_another_session_of_the_same_client_is_refused() {
    for kind in [ClientKind::Confidential, ClientKind::Public] {
        let scene = Scene::new(kind).await;
        // The client has two sessions under way: the victim's, and the attacker's own with a verifier of its own.
        let (victims, attackers) = ("v".repeat(43), "a".repeat(43));
        let stolen = code_for(&scene, &challenge_of(&victims)).await;
        let own = code_for(&scene, &challenge_of(&attackers)).await;
        // Put into the attacker's session, the client sends the attacker's verifier along: it proves itself, and it is the right client.
        let form = format!(
            "{}{}",
            redemption(&stolen, &attackers),
            scene.desk.credentials()
        );
        assert_error(
            &scene.post("/oauth/token", &[], &form).await,
            "invalid_grant",
            "injected",
        );
        // And the other way round: the victim is given the attacker's code.
        let form = format!("{}{}", redemption(&own, &victims), scene.desk.credentials());
        assert_error(
            &scene.post("/oauth/token", &[], &form).await,
            "invalid_grant",
            "planted",
        );
        // Neither has spoilt the honest one.
        let form = format!(
            "{}{}",
            redemption(&stolen, &victims),
            scene.desk.credentials()
        );
        tokens_of(&scene.post("/oauth/token", &[], &form).await);
    }
}

#[tokio::test]
async fn a_request_from_which_pkce_was_taken_leads_to_no_code() {
    for kind in [ClientKind::Confidential, ClientKind::Public] {
        let scene = Scene::new(kind).await;
        let request = scene.desk.request("orders:read");
        let stripped = with(
            &with(&request, "code_challenge", None),
            "code_challenge_method",
            None,
        );
        let plain = with(&request, "code_challenge", Some(VERIFIER));
        for (case, parameters) in [
            ("both stripped", stripped),
            ("no challenge", with(&request, "code_challenge", None)),
            (
                "an empty challenge",
                with(&request, "code_challenge", Some("")),
            ),
            (
                "no method, which is plain",
                with(&request, "code_challenge_method", None),
            ),
            (
                "an empty method",
                with(&request, "code_challenge_method", Some("")),
            ),
            (
                "plain",
                with(&plain, "code_challenge_method", Some("plain")),
            ),
            (
                "PLAIN",
                with(&plain, "code_challenge_method", Some("PLAIN")),
            ),
            (
                "another case",
                with(&request, "code_challenge_method", Some("s256")),
            ),
            (
                "another hash",
                with(&request, "code_challenge_method", Some("S512")),
            ),
            (
                "a list",
                with(&request, "code_challenge_method", Some("S256 plain")),
            ),
            (
                "a short challenge",
                with(&request, "code_challenge", Some(&CHALLENGE[1..])),
            ),
            (
                "padding",
                with(&request, "code_challenge", Some(&format!("{CHALLENGE}="))),
            ),
            (
                "the other alphabet",
                with(
                    &request,
                    "code_challenge",
                    Some(&CHALLENGE.replace('-', "+")),
                ),
            ),
        ] {
            let url = location(&scene.process.authorize(&parameters).await);
            assert_eq!(
                parameter(&url, "error").as_deref(),
                Some("invalid_request"),
                "{case}: {url}"
            );
            assert_eq!(parameter(&url, "code"), None, "{case}");
        }
        for twice in ["plain", "S256"] {
            let both = [
                request.as_slice(),
                &[("code_challenge_method", twice.to_owned())],
            ]
            .concat();
            let url = location(&scene.process.authorize(&both).await);
            assert_eq!(
                parameter(&url, "error").as_deref(),
                Some("invalid_request"),
                "{twice}"
            );
        }
        assert_eq!(scene.waiting().await, 0);
    }
}

#[tokio::test]
async fn a_code_is_not_redeemed_without_its_verifier_however_the_client_proves_itself() {
    for kind in [ClientKind::Confidential, ClientKind::Public] {
        let scene = Scene::new(kind).await;
        let code = scene
            .installation
            .code(&scene.process, &scene.desk, "orders:read")
            .await;
        let honest = redemption_of(&scene.desk, &code);
        let verifier = format!("code_verifier={VERIFIER}");
        for instead in [
            String::new(),
            "code_verifier=".to_owned(),
            format!("code_challenge={CHALLENGE}"),
            format!("{verifier}&{verifier}"),
            format!("code_verifier%00={VERIFIER}"),
        ] {
            let form = honest.replace(&verifier, &instead);
            assert_error(
                &scene.post("/oauth/token", &[], &form).await,
                "invalid_request",
                &instead,
            );
        }
        // What `plain` would take; too short; and too long. They count as wrong, so each has a code of its own.
        for wrong in [
            CHALLENGE.to_owned(),
            VERIFIER[..42].to_owned(),
            "a".repeat(129),
            format!("{VERIFIER}%00"),
        ] {
            let code = scene
                .installation
                .code(&scene.process, &scene.desk, "orders:read")
                .await;
            let form = format!("{}{}", redemption(&code, &wrong), scene.desk.credentials());
            assert_error(
                &scene.post("/oauth/token", &[], &form).await,
                "invalid_grant",
                &wrong,
            );
        }
        tokens_of(&scene.post("/oauth/token", &[], &honest).await);
    }
}

#[tokio::test]
async fn no_flow_is_spoken_that_shows_tokens_or_passwords() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let request = scene.desk.request("orders:read");
    for response_type in [
        "token",
        "id_token",
        "code token",
        "token code",
        "code id_token",
        "none",
        "Code",
        "code code",
    ] {
        let url = location(
            &scene
                .process
                .authorize(&with(&request, "response_type", Some(response_type)))
                .await,
        );
        assert_eq!(
            parameter(&url, "error").as_deref(),
            Some("unsupported_response_type"),
            "{url}"
        );
        assert!(
            url.fragment().is_none() && !url.as_str().contains("access_token"),
            "{url}"
        );
    }
    for response_mode in ["fragment", "form_post", "web_message", "query.jwt", "jwt"] {
        let url = location(
            &scene
                .process
                .authorize(&with(&request, "response_mode", Some(response_mode)))
                .await,
        );
        assert_eq!(
            parameter(&url, "error").as_deref(),
            Some("invalid_request"),
            "{url}"
        );
    }
    assert_eq!(scene.waiting().await, 0);
    for grant_type in [
        "password",
        "implicit",
        "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "urn:ietf:params:oauth:grant-type:saml2-bearer",
        "urn:ietf:params:oauth:grant-type:device_code",
        "urn:ietf:params:oauth:grant-type:token-exchange",
        "authorization_code refresh_token",
        "Authorization_Code",
    ] {
        let form = format!(
            "grant_type={grant_type}&username=ada&password=secret&assertion=a.b.c&subject_token=a&resource={ISSUER}/merchants/{}{}",
            scene.desk.merchant,
            scene.desk.credentials()
        );
        let answer = scene.post("/oauth/token", &[], &form).await;
        assert_error(&answer, "unsupported_grant_type", grant_type);
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let metadata = scene
        .process
        .get("/.well-known/oauth-authorization-server")
        .await;
    assert_eq!(
        metadata.json["response_types_supported"],
        serde_json::json!(["code"])
    );
    for name in [
        "password",
        "implicit",
        "fragment",
        "plain",
        "client_secret_jwt",
    ] {
        assert!(
            !metadata.json.to_string().contains(&format!("\"{name}\"")),
            "{name}"
        );
    }
}
