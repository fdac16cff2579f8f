//! REST: a thin coat over the domain. A handler extracts, makes one domain call, and answers.
//!
//! Each module has the operations of one resource, with their description for OpenAPI beside them. The scope that a handler's
//! `security` names is for the reader of the document; the domain call is what enforces it.

use std::sync::Arc;

use axum::Router;
use kernel::{
    actor::{AccessSource, Actor},
    clock::Clock,
    db::{self, Database, Transaction},
    idempotency::{Groups, Idempotency, Operation},
    keyring::Keyring,
};
use utoipa_axum::router::OpenApiRouter;

use crate::edge::{
    IdempotencyKey, Mutated,
    fault::{Fault, FaultOfOperation},
};

mod app_webhook_endpoints;
mod audit_entries;
mod catalog_imports;
mod customers;
mod event_streams;
mod events;
mod fulfillments;
mod inventory;
mod leases;
mod locations;
mod orders;
mod parameters;
mod products;
mod service;
mod test_events;
mod webhook_deliveries;
mod webhook_endpoints;
mod webhook_keys;
mod webhook_replays;

pub(crate) use service::Health;

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Services {
    /// The API role's database.
    pub(crate) database: Database,
    /// What grants allow while a request goes on.
    pub(crate) grants: Arc<dyn AccessSource>,
    /// The clock.
    pub(crate) clock: Clock,
    /// The key ring.
    pub(crate) keyring: Arc<Keyring>,
    /// Runs mutations once per key.
    pub(crate) idempotency: Idempotency,
    /// Places orders in groups.
    pub(crate) placing: Groups<commerce::order::Place>,
    /// Sets stock in groups.
    pub(crate) setting: Groups<commerce::inventory::Set>,
    /// Adjusts stock in groups.
    pub(crate) adjusting: Groups<commerce::inventory::Adjust>,
    /// Tells the relay of committed events.
    pub(crate) announcer: kernel::event::Announcer,
    /// Hands events out to pull consumers.
    pub(crate) leasing: webhooks::pull::Leasing,
    /// Follows streams as they grow.
    pub(crate) streams: webhooks::follow::Streams,
    /// What an endpoint's address may be.
    pub(crate) address_policy: webhooks::client::AddressPolicy,
}

impl Services {
    /// A transaction for a list, which has entered the actor's merchant; reads need not commit it.
    pub(crate) async fn enter(&self, actor: &Actor) -> Result<Transaction, db::Error> {
        self.database.enter(actor.merchant).await
    }

    /// A transaction for what is found by its id.
    pub(crate) async fn enter_by_key(&self, actor: &Actor) -> Result<Transaction, db::Error> {
        self.database.enter_by_key(actor.merchant).await
    }

    /// Runs an operation once for its key: 200.
    pub(crate) async fn once<O: Operation>(
        &self,
        actor: &Actor,
        key: &IdempotencyKey,
        operation: &O,
    ) -> Result<Mutated<O::Output>, FaultOfOperation>
    where
        kernel::problem::Problem: From<O::Error>,
    {
        let answer = self
            .idempotency
            .once(actor, &key.0, operation)
            .await
            .map_err(Fault::of_operation)?;
        Ok(Mutated::ok(answer))
    }
}

/// Everything under `/v1`.
fn versioned() -> OpenApiRouter<Services> {
    OpenApiRouter::new()
        .merge(products::routes())
        .merge(catalog_imports::routes())
        .merge(locations::routes())
        .merge(inventory::routes())
        .merge(orders::routes())
        .merge(fulfillments::routes())
        .merge(customers::routes())
        .merge(webhook_endpoints::routes())
        .merge(webhook_deliveries::routes())
        .merge(webhook_replays::routes())
        .merge(webhook_keys::routes())
        .merge(app_webhook_endpoints::routes())
        .merge(leases::routes())
        .merge(test_events::routes())
        .merge(events::routes())
        .merge(event_streams::routes())
        .merge(audit_entries::routes())
}

/// The routes under `/v1`, to be put behind authentication.
pub(crate) fn router(services: Services) -> Router {
    versioned().with_state(services).split_for_parts().0
}

/// The routes that need no token, but work with what the others do.
pub(crate) fn public_router(services: Services) -> Router {
    webhook_keys::public_routes()
        .with_state(services)
        .split_for_parts()
        .0
}

/// The routes of the service itself.
pub(crate) fn service_router(health: Health) -> Router {
    service::routes().with_state(health).split_for_parts().0
}

/// Adds every route's description to a document.
pub(crate) fn describe(base: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let (_, versioned) = OpenApiRouter::<Services>::with_openapi(base)
        .merge(versioned())
        .merge(webhook_keys::public_routes())
        .split_for_parts();
    let (_, service) = OpenApiRouter::<Health>::with_openapi(versioned)
        .merge(service::routes())
        .split_for_parts();
    let (_, all) = OpenApiRouter::<auth::http::State>::with_openapi(service)
        .merge(auth::http::routes())
        .split_for_parts();
    all
}
