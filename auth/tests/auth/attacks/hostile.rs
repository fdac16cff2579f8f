//! Parameters that are doubled, oversized, or no text at all, at every endpoint: refused, and never a fault of ours.

use auth::client::app::ClientKind;
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};

use super::{Scene, redemption_of};
use crate::{
    fixture::ISSUER,
    flow::{assert_error, encoded, location, parameter, tokens_of},
};

/// What is sent in place of an honest value, form-encoded as it stands; some of it is not UTF-8 once it is decoded.
fn values() -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = [
        "%00",
        "a%00b",
        "%ff%fe",
        "%c0%af",
        "%ed%a0%80",
        "%f4%90%80%80",
        "%",
        "%zz",
        "%0d%0aSet-Cookie:%20a=b",
        "%e2%80%ae",
        "%f0%9f%92%a3",
        "'",
        "%22%3E%3Cscript%3E",
        "%24%7Bjndi%3Aldap%3A%2F%2Fevil%7D",
        "{}",
        "[]",
        "-1",
        "9999999999999999999999",
        "..%2f..%2fetc%2fpasswd",
    ]
    .iter()
    .map(|value| value.as_bytes().to_vec())
    .collect();
    values.push(b"\xff\xfe\x00raw".to_vec());
    values.push(b"a".repeat(4_000));
    values.push(b"%00".repeat(1_300));
    values.push(b"a".repeat(20_000));
    values
}

/// `form` with `value` for `name`, or added to it.
fn replaced(form: &str, name: &str, value: &[u8]) -> Vec<u8> {
    let mut pairs: Vec<Vec<u8>> = form
        .split('&')
        .filter(|pair| pair.split('=').next() != Some(name))
        .map(|pair| pair.as_bytes().to_vec())
        .collect();
    pairs.push([name.as_bytes(), b"=", value].concat());
    pairs.join(&b'&')
}

/// An honest request to each endpoint that takes a form, and the names of what it may say.
async fn endpoints(scene: &Scene) -> Vec<(&'static str, String)> {
    let (desk, process) = (&scene.desk, &scene.process);
    let tokens = scene
        .installation
        .tokens(process, desk, "orders:read")
        .await;
    let code = scene.installation.code(process, desk, "orders:read").await;
    vec![
        (
            "/oauth/authorize",
            format!(
                "{}&resource={ISSUER}/merchants/{}&grant_expires_in=60",
                encoded(&desk.request("orders:read")),
                desk.merchant
            ),
        ),
        ("/oauth/token", redemption_of(desk, &code)),
        (
            "/oauth/token",
            format!(
                "grant_type=refresh_token&refresh_token={}{}",
                tokens.refresh,
                desk.credentials()
            ),
        ),
        (
            "/oauth/token",
            format!(
                "grant_type=client_credentials&resource={ISSUER}/merchants/{}{}",
                desk.merchant,
                desk.credentials()
            ),
        ),
        (
            "/oauth/introspect",
            format!("token={}{}", tokens.access, desk.credentials()),
        ),
        ("/oauth/revoke", format!("token=x{}", desk.credentials())),
    ]
}

fn names(form: &str) -> Vec<&str> {
    let own = form.split('&').filter_map(|pair| pair.split('=').next());
    own.chain([
        "scope",
        "token_type_hint",
        "client_assertion",
        "client_assertion_type",
        "prompt",
        "request",
        "response_mode",
        "unheard_of",
    ])
    .collect()
}

#[tokio::test]
async fn whatever_is_sent_no_endpoint_breaks_and_no_cookie_or_header_is_made() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let endpoints = endpoints(&scene).await;
    for (path, form) in &endpoints {
        for name in names(form) {
            for value in values() {
                let body = replaced(form, name, &value);
                let request = Request::post(*path)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(Body::from(body));
                let answer = scene.send(request.unwrap()).await;
                let case = format!(
                    "{path} {name}={}",
                    String::from_utf8_lossy(&value[..value.len().min(60)])
                );
                assert!(answer.status.as_u16() < 500, "{case}: {answer:?}");
                assert!(!answer.headers.contains_key(header::SET_COOKIE), "{case}");
            }
        }
    }
    // Headers that make no sense, and bodies that are none.
    for (path, form) in &endpoints {
        for (name, value) in [
            (header::AUTHORIZATION, b"Basic \xff\xfe".to_vec()),
            (header::AUTHORIZATION, b"Basic AAAA".to_vec()),
            (header::AUTHORIZATION, b"Basic /////w==".to_vec()),
            (header::AUTHORIZATION, b"".to_vec()),
            (header::AUTHORIZATION, b"a".repeat(10_000)),
            (header::CONTENT_TYPE, b"\xff".to_vec()),
            (
                header::CONTENT_TYPE,
                b"multipart/form-data; boundary=a".to_vec(),
            ),
            (header::CONTENT_TYPE, b"application/json".to_vec()),
            (header::USER_AGENT, b"\xff".repeat(5_000)),
            (header::COOKIE, b"__Host-stoa_session=\xff\xfe; a".to_vec()),
        ] {
            let mut request = Request::post(*path).header(&name, value.as_slice());
            if name != header::CONTENT_TYPE {
                request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            }
            let body = if name == header::USER_AGENT {
                String::new()
            } else {
                form.clone()
            };
            let answer = scene.send(request.body(Body::from(body)).unwrap()).await;
            assert!(answer.status.as_u16() < 500, "{path} {name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_parameter_that_comes_twice_is_refused_at_every_endpoint() {
    let scene = Scene::new(ClientKind::Confidential).await;
    for (path, form) in endpoints(&scene).await {
        for pair in form.split('&') {
            let (name, value) = pair.split_once('=').unwrap();
            // The same again, another before it, another after it: whoever reads the first and whoever reads the last would not agree.
            for doubled in [
                format!("{form}&{name}={value}"),
                format!("{name}=other&{form}"),
                format!("{form}&{name}=other"),
            ] {
                let answer = scene.post(path, &[], &doubled).await;
                let case = format!("{path} {doubled}");
                if path == "/oauth/authorize" && matches!(name, "client_id" | "redirect_uri") {
                    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{case}");
                    assert!(!answer.headers.contains_key(header::LOCATION), "{case}");
                    continue;
                }
                let error = if name == "resource" {
                    "invalid_target"
                } else {
                    "invalid_request"
                };
                if path == "/oauth/authorize" {
                    let url = location(&answer);
                    assert_eq!(parameter(&url, "error").as_deref(), Some(error), "{case}");
                    assert_eq!(
                        parameter(&url, "state").is_none(),
                        name == "state",
                        "{case}"
                    );
                } else {
                    assert_error(&answer, error, &case);
                }
            }
        }
        // The honest one is still good.
        let answer = scene.post(path, &[], &form).await;
        if path == "/oauth/authorize" {
            assert_eq!(parameter(&location(&answer), "error"), None);
        } else {
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json);
        }
        if form.contains("code=") && path == "/oauth/token" {
            tokens_of(&answer);
        }
    }
}

#[tokio::test]
async fn a_flood_of_requests_is_swept_as_a_whole() {
    // Anybody may ask without proving anything: what they leave behind must not stay because there is much of it.
    let scene = Scene::new(ClientKind::Public).await;
    let app = scene.desk.app.app.id.uuid();
    let now = scene.installation.clock.now().unix_seconds();
    scene
        .installation
        .execute(&format!(
            "insert into authorization_requests (handle_sha256, app_id, redirect_uri, scopes, code_challenge, created_at, expires_at)
            select sha256(number::text::bytea), '{app}', 'https://desk.example/callback', '{{orders:read}}', 'x',
                to_timestamp({now}) - interval '20 minutes', to_timestamp({now}) - interval '10 minutes'
            from generate_series(1, 2500) number"
        ))
        .await;
    assert_eq!(scene.waiting().await, 2_500);
    let worker = scene.installation.database.worker();
    let swept = auth::sweep(&worker, scene.installation.clock.now());
    assert_eq!(swept.await.unwrap(), 2_500);
    assert_eq!(scene.waiting().await, 0);
}
