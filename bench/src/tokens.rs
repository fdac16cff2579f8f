//! `tokens`: access tokens by client credentials, against signing the same bytes in one thread.

use std::time::{Duration, Instant};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use bytes::Bytes;
use http_body_util::Full;

use crate::{
    Options,
    figure::{Figure, Sample},
    load,
    world::World,
};

/// Measures.
pub(crate) async fn run(options: &Options) -> Figure {
    let world = World::start(None).await;
    let credentials = &world.client.credentials;
    let body = Bytes::from(format!(
        "grant_type=client_credentials&resource={}&client_id={}&client_secret={}",
        world
            .client
            .resource()
            .replace(':', "%3A")
            .replace('/', "%2F"),
        credentials.client_id,
        credentials.client_secret,
    ));
    let address = world.address();
    let duration = Duration::from_secs(options.seconds);
    let token = world.client.token();
    let (signed, _) = token.rsplit_once('.').unwrap();
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
    Figure::measure(
        "tokens",
        "tokens/s",
        "ES256 signatures of the same bytes, one thread",
        options,
        async || {
            let body = body.clone();
            let make = move |_| {
                load::request("POST", address, "/oauth/token")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(Full::new(body.clone()))
                    .unwrap()
            };
            world
                .load(options.connections, duration, 200, 0, make)
                .await
                .0
        },
        async || {
            let started = Instant::now();
            let mut operations = 0;
            while started.elapsed() < duration {
                std::hint::black_box(pair.sign(&random, signed.as_bytes()).unwrap());
                operations += 1;
            }
            Sample {
                operations,
                elapsed: started.elapsed(),
                ..Sample::default()
            }
        },
    )
    .await
}
