//! The apps that a merchant has installed: what each may do, and how the merchant's staff narrow, extend and end it.
//!
//! Called by `console`. Taking something away needs no more than the role; giving more needs a fresh proof of who it is. An app that wants what it
//! does not have asks for it, and the merchant consents: nothing here gives an app a scope that it has not asked for.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::{Clock, Timestamp},
    db::{self, Database},
    event::Announcer,
    id::{AppId, GrantId, LocationId, MerchantId},
    problem::FieldError,
    scope::{Scope, ScopeSet},
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{Grant, GrantInput, Term, narrows, not_found, scope_names};
use crate::{Error, account::Session};

mod store;

/// Rows of the list; a merchant with more has other troubles, and sees the living ones first.
const INSTALLED_MAX: i64 = 500;

/// For how long an app whose grant has ended is still shown.
pub const SHOWN_AFTER_END: std::time::Duration = std::time::Duration::from_hours(30 * 24);

/// An app that a merchant has installed, or had until lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstalledApp {
    /// What it is granted.
    pub grant: Grant,
    /// The app.
    pub app: AppSummary,
    /// When it was last used, to the hour; `None`: not yet.
    pub last_used_at: Option<Timestamp>,
    /// Who consented last; `None`: the command line.
    pub consented_by: Option<String>,
    /// Scopes that the app can't do without: not to be taken out, but for ending the grant.
    #[serde(with = "scope_names")]
    pub required_scopes: ScopeSet,
}

/// What a merchant wants to know of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppSummary {
    /// The app.
    pub id: AppId,
    /// What it is called.
    pub name: String,
    /// Where it tells about itself.
    pub homepage_url: Option<String>,
}

/// What a grant is to be from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantChange {
    /// What the app may go on doing: of what it may do now, with what it can't do without.
    pub scopes: ScopeSet,
    /// The locations, at most 50; `None`: all. More of them is for the merchant to give, as are fewer.
    pub locations: Option<Vec<LocationId>>,
    /// Whether personal data is included. Without it the scope `orders.pii:read` goes too; with it the grant must have that scope already.
    pub personal_data: bool,
    /// For how long from now on; `None`: the end stays as it is.
    pub term: Option<Term>,
}

/// The grants of merchants, for their staff.
#[derive(Debug, Clone)]
pub struct Grants {
    database: Database,
    clock: Clock,
    announcer: Announcer,
}

impl Grants {
    /// Over a pool of the API role.
    pub fn new(database: Database, clock: Clock, announcer: Announcer) -> Self {
        Self {
            database,
            clock,
            announcer,
        }
    }

    /// The apps of `merchant`: those whose grants live first, by name; then those whose grants have ended within thirty days, the latest first.
    /// For any of its staff.
    pub async fn installed(
        &self,
        session: &Session,
        merchant: MerchantId,
    ) -> Result<Vec<InstalledApp>, Error> {
        session.role_at(merchant)?;
        let mut tx = self.database.enter(merchant).await?;
        list(&mut tx, merchant, self.clock.now()).await
    }

    /// The app of one grant of `merchant`, however long ago it ended. For any of its staff.
    pub async fn installed_app(
        &self,
        session: &Session,
        merchant: MerchantId,
        id: GrantId,
    ) -> Result<InstalledApp, Error> {
        session.role_at(merchant)?;
        let mut tx = self.database.enter(merchant).await?;
        get(&mut tx, merchant, id, self.clock.now()).await
    }

    /// Changes the grant `id` from its version `version` on, for whoever decides grants. [`Error::Changed`] if it has changed since it was seen,
    /// [`Error::Gone`] if it has ended; [`Error::StepUpRequired`] if the change gives more and the person's proof is an old one.
    pub async fn change(
        &self,
        caller: &Caller,
        session: &Session,
        merchant: MerchantId,
        id: GrantId,
        version: i64,
        change: GrantChange,
    ) -> Result<Grant, Error> {
        require_decider(session, merchant)?;
        let now = self.clock.now();
        let mut tx = self.database.enter(merchant).await?;
        let mut grant = super::store::select_for_update(&mut tx, merchant, id)
            .await?
            .ok_or_else(|| not_found(id))?;
        if !grant.is_living(now) {
            return Err(Error::Gone("grant"));
        }
        if grant.version != version {
            return Err(Error::Changed("grant"));
        }
        let required = store::select_required_scopes(&mut tx, grant.app_id).await?;
        let before = grant.terms();
        let after = decide(&before, change, required, now)?;
        if after == before {
            return Ok(grant);
        }
        // What narrows on the way back gives more on the way there.
        if narrows(&after, &before) {
            session.require_recent_proof(now)?;
        }
        let entry = NewEntry::succeeded("grant.changed")
            .by_person(session.person.id)
            .to("grant", id)
            .with(json!({
                "appId": grant.app_id,
                "before": terms(&before),
                "after": terms(&after),
            }));
        super::apply(&mut tx, &mut grant, after, now).await?;
        audit::record(&mut tx, Log::Merchant(merchant), caller, now, &entry).await?;
        tx.commit().await.map_err(db::Error::from)?;
        Ok(grant)
    }

    /// Ends the grant `id` at once, for whoever decides grants; nothing if it is revoked already. Needs no fresh proof: whoever sees that an app
    /// does harm must not be held up.
    pub async fn end(
        &self,
        caller: &Caller,
        session: &Session,
        merchant: MerchantId,
        id: GrantId,
    ) -> Result<Grant, Error> {
        require_decider(session, merchant)?;
        let now = self.clock.now();
        let mut tx = self.database.enter(merchant).await?;
        let revoked = super::revoke_once(&mut tx, merchant, id, caller.request, now).await?;
        if revoked.is_new {
            let entry = NewEntry::succeeded("grant.revoked")
                .by_person(session.person.id)
                .to("grant", id)
                .with(json!({"appId": revoked.grant.app_id}));
            audit::record(&mut tx, Log::Merchant(merchant), caller, now, &entry).await?;
        }
        tx.commit().await.map_err(db::Error::from)?;
        self.announcer.announce(merchant, now);
        Ok(revoked.grant)
    }
}

/// What [`Grants::installed`] shows, for who needs no session: the command line.
pub async fn list(
    tx: &mut PgConnection,
    merchant: MerchantId,
    now: Timestamp,
) -> Result<Vec<InstalledApp>, Error> {
    let since = now.minus(SHOWN_AFTER_END);
    Ok(store::select_installed(tx, merchant, None, since, now, INSTALLED_MAX).await?)
}

/// What [`Grants::installed_app`] shows, for who needs no session.
pub async fn get(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: GrantId,
    now: Timestamp,
) -> Result<InstalledApp, Error> {
    let always = Timestamp::from_unix_millis(0);
    store::select_installed(tx, merchant, Some(id), always, now, 1)
        .await?
        .pop()
        .ok_or_else(|| not_found(id))
}

fn require_decider(session: &Session, merchant: MerchantId) -> Result<(), Error> {
    if session.role_at(merchant)?.decides_grants() {
        Ok(())
    } else {
        Err(Error::Forbidden(
            "Only an owner or a manager of this shop decides what apps may do.",
        ))
    }
}

/// What a grant of `before` comes to by `change`. An app's required scopes stay as far as it has them.
fn decide(
    before: &GrantInput,
    change: GrantChange,
    required: ScopeSet,
    now: Timestamp,
) -> Result<GrantInput, Error> {
    let mut faults = Vec::new();
    let has_personal_scope = before
        .scopes
        .iter()
        .any(|scope| scope == Scope::OrdersPiiRead);
    let scopes: ScopeSet = change
        .scopes
        .iter()
        .filter(|&scope| change.personal_data || scope != Scope::OrdersPiiRead)
        .chain((change.personal_data && has_personal_scope).then_some(Scope::OrdersPiiRead))
        .collect();
    if !before.scopes.allows_all(scopes) {
        faults.push(FieldError::at(
            "/scopes",
            "not_granted",
            "can't have what the app has not been granted: it has to ask for it",
        ));
    }
    if required
        .iter()
        .any(|scope| before.scopes.allows(scope) && !scopes.allows(scope))
    {
        faults.push(FieldError::at(
            "/scopes",
            "required_by_app",
            "must keep what the app can't do without: end the grant instead",
        ));
    }
    if change.personal_data && !has_personal_scope {
        faults.push(FieldError::at(
            "/personalData",
            "not_granted",
            "can't be included before the app has asked for it",
        ));
    }
    if !faults.is_empty() {
        return Err(Error::InvalidFields(faults));
    }
    super::checked(
        GrantInput {
            scopes,
            locations: change.locations,
            personal_data: change.personal_data,
            expires_at: change.term.map_or(before.expires_at, |term| term.end(now)),
        },
        now,
    )
}

/// The terms of a grant as an entry of the audit log shows them.
pub fn terms(terms: &GrantInput) -> Value {
    json!({
        "scopes": terms.scopes.names(),
        "locations": terms.locations,
        "personalData": terms.personal_data,
        "expiresAt": terms.expires_at,
    })
}
