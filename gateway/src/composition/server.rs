//! The server: API, relay and workers over a [`Foundation`].

use std::{any::Any, io, net::SocketAddr, sync::Arc, time::Duration};

use auth::{
    account::{Accounts, upstream::UpstreamConfig},
    client::secret::Secret,
};
use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use kernel::{
    actor::AccessSource,
    clock::Clock,
    db::Database,
    event::Announcer,
    idempotency::{Groups, Idempotency},
    migration,
    problem::Problem,
};
use sqlx::Connection;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::catch_panic::CatchPanicLayer;
use webhooks::{
    client::{AddressPolicy, Client},
    follow::{Seats, Streams},
    hub::Hub,
    pull::Leasing,
    relay::{Relay, Wake},
    replay::Replayer,
    retry::Schedule,
    sink::Follower,
    worker::{self, Worker},
};

use super::{Foundation, subscription::Subscribed};
use crate::{
    config::Serve,
    edge::{
        Fault,
        authenticate::authenticate,
        caller::TrustedProxies,
        observe::{Observing, observe},
    },
    private_postgres,
    rest::{self, Health, Services},
};

/// How long requests and deliveries in flight may go on after a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long connections may take to close after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Connections of the worker's pool at least: three listen, and relay, dispatcher, recorder and sweeper work at once.
const WORKER_CONNECTIONS_MIN: u32 = 9;

/// Connections by which a process without a worker hears what others have relayed: one listens, and one looks and tells.
const HUB_CONNECTIONS: u32 = 2;

/// Connections for what must not wait for requests.
const VITAL_CONNECTIONS: u32 = 2;

/// How often idempotency keys are swept, and partitions looked after.
const SWEEP_INTERVAL: Duration = Duration::from_mins(10);

/// What retention counts in.
const DAY: Duration = Duration::from_hours(24);

/// Tells that the private PostgreSQL is not there at the moment.
#[derive(Debug, thiserror::Error)]
#[error("the private PostgreSQL is being started again")]
struct PostgresAway;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}; name another address by --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address for metrics can't be listened on.
    #[error("can't listen on {address}: {source}; name another address by --metrics-listen")]
    ListenForMetrics {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The public address is no origin.
    #[error("the public address {url}: {source}")]
    PublicUrl {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: auth::issuer::IssuerError,
    },
    /// The signing keys can't be read or made, or people's passkeys have no host to belong to.
    #[error(transparent)]
    Authorization(#[from] auth::Error),
    /// The client that sends webhooks can't be made.
    #[error(transparent)]
    Client(#[from] webhooks::client::BuildError),
    /// A stream or an archive that events are to go to can't be.
    #[error(transparent)]
    EventSink(#[from] webhooks::sink::ConfigError),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    issuer: auth::Issuer,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// The pools, closed last.
    databases: Vec<Database>,
}

impl Server {
    /// Fails if the address can't be listened on at the moment.
    pub fn check_listen(serve: &Serve) -> Result<(), StartError> {
        std::net::TcpListener::bind(serve.listen)
            .map(drop)
            .map_err(cannot_listen(serve))
    }

    /// Starts what the role asks for; returns once the address is listened on.
    pub async fn start(serve: &Serve, foundation: &Foundation) -> Result<Self, StartError> {
        let listener = TcpListener::bind(serve.listen)
            .await
            .map_err(cannot_listen(serve))?;
        let metrics_listener = match serve.observation.metrics_listen {
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| StartError::ListenForMetrics { address, source })?)
            }
            None => None,
        };
        let address = listener.local_addr().map_err(cannot_listen(serve))?;
        let url = serve
            .public_url
            .as_ref()
            .map_or_else(|| format!("http://{address}"), ToString::to_string);
        let issuer =
            auth::Issuer::parse(&url).map_err(|source| StartError::PublicUrl { url, source })?;

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let announcer = Announcer::default();
        let hub = Hub::new(stop.clone());
        let database = foundation.api_database(serve.database_connections);
        let vital = foundation.api_database(VITAL_CONNECTIONS);
        let mut databases = vec![database.clone(), vital.clone()];
        let accounts = Arc::new(accounts(serve, foundation, &database, &issuer)?);
        let router = if serve.role.serves() {
            let shared = Shared {
                database: &database,
                vital: &vital,
                accounts: &accounts,
            };
            let told = Told {
                announcer: &announcer,
                hub: &hub,
            };
            api(serve, foundation, shared, told, &issuer, &tasks, &stop).await?
        } else {
            // A worker answers whoever asks for its health.
            rest::service_router(Health { database: vital })
        };
        let stopped = stop.clone();
        tasks.spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            let serving =
                axum::serve(listener, service).with_graceful_shutdown(stopped.cancelled_owned());
            if let Err(error) = serving.await {
                tracing::error!(error = %error, "the server ended");
            }
        });
        let is_measured = metrics_listener.is_some();
        if let Some(listener) = metrics_listener {
            tasks.spawn(crate::metrics::serve(listener, stop.clone()));
        }
        if serve.role.works() {
            let worker = foundation
                .worker_database((serve.database_connections / 2).max(WORKER_CONNECTIONS_MIN));
            databases.push(worker.clone());
            if is_measured {
                let sampler =
                    webhooks::metrics::Sampler::new(worker.clone(), foundation.clock().clone());
                let stopped = stop.clone();
                tasks.spawn(async move { sampler.run(stopped).await });
            }
            let heard = worker.clone();
            let relayed = hub.clone();
            spawn_until(&tasks, &stop, async move { relayed.run(&heard).await });
            let told = Told {
                announcer: &announcer,
                hub: &hub,
            };
            work(serve, foundation, worker, accounts, told, &tasks, &stop)?;
        } else {
            let heard = foundation.worker_database(HUB_CONNECTIONS);
            databases.push(heard.clone());
            spawn_until(&tasks, &stop, async move { hub.run(&heard).await });
            spawn_until(
                &tasks,
                &stop,
                async move { announcer.forward(&database).await },
            );
        }
        tasks.close();
        Ok(Self {
            address,
            issuer,
            stop,
            tasks,
            databases,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that clients know.
    pub fn issuer(&self) -> &auth::Issuer {
        &self.issuer
    }

    /// Takes no new requests, and finishes what is in flight.
    pub async fn stop(&self) {
        self.stop.cancel();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.tasks.len(),
                "stopped with work in flight; its leases and keys see to it"
            );
        }
        for database in &self.databases {
            // A connection that is still at work ends with its PostgreSQL.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, database.close()).await;
        }
    }
}

/// What a failure to listen where `serve` says is.
fn cannot_listen(serve: &Serve) -> impl FnOnce(io::Error) -> StartError {
    let address = serve.listen;
    move |source| StartError::Listen { address, source }
}

/// Runs a loop that has no end of its own until the stop.
fn spawn_until(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let stopped = stop.clone();
    tasks.spawn(async move {
        stopped.run_until_cancelled(work).await;
    });
}

/// What the parts of the API share: the pools of its role, and the people.
#[derive(Clone, Copy)]
struct Shared<'d> {
    /// For requests.
    database: &'d Database,
    /// For what has to go on while requests have every connection of theirs: the view of grants, and the question whether the database is there.
    vital: &'d Database,
    /// For the pages; the sweeper has them too.
    accounts: &'d Arc<Accounts>,
}

/// By whom the parts of the process hear of one another: of events that were committed, and of streams that have grown.
#[derive(Clone, Copy)]
struct Told<'t> {
    announcer: &'t Announcer,
    hub: &'t Hub,
}

/// The API: REST, GraphQL, the authorization server, and the service's own routes.
async fn api(
    serve: &Serve,
    foundation: &Foundation,
    Shared {
        database,
        vital,
        accounts,
    }: Shared<'_>,
    Told { announcer, hub }: Told<'_>,
    issuer: &auth::Issuer,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Router, StartError> {
    let (clock, keyring) = (foundation.clock().clone(), Arc::clone(foundation.keyring()));
    let keys =
        auth::SigningKeys::load_or_create(database.clone(), Arc::clone(&keyring), clock.clone())
            .await?;
    let keys = Arc::new(keys);
    let view = Arc::new(auth::GrantView::new(vital.clone(), clock.clone()));
    let bearer = auth::Bearer::new(
        issuer.clone(),
        Arc::clone(&keys),
        Arc::clone(&view),
        clock.clone(),
    );
    let last_use = Arc::new(auth::grant::LastUse::new(vital.clone(), clock.clone()));
    let bearer = Arc::new(bearer.noting(Arc::clone(&last_use)));
    let stopped = stop.clone();
    tasks.spawn(async move {
        stopped.run_until_cancelled(Box::pin(last_use.run())).await;
        last_use.flush().await;
    });
    let grants: Arc<dyn AccessSource> = Arc::<auth::GrantView>::clone(&view);
    spawn_until(tasks, stop, async move { view.run().await });
    let reloaded = Arc::clone(&keys);
    spawn_until(tasks, stop, async move { reloaded.run().await });

    let idempotency = Idempotency::new(
        database.clone(),
        clock.clone(),
        Arc::clone(&keyring),
        announcer.clone(),
    );
    let placing = Groups::new(idempotency.clone());
    let streams = Streams {
        database: database.clone(),
        keyring: Arc::clone(&keyring),
        clock: clock.clone(),
        hub: hub.clone(),
        seats: Seats::default(),
    };
    let followed: Arc<dyn graphql::Events> = Arc::new(Subscribed(streams.clone()));
    let graphql = graphql::router(graphql::schema(graphql::Services {
        placing: placing.clone(),
        database: database.clone(),
        keyring: Arc::clone(&keyring),
        idempotency: idempotency.clone(),
    }))
    .layer(axum::Extension(followed));
    let services = Services {
        leasing: leasing(serve, &streams, &idempotency),
        streams,
        placing,
        setting: Groups::new(idempotency.clone()),
        adjusting: Groups::new(idempotency.clone()),
        database: database.clone(),
        grants,
        clock: clock.clone(),
        keyring,
        idempotency,
        announcer: announcer.clone(),
        address_policy: address_policy(serve),
    };
    let oauth = auth::http::State {
        issuer: issuer.clone(),
        keys,
        database: database.clone(),
        clock: clock.clone(),
        limiter: Arc::default(),
        errors: auth::client::token_error::TokenErrors::new(database.clone()),
    };
    let pages = console(foundation, database, accounts, announcer, issuer);
    let public = rest::public_router(services.clone());
    let authenticated = rest::router(services)
        .merge(graphql)
        .layer(middleware::from_fn_with_state(bearer, authenticate));
    let postgres = foundation.postgres_state();
    let routed = Router::new()
        .merge(authenticated)
        .merge(public)
        .merge(auth::http::router(oauth))
        .merge(pages)
        .layer(middleware::from_fn_with_state(postgres, refuse_while_away))
        .merge(rest::service_router(Health {
            database: vital.clone(),
        }));
    let observing = Observing {
        clock,
        proxies: TrustedProxies(serve.trusted_proxies),
    };
    Ok(routed
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn_with_state(
            issuer.clone(),
            console::problems_as_pages,
        ))
        .layer(middleware::from_fn_with_state(observing, observe)))
}

/// What hands events out, beside what follows streams.
fn leasing(serve: &Serve, streams: &Streams, idempotency: &Idempotency) -> Leasing {
    Leasing {
        database: streams.database.clone(),
        idempotency: idempotency.clone(),
        keyring: Arc::clone(&streams.keyring),
        clock: streams.clock.clone(),
        hub: streams.hub.clone(),
        seats: streams.seats.clone(),
        attempts_max: schedule(serve).attempts_max(),
    }
}

/// The pages.
fn console(
    foundation: &Foundation,
    database: &Database,
    accounts: &Arc<Accounts>,
    announcer: &Announcer,
    issuer: &auth::Issuer,
) -> Router {
    let clock = foundation.clock();
    console::router(console::Console {
        accounts: Arc::clone(accounts),
        authorizations: auth::authorization::Authorizations::new(
            issuer.clone(),
            database.clone(),
            clock.clone(),
        ),
        developers: auth::client::developer::Developers::new(database.clone(), clock.clone()),
        grants: auth::grant::Grants::new(database.clone(), clock.clone(), announcer.clone()),
        issuer: issuer.clone(),
        clock: clock.clone(),
        database: database.clone(),
    })
}

/// The people, for the pages and for the sweeper.
fn accounts(
    serve: &Serve,
    foundation: &Foundation,
    database: &Database,
    issuer: &auth::Issuer,
) -> Result<Accounts, auth::Error> {
    let accounts = Accounts::new(
        database.clone(),
        Arc::clone(foundation.keyring()),
        foundation.clock().clone(),
        issuer.clone(),
    )?;
    let upstream = &serve.upstream;
    let (Some(url), Some(client_id)) = (&upstream.issuer, &upstream.client_id) else {
        return Ok(accounts);
    };
    accounts.with_upstream(UpstreamConfig {
        issuer: url.clone(),
        client_id: client_id.clone(),
        client_secret: upstream.client_secret.clone().map(Secret::new),
        name: upstream.name.clone().unwrap_or_else(|| url.clone()),
    })
}

/// A handler's panic is a fault of ours like any other: the client gets an answer, and the log its cause.
#[allow(clippy::needless_pass_by_value, reason = "the layer hands it over")]
fn answer_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Fault(Problem::internal(
        text.unwrap_or_else(|| "a handler panicked".to_owned()),
    ))
    .into_response()
}

/// Answers 503 at once while the private PostgreSQL is being started again, rather than having every request wait for a connection.
async fn refuse_while_away(
    State(postgres): State<Option<watch::Receiver<private_postgres::State>>>,
    request: Request,
    next: Next,
) -> Response {
    let away = postgres
        .is_some_and(|state| !matches!(*state.borrow(), private_postgres::State::Running { .. }));
    if !away {
        next.run(request).await
    } else if auth::http::is_for_clients(request.uri().path()) {
        auth::http::unavailable(PostgresAway)
    } else {
        Fault(Problem::unavailable(PostgresAway)).into_response()
    }
}

/// The relay, the workers and the sweeper.
fn work(
    serve: &Serve,
    foundation: &Foundation,
    database: Database,
    accounts: Arc<Accounts>,
    Told { announcer, hub }: Told<'_>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let clock = foundation.clock().clone();
    let wake = Wake::default();
    let follower = Follower::new(
        database.clone(),
        clock.clone(),
        serve.event_sinks.configs()?,
    )?;
    let relay = Relay::new(
        database.clone(),
        clock.clone(),
        Arc::clone(foundation.keyring()),
        announcer.clone(),
        wake.clone(),
    )
    .telling(hub.clone())
    .followed_by(follower.clone());
    let replayer = Replayer::new(database.clone(), clock.clone(), wake.clone());
    let client = Client::new(webhooks::client::Config {
        policy: address_policy(serve),
        proxy: serve.delivery.webhook_proxy.clone(),
        ..webhooks::client::Config::default()
    })?;
    let config = worker::Config {
        schedule: schedule(serve),
        ..worker::Config::default()
    };
    let worker = Worker::new(
        database.clone(),
        clock.clone(),
        Arc::clone(foundation.keyring()),
        announcer.clone(),
        wake,
        client,
        config,
    );
    let stopped = stop.clone();
    tasks.spawn(async move { relay.run(stopped).await });
    let stopped = stop.clone();
    tasks.spawn(async move { worker.run(stopped).await });
    let stopped = stop.clone();
    tasks.spawn(async move { replayer.run(stopped).await });
    let stopped = stop.clone();
    tasks.spawn(async move { follower.run(stopped).await });
    let (expiring, now, announcer) = (database.clone(), clock.clone(), announcer.clone());
    spawn_until(tasks, stop, async move {
        announce_expiring(&expiring, &announcer, &now).await;
    });
    let options = foundation.connect_options().clone();
    let retention = DAY * u32::from(serve.delivery.event_retention_days);
    spawn_until(tasks, stop, async move {
        sweep(database, accounts, options, clock, retention).await;
    });
    Ok(())
}

/// Announces the grants that near their end.
async fn announce_expiring(database: &Database, announcer: &Announcer, clock: &Clock) {
    loop {
        tokio::time::sleep(auth::grant::expiring::INTERVAL).await;
        if let Err(error) = auth::grant::expiring::announce(database, announcer, clock.now()).await
        {
            tracing::warn!(error = %error, "grants that near their end could not be announced");
        }
    }
}

/// Deletes old idempotency keys and what of the authorization server and of webhooks is over, makes the partitions of the days to come, and drops those past
/// their retention.
async fn sweep(
    database: Database,
    accounts: Arc<Accounts>,
    owner: sqlx::postgres::PgConnectOptions,
    clock: Clock,
    retention: Duration,
) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let now = clock.now();
        if let Err(error) = kernel::idempotency::sweep(&database, now).await {
            tracing::warn!(error = %error, "idempotency keys could not be swept");
        }
        if let Err(error) = auth::sweep(&database, now).await {
            tracing::warn!(error = %error, "authorization requests, codes and refresh tokens could not be swept");
        }
        if let Err(error) = accounts.sweep().await {
            tracing::warn!(error = %error, "sessions and invitations could not be swept");
        }
        if let Err(error) = webhooks::sweep(&database, retention, now).await {
            tracing::warn!(error = %error, "counts of hours, versions of endpoints and replays could not be swept");
        }
        let partitions = async {
            let mut connection = sqlx::PgConnection::connect_with(&owner).await?;
            migration::ensure_partitions(&mut connection, now).await?;
            migration::drop_partitions(&mut connection, now.minus(retention)).await?;
            connection.close().await?;
            Ok::<_, kernel::db::Error>(())
        };
        if let Err(error) = partitions.await {
            tracing::warn!(error = %error, "partitions could not be looked after");
        }
    }
}

/// The waits between attempts, where an endpoint has none of its own.
fn schedule(serve: &Serve) -> Schedule {
    let waits = serve.delivery.retry_schedule_s.as_ref();
    waits.map_or_else(Schedule::default, |waits| {
        Schedule::new(waits.iter().copied().map(Duration::from_secs).collect())
    })
}

fn address_policy(serve: &Serve) -> AddressPolicy {
    let allowed = serve.delivery.allow_private_targets;
    AddressPolicy {
        allow_private: allowed,
        allow_link_local: false,
        allow_http: allowed,
    }
}
