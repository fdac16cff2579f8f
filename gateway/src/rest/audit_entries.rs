//! `/v1/audit-entries`: the merchant's audit log.

use axum::extract::State;
use kernel::{
    audit::{self, AuditEntry, AuditKey, Filter},
    id::{AppId, PersonId},
    page::Page,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Services, parameters::PageParameters};
use crate::edge::{Authenticated, Listed, Paging, fault::Fault};

pub(super) fn routes() -> OpenApiRouter<Services> {
    OpenApiRouter::new().routes(routes!(list_audit_entries))
}

/// Which entries to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditFilters {
    /// Only what this person did.
    person_id: Option<PersonId>,
    /// Only what this app did, or what was done for it.
    app_id: Option<AppId>,
}

/// List audit entries
///
/// What was done at this merchant that matters for security, and what was refused: who, what, from where, and in which request. The newest first;
/// nobody changes or deletes an entry.
#[utoipa::path(
    get, path = "/v1/audit-entries", operation_id = "listAuditEntries", tag = "Audit",
    params(PageParameters, AuditFilters),
    responses((status = 200, description = "A page of entries.", body = Page<AuditEntry>)),
    security(("oauth" = ["merchant:admin"])),
)]
async fn list_audit_entries(
    State(services): State<Services>,
    Authenticated(actor): Authenticated,
    Paging {
        page,
        filters: AuditFilters { person_id, app_id },
    }: Paging<AuditKey, AuditFilters>,
) -> Result<Listed<AuditEntry>, Fault> {
    let filter = Filter {
        person: person_id,
        app: app_id,
    };
    let mut tx = services.enter(&actor).await?;
    Ok(Listed(
        audit::list_for(&mut tx, &actor, &filter, &page).await?,
    ))
}
