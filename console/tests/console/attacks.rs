//! Attacks on the pages, by the sections of RFC 9700 (Best Current Practice for OAuth 2.0 Security). What a file beside this one shows already is not shown
//! again here; docs/security.md says which test stands for which attack.

use auth::account::Role;
use axum::{
    Router,
    body::Body,
    http::{Method, Request, StatusCode, header},
    middleware,
};
use kernel::id::MerchantId;
use tower::ServiceExt;

use crate::browser::{Answer, Browser, ISSUER, Installation, LOGIN, PASSWORD};

const SESSION: &str = "__Host-stoa_session";

struct Scene {
    installation: Installation,
    merchant: MerchantId,
    /// Where a request waits for consent.
    consent: String,
}

impl Scene {
    async fn new() -> Self {
        let installation = Installation::new().await;
        let merchant = installation.merchant("Corner Books").await;
        installation.person(LOGIN, &[(merchant, Role::Owner)]).await;
        let app = installation.app().await;
        let handle = installation.asks(&app, "orders:read").await;
        Self {
            installation,
            merchant,
            consent: format!("/console/consent/{handle}"),
        }
    }

    async fn signed_in(&self) -> Browser<'_> {
        let mut browser = self.installation.browser();
        browser.sign_in(LOGIN).await;
        browser
    }

    /// Pages of every kind that somebody who has signed in sees, and what goes wrong.
    fn pages(&self) -> Vec<String> {
        let merchant = self.merchant;
        vec![
            self.consent.clone(),
            "/console/step-up".to_owned(),
            "/console/account".to_owned(),
            "/console/account/password".to_owned(),
            "/console/account/security".to_owned(),
            "/console/account/sessions".to_owned(),
            "/console/account/totp".to_owned(),
            format!("/console/merchants/{merchant}/apps"),
            format!("/console/merchants/{merchant}/staff"),
            format!("/console/merchants/{merchant}/staff/invite"),
            format!("/console/merchants/{merchant}/activity"),
            "/console/nothing-here".to_owned(),
            "/console/consent/nothing".to_owned(),
            "/console/invitations/nothing".to_owned(),
            "/console/operator/people".to_owned(),
        ]
    }

    /// Whether anything was given.
    async fn is_given(&self, grant: &str) -> bool {
        let list = self.signed_in().await.get(grant).await;
        list.page.contains("Parcel Desk")
    }
}

/// Paths that take a form and nothing else.
const FORMS: [&str; 14] = [
    "/console/sign-out",
    "/console/sign-in/passkey",
    "/console/sign-in/passkey/begin",
    "/console/step-up/passkey",
    "/console/step-up/passkey/begin",
    "/console/account/totp/off",
    "/console/account/recovery-codes",
    "/console/account/sessions/end",
    "/console/account/sessions/end-others",
    "/console/account/passkeys/begin",
    "/console/account/passkeys/remove",
    "/console/account/upstream/off",
    "/console/invitations/nothing/join",
    "/console/operator/people/disable",
];

/// What the attributes `name` of a page say.
fn attributes<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    let mark = format!(" {name}=\"");
    page.split(mark.as_str())
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

#[tokio::test]
async fn no_page_takes_anything_from_elsewhere_or_speaks_with_another_window() {
    // RFC 9700, sections 4.2.4 and 4.17: what a page loads learns its address, and what it posts to another window is read there.
    let scene = Scene::new().await;
    let mut browser = scene.signed_in().await;
    let mut pages = vec![scene.installation.browser().get("/console/sign-in").await];
    for path in scene.pages() {
        pages.push(browser.get(&path).await);
    }
    let mut scripts = Vec::new();
    for answer in &pages {
        let page = &answer.page;
        for name in [
            "src",
            "action",
            "data-begin",
            "formaction",
            "poster",
            "data",
        ] {
            for address in attributes(page, name) {
                assert!(address.starts_with("/console/"), "{name}={address}");
            }
        }
        for address in attributes(page, "href") {
            assert!(
                address.starts_with("/console/") || address.starts_with('#'),
                "{address}"
            );
        }
        for word in [
            "<iframe",
            "<object",
            "<embed",
            "<base",
            "http-equiv",
            "<style",
            " style=",
            " onclick=",
            " onload=",
            "javascript:",
            " target=",
        ] {
            assert!(!page.contains(word), "{word} in {page}");
        }
        assert_eq!(
            page.matches("<script").count(),
            attributes(page, "src")
                .iter()
                .filter(|src| {
                    std::path::Path::new(src)
                        .extension()
                        .is_some_and(|kind| kind == "js")
                })
                .count(),
            "no script stands in a page: {page}"
        );
        scripts.extend(attributes(page, "src").into_iter().map(str::to_owned));
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
    }
    scripts.retain(|src| src.contains(".js"));
    assert!(!scripts.is_empty());
    for src in scripts {
        let script = browser.get(&src).await.page;
        for word in [
            "postMessage",
            "opener",
            "innerHTML",
            "eval(",
            "localStorage",
            "document.cookie",
            "http:",
            "https:",
        ] {
            assert!(!script.contains(word), "{word} in {src}");
        }
    }
}

#[tokio::test]
async fn every_redirect_after_a_form_is_a_303_and_leaves_nothing_behind() {
    // RFC 9700, section 4.12: by 307 the browser would post the password to the app.
    let scene = Scene::new().await;
    let mut browser = scene.installation.browser();
    let mut redirected = Vec::new();
    redirected.push(browser.sign_in(LOGIN).await);
    let page = browser.get("/console/step-up").await;
    let fields = [("password", PASSWORD), ("next", "/console/account")];
    redirected.push(browser.submit(&page, "/console/step-up", &fields).await);
    let page = browser.get("/console/account").await;
    redirected.push(
        browser
            .submit(&page, "/console/account", &[("name", "Ines")])
            .await,
    );
    let page = browser.get(&scene.consent).await;
    let merchant = scene.merchant.to_string();
    let fields = [
        ("decision", "allow"),
        ("merchant", &merchant),
        ("scope", "orders:read"),
        ("where", "all"),
        ("end", "day"),
    ];
    let given = browser.submit(&page, &scene.consent, &fields).await;
    assert!(
        given
            .location()
            .starts_with("https://app.parcel-desk.example/callback?code="),
        "{given:?}"
    );
    redirected.push(given);
    let page = browser.get("/console/account").await;
    redirected.push(browser.submit(&page, "/console/sign-out", &[]).await);
    for answer in redirected {
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
        assert_eq!(
            answer.header("referrer-policy"),
            "same-origin",
            "{answer:?}"
        );
        assert!(!answer.location().contains(PASSWORD) && answer.page.is_empty());
    }
}

#[tokio::test]
async fn consent_is_given_by_the_pages_own_form_and_by_nothing_else() {
    // RFC 9700, section 4.7: somebody else's page, form or link decides nothing.
    let scene = Scene::new().await;
    let apps = format!("/console/merchants/{}/apps", scene.merchant);
    scene.installation.person("mallory", &[]).await;
    let mut mallory = scene.installation.browser();
    mallory.sign_in("mallory").await;
    let theirs = mallory
        .get("/console/account")
        .await
        .hidden("form_token")
        .to_owned();
    let mut browser = scene.signed_in().await;
    let page = browser.get(&scene.consent).await;
    let (own, merchant) = (
        page.hidden("form_token").to_owned(),
        scene.merchant.to_string(),
    );
    let decision = |token: &str| {
        format!(
            "form_token={token}&decision=allow&merchant={merchant}&scope=orders:read&where=all&end=until_revoked"
        )
    };
    let form = "application/x-www-form-urlencoded";
    for (origin, token, kind) in [
        (Some("https://evil.example"), own.as_str(), form),
        (Some("null"), own.as_str(), form),
        (Some("https://stoa.example:8443"), own.as_str(), form),
        (None, own.as_str(), form),
        (Some(ISSUER), theirs.as_str(), form),
        (Some(ISSUER), "", form),
        (Some(ISSUER), own.as_str(), "text/plain"),
        (
            Some(ISSUER),
            own.as_str(),
            "multipart/form-data; boundary=a",
        ),
        (Some(ISSUER), own.as_str(), "application/json"),
    ] {
        let mut request = Request::post(&scene.consent).header(header::CONTENT_TYPE, kind);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        let answer = browser
            .send(request.body(Body::from(decision(token))).unwrap())
            .await;
        assert_eq!(
            answer.status,
            StatusCode::FORBIDDEN,
            "{origin:?} {kind}: {answer:?}"
        );
    }
    // Two of the fields that protect it, the wrong one first or the right one: the first counts, and only the right one is right.
    let doubled = format!("form_token={theirs}&{}", decision(&own));
    let request = Request::post(&scene.consent)
        .header(header::CONTENT_TYPE, form)
        .header(header::ORIGIN, ISSUER);
    let answer = browser
        .send(request.body(Body::from(doubled)).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    // A link decides nothing, whatever it says.
    for query in [
        decision(&own),
        "decision=allow".to_owned(),
        "prompt=none".to_owned(),
    ] {
        let answer = browser.get(&format!("{}?{query}", scene.consent)).await;
        assert_eq!(answer.status, StatusCode::OK, "the page again");
    }
    for method in [Method::PUT, Method::PATCH, Method::DELETE] {
        let request = Request::builder()
            .method(method)
            .uri(&scene.consent)
            .header(header::CONTENT_TYPE, form);
        let answer = browser
            .send(request.body(Body::from(decision(&own))).unwrap())
            .await;
        assert!(answer.status.is_client_error(), "{answer:?}");
    }
    assert!(!scene.is_given(&apps).await);
    // And the same by the page's own form.
    let request = Request::post(&scene.consent)
        .header(header::CONTENT_TYPE, form)
        .header(header::ORIGIN, ISSUER);
    let answer = browser
        .send(request.body(Body::from(decision(&own))).unwrap())
        .await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    assert!(scene.is_given(&apps).await);
}

#[tokio::test]
async fn no_link_does_what_a_form_does() {
    let scene = Scene::new().await;
    let mut browser = scene.signed_in().await;
    for path in FORMS {
        let answer = browser.get(path).await;
        assert!(answer.status.is_client_error(), "{path}: {answer:?}");
        let still = browser.get("/console/account").await;
        assert_eq!(still.status, StatusCode::OK, "signed in after {path}");
    }
}

#[tokio::test]
async fn nobody_is_led_away_by_the_address_of_a_sign_in() {
    // RFC 9700, section 4.11: an open redirect on the way to a sign-in.
    let scene = Scene::new().await;
    for next in [
        "https://evil.example/",
        "//evil.example/console/",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/console/\\evil.example",
        "/console//evil.example",
        "/console/../../evil",
        "/console/..%2f..%2foauth/authorize",
        "/console/%2e%2e/oauth/authorize?client_id=a",
        "/console@evil.example",
        "console.evil.example",
        "javascript:alert(1)",
        "data:text/html,x",
        "/console/\r\nLocation: https://evil.example",
        "/console/\u{0}",
        "/console/#//evil.example",
        "https:evil.example",
        "/oauth/authorize?client_id=a",
    ] {
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("next", next)
            .finish();
        // Not by the page of the sign-in, not by its form, not for who is signed in already, and not by the fresh proof.
        let mut browser = scene.installation.browser();
        let page = browser.get(&format!("/console/sign-in?{query}")).await;
        assert_eq!(page.status, StatusCode::OK, "{next:?}");
        let shown = page.hidden("next").to_owned();
        for chosen in [next, shown.as_str()] {
            let mut browser = scene.installation.browser();
            let page = browser.get(&format!("/console/sign-in?{query}")).await;
            let fields = [("login", LOGIN), ("password", PASSWORD), ("next", chosen)];
            let answer = browser.submit(&page, "/console/sign-in", &fields).await;
            assert_at_home(&answer, next);
        }
        let mut browser = scene.signed_in().await;
        assert_at_home(
            &browser.get(&format!("/console/sign-in?{query}")).await,
            next,
        );
        let page = browser.get(&format!("/console/step-up?{query}")).await;
        let fields = [("password", PASSWORD), ("next", next)];
        assert_at_home(
            &browser.submit(&page, "/console/step-up", &fields).await,
            next,
        );
    }
}

fn assert_at_home(answer: &Answer, next: &str) {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{next:?}: {answer:?}");
    let base = url::Url::parse(ISSUER).unwrap();
    let url = base.join(answer.location()).unwrap();
    assert_eq!(url.origin(), base.origin(), "{next:?}: {url}");
    assert!(url.path().starts_with("/console/"), "{next:?}: {url}");
    assert!(!url.as_str().contains("evil"), "{next:?}: {url}");
}

#[tokio::test]
async fn a_cookie_of_a_sibling_or_of_plain_http_is_none_of_ours() {
    // Session fixation by somebody who can set cookies for this host from beside it: what they can set has another name, or they can't know it.
    let scene = Scene::new().await;
    let mut mallory = scene.installation.browser();
    mallory.sign_in(LOGIN).await;
    let known = mallory.cookies[SESSION].clone();
    for name in [
        "stoa_session",
        "__Secure-stoa_session",
        "__host-stoa_session",
        "__Host-Stoa_Session",
        "__Host-stoa_visit",
        "__Host-stoa_ceremony",
    ] {
        let mut browser = scene.installation.browser();
        browser.cookies.insert(name.to_owned(), known.clone());
        let answer = browser.get("/console/account").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{name}: {answer:?}");
    }
    // Every cookie that is set is such a one.
    let mut browser = scene.installation.browser();
    let page = browser.get("/console/sign-in").await;
    let fields = [("login", LOGIN), ("password", PASSWORD), ("next", "")];
    let signed_in = browser.submit(&page, "/console/sign-in", &fields).await;
    for answer in [page, signed_in] {
        let cookies: Vec<_> = answer
            .headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|cookie| cookie.to_str().unwrap())
            .collect();
        assert!(!cookies.is_empty());
        for cookie in cookies {
            assert!(cookie.starts_with("__Host-stoa_"), "{cookie}");
            for part in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
                assert!(cookie.contains(part), "{cookie}");
            }
            assert!(!cookie.contains("Domain"), "{cookie}");
        }
    }
}

#[tokio::test]
async fn whatever_is_sent_no_page_breaks() {
    let scene = Scene::new().await;
    let mut browser = scene.signed_in().await;
    let token = browser
        .get("/console/account")
        .await
        .hidden("form_token")
        .to_owned();
    let values: [&[u8]; 10] = [
        b"%00",
        b"a%00b",
        b"%ff%fe",
        b"%c0%af",
        b"%ed%a0%80",
        b"%",
        b"\xff\xfe",
        b"%e2%80%ae",
        b"%22%3E%3Cscript%3Ealert(1)%3C/script%3E",
        b"'%20or%201=1--",
    ];
    let long = b"a".repeat(30_000);
    let fields = [
        "name",
        "login",
        "password",
        "new_password",
        "next",
        "code",
        "recovery_code",
        "credential",
        "ceremony",
        "merchant",
        "scope",
        "location",
        "end",
        "where",
        "decision",
        "grant_version",
        "role",
        "email",
        "session",
        "passkey",
        "id",
        "kid",
        "jwk",
        "redirect_uris",
        "homepage_url",
        "person",
    ];
    let merchant = scene.merchant;
    let mut paths: Vec<String> = FORMS
        .iter()
        .filter(|path| !path.ends_with("sign-out") && !path.contains("sessions"))
        .map(ToString::to_string)
        .collect();
    paths.extend([
        "/console/sign-in".to_owned(),
        "/console/sign-in/second-factor".to_owned(),
        "/console/step-up".to_owned(),
        "/console/account".to_owned(),
        "/console/account/password".to_owned(),
        "/console/developer/apps/new".to_owned(),
        scene.consent.clone(),
        format!("/console/merchants/{merchant}/staff/invite"),
    ]);
    for path in &paths {
        for value in values.iter().copied().chain([long.as_slice()]) {
            let mut body = format!("form_token={token}").into_bytes();
            for field in fields {
                body.extend([b"&", field.as_bytes(), b"=", value].concat());
                if body.len() > 60_000 {
                    break;
                }
            }
            let request = Request::post(path)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::ORIGIN, ISSUER);
            let answer = browser.send(request.body(Body::from(body)).unwrap()).await;
            let case = format!(
                "{path} {}",
                String::from_utf8_lossy(&value[..value.len().min(40)])
            );
            assert!(answer.status.as_u16() < 500, "{case}: {answer:?}");
            assert!(!answer.page.contains("<script>alert"), "{case}");
        }
    }
    let still = browser.get("/console/account").await;
    assert_eq!(
        still.status,
        StatusCode::OK,
        "all of that was read by a session"
    );
    // In addresses and cookies too.
    for path in [
        "/console/consent/%00",
        "/console/consent/%ff",
        "/console/invitations/%00",
        "/console/merchants/%00/apps",
        "/console/sign-in?next=%00&next=%ff",
        "/console/%00",
        "/console/assets/%00",
        "/console/upstream/callback?code=%00&state=%ff",
        "/console/developer/apps/%00",
        "/console/consent/x?merchant=%00",
    ] {
        let answer = browser.get(path).await;
        assert!(answer.status.as_u16() < 500, "{path}: {answer:?}");
    }
    for cookie in ["%00", "a\"b", "é", "=;=", "a".repeat(4_000).as_str()] {
        let mut browser = scene.installation.browser();
        for name in [SESSION, "__Host-stoa_visit", "__Host-stoa_ceremony"] {
            browser.cookies.insert(name.to_owned(), cookie.to_owned());
        }
        for path in [
            "/console/account",
            "/console/sign-in",
            "/console/sign-in/second-factor",
        ] {
            let answer = browser.get(path).await;
            assert!(answer.status.as_u16() < 500, "{path} {cookie}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn nothing_is_shown_in_a_frame_not_even_what_went_wrong_before_a_page_was_reached() {
    // RFC 9700, section 4.16. headers.rs shows the same of the pages; here are the answers that no page makes.
    let issuer = auth::Issuer::parse(ISSUER).unwrap();
    let unredirectable = || async {
        let mut answer = axum::response::Response::new(Body::from("wrong"));
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        answer
            .extensions_mut()
            .insert(auth::http::authorize::Unredirectable { reason: "Wrong." });
        answer
    };
    let router = Router::new()
        .route(
            "/oauth/authorize",
            axum::routing::get(unredirectable).post(unredirectable),
        )
        .layer(middleware::from_fn_with_state(
            issuer,
            console::problems_as_pages,
        ));
    for method in [Method::GET, Method::POST] {
        let request = Request::builder()
            .method(method)
            .uri("/oauth/authorize")
            .body(Body::empty())
            .unwrap();
        let answer = router.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let said = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert!(said("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(said("x-frame-options"), "DENY");
        assert_eq!(said("referrer-policy"), "same-origin");
        assert!(!answer.headers().contains_key(header::LOCATION));
    }
    // Nor may a script of another site read a page.
    let scene = Scene::new().await;
    let mut browser = scene.signed_in().await;
    for path in scene.pages() {
        for method in [Method::GET, Method::OPTIONS] {
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .header(header::ORIGIN, "https://evil.example")
                .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
            let answer = browser.send(request.body(Body::empty()).unwrap()).await;
            assert!(
                answer
                    .header("content-security-policy")
                    .contains("frame-ancestors 'none'"),
                "{path}"
            );
            assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
            assert_eq!(
                answer.header("cross-origin-resource-policy"),
                "same-origin",
                "{path}"
            );
            assert!(
                answer
                    .headers
                    .keys()
                    .all(|name| !name.as_str().starts_with("access-control-")),
                "{path}"
            );
        }
    }
}
