//! `/oauth/token` as RFC 6749 and RFC 8707 have it, and the two documents.

use std::time::Duration;

use auth::client::Credentials;
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use kernel::id::{LocationId, MerchantId};

use crate::fixture::{
    Answer, ISSUER, Install, Installation, Process, basic, basic_of, secret_of, terms,
};

fn form_for(install: &Install, more: &str) -> String {
    format!(
        "grant_type=client_credentials&resource={ISSUER}/merchants/{}{more}",
        install.merchant
    )
}

fn by_post(install: &Install) -> String {
    format!(
        "&client_id={}&client_secret={}",
        install.app.app.id,
        secret_of(&install.app)
    )
}

async fn setting() -> (Installation, Process, Install) {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation
        .install(terms("orders:write catalog:read"))
        .await;
    (installation, process, install)
}

fn assert_refused(answer: &Answer, status: StatusCode, error: &str, case: &str) {
    assert_eq!(
        (answer.status, answer.json["error"].as_str()),
        (status, Some(error)),
        "{case}: {}",
        answer.json
    );
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{case}");
    assert!(answer.json["error_description"].is_string(), "{case}");
    let challenged = answer
        .headers
        .get(header::WWW_AUTHENTICATE)
        .is_some_and(|value| value.to_str().unwrap().starts_with("Basic "));
    assert_eq!(challenged, status == StatusCode::UNAUTHORIZED, "{case}");
}

#[tokio::test]
async fn a_token_goes_round_by_basic_and_by_post() {
    let (installation, process, install) = setting().await;
    for (headers, form) in [
        (vec![basic(&install.app)], form_for(&install, "")),
        (vec![], form_for(&install, &by_post(&install))),
    ] {
        let answer = process.post(&headers, &form).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[header::PRAGMA], "no-cache");
        assert_eq!(answer.json["token_type"], "Bearer");
        assert_eq!(answer.json["expires_in"], 600);
        assert_eq!(answer.json["scope"], "catalog:read orders:write");
        let actor = process
            .verify(answer.json["access_token"].as_str().unwrap())
            .await
            .unwrap();
        assert_eq!(
            (actor.merchant, actor.app, actor.grant),
            (install.merchant, install.app.app.id, install.grant.id)
        );
        assert_eq!(actor.access, install.grant.access());
    }
    // What limits the grant is in the token.
    let locations = vec![LocationId::new(installation.clock.now())];
    let mut limited = terms("orders:read");
    limited.locations = Some(locations.clone());
    limited.personal_data = true;
    let install = installation.install(limited).await;
    let actor = process
        .verify(&process.token(&install).await)
        .await
        .unwrap();
    assert_eq!(
        (actor.access.locations, actor.access.personal_data),
        (Some(locations), true)
    );
}

#[tokio::test]
async fn scope_narrows_and_never_widens() {
    let (_installation, process, install) = setting().await;
    for (wanted, given) in [
        ("orders:read", "orders:read"),
        ("orders:read+catalog:write", "orders:read"),
        ("catalog:read%20orders:write", "catalog:read orders:write"),
        ("", "catalog:read orders:write"),
    ] {
        let answer = process
            .post(
                &[basic(&install.app)],
                &form_for(&install, &format!("&scope={wanted}")),
            )
            .await;
        assert_eq!(answer.json["scope"], given, "{wanted}: {}", answer.json);
        let actor = process
            .verify(answer.json["access_token"].as_str().unwrap())
            .await
            .unwrap();
        assert_eq!(actor.access.scopes.to_string(), given, "{wanted}");
    }
    for wanted in [
        "catalog:write",
        "payments:read",
        "orders:raed",
        "orders:read+everything",
    ] {
        let answer = process
            .post(
                &[basic(&install.app)],
                &form_for(&install, &format!("&scope={wanted}")),
            )
            .await;
        assert_refused(&answer, StatusCode::BAD_REQUEST, "invalid_scope", wanted);
    }
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_client_get_the_same_answer() {
    let (_installation, process, install) = setting().await;
    let (id, secret) = (
        install.app.app.id.to_string(),
        secret_of(&install.app).to_owned(),
    );
    let unknown = "app_01jd3x5k8vfm7b2c9q0r4t6w8y";
    let wrong = [
        (id.as_str(), "stoa_secret_wrong"),
        (id.as_str(), ""),
        (unknown, secret.as_str()),
        ("app_00000000000000000000000000", secret.as_str()),
        ("somebody", secret.as_str()),
        ("", ""),
    ];
    let mut answers = Vec::new();
    for (id, secret) in wrong {
        let answer = process
            .post(&[basic_of(id, secret)], &form_for(&install, ""))
            .await;
        assert_refused(&answer, StatusCode::UNAUTHORIZED, "invalid_client", id);
        answers.push(answer);
        let form = form_for(&install, &format!("&client_id={id}&client_secret={secret}"));
        answers.push(process.post(&[], &form).await);
    }
    answers.push(process.post(&[], &form_for(&install, "")).await);
    answers.push(
        process
            .post(
                &[(header::AUTHORIZATION, "Bearer abc".to_owned())],
                &form_for(&install, ""),
            )
            .await,
    );
    answers.push(
        process
            .post(
                &[(header::AUTHORIZATION, "Basic !".to_owned())],
                &form_for(&install, ""),
            )
            .await,
    );
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let (_installation, process, install) = setting().await;
    let resource = format!("{ISSUER}/merchants/{}", install.merchant);
    let post = by_post(&install);
    let bad = StatusCode::BAD_REQUEST;
    let cases = [
        (format!("resource={resource}{post}"), "invalid_request"),
        (
            format!("grant_type=&resource={resource}{post}"),
            "invalid_request",
        ),
        (
            form_for(&install, &format!("{post}&grant_type=client_credentials")),
            "invalid_request",
        ),
        (
            form_for(
                &install,
                &format!("{post}&scope=orders:read&scope=orders:read"),
            ),
            "invalid_request",
        ),
        (
            form_for(&install, &format!("{post}{post}")),
            "invalid_request",
        ),
        (
            form_for(&install, &format!("{post}&resource={resource}")),
            "invalid_target",
        ),
        (
            format!("grant_type=password&username=a&password=b&resource={resource}{post}"),
            "unsupported_grant_type",
        ),
        (
            format!("grant_type=client_credentials{post}"),
            "invalid_target",
        ),
        (
            format!("{}{}", form_for(&install, &post), "&x=".repeat(10_000)),
            "invalid_request",
        ),
    ];
    for (form, error) in &cases {
        assert_refused(
            &process.post(&[], form).await,
            bad,
            error,
            &form[..form.len().min(400)],
        );
    }
    // The client must not show itself in two ways, nor as two clients.
    let twice = process
        .post(&[basic(&install.app)], &form_for(&install, &post))
        .await;
    assert_refused(&twice, bad, "invalid_request", "twice");
    let other = form_for(&install, "&client_id=app_01jd3x5k8vfm7b2c9q0r4t6w8y");
    assert_refused(
        &process.post(&[basic(&install.app)], &other).await,
        bad,
        "invalid_request",
        "as two",
    );
    let same = form_for(&install, &format!("&client_id={}", install.app.app.id));
    assert_eq!(
        process.post(&[basic(&install.app)], &same).await.status,
        StatusCode::OK
    );
    let repeated = process
        .post(
            &[basic(&install.app), basic(&install.app)],
            &form_for(&install, ""),
        )
        .await;
    assert_refused(&repeated, bad, "invalid_request", "two headers");
    // Parameters that mean nothing here are ignored (RFC 6749, section 3.2), and so is what follows the media type.
    let request = Request::post("/oauth/token")
        .header(
            header::CONTENT_TYPE,
            "Application/X-WWW-Form-Urlencoded; charset=utf-8",
        )
        .body(Body::from(form_for(
            &install,
            &format!("{post}&audience=a&audience=b"),
        )));
    assert_eq!(process.send(request.unwrap()).await.status, StatusCode::OK);
    let json = Request::post("/oauth/token")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from("{}"));
    assert_refused(
        &process.send(json.unwrap()).await,
        bad,
        "invalid_request",
        "JSON",
    );
}

#[tokio::test]
async fn only_a_merchant_with_a_living_grant_is_a_target() {
    let (installation, process, install) = setting().await;
    let other = installation.merchant().await;
    let nobody = MerchantId::new(installation.clock.now());
    let mut answers = Vec::new();
    for resource in [
        format!("{ISSUER}/merchants/{other}"),
        format!("{ISSUER}/merchants/{nobody}"),
        format!("{ISSUER}/merchants/{}/", install.merchant),
        format!("https://other.example/merchants/{}", install.merchant),
        install.merchant.to_string(),
        ISSUER.to_owned(),
    ] {
        let form = format!("grant_type=client_credentials&resource={resource}");
        let answer = process.post(&[basic(&install.app)], &form).await;
        assert_refused(
            &answer,
            StatusCode::BAD_REQUEST,
            "invalid_target",
            &resource,
        );
        answers.push(answer);
    }
    installation
        .revoke(install.merchant, install.grant.id)
        .await;
    answers.push(
        process
            .post(&[basic(&install.app)], &form_for(&install, ""))
            .await,
    );
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "an app is not told which merchants exist: {answers:#?}"
    );
}

#[tokio::test]
async fn a_token_ends_with_its_grant() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let mut ending = terms("orders:read");
    ending.expires_at = Some(installation.clock.now().plus(Duration::from_mins(5)));
    let install = installation.install(ending).await;
    let answer = process
        .post(&[basic(&install.app)], &form_for(&install, ""))
        .await;
    let expires_in = answer.json["expires_in"].as_i64().unwrap();
    assert!((299..=300).contains(&expires_in), "{expires_in}");
    let token = answer.json["access_token"].as_str().unwrap();
    process.view.reread().await.unwrap();
    process.verify(token).await.unwrap();
    installation.clock.advance(Duration::from_secs(301));
    process.view.reread().await.unwrap();
    assert!(process.verify(token).await.is_err());
    let answer = process
        .post(&[basic(&install.app)], &form_for(&install, ""))
        .await;
    assert_refused(&answer, StatusCode::BAD_REQUEST, "invalid_target", "ended");
}

#[tokio::test]
async fn without_a_database_the_client_is_told_to_come_back() {
    let (_installation, process, install) = setting().await;
    process.database.close().await;
    let answer = process
        .post(&[basic(&install.app)], &form_for(&install, ""))
        .await;
    assert_refused(
        &answer,
        StatusCode::SERVICE_UNAVAILABLE,
        "temporarily_unavailable",
        "away",
    );
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    assert!(
        !answer.json.to_string().contains("pool"),
        "the cause stays inside: {}",
        answer.json
    );
}

#[tokio::test]
async fn basic_credentials_are_form_encoded() {
    let (_installation, process, install) = setting().await;
    // The same bytes, needlessly encoded: RFC 6749 has them decoded once more after base64.
    let id = install.app.app.id.to_string().replace('_', "%5F");
    let secret = secret_of(&install.app).replace('_', "%5F");
    let answer = process
        .post(&[basic_of(&id, &secret)], &form_for(&install, ""))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
}

#[tokio::test]
async fn the_metadata_says_what_is_on() {
    let (installation, process, _install) = setting().await;
    let metadata = process.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata.status, StatusCode::OK);
    assert!(
        metadata.headers[header::CACHE_CONTROL]
            .to_str()
            .unwrap()
            .contains("max-age")
    );
    assert_eq!(metadata.json["issuer"], installation.issuer.as_str());
    assert_eq!(
        metadata.json["token_endpoint"],
        format!("{ISSUER}/oauth/token")
    );
    for (name, expected) in [
        (
            "grant_types_supported",
            serde_json::json!(["authorization_code", "refresh_token", "client_credentials"]),
        ),
        ("response_types_supported", serde_json::json!(["code"])),
        ("response_modes_supported", serde_json::json!(["query"])),
        (
            "code_challenge_methods_supported",
            serde_json::json!(["S256"]),
        ),
        (
            "authorization_response_iss_parameter_supported",
            serde_json::json!(true),
        ),
    ] {
        assert_eq!(metadata.json[name], expected, "{name}");
    }
    // What is offered is there: an endpoint answers, if only to say what is missing.
    for name in [
        "authorization_endpoint",
        "token_endpoint",
        "introspection_endpoint",
        "revocation_endpoint",
    ] {
        let path = metadata.json[name].as_str().unwrap();
        let path = path.strip_prefix(ISSUER).unwrap();
        let answer = process.post_to(path, &[], "").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}");
    }
    let asking = &metadata.json["introspection_endpoint_auth_methods_supported"];
    assert!(!asking.as_array().unwrap().contains(&"none".into()));
}

#[tokio::test]
async fn a_stranger_verifies_a_token_by_the_documents_alone() {
    let (installation, process, install) = setting().await;
    let metadata = process.get("/.well-known/oauth-authorization-server").await;
    let path = metadata.json["jwks_uri"]
        .as_str()
        .unwrap()
        .strip_prefix(ISSUER)
        .unwrap();
    let keys = process.get(path).await;
    assert_eq!(keys.status, StatusCode::OK);
    assert!(
        keys.headers[header::CACHE_CONTROL]
            .to_str()
            .unwrap()
            .contains("max-age")
    );
    assert!(
        !keys.json.to_string().contains("\"d\""),
        "no private member"
    );
    // A stranger who holds nothing but the documents verifies a token with them.
    let token = process.token(&install).await;
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys.json).unwrap();
    let jwk = set.find(&kid).unwrap();
    assert_eq!(
        jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256)
            .unwrap(),
        kid
    );
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[installation.issuer.resource(install.merchant)]);
    validation.set_issuer(&[ISSUER]);
    let key = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
    let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &key, &validation)
        .unwrap()
        .claims;
    for claim in [
        "iss",
        "exp",
        "aud",
        "sub",
        "client_id",
        "iat",
        "jti",
        "scope",
        "grant",
        "epoch",
        "personal_data",
    ] {
        assert!(
            claims.get(claim).is_some(),
            "{claim} (RFC 9068, section 2.2)"
        );
    }
    assert!(
        claims.get("locations").is_none(),
        "only where they are limited"
    );
}

#[tokio::test]
async fn the_metadata_says_how_clients_prove_themselves() {
    let (_installation, process, _install) = setting().await;
    let metadata = process.get("/.well-known/oauth-authorization-server").await;
    // Each of them is asked for in clients.rs and assertions.rs.
    assert_eq!(
        metadata.json["token_endpoint_auth_methods_supported"],
        serde_json::json!([
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none"
        ])
    );
    assert_eq!(
        metadata.json["token_endpoint_auth_signing_alg_values_supported"],
        serde_json::json!(["ES256", "EdDSA", "PS256", "RS256"])
    );
}

#[tokio::test]
async fn only_a_hash_of_the_secret_is_kept() {
    let (installation, _process, install) = setting().await;
    let secret = secret_of(&install.app);
    let hashed =
        format!("select count(*) from apps where secret_sha256 = sha256('{secret}'::bytea)");
    assert_eq!(installation.database.count(&hashed).await.unwrap(), 1);
    let credentials = Credentials::Secret {
        client_id: install.app.app.id.to_string(),
        secret: install.app.client_secret.clone().unwrap(),
    };
    for text in [format!("{:?}", install.app), format!("{credentials:?}")] {
        assert!(text.contains("***") && !text.contains(secret), "{text}");
    }
}

#[test]
fn the_description_has_every_endpoint_with_its_errors_and_an_example() {
    let document = serde_json::to_value(auth::http::routes().get_openapi()).unwrap();
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/.well-known/jwks.json",
            "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-protected-resource",
            "/.well-known/oauth-protected-resource/merchants/{merchantId}",
            "/oauth/authorize",
            "/oauth/introspect",
            "/oauth/revoke",
            "/oauth/token"
        ]
    );
    let token = &document["paths"]["/oauth/token"]["post"];
    let statuses: Vec<_> = token["responses"].as_object().unwrap().keys().collect();
    assert_eq!(statuses, ["200", "400", "401", "429", "500", "503"]);
    assert_eq!(
        token["security"],
        serde_json::json!([{ auth::http::CLIENT_SECRET_BASIC: [] }, {}])
    );
    for schema in [
        "TokenForm",
        "TokenAnswer",
        "TokenError",
        "Metadata",
        "JwkSet",
        "AuthorizationForm",
        "OneTokenForm",
        "Introspection",
        "ProtectedResource",
    ] {
        let described = &document["components"]["schemas"][schema];
        assert!(
            described["example"].is_object() || described["examples"].is_array(),
            "{schema}: {described}"
        );
    }
}
