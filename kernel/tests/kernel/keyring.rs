//! The master key's file, and the merchants' keys.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::PathBuf,
};

use kernel::{
    id::MerchantId,
    keyring::{Error, Keyring},
    test_database,
};
use sqlx::Row;

use crate::World;

/// A directory that goes with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path =
            std::env::temp_dir().join(format!("stoa-keyring-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn key(&self) -> PathBuf {
        self.0.join("master.key")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn sixteen_that_start_at_once_agree_on_one_master_key() {
    for _ in 0..10 {
        let directory = Directory::new();
        let path = directory.key();
        let start = std::sync::Barrier::new(16);
        let keyrings: Vec<Keyring> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..16)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Keyring::load_or_create(&path)
                    })
                })
                .collect();
            starters
                .into_iter()
                .map(|starter| starter.join().unwrap().unwrap())
                .collect()
        });
        let sealed = keyrings[0].master().seal("test", b"one key").unwrap();
        for keyring in &keyrings {
            assert_eq!(
                keyring.master().open("test", &sealed).unwrap().as_slice(),
                b"one key"
            );
        }
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (metadata.permissions().mode() & 0o777, metadata.nlink()),
            (0o600, 1)
        );
        let left: Vec<_> = std::fs::read_dir(&directory.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["master.key"], "nothing else is left behind");
    }
}

#[test]
fn what_a_crashed_predecessor_left_beside_the_key_is_in_nobodys_way() {
    let directory = Directory::new();
    // In a container each start has the same process id.
    std::fs::write(
        directory
            .0
            .join(format!("master.{}.new", std::process::id())),
        "half a k",
    )
    .unwrap();
    Keyring::load_or_create(&directory.key()).unwrap();
}

#[test]
fn a_file_that_holds_no_key_is_refused_by_name_and_left_as_it_is() {
    let directory = Directory::new();
    let short = "c2hvcnQ=";
    let long = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
    for garbage in ["", "\n", "not base64!", short, long, "AAAA\0AAAA"] {
        std::fs::write(directory.key(), garbage).unwrap();
        let error = Keyring::load_or_create(&directory.key()).unwrap_err();
        assert!(
            matches!(&error, Error::MasterKeyFormat(path) if *path == directory.key()),
            "{garbage:?}: {error:?}"
        );
        let told = error.to_string();
        assert!(
            told.contains("master.key") && told.contains("32 bytes in base64"),
            "{told}"
        );
        assert!(
            garbage.trim().is_empty() || !told.contains(garbage),
            "what might be a key is not told"
        );
        assert_eq!(std::fs::read_to_string(directory.key()).unwrap(), garbage);
    }
    std::fs::write(directory.key(), [0xff, 0xfe]).unwrap();
    assert!(
        Keyring::load_or_create(&directory.key())
            .unwrap_err()
            .to_string()
            .contains("master.key")
    );
}

#[test]
fn a_place_where_no_key_can_be_made_is_named() {
    let directory = Directory::new();
    let path = directory.0.join("missing").join("master.key");
    let error = Keyring::load_or_create(&path).unwrap_err();
    assert!(
        matches!(error, Error::MasterKeyFile { .. })
            && error.to_string().contains("missing/master.key"),
        "{error}"
    );
}

#[tokio::test]
async fn a_merchants_key_opens_under_its_master_key_and_for_its_merchant_alone() {
    let world = World::create().await;
    let mut tx = world.database.api().enter(world.a).await.unwrap();
    let key = world.keyring.merchant_key(&mut tx, world.a).await.unwrap();
    let sealed = key.seal("test", b"hello").unwrap();

    let other = test_database::keyring().unwrap();
    assert!(matches!(
        other.merchant_key(&mut tx, world.a).await,
        Err(Error::Open(_))
    ));
    let nobody = MerchantId::new(world.now);
    assert!(
        matches!(world.keyring.merchant_key(&mut tx, nobody).await, Err(Error::NoMerchantKey(merchant)) if merchant == nobody)
    );

    // A's wrapped key, put in another merchant's place by somebody with the table in hand, does not open there.
    let wrapped: Vec<u8> = sqlx::query("select wrapped_key from merchant_keys")
        .fetch_one(&mut *tx)
        .await
        .unwrap()
        .get(0);
    let mut tx = world.database.api().enter(nobody).await.unwrap();
    let insert = sqlx::query(
        "insert into merchant_keys (merchant_id, wrapped_key, created_at) values ($1, $2, now())",
    );
    insert
        .bind(nobody)
        .bind(wrapped)
        .execute(&mut *tx)
        .await
        .unwrap();
    assert!(matches!(
        world.keyring.merchant_key(&mut tx, nobody).await,
        Err(Error::Open(_))
    ));

    let mut tx = world.database.api().enter(world.b).await.unwrap();
    let key_of_b = world.keyring.merchant_key(&mut tx, world.b).await.unwrap();
    assert!(key_of_b.open("test", &sealed).is_err());
    assert_eq!(key.open("test", &sealed).unwrap().as_slice(), b"hello");
}

#[tokio::test]
async fn a_merchant_has_one_key_and_keeps_it() {
    let world = World::create().await;
    let mut tx = world.database.api().enter(world.a).await.unwrap();
    let again = world
        .keyring
        .create_merchant_key(&mut tx, world.a, world.now)
        .await;
    let Err(Error::Database(error)) = again else {
        panic!("{again:?}")
    };
    assert_eq!(
        error.violated_constraint().as_deref(),
        Some("merchant_keys_pkey")
    );
}
