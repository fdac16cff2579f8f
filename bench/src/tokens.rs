//! `tokens`, `token_rows`: access tokens by client credentials, against signing the same bytes in one thread, and against reading the same rows by pgbench.

use std::time::{Duration, Instant};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use bytes::Bytes;
use http_body_util::Full;

use crate::{
    Options,
    ceiling::Ceiling,
    figure::{Figure, Sample},
    load,
    world::World,
};

/// What tokens are measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    /// The signature alone.
    Signing,
    /// The rows alone: the app with its secrets, and the grant.
    Rows,
}

/// What is read for a token.
const ROWS: &str = r"
\startpipeline
begin;
select a.*, s.secret_sha256, s.expires_at from public.apps a join public.app_secrets s on s.app_id = a.id where a.id = '{app}';
select * from public.grants where merchant_id = '{merchant}' and app_id = '{app}' and revoked_at is null;
commit;
\endpipeline
";

/// Measures.
pub(crate) async fn run(options: &Options, against: Against) -> Figure {
    let world = World::start(None).await;
    let ceiling = Ceiling::new(&world.stoa);
    let ids = ceiling.psql("select merchant_id, app_id from public.grants");
    let (merchant, app) = ids.trim().split_once('|').unwrap();
    let rows = ROWS.replace("{merchant}", merchant).replace("{app}", app);
    let (name, ceiling_name) = match against {
        Against::Signing => ("tokens", "ES256 signatures of the same bytes, one thread"),
        Against::Rows => ("token_rows", "the same rows read by pgbench"),
    };
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
        name,
        "tokens/s",
        ceiling_name,
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
            if against == Against::Rows {
                return ceiling.pgbench(&rows, options.connections, duration);
            }
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
