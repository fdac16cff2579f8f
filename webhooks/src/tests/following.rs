//! Streams and the feed, followed as they grow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use kernel::{
    actor::{Access, Actor},
    problem::{self, Problem},
};
use tokio_util::sync::CancellationToken;

use super::world::{PATIENCE, World, made, scopes};
use crate::{
    endpoint::{
        Delete,
        test_event::{SendTest, SendTestInput},
    },
    error::Error,
    event::{Resource, TestData},
    follow::{
        Item, Live, STREAMS_PER_APP_MAX, Seats, Source, Standing, Start, Streams, parse_place,
    },
    hub::Hub,
};

/// Stands until it is told otherwise.
#[derive(Clone, Default)]
struct Pass(Arc<AtomicBool>);

impl Standing for Pass {
    fn check(&self) -> BoxFuture<'_, Result<(), Problem>> {
        Box::pin(async {
            if self.0.load(Ordering::SeqCst) {
                Err(Problem::new(
                    &problem::INVALID_TOKEN,
                    "The grant has ended.",
                ))
            } else {
                Ok(())
            }
        })
    }
}

fn streams(world: &World, stop: &CancellationToken) -> Streams {
    Streams {
        database: world.api.clone(),
        keyring: Arc::clone(&world.keyring),
        clock: world.clock.clone(),
        hub: Hub::new(stop.clone()),
        seats: Seats::default(),
    }
}

async fn follow(world: &World, streams: &Streams, source: Source, start: Start) -> Live {
    streams
        .follow(
            world.actor.clone(),
            Box::new(Pass::default()),
            source,
            start,
        )
        .await
        .unwrap()
}

/// Relays what is in the outbox, and says so as the relay does.
async fn relay(world: &World, streams: &Streams) {
    world.relay_all().await;
    streams.hub.announce(world.merchant);
}

async fn next(live: &mut Live) -> Result<Item, Problem> {
    tokio::time::timeout(PATIENCE, live.next())
        .await
        .unwrap()
        .unwrap()
}

/// The next events: their places and resources.
async fn events(live: &mut Live, count: usize) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while found.len() < count {
        if let Item::Event { place, event } = next(live).await.unwrap() {
            let resource = event.resource.map(|resource| resource.id);
            found.push((place, resource.unwrap_or(event.kind)));
        }
    }
    found
}

#[tokio::test]
async fn a_stream_is_followed_as_it_grows_and_goes_on_where_it_broke_off() {
    let world = World::new().await;
    let id = world.endpoint(None).await.endpoint.id;
    let streams = streams(&world, &CancellationToken::new());
    let source = Source::Endpoint(id);
    for resource in ["a", "b", "c"] {
        world.append(&[made(resource, 1)]).await;
        world.relay_all().await;
    }
    let pair = |place: &str, resource: &str| (place.to_owned(), resource.to_owned());
    let mut live = follow(&world, &streams, source, Start::After(1)).await;
    assert!(matches!(next(&mut live).await.unwrap(), Item::Place(place) if place == "1"));
    assert_eq!(events(&mut live, 2).await, [pair("2", "b"), pair("3", "c")]);
    let mut late = follow(&world, &streams, source, Start::Now).await;
    assert!(matches!(next(&mut late).await.unwrap(), Item::Place(place) if place == "3"));
    world.append(&[made("d", 1)]).await;
    let (seen, ()) = tokio::join!(events(&mut live, 1), relay(&world, &streams));
    assert_eq!(seen, [pair("4", "d")]);
    assert_eq!(events(&mut late, 1).await, [pair("4", "d")]);
    drop(live);
    world.append(&[made("e", 1)]).await;
    world.relay_all().await;
    let mut again = follow(&world, &streams, source, Start::After(4)).await;
    assert_eq!(events(&mut again, 1).await, [pair("5", "e")]);
}

#[tokio::test]
async fn a_backlog_of_many_pages_comes_without_gaps_or_repeats() {
    let world = World::new().await;
    let id = world.endpoint(None).await.endpoint.id;
    let streams = streams(&world, &CancellationToken::new());
    let resources: Vec<String> = (0..100).map(|number| format!("r{number}")).collect();
    let batch: Vec<_> = resources.iter().map(|name| made(name, 1)).collect();
    world.append(&batch).await;
    let mut live = follow(&world, &streams, Source::Endpoint(id), Start::Now).await;
    let mut feed = follow(&world, &streams, Source::Feed, Start::Now).await;
    relay(&world, &streams).await;
    let places: Vec<String> = events(&mut live, 100)
        .await
        .into_iter()
        .map(|(place, _)| place)
        .collect();
    let expected: Vec<String> = (1..=100).map(|number| number.to_string()).collect();
    assert_eq!(places, expected);
    let from_feed = events(&mut feed, 100).await;
    let numbers: Vec<_> = from_feed
        .iter()
        .map(|(place, _)| parse_place(Source::Feed, place).unwrap())
        .collect();
    assert_eq!(numbers, (1..=100).collect::<Vec<i64>>());
    // Reading on from any of the places gives what came after it.
    let middle = Start::After(numbers[41]);
    let mut again = follow(&world, &streams, Source::Feed, middle).await;
    assert_eq!(events(&mut again, 58).await, from_feed[42..]);
}

#[tokio::test]
async fn what_may_no_longer_be_seen_is_withheld_in_a_followed_stream_too() {
    let world = World::new().await;
    let id = world.endpoint(None).await.endpoint.id;
    let streams = streams(&world, &CancellationToken::new());
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    world.narrow("catalog:read").await;
    let mut live = follow(&world, &streams, Source::Endpoint(id), Start::After(0)).await;
    let withheld = ("1".to_owned(), "event.withheld".to_owned());
    assert_eq!(events(&mut live, 1).await, [withheld]);
}

#[tokio::test]
async fn the_end_of_a_grant_ends_the_stream_and_holds_back_what_was_read() {
    let world = World::new().await;
    let id = world.endpoint(None).await.endpoint.id;
    let streams = streams(&world, &CancellationToken::new());
    world.append(&[made("a", 1), made("b", 1)]).await;
    world.relay_all().await;
    let pass = Pass::default();
    let mut live = streams
        .follow(
            world.actor.clone(),
            Box::new(pass.clone()),
            Source::Endpoint(id),
            Start::After(0),
        )
        .await
        .unwrap();
    events(&mut live, 1).await;
    pass.0.store(true, Ordering::SeqCst);
    let ended = tokio::time::timeout(Duration::from_secs(1), async {
        loop {
            if let Err(problem) = next(&mut live).await {
                return problem;
            }
        }
    });
    assert_eq!(ended.await.unwrap().kind.slug, "invalid_token");
    assert!(live.next().await.is_none(), "a problem is the last");
}

#[tokio::test]
async fn streams_end_with_the_server_and_with_their_endpoint() {
    let world = World::new().await;
    let id = world.endpoint(None).await.endpoint.id;
    let stop = CancellationToken::new();
    let streams = streams(&world, &stop);
    let mut live = follow(&world, &streams, Source::Endpoint(id), Start::Now).await;
    next(&mut live).await.unwrap();
    let (ended, ()) = tokio::join!(next(&mut live), async { stop.cancel() });
    assert_eq!(ended.unwrap_err().kind.slug, "unavailable");

    let input = crate::endpoint::DeleteInput { id, version: None };
    world.run(&Delete { input }).await.unwrap();
    let opened = streams
        .follow(
            world.actor.clone(),
            Box::new(Pass::default()),
            Source::Endpoint(id),
            Start::Now,
        )
        .await;
    assert!(matches!(opened, Err(Error::EndpointNotFound(_))));
}

#[tokio::test]
async fn an_app_has_only_so_many_streams_open() {
    let world = World::new().await;
    let streams = streams(&world, &CancellationToken::new());
    let mut open = Vec::new();
    for _ in 0..STREAMS_PER_APP_MAX {
        open.push(follow(&world, &streams, Source::Feed, Start::Now).await);
    }
    let one_more = async |actor: &Actor| {
        streams
            .follow(
                actor.clone(),
                Box::new(Pass::default()),
                Source::Feed,
                Start::Now,
            )
            .await
    };
    assert!(matches!(
        one_more(&world.actor).await,
        Err(Error::TooManyStreams { .. })
    ));
    let other = world
        .other_app(Access {
            scopes: scopes("events:read"),
            locations: None,
            personal_data: false,
        })
        .await;
    one_more(&other).await.unwrap();
    open.pop();
    one_more(&world.actor).await.unwrap();
    let without = Actor {
        access: Access {
            scopes: scopes("orders:read"),
            ..other.access.clone()
        },
        ..other
    };
    assert!(matches!(
        one_more(&without).await,
        Err(Error::MissingScope(_))
    ));
}

#[tokio::test]
async fn a_test_event_is_for_its_endpoint_alone_and_says_that_it_is_one() {
    let world = World::new().await;
    let (id, other) = (
        world.endpoint(None).await.endpoint.id,
        world.endpoint(None).await.endpoint.id,
    );
    let streams = streams(&world, &CancellationToken::new());
    let example = |kind: &str| {
        (kind == "order.placed").then(|| TestData {
            kind: kind.to_owned(),
            resource: Resource {
                kind: "order".to_owned(),
                id: "ord_1".to_owned(),
                version: 3,
            },
            data: serde_json::json!({"id": "ord_1"}),
        })
    };
    let send = |kind: &str| SendTest {
        input: SendTestInput {
            id,
            kind: kind.to_owned(),
        },
        example,
    };
    assert!(matches!(
        world.run(&send("moon.risen")).await,
        Err(Error::InvalidFields(_))
    ));
    world.run(&send("order.placed")).await.unwrap();
    world.append(&[made("a", 1)]).await;
    world.relay_all().await;
    let mut live = follow(&world, &streams, Source::Endpoint(id), Start::After(0)).await;
    let shown = loop {
        if let Item::Event { event, .. } = next(&mut live).await.unwrap() {
            break serde_json::to_value(event).unwrap();
        }
    };
    assert_eq!(
        (&shown["type"], &shown["test"], &shown["resource"]["id"]),
        (&"order.placed".into(), &true.into(), &"ord_1".into())
    );
    assert_eq!(shown["data"], serde_json::json!({"id": "ord_1"}));
    // Neither another endpoint nor the feed has it, and no real event says that it is a test.
    let real = ("1".to_owned(), "a".to_owned());
    let mut elsewhere = follow(&world, &streams, Source::Endpoint(other), Start::After(0)).await;
    assert_eq!(events(&mut elsewhere, 1).await, [real]);
    let mut feed = follow(&world, &streams, Source::Feed, Start::After(0)).await;
    let (place, resource) = events(&mut feed, 1).await.remove(0);
    assert_eq!(resource, "a");
    assert_eq!(parse_place(Source::Feed, &place), Some(2));
}
