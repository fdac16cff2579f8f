//! Keys per person: made, found, and gone for good when the person is erased.

use kernel::{id::DataSubjectId, keyring::Error, personal};

use crate::World;

#[tokio::test]
async fn an_erased_subject_is_missing_and_the_others_are_not() {
    let world = World::create().await;
    let api = world.database.api();
    let subjects: Vec<_> = (0..3).map(|_| DataSubjectId::new(world.now)).collect();
    let mut tx = api.enter(world.a).await.unwrap();
    let made = personal::create_keys(&mut tx, &world.keyring, world.a, &subjects, world.now)
        .await
        .unwrap();
    let sealed: Vec<_> = subjects
        .iter()
        .map(|subject| made[subject].seal("name", b"Ada").unwrap())
        .collect();
    tx.commit().await.unwrap();

    // An erasure that is rolled back has erased nobody.
    let mut tx = api.enter(world.a).await.unwrap();
    personal::erase(&mut tx, world.a, subjects[0])
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    let mut tx = api.enter(world.a).await.unwrap();
    let keys = personal::keys(&mut tx, &world.keyring, world.a, &subjects)
        .await
        .unwrap();
    assert_eq!(keys.len(), 3);
    for (subject, sealed) in subjects.iter().zip(&sealed) {
        assert_eq!(
            keys[subject].open("name", sealed).unwrap().as_slice(),
            b"Ada"
        );
    }
    assert!(
        keys[&subjects[1]].open("name", &sealed[0]).is_err(),
        "a key of one's own"
    );

    personal::erase(&mut tx, world.a, subjects[0])
        .await
        .unwrap();
    personal::erase(&mut tx, world.a, subjects[0])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = world.database.worker().begin().await.unwrap();
    let keys = personal::keys(&mut tx, &world.keyring, world.a, &subjects)
        .await
        .unwrap();
    assert!(!keys.contains_key(&subjects[0]));
    assert_eq!(keys.len(), 2);
    assert_eq!(
        world
            .database
            .count("select count(*) from data_subject_keys")
            .await
            .unwrap(),
        2
    );
}

#[tokio::test]
async fn a_subject_is_known_to_its_merchant_alone() {
    let world = World::create().await;
    let api = world.database.api();
    let subject = [DataSubjectId::new(world.now)];
    let mut tx = api.enter(world.a).await.unwrap();
    personal::create_keys(&mut tx, &world.keyring, world.a, &subject, world.now)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = api.enter(world.b).await.unwrap();
    for merchant in [world.a, world.b] {
        let keys = personal::keys(&mut tx, &world.keyring, merchant, &subject).await;
        // A's key is not even found where B was entered; its ring may hold it from before.
        assert!(keys.map_or_else(
            |error| matches!(error, Error::NoMerchantKey(_)),
            |keys| keys.is_empty()
        ));
    }
    personal::erase(&mut tx, world.b, subject[0]).await.unwrap();
    personal::erase(&mut tx, world.a, subject[0]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = api.enter(world.a).await.unwrap();
    assert_eq!(
        personal::keys(&mut tx, &world.keyring, world.a, &subject)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_key_is_made_once() {
    let world = World::create().await;
    let api = world.database.api();
    let subject = [DataSubjectId::new(world.now)];
    let mut tx = api.enter(world.a).await.unwrap();
    let made = personal::create_keys(&mut tx, &world.keyring, world.a, &subject, world.now)
        .await
        .unwrap();
    let sealed = made[&subject[0]].seal("name", b"Ada").unwrap();
    tx.commit().await.unwrap();
    let mut tx = api.enter(world.a).await.unwrap();
    assert!(
        personal::create_keys(&mut tx, &world.keyring, world.a, &subject, world.now)
            .await
            .is_err()
    );
    drop(tx);
    let mut tx = api.enter(world.a).await.unwrap();
    let keys = personal::keys(&mut tx, &world.keyring, world.a, &subject)
        .await
        .unwrap();
    assert_eq!(
        keys[&subject[0]].open("name", &sealed).unwrap().as_slice(),
        b"Ada"
    );
    assert!(
        personal::create_keys(&mut tx, &world.keyring, world.a, &[], world.now)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        personal::keys(&mut tx, &world.keyring, world.a, &[])
            .await
            .unwrap()
            .is_empty()
    );
}
