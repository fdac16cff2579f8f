//! What the token endpoint refused an app lately: for its developer, who sees the answers of an app that runs elsewhere too late or never.
//!
//! Written after the answer, in a transaction of its own, and given up on where too much is to be written: it helps, and nothing depends on it.

use std::sync::Arc;

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db::Database,
    id::{AppId, Id, Kind, RequestId},
};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{Error, deadline};

mod store;

/// Errors of one app that are kept, the newest.
pub const TOKEN_ERRORS_MAX: i64 = 100;

/// Errors that are being written at once; more are not written at all.
const WRITERS_MAX: u32 = 4;

/// Characters of a grant type that are kept, of one that may be anything.
const GRANT_TYPE_CHARACTERS_MAX: usize = 100;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenError {
    /// Its id.
    pub id: TokenErrorId,
    /// When it was.
    pub occurred_at: Timestamp,
    /// The `grant_type` that was asked for.
    pub grant_type: Option<String>,
    /// The value of `error` in the answer.
    pub error: String,
    /// The value of `error_description` in the answer.
    pub description: String,
    /// The network that it came from.
    pub address: Option<String>,
    /// The request.
    pub request_id: Option<RequestId>,
}

impl Kind for TokenError {
    const PREFIX: &'static str = "ter";
}

/// The id of a refusal.
pub type TokenErrorId = Id<TokenError>;

/// What was answered, to be kept.
#[derive(Debug)]
pub struct NewTokenError<'e> {
    /// Who the client said it is.
    pub client_id: &'e str,
    /// The `grant_type` that was asked for.
    pub grant_type: Option<&'e str>,
    /// The value of `error`.
    pub error: &'static str,
    /// The value of `error_description`.
    pub description: String,
}

/// Keeps what the token endpoint refuses. Clones are the same.
#[derive(Debug, Clone)]
pub struct TokenErrors {
    database: Database,
    writers: Arc<Semaphore>,
}

impl TokenErrors {
    /// Writes to `database`, a pool of the API role.
    pub fn new(database: Database) -> Self {
        let writers = usize::try_from(WRITERS_MAX).unwrap_or(1);
        Self {
            database,
            writers: Arc::new(Semaphore::new(writers)),
        }
    }

    /// Has `refusal` written if its client id is an app's, and returns at once. A client that did not prove who it is leaves an audit entry too.
    pub fn record(&self, caller: &Caller, refusal: NewTokenError<'_>, now: Timestamp) {
        let Ok(app) = refusal.client_id.parse::<AppId>() else {
            return;
        };
        let Ok(writer) = Arc::clone(&self.writers).try_acquire_owned() else {
            tracing::debug!("too many token errors at once: one is not kept");
            return;
        };
        let error = TokenError {
            id: TokenErrorId::new(now),
            occurred_at: now,
            grant_type: refusal
                .grant_type
                .map(|grant_type| grant_type.chars().take(GRANT_TYPE_CHARACTERS_MAX).collect()),
            error: refusal.error.to_owned(),
            description: refusal.description,
            address: caller.network(),
            request_id: Some(caller.request),
        };
        let (database, caller) = (self.database.clone(), caller.clone());
        tokio::spawn(async move {
            if let Err(error) = deadline::in_time(write(&database, app, &caller, &error)).await {
                tracing::warn!(error = %error, "a token error could not be kept");
            }
            drop(writer);
        });
    }

    /// Waits until everything that was to be written has been written.
    pub async fn settled(&self) {
        // It is never closed, so there is nothing to fail.
        let _all = self.writers.acquire_many(WRITERS_MAX).await;
    }
}

async fn write(
    database: &Database,
    app: AppId,
    caller: &Caller,
    error: &TokenError,
) -> Result<(), Error> {
    let mut tx = database.begin().await?;
    if !store::insert(&mut tx, app, error).await? {
        return Ok(());
    }
    store::delete_older(&mut tx, app, TOKEN_ERRORS_MAX).await?;
    if error.error == "invalid_client" {
        let entry = NewEntry::refused("client.refused")
            .by_app(app)
            .to("app", app)
            .with(json!({"grantType": error.grant_type}));
        audit::record(
            &mut tx,
            Log::Installation,
            caller,
            error.occurred_at,
            &entry,
        )
        .await?;
    }
    tx.commit().await.map_err(kernel::db::Error::from)?;
    Ok(())
}

/// The errors of `app`, the newest first.
pub(super) async fn list(
    tx: &mut sqlx::PgConnection,
    app: AppId,
) -> Result<Vec<TokenError>, Error> {
    Ok(store::select(tx, app, TOKEN_ERRORS_MAX).await?)
}
