//! `verify`, `verify_new`: what verifying its token adds to a request.
//!
//! A request that is refused for its path before anything else is done, with a token (`/v1/products/none`), against one that needs none (`/none`): both are routed, logged and
//! answered with a problem of 404. `verify` sends the same token each time, as apps do; `verify_new` sends each token once, so that each signature is
//! verified anew.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::Full;

use crate::{
    Options,
    figure::{Figure, Sample},
    load::{self, Message},
    world::World,
};

/// Which tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// One, again and again.
    Same,
    /// Each once.
    New,
}

/// Tokens at hand for a round of new ones: more than the server remembers, and more than a round of a second can use.
const TOKENS: usize = 20_000;

/// Measures.
pub(crate) async fn run(options: &Options, tokens: Tokens) -> Figure {
    let world = World::start(None).await;
    let address = world.address();
    let duration = match tokens {
        Tokens::Same => Duration::from_secs(options.seconds),
        Tokens::New => Duration::from_secs(1),
    };
    let (name, ceiling_name) = match tokens {
        Tokens::Same => (
            "verify",
            "the same without a token; the same token each time",
        ),
        Tokens::New => ("verify_new", "the same without a token; each token once"),
    };
    Figure::measure(
        name,
        "requests/s",
        ceiling_name,
        options,
        async || {
            let tokens = match tokens {
                Tokens::Same => vec![world.authorization()],
                Tokens::New => world.tokens(TOKENS).await,
            };
            let make = move |number: u64| {
                let place = usize::try_from(number).unwrap();
                let token = if tokens.len() == 1 {
                    &tokens[0]
                } else {
                    tokens.get(place).expect("enough tokens for a round")
                };
                request(address, "/v1/products/none", Some(token))
            };
            world
                .load(options.connections, duration, 404, 0, make)
                .await
                .0
        },
        async || {
            let make = move |_| request(address, "/none", None);
            let (sample, _): (Sample, u64) = world
                .load(options.connections, duration, 404, 0, make)
                .await;
            sample
        },
    )
    .await
}

fn request(address: SocketAddr, path: &str, authorization: Option<&str>) -> Message {
    let mut request = load::request("GET", address, path);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    request.body(Full::default()).unwrap()
}

impl World {
    /// So many tokens, each different, as headers.
    async fn tokens(&self, count: usize) -> Vec<String> {
        let tokens = Arc::new(Mutex::new(Vec::with_capacity(count)));
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (client, tokens) = (self.client.clone(), Arc::clone(&tokens));
            asking.spawn(async move {
                while tokens.lock().unwrap().len() < count {
                    let answer = client.request_token(&[]).await;
                    let token = answer.json["access_token"].as_str().expect("a token");
                    tokens.lock().unwrap().push(format!("Bearer {token}"));
                }
            });
        }
        asking.join_all().await;
        std::mem::take(&mut tokens.lock().unwrap())
    }
}
