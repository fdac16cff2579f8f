//! How clients prove who they are, and what happens to those who can't: the same path for all, a limit, and a trace for the developer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use auth::client::{
    self, Credentials, Proof,
    app::{self, AppInput, ClientKind, NewApp},
    app_secret::Overlap,
    secret::Secret,
};
use axum::http::{StatusCode, header};
use kernel::{
    audit::Outcome,
    caller::Caller,
    id::{AppId, RequestId},
};
use sqlx::{AssertSqlSafe, Executor};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::fixture::{Answer, ISSUER, Installation, Process, basic, basic_of, secret_of, terms};

async fn public_app(installation: &Installation) -> NewApp {
    let mut tx = installation.database.api().begin().await.unwrap();
    let input = AppInput {
        kind: ClientKind::Public,
        redirect_uris: vec!["http://127.0.0.1/callback".to_owned()],
        ..AppInput::named("Desk tool")
    };
    let app = app::create(&mut tx, input, installation.clock.now())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    app
}

fn secret(client_id: &str, secret: &str) -> Credentials {
    Credentials::Secret {
        client_id: client_id.to_owned(),
        secret: Secret::new(secret.to_owned()),
    }
}

fn nothing(client_id: &str) -> Credentials {
    Credentials::None {
        client_id: client_id.to_owned(),
    }
}

async fn proof_of(installation: &Installation, credentials: &Credentials) -> Option<Proof> {
    let mut tx = installation.database.api().begin().await.unwrap();
    let now = installation.clock.now();
    let client = client::authenticate(&mut tx, &installation.issuer, credentials, now);
    client.await.unwrap().map(|client| client.proof)
}

#[tokio::test]
async fn a_client_proves_itself_as_its_kind_does() {
    let installation = Installation::new().await;
    let (confidential, public) = (installation.app().await, public_app(&installation).await);
    assert!(public.client_secret.is_none());
    let id = confidential.app.id.to_string();
    let public_id = public.app.id.to_string();
    let text = secret_of(&confidential);
    let command_line = AppId::from_uuid(uuid::uuid!("00000000-0000-7000-8000-0000000000c1"));
    for (credentials, expected) in [
        (secret(&id, text), Some(Proof::Secret)),
        (nothing(&public_id), Some(Proof::None)),
        (nothing(&command_line.to_string()), Some(Proof::None)),
        // A confidential client does not get through as a public one, nor a public one as a confidential one.
        (nothing(&id), None),
        (secret(&public_id, ""), None),
        (secret(&public_id, text), None),
        (secret(&id, ""), None),
        (secret(&id, &text[..text.len() - 1]), None),
        (secret(&id, &format!("{text}a")), None),
        (secret(&id, &text.to_uppercase()), None),
        (secret(&id.to_uppercase(), text), None),
        (nothing(""), None),
        (nothing("app_00000000000000000000000000"), None),
    ] {
        assert_eq!(
            proof_of(&installation, &credentials).await,
            expected,
            "{credentials:?}"
        );
    }
}

#[tokio::test]
async fn a_public_client_gets_no_token_of_its_own() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let (app, merchant) = (
        public_app(&installation).await,
        installation.merchant().await,
    );
    installation
        .consent(merchant, app.app.id, terms("orders:read"))
        .await
        .unwrap();
    let form = format!(
        "grant_type=client_credentials&resource={ISSUER}/merchants/{merchant}&client_id={}",
        app.app.id
    );
    let answer = process.post(&[], &form).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json["error"], "unauthorized_client");
}

/// The statements that sqlx runs on this thread, as it tells them.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl Subscriber for Statements {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut summary = Summary(String::new());
        event.record(&mut summary);
        // The pool looks after the connections that come back to it whenever it likes.
        if !summary.0.contains("statement_timestamp") {
            self.0.lock().unwrap().push(summary.0);
        }
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Summary(String);

impl Visit for Summary {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if matches!(field.name(), "summary" | "db.statement") {
            self.0 = format!("{}{value:?}", self.0);
        }
    }
}

#[tokio::test]
async fn all_refusals_run_the_same_statements() {
    let installation = Installation::new().await;
    let app = installation.app().await;
    let id = app.app.id.to_string();
    let text = secret_of(&app).to_owned();
    let unknown = "app_01jd3x5k8vfm7b2c9q0r4t6w8y";
    let statements = Statements::default();
    let listening = tracing::subscriber::set_default(statements.clone());
    let mut ran = Vec::new();
    for credentials in [
        secret(&id, "stoa_secret_wrong"),
        secret(unknown, &text),
        secret("somebody", ""),
        secret("", ""),
        nothing(&id),
        nothing(unknown),
        secret(&id, &text),
    ] {
        let mut tx = installation.database.api().begin().await.unwrap();
        statements.0.lock().unwrap().clear();
        let now = installation.clock.now();
        client::authenticate(&mut tx, &installation.issuer, &credentials, now)
            .await
            .unwrap();
        ran.push(statements.0.lock().unwrap().clone());
    }
    drop(listening);
    assert_eq!(ran[0].len(), 1, "{ran:#?}");
    assert!(ran.iter().all(|each| *each == ran[0]), "{ran:#?}");
}

#[tokio::test]
async fn secrets_overlap_for_as_long_as_was_said() {
    let installation = Installation::new().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = Caller::local(RequestId::new(installation.clock.now()));
    let mut session = session;
    let app = developers
        .create_app(&caller, &session, AppInput::named("Parcel Desk"))
        .await
        .unwrap();
    let (id, first) = (app.app.id, secret_of(&app).to_owned());
    let is_good = async |text: &str| {
        let credentials = secret(&id.to_string(), text);
        proof_of(&installation, &credentials).await.is_some()
    };
    let (_, second) = developers
        .rotate_secret(&caller, &session, id, Overlap::Week)
        .await
        .unwrap();
    let second = second.expose().to_owned();
    assert!(is_good(&first).await && is_good(&second).await);
    installation.clock.advance(Duration::from_hours(24));
    session.authenticated_at = installation.clock.now();
    let (_, third) = developers
        .rotate_secret(&caller, &session, id, Overlap::Day)
        .await
        .unwrap();
    let third = third.expose().to_owned();
    let almost_a_day = Duration::from_hours(24) - Duration::from_micros(1);
    installation.clock.advance(almost_a_day);
    assert!(is_good(&first).await && is_good(&second).await && is_good(&third).await);
    // The first would have had a week from its own rotation: a later one shortens what is left, and does not lengthen it.
    installation.clock.advance(Duration::from_micros(1));
    assert!(!is_good(&first).await && !is_good(&second).await && is_good(&third).await);
    session.authenticated_at = installation.clock.now();
    let (fourth, text) = developers
        .rotate_secret(&caller, &session, id, Overlap::Now)
        .await
        .unwrap();
    assert!(!is_good(&third).await && is_good(text.expose()).await);
    let kept = developers.app(&session, id).await.unwrap().secrets;
    assert_eq!(kept, std::slice::from_ref(&fourth));
    assert!(text.expose().ends_with(&fourth.hint) && fourth.hint.len() == 4);
}

#[tokio::test]
async fn the_secret_that_older_binaries_know_is_never_one_that_has_ended() {
    let installation = Installation::new().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = Caller::local(RequestId::new(installation.clock.now()));
    let app = developers
        .create_app(&caller, &session, AppInput::named("Parcel Desk"))
        .await
        .unwrap();
    let (id, first) = (app.app.id, secret_of(&app).to_owned());
    let is_superseded = async |text: &str| {
        let count =
            format!("select count(*) from apps where secret_sha256 = sha256('{text}'::bytea)");
        installation.database.count(&count).await.unwrap() == 1
    };
    let is_good = async |text: &str| {
        let credentials = secret(&id.to_string(), text);
        proof_of(&installation, &credentials).await.is_some()
    };
    assert!(is_superseded(&first).await);
    let (kept, second) = developers
        .rotate_secret(&caller, &session, id, Overlap::Week)
        .await
        .unwrap();
    assert!(is_superseded(second.expose()).await);
    developers
        .revoke_secret(&caller, &session, id, kept.id)
        .await
        .unwrap();
    assert!(!is_superseded(second.expose()).await && !is_superseded(&first).await);
    assert!(is_good(&first).await && !is_good(second.expose()).await);
    // An app that an older binary makes now has its secret there alone.
    let mut owner = installation.database.owner().await.unwrap();
    let clear = format!("delete from app_secrets where app_id = '{}'", id.uuid());
    owner.execute(AssertSqlSafe(clear)).await.unwrap();
    assert!(!is_good(&first).await && !is_good(second.expose()).await);
    let older = format!(
        "update apps set secret_sha256 = sha256('older'::bytea) where id = '{}'",
        id.uuid()
    );
    owner.execute(AssertSqlSafe(older)).await.unwrap();
    assert!(is_good("older").await);
    let shown = developers.app(&session, id).await.unwrap().secrets;
    assert_eq!(shown.len(), 1);
    // It ends like any other.
    developers
        .rotate_secret(&caller, &session, id, Overlap::Day)
        .await
        .unwrap();
    assert!(is_good("older").await);
    installation.clock.advance(Duration::from_hours(24));
    assert!(!is_good("older").await);
}

fn form(merchant: impl std::fmt::Display) -> String {
    format!("grant_type=client_credentials&resource={ISSUER}/merchants/{merchant}")
}

fn assert_throttled(answer: &Answer, seconds: &str) {
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.json["error"], "temporarily_unavailable");
    assert_eq!(answer.headers[header::RETRY_AFTER], seconds);
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
}

async fn guess(process: &Process, caller: &Caller, id: &str) -> Answer {
    let wrong = basic_of(id, "stoa_secret_wrong");
    process.post_as(caller, &[wrong], &form("x")).await
}

#[tokio::test]
async fn whoever_guesses_waits_and_nobody_else_does() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    let id = install.app.app.id.to_string();
    let (here, there) = (
        installation.caller_from("192.0.2.7"),
        installation.caller_from("2001:db8::7"),
    );
    // What is right is not counted, and neither is what is refused for another reason.
    for _ in 0..20 {
        let right = [basic(&install.app)];
        let answer = process
            .post_as(&here, &right, &form(install.merchant))
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        let answer = process.post_as(&here, &right, &form("x")).await;
        assert_eq!(answer.json["error"], "invalid_target");
    }
    for _ in 0..10 {
        let answer = guess(&process, &here, &id).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let right = [basic(&install.app)];
    assert_throttled(&guess(&process, &here, &id).await, "6");
    let answer = process
        .post_as(&here, &right, &form(install.merchant))
        .await;
    assert_throttled(&answer, "6");
    let answer = process
        .post_as(&there, &right, &form(install.merchant))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "from elsewhere");
    let answer = guess(&process, &here, "somebody").await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "another client");
    installation.clock.advance(Duration::from_millis(4_500));
    assert_throttled(&guess(&process, &here, &id).await, "2");
    installation.clock.advance(Duration::from_millis(1_500));
    let answer = process
        .post_as(&here, &right, &form(install.merchant))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn who_waits_asks_no_database() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let caller = installation.caller_from("192.0.2.7");
    for place in 0..60 {
        guess(&process, &caller, &format!("somebody {place}")).await;
    }
    process.errors.settled().await;
    process.database.close().await;
    assert_throttled(&guess(&process, &caller, "anybody").await, "1");
    let elsewhere = installation.caller_from("192.0.2.8");
    let answer = guess(&process, &elsewhere, "anybody").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn no_endpoint_that_takes_a_secret_is_a_place_to_try_without_limit() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let app = installation.app().await;
    let wrong = [basic_of(&app.app.id.to_string(), "stoa_secret_wrong")];
    let here = installation.caller_from("192.0.2.7");
    let paths = ["/oauth/introspect", "/oauth/revoke"];
    for place in 0..10 {
        let answer = process
            .post_to_as(&here, paths[place % 2], &wrong, "token=x")
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    for path in paths {
        let answer = process.post_to_as(&here, path, &wrong, "token=x").await;
        assert_throttled(&answer, "6");
    }
    assert_throttled(&guess(&process, &here, &app.app.id.to_string()).await, "6");
}

#[tokio::test]
async fn wrong_codes_and_refresh_tokens_count_for_whoever_brings_them() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let (public, confidential) = (public_app(&installation).await, installation.app().await);
    let verifier = "a".repeat(43);
    let code = format!(
        "grant_type=authorization_code&code=stoa_code_x&redirect_uri=http://127.0.0.1/callback&code_verifier={verifier}"
    );
    let refresh = "grant_type=refresh_token&refresh_token=stoa_refresh_x";
    let named = format!("&client_id={}", public.app.id);
    let here = installation.caller_from("192.0.2.7");
    for (headers, name) in [(vec![], named.as_str()), (vec![basic(&confidential)], "")] {
        let forms = [format!("{code}{name}"), format!("{refresh}{name}")];
        for place in 0..10 {
            let answer = process.post_as(&here, &headers, &forms[place % 2]).await;
            assert_eq!(answer.json["error"], "invalid_grant", "{place}");
        }
        for form in &forms {
            assert_throttled(&process.post_as(&here, &headers, form).await, "6");
        }
    }
}

#[tokio::test]
async fn refusals_are_there_for_the_developer_and_the_newest_hundred_stay() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = installation.caller_from("2001:db8:1:2::7");
    let app = developers
        .create_app(&caller, &session, AppInput::named("Parcel Desk"))
        .await
        .unwrap();
    let id = app.app.id;
    guess(&process, &caller, &id.to_string()).await;
    process.errors.settled().await;
    let errors = developers.app(&session, id).await.unwrap().errors;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].error, "invalid_client");
    assert_eq!(errors[0].grant_type.as_deref(), Some("client_credentials"));
    assert_eq!(errors[0].address.as_deref(), Some("2001:db8:1:2::/64"));
    assert_eq!(errors[0].request_id, Some(caller.request));
    assert!(!errors[0].description.contains("stoa_secret"));
    for _ in 0..105 {
        installation.clock.advance(Duration::from_millis(2));
        let answer = process
            .post_as(&caller, &[basic(&app)], &form("nowhere"))
            .await;
        assert_eq!(answer.json["error"], "invalid_target");
        process.errors.settled().await;
    }
    let errors = developers.app(&session, id).await.unwrap().errors;
    assert_eq!(errors.len(), 100);
    assert!(errors.iter().all(|error| error.error == "invalid_target"));
    // Names that are nobody's leave nothing.
    for id in ["somebody", "app_01jd3x5k8vfm7b2c9q0r4t6w8y"] {
        guess(&process, &caller, id).await;
    }
    process.errors.settled().await;
    let mut owner = installation.database.owner().await.unwrap();
    let row = owner.fetch_one("select count(*) from token_errors");
    assert_eq!(sqlx::Row::get::<i64, _>(&row.await.unwrap(), 0), 100);
    let log = crate::developers::log(&installation).await;
    let refused: Vec<_> = log
        .iter()
        .filter(|entry| entry.action == "client.refused")
        .collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].app_id, Some(id));
    assert_eq!(refused[0].outcome, Outcome::Refused);
}

#[tokio::test]
async fn the_command_line_is_answered_on_any_loopback_port() {
    let installation = Installation::new().await;
    let id = AppId::from_uuid(uuid::uuid!("00000000-0000-7000-8000-0000000000c1"));
    let mut tx = installation.database.api().begin().await.unwrap();
    let app = app::get(&mut tx, id).await.unwrap();
    assert!(app.allows_redirect_to("http://127.0.0.1:4711/callback"));
    assert!(app.allows_redirect_to("http://[::1]:4711/callback"));
    assert!(!app.allows_redirect_to("http://localhost:4711/callback"));
    assert!(!app.allows_redirect_to("https://evil.example/callback"));
}
