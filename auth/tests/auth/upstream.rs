//! Sign-on by an upstream OpenID provider: one of the tests' own, that says what it is told to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use auth::{
    Error,
    account::{
        Accounts, CeremonyToken, Role, Session,
        invitation::Invited,
        person::By,
        session::Factor,
        upstream::{CALLBACK_PATH, Purpose, UpstreamConfig, UpstreamOutcome},
    },
};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use axum::{
    Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use kernel::{audit::Log, clock::Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{fixture::ISSUER, house::House, house::secret};

/// Makes a claim wrong.
type Spoil = fn(&mut Value);

/// Makes a token of claims.
type Sign<'a> = &'a dyn Fn(&Value) -> String;

/// A key of the provider.
struct Key {
    kid: String,
    pkcs8: Vec<u8>,
    jwk: Value,
}

impl Key {
    fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let point = pair.public_key().as_ref();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Self {
            kid: kid.to_owned(),
            jwk: json!({
                "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid,
                "x": encode(&point[1..33]), "y": encode(&point[33..]),
            }),
            pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec(),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        let key = EncodingKey::from_ec_der(&self.pkcs8);
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    }
}

/// What a code stands for.
struct Issued {
    challenge: String,
    id_token: String,
}

#[derive(Default)]
struct Desk {
    issuer: String,
    names_itself: bool,
    published: Vec<Value>,
    codes: HashMap<String, Issued>,
    key_reads: usize,
}

type Shared = Arc<Mutex<Desk>>;

struct Provider {
    desk: Shared,
    key: Key,
    issuer: String,
}

/// What comes back by the browser.
struct Callback {
    code: String,
    state: String,
}

async fn metadata(State(desk): State<Shared>) -> Json<Value> {
    let desk = desk.lock().unwrap();
    let issuer = &desk.issuer;
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "authorization_response_iss_parameter_supported": desk.names_itself,
    }))
}

async fn keys(State(desk): State<Shared>) -> Json<Value> {
    let mut desk = desk.lock().unwrap();
    desk.key_reads += 1;
    Json(json!({ "keys": desk.published }))
}

async fn token(
    State(desk): State<Shared>,
    headers: HeaderMap,
    Form(form): Form<HashMap<String, String>>,
) -> (StatusCode, Json<Value>) {
    let refused = (
        StatusCode::BAD_REQUEST,
        Json(json!({"error": "invalid_grant"})),
    );
    let basic = format!("Basic {}", BASE64_STANDARD.encode("stoa:upstream-secret"));
    let is_client = headers
        .get("authorization")
        .is_some_and(|shown| *shown == basic.as_str());
    let is_here = form["redirect_uri"] == format!("{ISSUER}{CALLBACK_PATH}");
    let Some(issued) = desk.lock().unwrap().codes.remove(&form["code"]) else {
        return refused;
    };
    let verifier = Sha256::digest(form["code_verifier"].as_bytes());
    if !is_client || !is_here || BASE64_URL_SAFE_NO_PAD.encode(verifier) != issued.challenge {
        return refused;
    }
    let answer = json!({
        "access_token": "for nothing",
        "token_type": "Bearer",
        "id_token": issued.id_token,
    });
    (StatusCode::OK, Json(answer))
}

impl Provider {
    async fn start() -> Self {
        let key = Key::new("first");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let desk = Arc::new(Mutex::new(Desk {
            issuer: issuer.clone(),
            published: vec![key.jwk.clone()],
            ..Desk::default()
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&desk));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { desk, key, issuer }
    }

    fn accounts(&self, house: &House) -> Accounts {
        House::accounts(&house.installation)
            .with_upstream(UpstreamConfig {
                issuer: self.issuer.clone(),
                client_id: "stoa".to_owned(),
                client_secret: Some(secret("upstream-secret")),
                name: "Warehouse ID".to_owned(),
            })
            .unwrap()
    }

    /// Somebody signs in at the provider, which says `claims` of them.
    fn visit(&self, url: &Url, claims: &Value, sign: impl FnOnce(&Value) -> String) -> Callback {
        let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert!(
            url.as_str()
                .starts_with(&format!("{}/authorize?", self.issuer))
        );
        assert_eq!(query["response_type"], "code");
        assert_eq!(query["client_id"], "stoa");
        assert_eq!(query["code_challenge_method"], "S256");
        assert_eq!(query["scope"], "openid profile email");
        let code = format!("code-{}", rand::random::<u64>());
        let issued = Issued {
            challenge: query["code_challenge"].clone(),
            id_token: sign(claims),
        };
        self.desk.lock().unwrap().codes.insert(code.clone(), issued);
        Callback {
            code,
            state: query["state"].clone(),
        }
    }

    fn claims(&self, url: &Url, subject: &str, now: Timestamp) -> Value {
        let query: HashMap<_, _> = url.query_pairs().into_owned().collect();
        json!({
            "iss": self.issuer,
            "sub": subject,
            "aud": "stoa",
            "exp": now.unix_seconds() + 300,
            "iat": now.unix_seconds(),
            "auth_time": now.unix_seconds(),
            "nonce": query["nonce"],
            "name": "Bea Holm",
            "preferred_username": "Bea.Holm",
            "email": "anna@shop.example",
        })
    }

    fn sign_in(&self, url: &Url, subject: &str, now: Timestamp) -> Callback {
        let claims = self.claims(url, subject, now);
        self.visit(url, &claims, |claims| self.key.sign(claims))
    }
}

async fn finish(
    house: &House,
    accounts: &Accounts,
    ceremony: &CeremonyToken,
    callback: &Callback,
) -> Result<UpstreamOutcome, Error> {
    accounts
        .finish_upstream(
            &house.caller(),
            ceremony,
            &callback.code,
            &callback.state,
            None,
        )
        .await
}

/// Links the provider's `subject` to whoever `session` is.
async fn link(
    house: &House,
    provider: &Provider,
    accounts: &Accounts,
    session: &Session,
    subject: &str,
) -> Result<UpstreamOutcome, Error> {
    let (ceremony, url) = accounts.begin_upstream(Purpose::Link(session)).await?;
    let callback = provider.sign_in(&url, subject, house.installation.clock.now());
    finish(house, accounts, &ceremony, &callback).await
}

#[tokio::test]
async fn somebody_who_is_linked_signs_in_and_nobody_else_however_they_are_called() {
    let house = House::new().await;
    let provider = Provider::start().await;
    let accounts = provider.accounts(&house);
    assert_eq!(accounts.upstream_name(), Some("Warehouse ID"));
    house.person("anna@shop.example").await;
    let anna = house.signed_in("anna@shop.example").await;
    let now = house.installation.clock.now();
    let try_sign_in = async |subject: &str| {
        let (ceremony, url) = accounts.begin_upstream(Purpose::SignIn).await.unwrap();
        let callback = provider.sign_in(&url, subject, now);
        finish(&house, &accounts, &ceremony, &callback).await
    };
    // The provider says that this is anna's address; it is no proof.
    assert!(matches!(
        try_sign_in("anna-there").await,
        Err(Error::NotAccepted)
    ));
    assert!(!accounts.has_upstream(&anna).await.unwrap());
    let linked = link(&house, &provider, &accounts, &anna, "anna-there")
        .await
        .unwrap();
    assert!(matches!(linked, UpstreamOutcome::Linked));
    assert!(accounts.has_upstream(&anna).await.unwrap());
    let UpstreamOutcome::SignedIn(new) = try_sign_in("anna-there").await.unwrap() else {
        panic!("not signed in");
    };
    let session = house.session(&new).await;
    assert_eq!(
        (session.person.id, session.factors),
        (anna.person.id, vec![Factor::Upstream])
    );
    assert!(matches!(
        try_sign_in("somebody").await,
        Err(Error::NotAccepted)
    ));
    house.person("bea").await;
    let bea = house.signed_in("bea").await;
    let taken = link(&house, &provider, &accounts, &bea, "anna-there").await;
    assert!(matches!(taken, Err(Error::Forbidden(_))));
    accounts
        .disable_person(&house.caller(), By::CommandLine, anna.person.id)
        .await
        .unwrap();
    assert!(matches!(
        try_sign_in("anna-there").await,
        Err(Error::NotAccepted)
    ));
    assert_eq!(
        house.told(Log::Installation, "session.refused").await.len(),
        3
    );
    assert_eq!(
        house.told(Log::Installation, "upstream.linked").await.len(),
        1
    );
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_not_believed() {
    let house = House::new().await;
    let provider = Provider::start().await;
    let accounts = provider.accounts(&house);
    house.person("anna").await;
    let anna = house.signed_in("anna").await;
    link(&house, &provider, &accounts, &anna, "anna-there")
        .await
        .unwrap();
    let now = house.installation.clock.now();
    let spoilt: [(&str, Spoil); 11] = [
        ("another nonce", |claims| claims["nonce"] = json!("another")),
        ("no nonce", |claims| claims["nonce"] = Value::Null),
        ("another audience", |claims| {
            claims["aud"] = json!("another");
        }),
        ("several audiences", |claims| {
            claims["aud"] = json!(["stoa", "another"]);
        }),
        ("another party", |claims| claims["azp"] = json!("another")),
        ("another issuer", |claims| {
            claims["iss"] = json!("https://evil.example");
        }),
        ("expired", |claims| {
            claims["exp"] = json!(claims["iat"].as_i64().unwrap() - 61);
        }),
        ("no end", |claims| {
            claims.as_object_mut().unwrap().remove("exp");
        }),
        ("from the future", |claims| {
            claims["iat"] = json!(claims["iat"].as_i64().unwrap() + 3600);
        }),
        ("nobody", |claims| claims["sub"] = json!("")),
        ("no audience", |claims| {
            claims.as_object_mut().unwrap().remove("aud");
        }),
    ];
    for (case, spoil) in spoilt {
        let (ceremony, url) = accounts.begin_upstream(Purpose::SignIn).await.unwrap();
        let mut claims = provider.claims(&url, "anna-there", now);
        spoil(&mut claims);
        let callback = provider.visit(&url, &claims, |claims| provider.key.sign(claims));
        let refused = finish(&house, &accounts, &ceremony, &callback).await;
        assert!(
            matches!(refused, Err(Error::NotAccepted)),
            "{case}: {refused:?}"
        );
    }

    assert_eq!(
        house.told(Log::Installation, "session.refused").await.len(),
        11
    );
}

#[tokio::test]
async fn an_answer_that_the_provider_has_not_signed_is_not_believed() {
    let house = House::new().await;
    let provider = Provider::start().await;
    let accounts = provider.accounts(&house);
    house.person("anna").await;
    let anna = house.signed_in("anna").await;
    link(&house, &provider, &accounts, &anna, "anna-there")
        .await
        .unwrap();
    let now = house.installation.clock.now();
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let shared = |claims: &Value| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("first".to_owned());
        // The public key as the shared secret.
        let key = EncodingKey::from_secret(provider.key.jwk["x"].as_str().unwrap().as_bytes());
        jsonwebtoken::encode(&header, claims, &key).unwrap()
    };
    let unsigned = |claims: &Value| {
        let header = encode(json!({"alg": "none", "kid": "first"}));
        format!("{header}.{}.", encode(claims.clone()))
    };
    let cut = |claims: &Value| {
        let token = provider.key.sign(claims);
        token[..token.len() - 4].to_owned() + "AAAA"
    };
    let signatures: [(&str, Sign<'_>); 5] = [
        ("another key under the same name", &|claims| {
            Key::new("first").sign(claims)
        }),
        ("a key that is not there", &|claims| {
            Key::new("second").sign(claims)
        }),
        ("a shared secret", &shared),
        ("no signature", &unsigned),
        ("another signature", &cut),
    ];
    for (case, sign) in signatures {
        let (ceremony, url) = accounts.begin_upstream(Purpose::SignIn).await.unwrap();
        let claims = provider.claims(&url, "anna-there", now);
        let callback = provider.visit(&url, &claims, sign);
        let refused = finish(&house, &accounts, &ceremony, &callback).await;
        assert!(
            matches!(refused, Err(Error::NotAccepted)),
            "{case}: {refused:?}"
        );
    }
    assert_eq!(
        house.told(Log::Installation, "session.refused").await.len(),
        5
    );
}

#[tokio::test]
async fn an_answer_belongs_to_the_browser_that_asked_and_is_taken_once() {
    let house = House::new().await;
    let provider = Provider::start().await;
    let accounts = provider.accounts(&house);
    house.person("anna").await;
    let anna = house.signed_in("anna").await;
    link(&house, &provider, &accounts, &anna, "anna-there")
        .await
        .unwrap();
    let now = house.installation.clock.now();
    let begin = async || accounts.begin_upstream(Purpose::SignIn).await.unwrap();

    // Somebody else's code and state, in this browser.
    let ((ours, _), (_, their_url)) = (begin().await, begin().await);
    let theirs = provider.sign_in(&their_url, "anna-there", now);
    let injected = finish(&house, &accounts, &ours, &theirs).await;
    assert!(matches!(injected, Err(Error::NotAccepted)));
    // Their code under our state: its verifier is another.
    let (ours, url) = begin().await;
    let own = provider.sign_in(&url, "anna-there", now);
    let (_, their_url) = begin().await;
    let theirs = provider.sign_in(&their_url, "anna-there", now);
    let mixed = Callback {
        code: theirs.code,
        state: own.state,
    };
    let injected = finish(&house, &accounts, &ours, &mixed).await;
    assert!(matches!(injected, Err(Error::NotAccepted)));
    // Our own code, under any state but ours: it is not even taken to the provider.
    for state in ["", "another"] {
        let (ours, url) = begin().await;
        let forged = Callback {
            state: state.to_owned(),
            ..provider.sign_in(&url, "anna-there", now)
        };
        let injected = finish(&house, &accounts, &ours, &forged).await;
        assert!(matches!(injected, Err(Error::NotAccepted)), "{state}");
    }

    let (ceremony, url) = begin().await;
    let callback = provider.sign_in(&url, "anna-there", now);
    finish(&house, &accounts, &ceremony, &callback)
        .await
        .unwrap();
    let again = finish(&house, &accounts, &ceremony, &callback).await;
    assert!(matches!(again, Err(Error::Gone(_))));
    let (ceremony, url) = begin().await;
    let callback = provider.sign_in(&url, "anna-there", now);
    house.installation.clock.advance(Duration::from_mins(15));
    let late = finish(&house, &accounts, &ceremony, &callback).await;
    assert!(matches!(late, Err(Error::Gone(_))));
}

#[tokio::test]
async fn an_answer_that_names_another_issuer_is_refused_before_its_code_goes_anywhere() {
    let house = House::new().await;
    let provider = Provider::start().await;
    provider.desk.lock().unwrap().names_itself = true;
    let accounts = provider.accounts(&house);
    house.person("anna").await;
    let anna = house.signed_in("anna").await;
    for (iss, accepted) in [
        (None, false),
        (Some("https://evil.example"), false),
        (Some(provider.issuer.as_str()), true),
    ] {
        let (ceremony, url) = accounts.begin_upstream(Purpose::Link(&anna)).await.unwrap();
        let callback = provider.sign_in(&url, "anna-there", house.installation.clock.now());
        let (caller, code, state) = (house.caller(), &callback.code, &callback.state);
        let finished = accounts
            .finish_upstream(&caller, &ceremony, code, state, iss)
            .await;
        assert_eq!(finished.is_ok(), accepted, "{iss:?}");
        let is_kept = provider.desk.lock().unwrap().codes.contains_key(code);
        assert_eq!(is_kept, !accepted, "{iss:?}");
    }
}

#[tokio::test]
async fn an_invitation_is_accepted_by_who_signs_in_elsewhere() {
    let house = House::new().await;
    let provider = Provider::start().await;
    let accounts = provider.accounts(&house);
    let now = house.installation.clock.now();
    let mut persons = Vec::new();
    for (subject, role) in [
        ("bea", Role::Viewer),
        ("bea", Role::Manager),
        ("other", Role::Viewer),
    ] {
        let merchant = house.installation.merchant().await;
        let invited = Invited::Staff { merchant, role };
        let caller = house.caller();
        let invite = accounts.invite(&caller, By::CommandLine, invited, None);
        let token = invite.await.unwrap().1;
        let purpose = Purpose::Accept(token.expose());
        let (ceremony, url) = accounts.begin_upstream(purpose).await.unwrap();
        let callback = provider.sign_in(&url, subject, now);
        let accepted = finish(&house, &accounts, &ceremony, &callback)
            .await
            .unwrap();
        let UpstreamOutcome::Accepted(new) = accepted else {
            panic!("{accepted:?}");
        };
        let session = house.session(&new).await;
        assert_eq!(session.role_at(merchant).unwrap(), role);
        assert!(!session.person.has_password);
        assert!(accounts.begin_upstream(purpose).await.is_err(), "used");
        persons.push(session.person);
    }
    assert_eq!(
        persons[0].id, persons[1].id,
        "the same person there is the same here"
    );
    assert_eq!(
        (persons[0].login.as_str(), persons[0].name.as_str()),
        ("bea.holm", "Bea Holm")
    );
    assert_ne!(persons[2].id, persons[0].id);
    assert_eq!(
        persons[2].login,
        persons[2].id.to_string(),
        "the login was taken"
    );
}

#[tokio::test]
async fn stepping_up_takes_a_sign_in_that_is_new_and_ones_own() {
    let house = House::new().await;
    let provider = Provider::start().await;
    let accounts = provider.accounts(&house);
    house.person("anna").await;
    let anna = house.signed_in("anna").await;
    link(&house, &provider, &accounts, &anna, "anna-there")
        .await
        .unwrap();
    house.installation.clock.advance(Duration::from_mins(20));
    let now = house.installation.clock.now();
    let step_up = async |subject: &str, signed_in_at: Option<Timestamp>| {
        let (ceremony, url) = accounts
            .begin_upstream(Purpose::StepUp(&anna))
            .await
            .unwrap();
        assert!(url.as_str().contains("prompt=login") && url.as_str().contains("max_age=0"));
        let mut claims = provider.claims(&url, subject, now);
        claims["auth_time"] = json!(signed_in_at.map(Timestamp::unix_seconds));
        let callback = provider.visit(&url, &claims, |claims| provider.key.sign(claims));
        finish(&house, &accounts, &ceremony, &callback).await
    };
    let long_ago = now.minus(Duration::from_mins(10));
    for refused in [
        step_up("anna-there", Some(long_ago)).await,
        step_up("anna-there", None).await,
        step_up("somebody", Some(now)).await,
    ] {
        assert!(matches!(refused, Err(Error::NotAccepted)), "{refused:?}");
    }
    assert_eq!(
        house.told(Log::Installation, "step_up.refused").await.len(),
        3
    );
    let UpstreamOutcome::SteppedUp(new) = step_up("anna-there", Some(now)).await.unwrap() else {
        panic!("not stepped up");
    };
    let session = house.session(&new).await;
    assert_eq!(session.id, anna.id);
    session.require_recent_proof(now).unwrap();
    let late = link(&house, &provider, &accounts, &anna, "another").await;
    assert!(
        matches!(late, Err(Error::StepUpRequired)),
        "the session as it was before"
    );
    accounts
        .unlink_upstream(&house.caller(), &session)
        .await
        .unwrap();
    assert!(!accounts.has_upstream(&session).await.unwrap());
}

#[tokio::test]
async fn keys_are_read_anew_when_they_are_rotated_but_not_at_everybodys_beck() {
    let house = House::new().await;
    let mut provider = Provider::start().await;
    let accounts = provider.accounts(&house);
    house.person("anna").await;
    let anna = house.signed_in("anna").await;
    link(&house, &provider, &accounts, &anna, "anna-there")
        .await
        .unwrap();
    let sign_in = async |provider: &Provider, key: &Key| {
        let (ceremony, url) = accounts.begin_upstream(Purpose::SignIn).await.unwrap();
        let claims = provider.claims(&url, "anna-there", house.installation.clock.now());
        let callback = provider.visit(&url, &claims, |claims| key.sign(claims));
        finish(&house, &accounts, &ceremony, &callback).await
    };
    for _ in 0..5 {
        assert!(sign_in(&provider, &Key::new("made up")).await.is_err());
    }
    assert_eq!(provider.desk.lock().unwrap().key_reads, 1);
    provider.key = Key::new("second");
    provider
        .desk
        .lock()
        .unwrap()
        .published
        .push(provider.key.jwk.clone());
    house.installation.clock.advance(Duration::from_secs(10));
    sign_in(&provider, &provider.key).await.unwrap();
    assert_eq!(provider.desk.lock().unwrap().key_reads, 2);
}

#[tokio::test]
async fn a_provider_that_is_away_or_calls_itself_otherwise_is_said_to_be_unavailable() {
    let house = House::new().await;
    let provider = Provider::start().await;
    provider.desk.lock().unwrap().issuer = "https://evil.example".to_owned();
    let accounts = provider.accounts(&house);
    let refused = accounts.begin_upstream(Purpose::SignIn).await;
    assert!(matches!(refused, Err(Error::Upstream(_))));
    let config = |issuer: &str| UpstreamConfig {
        issuer: issuer.to_owned(),
        client_id: "stoa".to_owned(),
        client_secret: None,
        name: "Warehouse ID".to_owned(),
    };
    let plain = House::accounts(&house.installation).with_upstream(config("http://id.example"));
    assert!(
        matches!(plain, Err(Error::Upstream(_))),
        "secrets go over https"
    );
    let none = house.accounts.begin_upstream(Purpose::SignIn).await;
    assert!(matches!(none, Err(Error::Forbidden(_))));
}
