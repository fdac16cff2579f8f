//! Sessions: their tokens, their ends, and stepping up.

use std::{collections::HashSet, time::Duration};

use auth::{
    Error,
    account::session::{Factor, IDLE_MAX, LIFETIME},
};
use kernel::audit::Log;

use crate::house::{House, PASSWORD, secret};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_session_ends_when_it_has_idled_or_is_a_week_old() {
    let house = House::new().await;
    house.person("anna").await;
    let clock = &house.installation.clock;
    let idle = house.new_session("anna").await;
    clock.advance(IDLE_MAX.checked_sub(SECOND).unwrap());
    assert!(house.find(&idle).await.is_some());
    clock.advance(IDLE_MAX.checked_sub(SECOND).unwrap());
    assert!(house.find(&idle).await.is_some(), "used meanwhile");
    clock.advance(IDLE_MAX);
    assert!(house.find(&idle).await.is_none());

    let busy = house.new_session("anna").await;
    assert_eq!(busy.expires_at, clock.now().plus(LIFETIME));
    for _ in 0..20 {
        clock.advance(Duration::from_hours(8));
        assert!(house.find(&busy).await.is_some());
    }
    clock.advance(Duration::from_hours(8));
    assert!(house.find(&busy).await.is_none());
}

#[tokio::test]
async fn when_a_session_was_seen_is_written_once_a_minute() {
    let house = House::new().await;
    house.person("anna").await;
    let clock = &house.installation.clock;
    let began = clock.now();
    let new = house.new_session("anna").await;
    let session = house.session(&new).await;
    let seen = async || house.accounts.sessions(&session).await.unwrap()[0].last_seen_at;
    clock.advance(Duration::from_secs(59));
    house.session(&new).await;
    assert_eq!(seen().await, began);
    clock.advance(SECOND);
    house.session(&new).await;
    assert_eq!(seen().await, clock.now());
}

#[tokio::test]
async fn a_person_sees_and_ends_their_own_sessions_alone() {
    let house = House::new().await;
    house.person("anna").await;
    house.person("bea").await;
    let (first, second, third) = (
        house.new_session("anna").await,
        house.new_session("anna").await,
        house.new_session("anna").await,
    );
    let (here, bea) = (house.session(&first).await, house.signed_in("bea").await);
    let caller = house.caller();
    let listed = house.accounts.sessions(&here).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed.iter().filter(|one| one.is_current).count(), 1);
    assert!(
        listed
            .iter()
            .all(|one| one.address.as_deref() == Some("192.0.2.7"))
    );
    assert!(listed.iter().all(|one| one.factors == [Factor::Password]));
    let other = house.session(&second).await;
    let foreign = house.accounts.end_session(&caller, &bea, other.id).await;
    assert!(matches!(
        foreign,
        Err(Error::NotFound {
            noun: "session",
            ..
        })
    ));
    assert!(house.find(&second).await.is_some());
    house
        .accounts
        .end_session(&caller, &here, other.id)
        .await
        .unwrap();
    assert!(house.find(&second).await.is_none());
    assert_eq!(
        house
            .accounts
            .end_other_sessions(&caller, &here)
            .await
            .unwrap(),
        1
    );
    assert!(house.find(&third).await.is_none());
    house.accounts.sign_out(&caller, &here).await.unwrap();
    house.accounts.sign_out(&caller, &here).await.unwrap();
    assert!(house.find(&first).await.is_none());
    assert_eq!(
        house.told(Log::Installation, "session.ended").await.len(),
        3
    );
    assert_eq!(house.accounts.sessions(&bea).await.unwrap().len(), 1);
}

#[tokio::test]
async fn every_sign_in_and_every_step_up_gives_a_token_never_seen_before() {
    let house = House::new().await;
    house.person("anna").await;
    let mut tokens = HashSet::new();
    for _ in 0..3 {
        tokens.insert(house.new_session("anna").await.token.expose().to_owned());
    }
    let new = house.new_session("anna").await;
    let session = house.session(&new).await;
    tokens.insert(new.token.expose().to_owned());
    house.installation.clock.advance(Duration::from_mins(11));
    let now = house.installation.clock.now();
    assert!(matches!(
        session.require_recent_proof(now),
        Err(Error::StepUpRequired)
    ));
    let renewed = house
        .accounts
        .step_up(&house.caller(), &session, &secret(PASSWORD), None)
        .await
        .unwrap();
    tokens.insert(renewed.token.expose().to_owned());
    assert_eq!(tokens.len(), 5);
    assert!(tokens.iter().all(|token| token.len() == 43));
    assert!(
        house.find(&new).await.is_none(),
        "the old token is nothing any more"
    );
    let again = house.session(&renewed).await;
    assert_eq!(again.id, session.id);
    again.require_recent_proof(now).unwrap();
    assert_eq!(
        renewed.expires_at, new.expires_at,
        "it lasts no longer for it"
    );
    assert_eq!(
        house.told(Log::Installation, "step_up.passed").await.len(),
        1
    );
}

#[tokio::test]
async fn a_wrong_step_up_proves_nothing_and_an_ended_session_steps_nowhere() {
    let house = House::new().await;
    house.person("anna").await;
    let new = house.new_session("anna").await;
    let session = house.session(&new).await;
    house.installation.clock.advance(Duration::from_mins(11));
    let caller = house.caller();
    let wrong = secret("not the password");
    let refused = house
        .accounts
        .step_up(&caller, &session, &wrong, None)
        .await;
    assert!(matches!(refused, Err(Error::NotAccepted)));
    let now = house.installation.clock.now();
    assert!(house.session(&new).await.require_recent_proof(now).is_err());
    assert_eq!(
        house.told(Log::Installation, "step_up.refused").await.len(),
        1
    );
    house.accounts.sign_out(&caller, &session).await.unwrap();
    let late = house
        .accounts
        .step_up(&caller, &session, &secret(PASSWORD), None)
        .await;
    assert!(matches!(late, Err(Error::Gone("session"))));
}

#[tokio::test]
async fn only_hashes_of_tokens_are_kept() {
    use sqlx::{Executor, Row};
    let house = House::new().await;
    house.person("anna").await;
    let new = house.new_session("anna").await;
    let mut owner = house.installation.database.owner().await.unwrap();
    let row = owner
        .fetch_one("select sessions::text from sessions")
        .await
        .unwrap();
    assert!(!row.get::<String, _>(0).contains(new.token.expose()));
    for wrong in ["", "x", new.token.expose().to_uppercase().as_str()] {
        assert!(house.accounts.session(wrong).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_is_over_is_swept_away() {
    let house = House::new().await;
    house.person("anna").await;
    house.new_session("anna").await;
    house.accounts.begin_passkey_sign_in().await.unwrap();
    house
        .try_sign_in("anna", "not the password")
        .await
        .unwrap_err();
    assert_eq!(house.accounts.sweep().await.unwrap(), 0);
    house.installation.clock.advance(LIFETIME + SECOND);
    // A session, a ceremony, and the wrong guesses at the account and of the network.
    assert_eq!(house.accounts.sweep().await.unwrap(), 4);
}
