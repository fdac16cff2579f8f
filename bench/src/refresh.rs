//! `refresh`: refresh tokens rotated, each connection its own family, against the same rows by pgbench.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::{
    Options,
    ceiling::Ceiling,
    cpu::Cpu,
    figure::{Figure, Sample},
    load,
    world::World,
};

/// How each connection's first refresh token begins; what follows is its number.
const FIRST: &str = "stoa_refresh_first_";

/// Families for the connections, as a code's redemption makes them.
const FAMILIES: &str = "
insert into public.refresh_families (id, app_id, merchant_id, grant_id, scopes, created_at)
select lpad(to_hex(number), 32, '0')::uuid, app_id, merchant_id, id, scopes, now()
from public.grants, generate_series(1, {connections}) as number
where id = '{grant}';
insert into public.refresh_tokens (token_sha256, family_id, created_at, expires_at)
select sha256(convert_to('{first}' || number, 'UTF8')), lpad(to_hex(number), 32, '0')::uuid, now(), now() + interval '30 days'
from generate_series(1, {connections}) as number;
insert into ceiling.refresh_families select * from public.refresh_families;
insert into ceiling.refresh_tokens select * from public.refresh_tokens;
";

/// What a refresh reads and writes: the client and its secrets, the token and its family under the family's lock, the grant; the successor, and what the token became.
const ROTATION: &str = r"
\set family :client_id + 1
\set next :number + 1
\startpipeline
begin;
select a.id, s.secret_sha256 from public.apps a join public.app_secrets s on s.app_id = a.id where a.id = '{app}';
select family_id from ceiling.refresh_tokens where token_sha256 = sha256(convert_to('{first}' || :family::bigint || '-' || :number::bigint, 'UTF8'));
select * from ceiling.refresh_families where id = lpad(to_hex(:family::bigint), 32, '0')::uuid for update;
select * from ceiling.refresh_tokens where token_sha256 = sha256(convert_to('{first}' || :family::bigint || '-' || :number::bigint, 'UTF8'));
select * from public.grants where id = '{grant}';
update ceiling.refresh_tokens
set rotated_at = now(), successor_sha256 = sha256(convert_to('{first}' || :family::bigint || '-' || :next::bigint, 'UTF8')), sealed_successor = decode(repeat('00', 88), 'hex')
where token_sha256 = sha256(convert_to('{first}' || :family::bigint || '-' || :number::bigint, 'UTF8'));
insert into ceiling.refresh_tokens (token_sha256, family_id, created_at, expires_at)
values (sha256(convert_to('{first}' || :family::bigint || '-' || :next::bigint, 'UTF8')), lpad(to_hex(:family::bigint), 32, '0')::uuid, now(), now() + interval '30 days');
commit;
\endpipeline
\set number :next
";

/// Measures.
pub(crate) async fn run(options: &Options) -> Figure {
    let world = World::start(None).await;
    let ceiling = Ceiling::new(&world.stoa);
    let (grant, app) = {
        let ids = ceiling.psql("select id, app_id from public.grants");
        let (grant, app) = ids.trim().split_once('|').unwrap();
        (grant.to_owned(), app.to_owned())
    };
    ceiling.psql(
        &FAMILIES
            .replace("{connections}", &options.connections.to_string())
            .replace("{grant}", &grant)
            .replace("{first}", FIRST),
    );
    let duration = Duration::from_secs(options.seconds);
    let mut tokens: Vec<String> = (1..=options.connections)
        .map(|number| format!("{FIRST}{number}"))
        .collect();
    let mut round = 0;
    Figure::measure(
        "refresh",
        "refreshes/s",
        "the same rows by pgbench, one transaction a refresh",
        options,
        async || {
            let before = Cpu::of(&world.stoa);
            let (sample, successors) =
                rotate(&world, std::mem::take(&mut tokens), duration).await;
            tokens = successors;
            Sample {
                cpu: Cpu::of(&world.stoa) - before,
                ..sample
            }
        },
        async || {
            // Each run of pgbench counts from its own beginning: its families begin anew.
            round += 1;
            let first = format!("{FIRST}{round}-");
            ceiling.psql(&format!(
                "insert into ceiling.refresh_tokens (token_sha256, family_id, created_at, expires_at)
                select sha256(convert_to('{first}' || number || '-0', 'UTF8')), lpad(to_hex(number), 32, '0')::uuid, now(), now() + interval '30 days'
                from generate_series(1, {}) as number;
                analyze ceiling.refresh_tokens, ceiling.refresh_families;",
                options.connections
            ));
            let script = ROTATION
                .replace("{first}", &first)
                .replace("{app}", &app)
                .replace("{grant}", &grant);
            ceiling.pgbench_with(&script, options.connections, duration, &[("number", "0")])
        },
    )
    .await
}

/// Each token refreshed over and over on a connection of its own; gives the last ones.
async fn rotate(world: &World, tokens: Vec<String>, duration: Duration) -> (Sample, Vec<String>) {
    let address = world.address();
    let credentials = world.client.credentials.clone();
    let mut senders = HashMap::new();
    for token in tokens {
        senders.insert(token, load::connect(address).await);
    }
    let started = Instant::now();
    let mut rotating = JoinSet::new();
    for (mut token, mut sender) in senders {
        let credentials = credentials.clone();
        rotating.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < duration {
                let body = format!(
                    "grant_type=refresh_token&refresh_token={token}&client_id={}&client_secret={}",
                    credentials.client_id, credentials.client_secret
                );
                let request = load::request("POST", address, "/oauth/token")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body.into())
                    .unwrap();
                let sent = Instant::now();
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                let status = answer.status();
                let body = answer.into_body().collect().await.unwrap().to_bytes();
                latencies.push(sent.elapsed());
                let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(status, 200, "{answer}");
                answer["refresh_token"]
                    .as_str()
                    .expect("a refresh token")
                    .clone_into(&mut token);
            }
            (token, latencies)
        });
    }
    let (tokens, latencies): (Vec<_>, Vec<_>) = rotating.join_all().await.into_iter().unzip();
    let latencies = latencies.concat();
    let sample = Sample {
        operations: latencies.len() as u64,
        elapsed: started.elapsed(),
        latencies,
        ..Sample::default()
    };
    (sample, tokens)
}
