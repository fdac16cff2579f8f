//! Forms that others have made.

use auth::account::Role;
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};

use crate::browser::{ISSUER, Installation, LOGIN, PASSWORD};

#[tokio::test]
async fn a_form_of_another_origin_is_refused() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    let mut browser = installation.browser();
    browser.sign_in(LOGIN).await;
    let page = browser.get("/console/account").await;
    let token = page.hidden("form_token").to_owned();
    let fields = [("form_token", token.as_str()), ("name", "Mallory")];
    for origin in [
        Some("https://evil.example"),
        Some("null"),
        Some("https://stoa.example.evil.example"),
        Some("http://stoa.example"),
        None,
    ] {
        let answer = browser.post("/console/account", origin, &fields).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{origin:?}");
        assert!(answer.page.contains("This was not sent from here"));
    }
    for (site, status) in [
        ("same-origin", StatusCode::SEE_OTHER),
        ("same-site", StatusCode::FORBIDDEN),
        ("cross-site", StatusCode::FORBIDDEN),
        ("none", StatusCode::FORBIDDEN),
    ] {
        let request = Request::post("/console/account")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("sec-fetch-site", site)
            .body(Body::from(format!("form_token={token}&name=Ines")))
            .unwrap();
        assert_eq!(browser.send(request).await.status, status, "{site}");
    }
}

#[tokio::test]
async fn a_form_without_this_sessions_token_is_refused() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    installation.person("mallory", &[]).await;
    let mut mallory = installation.browser();
    mallory.sign_in("mallory").await;
    let theirs = mallory.get("/console/account").await;
    let mut browser = installation.browser();
    browser.sign_in(LOGIN).await;
    for token in [theirs.hidden("form_token"), "", "0"] {
        let fields = [("form_token", token), ("name", "Mallory")];
        let answer = browser
            .post("/console/account", Some(ISSUER), &fields)
            .await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let page = browser.get("/console/account").await;
    assert!(page.page.contains("Ines Weber"));
}

#[tokio::test]
async fn nobody_is_signed_in_as_somebody_else_by_a_form_that_was_made_for_another_visit() {
    let installation = Installation::new().await;
    installation.person("mallory", &[]).await;
    let mut mallory = installation.browser();
    let theirs = mallory.get("/console/sign-in").await;
    let mut victim = installation.browser();
    victim.get("/console/sign-in").await;
    let fields = [
        ("form_token", theirs.hidden("form_token")),
        ("login", "mallory"),
        ("password", PASSWORD),
        ("next", ""),
    ];
    let answer = victim.post("/console/sign-in", Some(ISSUER), &fields).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let mut nobody = installation.browser();
    let answer = nobody.post("/console/sign-in", Some(ISSUER), &fields).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "nor without a visit");
}

#[tokio::test]
async fn every_path_that_takes_forms_refuses_those_of_others() {
    let installation = Installation::new().await;
    let merchant = installation.merchant("Corner Books").await;
    installation.person(LOGIN, &[(merchant, Role::Owner)]).await;
    let mut browser = installation.browser();
    browser.sign_in(LOGIN).await;
    for path in [
        "/console/sign-out".to_owned(),
        "/console/step-up".to_owned(),
        "/console/account/password".to_owned(),
        "/console/account/totp/off".to_owned(),
        "/console/account/recovery-codes".to_owned(),
        "/console/account/passkeys/begin".to_owned(),
        "/console/account/sessions/end-others".to_owned(),
        "/console/developer/apps/new".to_owned(),
        "/console/consent/handle".to_owned(),
        "/console/invitations/token/join".to_owned(),
        format!("/console/merchants/{merchant}/staff/invite"),
        "/console/nothing-here".to_owned(),
    ] {
        let answer = browser.post(&path, Some("https://evil.example"), &[]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
        let answer = browser.post(&path, Some(ISSUER), &[]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
}
