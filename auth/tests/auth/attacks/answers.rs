//! Answers: mix-up, request forgery, what leaks by URLs, redirects after a form, and scripts of other sites (RFC 9700, sections 4.2 to 4.4, 4.7, 4.12
//! and 4.17).

use auth::client::app::ClientKind;
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use url::form_urlencoded;

use super::{Scene, redemption, redemption_of};
use crate::{
    fixture::{ISSUER, basic, secret_of},
    flow::{
        CHALLENGE, VERIFIER, approve, assert_error, encoded, handle_of, location, parameter,
        tokens_of, with,
    },
};

#[tokio::test]
async fn every_answer_names_its_issuer_and_gives_the_state_back_as_it_came() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let authorizations = scene.installation.authorizations();
    let (caller, merchant) = (scene.installation.decider(), scene.desk.merchant);
    let long = "s".repeat(2_048);
    for state in [
        "af0ifjsldkj",
        "a b+c%20d",
        "&code=stolen&iss=https://evil.example",
        "#fragment",
        "<script>alert(1)</script>",
        "%0d%0aSet-Cookie:a=b",
        "{\"next\":\"/\"}",
        &long,
    ] {
        let request = with(&scene.desk.request("orders:read"), "state", Some(state));
        let failed = location(
            &scene
                .process
                .authorize(&with(&request, "scope", Some("x")))
                .await,
        );
        let handle = handle_of(&scene.process.authorize(&request).await);
        let refused = authorizations
            .refuse(&caller, &scene.desk.session, &handle)
            .await
            .unwrap();
        let handle = handle_of(&scene.process.authorize(&request).await);
        let living = authorizations
            .living_grant(merchant, scene.desk.app.app.id)
            .await
            .unwrap();
        let decision = auth::authorization::Decision {
            grant_version: living.map(|grant| grant.version),
            ..approve("orders:read")
        };
        let given = authorizations
            .consent(&caller, &scene.desk.session, &handle, merchant, decision)
            .await
            .unwrap();
        for url in [&failed, &refused, &given] {
            // Each once, or the helper panics.
            assert_eq!(parameter(url, "state").as_deref(), Some(state), "{url}");
            assert_eq!(parameter(url, "iss").as_deref(), Some(ISSUER), "{url}");
            assert_eq!(url.fragment(), None, "{url}");
            assert_eq!(url.host_str(), Some("desk.example"), "{url}");
        }
        assert!(parameter(&given, "code").is_some_and(|code| code.starts_with("stoa_code_")));
        assert_eq!(parameter(&failed, "code"), None);
        assert_eq!(parameter(&refused, "code"), None);
    }
}

#[tokio::test]
async fn asking_alone_gives_nothing_and_leaves_nothing_in_the_browser() {
    let scene = Scene::new(ClientKind::Public).await;
    let request = scene.desk.request("orders:read");
    // Consented to once: nothing is given again without somebody's word, least of all to a client that proves nothing (RFC 8252, section 8.6).
    scene
        .installation
        .tokens(&scene.process, &scene.desk, "orders:read")
        .await;
    let kept = || async {
        let mut counts = Vec::new();
        for table in [
            "grants",
            "authorization_codes",
            "refresh_families",
            "audit_entries",
            "sessions",
        ] {
            counts.push(
                scene
                    .installation
                    .count(&format!("select count(*) from {table}"))
                    .await,
            );
        }
        counts
    };
    let before = kept().await;
    for more in [None, Some("none"), Some("login"), Some("consent")] {
        let request = with(&request, "prompt", more);
        for answer in [
            scene.process.authorize(&request).await,
            scene
                .post("/oauth/authorize", &[], &encoded(&request))
                .await,
        ] {
            let url = location(&answer);
            assert!(
                url.as_str()
                    .starts_with(&format!("{ISSUER}/console/consent/")),
                "{url}"
            );
            assert_eq!(url.query(), None, "{url}");
            assert!(!answer.headers.contains_key(header::SET_COOKIE));
        }
    }
    assert_eq!(kept().await, before);
}

#[tokio::test]
async fn what_was_posted_is_never_posted_on() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let request = scene.desk.request("orders:read");
    for parameters in [
        request.clone(),
        with(&request, "scope", Some("nonsense")),
        with(&request, "code_challenge", None),
    ] {
        let form = encoded(&parameters);
        let answer = scene.post("/oauth/authorize", &[], &form).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "not 307: {form}");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{form}");
    }
}

#[tokio::test]
async fn nothing_that_stands_in_a_url_is_taken_for_a_secret() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let code = scene
        .installation
        .code(&scene.process, &scene.desk, "orders:read")
        .await;
    let tokens = scene
        .installation
        .tokens(&scene.process, &scene.desk, "orders:read")
        .await;
    let query = redemption_of(&scene.desk, &code);
    for (method, body) in [
        (Method::POST, String::new()),
        (Method::POST, redemption(&code, VERIFIER)),
        (Method::POST, format!("client_id={}", scene.desk.id())),
        (Method::GET, String::new()),
        (Method::PUT, query.clone()),
        (Method::HEAD, String::new()),
    ] {
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("/oauth/token?{query}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(body.clone()));
        let answer = scene.send(request.unwrap()).await;
        assert!(
            answer.status.is_client_error(),
            "{method} {body}: {answer:?}"
        );
        assert!(answer.json.get("access_token").is_none());
    }
    for path in ["/oauth/introspect", "/oauth/revoke"] {
        let in_query = format!(
            "{path}?token={}&client_id={}&client_secret={}",
            tokens.access,
            scene.desk.id(),
            secret_of(&scene.desk.app)
        );
        let answer = scene.post(&in_query, &[], "").await;
        assert_error(&answer, "invalid_request", path);
        let answer = scene.process.get(&in_query).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    // The one place for an access token is the header, and the metadata says so (RFC 9728, section 2).
    let metadata = scene
        .process
        .get("/.well-known/oauth-protected-resource")
        .await;
    assert_eq!(
        metadata.json["bearer_methods_supported"],
        serde_json::json!(["header"])
    );
    // None of it has used anything up.
    tokens_of(&scene.post("/oauth/token", &[], &query).await);
    assert!(scene.process.takes(&tokens.access).await);
}

#[tokio::test]
async fn no_answer_is_for_a_script_of_another_site() {
    let scene = Scene::new(ClientKind::Public).await;
    let asked = encoded(&scene.desk.request("orders:read"));
    for path in [
        &format!("/oauth/authorize?{asked}"),
        "/oauth/token",
        "/oauth/introspect",
        "/oauth/revoke",
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/.well-known/jwks.json",
    ] {
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            for origin in ["https://evil.example", "null", ISSUER] {
                let request = Request::builder()
                    .method(method.clone())
                    .uri(path)
                    .header(header::ORIGIN, origin)
                    .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
                    .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "authorization")
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Body::empty());
                let answer = scene.send(request.unwrap()).await;
                let shared: Vec<_> = answer
                    .headers
                    .keys()
                    .filter(|name| name.as_str().starts_with("access-control-"))
                    .collect();
                assert!(shared.is_empty(), "{method} {path} {origin}: {shared:?}");
            }
        }
    }
}

#[tokio::test]
async fn no_header_moves_an_address() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let request = scene.desk.request("orders:read");
    let evil = [
        ("host", "evil.example"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-prefix", "/evil"),
        ("forwarded", "host=evil.example;proto=http"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x-http-method-override", "DELETE"),
        ("referer", "https://evil.example/"),
    ];
    for (path, expected) in [
        (
            format!("/oauth/authorize?{}", encoded(&request)),
            StatusCode::SEE_OTHER,
        ),
        (
            "/.well-known/oauth-authorization-server".to_owned(),
            StatusCode::OK,
        ),
        (
            "/.well-known/oauth-protected-resource".to_owned(),
            StatusCode::OK,
        ),
    ] {
        let mut forged = Request::get(&path);
        for (name, value) in evil {
            forged = forged.header(name, value);
        }
        let answer = scene.send(forged.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, expected, "{path}");
        let said = format!("{:?} {}", answer.headers, answer.json);
        assert!(!said.contains("evil"), "{path}: {said}");
        assert!(
            answer.json["issuer"]
                .as_str()
                .is_none_or(|issuer| issuer == ISSUER)
        );
    }
    // And a token's audience comes from us.
    let form = format!(
        "{}&client_id={}",
        redemption("stoa_code_x", VERIFIER),
        scene.desk.id()
    );
    let answer = scene
        .post(
            "/oauth/token",
            &[
                basic(&scene.desk.app),
                (header::HOST, "evil.example".to_owned()),
            ],
            &form,
        )
        .await;
    assert_error(&answer, "invalid_grant", "a made-up code");
    let tokens = scene
        .installation
        .tokens(&scene.process, &scene.desk, "orders:read")
        .await;
    let claims = crate::tokens::claims_of(&tokens.access);
    assert_eq!(claims["iss"], ISSUER);
    assert!(
        form_urlencoded::parse(encoded(&request).as_bytes()).any(|(_, value)| value == CHALLENGE)
    );
}
