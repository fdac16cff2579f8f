//! Streams and the feed, read to catch up.

use kernel::{
    actor::{Access, Actor},
    id::EventId,
    page::PageRequest,
    scope::Scope,
};
use serde_json::json;

use super::world::{Made, World, made, scopes};
use crate::{
    endpoint::{EndpointId, Ping},
    error::Error,
    feed::{self, FeedPage, SCANNED_NUMBERS_MAX},
    stream::{self, StreamPage, StreamRequest},
};

pub(super) async fn read(
    world: &World,
    endpoint: EndpointId,
    after: i64,
    limit: u32,
) -> Result<StreamPage, Error> {
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let request = StreamRequest { after, limit };
    stream::read(
        &mut tx,
        &world.actor,
        &world.keyring,
        endpoint,
        request,
        world.clock.now(),
    )
    .await
}

async fn read_feed(
    world: &World,
    actor: &Actor,
    cursor: Option<&str>,
    limit: u32,
) -> Result<FeedPage, Error> {
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    let after = cursor.map(|cursor| kernel::page::decode(cursor).unwrap());
    feed::read(
        &mut tx,
        actor,
        &world.keyring,
        &PageRequest { limit, after },
    )
    .await
}

fn sequences(page: &StreamPage) -> Vec<i64> {
    page.data
        .iter()
        .filter_map(|event| event.sequence)
        .collect()
}

pub(super) async fn forget(world: &World, table: &str, column: &str, events: &[EventId]) {
    let mut owner = world.database.owner().await.unwrap();
    let statement = format!("alter table {table} no force row level security");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut owner)
        .await
        .unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "delete from {table} where {column} = any($1)"
    )))
    .bind(events.to_vec())
    .execute(&mut owner)
    .await
    .unwrap();
    let statement = format!("alter table {table} force row level security");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut owner)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stream_is_read_on_from_any_number() {
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    let empty = read(&world, endpoint, 0, 10).await.unwrap();
    assert_eq!(
        (sequences(&empty), empty.next_after, empty.last_sequence),
        (vec![], 0, 0)
    );
    let personal = Made {
        personal: Some(json!({"name": "Ada"})),
        ..made("b", 1)
    };
    world.append(&[made("a", 1), personal, made("c", 1)]).await;
    world.relay_all().await;
    let first = read(&world, endpoint, 0, 2).await.unwrap();
    assert_eq!(
        (sequences(&first), first.next_after, first.last_sequence),
        (vec![1, 2], 2, 3)
    );
    assert!(
        first
            .data
            .iter()
            .any(|event| event.data.as_ref().unwrap().get().contains("Ada"))
    );
    let rest = read(&world, endpoint, first.next_after, 2).await.unwrap();
    assert_eq!((sequences(&rest), rest.next_after), (vec![3], 3));
    assert_eq!(
        sequences(&read(&world, endpoint, 3, 2).await.unwrap()),
        Vec::<i64>::new()
    );
}

#[tokio::test]
async fn what_may_no_longer_be_seen_keeps_its_number() {
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    world.narrow("catalog:read").await;
    let page = read(&world, endpoint, 0, 10).await.unwrap();
    assert_eq!(sequences(&page), [1]);
    assert_eq!(page.data[0].kind, "event.withheld");
    assert!(page.data[0].data.is_none() && page.data[0].resource.is_none());
}

#[tokio::test]
async fn a_person_who_was_erased_is_in_no_event_any_more() {
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    world
        .append(&[Made {
            personal: Some(json!({"name": "Ada"})),
            ..made("a", 1)
        }])
        .await;
    world.relay_all().await;
    let mut tx = world.api.enter(world.merchant).await.unwrap();
    sqlx::query("delete from data_subject_keys where merchant_id = $1")
        .bind(world.merchant)
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let page = read(&world, endpoint, 0, 10).await.unwrap();
    assert_eq!(
        page.data[0].data.as_ref().unwrap().get(),
        r#"{"id":"a","version":1}"#
    );
}

#[tokio::test]
async fn a_number_that_the_stream_has_not_come_to_is_an_error_that_names_the_newest() {
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    world.append(&[made("a", 1), made("b", 1)]).await;
    world.relay_all().await;
    let page = read(&world, endpoint, 2, 10).await.unwrap();
    assert_eq!((page.data.len(), page.last_sequence), (0, 2));
    let beyond = read(&world, endpoint, 3, 10).await.unwrap_err();
    let Error::InvalidFields(faults) = beyond else {
        panic!("{beyond:?}");
    };
    assert!(faults[0].detail.contains("which is 2;"), "{faults:?}");
}

#[tokio::test]
async fn numbers_that_retention_took_are_an_error_that_names_the_oldest() {
    let world = World::new().await;
    let endpoint = world.endpoint(None).await.endpoint.id;
    let ids = world
        .append(&[
            made("a", 1),
            made("b", 1),
            made("c", 1),
            made("d", 1),
            made("e", 1),
        ])
        .await;
    world.relay_all().await;
    let oldest = async |after| match read(&world, endpoint, after, 10).await {
        Err(Error::EventsExpired { oldest }) => oldest,
        other => panic!("{other:?}"),
    };
    let at = world.stream(endpoint).await;
    let id_of = |sequence: usize| {
        let place = ["a", "b", "c", "d", "e"]
            .iter()
            .position(|name| *name == at[sequence - 1].1)
            .unwrap();
        ids[place]
    };
    forget(&world, "streams", "event_id", &[id_of(1), id_of(2)]).await;
    assert_eq!((oldest(0).await, oldest(1).await), (3, 3));
    assert_eq!(
        sequences(&read(&world, endpoint, 2, 10).await.unwrap()),
        [3, 4, 5]
    );
    // A partition's border may part neighbours: the hole is never passed over, and shows when it is reached.
    forget(&world, "events", "id", &[id_of(4)]).await;
    assert_eq!(
        sequences(&read(&world, endpoint, 2, 10).await.unwrap()),
        [3]
    );
    assert_eq!(oldest(3).await, 5);
    forget(&world, "streams", "event_id", &ids).await;
    assert_eq!(oldest(3).await, 6);
    assert_eq!(
        sequences(&read(&world, endpoint, 5, 10).await.unwrap()),
        Vec::<i64>::new()
    );
}

#[tokio::test]
async fn the_feed_shows_what_the_actor_may_see_and_goes_on() {
    let world = World::new().await;
    let mine = world.endpoint(Some("https://8.8.8.8/")).await.endpoint.id;
    let catalog = Made {
        kind: "product.created",
        scope: Scope::CatalogRead,
        ..made("p", 1)
    };
    world.append(&[made("a", 1)]).await;
    world.append(&[catalog]).await;
    world.append(&[made("b", 1)]).await;
    world.run(&Ping { id: mine }).await.unwrap();
    world.relay_all().await;
    let kinds = |page: &FeedPage| {
        page.data
            .iter()
            .map(|event| event.kind.clone())
            .collect::<Vec<_>>()
    };
    let first = read_feed(&world, &world.actor, None, 2).await.unwrap();
    assert_eq!(
        (kinds(&first), first.has_more),
        (vec!["order.placed".to_owned(); 2], true)
    );
    assert!(first.data.iter().all(|event| event.sequence.is_none()));
    let rest = read_feed(&world, &world.actor, Some(&first.next_cursor), 2)
        .await
        .unwrap();
    assert_eq!(
        (kinds(&rest), rest.has_more),
        (vec!["ping".to_owned()], false)
    );
    let none = read_feed(&world, &world.actor, Some(&rest.next_cursor), 2)
        .await
        .unwrap();
    assert_eq!(
        (kinds(&none), none.next_cursor == rest.next_cursor),
        (vec![], true)
    );

    // Another app's endpoints are none of its business; the merchant's administrators see all.
    let access = |names: &str| Access {
        scopes: scopes(names),
        locations: None,
        personal_data: false,
    };
    let other = world
        .other_app(access("webhooks:read events:read catalog:read"))
        .await;
    assert_eq!(
        kinds(&read_feed(&world, &other, None, 10).await.unwrap()),
        ["product.created"]
    );
    let admin = world
        .other_app(access("webhooks:read events:read merchant:admin"))
        .await;
    assert_eq!(
        kinds(&read_feed(&world, &admin, None, 10).await.unwrap()),
        ["ping"]
    );
    let without = world.other_app(access("orders:read")).await;
    assert!(matches!(
        read_feed(&world, &without, None, 10).await,
        Err(Error::MissingScope(_))
    ));
}

#[tokio::test]
async fn a_feed_cursor_older_than_retention_is_told_so() {
    let world = World::new().await;
    let ids = world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    let page = read_feed(&world, &world.actor, None, 10).await.unwrap();
    let later = world.append(&[made("b", 1)]).await;
    world.relay_all().await;
    world.append(&[made("c", 1)]).await;
    world.relay_all().await;
    forget(&world, "events", "id", &[ids[0], later[0]]).await;
    assert!(matches!(
        read_feed(&world, &world.actor, Some(&page.next_cursor), 10).await,
        Err(Error::FeedExpired)
    ));
    assert_eq!(
        read_feed(&world, &world.actor, None, 10)
            .await
            .unwrap()
            .data
            .len(),
        1
    );
}

/// Adds events that only readers of orders see to the feed: as many copies of its first one, in the transaction that is given.
async fn copy_first(tx: &mut sqlx::PgConnection, world: &World, count: i64) {
    sqlx::query(
        "insert into events (merchant_id, id, feed_number, type, resource_type, resource_id, resource_version, scope, locations, data, occurred_at)
        select merchant_id, gen_random_uuid(), last_number + place, type, resource_type, resource_id, resource_version, scope, locations, data,
            occurred_at
        from events
        join feeds using (merchant_id)
        cross join generate_series(1, $2) as place
        where merchant_id = $1 and feed_number = 1",
    )
    .bind(world.merchant)
    .bind(count)
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query("update feeds set last_number = last_number + $2 where merchant_id = $1")
        .bind(world.merchant)
        .bind(count)
        .execute(tx)
        .await
        .unwrap();
}

/// An app that sees the catalog and no orders.
async fn catalog_reader(world: &World) -> Actor {
    let access = Access {
        scopes: scopes("events:read catalog:read"),
        locations: None,
        personal_data: false,
    };
    world.other_app(access).await
}

fn product(id: &str) -> Made {
    Made {
        kind: "product.created",
        scope: Scope::CatalogRead,
        ..made(id, 1)
    }
}

#[tokio::test]
async fn a_feed_cursor_moves_past_what_the_actor_may_not_see() {
    let world = World::new().await;
    let reader = catalog_reader(&world).await;
    world.append(&[made("a", 1)]).await;
    world.append(&[product("p")]).await;
    world.append(&[made("b", 1), made("c", 1)]).await;
    world.relay_all().await;
    let page = read_feed(&world, &reader, None, 10).await.unwrap();
    assert_eq!((page.data.len(), page.has_more), (1, false));
    assert_eq!(
        kernel::page::decode::<i64>(&page.next_cursor).unwrap(),
        4,
        "the next read begins where this one ended"
    );
    world.append(&[made("d", 1)]).await;
    world.relay_all().await;
    let page = read_feed(&world, &reader, Some(&page.next_cursor), 10)
        .await
        .unwrap();
    assert_eq!((page.data.len(), page.has_more), (0, false));
    assert_eq!(kernel::page::decode::<i64>(&page.next_cursor).unwrap(), 5);
}

#[tokio::test]
async fn one_read_of_the_feed_goes_only_so_far_and_the_next_goes_on() {
    let world = World::new().await;
    let reader = catalog_reader(&world).await;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    let mut tx = world.worker.begin().await.unwrap();
    copy_first(&mut tx, &world, SCANNED_NUMBERS_MAX).await;
    tx.commit().await.unwrap();
    world.append(&[product("p")]).await;
    world.relay_all().await;
    let first = read_feed(&world, &reader, None, 10).await.unwrap();
    assert_eq!((first.data.len(), first.has_more), (0, true));
    let second = read_feed(&world, &reader, Some(&first.next_cursor), 10)
        .await
        .unwrap();
    assert_eq!((second.data.len(), second.has_more), (1, false));
    // Nor is what retention has dropped gone through by who begins at the beginning.
    let mut owner = world.database.owner().await.unwrap();
    sqlx::raw_sql(
        "alter table events no force row level security;
        delete from events where feed_number <= 10000;
        alter table events force row level security",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    let page = read_feed(&world, &reader, None, 10).await.unwrap();
    assert_eq!((page.data.len(), page.has_more), (1, false));
}

#[tokio::test]
async fn a_feed_cursor_does_not_pass_what_is_not_committed_yet() {
    let world = World::new().await;
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    let mut relaying = world.worker.begin().await.unwrap();
    copy_first(&mut relaying, &world, 3).await;
    let page = read_feed(&world, &world.actor, None, 10).await.unwrap();
    assert_eq!((page.data.len(), page.has_more), (1, false));
    relaying.commit().await.unwrap();
    let page = read_feed(&world, &world.actor, Some(&page.next_cursor), 10)
        .await
        .unwrap();
    assert_eq!((page.data.len(), page.has_more), (3, false));
}
