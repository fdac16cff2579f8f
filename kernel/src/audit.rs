//! The audit log: every security-relevant act is a row that nobody changes: who, what, from where, in which request.
//!
//! An entry is appended in the transaction of the act that it tells of; a refusal, which changes nothing else, has one of its own. A merchant's
//! acts lie in the merchant's log, and the transaction must have entered that merchant; what belongs to no merchant lies in the installation's
//! log, and the transaction must have entered none. Secrets and personal data are no business of `details`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::{
    actor::Actor,
    caller::Caller,
    clock::Timestamp,
    db::Error,
    id::{AppId, AuditEntryId, MerchantId, PersonId, RequestId},
    page::{Page, PageRequest},
    problem::Problem,
    scope::Scope,
};

mod store;

/// Whose log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// What belongs to no merchant: sign-ins, apps, keys.
    Installation,
    /// A merchant's.
    Merchant(MerchantId),
}

/// How an act ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type, ToSchema)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It was refused.
    Refused,
}

/// What happened to what, to be appended.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// `noun.verb_in_the_past`: `session.started`, `grant.consented`, `signing_key.rotated`.
    pub action: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The person who acted.
    pub person: Option<PersonId>,
    /// The app that acted.
    pub app: Option<AppId>,
    /// What it was done to: `("grant", "grn_…")`.
    pub target: Option<(&'static str, String)>,
    /// A JSON object of whatever else helps to understand it.
    pub details: Value,
}

impl NewEntry {
    /// An act that was done.
    pub fn succeeded(action: &'static str) -> Self {
        Self {
            action,
            outcome: Outcome::Succeeded,
            person: None,
            app: None,
            target: None,
            details: Value::Object(serde_json::Map::new()),
        }
    }

    /// An act that was refused.
    pub fn refused(action: &'static str) -> Self {
        Self {
            outcome: Outcome::Refused,
            ..Self::succeeded(action)
        }
    }

    /// By `person`.
    #[must_use]
    pub fn by_person(self, person: PersonId) -> Self {
        Self {
            person: Some(person),
            ..self
        }
    }

    /// By `app`.
    #[must_use]
    pub fn by_app(self, app: AppId) -> Self {
        Self {
            app: Some(app),
            ..self
        }
    }

    /// To the `kind` that `id` names.
    #[must_use]
    pub fn to(self, kind: &'static str, id: impl std::fmt::Display) -> Self {
        Self {
            target: Some((kind, id.to_string())),
            ..self
        }
    }

    /// With a JSON object.
    #[must_use]
    pub fn with(self, details: Value) -> Self {
        Self { details, ..self }
    }
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The entry.
    pub id: AuditEntryId,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// What happened.
    #[schema(example = "grant.revoked")]
    pub action: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The person who acted; null: an app, the command line or the system itself.
    #[schema(required)]
    pub person_id: Option<PersonId>,
    /// The app that acted, or for which it was done.
    #[schema(required)]
    pub app_id: Option<AppId>,
    /// What kind of thing it was done to.
    #[schema(required, example = "grant")]
    pub target_type: Option<String>,
    /// The thing it was done to.
    #[schema(required, example = "grn_01jd3x5k8vfm7b2c9q0r4t6w8y")]
    pub target_id: Option<String>,
    /// Whatever else helps to understand it.
    #[schema(value_type = Object, example = json!({"scopes": ["orders:read"]}))]
    pub details: Value,
    /// The address that it came from; null: the command line or the system itself.
    #[schema(required, example = "192.0.2.7")]
    pub address: Option<String>,
    /// What the client said of itself.
    #[schema(required)]
    pub user_agent: Option<String>,
    /// The request.
    #[schema(required)]
    pub request_id: Option<RequestId>,
}

/// Where a page of the log ends: it runs from the newest entry to the oldest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditKey(AuditEntryId);

/// Which entries of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this person alone.
    pub person: Option<PersonId>,
    /// Of this app alone.
    pub app: Option<AppId>,
}

/// Appends an entry to `log`, which the transaction must stand in.
pub async fn record(
    tx: &mut PgConnection,
    log: Log,
    caller: &Caller,
    now: Timestamp,
    entry: &NewEntry,
) -> Result<(), Error> {
    store::insert(tx, log, AuditEntryId::new(now), caller, now, entry).await
}

/// The log of the merchant that `actor` acts for, the newest entry first: for apps that act for the merchant as a whole. The transaction must have
/// entered that merchant.
pub async fn list_for(
    tx: &mut PgConnection,
    actor: &Actor,
    filter: &Filter,
    page: &PageRequest<AuditKey>,
) -> Result<Page<AuditEntry>, Problem> {
    actor.access.require(Scope::MerchantAdmin)?;
    Ok(list(tx, Log::Merchant(actor.merchant), filter, page).await?)
}

/// The entries of `log`, the newest first. The transaction must stand in it.
pub async fn list(
    tx: &mut PgConnection,
    log: Log,
    filter: &Filter,
    page: &PageRequest<AuditKey>,
) -> Result<Page<AuditEntry>, Error> {
    let before = page.after.as_ref().map(|AuditKey(id)| *id);
    let rows = store::select(tx, log, filter, before, page.fetch_count()).await?;
    Ok(Page::from_rows(rows, page, |last| AuditKey(last.id)))
}
