//! The service itself: is it alive, is it ready, what does it offer.

use std::time::Duration;

use axum::{Json, extract::State};
use kernel::{db::Database, problem::Problem};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::edge::Fault;

pub(super) fn routes() -> OpenApiRouter<Health> {
    OpenApiRouter::new()
        .routes(routes!(get_liveness))
        .routes(routes!(get_readiness))
        .routes(routes!(get_openapi))
}

/// What tells whether the service is well.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    /// The API role's database.
    pub(crate) database: Database,
}

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// The version of the binary.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// How long the database may take to answer before the process counts as not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);

const OK: Status = Status {
    status: "ok",
    version: env!("CARGO_PKG_VERSION"),
};

/// Is the process alive?
#[utoipa::path(
    get, path = "/healthz", operation_id = "getLiveness", tag = "Service",
    responses((status = 200, description = "The process answers.", body = Status)),
    security(()),
)]
async fn get_liveness() -> Json<Status> {
    Json(OK)
}

/// Can it serve?
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "Service",
    responses(
        (status = 200, description = "The process and its database answer.", body = Status),
    ),
    extensions(("x-problem-types" = json!(["unavailable"]))),
    security(()),
)]
async fn get_readiness(State(health): State<Health>) -> Result<Json<Status>, Fault> {
    timeout(READY_WITHIN, health.database.ping())
        .await
        .map_err(Problem::unavailable)??;
    Ok(Json(OK))
}

/// The OpenAPI document of this binary
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenapi", tag = "Service",
    responses((status = 200, description = "The document.", body = serde_json::Value)),
    security(()),
)]
async fn get_openapi() -> Json<serde_json::Value> {
    Json(crate::openapi::document())
}
