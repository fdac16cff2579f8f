//! `private_key_jwt` (RFC 7523) at the token endpoint: what is taken, what is not, and that each assertion is good once.

use std::time::Duration;

use auth::client::app_secret::Overlap;
use aws_lc_rs::{
    encoding::AsDer,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair},
};
use axum::http::StatusCode;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use kernel::{caller::Caller, id::RequestId};
use serde_json::{Value, json};

use crate::fixture::{Answer, ISSUER, Install, Installation, Process, basic, terms};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A key pair of a client's.
struct Pair {
    private: EncodingKey,
    algorithm: Algorithm,
}

impl Pair {
    fn p256() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        Self {
            private,
            algorithm: Algorithm::ES256,
        }
    }

    fn ed25519() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8v1(&aws_lc_rs::rand::SystemRandom::new());
        Self {
            private: EncodingKey::from_ed_der(pkcs8.unwrap().as_ref()),
            algorithm: Algorithm::EdDSA,
        }
    }

    fn rsa(algorithm: Algorithm) -> Self {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            BASE64_STANDARD.encode(der.as_ref())
        );
        Self {
            private: EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
            algorithm,
        }
    }

    /// The public half, under `kid`.
    fn jwk(&self, kid: &str) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private, self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk
    }

    fn header(&self, kid: &str) -> Header {
        let mut header = Header::new(self.algorithm);
        header.kid = Some(kid.to_owned());
        header
    }

    fn sign(&self, kid: &str, claims: &Value) -> String {
        jsonwebtoken::encode(&self.header(kid), claims, &self.private).unwrap()
    }
}

/// A JWT put together by hand, whatever it says.
fn by_hand(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
    format!("{}.{}.{signature}", part(header), part(claims))
}

struct Setting {
    installation: Installation,
    process: Process,
    install: Install,
    session: auth::account::Session,
}

impl Setting {
    /// An app of a developer's, installed at a merchant, with `keys`.
    async fn new(keys: &[Value]) -> Self {
        let installation = Installation::new().await;
        let process = installation.process().await;
        let session = installation.developer().await;
        let developers = installation.developers();
        let caller = Caller::local(RequestId::new(installation.clock.now()));
        let input = auth::client::app::AppInput::named("Parcel Desk");
        let app = developers
            .create_app(&caller, &session, input)
            .await
            .unwrap();
        for key in keys {
            developers
                .add_key(&caller, &session, app.app.id, &key.to_string())
                .await
                .unwrap();
        }
        let merchant = installation.merchant().await;
        let grant = installation
            .consent(merchant, app.app.id, terms("orders:read"))
            .await
            .unwrap();
        let install = Install {
            merchant,
            app,
            grant,
        };
        Self {
            installation,
            process,
            install,
            session,
        }
    }

    fn id(&self) -> String {
        self.install.app.app.id.to_string()
    }

    /// Sound claims with an id of their own.
    fn claims(&self) -> Value {
        let now = self.installation.clock.now().unix_seconds();
        json!({
            "iss": self.id(), "sub": self.id(), "aud": ISSUER,
            "iat": now, "exp": now + 60, "jti": uuid::Uuid::now_v7().to_string(),
        })
    }

    fn claims_with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }

    fn form(&self, assertion: &str, more: &str) -> String {
        format!(
            "grant_type=client_credentials&resource={ISSUER}/merchants/{}&client_assertion_type={JWT_BEARER}&client_assertion={assertion}{more}",
            self.install.merchant
        )
    }

    /// Each from an address of its own: what is looked at here is not the limiter.
    async fn post(&self, form: &str) -> Answer {
        let [a, b, c, d, ..] = rand::random::<[u8; 16]>();
        let caller = self.installation.caller_from(&format!("{a}.{b}.{c}.{d}"));
        self.process.post_as(&caller, &[], form).await
    }

    async fn ask(&self, assertion: &str) -> Answer {
        self.post(&self.form(assertion, "")).await
    }
}

fn assert_refused(answer: &Answer, case: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{case}");
    assert_eq!(answer.json["error"], "invalid_client", "{case}");
}

#[tokio::test]
async fn a_client_signs_by_every_algorithm_that_its_keys_are_for() {
    let pairs = [
        ("ec", Pair::p256()),
        ("ed", Pair::ed25519()),
        ("ps", Pair::rsa(Algorithm::PS256)),
        ("rs", Pair::rsa(Algorithm::RS256)),
    ];
    let keys: Vec<_> = pairs.iter().map(|(kid, pair)| pair.jwk(kid)).collect();
    let setting = Setting::new(&keys).await;
    for (kid, pair) in &pairs {
        let assertion = pair.sign(kid, &setting.claims());
        let answer = setting.ask(&assertion).await;
        assert_eq!(answer.status, StatusCode::OK, "{kid}: {}", answer.json);
        assert_refused(&setting.ask(&assertion).await, "used again");
    }
    // A key without a name would be any of four.
    let mut header = Header::new(Algorithm::ES256);
    let nameless = jsonwebtoken::encode(&header, &setting.claims(), &pairs[0].1.private).unwrap();
    assert_refused(&setting.ask(&nameless).await, "which key");
    // A key that is for PS256 does not do for RS256, though it could.
    header = Header::new(Algorithm::RS256);
    header.kid = Some("ps".to_owned());
    let other = jsonwebtoken::encode(&header, &setting.claims(), &pairs[2].1.private).unwrap();
    assert_refused(&setting.ask(&other).await, "another algorithm");
}

#[tokio::test]
async fn the_audience_is_us_and_nobody_else() {
    let pair = Pair::p256();
    let setting = Setting::new(&[pair.jwk("a")]).await;
    let token_endpoint = format!("{ISSUER}/oauth/token");
    for audience in [
        json!(ISSUER),
        json!(token_endpoint),
        json!([ISSUER]),
        json!([token_endpoint, ISSUER]),
    ] {
        let assertion = pair.sign("a", &setting.claims_with("aud", audience.clone()));
        assert_eq!(
            setting.ask(&assertion).await.status,
            StatusCode::OK,
            "{audience}"
        );
    }
    for audience in [
        json!("https://other.example"),
        json!(format!("{ISSUER}/")),
        json!(ISSUER.to_uppercase()),
        json!(format!("{token_endpoint}?a")),
        json!(format!("{ISSUER}/oauth/introspect")),
        json!([]),
        json!(""),
        json!([ISSUER, "https://other.example"]),
        json!({"aud": ISSUER}),
        json!(null),
        json!(7),
    ] {
        let assertion = pair.sign("a", &setting.claims_with("aud", audience.clone()));
        assert_refused(&setting.ask(&assertion).await, &audience.to_string());
    }
}

#[tokio::test]
async fn claims_that_are_missing_wrong_or_out_of_time_are_refused() {
    let pair = Pair::p256();
    let setting = Setting::new(&[pair.jwk("a")]).await;
    let now = setting.installation.clock.now().unix_seconds();
    let stranger = setting.installation.app().await.app.id.to_string();
    for (name, values) in [
        (
            "iss",
            vec![json!(stranger), json!(""), json!(ISSUER), json!(null)],
        ),
        (
            "sub",
            vec![json!(stranger), json!(""), json!("somebody"), json!(null)],
        ),
        (
            "exp",
            vec![
                json!(now),
                json!(now - 1),
                json!(now + 3_601),
                json!(i64::MAX),
                json!(i64::MIN),
                json!(1e300),
                json!("soon"),
                json!(null),
            ],
        ),
        (
            "iat",
            vec![
                json!(now + 31),
                json!(now - 3_601),
                json!(i64::MAX),
                json!(i64::MIN),
                json!("x"),
            ],
        ),
        ("nbf", vec![json!(now + 31), json!(i64::MAX), json!("x")]),
        (
            "jti",
            vec![json!(""), json!("a".repeat(256)), json!(7), json!(null)],
        ),
    ] {
        for value in values {
            let assertion = pair.sign("a", &setting.claims_with(name, value.clone()));
            assert_refused(&setting.ask(&assertion).await, &format!("{name} {value}"));
        }
        if !matches!(name, "iat" | "nbf") {
            let mut claims = setting.claims();
            claims.as_object_mut().unwrap().remove(name);
            let answer = setting.ask(&pair.sign("a", &claims)).await;
            assert_refused(&answer, &format!("no {name}"));
        }
    }
    let mut claims = setting.claims();
    claims.as_object_mut().unwrap().remove("iat");
    for claims in [
        claims,
        setting.claims_with("exp", json!(now + 3_600)),
        setting.claims_with("iat", json!(now + 29)),
        setting.claims_with("nbf", json!(now - 1)),
        setting.claims_with("jti", json!("a".repeat(255))),
    ] {
        let answer = setting.ask(&pair.sign("a", &claims)).await;
        assert_eq!(answer.status, StatusCode::OK, "{claims}: {}", answer.json);
    }
    // It ends in time.
    let assertion = pair.sign("a", &setting.claims());
    setting.installation.clock.advance(Duration::from_secs(61));
    assert_refused(&setting.ask(&assertion).await, "late");
}

#[tokio::test]
async fn no_forged_assertion_is_taken() {
    let (pair, other) = (Pair::p256(), Pair::p256());
    let rsa = Pair::rsa(Algorithm::RS256);
    let setting = Setting::new(&[pair.jwk("a"), rsa.jwk("r")]).await;
    let claims = setting.claims();
    let signed = pair.sign("a", &claims);
    let (signing_input, _) = signed.rsplit_once('.').unwrap();
    // A key of the forger's own, brought along in every way that a header knows.
    let mut brought = Vec::new();
    for change in [
        |header: &mut Header, jwk: Jwk| header.jwk = Some(jwk),
        |header: &mut Header, _| header.jku = Some("https://evil.example/jwks".to_owned()),
        |header: &mut Header, _| header.x5u = Some("https://evil.example/cert".to_owned()),
        |header: &mut Header, _| header.x5c = Some(vec!["AAAA".to_owned()]),
        |header: &mut Header, _| header.crit = Some(vec!["exp".to_owned()]),
        |header: &mut Header, _| header.crit = Some(vec![]),
        |header: &mut Header, _| header.extras.insert("b64", false),
        |header: &mut Header, _| header.typ = Some("at+jwt".to_owned()),
        |header: &mut Header, _| header.kid = Some("A".to_owned()),
        |header: &mut Header, _| header.kid = Some("../a".to_owned()),
        |header: &mut Header, _| header.kid = None,
    ] {
        for signer in [&pair, &other] {
            let mut header = signer.header("a");
            let jwk = serde_json::from_value(signer.jwk("a")).unwrap();
            change(&mut header, jwk);
            brought.push(jsonwebtoken::encode(&header, &claims, &signer.private).unwrap());
        }
    }
    // The public key as a shared secret: what HS256 would check with it.
    let mut shared = Header::new(Algorithm::HS256);
    shared.kid = Some("r".to_owned());
    let public = rsa.jwk("r");
    let modulus = BASE64_URL_SAFE_NO_PAD
        .decode(public["n"].as_str().unwrap())
        .unwrap();
    for secret in [public.to_string().into_bytes(), modulus] {
        let secret = EncodingKey::from_secret(&secret);
        brought.push(jsonwebtoken::encode(&shared, &claims, &secret).unwrap());
    }
    for alg in [
        "none", "None", "NONE", "", "HS256", "ES384", "RS256", "es256", "ES256K",
    ] {
        let header = json!({"alg": alg, "kid": "a", "typ": "JWT"});
        brought.push(by_hand(&header, &claims, b""));
        brought.push(by_hand(&header, &claims, &[0; 64]));
    }
    let header = json!({"alg": "ES256", "kid": "a"});
    // The signature of nothing: r and s of zero (RFC 9700 does not name it; others fell for it).
    brought.push(by_hand(&header, &claims, &[0; 64]));
    brought.push(other.sign("a", &claims));
    brought.push(rsa.sign("a", &claims));
    brought.push(pair.sign("r", &claims));
    let evil = BASE64_URL_SAFE_NO_PAD.encode(setting.claims_with("scope", json!("x")).to_string());
    let parts: Vec<_> = signed.split('.').collect();
    brought.push(format!("{}.{evil}.{}", parts[0], parts[2]));
    brought.push(format!("{signing_input}."));
    brought.push(signing_input.to_owned());
    brought.push(format!("{signed}."));
    brought.push(format!("{signed}.{}", parts[2]));
    brought.push(format!("{signed}="));
    brought.push("a.b.c".to_owned());
    brought.push("...".to_owned());
    brought.push("a".repeat(9_000));
    for assertion in &brought {
        assert_refused(&setting.ask(assertion).await, assertion);
    }
    // None of them has used up the honest one.
    assert_eq!(setting.ask(&signed).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_shows_one_thing_and_names_one_client() {
    let pair = Pair::p256();
    let setting = Setting::new(&[pair.jwk("a")]).await;
    let stranger = setting.installation.app().await;
    let sign = || pair.sign("a", &setting.claims());
    let matching = setting.form(&sign(), &format!("&client_id={}", setting.id()));
    assert_eq!(setting.post(&matching).await.status, StatusCode::OK);
    let other = setting.form(&sign(), &format!("&client_id={}", stranger.app.id));
    assert_refused(&setting.post(&other).await, "another client id");
    let type_alone = format!("grant_type=client_credentials&client_assertion_type={JWT_BEARER}");
    let assertion_alone = format!("grant_type=client_credentials&client_assertion={}", sign());
    for form in [
        setting.form(&sign(), "&client_secret=a"),
        setting.form(&sign(), &format!("&client_assertion={}", sign())),
        type_alone,
        assertion_alone,
    ] {
        let answer = setting.post(&form).await;
        assert_eq!(answer.json["error"], "invalid_request", "{form}");
    }
    let both = setting
        .process
        .post(&[basic(&setting.install.app)], &setting.form(&sign(), ""))
        .await;
    assert_eq!(both.json["error"], "invalid_request");
    let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    let form = setting.form(&sign(), "").replace(JWT_BEARER, saml);
    assert_refused(&setting.post(&form).await, "another type");
}

#[tokio::test]
async fn of_fifty_that_come_at_once_one_assertion_is_taken_once() {
    let pair = Pair::p256();
    let setting = Setting::new(&[pair.jwk("a")]).await;
    let other = setting.installation.process().await;
    let form = setting.form(&pair.sign("a", &setting.claims()), "");
    let caller = Caller::local(RequestId::new(setting.installation.clock.now()));
    let asked = (0..50).map(|place| {
        let process = if place % 2 == 0 {
            &setting.process
        } else {
            &other
        };
        process.post_as(&caller, &[], &form)
    });
    let answers = futures_util::future::join_all(asked).await;
    let taken = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::OK)
        .count();
    assert_eq!(taken, 1);
}

#[tokio::test]
async fn an_assertion_is_used_up_by_a_request_that_is_refused_and_forgotten_when_it_has_expired() {
    let pair = Pair::p256();
    let setting = Setting::new(&[pair.jwk("a")]).await;
    let assertion = pair.sign("a", &setting.claims());
    let refused = setting
        .post(&setting.form(&assertion, "&scope=payments:read"))
        .await;
    assert_eq!(refused.json["error"], "invalid_scope");
    assert_refused(&setting.ask(&assertion).await, "used up");
    let count = "select count(*) from client_assertions";
    let mut owner = setting.installation.database.owner().await.unwrap();
    for _ in 0..3 {
        let sound = pair.sign("a", &setting.claims());
        assert_eq!(setting.ask(&sound).await.status, StatusCode::OK);
    }
    setting.installation.clock.advance(Duration::from_mins(2));
    let sound = pair.sign("a", &setting.claims());
    assert_eq!(setting.ask(&sound).await.status, StatusCode::OK);
    let row = sqlx::Executor::fetch_one(&mut owner, sqlx::AssertSqlSafe(count))
        .await
        .unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), 1);
}

#[tokio::test]
async fn secrets_and_keys_are_good_side_by_side_until_one_is_taken_back() {
    let pair = Pair::p256();
    let setting = Setting::new(&[pair.jwk("a")]).await;
    let developers = setting.installation.developers();
    let caller = Caller::local(RequestId::new(setting.installation.clock.now()));
    let (session, id) = (&setting.session, setting.install.app.app.id);
    setting.process.token(&setting.install).await;
    let sign = || pair.sign("a", &setting.claims());
    assert_eq!(setting.ask(&sign()).await.status, StatusCode::OK);
    // It has moved to its key: no secret is left, and none comes back.
    let detail = developers.app(session, id).await.unwrap();
    let secret = detail.secrets[0].id;
    developers
        .revoke_secret(&caller, session, id, secret)
        .await
        .unwrap();
    let form = format!(
        "grant_type=client_credentials&resource={ISSUER}/merchants/{}",
        setting.install.merchant
    );
    let answer = setting
        .process
        .post(&[basic(&setting.install.app)], &form)
        .await;
    assert_refused(&answer, "a secret that was taken back");
    assert_eq!(setting.ask(&sign()).await.status, StatusCode::OK);
    // And back again.
    developers
        .rotate_secret(&caller, session, id, Overlap::Now)
        .await
        .unwrap();
    developers
        .remove_key(&caller, session, id, "a")
        .await
        .unwrap();
    assert_refused(&setting.ask(&sign()).await, "a key that was removed");
}
