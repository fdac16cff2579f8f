//! A merchant, an app with a grant, and what is needed to make events and endpoints.

use std::{sync::Arc, time::Duration};

use kernel::{
    actor::{Access, Actor},
    clock::{Clock, Timestamp},
    db::Database,
    event::{Announcer, NewEvent, ResourceRef, SealedPersonal, append},
    id::{AppId, DataSubjectId, EventId, GrantId, LocationId, MerchantId, RequestId},
    idempotency::{Call, Operation},
    keyring::Keyring,
    page::PageRequest,
    personal,
    scope::Scope,
    test_database::{self, TestDatabase},
};
use serde_json::{Value, json, value::to_raw_value};
use sqlx::Row;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{self, AddressPolicy, Client},
    dead_letter::{self, DeadLetter},
    endpoint::{
        Create, CreatedEndpoint, Endpoint, EndpointChange, EndpointId, EndpointInput, Setting,
        Update, UpdateInput,
    },
    error::Error,
    relay::{Relay, Wake},
    retry::Schedule,
    worker::{Config, Limits, Worker},
};

/// All attempts, wherever they are kept, as something to select from.
pub(super) const ATTEMPTS: &str = "(
    select merchant_id, endpoint_id, id, sequence, number, started_at, status
    from attempts
    union all
    select run.merchant_id, run.endpoint_id, made.id, made.sequence, made.number, made.started_at, made.status
    from attempt_runs as run
    cross join unnest(run.ids, run.sequences, run.numbers, run.started_at, run.statuses) as made (id, sequence, number, started_at, status)
) as attempts";

pub(super) const POLICY: AddressPolicy = AddressPolicy {
    allow_private: true,
    allow_link_local: false,
    allow_http: true,
};

/// Longest wait for anything: far beyond what is expected, so that only a fault reaches it.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct World {
    pub(super) database: TestDatabase,
    pub(super) api: Database,
    pub(super) worker: Database,
    pub(super) keyring: Arc<Keyring>,
    pub(super) clock: Clock,
    pub(super) announcer: Announcer,
    pub(super) wake: Wake,
    pub(super) merchant: MerchantId,
    pub(super) actor: Actor,
}

/// An event that a test appends: a resource, its version, and what else differs from an order that everybody may see.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) kind: &'static str,
    pub(super) resource: String,
    pub(super) version: i64,
    pub(super) scope: Scope,
    pub(super) locations: Vec<LocationId>,
    pub(super) personal: Option<Value>,
    pub(super) at: Option<Timestamp>,
}

/// A worker's limits, which lets go of idle lanes soon, so that tests see it do so.
pub(super) fn limits() -> Limits {
    Limits {
        linger: Duration::from_millis(100),
        ..Limits::default()
    }
}

pub(super) fn made(resource: &str, version: i64) -> Made {
    Made {
        kind: "order.placed",
        resource: resource.to_owned(),
        version,
        scope: Scope::OrdersRead,
        locations: Vec::new(),
        personal: None,
        at: None,
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::at(Clock::system()).await
    }

    pub(super) async fn at(clock: Clock) -> Self {
        let database = TestDatabase::create().await.unwrap();
        let keyring = Arc::new(test_database::keyring().unwrap());
        let now = clock.now();
        let merchant = database.merchant(&keyring, now).await.unwrap();
        let (api, worker) = (database.api(), database.worker());
        let actor = Actor {
            merchant,
            app: AppId::new(now),
            grant: GrantId::new(now),
            access: Access {
                scopes: scopes("orders:read orders.pii:read webhooks:write events:read"),
                locations: None,
                personal_data: true,
            },
            request: RequestId::new(now),
        };
        let world = Self {
            database,
            api,
            worker,
            keyring,
            clock,
            announcer: Announcer::default(),
            wake: Wake::default(),
            merchant,
            actor,
        };
        world.grant(&world.actor).await;
        world
    }

    /// Another app of the same merchant.
    pub(super) async fn other_app(&self, access: Access) -> Actor {
        let now = self.clock.now();
        let actor = Actor {
            app: AppId::new(now),
            grant: GrantId::new(now),
            access,
            ..self.actor.clone()
        };
        self.grant(&actor).await;
        actor
    }

    async fn grant(&self, actor: &Actor) {
        let mut tx = self.api.begin().await.unwrap();
        let now = self.clock.now();
        sqlx::query(
            "insert into apps (id, name, secret_sha256, created_at) values ($1, 'App', $2, $3)",
        )
        .bind(actor.app)
        .bind(vec![0_u8; 32])
        .bind(now)
        .execute(&mut *tx)
        .await
        .unwrap();
        sqlx::query(
            "insert into grants (id, merchant_id, app_id, scopes, locations, personal_data, epoch, version, created_at, changed_at)
            values ($1, $2, $3, $4, $5, $6, 1, 1, $7, $7)",
        )
        .bind(actor.grant)
        .bind(actor.merchant)
        .bind(actor.app)
        .bind(actor.access.scopes.names())
        .bind(actor.access.location_uuids())
        .bind(actor.access.personal_data)
        .bind(now)
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }

    /// Changes what the app's grant allows.
    pub(super) async fn narrow(&self, names: &str) {
        let mut tx = self.api.begin().await.unwrap();
        sqlx::query(
            "update grants set scopes = $2, epoch = epoch + 1, changed_at = $3 where id = $1",
        )
        .bind(self.actor.grant)
        .bind(scopes(names).names())
        .bind(self.clock.now())
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
    }

    pub(super) fn setting(&self) -> Setting {
        Setting {
            keyring: Arc::clone(&self.keyring),
            policy: POLICY,
            is_event_type: |_| true,
        }
    }

    pub(super) fn call(&self) -> Call<'_> {
        Call {
            actor: &self.actor,
            now: self.clock.now(),
        }
    }

    /// An endpoint's dead letters, as the app sees them.
    pub(super) async fn dead_letters(&self, endpoint: EndpointId) -> Vec<DeadLetter> {
        let page = PageRequest {
            limit: 10,
            after: None,
        };
        let now = self.clock.now();
        let mut tx = self.api.enter(self.merchant).await.unwrap();
        let listed =
            dead_letter::list(&mut tx, &self.actor, &self.keyring, endpoint, &page, now).await;
        listed.unwrap().data
    }

    /// Runs an operation as the app, in a transaction of its own.
    pub(super) async fn run<O: Operation<Error = Error>>(
        &self,
        operation: &O,
    ) -> Result<O::Output, Error> {
        self.run_as(&self.actor, operation).await
    }

    pub(super) async fn run_as<O: Operation<Error = Error>>(
        &self,
        actor: &Actor,
        operation: &O,
    ) -> Result<O::Output, Error> {
        let mut tx = self.api.enter(self.merchant).await.unwrap();
        let now = self.clock.now();
        let output = operation.run(&mut tx, Call { actor, now }).await?;
        tx.commit().await.unwrap();
        self.announcer.announce(self.merchant, now);
        Ok(output)
    }

    pub(super) async fn endpoint(&self, url: Option<&str>) -> CreatedEndpoint {
        self.endpoint_of(&self.actor, url, None).await
    }

    pub(super) async fn endpoint_of(
        &self,
        actor: &Actor,
        url: Option<&str>,
        kinds: Option<&[&str]>,
    ) -> CreatedEndpoint {
        let input = EndpointInput {
            url: url.map(str::to_owned),
            event_types: kinds.map(|kinds| kinds.iter().map(|kind| (*kind).to_owned()).collect()),
            ..EndpointInput::default()
        };
        self.run_as(
            actor,
            &Create {
                input,
                setting: self.setting(),
            },
        )
        .await
        .unwrap()
    }

    pub(super) async fn change(
        &self,
        id: EndpointId,
        change: EndpointChange,
    ) -> Result<Endpoint, Error> {
        let input = UpdateInput {
            id,
            version: None,
            change,
        };
        self.run(&Update {
            input,
            setting: self.setting(),
        })
        .await
    }

    pub(super) async fn append(&self, events: &[Made]) -> Vec<EventId> {
        let mut ids = Vec::new();
        let mut since = self.clock.now();
        let mut tx = self.api.enter(self.merchant).await.unwrap();
        for event in events {
            let now = event.at.unwrap_or_else(|| self.clock.now());
            since = now.min(since);
            let mut personal = None;
            if let Some(part) = &event.personal {
                let subject = DataSubjectId::new(now);
                let keys =
                    personal::create_keys(&mut tx, &self.keyring, self.merchant, &[subject], now)
                        .await
                        .unwrap();
                let sealed = keys[&subject]
                    .seal(kernel::event::PERSONAL_CONTEXT, part.to_string().as_bytes())
                    .unwrap();
                personal = Some(SealedPersonal { subject, sealed });
            }
            let new = NewEvent {
                kind: event.kind,
                resource: ResourceRef {
                    kind: "order",
                    id: event.resource.clone(),
                    version: event.version,
                },
                scope: event.scope,
                locations: event.locations.clone(),
                data: to_raw_value(&json!({"id": event.resource, "version": event.version}))
                    .unwrap(),
                personal,
            };
            ids.extend(
                append(&mut tx, self.merchant, self.actor.request, now, &[new])
                    .await
                    .unwrap(),
            );
        }
        tx.commit().await.unwrap();
        self.announcer.announce(self.merchant, since);
        ids
    }

    pub(super) fn relay(&self) -> Relay {
        Relay::new(
            self.worker.clone(),
            self.clock.clone(),
            Arc::clone(&self.keyring),
            self.announcer.clone(),
            self.wake.clone(),
        )
    }

    /// Moves everything that is in the outbox.
    pub(super) async fn relay_all(&self) {
        while self.relay().pass(self.merchant).await.unwrap().events > 0 {}
    }

    pub(super) fn worker(&self, waits: &[Duration], limits: Limits) -> Worker {
        self.worker_by(Schedule::new(waits.to_vec()), limits)
    }

    pub(super) fn worker_by(&self, schedule: Schedule, limits: Limits) -> Worker {
        self.worker_over(self.worker.clone(), schedule, limits)
    }

    /// A worker with connections of its own, for a runtime of its own: connections end with the runtime that they were opened in.
    pub(super) fn worker_apart(&self, waits: &[Duration], limits: Limits) -> Worker {
        let schedule = Schedule::new(waits.to_vec());
        self.worker_over(self.database.worker(), schedule, limits)
    }

    fn worker_over(&self, database: Database, schedule: Schedule, limits: Limits) -> Worker {
        let client = Client::new(client::Config {
            policy: POLICY,
            ..client::Config::default()
        })
        .unwrap();
        Worker::new(
            database,
            self.clock.clone(),
            Arc::clone(&self.keyring),
            self.announcer.clone(),
            self.wake.clone(),
            client,
            Config { limits, schedule },
        )
    }

    /// Starts relay and worker, which stop with what is given back.
    pub(super) fn start(&self, waits: &[Duration]) -> Running {
        let (relay, worker) = (self.relay(), self.worker(waits, limits()));
        let stop = CancellationToken::new();
        let (for_relay, for_worker) = (stop.clone(), stop.clone());
        let task = tokio::spawn(async move {
            tokio::join!(relay.run(for_relay), worker.run(for_worker));
        });
        Running { stop, task }
    }

    pub(super) async fn count(&self, sql: &str) -> i64 {
        self.database.count(sql).await.unwrap()
    }

    /// Waits until a count is what it should become.
    pub(super) async fn until(&self, sql: &str, expected: i64) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.count(sql).await != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{sql} is {} and not {expected}", self.count(sql).await);
        }
    }

    /// An endpoint's stream as the tables have it: sequence, resource and version.
    pub(super) async fn stream(&self, endpoint: EndpointId) -> Vec<(i64, String, i64)> {
        let mut tx = self.worker.begin().await.unwrap();
        let rows = sqlx::query(
            "select streams.sequence, events.resource_id, events.resource_version
            from streams
            join events on events.merchant_id = streams.merchant_id and events.id = streams.event_id
            where streams.merchant_id = $1 and streams.endpoint_id = $2
            order by streams.sequence",
        )
        .bind(self.merchant)
        .bind(endpoint)
        .fetch_all(&mut *tx)
        .await
        .unwrap();
        rows.into_iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    }
}

/// Relay and worker under way.
pub(super) struct Running {
    stop: CancellationToken,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Stops in good order.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("stops in time")
            .unwrap();
    }
}

pub(super) fn scopes(names: &str) -> kernel::scope::ScopeSet {
    names.parse().unwrap()
}
