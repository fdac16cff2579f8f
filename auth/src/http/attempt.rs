//! A client's request at an endpoint where machines show secrets: limited by how often it was wrong, bounded in time, and noted where it is refused.

use std::future::Future;

use kernel::{caller::Caller, clock::Timestamp};

use crate::{
    client::{Credentials, token_error::NewTokenError},
    deadline,
    token::refusal::Refusal,
};

/// Characters of a client id that are logged, of one that may be anything.
const CLIENT_ID_CHARACTERS_LOGGED: usize = 64;

/// A request of a client that has not proved itself yet.
pub(super) struct Attempt<'r> {
    state: &'r super::State,
    caller: &'r Caller,
    client_id: String,
    network: Option<String>,
    grant_type: Option<&'r str>,
    now: Timestamp,
}

impl<'r> Attempt<'r> {
    /// Begins an attempt of whoever `credentials` name; refused if there were too many that failed. `grant_type`: at the token endpoint.
    pub(super) fn begin(
        state: &'r super::State,
        caller: &'r Caller,
        credentials: &Credentials,
        grant_type: Option<&'r str>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let (client_id, network) = (credentials.client_id().into_owned(), caller.network());
        state
            .limiter
            .check(&client_id, network.as_deref(), now)
            .map_err(|retry_after| Refusal::Throttled { retry_after })?;
        Ok(Self {
            state,
            caller,
            client_id,
            network,
            grant_type,
            now,
        })
    }

    /// What `work` answers within the time that the database has; a refusal is counted and noted. Failures of ours are logged where they are answered.
    pub(super) async fn run<T>(
        self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        deadline::in_time(work).await.inspect_err(|refusal| {
            if refusal.is_wrong_guess() {
                self.state
                    .limiter
                    .failed(&self.client_id, self.network.as_deref(), self.now);
            }
            if !refusal.is_ours() {
                let client: String = self
                    .client_id
                    .chars()
                    .take(CLIENT_ID_CHARACTERS_LOGGED)
                    .collect();
                tracing::info!(client.id = ?client, refusal = refusal.code(), "client refused");
                let error = NewTokenError {
                    client_id: &self.client_id,
                    grant_type: self.grant_type,
                    error: refusal.code(),
                    description: refusal.to_string(),
                };
                self.state.errors.record(self.caller, error, self.now);
            }
        })
    }
}
