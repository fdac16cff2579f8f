//! The service itself: is it alive, is it ready, what does it offer.

use axum::{Json, extract::State};
use kernel::db::Database;
use serde::Serialize;
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
    health.database.ping().await?;
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
