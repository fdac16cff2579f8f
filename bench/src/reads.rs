//! `reads`: products read by id, against a bare handler that answers with the same bytes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;

use crate::{
    Options,
    bare::{Answers, Bare},
    cpu::Cpu,
    figure::{Figure, Sample},
    load,
    world::World,
};

/// Products that are read.
const PRODUCTS: u64 = 1_000;

/// Headers that a connection or the handler's server makes by itself.
const NOT_COPIED: [&str; 4] = ["content-length", "date", "connection", "transfer-encoding"];

/// Measures.
pub(crate) async fn run(options: &Options) -> Figure {
    let world = World::start(None).await;
    world.import(PRODUCTS).await;
    let mut bodies = HashMap::new();
    let mut headers = Vec::new();
    for product in world.products().await {
        let id = product["id"].as_str().unwrap().to_owned();
        let answer = world.client.get(&format!("/v1/products/{id}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let copied = answer
            .headers
            .iter()
            .filter(|(name, _)| !NOT_COPIED.contains(&name.as_str()));
        headers = copied
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        bodies.insert(id, answer.text);
    }
    let paths: Arc<[String]> = bodies
        .keys()
        .map(|id| format!("/v1/products/{id}"))
        .collect();
    let handler = Bare::start(
        "handler",
        &serde_json::to_vec(&Answers { headers, bodies }).unwrap(),
    );

    let authorization = world.authorization();
    let duration = Duration::from_secs(options.seconds);
    let make = |address| {
        let (paths, authorization) = (Arc::clone(&paths), authorization.clone());
        move |number: u64| {
            let path = &paths[usize::try_from(number).unwrap() % paths.len()];
            load::request("GET", address, path)
                .header("authorization", &authorization)
                .body(Full::new(Bytes::new()))
                .unwrap()
        }
    };
    Figure::measure(
        "reads",
        "reads/s",
        "a bare axum handler answering the same bytes",
        options,
        async || {
            let (sample, _) = world
                .load(options.connections, duration, 200, 0, make(world.address()))
                .await;
            sample
        },
        async || {
            let before = Cpu::of(&world.stoa);
            let address = handler.address();
            let (sample, _) = load::send(
                address,
                options.connections,
                duration,
                StatusCode::OK,
                0,
                make(address),
            )
            .await;
            Sample {
                cpu: Cpu::of(&world.stoa) - before,
                ..sample
            }
        },
    )
    .await
}
