//! Signing in by password, and what people change of themselves.

use auth::{
    Error,
    account::{
        Hasher,
        person::{By, NewPerson},
        sign_in::SignIn,
    },
};
use kernel::{
    audit::{Log, Outcome},
    page::PageRequest,
    problem::FieldError,
};

use crate::house::{House, PASSWORD, new_person, secret};

fn fields(error: Error) -> Vec<(String, String)> {
    let Error::InvalidFields(faults) = error else {
        panic!("{error}");
    };
    let pair = |fault: FieldError| (fault.pointer.unwrap(), fault.code.into_owned());
    faults.into_iter().map(pair).collect()
}

#[tokio::test]
async fn a_person_signs_in_by_login_and_password_however_the_login_is_typed() {
    let house = House::new().await;
    house.person(" Anna.Brandner@Shop.example").await;
    let session = house.signed_in("ANNA.brandner@shop.example ").await;
    assert_eq!(session.person.login, "anna.brandner@shop.example");
    assert!(session.person.has_password && !session.person.has_totp);
    assert!(!session.person.is_operator && !session.person.is_developer);
    session
        .require_recent_proof(house.installation.clock.now())
        .unwrap();
    let told = house.told(Log::Installation, "session.started").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].person_id, Some(session.person.id));
    assert_eq!(told[0].address.as_deref(), Some("192.0.2.7"));
    assert_eq!(told[0].details["factors"], serde_json::json!(["password"]));
    assert_eq!(
        house.told(Log::Installation, "person.created").await.len(),
        1
    );
}

#[tokio::test]
async fn an_unknown_login_and_a_wrong_password_are_answered_and_hashed_for_alike() {
    let house = House::new().await;
    let operator = house.operator("root").await;
    house.person("anna").await;
    house.person("gone").await;
    let gone = house.signed_in("gone").await.person.id;
    house
        .accounts
        .disable_person(&house.caller(), By::Person(&operator), gone)
        .await
        .unwrap();
    let long = "x".repeat(5_000);
    for (login, password) in [
        ("anna", "not the password"),
        ("nobody", "not the password"),
        ("nobody", PASSWORD),
        ("gone", PASSWORD),
        ("gone", "not the password"),
        ("", PASSWORD),
        ("an\0na", PASSWORD),
        (long.as_str(), PASSWORD),
        ("anna", ""),
        ("anna", long.as_str()),
    ] {
        let before = house.accounts.hasher().computed();
        let error = house.try_sign_in(login, password).await.unwrap_err();
        assert!(matches!(error, Error::NotAccepted), "{login:.9}: {error}");
        assert_eq!(house.accounts.hasher().computed() - before, 1, "{login:.9}");
    }
    let told = house.told(Log::Installation, "session.refused").await;
    assert_eq!(told.len(), 10, "each is told of once");
    for entry in told {
        assert_eq!(entry.outcome, Outcome::Refused);
        assert!(
            !entry.details.to_string().contains("anna"),
            "no login is told"
        );
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_new_person_is_said_of_every_field_at_once() {
    let house = House::new().await;
    let create = |login: &str, name: &str, password: &str| {
        let new = NewPerson {
            login: login.to_owned(),
            name: name.to_owned(),
            password: secret(password),
        };
        let house = &house;
        async move {
            house
                .accounts
                .create_person(&house.caller(), new, false, false)
                .await
        }
    };
    let error = create(" ", "", "password1234").await.unwrap_err();
    let pointers: Vec<String> = fields(error)
        .into_iter()
        .map(|(pointer, _)| pointer)
        .collect();
    assert_eq!(pointers, ["/login", "/name", "/password"]);
    let error = create("nina.oberhauser", "Nina", "nina.oberhauser")
        .await
        .unwrap_err();
    assert_eq!(
        fields(error),
        [("/password".to_owned(), "too_weak".to_owned())]
    );
    create("Anna", "Anna", PASSWORD).await.unwrap();
    let error = create("aNNa ", "Another", PASSWORD).await.unwrap_err();
    assert_eq!(fields(error), [("/login".to_owned(), "taken".to_owned())]);
    assert_eq!(
        house.told(Log::Installation, "person.created").await.len(),
        1
    );
}

#[tokio::test]
async fn a_hash_of_older_parameters_is_made_anew_at_a_sign_in() {
    let house = House::new().await;
    house.person("anna").await;
    let stronger = House::accounts(&house.installation).with_hasher(Hasher::new(128, 2).unwrap());
    let kept =
        "select count(*) from persons where password_hash like '$argon2id$v=19$m=128,t=2,p=1$%'";
    let sign_in = async || {
        let signed_in = stronger
            .sign_in(&house.caller(), "anna", &secret(PASSWORD))
            .await;
        assert!(matches!(signed_in.unwrap(), SignIn::Session(_)));
    };
    assert_eq!(count(&house, kept).await, 0);
    sign_in().await;
    assert_eq!(count(&house, kept).await, 1);
    let before = stronger.hasher().computed();
    sign_in().await;
    assert_eq!(
        stronger.hasher().computed() - before,
        1,
        "nothing to make anew"
    );
    house.signed_in("anna").await;
}

async fn count(house: &House, sql: &str) -> i64 {
    use sqlx::{Executor, Row};
    let mut owner = house.installation.database.owner().await.unwrap();
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    owner.fetch_one(sql).await.unwrap().get(0)
}

#[tokio::test]
async fn a_new_password_needs_a_recent_proof_and_ends_what_the_old_one_began() {
    let house = House::new().await;
    house.person("anna").await;
    let (here, there) = (
        house.new_session("anna").await,
        house.new_session("anna").await,
    );
    let session = house.session(&here).await;
    let change = async |password: &str| {
        let password = secret(password);
        house
            .accounts
            .change_password(&house.caller(), &session, &password)
            .await
    };
    let weak = change("Name of anna").await.unwrap_err();
    assert_eq!(
        fields(weak),
        [("/password".to_owned(), "too_weak".to_owned())]
    );
    change("zwei Amseln am Brunnen").await.unwrap();
    assert!(house.find(&here).await.is_some(), "this session stays");
    assert!(house.find(&there).await.is_none(), "the others have ended");
    assert!(matches!(
        house.try_sign_in("anna", PASSWORD).await,
        Err(Error::NotAccepted)
    ));
    house
        .try_sign_in("anna", "zwei Amseln am Brunnen")
        .await
        .unwrap();
    house
        .installation
        .clock
        .advance(std::time::Duration::from_secs(601));
    let late = change("drei Amseln am Brunnen").await;
    assert!(matches!(late, Err(Error::StepUpRequired)));
    assert_eq!(
        house
            .told(Log::Installation, "password.changed")
            .await
            .len(),
        1
    );
    assert_eq!(
        house.told(Log::Installation, "session.ended").await.len(),
        1
    );
}

#[tokio::test]
async fn a_password_changed_between_two_steps_ends_the_sign_in() {
    let house = House::new().await;
    house.person("anna").await;
    let session = house.signed_in("anna").await;
    let (totp, _) = house.with_totp(&session).await;
    let ceremony = house.second_factor_of("anna").await;
    let next = secret("zwei Amseln am Brunnen");
    house
        .accounts
        .change_password(&house.caller(), &session, &next)
        .await
        .unwrap();
    house
        .installation
        .clock
        .advance(std::time::Duration::from_secs(30));
    let code = house.code(&totp);
    let finished = house
        .accounts
        .second_factor(&house.caller(), &ceremony, &code)
        .await;
    assert!(matches!(finished, Err(Error::Gone(_))));
}

#[tokio::test]
async fn a_reset_lets_in_who_has_lost_everything() {
    let house = House::new().await;
    house.person("anna").await;
    let session = house.new_session("anna").await;
    house.with_totp(&house.session(&session).await).await;
    let next = secret("zwei Amseln am Brunnen");
    house
        .accounts
        .reset_person(&house.caller(), "Anna", &next)
        .await
        .unwrap();
    assert!(house.find(&session).await.is_none());
    let signed_in = house.try_sign_in("anna", next.expose()).await.unwrap();
    assert!(matches!(signed_in, SignIn::Session(_)), "no second factor");
    let nobody = house
        .accounts
        .reset_person(&house.caller(), "nobody", &next)
        .await;
    assert!(matches!(
        nobody,
        Err(Error::NotFound { noun: "person", .. })
    ));
}

#[tokio::test]
async fn operators_disable_and_enable_others_and_nobody_else_does() {
    let house = House::new().await;
    let operator = house.operator("root").await;
    house.person("anna").await;
    let anna = house.new_session("anna").await;
    let session = house.session(&anna).await;
    let (caller, accounts) = (house.caller(), &house.accounts);
    let (by_anna, by_operator) = (By::Person(&session), By::Person(&operator));
    let page = PageRequest {
        limit: 1,
        after: None,
    };
    assert!(matches!(
        accounts.persons(by_anna, &page).await,
        Err(Error::Forbidden(_))
    ));
    let id = operator.person.id;
    assert!(matches!(
        accounts.disable_person(&caller, by_anna, id).await,
        Err(Error::Forbidden(_))
    ));
    assert!(matches!(
        accounts.disable_person(&caller, by_operator, id).await,
        Err(Error::Forbidden(_))
    ));
    accounts
        .disable_person(&caller, by_operator, session.person.id)
        .await
        .unwrap();
    assert!(house.find(&anna).await.is_none());
    assert!(matches!(
        house.try_sign_in("anna", PASSWORD).await,
        Err(Error::NotAccepted)
    ));

    let first = accounts.persons(by_operator, &page).await.unwrap();
    assert_eq!(first.data[0].person.login, "anna");
    assert!(first.data[0].disabled_at.is_some());
    accounts
        .enable_person(&caller, By::CommandLine, session.person.id)
        .await
        .unwrap();
    assert!(
        house.find(&anna).await.is_none(),
        "an ended session stays ended"
    );
    house.signed_in("anna").await;
    house
        .installation
        .clock
        .advance(std::time::Duration::from_secs(601));
    let late = accounts
        .disable_person(&caller, by_operator, session.person.id)
        .await;
    assert!(matches!(late, Err(Error::StepUpRequired)));
    for action in ["person.disabled", "person.enabled"] {
        assert_eq!(
            house.told(Log::Installation, action).await.len(),
            1,
            "{action}"
        );
    }
}

#[tokio::test]
async fn a_person_renames_themselves() {
    let house = House::new().await;
    house.person("anna").await;
    let new = house.new_session("anna").await;
    let session = house.session(&new).await;
    let caller = house.caller();
    let error = house
        .accounts
        .set_name(&caller, &session, " \n")
        .await
        .unwrap_err();
    assert_eq!(fields(error)[0].0, "/name");
    house
        .accounts
        .set_name(&caller, &session, " Anna B. ")
        .await
        .unwrap();
    let session = house.session(&new).await;
    assert_eq!(
        (session.person.name.as_str(), session.person.version),
        ("Anna B.", 2)
    );
    let again = new_person("anna");
    assert!(
        house
            .accounts
            .create_person(&caller, again, false, true)
            .await
            .is_err()
    );
}
