//! Verification: what is taken, and every way of forging that is not.

use std::time::Duration;

use auth::{Error, TokenFault, token::Claims};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use kernel::{id::RequestId, problem::Problem};
use serde_json::{Value, json};

use crate::fixture::{Installation, Process, terms};

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

pub(crate) fn claims_of(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

async fn fault(process: &Process, token: &str) -> TokenFault {
    match process.verify(token).await {
        Err(Error::Token(fault)) => fault,
        other => panic!("{other:?} for {token}"),
    }
}

pub(crate) fn signed_by(pair: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
#[allow(clippy::too_many_lines, reason = "one list of forgeries")]
async fn no_forged_token_is_taken() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    process.verify(&token).await.unwrap();
    let claims = claims_of(&token);
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    let kid = header.kid.unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let genuine = json!({"typ": "at+jwt", "alg": "ES256", "kid": kid});

    let mut forged: Vec<(&str, String)> = Vec::new();
    // No algorithm at all (RFC 8725, section 2.1).
    for alg in ["none", "None", "NONE"] {
        let header = part(&json!({"typ": "at+jwt", "alg": alg, "kid": kid}));
        forged.push(("none", format!("{header}.{}.", parts[1])));
        forged.push((
            "none with a signature",
            format!("{header}.{}.{}", parts[1], parts[2]),
        ));
    }
    // HMAC under the public key, in each form in which somebody might hand it over.
    let document: Value = serde_json::from_str(&process.keys.document()).unwrap();
    let jwk = &document["keys"][0];
    let coordinate = |name: &str| {
        BASE64_URL_SAFE_NO_PAD
            .decode(jwk[name].as_str().unwrap())
            .unwrap()
    };
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    for secret in [
        point,
        jwk.to_string().into_bytes(),
        process.keys.document().into_bytes(),
        kid.clone().into_bytes(),
    ] {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(kid.clone());
        let key = jsonwebtoken::EncodingKey::from_secret(&secret);
        forged.push((
            "HS256",
            jsonwebtoken::encode(&header, &claims, &key).unwrap(),
        ));
    }
    // Another's key: under our name, under its own, without a name, and sent along.
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (
        BASE64_URL_SAFE_NO_PAD.encode(&point[1..33]),
        BASE64_URL_SAFE_NO_PAD.encode(&point[33..]),
    );
    let theirs = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
    forged.push(("our kid", signed_by(&pair, &genuine, &claims)));
    forged.push((
        "their kid",
        signed_by(
            &pair,
            &json!({"typ": "at+jwt", "alg": "ES256", "kid": "theirs"}),
            &claims,
        ),
    ));
    forged.push((
        "no kid",
        signed_by(&pair, &json!({"typ": "at+jwt", "alg": "ES256"}), &claims),
    ));
    let mut along = genuine.clone();
    along["jwk"] = theirs;
    forged.push(("a key sent along", signed_by(&pair, &along, &claims)));
    along = genuine.clone();
    along["jku"] = "https://theirs.example/keys".into();
    forged.push(("a key's address", signed_by(&pair, &along, &claims)));
    // Our key, but not what it signed.
    let mut more = claims.clone();
    more["scope"] = "orders:read orders:write".into();
    forged.push((
        "other claims",
        format!("{}.{}.{}", parts[0], part(&more), parts[2]),
    ));
    forged.push((
        "another header",
        format!("{}.{}.{}", part(&along), parts[1], parts[2]),
    ));
    forged.push(("no signature", format!("{}.{}.", parts[0], parts[1])));
    forged.push((
        "zeros",
        format!(
            "{}.{}.{}",
            parts[0],
            parts[1],
            BASE64_URL_SAFE_NO_PAD.encode([0; 64])
        ),
    ));
    // Our signature on something that is not an access token.
    for typ in ["JWT", "", "id_token+jwt", "logout+jwt"] {
        forged.push(("another type", process.keys.sign(typ, &claims).unwrap()));
    }
    // Our signature on what is for somebody else, or by somebody else.
    for (name, value) in [
        (
            "aud",
            json!("https://other.example/merchants/mer_01jd3x5k8vfm7b2c9q0r4t6w8y"),
        ),
        ("aud", json!("https://stoa.example")),
        (
            "aud",
            json!([
                installation.issuer.resource(install.merchant),
                "https://other.example"
            ]),
        ),
        ("aud", json!(null)),
        ("iss", json!("https://other.example")),
        ("exp", json!(claims["exp"].as_i64().unwrap() + 1)),
        ("exp", json!("tomorrow")),
        ("exp", json!(null)),
        ("grant", json!("app_01jd3x5k8vfm7b2c9q0r4t6w8y")),
    ] {
        let mut changed = claims.clone();
        changed[name] = value;
        forged.push((name, process.keys.sign("at+jwt", &changed).unwrap()));
    }
    forged.extend(
        ["", ".", "..", "...", "a.b.c", "\u{0}", "é.é.é"].map(|text| ("no token", text.to_owned())),
    );
    forged.push(("too long", format!("{token}{}", "A".repeat(10_000))));
    forged.push(("one part more", format!("{token}.{}", parts[2])));
    for (case, token) in &forged {
        assert_eq!(
            fault(&process, token).await,
            TokenFault::Invalid,
            "{case}: {token}"
        );
    }
    process.verify(&token).await.unwrap();
}

#[tokio::test]
async fn a_critical_extension_is_refused() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    // Made with the installation's own key, so that nothing but the header can be what is refused.
    let sealed = sealed_private_key(&installation).await;
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let private = installation
        .keyring
        .master()
        .open(&format!("signing_key:{kid}"), &sealed)
        .unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private).unwrap();
    let plain = json!({"typ": "at+jwt", "alg": "ES256", "kid": kid});
    process
        .verify(&signed_by(&pair, &plain, &claims_of(&token)))
        .await
        .unwrap();
    let full = json!({"typ": "application/at+JWT", "alg": "ES256", "kid": kid});
    process
        .verify(&signed_by(&pair, &full, &claims_of(&token)))
        .await
        .unwrap();
    let critical =
        json!({"typ": "at+jwt", "alg": "ES256", "kid": kid, "crit": ["b64"], "b64": true});
    assert_eq!(
        fault(&process, &signed_by(&pair, &critical, &claims_of(&token))).await,
        TokenFault::Invalid
    );
}

async fn sealed_private_key(installation: &Installation) -> Vec<u8> {
    use sqlx::{Executor, Row};
    let mut owner = installation.database.owner().await.unwrap();
    owner
        .fetch_one("select sealed_private_key from signing_keys")
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn a_token_is_taken_within_its_time_only() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    let mut claims: Claims = serde_json::from_value(claims_of(&token)).unwrap();
    process.verify(&token).await.unwrap();
    installation.clock.advance(Duration::from_secs(599));
    // Remembered or not, the time counts.
    process.verify(&token).await.unwrap();
    installation.clock.advance(Duration::from_secs(1));
    assert_eq!(fault(&process, &token).await, TokenFault::Expired);
    let other = installation.process().await;
    assert_eq!(fault(&other, &token).await, TokenFault::Expired);
    // Clocks differ by a little, not by much.
    let now = installation.clock.now().unix_seconds();
    for (ahead_seconds, expected) in [(0, None), (5, None), (6, Some(TokenFault::NotYet))] {
        (claims.iat, claims.exp, claims.nbf) =
            (now + ahead_seconds, now + ahead_seconds + 600, None);
        let issued = process.keys.sign("at+jwt", &claims).unwrap();
        (claims.iat, claims.exp, claims.nbf) = (now, now + 600, Some(now + ahead_seconds));
        let begins = process.keys.sign("at+jwt", &claims).unwrap();
        for token in [issued, begins] {
            match expected {
                None => drop(process.verify(&token).await.unwrap()),
                Some(expected) => assert_eq!(fault(&process, &token).await, expected),
            }
        }
    }
}

#[tokio::test]
async fn a_remembered_token_is_dropped_with_its_key() {
    use sqlx::Executor;
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    process.verify(&token).await.unwrap();
    // The key is retired, and another one takes its place.
    let mut owner = installation.database.owner().await.unwrap();
    owner
        .execute("update signing_keys set retired_at = now()")
        .await
        .unwrap();
    let second = installation.process().await;
    process.keys.reload().await.unwrap();
    assert_eq!(
        fault(&process, &token).await,
        TokenFault::Invalid,
        "what was remembered under a retired key"
    );
    let fresh = second.token(&install).await;
    process.verify(&fresh).await.unwrap();
}

#[tokio::test]
async fn refusals_become_problems_without_their_cause() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let problem = Problem::from(process.verify("a.b.c").await.unwrap_err());
    assert_eq!(
        (problem.kind.slug, problem.kind.status),
        ("invalid_token", 401)
    );
    let install = installation.install(terms("orders:read")).await;
    let token = process.token(&install).await;
    process.database.close().await;
    let problem = Problem::from(
        process
            .bearer
            .verify(&token, RequestId::new(installation.clock.now()))
            .await
            .unwrap_err(),
    );
    assert_eq!(
        (problem.kind.slug, problem.kind.status),
        ("unavailable", 503)
    );
    assert!(problem.retry_after.is_some());
}
