//! `/v1/customers`.

use axum::extract::State;
use commerce::customer::{self, Customer, CustomerId};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::Services;
use crate::edge::{Authenticated, PathId, Resource, Versioned, fault::Fault};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new().routes(routes!(get_customer))
}

impl Versioned for Customer {
    fn version(&self) -> i64 {
        self.version.into()
    }
}

/// Get a customer
///
/// Name and contact are shown only to tokens that may see personal data.
#[utoipa::path(
    get, path = "/v1/customers/{customerId}", operation_id = "getCustomer", tag = "Orders",
    params(("customerId" = CustomerId, Path, description = "The customer.")),
    responses((status = 200, description = "The customer.", body = Customer)),
    security(("oauth" = ["customers:read"])),
)]
async fn get_customer(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    PathId(id): PathId<kernel::id::DataSubject>,
) -> Result<Resource<Customer>, Fault> {
    let mut tx = services.enter_by_key(&actor).await?;
    Ok(Resource(
        customer::get(&mut tx, &services.keyring, &actor, id).await?,
    ))
}
