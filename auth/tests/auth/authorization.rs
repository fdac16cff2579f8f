//! The authorization request and consent (RFC 6749, section 4.1; RFC 9207; RFC 9700, sections 2.1 and 4).

use std::time::Duration;

use auth::{
    Error,
    account::Role,
    authorization::{Decision, GrantEnd},
    client::app::{AppInput, ClientKind},
    grant::Term,
    http::authorize::Unredirectable,
};
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use kernel::id::LocationId;
use tower::ServiceExt;

use crate::{
    fixture::{ISSUER, Installation, Process, terms},
    flow::{
        CALLBACK, CHALLENGE, Desk, VERIFIER, approve, encoded, handle_of, location, parameter, with,
    },
};

async fn setting() -> (Installation, Process, Desk) {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation.desk(ClientKind::Confidential).await;
    (installation, process, desk)
}

async fn consent(
    installation: &Installation,
    desk: &Desk,
    handle: &str,
    decision: Decision,
) -> Result<url::Url, Error> {
    installation
        .authorizations()
        .consent(
            &installation.decider(),
            &desk.session,
            handle,
            desk.merchant,
            decision,
        )
        .await
}

#[tokio::test]
async fn a_request_waits_for_a_page_and_is_answered_with_a_code() {
    let (installation, process, desk) = setting().await;
    let request = desk.request("orders:read catalog:write");
    let answer = process.authorize(&request).await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    let handle = handle_of(&answer);
    assert_eq!(handle.len(), 43);
    let pending = installation
        .authorizations()
        .pending(&handle)
        .await
        .unwrap();
    assert_eq!(pending.app.id, desk.app.app.id);
    assert_eq!(pending.scopes.to_string(), "catalog:write orders:read");
    assert_eq!(pending.redirect_uri.as_str(), CALLBACK);
    assert!(!pending.personal_data && pending.required.is_empty());
    assert_eq!((pending.merchant, pending.longest), (None, None));
    let url = consent(&installation, &desk, &handle, approve("orders:read"))
        .await
        .unwrap();
    assert!(url.as_str().starts_with(CALLBACK));
    assert_eq!(parameter(&url, "state").as_deref(), Some("a state"));
    assert_eq!(parameter(&url, "iss").as_deref(), Some(ISSUER));
    assert!(parameter(&url, "code").unwrap().starts_with("stoa_code_"));
    let grant = installation
        .authorizations()
        .living_grant(desk.merchant, desk.app.app.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(grant.scopes.to_string(), "orders:read");
    let consented = installation.audited(desk.merchant, "grant.consented").await;
    assert_eq!(consented, 1);
    let by = format!(
        "select count(*) from grants where consented_by = '{}'",
        desk.session.person.id.uuid()
    );
    assert_eq!(installation.count(&by).await, 1);
    // By a form it is the same, and goes on by GET.
    let answer = process
        .post_to("/oauth/authorize", &[], &encoded(&request))
        .await;
    handle_of(&answer);
}

#[tokio::test]
async fn an_unknown_client_or_redirect_uri_is_never_redirected() {
    let (_installation, process, desk) = setting().await;
    let request = desk.request("orders:read");
    let mut cases = vec![
        with(&request, "client_id", None),
        with(&request, "client_id", Some("")),
        with(&request, "client_id", Some("somebody")),
        with(
            &request,
            "client_id",
            Some("app_01jd3x5k8vfm7b2c9q0r4t6w8y"),
        ),
        with(&request, "redirect_uri", None),
        with(&request, "redirect_uri", Some("")),
    ];
    for uri in [
        "https://evil.example/callback",
        "https://desk.example/callback/",
        "https://desk.example/callback?a=b",
        "https://desk.example/callback#a",
        "https://desk.example/callback/../callback",
        "https://desk.example:443/callback",
        "https://desk.example@evil.example/callback",
        "https://desk.example.evil.example/callback",
        "http://desk.example/callback",
        "//desk.example/callback",
        "/callback",
        "javascript:alert(1)",
        "data:text/html,x",
    ] {
        cases.push(with(&request, "redirect_uri", Some(uri)));
    }
    for (name, value) in [
        ("client_id", desk.id()),
        ("redirect_uri", CALLBACK.to_owned()),
    ] {
        let mut repeated = request.clone();
        repeated.push((name, value));
        cases.push(repeated);
        let mut repeated = request.clone();
        repeated.push((name, String::new()));
        cases.push(repeated);
    }
    for case in &cases {
        let form = encoded(case);
        for answer in [
            process.authorize(case).await,
            process.post_to("/oauth/authorize", &[], &form).await,
        ] {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{form}");
            assert!(!answer.headers.contains_key(header::LOCATION), "{form}");
        }
    }
    // What is to be said travels with the answer, for whoever renders pages.
    let request = Request::get("/oauth/authorize")
        .body(Body::empty())
        .unwrap();
    let answer = process.router.clone().oneshot(request).await.unwrap();
    let told = answer.extensions().get::<Unredirectable>().unwrap();
    assert!(told.reason.contains("client_id"));
    let text = answer.headers()[header::CONTENT_TYPE].to_str().unwrap();
    assert!(text.starts_with("text/plain"), "{text}");
}

#[tokio::test]
async fn whatever_else_is_wrong_is_answered_to_the_app_with_state_and_issuer() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation
        .desk_of(AppInput {
            redirect_uris: vec![CALLBACK.to_owned()],
            scopes: Some("orders:write".parse().unwrap()),
            ..AppInput::named("Parcel Desk")
        })
        .await;
    let request = desk.request("orders:read");
    let merchant = format!("{ISSUER}/merchants/{}", desk.merchant);
    let cases = [
        ("response_type", None, "invalid_request"),
        ("response_type", Some("token"), "unsupported_response_type"),
        (
            "response_type",
            Some("code token"),
            "unsupported_response_type",
        ),
        ("response_mode", Some("fragment"), "invalid_request"),
        ("response_mode", Some("form_post"), "invalid_request"),
        ("code_challenge", None, "invalid_request"),
        ("code_challenge", Some(""), "invalid_request"),
        ("code_challenge", Some("short"), "invalid_request"),
        ("code_challenge_method", None, "invalid_request"),
        ("code_challenge_method", Some("plain"), "invalid_request"),
        ("code_challenge_method", Some("s256"), "invalid_request"),
        ("scope", Some("orders:raed"), "invalid_scope"),
        ("scope", Some("orders:read openid"), "invalid_scope"),
        ("scope", Some("catalog:read"), "invalid_scope"),
        ("scope", Some(" "), "invalid_scope"),
        (
            "resource",
            Some("https://other.example/merchants/x"),
            "invalid_target",
        ),
        ("resource", Some(ISSUER), "invalid_target"),
        ("request", Some("a.b.c"), "request_not_supported"),
        (
            "request_uri",
            Some("https://desk.example/r"),
            "request_uri_not_supported",
        ),
        ("grant_expires_in", Some("0"), "invalid_request"),
        ("grant_expires_in", Some("+1"), "invalid_request"),
        ("grant_expires_in", Some("soon"), "invalid_request"),
        ("grant_expires_in", Some("99999999999"), "invalid_request"),
    ];
    for (name, value, error) in cases {
        let url = location(&process.authorize(&with(&request, name, value)).await);
        let case = format!("{name}={value:?}: {url}");
        assert!(url.as_str().starts_with(&format!("{CALLBACK}?")), "{case}");
        assert_eq!(parameter(&url, "error").as_deref(), Some(error), "{case}");
        assert!(parameter(&url, "error_description").is_some(), "{case}");
        assert_eq!(
            parameter(&url, "state").as_deref(),
            Some("a state"),
            "{case}"
        );
        assert_eq!(parameter(&url, "iss").as_deref(), Some(ISSUER), "{case}");
        assert_eq!(parameter(&url, "code"), None, "{case}");
    }
    for (name, value, error) in [
        ("scope", "orders:read", "invalid_request"),
        ("response_type", "code", "invalid_request"),
        ("code_challenge", CHALLENGE, "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("state", "a state", "invalid_request"),
        ("state", "", "invalid_request"),
        ("resource", &merchant, "invalid_target"),
    ] {
        let mut repeated = with(&request, "resource", Some(&merchant));
        repeated.push((name, value.to_owned()));
        let url = location(&process.authorize(&repeated).await);
        assert_eq!(parameter(&url, "error").as_deref(), Some(error), "{name}");
        assert_eq!(parameter(&url, "iss").as_deref(), Some(ISSUER), "{name}");
        // Of two states neither is told.
        assert_eq!(parameter(&url, "state").is_none(), name == "state");
    }
    for state in ["a".repeat(2_049), "é".to_owned(), "a\nb".to_owned()] {
        let url = location(
            &process
                .authorize(&with(&request, "state", Some(&state)))
                .await,
        );
        assert_eq!(parameter(&url, "error").as_deref(), Some("invalid_request"));
        assert_eq!(parameter(&url, "state"), None);
    }
    // Parameters that mean nothing here are ignored, and so are their repetitions.
    let mut more = with(&request, "nonce", Some("n"));
    more.push(("nonce", "n".to_owned()));
    handle_of(&process.authorize(&more).await);
    // No scope is all that the app may ask for.
    let handle = handle_of(&process.authorize(&with(&request, "scope", None)).await);
    let pending = installation
        .authorizations()
        .pending(&handle)
        .await
        .unwrap();
    assert_eq!(pending.scopes.to_string(), "orders:write");
}

#[tokio::test]
async fn the_port_of_a_loopback_address_is_free() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation
        .desk_of(AppInput {
            kind: ClientKind::Public,
            redirect_uris: vec!["http://127.0.0.1/callback".to_owned()],
            ..AppInput::named("At home")
        })
        .await;
    let request = desk.request("orders:read");
    for (uri, is_good) in [
        ("http://127.0.0.1:49152/callback", true),
        ("http://127.0.0.1/callback", true),
        ("http://localhost:49152/callback", false),
        ("http://[::1]:49152/callback", false),
        ("http://127.0.0.1:49152/other", false),
        ("http://127.0.0.1:1@evil.example/callback", false),
    ] {
        let answer = process
            .authorize(&with(&request, "redirect_uri", Some(uri)))
            .await;
        assert_eq!(answer.status == StatusCode::SEE_OTHER, is_good, "{uri}");
        if is_good {
            let handle = handle_of(&answer);
            let authorizations = installation.authorizations();
            let living = authorizations
                .living_grant(desk.merchant, desk.app.app.id)
                .await
                .unwrap();
            let decision = Decision {
                grant_version: living.map(|grant| grant.version),
                ..approve("orders:read")
            };
            let url = consent(&installation, &desk, &handle, decision)
                .await
                .unwrap();
            assert!(url.as_str().starts_with(uri), "{url}");
            // The code is bound to the port too.
            let code = parameter(&url, "code").unwrap();
            let elsewhere = "http://127.0.0.1:1/callback";
            let answer = process
                .redeem_with(&desk, &code, elsewhere, VERIFIER, "")
                .await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            let answer = process.redeem_with(&desk, &code, uri, VERIFIER, "").await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        }
    }
}

fn is_invalid(result: &Result<url::Url, Error>, pointer: &str) -> bool {
    matches!(result, Err(Error::InvalidFields(errors))
        if errors.iter().any(|error| error.pointer.as_deref() == Some(pointer)))
}

#[tokio::test]
async fn nothing_is_given_beyond_what_was_asked_for_or_below_what_is_needed() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let desk = installation
        .desk_of(AppInput {
            redirect_uris: vec![CALLBACK.to_owned()],
            required_scopes: "orders:read orders.pii:read payments:read".parse().unwrap(),
            ..AppInput::named("Parcel Desk")
        })
        .await;
    let request = desk.request("orders:write catalog:read orders:read");
    let request = with(&request, "grant_expires_in", Some("172800"));
    let handle = handle_of(&process.authorize(&request).await);
    let pending = installation
        .authorizations()
        .pending(&handle)
        .await
        .unwrap();
    assert_eq!(pending.required.to_string(), "orders:read");
    assert_eq!(pending.longest, Some(Duration::from_hours(48)));
    let as_asked = |scopes: &str| Decision {
        end: GrantEnd::AsAsked,
        ..approve(scopes)
    };
    for (decision, pointer) in [
        (as_asked("orders:read catalog:write"), "/scopes"),
        (as_asked("orders:read payments:read"), "/scopes"),
        (as_asked("catalog:read"), "/scopes"),
        (as_asked(""), "/scopes"),
        (
            Decision {
                personal_data: true,
                ..as_asked("orders:read")
            },
            "/personalData",
        ),
        (approve("orders:read"), "/end"),
        (
            Decision {
                end: GrantEnd::After(Term::Week),
                ..approve("orders:read")
            },
            "/end",
        ),
        (
            Decision {
                end: GrantEnd::Unchanged,
                ..approve("orders:read")
            },
            "/end",
        ),
        (
            Decision {
                locations: Some(Vec::new()),
                ..as_asked("orders:read")
            },
            "/locations",
        ),
    ] {
        let result = consent(&installation, &desk, &handle, decision.clone()).await;
        assert!(is_invalid(&result, pointer), "{decision:?}: {result:?}");
    }
    // Whatever failed has left the request waiting.
    consent(&installation, &desk, &handle, as_asked("orders:read"))
        .await
        .unwrap();
    let grant = installation
        .authorizations()
        .living_grant(desk.merchant, desk.app.app.id)
        .await
        .unwrap()
        .unwrap();
    let end = installation.clock.now().plus(Duration::from_hours(48));
    assert_eq!(grant.expires_at, Some(end));
    assert!(!grant.personal_data);
}

#[tokio::test]
async fn personal_data_is_a_word_of_its_own() {
    let (installation, process, desk) = setting().await;
    let request = desk.request("orders:read orders.pii:read");
    for (ticked, expected) in [
        (false, "orders:read"),
        (true, "orders:read orders.pii:read"),
    ] {
        let handle = handle_of(&process.authorize(&request).await);
        let pending = installation
            .authorizations()
            .pending(&handle)
            .await
            .unwrap();
        assert!(pending.personal_data);
        assert_eq!(pending.scopes.to_string(), "orders:read");
        let living = installation
            .authorizations()
            .living_grant(desk.merchant, desk.app.app.id)
            .await
            .unwrap();
        let decision = Decision {
            personal_data: ticked,
            grant_version: living.map(|grant| grant.version),
            ..approve("orders:read")
        };
        let url = consent(&installation, &desk, &handle, decision)
            .await
            .unwrap();
        let code = parameter(&url, "code").unwrap();
        let answer = process.redeem(&desk, &code).await;
        assert_eq!(answer.json["scope"], expected);
        let token = answer.json["access_token"].as_str().unwrap();
        let actor = process.verify(token).await.unwrap();
        assert_eq!(actor.access.sees_personal_data(), ticked);
    }
}

#[tokio::test]
async fn only_who_decides_for_the_merchant_and_has_just_proved_it_consents() {
    let (installation, process, mut desk) = setting().await;
    let request = desk.request("orders:read");
    let handle = handle_of(&process.authorize(&request).await);
    let try_as =
        async |desk: &Desk| consent(&installation, desk, &handle, approve("orders:read")).await;
    desk.session = installation.session(desk.merchant, Role::Viewer);
    assert!(matches!(try_as(&desk).await, Err(Error::Forbidden(_))));
    desk.session = installation.stale_session(desk.merchant, Role::Owner);
    assert!(matches!(try_as(&desk).await, Err(Error::StepUpRequired)));
    let other = installation.merchant().await;
    desk.session = installation.session(other, Role::Owner);
    assert!(matches!(try_as(&desk).await, Err(Error::NotFound { .. })));
    // What is asked of one merchant is not another's to give.
    desk.session = installation.session(desk.merchant, Role::Owner);
    let resource = format!("{ISSUER}/merchants/{other}");
    let asked = process
        .authorize(&with(&request, "resource", Some(&resource)))
        .await;
    let handle_of_other = handle_of(&asked);
    let result = consent(
        &installation,
        &desk,
        &handle_of_other,
        approve("orders:read"),
    )
    .await;
    assert!(matches!(result, Err(Error::Forbidden(_))), "{result:?}");
    try_as(&desk).await.unwrap();
}

#[tokio::test]
async fn a_request_is_decided_once_and_in_time() {
    let (installation, process, desk) = setting().await;
    let request = desk.request("orders:read");
    let gone = |result: Result<url::Url, Error>| {
        matches!(result, Err(Error::Gone("authorization request")))
    };
    let handle = handle_of(&process.authorize(&request).await);
    let (one, two) = tokio::join!(
        consent(&installation, &desk, &handle, approve("orders:read")),
        consent(&installation, &desk, &handle, approve("orders:read")),
    );
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(
        installation
            .count("select count(*) from authorization_codes")
            .await,
        1
    );
    let authorizations = installation.authorizations();
    assert!(authorizations.pending(&handle).await.is_err());
    assert!(gone(
        consent(&installation, &desk, &handle, approve("orders:read")).await
    ));
    // Refused: the app is told, with state and issuer.
    let handle = handle_of(&process.authorize(&request).await);
    let caller = installation.decider();
    let url = authorizations
        .refuse(&caller, &desk.session, &handle)
        .await
        .unwrap();
    assert_eq!(parameter(&url, "error").as_deref(), Some("access_denied"));
    assert_eq!(parameter(&url, "state").as_deref(), Some("a state"));
    assert_eq!(parameter(&url, "iss").as_deref(), Some(ISSUER));
    assert!(gone(
        authorizations.refuse(&caller, &desk.session, &handle).await
    ));
    let handle = handle_of(&process.authorize(&request).await);
    installation.clock.advance(Duration::from_mins(10));
    assert!(gone(
        authorizations.refuse(&caller, &desk.session, &handle).await
    ));
    assert!(gone(
        authorizations
            .refuse(&caller, &desk.session, "made-up")
            .await
    ));
    // What its developer has taken back meanwhile is not answered to any more.
    let handle = handle_of(&process.authorize(&request).await);
    installation
        .execute("update apps set redirect_uris = '{https://desk.example/new}'")
        .await;
    assert!(gone(
        authorizations.refuse(&caller, &desk.session, &handle).await
    ));
}

#[tokio::test]
async fn consent_given_again_adds_and_takes_nothing_away() {
    let (installation, process, desk) = setting().await;
    let now = installation.clock.now();
    let places = [LocationId::new(now), LocationId::new(now)];
    let mut old = terms("orders:read inventory:read");
    old.locations = Some(vec![places[0]]);
    old.expires_at = Some(now.plus(Duration::from_hours(24 * 10)));
    let before = installation
        .consent(desk.merchant, desk.app.app.id, old)
        .await
        .unwrap();
    let again = async |decision: Decision| {
        let handle = handle_of(&process.authorize(&desk.request("orders:write")).await);
        consent(&installation, &desk, &handle, decision).await
    };
    for version in [None, Some(before.version + 1)] {
        let result = again(Decision {
            grant_version: version,
            ..approve("orders:write")
        })
        .await;
        assert!(matches!(result, Err(Error::Changed("grant"))), "{result:?}");
    }
    let url = again(Decision {
        locations: Some(vec![places[1]]),
        end: GrantEnd::After(Term::Week),
        grant_version: Some(before.version),
        ..approve("orders:write")
    })
    .await
    .unwrap();
    let living = || async {
        installation
            .authorizations()
            .living_grant(desk.merchant, desk.app.app.id)
            .await
            .unwrap()
            .unwrap()
    };
    let after = living().await;
    assert_eq!(after.id, before.id);
    assert_eq!(
        after.scopes.to_string(),
        "inventory:read orders:read orders:write"
    );
    assert_eq!(after.locations.as_ref().map(Vec::len), Some(2));
    assert_eq!(
        after.expires_at, before.expires_at,
        "a sooner end takes nothing away"
    );
    assert_eq!(after.epoch, before.epoch, "tokens that are out stay good");
    // The code has what its own request asked for.
    let answer = process
        .redeem(&desk, &parameter(&url, "code").unwrap())
        .await;
    assert_eq!(answer.json["scope"], "orders:write");
    // Nothing new is nothing changed, and a code all the same.
    again(Decision {
        locations: after.locations.clone(),
        end: GrantEnd::Unchanged,
        grant_version: Some(after.version),
        ..approve("orders:write")
    })
    .await
    .unwrap();
    assert_eq!(living().await.version, after.version);
    again(Decision {
        locations: after.locations.clone(),
        end: GrantEnd::After(Term::Month),
        grant_version: Some(after.version),
        ..approve("orders:write")
    })
    .await
    .unwrap();
    assert!(
        living().await.expires_at > before.expires_at,
        "a later end is chosen"
    );
}

#[tokio::test]
async fn two_requests_consented_to_at_once_lose_nothing_that_was_given() {
    let (installation, process, desk) = setting().await;
    let first = handle_of(&process.authorize(&desk.request("orders:read")).await);
    let second = handle_of(&process.authorize(&desk.request("catalog:read")).await);
    let (one, two) = tokio::join!(
        consent(&installation, &desk, &first, approve("orders:read")),
        consent(&installation, &desk, &second, approve("catalog:read")),
    );
    let grant = installation
        .authorizations()
        .living_grant(desk.merchant, desk.app.app.id)
        .await
        .unwrap()
        .unwrap();
    for (result, scope) in [(one, "orders:read"), (two, "catalog:read")] {
        match result {
            Ok(_) => assert!(grant.scopes.allows_all(scope.parse().unwrap()), "{scope}"),
            Err(error) => assert!(matches!(error, Error::Changed("grant")), "{error:?}"),
        }
    }
}

#[tokio::test]
async fn the_api_says_who_issues_its_tokens() {
    let (installation, process, desk) = setting().await;
    let merchant = format!("/merchants/{}", desk.merchant);
    for (suffix, resource) in [
        ("", ISSUER.to_owned()),
        (&merchant, format!("{ISSUER}{merchant}")),
    ] {
        let path = format!("/.well-known/oauth-protected-resource{suffix}");
        let answer = process.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json["resource"], resource);
        assert_eq!(
            answer.json["authorization_servers"][0],
            installation.issuer.as_str()
        );
        assert_eq!(answer.json["bearer_methods_supported"][0], "header");
    }
    let answer = process
        .get("/.well-known/oauth-protected-resource/merchants/somebody")
        .await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
}
