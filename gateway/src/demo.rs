//! The demo: the whole way through on one machine, told step by step.
//!
//! A private PostgreSQL, the server, a merchant, an app, two receivers of webhooks on loopback, one of which fails. Everything goes through the
//! API as any app would, and what arrives is verified by an implementation of Standard Webhooks that is not ours. A step that falls short ends
//! the demo with an error that says what was expected.

use std::{net::SocketAddr, path::PathBuf};

use kernel::scope::ScopeSet;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{CommandResult, say},
    client::{Client, ClientCredentials, Options as ClientOptions, Resource, Source},
    composition::{Foundation, Server},
    config::{Delivery, EVENT_RETENTION_DAYS, ProcessRole, Serve, Storage},
};

mod receiver;
mod story;

/// How to show it.
#[derive(Debug)]
pub(crate) struct Options {
    /// A catalog instead of the generated one.
    pub(crate) catalog: Option<PathBuf>,
    /// Whether to exit after the last step.
    pub(crate) once: bool,
    /// Where to write addresses and credentials.
    pub(crate) json: Option<PathBuf>,
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where to keep the data.
    pub(crate) data_dir: Option<PathBuf>,
}

/// Pauses between attempts, in seconds: short enough to watch a delivery being given up on.
const RETRY_SCHEDULE_S: [u64; 2] = [1, 2];

/// Connections of the server's pool.
const DATABASE_CONNECTIONS: u32 = 32;

/// What the demo's app may do.
pub(crate) const SCOPE: &str = "catalog:write inventory:write orders:write orders.pii:read locations:write customers:read \
    fulfillments:write webhooks:write events:read";

/// What other programs are told.
#[derive(Debug, Serialize)]
pub(crate) struct Addresses {
    base_url: String,
    merchant_id: String,
    resource: String,
    client_id: String,
    client_secret: String,
    scope: String,
    webhook_endpoint_id: String,
    webhook_secret: String,
    server_pid: u32,
    postgres_pid: Option<u32>,
}

/// Shows it; a failure if a step fell short.
pub(crate) async fn run(options: Options) -> CommandResult {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (data_dir, temporary) = match &options.data_dir {
        Some(data_dir) => (data_dir.clone(), false),
        None => (
            std::env::temp_dir().join(format!("stoa-demo-{}", uuid::Uuid::now_v7().simple())),
            true,
        ),
    };
    let serve = Serve {
        storage: Storage {
            data_dir: data_dir.clone(),
            database_url: None,
            master_key_file: None,
        },
        listen: options.listen,
        public_url: None,
        trusted_proxies: 0,
        event_sinks: crate::config::EventSinks::default(),
        upstream: crate::config::Upstream::default(),
        observation: crate::config::Observation::default(),
        role: ProcessRole::All,
        database_connections: DATABASE_CONNECTIONS,
        delivery: Delivery {
            allow_private_targets: true,
            webhook_proxy: None,
            retry_schedule_s: Some(RETRY_SCHEDULE_S.to_vec()),
            event_retention_days: EVENT_RETENTION_DAYS,
        },
    };
    say("Stoa, a merchant integration gateway: one binary and one PostgreSQL.\n");
    let foundation = Foundation::open(&serve.storage).await?;
    let server = Server::start(&serve, &foundation).await?;
    let outcome = tokio::select! {
        outcome = show(&options, &foundation, &server) => outcome,
        _ = interrupt.recv() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    };
    let told = outcome.is_ok();
    if told && !options.once {
        say("\nStill here: press Ctrl-C to stop.");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    server.stop().await;
    foundation.close().await;
    if temporary {
        // What is left behind lies in the system's temporary directory, and harms nobody.
        let _ = std::fs::remove_dir_all(&data_dir);
    }
    outcome
}

/// Makes a merchant and an app, tells the story, and prints how to go on.
async fn show(options: &Options, foundation: &Foundation, server: &Server) -> CommandResult {
    let merchant = foundation.create_merchant("Halden Outfitters").await?;
    let app = foundation.create_app("Demo ERP").await?;
    let input = auth::grant::GrantInput {
        scopes: SCOPE.parse::<ScopeSet>()?,
        locations: None,
        personal_data: true,
        expires_at: None,
    };
    foundation.grant(merchant.id, app.app.id, input).await?;
    let client_secret = app
        .client_secret
        .as_ref()
        .map_or_else(String::new, |secret| secret.expose().to_owned());
    let base_url = server.issuer().as_str().to_owned();
    let resource = server.issuer().resource(merchant.id);
    let client = Client::new(ClientOptions {
        url: base_url.parse()?,
        source: Source::ClientCredentials(ClientCredentials {
            client_id: app.app.id.to_string(),
            client_secret: oauth2::ClientSecret::new(client_secret.clone()),
            resource: Resource::Url(resource.clone()),
            scope: SCOPE.to_owned(),
        }),
    })?;
    let endpoint = story::tell(&client, options.catalog.as_deref()).await?;
    let addresses = Addresses {
        base_url,
        merchant_id: merchant.id.to_string(),
        resource,
        client_id: app.app.id.to_string(),
        client_secret,
        scope: SCOPE.to_owned(),
        webhook_endpoint_id: endpoint.id,
        webhook_secret: endpoint.secret,
        server_pid: std::process::id(),
        postgres_pid: foundation.postgres_pid(),
    };
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_vec_pretty(&addresses)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if !options.once {
        invite(&addresses);
    }
    Ok(())
}

/// How to go on by hand; every line works as printed.
fn invite(addresses: &Addresses) {
    let Addresses {
        base_url,
        resource,
        client_id,
        client_secret,
        webhook_endpoint_id,
        ..
    } = addresses;
    say(format_args!(
        "\nTry it yourself:\n\n\
         export STOA_URL={base_url}\n\
         export STOA_CLIENT_ID={client_id}\n\
         export STOA_CLIENT_SECRET={client_secret}\n\
         export STOA_RESOURCE={resource}\n\n\
         TOKEN=$(curl -s -u \"$STOA_CLIENT_ID:$STOA_CLIENT_SECRET\" $STOA_URL/oauth/token \\\n  \
           -d grant_type=client_credentials -d resource=$STOA_RESOURCE | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\n\
         curl -sw '\\n' -H \"Authorization: Bearer $TOKEN\" \"$STOA_URL/v1/products?limit=1\"\n\
         curl -sw '\\n' -H \"Authorization: Bearer $TOKEN\" \"$STOA_URL/v1/orders?limit=1\"\n\
         curl -sw '\\n' -H \"Authorization: Bearer $TOKEN\" \"$STOA_URL/v1/webhook-endpoints/{webhook_endpoint_id}/events?after=0&limit=2\"\n\
         curl -sw '\\n' -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' $STOA_URL/graphql \\\n  \
           -d '{{\"query\": \"{{ orders(first: 2) {{ nodes {{ id status total {{ amount currency }} }} }} }}\"}}'\n\
         curl -sw '\\n' $STOA_URL/openapi.json"
    ));
}
