//! Who gets in, and where they are led.

use std::time::Duration;

use auth::account::Role;
use axum::http::StatusCode;

use crate::browser::{Installation, LOGIN, PASSWORD};

const SESSION: &str = "__Host-stoa_session";

#[tokio::test]
async fn whoever_has_not_signed_in_is_led_there_and_back() {
    let installation = Installation::new().await;
    let merchant = installation.merchant("Corner Books").await;
    installation.person(LOGIN, &[(merchant, Role::Owner)]).await;
    let mut browser = installation.browser();
    let answer = browser.get("/console/account/sessions").await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(
        answer.location(),
        "/console/sign-in?next=%2Fconsole%2Faccount%2Fsessions"
    );
    let page = browser.get(answer.location()).await;
    let fields = [
        ("login", LOGIN),
        ("password", PASSWORD),
        ("next", page.hidden("next")),
    ];
    let answer = browser.submit(&page, "/console/sign-in", &fields).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(answer.location(), "/console/account/sessions");
    let page = browser.get(answer.location()).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.page.contains("this one"));
    let home = browser.get("/console/").await;
    assert_eq!(
        home.location(),
        format!("/console/merchants/{merchant}/apps")
    );
    assert!(
        browser
            .get(home.location())
            .await
            .page
            .contains("No app has access")
    );
}

#[tokio::test]
async fn nobody_is_led_to_another_site() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    for next in [
        "https://evil.example/",
        "//evil.example/console/",
        "/\\evil.example",
        "/console/../oauth/authorize",
    ] {
        let mut browser = installation.browser();
        let page = browser.get("/console/sign-in").await;
        let fields = [("login", LOGIN), ("password", PASSWORD), ("next", next)];
        let answer = browser.submit(&page, "/console/sign-in", &fields).await;
        assert_eq!(answer.location(), "/console/", "{next}");
    }
}

#[tokio::test]
async fn a_sign_in_and_a_fresh_proof_have_sessions_of_a_new_name() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    let mut browser = installation.browser();
    browser
        .cookies
        .insert(SESSION.to_owned(), "put-there-by-somebody".to_owned());
    let answer = browser.sign_in(LOGIN).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let first = browser.cookies[SESSION].clone();
    assert_ne!(first, "put-there-by-somebody");
    let set = answer
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|cookie| cookie.to_str().unwrap())
        .find(|cookie| cookie.starts_with(SESSION))
        .unwrap();
    for part in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Domain"));
    let page = browser
        .get("/console/step-up?next=%2Fconsole%2Faccount")
        .await;
    let fields = [("password", PASSWORD), ("next", page.hidden("next"))];
    let answer = browser.submit(&page, "/console/step-up", &fields).await;
    assert_eq!(answer.location(), "/console/account");
    assert_ne!(browser.cookies[SESSION], first);
    let mut thief = installation.browser();
    thief.cookies.insert(SESSION.to_owned(), first);
    assert_eq!(
        thief.get("/console/account").await.status,
        StatusCode::SEE_OTHER,
        "the old name is nobody's"
    );
}

#[tokio::test]
async fn an_unknown_login_and_a_wrong_password_are_answered_by_the_same_page() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    let mut pages = Vec::new();
    for (login, password) in [(LOGIN, "wrong"), ("nobody@corner-books.example", PASSWORD)] {
        let mut browser = installation.browser();
        let page = browser.get("/console/sign-in").await;
        let fields = [("login", login), ("password", password), ("next", "")];
        let answer = browser.submit(&page, "/console/sign-in", &fields).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(!browser.cookies.contains_key(SESSION));
        assert!(!answer.page.contains(password), "a password is not shown");
        let token = answer.hidden("form_token").to_owned();
        pages.push(answer.page.replace(login, "…").replace(&token, "…"));
    }
    assert_eq!(pages[0], pages[1]);
}

#[tokio::test]
async fn who_guesses_too_often_is_told_when_to_try_again() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    let mut browser = installation.browser();
    let page = browser.get("/console/sign-in").await;
    let fields = [("login", LOGIN), ("password", "wrong"), ("next", "")];
    for _ in 0..50 {
        let answer = browser.submit(&page, "/console/sign-in", &fields).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.page.contains("Please try again in"));
            assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
            return;
        }
    }
    panic!("fifty guesses, and nobody is told to wait");
}

#[tokio::test]
async fn who_signs_out_is_out() {
    let installation = Installation::new().await;
    installation.person(LOGIN, &[]).await;
    let mut browser = installation.browser();
    browser.sign_in(LOGIN).await;
    let session = browser.cookies[SESSION].clone();
    let page = browser.get("/console/account").await;
    let answer = browser.submit(&page, "/console/sign-out", &[]).await;
    assert_eq!(answer.location(), "/console/sign-in");
    assert!(!browser.cookies.contains_key(SESSION));
    browser.cookies.insert(SESSION.to_owned(), session);
    let answer = browser.get("/console/account").await;
    assert!(answer.location().starts_with("/console/sign-in"));
}

#[tokio::test]
async fn what_an_open_browser_must_not_do_needs_a_fresh_proof_first() {
    let installation = Installation::new().await;
    let merchant = installation.merchant("Corner Books").await;
    installation.person(LOGIN, &[(merchant, Role::Owner)]).await;
    let mut browser = installation.browser();
    browser.sign_in(LOGIN).await;
    installation.clock.advance(Duration::from_mins(11));
    for path in [
        "/console/account/password".to_owned(),
        "/console/account/totp".to_owned(),
        format!("/console/merchants/{merchant}/staff/invite"),
    ] {
        let answer = browser.get(&path).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{path}");
        assert!(
            answer.location().starts_with("/console/step-up?next="),
            "{path}"
        );
    }
}
