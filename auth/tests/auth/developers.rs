//! What developers do with their apps, and what nobody else does.

use std::time::Duration;

use auth::{
    Error,
    client::{
        app::{AppInput, ClientKind},
        app_secret::{AppSecretId, Overlap},
        secret::Secret,
    },
};
use kernel::{
    audit::{self, AuditEntry, Filter, Log},
    id::AppId,
    page::PageRequest,
    scope::Scope,
    version::Version,
};

use crate::fixture::{Installation, terms};

const JWK: &str = r#"{"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;

const KID: &str = "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s";

pub(crate) async fn log(installation: &Installation) -> Vec<AuditEntry> {
    let mut tx = installation.database.api().begin().await.unwrap();
    let page = PageRequest {
        limit: 250,
        after: None,
    };
    let page = audit::list(&mut tx, Log::Installation, &Filter::default(), &page)
        .await
        .unwrap();
    page.data
}

fn input() -> AppInput {
    AppInput {
        redirect_uris: vec!["https://desk.example/callback".to_owned()],
        ..AppInput::named("Parcel Desk")
    }
}

#[tokio::test]
async fn an_app_is_made_changed_and_equipped_and_each_step_is_in_the_log() {
    let installation = Installation::new().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = installation.caller_from("192.0.2.7");
    let made = developers
        .create_app(&caller, &session, input())
        .await
        .unwrap();
    let id = made.app.id;
    let apps = developers.apps(&session).await.unwrap();
    assert_eq!(apps, std::slice::from_ref(&made.app));
    let change = AppInput {
        scopes: Some("orders:write".parse().unwrap()),
        required_scopes: [Scope::OrdersRead].into_iter().collect(),
        homepage_url: Some("https://desk.example".to_owned()),
        ..input()
    };
    let changed = developers
        .change_app(&caller, &session, id, Version::FIRST, change.clone())
        .await
        .unwrap();
    assert_eq!(changed.version, Version::FIRST.next());
    let (secret, _) = developers
        .rotate_secret(&caller, &session, id, Overlap::Day)
        .await
        .unwrap();
    developers
        .revoke_secret(&caller, &session, id, secret.id)
        .await
        .unwrap();
    let key = developers
        .add_key(&caller, &session, id, JWK)
        .await
        .unwrap();
    assert_eq!((key.kid.as_str(), key.kty), (KID, "EC"));
    let detail = developers.app(&session, id).await.unwrap();
    assert_eq!(detail.app, changed);
    assert_eq!(detail.keys, [key]);
    assert_eq!(detail.secrets.len(), 1);
    assert!(detail.installs.is_empty() && detail.errors.is_empty());
    developers
        .remove_key(&caller, &session, id, KID)
        .await
        .unwrap();
    let entries = log(&installation).await;
    let mut actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    actions.sort_unstable();
    assert_eq!(
        actions,
        [
            "app.changed",
            "app.created",
            "app_key.added",
            "app_key.removed",
            "app_secret.created",
            "app_secret.revoked"
        ]
    );
    for entry in &entries {
        assert_eq!(entry.person_id, Some(session.person.id));
        assert_eq!(entry.app_id, Some(id));
        assert_eq!(entry.target_id, Some(id.to_string()));
        assert_eq!(entry.address.as_deref(), Some("192.0.2.7"));
        assert_eq!(entry.request_id, Some(caller.request));
        assert!(!entry.details.to_string().contains("stoa_secret"));
    }
    let entry = entries.iter().find(|entry| entry.action == "app.changed");
    let fields = entry.unwrap().details.as_object().unwrap().clone();
    assert_eq!(
        fields.keys().collect::<Vec<_>>(),
        ["homepageUrl", "requiredScopes", "scopes"]
    );
    // A change that changes nothing is none.
    let again = developers
        .change_app(&caller, &session, id, changed.version, change)
        .await
        .unwrap();
    assert_eq!(again, changed);
    assert_eq!(log(&installation).await.len(), entries.len());
}

#[tokio::test]
async fn to_anybody_else_an_app_is_not_there() {
    let installation = Installation::new().await;
    let (ada, eve) = (
        installation.developer().await,
        installation.developer().await,
    );
    let (developers, caller) = (
        installation.developers(),
        installation.caller_from("192.0.2.7"),
    );
    let made = developers.create_app(&caller, &ada, input()).await.unwrap();
    developers
        .add_key(&caller, &ada, made.app.id, JWK)
        .await
        .unwrap();
    let secret = developers.app(&ada, made.app.id).await.unwrap().secrets[0].id;
    let entries = log(&installation).await.len();
    let nobody = AppId::new(installation.clock.now());
    assert!(developers.apps(&eve).await.unwrap().is_empty());
    // An operator is nobody special here.
    let mut operator = installation.developer().await;
    operator.person.is_operator = true;
    for (session, id) in [
        (&eve, made.app.id),
        (&operator, made.app.id),
        (&ada, nobody),
    ] {
        let refused = [
            developers.app(session, id).await.err(),
            developers
                .change_app(&caller, session, id, Version::FIRST, AppInput::named("x"))
                .await
                .err(),
            developers
                .rotate_secret(&caller, session, id, Overlap::Now)
                .await
                .err(),
            developers
                .revoke_secret(&caller, session, id, secret)
                .await
                .err(),
            developers.add_key(&caller, session, id, JWK).await.err(),
            developers.remove_key(&caller, session, id, KID).await.err(),
        ];
        for (place, error) in refused.into_iter().enumerate() {
            assert!(
                matches!(error, Some(Error::NotFound { noun: "app", .. })),
                "{place}: {error:?}"
            );
        }
    }
    let detail = developers.app(&ada, made.app.id).await.unwrap();
    assert_eq!((detail.secrets.len(), detail.keys.len()), (1, 1));
    assert_eq!(detail.app, made.app);
    assert_eq!(log(&installation).await.len(), entries);
    // A secret or a key of another app is not there either.
    let other = developers.create_app(&caller, &ada, input()).await.unwrap();
    let taken = developers
        .revoke_secret(&caller, &ada, other.app.id, secret)
        .await;
    assert!(matches!(taken, Err(Error::NotFound { noun: "secret", .. })));
    let removed = developers
        .remove_key(&caller, &ada, other.app.id, KID)
        .await;
    assert!(matches!(removed, Err(Error::NotFound { noun: "key", .. })));
}

#[tokio::test]
async fn apps_are_made_by_developers_and_changed_by_a_fresh_proof() {
    let installation = Installation::new().await;
    let (mut session, developers) = (installation.developer().await, installation.developers());
    let caller = installation.caller_from("192.0.2.7");
    session.person.is_developer = false;
    let refused = developers.create_app(&caller, &session, input()).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));
    session.person.is_operator = true;
    let app = developers.create_app(&caller, &session, input()).await;
    let id = app.unwrap().app.id;
    installation.clock.advance(Duration::from_mins(11));
    session.person.is_developer = true;
    let secret = AppSecretId::new(installation.clock.now());
    let refused = [
        developers
            .create_app(&caller, &session, input())
            .await
            .err(),
        developers
            .change_app(&caller, &session, id, Version::FIRST, input())
            .await
            .err(),
        developers
            .rotate_secret(&caller, &session, id, Overlap::Now)
            .await
            .err(),
        developers
            .revoke_secret(&caller, &session, id, secret)
            .await
            .err(),
        developers.add_key(&caller, &session, id, JWK).await.err(),
        developers
            .remove_key(&caller, &session, id, KID)
            .await
            .err(),
    ];
    for (place, error) in refused.into_iter().enumerate() {
        assert!(
            matches!(error, Some(Error::StepUpRequired)),
            "{place}: {error:?}"
        );
    }
    // To look needs none.
    developers.app(&session, id).await.unwrap();
}

#[tokio::test]
async fn an_app_that_has_changed_meanwhile_is_seen_again_and_its_kind_stays() {
    let installation = Installation::new().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = installation.caller_from("192.0.2.7");
    let app = developers
        .create_app(&caller, &session, input())
        .await
        .unwrap()
        .app;
    let renamed = |name: &str| AppInput {
        name: name.to_owned(),
        ..input()
    };
    let change =
        |name: &str| developers.change_app(&caller, &session, app.id, app.version, renamed(name));
    let (first, second) = tokio::join!(change("Desk A"), change("Desk B"));
    let lost = [first, second]
        .into_iter()
        .filter(|changed| matches!(changed, Err(Error::Changed("app"))))
        .count();
    assert_eq!(lost, 1);
    let version = app.version.next();
    let public = AppInput {
        kind: ClientKind::Public,
        ..input()
    };
    let Err(Error::InvalidFields(faults)) = developers
        .change_app(&caller, &session, app.id, version, public)
        .await
    else {
        panic!("a confidential client has become a public one");
    };
    assert_eq!(faults[0].pointer.as_deref(), Some("/kind"));
}

#[tokio::test]
async fn apps_secrets_and_keys_have_their_number() {
    let installation = Installation::new().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = installation.caller_from("192.0.2.7");
    let id = developers
        .create_app(&caller, &session, input())
        .await
        .unwrap()
        .app
        .id;
    for _ in 0..4 {
        developers
            .rotate_secret(&caller, &session, id, Overlap::Week)
            .await
            .unwrap();
    }
    let sixth = developers
        .rotate_secret(&caller, &session, id, Overlap::Week)
        .await;
    assert!(matches!(sixth, Err(Error::Forbidden(_))));
    assert_eq!(developers.app(&session, id).await.unwrap().secrets.len(), 5);
    let (only, _): (_, Secret) = developers
        .rotate_secret(&caller, &session, id, Overlap::Now)
        .await
        .unwrap();
    assert_eq!(developers.app(&session, id).await.unwrap().secrets, [only]);
    let named = |kid: usize| JWK.replace("\"kty\"", &format!("\"kid\": \"{kid}\", \"kty\""));
    for kid in 0..10 {
        developers
            .add_key(&caller, &session, id, &named(kid))
            .await
            .unwrap();
    }
    let eleventh = developers.add_key(&caller, &session, id, &named(10)).await;
    assert!(matches!(eleventh, Err(Error::Forbidden(_))));
    developers
        .remove_key(&caller, &session, id, "9")
        .await
        .unwrap();
    let Err(Error::InvalidFields(faults)) =
        developers.add_key(&caller, &session, id, &named(0)).await
    else {
        panic!("two keys have one name");
    };
    assert_eq!(faults[0].pointer.as_deref(), Some("/kid"));
    // Two at once do not make fifty-one.
    for _ in 1..49 {
        developers
            .create_app(&caller, &session, input())
            .await
            .unwrap();
    }
    // Tasks of their own, as requests have them.
    let create = || {
        let (developers, caller, session) = (developers.clone(), caller.clone(), session.clone());
        tokio::spawn(async move { developers.create_app(&caller, &session, input()).await })
    };
    let (one, other) = tokio::join!(create(), create());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(one.is_ok() != other.is_ok());
    assert_eq!(developers.apps(&session).await.unwrap().len(), 50);
}

#[tokio::test]
async fn a_public_client_has_neither_secrets_nor_keys() {
    let installation = Installation::new().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = installation.caller_from("192.0.2.7");
    let public = AppInput {
        kind: ClientKind::Public,
        ..input()
    };
    let app = developers
        .create_app(&caller, &session, public)
        .await
        .unwrap();
    assert!(app.client_secret.is_none());
    let id = app.app.id;
    let secret = developers
        .rotate_secret(&caller, &session, id, Overlap::Now)
        .await;
    assert!(matches!(secret, Err(Error::Forbidden(_))));
    let key = developers.add_key(&caller, &session, id, JWK).await;
    assert!(matches!(key, Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn a_developer_sees_where_the_app_is_installed_and_where_it_was() {
    let installation = Installation::new().await;
    let (session, developers) = (installation.developer().await, installation.developers());
    let caller = installation.caller_from("192.0.2.7");
    let app = developers
        .create_app(&caller, &session, input())
        .await
        .unwrap();
    let id = app.app.id;
    let (stays, leaves) = (installation.merchant().await, installation.merchant().await);
    let elsewhere = installation.install(terms("orders:read")).await;
    for merchant in [leaves, stays] {
        let grant = installation
            .consent(merchant, id, terms("orders:read"))
            .await
            .unwrap();
        installation.clock.advance(Duration::from_secs(1));
        installation.revoke(merchant, grant.id).await;
    }
    installation.clock.advance(Duration::from_secs(1));
    let again = installation
        .consent(stays, id, terms("orders:write"))
        .await
        .unwrap();
    let detail = developers.app(&session, id).await.unwrap();
    assert_eq!(detail.living_installs, 1);
    let shown: Vec<_> = detail
        .installs
        .iter()
        .map(|install| (install.merchant_id, install.grant.revoked_at.is_none()))
        .collect();
    assert_eq!(shown, [(stays, true), (leaves, false)]);
    assert_eq!(detail.installs[0].grant, again);
    assert_eq!(detail.installs[0].merchant_name, "Corner Books");
    assert_eq!(detail.installs[0].last_used_at, None);
    assert!(
        shown
            .iter()
            .all(|(merchant, _)| *merchant != elsewhere.merchant)
    );
}
