//! GraphQL: the schema at `/graphql`, a thin coat over the same domain functions that REST calls.
//!
//! Mounted by the gateway, which authenticates and puts the [`Actor`](kernel::actor::Actor) into the request. A request is measured before anything of it is
//! validated or executed ([`COST_MAX`], [`DEPTH_MAX`]); reads go through loaders, one transaction a batch; every mutation field runs its operation
//! once per idempotency key. No rule of the domain and no SQL lives here.

mod answer_size;
mod connection;
mod document;
mod fault;
mod http;
mod input;
mod limits;
mod loader;
mod measure;
mod mutation;
mod order;
mod query;
mod reader;
mod root_field;
mod schema;
mod shape;
mod subscription;

pub use fault::PROBLEM_TYPES;
pub use http::{GRAPHQL_RESPONSE_JSON, router};
pub use limits::{
    BATCH_MAX, BODY_BYTES_MAX, COST_MAX, DEPTH_MAX, DOCUMENT_BYTES_MAX, INTROSPECTION_DEPTH_MAX,
    LIST_ELEMENTS_ASSUMED, MUTATION_COST, NESTING_MAX, TEXT_BYTES_MAX, VALUES_MAX,
};
pub use root_field::{ROOT_FIELDS, RootField, RootKind};
pub use schema::{Answer, Request, Schema, Services, schema, sdl};
pub use subscription::{EventMessage, Events, EventsWanted, Following};
