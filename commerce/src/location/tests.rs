//! Locations against PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use kernel::page;

use super::*;
use crate::order::tests::world::World;

fn upsert_of(external_id: &str, name: &str) -> Upsert {
    let input = LocationInput {
        external_id: external_id.to_owned(),
        name: name.to_owned(),
        country: Some("DE".to_owned()),
    };
    Upsert::new(input).unwrap()
}

#[tokio::test]
async fn a_location_is_made_once_and_changed_under_its_external_id() {
    let world = Arc::new(World::new().await);
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.run(&upsert_of("east", "East")).await.unwrap() })
        })
        .collect();
    let mut ids = std::collections::HashSet::new();
    for task in tasks {
        let location = task.await.unwrap();
        assert_eq!(
            location.version,
            Version::FIRST,
            "an equal input changes nothing"
        );
        ids.insert(location.id);
    }
    assert_eq!(ids.len(), 1);
    let changed = world.run(&upsert_of("east", "Far East")).await.unwrap();
    assert_eq!(
        (changed.version, changed.name.as_str()),
        (Version::new(2), "Far East")
    );
    assert!(ids.contains(&changed.id));
    assert!(
        Upsert::new(LocationInput {
            external_id: String::new(),
            name: "x".to_owned(),
            country: Some("de".to_owned())
        })
        .is_err()
    );
}

#[tokio::test]
async fn whoever_is_limited_sees_and_changes_own_locations_alone() {
    let world = World::new().await;
    let limited = world.limited("locations:write", Some(vec![world.locations[1]]), false);
    let mut tx = world.tx().await;
    let own = get(&mut tx, &limited, world.locations[1]).await.unwrap();
    assert!(matches!(
        get(&mut tx, &limited, world.locations[0]).await,
        Err(Error::NotFound { .. })
    ));
    let listed = list(
        &mut tx,
        &limited,
        &PageRequest {
            limit: 9,
            after: None,
        },
    )
    .await
    .unwrap();
    assert_eq!(listed.data, std::slice::from_ref(&own));
    let all = list(
        &mut tx,
        &world.actor,
        &PageRequest {
            limit: 1,
            after: None,
        },
    )
    .await
    .unwrap();
    let next = PageRequest {
        limit: 1,
        after: Some(page::decode(&all.next_cursor.unwrap()).unwrap()),
    };
    let next = list(&mut tx, &world.actor, &next).await.unwrap();
    assert_eq!(
        (
            all.data[0].external_id.as_str(),
            next.data[0].external_id.as_str()
        ),
        ("north", "south")
    );
    drop(tx);
    assert_eq!(
        world
            .run_as(&limited, &upsert_of(&own.external_id, "Mine"))
            .await
            .unwrap()
            .name,
        "Mine"
    );
    assert!(matches!(
        world.run_as(&limited, &upsert_of("new", "New")).await,
        Err(Error::NotFound { .. })
    ));
    let other = if own.external_id == "north" {
        "south"
    } else {
        "north"
    };
    assert!(matches!(
        world.run_as(&limited, &upsert_of(other, "Theirs")).await,
        Err(Error::NotFound { .. })
    ));
}
