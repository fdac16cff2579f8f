//! What every answer carries.

use axum::http::StatusCode;

use crate::browser::{ISSUER, Installation, LOGIN};

#[tokio::test]
async fn every_answer_forbids_frames_foreign_scripts_and_keeping() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    let mut browser = installation.browser();
    let mut answers = vec![
        browser.get("/console/sign-in").await,
        browser.get("/console/account").await,
        browser.get("/console/nothing-here").await,
        browser.get("/console/invitations/nothing").await,
        browser.post("/console/account", Some(ISSUER), &[]).await,
    ];
    answers.push(browser.sign_in(LOGIN).await);
    answers.push(browser.get("/console/account").await);
    answers.push(browser.get("/console/consent/nothing").await);
    for answer in answers {
        let policy = answer.header("content-security-policy");
        for directive in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "form-action 'self';",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(directive), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("cross-origin-opener-policy", "same-origin"),
            ("strict-transport-security", "max-age=63072000"),
        ] {
            assert_eq!(answer.header(name), value, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn what_a_page_names_is_there_and_may_be_kept_for_good() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    let page = browser.get("/console/sign-in").await;
    let paths: Vec<&str> = page
        .page
        .split('"')
        .filter(|text| text.starts_with("/console/assets/"))
        .collect();
    assert!(paths.len() >= 3, "{paths:?}");
    for path in paths {
        let file = browser.get(path).await;
        assert_eq!(file.status, StatusCode::OK, "{path}");
        assert!(file.header("cache-control").contains("immutable"), "{path}");
        assert!(file.headers.get("set-cookie").is_none());
    }
    let other = browser
        .get("/console/assets/console.0000000000000000.css")
        .await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_is_not_there_is_a_page_that_says_so() {
    let installation = Installation::new().await;
    let mut browser = installation.browser();
    for path in ["/console/nothing", "/console/assets/nothing"] {
        let answer = browser.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(answer.page.contains("There is nothing here"), "{path}");
    }
    let answer = browser.get("/console/invitations/nothing").await;
    assert_eq!(answer.status, StatusCode::GONE);
    assert!(answer.page.contains("This invitation is over"));
}
