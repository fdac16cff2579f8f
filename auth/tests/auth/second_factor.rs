//! Time-based codes and recovery codes.

use std::{sync::Arc, time::Duration};

use auth::{Error, account::session::Factor};
use kernel::audit::Log;

use crate::house::{House, PASSWORD, secret};

const STEP: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_time_based_code_is_asked_for_after_the_password_and_good_once() {
    let house = House::new().await;
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (totp, codes) = house.with_totp(&session).await;
    assert_eq!(codes.len(), 10);
    let caller = house.caller();
    let used = house.code(&totp);
    let ceremony = house.second_factor_of("anna").await;
    let replayed = house
        .accounts
        .second_factor(&caller, &ceremony, &used)
        .await;
    assert!(
        matches!(replayed, Err(Error::NotAccepted)),
        "the code that set it up"
    );
    house.installation.clock.advance(STEP);
    let code = house.code(&totp);
    let spaced = format!(" {} {} ", &code[..3], &code[3..]);
    let new = house
        .accounts
        .second_factor(&caller, &ceremony, &spaced)
        .await
        .unwrap();
    let session = house.session(&new).await;
    assert_eq!(session.factors, [Factor::Password, Factor::Totp]);
    assert!(session.person.has_totp);
    let over = house
        .accounts
        .second_factor(&caller, &ceremony, &code)
        .await;
    assert!(
        matches!(over, Err(Error::Gone(_))),
        "a ceremony is good once"
    );
    let ceremony = house.second_factor_of("anna").await;
    let replayed = house
        .accounts
        .second_factor(&caller, &ceremony, &code)
        .await;
    assert!(
        matches!(replayed, Err(Error::NotAccepted)),
        "its step is used"
    );
    assert_eq!(house.told(Log::Installation, "totp.enabled").await.len(), 1);
    assert_eq!(
        house.told(Log::Installation, "session.refused").await.len(),
        2
    );
}

#[tokio::test]
async fn one_code_sent_twice_at_once_is_taken_once() {
    let house = Arc::new(House::new().await);
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (totp, codes) = house.with_totp(&session).await;
    house.installation.clock.advance(STEP);
    for code in [house.code(&totp), codes[0].expose().to_owned()] {
        let mut ceremonies = Vec::new();
        for _ in 0..4 {
            ceremonies.push(house.second_factor_of("anna").await);
        }
        let tries: Vec<_> = ceremonies
            .into_iter()
            .map(|ceremony| {
                let (house, code) = (Arc::clone(&house), code.clone());
                tokio::spawn(async move {
                    let caller = house.caller();
                    house
                        .accounts
                        .second_factor(&caller, &ceremony, &code)
                        .await
                })
            })
            .collect();
        let mut taken = 0;
        for one in tries {
            match one.await.unwrap() {
                Ok(_) => taken += 1,
                Err(Error::NotAccepted) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(taken, 1);
    }
}

#[tokio::test]
async fn a_recovery_code_stands_in_once_however_it_is_typed() {
    let house = House::new().await;
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (_, codes) = house.with_totp(&session).await;
    let caller = house.caller();
    let typed = codes[3].expose().to_lowercase().replace('-', " ");
    let ceremony = house.second_factor_of("anna").await;
    let new = house
        .accounts
        .second_factor(&caller, &ceremony, &typed)
        .await
        .unwrap();
    let session = house.session(&new).await;
    assert_eq!(session.factors, [Factor::Password, Factor::RecoveryCode]);
    assert_eq!(
        house.accounts.recovery_codes_left(&session).await.unwrap(),
        9
    );
    let ceremony = house.second_factor_of("anna").await;
    let again = house
        .accounts
        .second_factor(&caller, &ceremony, &typed)
        .await;
    assert!(matches!(again, Err(Error::NotAccepted)));
    let fresh = house
        .accounts
        .make_recovery_codes(&caller, &session)
        .await
        .unwrap();
    assert_eq!(
        house.accounts.recovery_codes_left(&session).await.unwrap(),
        10
    );
    let old = house
        .accounts
        .second_factor(&caller, &ceremony, codes[4].expose())
        .await;
    assert!(matches!(old, Err(Error::NotAccepted)), "replaced");
    house
        .accounts
        .second_factor(&caller, &ceremony, fresh[0].expose())
        .await
        .unwrap();
    let used = house.told(Log::Installation, "recovery_code.used").await;
    assert_eq!(used.len(), 2);
    assert_eq!(used[0].details["left"], 9);
}

#[tokio::test]
async fn a_code_is_no_code_of_somebody_else() {
    let house = House::new().await;
    for login in ["anna", "bea"] {
        house.person(login).await;
    }
    let (anna, bea) = (house.signed_in("anna").await, house.signed_in("bea").await);
    house.with_totp(&anna).await;
    let (totp, codes) = house.with_totp(&bea).await;
    house.installation.clock.advance(STEP);
    let ceremony = house.second_factor_of("anna").await;
    let wrong = [
        house.code(&totp),
        codes[0].expose().to_owned(),
        String::new(),
        "000".to_owned(),
    ];
    for code in wrong {
        let refused = house
            .accounts
            .second_factor(&house.caller(), &ceremony, &code)
            .await;
        assert!(matches!(refused, Err(Error::NotAccepted)), "{code}");
    }
}

#[tokio::test]
async fn a_second_factor_is_waited_for_five_minutes() {
    let house = House::new().await;
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (totp, _) = house.with_totp(&session).await;
    let ceremony = house.second_factor_of("anna").await;
    house.installation.clock.advance(Duration::from_mins(5));
    let late = house
        .accounts
        .second_factor(&house.caller(), &ceremony, &house.code(&totp))
        .await;
    assert!(matches!(late, Err(Error::Gone(_))));
}

#[tokio::test]
async fn setting_up_needs_a_recent_proof_ones_own_ceremony_and_a_right_code() {
    let house = House::new().await;
    for login in ["anna", "bea"] {
        house.person(login).await;
    }
    let (anna, bea) = (house.signed_in("anna").await, house.signed_in("bea").await);
    let (caller, accounts) = (house.caller(), &house.accounts);
    let setup = accounts.begin_totp(&anna).await.unwrap();
    let totp = totp_rs::Totp::from_url(setup.otpauth_url.expose()).unwrap();
    assert!(
        setup
            .otpauth_url
            .expose()
            .contains(setup.secret_base32.expose())
    );
    let code = house.code(&totp);
    let foreign = accounts
        .confirm_totp(&caller, &bea, &setup.ceremony, &code)
        .await;
    assert!(matches!(foreign, Err(Error::Gone(_))));
    let wrong = accounts
        .confirm_totp(&caller, &anna, &setup.ceremony, "000000")
        .await;
    assert!(matches!(wrong, Err(Error::NotAccepted)));
    accounts
        .confirm_totp(&caller, &anna, &setup.ceremony, &code)
        .await
        .unwrap();
    let again = accounts
        .confirm_totp(&caller, &anna, &setup.ceremony, &code)
        .await;
    assert!(matches!(again, Err(Error::Gone(_))));
    house.installation.clock.advance(Duration::from_mins(11));
    assert!(matches!(
        accounts.begin_totp(&bea).await,
        Err(Error::StepUpRequired)
    ));
    assert!(matches!(
        accounts.disable_totp(&caller, &anna).await,
        Err(Error::StepUpRequired)
    ));
    assert!(matches!(
        accounts.make_recovery_codes(&caller, &anna).await,
        Err(Error::StepUpRequired)
    ));
}

#[tokio::test]
async fn turning_codes_off_ends_the_other_sessions_and_the_recovery_codes() {
    let house = House::new().await;
    house.person("anna").await;
    let (here, there) = (
        house.new_session("anna").await,
        house.new_session("anna").await,
    );
    let session = house.session(&here).await;
    house.with_totp(&session).await;
    assert!(
        house.find(&there).await.is_some(),
        "adding a factor ends nothing"
    );
    let session = house.session(&here).await;
    assert!(matches!(
        house.accounts.begin_totp(&session).await,
        Err(Error::Forbidden(_))
    ));
    house
        .accounts
        .disable_totp(&house.caller(), &session)
        .await
        .unwrap();
    assert!(house.find(&there).await.is_none());
    assert_eq!(
        house.accounts.recovery_codes_left(&session).await.unwrap(),
        0
    );
    house.signed_in("anna").await;
    let session = house.session(&here).await;
    let none = house
        .accounts
        .make_recovery_codes(&house.caller(), &session)
        .await;
    assert!(matches!(none, Err(Error::Forbidden(_))));
    assert_eq!(
        house.told(Log::Installation, "totp.disabled").await.len(),
        1
    );
}

#[tokio::test]
async fn stepping_up_takes_both_factors_where_there_are_two() {
    let house = House::new().await;
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (totp, _) = house.with_totp(&session).await;
    house.installation.clock.advance(Duration::from_mins(11));
    let (caller, accounts) = (house.caller(), &house.accounts);
    let (right, wrong) = (secret(PASSWORD), secret("not the password"));
    let without = accounts.step_up(&caller, &session, &right, None).await;
    assert!(matches!(without, Err(Error::InvalidFields(_))));
    let code = house.code(&totp);
    let refused = accounts
        .step_up(&caller, &session, &wrong, Some(&code))
        .await;
    assert!(matches!(refused, Err(Error::NotAccepted)));
    let refused = accounts
        .step_up(&caller, &session, &right, Some("000000"))
        .await;
    assert!(matches!(refused, Err(Error::NotAccepted)));
    let new = accounts
        .step_up(&caller, &session, &right, Some(&code))
        .await
        .unwrap();
    assert_eq!(
        house.session(&new).await.factors,
        [Factor::Password, Factor::Totp]
    );
}

#[tokio::test]
async fn secrets_of_codes_are_kept_sealed() {
    use sqlx::{Executor, Row};
    let house = House::new().await;
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (totp, _) = house.with_totp(&session).await;
    let mut owner = house.installation.database.owner().await.unwrap();
    let row = owner
        .fetch_one("select sealed_totp_secret from persons")
        .await
        .unwrap();
    let sealed: Vec<u8> = row.get(0);
    let plain = totp.secret().as_bytes();
    assert!(!sealed.windows(plain.len()).any(|window| window == plain));
}
