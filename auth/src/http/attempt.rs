//! One request of a client where it shows what could be guessed: turned away before the first statement if too many have failed, and noted if it fails too.
//!
//! Around every request to `/oauth/token`, `/oauth/introspect` and `/oauth/revoke`, so that none of them is a place to try without limit.

use std::{borrow::Cow, future::Future};

use kernel::{caller::Caller, clock::Timestamp};

use crate::{
    client::{Credentials, token_error::NewTokenError},
    deadline,
    token::refusal::Refusal,
};

/// Characters of a client id that are logged, of one that may be anything.
const CLIENT_ID_CHARACTERS_LOGGED: usize = 64;

/// A request under way.
pub(super) struct Attempt<'a> {
    state: &'a super::State,
    caller: &'a Caller,
    client_id: Cow<'a, str>,
    network: Option<String>,
    grant_type: Option<&'a str>,
    now: Timestamp,
}

impl<'a> Attempt<'a> {
    /// Lets a client try; [`Refusal::Throttled`] if it, or its network, has failed too often lately.
    pub(super) fn begin(
        state: &'a super::State,
        caller: &'a Caller,
        credentials: &'a Credentials,
        grant_type: Option<&'a str>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let attempt = Self {
            state,
            caller,
            client_id: credentials.client_id(),
            network: caller.network(),
            grant_type,
            now,
        };
        state
            .limiter
            .check(&attempt.client_id, attempt.network.as_deref(), now)
            .map_err(|retry_after| Refusal::Throttled { retry_after })?;
        Ok(attempt)
    }

    /// What `work` comes to, in time. A refusal is counted, logged, and kept for the app's developer.
    pub(super) async fn end<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        deadline::in_time(work)
            .await
            .inspect_err(|refusal: &Refusal| self.note(refusal))
    }

    fn note(&self, refusal: &Refusal) {
        // Failures of ours are logged where they are answered.
        if refusal.is_ours() {
            return;
        }
        if refusal.is_wrong_guess() {
            let network = self.network.as_deref();
            self.state
                .limiter
                .failed(&self.client_id, network, self.now);
        }
        let client: String = self
            .client_id
            .chars()
            .take(CLIENT_ID_CHARACTERS_LOGGED)
            .collect();
        tracing::info!(client.id = ?client, refusal = refusal.code(), "token refused");
        let refusal = NewTokenError {
            client_id: &self.client_id,
            grant_type: self.grant_type,
            error: refusal.code(),
            description: refusal.to_string(),
        };
        self.state.errors.record(self.caller, refusal, self.now);
    }
}
