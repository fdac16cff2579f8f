//! Invitations and the staff of merchants.

use std::{sync::Arc, time::Duration};

use auth::{
    Error,
    account::{
        Role, Session,
        invitation::{Invited, LIFETIME},
        person::By,
    },
};
use kernel::{audit::Log, id::MerchantId};

use crate::house::{House, new_person};

async fn invite(house: &House, by: &Session, invited: Invited) -> Result<String, Error> {
    let invitation = house
        .accounts
        .invite(
            &house.caller(),
            By::Person(by),
            invited,
            Some("Bea, for the evenings"),
        )
        .await;
    invitation.map(|(_, token)| token.expose().to_owned())
}

fn manager(merchant: MerchantId) -> Invited {
    Invited::Staff {
        merchant,
        role: Role::Manager,
    }
}

#[tokio::test]
async fn an_invitation_says_who_invites_to_what_and_makes_somebody_staff() {
    let house = House::new().await;
    let merchant = house.installation.merchant().await;
    let owner = house.owner(merchant, "owner").await;
    assert_eq!(owner.role_at(merchant).unwrap(), Role::Owner);
    let token = invite(&house, &owner, manager(merchant)).await.unwrap();
    let view = house.accounts.invitation(&token).await.unwrap();
    assert_eq!(view.invited, manager(merchant));
    assert_eq!(view.merchant_name.as_deref(), Some("Corner Books"));
    assert_eq!(view.inviter_name.as_deref(), Some("Name of owner"));
    assert_eq!(view.label.as_deref(), Some("Bea, for the evenings"));
    assert_eq!(
        house
            .accounts
            .invitations_of(&owner, merchant)
            .await
            .unwrap()
            .len(),
        1
    );
    let new = house
        .accounts
        .accept_as_new(&house.caller(), &token, new_person("bea"))
        .await
        .unwrap();
    let bea = house.session(&new).await;
    assert_eq!(bea.role_at(merchant).unwrap(), Role::Manager);
    assert!(
        house
            .accounts
            .invitations_of(&owner, merchant)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        house.accounts.invitation(&token).await,
        Err(Error::Gone("invitation"))
    ));
    let staff = house.accounts.staff(&owner, merchant).await.unwrap();
    let listed: Vec<_> = staff
        .iter()
        .map(|one| (one.login.as_str(), one.role))
        .collect();
    assert_eq!(listed, [("bea", Role::Manager), ("owner", Role::Owner)]);
    for (action, times) in [
        ("invitation.made", 2),
        ("invitation.accepted", 2),
        ("membership.added", 2),
        ("session.started", 2),
    ] {
        let told = house.told(Log::Merchant(merchant), action).await;
        assert_eq!(told.len(), times, "{action}");
    }
    assert!(
        house
            .told(Log::Installation, "membership.added")
            .await
            .is_empty()
    );
    assert_eq!(
        house.told(Log::Installation, "session.started").await.len(),
        2
    );
}

#[tokio::test]
async fn an_invitation_is_accepted_once_however_many_click() {
    let house = Arc::new(House::new().await);
    let merchant = house.installation.merchant().await;
    let owner = house.owner(merchant, "owner").await;
    // The same person twice, and different ones.
    for logins in [
        ["bea", "bea", "bea", "bea"],
        ["carl", "dora", "emil", "fritz"],
    ] {
        let token = invite(&house, &owner, manager(merchant)).await.unwrap();
        let clicks: Vec<_> = logins
            .into_iter()
            .map(|login| {
                let (house, token) = (Arc::clone(&house), token.clone());
                tokio::spawn(async move {
                    let caller = house.caller();
                    house
                        .accounts
                        .accept_as_new(&caller, &token, new_person(login))
                        .await
                })
            })
            .collect();
        let mut accepted = 0;
        for click in clicks {
            match click.await.unwrap() {
                Ok(_) => accepted += 1,
                Err(Error::Gone("invitation")) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(accepted, 1);
    }
    assert_eq!(
        house.accounts.staff(&owner, merchant).await.unwrap().len(),
        3
    );
    let created = house.told(Log::Installation, "person.created").await;
    assert_eq!(created.len(), 3, "who came too late is nobody");
}

#[tokio::test]
async fn a_taken_login_or_a_weak_password_leaves_the_invitation_open() {
    let house = House::new().await;
    let merchant = house.installation.merchant().await;
    let owner = house.owner(merchant, "owner").await;
    let token = invite(&house, &owner, manager(merchant)).await.unwrap();
    let caller = house.caller();
    for login in ["Owner", " "] {
        let wrong = house
            .accounts
            .accept_as_new(&caller, &token, new_person(login))
            .await;
        assert!(matches!(wrong, Err(Error::InvalidFields(_))), "{login}");
    }
    house
        .accounts
        .accept_as_new(&caller, &token, new_person("bea"))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_invitation_ends_after_a_week_when_withdrawn_and_with_its_inviters_power() {
    let house = House::new().await;
    let merchant = house.installation.merchant().await;
    let (owner, other) = (
        house.owner(merchant, "owner").await,
        house.owner(merchant, "other").await,
    );
    let (accounts, caller) = (&house.accounts, house.caller());
    let gone = async |token: &str| {
        let seen = accounts.invitation(token).await;
        assert!(matches!(seen, Err(Error::Gone("invitation"))), "{seen:?}");
        let accepted = accounts.accept_as(&caller, token, &owner).await;
        assert!(matches!(accepted, Err(Error::Gone("invitation"))));
        let accepted = accounts
            .accept_as_new(&caller, token, new_person("late"))
            .await;
        assert!(matches!(accepted, Err(Error::Gone("invitation"))));
    };
    gone("never was").await;

    let withdrawn = invite(&house, &owner, manager(merchant)).await.unwrap();
    let id = accounts.invitations_of(&other, merchant).await.unwrap()[0].id;
    accounts
        .withdraw_invitation(&caller, &other, id)
        .await
        .unwrap();
    gone(&withdrawn).await;
    let twice = accounts.withdraw_invitation(&caller, &other, id).await;
    assert!(matches!(
        twice,
        Err(Error::NotFound {
            noun: "invitation",
            ..
        })
    ));

    // The link of an owner who is none any more lets nobody in, least of all themselves.
    let theirs = invite(&house, &other, manager(merchant)).await.unwrap();
    accounts
        .remove_staff(&caller, &owner, merchant, other.person.id)
        .await
        .unwrap();
    gone(&theirs).await;

    let old = invite(&house, &owner, manager(merchant)).await.unwrap();
    house.installation.clock.advance(LIFETIME);
    gone(&old).await;
}

#[tokio::test]
async fn who_may_invite_whom_is_a_matter_of_role() {
    let house = House::new().await;
    let (merchant, elsewhere) = (
        house.installation.merchant().await,
        house.installation.merchant().await,
    );
    let owner = house.owner(merchant, "owner").await;
    let new = house.staff(merchant, Role::Manager, "manager").await;
    let manages = house.session(&new).await;
    let operator = house.operator("root").await;
    let cases = [
        (&owner, manager(merchant), true),
        (&owner, manager(elsewhere), false),
        (&owner, Invited::Operator, false),
        (&owner, Invited::Developer, false),
        (&manages, manager(merchant), false),
        (&operator, manager(merchant), true),
        (&operator, Invited::Operator, true),
        (&operator, Invited::Developer, true),
    ];
    for (by, invited, allowed) in cases {
        let made = invite(&house, by, invited).await;
        assert_eq!(made.is_ok(), allowed, "{} {invited:?}", by.person.login);
    }
    let listed = house.accounts.invitations(&operator).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(matches!(
        house.accounts.invitations(&owner).await,
        Err(Error::Forbidden(_))
    ));
    let hidden = house
        .accounts
        .withdraw_invitation(&house.caller(), &owner, listed[0].id)
        .await;
    assert!(matches!(hidden, Err(Error::Forbidden(_))));
    for session in [&manages, &operator] {
        assert!(house.accounts.staff(session, merchant).await.is_err());
        assert!(
            house
                .accounts
                .invitations_of(session, merchant)
                .await
                .is_err()
        );
    }
    house.installation.clock.advance(Duration::from_mins(11));
    let late = invite(&house, &owner, manager(merchant)).await;
    assert!(matches!(late, Err(Error::StepUpRequired)));
}

#[tokio::test]
async fn somebody_who_is_known_accepts_and_keeps_the_greater_role() {
    let house = House::new().await;
    let (merchant, other) = (
        house.installation.merchant().await,
        house.installation.merchant().await,
    );
    let owner = house.owner(merchant, "owner").await;
    let new = house.staff(other, Role::Viewer, "bea").await;
    let bea = house.session(&new).await;
    let caller = house.caller();
    let token = invite(&house, &owner, manager(merchant)).await.unwrap();
    house
        .accounts
        .accept_as(&caller, &token, &bea)
        .await
        .unwrap();
    let bea = house.session(&new).await;
    assert_eq!(
        bea.role_at(merchant).unwrap(),
        Role::Manager,
        "felt at the next request"
    );
    assert_eq!(bea.role_at(other).unwrap(), Role::Viewer);
    for (role, expected) in [(Role::Viewer, Role::Manager), (Role::Owner, Role::Owner)] {
        let token = invite(&house, &owner, Invited::Staff { merchant, role })
            .await
            .unwrap();
        house
            .accounts
            .accept_as(&caller, &token, &bea)
            .await
            .unwrap();
        assert_eq!(
            house.session(&new).await.role_at(merchant).unwrap(),
            expected
        );
    }
    let (_, token) = house
        .accounts
        .invite(&caller, By::CommandLine, Invited::Developer, None)
        .await
        .unwrap();
    house
        .accounts
        .accept_as(&caller, token.expose(), &bea)
        .await
        .unwrap();
    let bea = house.session(&new).await;
    assert!(bea.person.is_developer && !bea.person.is_operator);
    let changed = house
        .told(Log::Merchant(merchant), "membership.changed")
        .await;
    assert_eq!(changed.len(), 1);
    let told = house.told(Log::Installation, "invitation.accepted").await;
    assert_eq!(told[0].details["to"], "developer");
}

#[tokio::test]
async fn owners_change_and_remove_staff_and_nobody_else_does() {
    let house = House::new().await;
    let merchant = house.installation.merchant().await;
    let owner = house.owner(merchant, "owner").await;
    let new = house.staff(merchant, Role::Manager, "bea").await;
    let bea = house.session(&new).await;
    let stranger = house.operator("root").await;
    let (accounts, caller) = (&house.accounts, house.caller());
    let (id, own) = (bea.person.id, owner.person.id);
    let by_bea = accounts
        .change_role(&caller, &bea, merchant, id, Role::Owner)
        .await;
    assert!(matches!(by_bea, Err(Error::Forbidden(_))));
    let by_stranger = accounts
        .remove_staff(&caller, &stranger, merchant, id)
        .await;
    assert!(matches!(
        by_stranger,
        Err(Error::NotFound {
            noun: "merchant",
            ..
        })
    ));
    let nobody = accounts
        .remove_staff(&caller, &owner, merchant, stranger.person.id)
        .await;
    assert!(matches!(
        nobody,
        Err(Error::NotFound { noun: "person", .. })
    ));
    for last in [
        accounts.remove_staff(&caller, &owner, merchant, own).await,
        accounts
            .change_role(&caller, &owner, merchant, own, Role::Manager)
            .await,
    ] {
        assert!(matches!(last, Err(Error::Forbidden(_))), "the last owner");
    }
    accounts
        .change_role(&caller, &owner, merchant, id, Role::Viewer)
        .await
        .unwrap();
    assert_eq!(
        house.session(&new).await.role_at(merchant).unwrap(),
        Role::Viewer
    );
    accounts
        .remove_staff(&caller, &owner, merchant, id)
        .await
        .unwrap();
    assert!(house.session(&new).await.role_at(merchant).is_err());
    let told = house
        .told(Log::Merchant(merchant), "membership.changed")
        .await;
    assert_eq!(
        told[0].details,
        serde_json::json!({"from": "manager", "to": "viewer"})
    );
    assert_eq!(
        house
            .told(Log::Merchant(merchant), "membership.removed")
            .await
            .len(),
        1
    );
    house.installation.clock.advance(Duration::from_mins(11));
    let late = accounts.remove_staff(&caller, &owner, merchant, id).await;
    assert!(matches!(late, Err(Error::StepUpRequired)));
}

#[tokio::test]
async fn owners_who_remove_each_other_at_once_leave_one() {
    let house = Arc::new(House::new().await);
    let merchant = house.installation.merchant().await;
    for round in 0..4 {
        let mut owners = Vec::new();
        for owner in 0..4 {
            owners.push(
                house
                    .owner(merchant, &format!("owner-{round}-{owner}"))
                    .await,
            );
        }
        let tries: Vec<_> = (0..4)
            .map(|owner| {
                let house = Arc::clone(&house);
                let by = owners[owner].clone();
                let of = owners[(owner + 1) % 4].person.id;
                tokio::spawn(async move {
                    house
                        .accounts
                        .remove_staff(&house.caller(), &by, merchant, of)
                        .await
                })
            })
            .collect();
        for one in tries {
            let _ = one.await.unwrap();
        }
        let owners = "select count(*) from memberships where role = 'owner'";
        let left = count(&house, owners).await;
        assert!(left >= 1, "{left} owners");
        // Whoever is left makes room for the next round.
        let mut owner = house.installation.database.owner().await.unwrap();
        sqlx::Executor::execute(&mut owner, "delete from memberships")
            .await
            .unwrap();
    }
}

async fn count(house: &House, sql: &'static str) -> i64 {
    use sqlx::{Executor, Row};
    let mut owner = house.installation.database.owner().await.unwrap();
    owner.fetch_one(sql).await.unwrap().get(0)
}

#[tokio::test]
async fn a_disabled_owner_does_not_count_as_one() {
    let house = House::new().await;
    let merchant = house.installation.merchant().await;
    let (owner, other) = (
        house.owner(merchant, "owner").await,
        house.owner(merchant, "other").await,
    );
    let caller = house.caller();
    house
        .accounts
        .disable_person(&caller, By::CommandLine, other.person.id)
        .await
        .unwrap();
    let left = house
        .accounts
        .remove_staff(&caller, &owner, merchant, owner.person.id)
        .await;
    assert!(matches!(left, Err(Error::Forbidden(_))));
    house
        .accounts
        .remove_staff(&caller, &owner, merchant, other.person.id)
        .await
        .unwrap();
}
