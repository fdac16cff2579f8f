//! A merchant's apps: seen, narrowed, extended and ended by its staff.

use std::time::Duration;

use auth::{
    Error,
    account::{Role, Session},
    grant::{
        Grant, Term,
        installed::{GrantChange, SHOWN_AFTER_END},
    },
};
use kernel::{
    audit::{self, AuditEntry, Filter, Log},
    id::{GrantId, LocationId, MerchantId},
    page::PageRequest,
    scope::{Scope, ScopeSet},
};
use sqlx::Executor;

use crate::fixture::{Installation, terms};

const DAY: Duration = Duration::from_hours(24);

/// `grant` as it is.
fn unchanged(grant: &Grant) -> GrantChange {
    GrantChange {
        scopes: grant.scopes,
        locations: grant.locations.clone(),
        personal_data: grant.personal_data,
        term: None,
    }
}

async fn change(
    installation: &Installation,
    session: &Session,
    grant: &Grant,
    change: GrantChange,
) -> Result<Grant, Error> {
    installation
        .grants()
        .change(
            &installation.caller(),
            session,
            grant.merchant_id,
            grant.id,
            grant.version,
            change,
        )
        .await
}

async fn log_of(installation: &Installation, merchant: MerchantId) -> Vec<AuditEntry> {
    let mut tx = installation.database.api().enter(merchant).await.unwrap();
    let page = PageRequest {
        limit: 50,
        after: None,
    };
    audit::list(&mut tx, Log::Merchant(merchant), &Filter::default(), &page)
        .await
        .unwrap()
        .data
}

#[tokio::test]
async fn a_merchant_sees_what_is_installed_and_what_ended_lately() {
    let installation = Installation::new().await;
    let merchant = installation.merchant().await;
    let viewer = installation.session(merchant, Role::Viewer);
    let grants = installation.grants();
    assert_eq!(grants.installed(&viewer, merchant).await.unwrap(), []);
    let mut given = Vec::new();
    for (name, days) in [
        ("Zebra", None),
        ("apple", Some(40)),
        ("Mango", Some(2)),
        ("Kiwi", None),
    ] {
        let app = installation.app_named(name).await.app.id;
        let mut input = terms("orders:read");
        input.expires_at = days.map(|days| installation.clock.now().plus(DAY * days));
        given.push(installation.consent(merchant, app, input).await.unwrap());
    }
    let other = installation.install(terms("orders:read")).await;
    installation.clock.advance(DAY * 3);
    installation.revoke(merchant, given[3].id).await;
    let mut owner = installation.database.owner().await.unwrap();
    let person = viewer.person.id;
    owner
        .execute(sqlx::AssertSqlSafe(format!(
            "insert into persons (id, login, name, is_operator, is_developer, version, created_at)
            values ('{}', 'ada', 'Ada', false, false, 1, now());
            update grants set consented_by = '{0}' where id = '{}';
            update apps set homepage_url = 'https://zebra.example', required_scopes = '{{orders:read}}'
                where name = 'Zebra'",
            person.uuid(),
            given[0].id.uuid(),
        )))
        .await
        .unwrap();
    let seen = grants.installed(&viewer, merchant).await.unwrap();
    let names: Vec<_> = seen
        .iter()
        .map(|installed| installed.app.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["apple", "Zebra", "Kiwi", "Mango"],
        "living by name, then the latest end"
    );
    assert_eq!(seen[1].consented_by.as_deref(), Some("Ada"));
    assert_eq!(
        seen[1].app.homepage_url.as_deref(),
        Some("https://zebra.example")
    );
    assert_eq!(seen[1].required_scopes.to_string(), "orders:read");
    assert_eq!(
        (seen[0].consented_by.as_deref(), seen[0].last_used_at),
        (None, None)
    );
    assert_eq!(seen[1].grant, given[0]);
    // What ended a month ago is no longer in the list, and still there for who asks for it.
    installation.clock.advance(SHOWN_AFTER_END);
    let seen = grants.installed(&viewer, merchant).await.unwrap();
    assert_eq!(seen.len(), 2, "{seen:?}");
    let ended = grants
        .installed_app(&viewer, merchant, given[2].id)
        .await
        .unwrap();
    assert_eq!(ended.app.name, "Mango");
    // Another merchant's is not there, whoever asks.
    for (asked, id) in [(merchant, other.grant.id), (other.merchant, other.grant.id)] {
        let error = grants.installed_app(&viewer, asked, id).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    }
    let error = grants.installed(&viewer, other.merchant).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotFound {
                noun: "merchant",
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_grant_is_narrowed_at_once_and_without_a_fresh_proof() {
    let installation = Installation::new().await;
    let location = LocationId::new(installation.clock.now());
    let mut input = terms("orders:write catalog:read orders.pii:read");
    input.personal_data = true;
    let install = installation.install(input).await;
    let process = installation.process().await;
    let token = process.token(&install).await;
    let manager = installation.stale_session(install.merchant, Role::Manager);
    let wanted = GrantChange {
        scopes: "orders:read".parse().unwrap(),
        locations: Some(vec![location, location]),
        personal_data: false,
        term: Some(Term::Week),
    };
    let narrowed = change(&installation, &manager, &install.grant, wanted)
        .await
        .unwrap();
    assert_eq!(narrowed.scopes.to_string(), "orders:read");
    assert_eq!(narrowed.locations, Some(vec![location]));
    assert!(!narrowed.personal_data);
    assert_eq!(
        narrowed.expires_at,
        Some(installation.clock.now().plus(DAY * 7))
    );
    assert_eq!((narrowed.epoch, narrowed.version), (2, 2));
    process.view.reread().await.unwrap();
    assert!(process.verify(&token).await.is_err(), "a token from before");
    let actor = process
        .verify(&process.token(&install).await)
        .await
        .unwrap();
    assert_eq!(actor.access, narrowed.access());
    let log = log_of(&installation, install.merchant).await;
    assert_eq!(log.len(), 1);
    assert_eq!(log[0].action, "grant.changed");
    assert_eq!(log[0].person_id, Some(manager.person.id));
    assert_eq!(log[0].target_id, Some(narrowed.id.to_string()));
    assert_eq!(log[0].details["before"]["personalData"], true);
    assert_eq!(
        log[0].details["after"]["scopes"],
        serde_json::json!(["orders:read"])
    );
    // The same once more changes nothing, and is no act.
    let again = change(&installation, &manager, &narrowed, unchanged(&narrowed))
        .await
        .unwrap();
    assert_eq!(again, narrowed);
    assert_eq!(log_of(&installation, install.merchant).await.len(), 1);
}

#[tokio::test]
async fn whatever_gives_more_needs_a_fresh_proof() {
    let installation = Installation::new().await;
    let now = installation.clock.now();
    let location = LocationId::new(now);
    let mut input = terms("orders:read orders.pii:read");
    input.locations = Some(vec![location]);
    input.expires_at = Some(now.plus(DAY));
    let install = installation.install(input).await;
    let stale = installation.stale_session(install.merchant, Role::Owner);
    let fresh = installation.session(install.merchant, Role::Owner);
    let as_it_is = unchanged(&install.grant);
    // The scope was granted without the box: ticked now, it counts.
    let more = [
        GrantChange {
            personal_data: true,
            ..as_it_is.clone()
        },
        // From here on each takes something away too, which makes it no less.
        GrantChange {
            term: Some(Term::Week),
            ..as_it_is.clone()
        },
        GrantChange {
            locations: Some(vec![location, LocationId::new(now)]),
            ..as_it_is.clone()
        },
        GrantChange {
            term: Some(Term::UntilRevoked),
            ..as_it_is.clone()
        },
        GrantChange {
            locations: None,
            ..as_it_is
        },
    ];
    let mut grant = install.grant.clone();
    for wanted in more {
        let error = change(&installation, &stale, &grant, wanted.clone())
            .await
            .unwrap_err();
        assert!(
            matches!(error, Error::StepUpRequired),
            "{wanted:?}: {error:?}"
        );
        grant = change(&installation, &fresh, &grant, wanted).await.unwrap();
    }
    assert!(grant.locations.is_none());
    assert!(!grant.scopes.allows(Scope::OrdersPiiRead), "unticked again");
}

#[tokio::test]
async fn an_extended_grant_lives_on_and_its_tokens_with_it() {
    let installation = Installation::new().await;
    let mut input = terms("orders:read");
    input.expires_at = Some(installation.clock.now().plus(Duration::from_mins(5)));
    let install = installation.install(input).await;
    let process = installation.process().await;
    let owner = installation.session(install.merchant, Role::Owner);
    let wanted = GrantChange {
        term: Some(Term::Month),
        ..unchanged(&install.grant)
    };
    let extended = change(&installation, &owner, &install.grant, wanted)
        .await
        .unwrap();
    assert_eq!(
        extended.epoch, install.grant.epoch,
        "nothing was taken away"
    );
    assert_eq!(
        extended.expires_at,
        Some(installation.clock.now().plus(DAY * 30))
    );
    installation.clock.advance(Duration::from_mins(6));
    process
        .verify(&process.token(&install).await)
        .await
        .unwrap();
}

#[tokio::test]
async fn nobody_gives_an_app_what_it_has_not_asked_for_or_takes_what_it_needs() {
    let installation = Installation::new().await;
    let install = installation
        .install(terms("orders:write catalog:read"))
        .await;
    let mut database = installation.database.owner().await.unwrap();
    database
        .execute("update apps set required_scopes = '{orders:read,locations:read}'")
        .await
        .unwrap();
    let owner = installation.session(install.merchant, Role::Owner);
    let as_it_is = unchanged(&install.grant);
    let with_scopes = |scopes: &str| GrantChange {
        scopes: scopes.parse::<ScopeSet>().unwrap(),
        ..as_it_is.clone()
    };
    let refused = [
        (
            with_scopes("orders:write catalog:write"),
            "/scopes",
            "not_granted",
        ),
        (
            with_scopes("orders:write orders.pii:read"),
            "/personalData",
            "",
        ),
        (
            GrantChange {
                personal_data: true,
                ..as_it_is.clone()
            },
            "/personalData",
            "not_granted",
        ),
        (with_scopes("catalog:read"), "/scopes", "required_by_app"),
        (with_scopes(""), "/scopes", "required_by_app"),
        (
            GrantChange {
                locations: Some(vec![]),
                ..as_it_is.clone()
            },
            "/locations",
            "required",
        ),
    ];
    for (wanted, pointer, code) in refused {
        let result = change(&installation, &owner, &install.grant, wanted.clone()).await;
        if code.is_empty() {
            // The box of personal data is not ticked, so the scope goes with it: nothing that was not granted is left.
            assert_eq!(result.unwrap().scopes.to_string(), "orders:write");
            installation
                .consent(
                    install.merchant,
                    install.app.app.id,
                    terms("orders:write catalog:read"),
                )
                .await
                .unwrap();
            installation
                .database
                .owner()
                .await
                .unwrap()
                .execute("update grants set version = 1")
                .await
                .unwrap();
            continue;
        }
        match result.unwrap_err() {
            Error::InvalidFields(errors) => {
                assert_eq!(errors[0].pointer.as_deref(), Some(pointer), "{wanted:?}");
                assert_eq!(errors[0].code, code, "{wanted:?}");
            }
            other => panic!("{wanted:?}: {other:?}"),
        }
    }
    let kept = change(
        &installation,
        &owner,
        &install.grant,
        with_scopes("orders:read"),
    )
    .await;
    assert_eq!(kept.unwrap().scopes.to_string(), "orders:read");
}

#[tokio::test]
async fn only_who_decides_grants_changes_them_and_only_what_was_seen() {
    let installation = Installation::new().await;
    let install = installation.install(terms("orders:write")).await;
    let (merchant, id) = (install.merchant, install.grant.id);
    let grants = installation.grants();
    let caller = installation.caller();
    let viewer = installation.session(merchant, Role::Viewer);
    let stranger = installation.session(installation.merchant().await, Role::Owner);
    let less = GrantChange {
        scopes: "orders:read".parse().unwrap(),
        ..unchanged(&install.grant)
    };
    let error = change(&installation, &viewer, &install.grant, less.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
    let error = grants
        .end(&caller, &viewer, merchant, id)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Forbidden(_)), "{error:?}");
    let error = change(&installation, &stranger, &install.grant, less.clone())
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::NotFound {
                noun: "merchant",
                ..
            }
        ),
        "{error:?}"
    );
    let theirs = stranger.memberships[0].merchant;
    let error = grants
        .end(&caller, &stranger, theirs, id)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::NotFound { noun: "grant", .. }),
        "{error:?}"
    );
    let manager = installation.session(merchant, Role::Manager);
    let nothing = GrantId::new(installation.clock.now());
    let error = grants
        .end(&caller, &manager, merchant, nothing)
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::NotFound { noun: "grant", .. }),
        "{error:?}"
    );
    // Two of them have seen the same version: the second one looks again.
    change(&installation, &manager, &install.grant, less.clone())
        .await
        .unwrap();
    let error = change(&installation, &manager, &install.grant, less.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Changed("grant")), "{error:?}");
    // To end it, no version is needed; it ends once.
    installation.clock.advance(Duration::from_secs(1));
    let stale = installation.stale_session(merchant, Role::Manager);
    let ended = grants.end(&caller, &stale, merchant, id).await.unwrap();
    assert!(ended.revoked_at.is_some());
    assert_eq!(
        grants.end(&caller, &stale, merchant, id).await.unwrap(),
        ended
    );
    let error = change(&installation, &manager, &ended, less)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Gone("grant")), "{error:?}");
    let actions: Vec<_> = log_of(&installation, merchant)
        .await
        .into_iter()
        .map(|entry| (entry.action, entry.address))
        .collect();
    let address = caller.address.map(|address| address.to_string());
    assert_eq!(
        actions,
        [
            ("grant.revoked".to_owned(), address.clone()),
            ("grant.changed".to_owned(), address),
        ]
    );
    assert_eq!(
        installation
            .database
            .count("select count(*) from outbox where type = 'grant.revoked'")
            .await
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn a_grant_that_has_expired_is_not_extended_but_asked_for_again() {
    let installation = Installation::new().await;
    let mut input = terms("orders:read");
    input.expires_at = Some(installation.clock.now().plus(DAY));
    let install = installation.install(input).await;
    installation.clock.advance(DAY);
    let owner = installation.session(install.merchant, Role::Owner);
    let wanted = GrantChange {
        term: Some(Term::Week),
        ..unchanged(&install.grant)
    };
    let error = change(&installation, &owner, &install.grant, wanted)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Gone("grant")), "{error:?}");
}

#[tokio::test]
async fn the_last_use_is_written_by_the_hour_and_never_goes_back() {
    let installation = Installation::new().await;
    let install = installation.install(terms("orders:read")).await;
    let (first, second) = (installation.process().await, installation.process().await);
    let viewer = installation.session(install.merchant, Role::Viewer);
    let last_used = async || {
        let grants = installation.grants();
        let seen = grants.installed(&viewer, install.merchant).await.unwrap();
        seen[0].last_used_at
    };
    first.last_use.flush().await;
    assert_eq!(last_used().await, None);
    let start = installation.clock.now();
    first.verify(&first.token(&install).await).await.unwrap();
    assert_eq!(
        last_used().await,
        None,
        "nothing is written while a request waits"
    );
    first.last_use.flush().await;
    let written = last_used().await.unwrap();
    assert!(written <= start && start.since(written) < Duration::from_hours(1));
    assert_eq!(written.unix_seconds() % 3_600, 0);
    // Within the same hour nothing is written again: what somebody does to the row stays.
    let wipe = "update grant_uses set last_used_at = '2000-01-01'";
    installation
        .database
        .owner()
        .await
        .unwrap()
        .execute(wipe)
        .await
        .unwrap();
    first.verify(&first.token(&install).await).await.unwrap();
    first.last_use.flush().await;
    assert!(last_used().await.unwrap() < written);
    // An hour later, by another process; what a slow one writes afterwards is older and changes nothing.
    first.last_use.note(install.grant.id, start);
    installation.clock.advance(Duration::from_hours(1));
    second.verify(&second.token(&install).await).await.unwrap();
    second.last_use.flush().await;
    let later = last_used().await.unwrap();
    assert_eq!(later.since(written), Duration::from_hours(1));
    let third = installation.process().await;
    third.last_use.note(install.grant.id, start);
    third.last_use.flush().await;
    assert_eq!(last_used().await, Some(later));
    // A grant that nobody knows keeps nothing else from being written, and a database that is away loses nothing.
    let fourth = installation.process().await;
    installation.clock.advance(Duration::from_hours(1));
    fourth
        .last_use
        .note(GrantId::new(start), installation.clock.now());
    fourth
        .last_use
        .note(install.grant.id, installation.clock.now());
    fourth.last_use.flush().await;
    assert_eq!(
        last_used().await.unwrap().since(later),
        Duration::from_hours(1)
    );
}
