//! Signing keys among processes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use auth::{Error, SigningKeys};
use kernel::{problem::Problem, test_database};
use sqlx::Executor;

use crate::fixture::{Installation, terms};

#[tokio::test]
async fn sixteen_processes_that_start_at_once_agree_on_one_key() {
    let installation = Arc::new(Installation::new().await);
    let starting: Vec<_> = (0..16)
        .map(|_| {
            let installation = Arc::clone(&installation);
            tokio::spawn(async move { installation.process().await })
        })
        .collect();
    let mut processes = Vec::new();
    for process in starting {
        processes.push(process.await.unwrap());
    }
    let documents: HashSet<String> = processes
        .iter()
        .map(|process| process.keys.document())
        .collect();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(
        installation
            .database
            .count("select count(*) from signing_keys")
            .await
            .unwrap(),
        1
    );
    let install = installation.install(terms("orders:read")).await;
    let token = processes[0].token(&install).await;
    for process in &processes {
        process.verify(&token).await.unwrap();
    }
}

#[tokio::test]
async fn a_private_key_is_there_sealed_only_and_opens_under_its_master_key_alone() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    assert_eq!(format!("{:?}", process.keys), "SigningKeys(***)");
    // PKCS #8 begins with the version and the algorithm's identifiers, which a sealed key does not show.
    let plain = installation
        .database
        .count("select count(*) from signing_keys where position('\\x2a8648ce3d0201'::bytea in sealed_private_key) > 0")
        .await;
    assert_eq!(plain.unwrap(), 0);
    let other = Arc::new(test_database::keyring().unwrap());
    let refused =
        SigningKeys::load_or_create(process.database.clone(), other, installation.clock.clone())
            .await;
    assert!(matches!(refused, Err(Error::Keyring(_))), "{refused:?}");
}

#[tokio::test]
async fn a_new_key_is_found_by_its_tokens_but_made_up_names_do_not_ask_each_time() {
    let installation = Installation::new().await;
    let process = installation.process().await;
    let install = installation.install(terms("orders:read")).await;
    // Somebody asks for a key that does not exist: it was looked for just now.
    assert!(process.keys.verifier("made up").await.unwrap().is_none());
    let mut owner = installation.database.owner().await.unwrap();
    owner
        .execute("update signing_keys set retired_at = now()")
        .await
        .unwrap();
    let second = installation.process().await;
    let token = second.token(&install).await;
    assert!(
        process.verify(&token).await.is_err(),
        "looked for within the second before"
    );
    installation.clock.advance(Duration::from_secs(1));
    process.verify(&token).await.unwrap();
    // A database that is away is no proof that a key does not exist: 503, and not asked again at once.
    process.database.close().await;
    installation.clock.advance(Duration::from_secs(1));
    for _ in 0..2 {
        let error = process
            .keys
            .verifier("made up")
            .await
            .map(|_| ())
            .unwrap_err();
        assert_eq!(Problem::from(error).kind.slug, "unavailable");
    }
}
