//! Authorization (RFC 6749, section 4.1): an app asks, somebody of the merchant's staff decides, and the app gets a code.
//!
//! The [request](request) is checked, kept, and known from then on by a handle that the browser carries from page to page; [`consent`] is a
//! merchant's word on it, which makes or widens the grant and answers with a [code](code) or an error. Called by the endpoint
//! `/oauth/authorize` and by the pages of `console`. An answer is only ever sent to a redirect URI that the app has registered.

use kernel::{
    caller::Caller,
    clock::{Clock, Timestamp},
    db::{self, Database},
    id::{AppId, MerchantId},
};
use url::Url;

use crate::{Error, Issuer, account::Session, client::secret::Secret, grant::Grant};

pub mod answer;
pub mod code;
pub mod consent;
pub mod pkce;
pub mod request;
mod store;

pub use consent::{Decision, GrantEnd};
pub use request::PendingRequest;

/// Authorization requests: how they come, wait and are decided.
#[derive(Debug, Clone)]
pub struct Authorizations {
    issuer: Issuer,
    /// A pool of the API role.
    database: Database,
    clock: Clock,
}

impl Authorizations {
    /// The authorization requests of `issuer`; `database` is a pool of the API role.
    pub fn new(issuer: Issuer, database: Database, clock: Clock) -> Self {
        Self {
            issuer,
            database,
            clock,
        }
    }

    /// Takes an authorization request by its parameters, as they came and in their order. What comes back is the handle under which it waits ten
    /// minutes for a decision.
    pub async fn begin(&self, parameters: &[(String, String)]) -> Result<Secret, request::Refusal> {
        let mut tx = self.database.begin().await.map_err(Error::from)?;
        let handle = request::receive(&mut tx, &self.issuer, parameters, self.clock.now()).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(handle)
    }

    /// What is asked for under `handle`. One that has been decided, has expired, or never was is [`Error::Gone`].
    pub async fn pending(&self, handle: &str) -> Result<PendingRequest, Error> {
        let mut tx = self.database.begin().await?;
        request::pending(&mut tx, handle, self.clock.now()).await
    }

    /// The grant that `merchant` has given to `app` already and that is living: what a page need not ask for again.
    /// Its version goes into the [`Decision`].
    pub async fn living_grant(
        &self,
        merchant: MerchantId,
        app: AppId,
    ) -> Result<Option<Grant>, Error> {
        let mut tx = self.database.begin().await?;
        let grant = crate::grant::unrevoked(&mut tx, merchant, app).await?;
        Ok(grant.filter(|grant| grant.is_living(self.clock.now())))
    }

    /// Gives what `decision` says in `merchant`'s name, and answers where to send the browser: to the app, with a code. [`Error::Gone`]: the
    /// request is over; [`Error::Changed`]: the grant is not what the page showed, and must be shown again; [`Error::Forbidden`] and
    /// [`Error::StepUpRequired`]: not by this person, or not without a fresh proof; [`Error::InvalidFields`]: more than was asked for, or less than
    /// the app needs. Whatever fails leaves the request waiting.
    pub async fn consent(
        &self,
        caller: &Caller,
        session: &Session,
        handle: &str,
        merchant: MerchantId,
        decision: Decision,
    ) -> Result<Url, Error> {
        let now = self.clock.now();
        if !session.role_at(merchant)?.decides_grants() {
            return Err(Error::Forbidden(
                "Only an owner or a manager can give an app access.",
            ));
        }
        session.require_recent_proof(now)?;
        let mut tx = self.database.enter(merchant).await?;
        let given =
            consent::give(&mut tx, caller, session, handle, merchant, &decision, now).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(given.answer(&self.issuer))
    }

    /// Gives nothing, and answers where to send the browser: to the app, with `access_denied`. [`Error::Gone`]: the request is over.
    pub async fn refuse(
        &self,
        caller: &Caller,
        session: &Session,
        handle: &str,
    ) -> Result<Url, Error> {
        let mut tx = self.database.begin().await?;
        let answer = consent::refuse(
            &mut tx,
            &self.issuer,
            caller,
            session,
            handle,
            self.clock.now(),
        )
        .await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(answer)
    }
}

/// Deletes requests that nobody can decide any more, and codes that are long over, a batch at a time. `worker` is a pool of the worker role.
pub async fn sweep(worker: &Database, now: Timestamp) -> Result<u64, db::Error> {
    let requests = store::delete_expired_requests(worker, now).await?;
    let codes = store::delete_codes_expired_before(worker, now.minus(code::KEPT)).await?;
    Ok(requests.saturating_add(codes))
}
