//! Tokens in the wrong place, and keys that a token brings along (RFC 9700, sections 4.9 and 4.10; RFC 8725). The other forgeries are in tokens.rs beside this
//! directory, those of assertions in assertions.rs.

use auth::{Error, TokenFault, client::app::ClientKind};
use aws_lc_rs::{
    encoding::AsDer,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::http::StatusCode;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::{Scene, redemption_of};
use crate::{
    fixture::{ISSUER, basic, basic_of, secret_of, terms},
    flow::{CALLBACK, VERIFIER, assert_error, handle_of, tokens_of},
    tokens::{claims_of, signed_by},
};

#[tokio::test]
async fn a_token_says_nothing_of_the_key_that_checks_it() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let genuine = scene
        .installation
        .tokens(&scene.process, &scene.desk, "orders:read")
        .await
        .access;
    let claims = claims_of(&genuine);
    let ours = jsonwebtoken::decode_header(&genuine).unwrap().kid.unwrap();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let coordinate = |range: std::ops::Range<usize>| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
    let jwk = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": ours, "x": coordinate(1..33), "y": coordinate(33..65)});
    let mut forged = Vec::new();
    // Names that are looked up: as a path, in SQL, as an address, and such as are only meant to break something.
    for kid in [
        json!("../../../../../../dev/null"),
        json!("/proc/self/environ"),
        json!("' or '1'='1"),
        json!("x' union select 'a', 'b', 'c', now() --"),
        json!("'; drop table signing_keys; --"),
        json!("https://evil.example/jwks.json"),
        json!("\u{0}"),
        json!(format!("{ours}\u{0}")),
        json!(ours.to_uppercase()),
        json!(format!(" {ours}")),
        json!("k".repeat(5_000)),
        json!(""),
        json!(7),
        json!([ours]),
        json!({"kid": ours}),
        json!(null),
    ] {
        forged.push(json!({"typ": "at+jwt", "alg": "ES256", "kid": kid}));
    }
    // A key in the header, or where to find one.
    for (name, value) in [
        ("jwk", jwk.clone()),
        ("jku", json!("https://evil.example/jwks.json")),
        ("jku", json!("file:///tmp/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("zip", json!("DEF")),
    ] {
        for kid in [json!(ours), json!("theirs"), json!(null)] {
            let mut header = json!({"typ": "at+jwt", "alg": "ES256", "kid": kid});
            header[name] = value.clone();
            forged.push(header);
        }
    }
    let mut tokens: Vec<_> = forged
        .iter()
        .map(|header| signed_by(&pair, header, &claims))
        .collect();
    // Another family of algorithms, under the attacker's own key.
    let rsa = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64_STANDARD.encode(der.as_ref())
    );
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    for algorithm in [
        jsonwebtoken::Algorithm::RS256,
        jsonwebtoken::Algorithm::PS256,
    ] {
        let mut header = jsonwebtoken::Header::new(algorithm);
        (header.typ, header.kid) = (Some("at+jwt".to_owned()), Some(ours.clone()));
        tokens.push(jsonwebtoken::encode(&header, &claims, &key).unwrap());
    }
    for token in &tokens {
        let refused = scene.process.verify(token).await;
        assert!(
            matches!(refused, Err(Error::Token(TokenFault::Invalid))),
            "{refused:?}: {token}"
        );
        // Nobody is told more by asking, and nothing can be ended by it.
        let answer = scene.process.introspect(&scene.desk.app, token).await;
        assert_eq!(
            (answer.status, answer.json),
            (StatusCode::OK, json!({"active": false})),
            "{token}"
        );
    }
    assert!(scene.process.takes(&genuine).await);
}

#[tokio::test]
async fn one_kind_of_token_does_not_do_for_another() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let (desk, process) = (&scene.desk, &scene.process);
    let tokens = scene
        .installation
        .tokens(process, desk, "orders:read")
        .await;
    let code = scene.installation.code(process, desk, "orders:read").await;
    let handle = handle_of(&process.authorize(&desk.request("orders:read")).await);
    let secret = secret_of(&desk.app).to_owned();
    let claims = claims_of(&tokens.access);
    // What one of our own keys might sign for another purpose, however much it looks like an access token.
    let others: Vec<_> = [
        "JWT",
        "id_token",
        "logout+jwt",
        "dpop+jwt",
        "client-authentication+jwt",
        "AT",
        "at+jwt ",
    ]
    .iter()
    .map(|typ| process.keys.sign(typ, &claims).unwrap())
    .collect();
    let everything: Vec<&str> = [&tokens.access, &tokens.refresh, &code, &handle, &secret]
        .into_iter()
        .chain(&others)
        .map(String::as_str)
        .collect();
    for &token in &everything {
        if token != tokens.access {
            let refused = process.verify(token).await;
            assert!(
                matches!(refused, Err(Error::Token(TokenFault::Invalid))),
                "as an access token: {token}"
            );
        }
        if token != tokens.refresh {
            let form = format!(
                "grant_type=refresh_token&refresh_token={token}{}",
                desk.credentials()
            );
            assert_error(
                &scene.post("/oauth/token", &[], &form).await,
                "invalid_grant",
                token,
            );
        }
        if token != code {
            let form = redemption_of(desk, token);
            assert_error(
                &scene.post("/oauth/token", &[], &form).await,
                "invalid_grant",
                token,
            );
        }
        if token != secret {
            let form = format!(
                "grant_type=client_credentials&resource={ISSUER}/merchants/{}",
                desk.merchant
            );
            let shown = [basic_of(&desk.id(), token)];
            assert_error(
                &scene.post("/oauth/token", &shown, &form).await,
                "invalid_client",
                token,
            );
        }
        let form = format!(
            "grant_type=client_credentials&resource={ISSUER}/merchants/{}&client_assertion={token}\
             &client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            desk.merchant
        );
        assert_error(
            &scene.post("/oauth/token", &[], &form).await,
            "invalid_client",
            token,
        );
        let pending = scene.installation.authorizations().pending(token).await;
        assert_eq!(pending.is_ok(), token == handle, "as a request: {token}");
    }
    // None of that has used anything up.
    tokens_of(
        &scene
            .post("/oauth/token", &[], &redemption_of(desk, &code))
            .await,
    );
    assert!(process.takes(&tokens.access).await);
    tokens_of(&process.refresh(desk, &tokens.refresh).await);
}

#[tokio::test]
async fn a_token_is_for_the_merchant_whose_grant_it_stands_for() {
    let scene = Scene::new(ClientKind::Confidential).await;
    let (desk, process) = (&scene.desk, &scene.process);
    let token = scene
        .installation
        .tokens(process, desk, "orders:read")
        .await
        .access;
    process.view.reread().await.unwrap();
    assert_eq!(
        process.verify(&token).await.unwrap().merchant,
        desk.merchant
    );
    // The same app is installed at another merchant too: neither's token is the other's.
    let other = scene.installation.merchant().await;
    let grant = scene
        .installation
        .consent(other, desk.app.app.id, terms("orders:write"))
        .await
        .unwrap();
    let form = format!(
        "grant_type=client_credentials&resource={ISSUER}/merchants/{other}{}",
        desk.credentials()
    );
    let answer = scene.post("/oauth/token", &[], &form).await;
    let theirs = answer.json["access_token"].as_str().unwrap();
    process.view.reread().await.unwrap();
    assert_eq!(process.verify(theirs).await.unwrap().merchant, other);
    // Not even our own signature makes one merchant's grant stand for another.
    for (name, value) in [
        ("aud", json!(format!("{ISSUER}/merchants/{other}"))),
        ("grant", json!(grant.id)),
        (
            "aud",
            json!(format!("{ISSUER}/merchants/{}/../{other}", desk.merchant)),
        ),
        (
            "aud",
            json!(format!(
                "{ISSUER}/merchants/{}?merchant={other}",
                desk.merchant
            )),
        ),
        (
            "aud",
            json!(format!("https://evil.example/merchants/{}", desk.merchant)),
        ),
        (
            "aud",
            json!([
                format!("{ISSUER}/merchants/{}", desk.merchant),
                format!("{ISSUER}/merchants/{other}")
            ]),
        ),
    ] {
        let mut changed: Value = claims_of(&token);
        changed[name] = value;
        let mixed = process.keys.sign("at+jwt", &changed).unwrap();
        let refused = process.verify(&mixed).await;
        assert!(
            matches!(refused, Err(Error::Token(_))),
            "{name}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn an_app_can_not_pass_for_a_merchant() {
    // RFC 9700, section 4.15: what a client says of itself must not be taken for a resource owner.
    let scene = Scene::new(ClientKind::Confidential).await;
    let (desk, process) = (&scene.desk, &scene.process);
    let by_code = scene
        .installation
        .tokens(process, desk, "orders:read")
        .await
        .access;
    let form = format!(
        "grant_type=client_credentials&resource={ISSUER}/merchants/{}",
        desk.merchant
    );
    let answer = scene.post("/oauth/token", &[basic(&desk.app)], &form).await;
    let by_itself = answer.json["access_token"].as_str().unwrap();
    let (owner, client) = (claims_of(&by_code), claims_of(by_itself));
    assert_eq!(owner["sub"], json!(desk.merchant));
    assert_eq!(client["sub"], json!(desk.id()));
    assert_eq!(owner["client_id"], client["client_id"]);
    // An id has its kind in it, and nobody chooses their own.
    assert!(owner["sub"].as_str().unwrap().starts_with("mer_"));
    assert!(client["sub"].as_str().unwrap().starts_with("app_"));
    assert!(desk.id().parse::<kernel::id::MerchantId>().is_err());
    assert!(
        desk.merchant
            .to_string()
            .parse::<kernel::id::AppId>()
            .is_err()
    );
    let twin = kernel::id::AppId::from_uuid(desk.merchant.uuid());
    assert_ne!(twin.to_string(), desk.merchant.to_string());
    for (token, subject) in [
        (by_code.as_str(), &owner["sub"]),
        (by_itself, &client["sub"]),
    ] {
        let answer = process.introspect(&desk.app, token).await;
        assert_eq!(&answer.json["sub"], subject);
    }
    // A merchant's id names no client, and no resource is an app's.
    for id in [desk.merchant.to_string(), twin.to_string()] {
        let form = format!(
            "grant_type=authorization_code&code=a&redirect_uri={CALLBACK}&code_verifier={VERIFIER}&client_id={id}"
        );
        assert_error(
            &scene.post("/oauth/token", &[], &form).await,
            "invalid_client",
            &id,
        );
    }
    let form = format!(
        "grant_type=client_credentials&resource={ISSUER}/merchants/{}",
        desk.id()
    );
    assert_error(
        &scene.post("/oauth/token", &[basic(&desk.app)], &form).await,
        "invalid_target",
        "an app",
    );
}
