//! Growing delays for whoever guesses at passwords and codes.

use std::{sync::Arc, time::Duration};

use auth::Error;

use crate::house::{House, PASSWORD, secret};

fn retry_after<T>(answer: &Result<T, Error>) -> Option<Duration> {
    match answer {
        Err(Error::Throttled { retry_after }) => Some(*retry_after),
        _ => None,
    }
}

#[tokio::test]
async fn five_wrong_passwords_are_free_and_then_each_costs_twice_the_one_before() {
    let house = House::new().await;
    house.person("anna").await;
    // An account that is not there is throttled like one that is.
    for login in ["anna", "nobody"] {
        for _ in 0..6 {
            let wrong = house.try_sign_in(login, "not the password").await;
            assert!(matches!(wrong, Err(Error::NotAccepted)), "{login}");
        }
        for seconds in [1, 2, 4, 8] {
            let before = house.accounts.hasher().computed();
            let blocked = retry_after(&house.try_sign_in(login, PASSWORD).await);
            assert_eq!(blocked, Some(Duration::from_secs(seconds)), "{login}");
            assert_eq!(
                house.accounts.hasher().computed(),
                before,
                "nothing is hashed"
            );
            house
                .installation
                .clock
                .advance(Duration::from_secs(seconds));
            let wrong = house.try_sign_in(login, "not the password").await;
            assert!(matches!(wrong, Err(Error::NotAccepted)), "{login}");
        }
    }
}

#[tokio::test]
async fn a_success_wipes_the_accounts_slate_and_a_day_does_too() {
    let house = House::new().await;
    house.person("anna").await;
    let wrong = async |times: usize| {
        for _ in 0..times {
            let wrong = house.try_sign_in("anna", "not the password").await;
            assert!(matches!(wrong, Err(Error::NotAccepted)));
        }
    };
    wrong(5).await;
    house.signed_in("anna").await;
    wrong(6).await;
    assert!(retry_after(&house.try_sign_in("anna", PASSWORD).await).is_some());
    house.installation.clock.advance(Duration::from_hours(25));
    wrong(6).await;
    assert!(retry_after(&house.try_sign_in("anna", PASSWORD).await).is_some());
}

#[tokio::test]
async fn a_network_has_twenty_wrong_ones_free_over_all_accounts() {
    let house = House::new().await;
    house.person("anna").await;
    for guess in 0..21 {
        let wrong = house
            .try_sign_in(&format!("nobody-{guess}"), PASSWORD)
            .await;
        assert!(matches!(wrong, Err(Error::NotAccepted)));
    }
    let blocked = house.try_sign_in("anna", PASSWORD).await;
    assert_eq!(retry_after(&blocked), Some(Duration::from_secs(1)));
    let elsewhere = house.caller_from("2001:db8:1:2::7");
    house
        .accounts
        .sign_in(&elsewhere, "anna", &secret(PASSWORD))
        .await
        .unwrap();
    house.installation.clock.advance(Duration::from_secs(1));
    for _ in 0..30 {
        house.signed_in("anna").await;
    }
}

#[tokio::test]
async fn fifty_guesses_at_once_in_two_processes_are_counted_as_fifty() {
    let house = Arc::new(House::new().await);
    house.person("anna").await;
    let other = Arc::new(House::accounts(&house.installation));
    for login in ["anna", "nobody"] {
        let guesses: Vec<_> = (0..50)
            .map(|guess| {
                let house = Arc::clone(&house);
                let accounts = if guess % 2 == 0 {
                    &house.accounts
                } else {
                    &other
                };
                let accounts = Arc::clone(accounts);
                // From everywhere, so that no network is what stops them.
                let caller = house.caller_from(&format!("198.51.100.{guess}"));
                tokio::spawn(async move {
                    accounts
                        .sign_in(&caller, login, &secret("not the password"))
                        .await
                })
            })
            .collect();
        let mut looked_at = 0;
        for guess in guesses {
            match guess.await.unwrap() {
                Err(Error::NotAccepted) => looked_at += 1,
                Err(Error::Throttled { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            looked_at, 6,
            "{login}: five that are free, and the one that blocks"
        );
    }
    let hashed = house.accounts.hasher().computed() + other.hasher().computed();
    // One more made anna's password.
    assert_eq!(hashed, 13);
}

#[tokio::test]
async fn many_right_passwords_at_once_are_all_let_in() {
    let house = Arc::new(House::new().await);
    house.person("anna").await;
    let tries: Vec<_> = (0..5)
        .map(|_| {
            let house = Arc::clone(&house);
            tokio::spawn(async move { house.try_sign_in("anna", PASSWORD).await.map(|_| ()) })
        })
        .collect();
    for one in tries {
        one.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn guessed_codes_are_throttled_and_a_known_password_wipes_nothing() {
    let house = House::new().await;
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (totp, codes) = house.with_totp(&session).await;
    house.installation.clock.advance(Duration::from_secs(30));
    let caller = house.caller();
    for guess in [
        "000000",
        "AAAA-BBBB-CCCC-DDDD",
        "111111",
        "222222",
        "333333",
        "444444",
    ] {
        // Each with the password anew, which is right.
        let ceremony = house.second_factor_of("anna").await;
        let wrong = house
            .accounts
            .second_factor(&caller, &ceremony, guess)
            .await;
        assert!(matches!(wrong, Err(Error::NotAccepted)), "{guess}");
    }
    let ceremony = house.second_factor_of("anna").await;
    for code in [house.code(&totp), codes[0].expose().to_owned()] {
        let blocked = house
            .accounts
            .second_factor(&caller, &ceremony, &code)
            .await;
        assert!(retry_after(&blocked).is_some(), "however right");
    }
    let password = secret(PASSWORD);
    let code = house.code(&totp);
    let blocked = house
        .accounts
        .step_up(&caller, &session, &password, Some(&code))
        .await;
    assert!(retry_after(&blocked).is_some(), "there too");
    house.installation.clock.advance(Duration::from_secs(1));
    house
        .accounts
        .second_factor(&caller, &ceremony, &house.code(&totp))
        .await
        .unwrap();
}

#[tokio::test]
async fn fifty_codes_at_once_are_counted_as_fifty() {
    let house = Arc::new(House::new().await);
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    house.with_totp(&session).await;
    let ceremony = house.second_factor_of("anna").await;
    let guesses: Vec<_> = (0..50)
        .map(|guess| {
            let (house, ceremony) = (Arc::clone(&house), ceremony.clone());
            let caller = house.caller_from(&format!("198.51.100.{guess}"));
            tokio::spawn(async move {
                let code = format!("WRONG{guess}");
                house
                    .accounts
                    .second_factor(&caller, &ceremony, &code)
                    .await
            })
        })
        .collect();
    let mut looked_at = 0;
    for guess in guesses {
        if matches!(guess.await.unwrap(), Err(Error::NotAccepted)) {
            looked_at += 1;
        }
    }
    assert_eq!(looked_at, 6);
}

#[tokio::test]
async fn the_table_of_throttles_names_nobody() {
    use sqlx::{Executor, Row};
    let house = House::new().await;
    house
        .try_sign_in("anna@shop.example", PASSWORD)
        .await
        .unwrap_err();
    let mut owner = house.installation.database.owner().await.unwrap();
    let rows = owner
        .fetch_all("select throttles::text from throttles")
        .await
        .unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let text: String = row.get(0);
        assert!(
            !text.contains("anna") && !text.contains("192.0.2.7"),
            "{text}"
        );
    }
}
