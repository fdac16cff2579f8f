//! Consent: a merchant's word on an authorization request.
//!
//! What was asked for bounds what can be given: scopes, personal data, and the end. Consent given again adds to a grant that is living and takes
//! nothing out of it: taking away is done where the merchant sees the whole grant. A request is decided once, under its row's lock.

use std::time::Duration;

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db,
    id::{LocationId, MerchantId},
    problem::FieldError,
    scope::{Scope, ScopeSet},
};
use sqlx::PgConnection;
use url::Url;

use super::{
    answer,
    code::{self, Code},
    pkce::Challenge,
    request::{self, PendingRequest},
};
use crate::{
    Error, Issuer,
    account::Session,
    client::secret::Secret,
    grant::{self, Grant, GrantInput, Term},
};

/// What somebody gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The scopes that are approved, of those that [`PendingRequest::scopes`] shows; where a grant is living already, those that are new are enough.
    pub scopes: ScopeSet,
    /// Whether personal data is approved: the scope `orders.pii:read`, and that the grant includes personal data.
    pub personal_data: bool,
    /// The locations that are approved; `None`: all. Where a grant is living already, its own locations stay, so that repeating them adds nothing.
    pub locations: Option<Vec<LocationId>>,
    /// When the grant ends.
    pub end: GrantEnd,
    /// The version of the living grant that the page showed; `None`: it showed none.
    pub grant_version: Option<i64>,
}

/// The end of a grant, as it is chosen at consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrantEnd {
    /// As the living grant has it: for consent given again.
    Unchanged,
    /// After the time that the app asked for.
    AsAsked,
    /// After a term, or not by itself.
    After(Term),
}

impl GrantEnd {
    /// What is offered where an app asks for `longest` at most: nothing beyond it. Without [`Unchanged`](Self::Unchanged), which is for grants that
    /// are there.
    pub fn choices(longest: Option<Duration>) -> Vec<Self> {
        let terms = Term::ALL.into_iter().filter(|term| {
            longest.is_none_or(|longest| term.duration().is_some_and(|after| after <= longest))
        });
        // What the app asks for has a choice of its own, unless it is one of the others.
        let own = longest.is_some() && Term::ALL.iter().all(|term| term.duration() != longest);
        terms
            .map(Self::After)
            .chain(own.then_some(Self::AsAsked))
            .collect()
    }

    /// The name, as a form has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::AsAsked => "as_asked",
            Self::After(term) => term.name(),
        }
    }

    /// The choice of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "unchanged" => Some(Self::Unchanged),
            "as_asked" => Some(Self::AsAsked),
            name => Term::of_name(name).map(Self::After),
        }
    }

    /// When what is given at `now` ends where an app asks for `longest` at most; `None`: not by itself, or as it does already.
    pub fn at(self, now: Timestamp, longest: Option<Duration>) -> Option<Timestamp> {
        match self {
            Self::Unchanged => None,
            Self::AsAsked => longest.map(|after| now.plus(after)),
            Self::After(term) => term.end(now),
        }
    }
}

/// What was given, to be answered once it is committed.
pub(super) struct Given {
    redirect_uri: Url,
    state: Option<String>,
    code: Secret,
}

impl Given {
    /// Where to send the browser.
    pub(super) fn answer(self, issuer: &Issuer) -> Url {
        answer::code(issuer, self.redirect_uri, self.state.as_deref(), &self.code)
    }
}

/// Gives what `decision` says. The transaction must have entered `merchant`, where the caller of this has checked who decides.
pub(super) async fn give(
    tx: &mut PgConnection,
    caller: &Caller,
    session: &Session,
    handle: &str,
    merchant: MerchantId,
    decision: &Decision,
    now: Timestamp,
) -> Result<Given, Error> {
    let (row, asked) = request::pending_for_update(tx, handle, now).await?;
    if asked.merchant.is_some_and(|only| only != merchant) {
        return Err(Error::Forbidden("The app asks for another merchant."));
    }
    let before = grant::unrevoked_for_update(tx, merchant, asked.app.id).await?;
    let living = before.as_ref().filter(|grant| grant.is_living(now));
    if living.map(|grant| grant.version) != decision.grant_version {
        return Err(Error::Changed("grant"));
    }
    let terms = terms(&asked, living, decision, now)?;
    let grant =
        grant::create_or_change(tx, merchant, asked.app.id, terms, caller.request, now).await?;
    if before.is_none() && grant.version > 1 {
        // Another consent made the grant while this one was looking for it; what that has given would be lost.
        return Err(Error::Changed("grant"));
    }
    grant::note_consent(tx, &grant, session.person.id).await?;
    let scopes = given(all_asked(&asked), grant.scopes);
    if scopes.is_empty() {
        return Err(invalid("/scopes", "must name at least one scope"));
    }
    let challenge = Challenge::parse(&row.code_challenge).ok_or_else(|| {
        db::Error::corrupt("authorization_requests", row.app_id, "no challenge of S256")
    })?;
    let code = Code {
        app: asked.app.id,
        merchant,
        grant: grant.id,
        person: session.person.id,
        redirect_uri: row.redirect_uri,
        challenge,
        scopes,
        expires_at: now.plus(code::LIFETIME),
        wrong_verifiers: 0,
        redeemed_at: None,
        family: None,
    };
    let code = code::issue(tx, &code, now).await?;
    request::decided(tx, handle, now).await?;
    let entry = NewEntry::succeeded("grant.consented")
        .by_person(session.person.id)
        .by_app(asked.app.id)
        .to("grant", grant.id)
        .with(serde_json::json!({
            "scopes": grant.scopes.names(),
            "personalData": grant.personal_data,
            "locations": grant.locations,
            "expiresAt": grant.expires_at,
        }));
    audit::record(tx, Log::Merchant(merchant), caller, now, &entry).await?;
    Ok(Given {
        redirect_uri: asked.redirect_uri,
        state: row.state,
        code,
    })
}

/// Gives nothing. The transaction must have entered no merchant. The entry lies in the log of the merchant that was asked, if the person is staff
/// there.
pub(super) async fn refuse(
    tx: &mut PgConnection,
    issuer: &Issuer,
    caller: &Caller,
    session: &Session,
    handle: &str,
    now: Timestamp,
) -> Result<Url, Error> {
    let (row, asked) = request::pending_for_update(tx, handle, now).await?;
    request::decided(tx, handle, now).await?;
    let merchant = asked
        .merchant
        .filter(|&merchant| session.role_at(merchant).is_ok());
    let log = match merchant {
        None => Log::Installation,
        Some(merchant) => {
            db::enter_merchant(tx, merchant).await?;
            Log::Merchant(merchant)
        }
    };
    let entry = NewEntry::refused("grant.refused")
        .by_person(session.person.id)
        .by_app(asked.app.id)
        .to("app", asked.app.id)
        .with(serde_json::json!({"scopes": all_asked(&asked).names()}));
    audit::record(tx, log, caller, now, &entry).await?;
    Ok(answer::error(
        issuer,
        asked.redirect_uri,
        row.state.as_deref(),
        "access_denied",
        "The merchant has not given access.",
    ))
}

/// What the grant is to say: what a living one says, and what is approved.
fn terms(
    asked: &PendingRequest,
    living: Option<&Grant>,
    decision: &Decision,
    now: Timestamp,
) -> Result<GrantInput, Error> {
    if !asked.scopes.allows_all(decision.scopes) {
        return Err(invalid(
            "/scopes",
            "must be among those that the app asks for",
        ));
    }
    if decision.personal_data && !asked.personal_data {
        return Err(invalid(
            "/personalData",
            "must not be given where the app does not ask for it",
        ));
    }
    let personal = decision.personal_data.then_some(Scope::OrdersPiiRead);
    let scopes: ScopeSet = living
        .map(|grant| grant.scopes)
        .unwrap_or_default()
        .iter()
        .chain(decision.scopes.iter())
        .chain(personal)
        .collect();
    if !scopes.allows_all(asked.required) {
        return Err(invalid(
            "/scopes",
            "must have those that the app can't do without",
        ));
    }
    let chosen = chosen_end(decision.end, asked.longest, now)?;
    let (locations, expires_at) = match (living, chosen) {
        (None, Chosen::Unchanged) => return Err(invalid("/end", "must be chosen")),
        (None, Chosen::At(end)) => (decision.locations.clone(), end),
        (Some(grant), chosen) => {
            let end = match chosen {
                Chosen::Unchanged => grant.expires_at,
                // The later of both; no end is the latest.
                Chosen::At(end) => grant.expires_at.zip(end).map(|(old, new)| old.max(new)),
            };
            (
                both(grant.locations.as_deref(), decision.locations.as_deref()),
                end,
            )
        }
    };
    Ok(GrantInput {
        scopes,
        locations,
        personal_data: decision.personal_data || living.is_some_and(|grant| grant.personal_data),
        expires_at,
    })
}

enum Chosen {
    Unchanged,
    At(Option<Timestamp>),
}

/// When a grant ends that is given at `now`; nothing beyond the `longest` time that was asked for.
fn chosen_end(end: GrantEnd, longest: Option<Duration>, now: Timestamp) -> Result<Chosen, Error> {
    let too_long = || invalid("/end", "must not be later than the app asks for");
    let after = match (end, longest) {
        (GrantEnd::Unchanged, _) => return Ok(Chosen::Unchanged),
        (GrantEnd::AsAsked, longest) => longest.ok_or_else(|| invalid("/end", "must be chosen"))?,
        (GrantEnd::After(term), longest) => match (term.duration(), longest) {
            (None, None) => return Ok(Chosen::At(None)),
            (Some(after), longest) if longest.is_none_or(|longest| after <= longest) => after,
            _ => return Err(too_long()),
        },
    };
    Ok(Chosen::At(Some(now.plus(after))))
}

/// All is more than some.
fn both(old: Option<&[LocationId]>, new: Option<&[LocationId]>) -> Option<Vec<LocationId>> {
    old.zip(new).map(|(old, new)| {
        let mut all = [old, new].concat();
        all.sort_unstable();
        all.dedup();
        all
    })
}

fn all_asked(asked: &PendingRequest) -> ScopeSet {
    let personal = asked.personal_data.then_some(Scope::OrdersPiiRead);
    asked.scopes.iter().chain(personal).collect()
}

/// What was asked for and is granted: a write scope asked for where its read scope is granted is that read scope, and the other way round.
pub(crate) fn given(asked: ScopeSet, granted: ScopeSet) -> ScopeSet {
    let fitting = asked.within(granted);
    let smaller = granted
        .within(asked)
        .iter()
        .filter(|&scope| !fitting.allows(scope));
    fitting.iter().chain(smaller).collect()
}

fn invalid(pointer: &str, detail: &str) -> Error {
    Error::InvalidFields(vec![FieldError::at(pointer, "invalid", detail)])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn nothing_is_offered_beyond_what_the_app_asks_for() {
        const DAY: Duration = Duration::from_hours(24);
        use GrantEnd::{After, AsAsked};
        let [day, week, month, year, until_revoked] = Term::ALL.map(After);
        let cases = [
            (None, vec![day, week, month, year, until_revoked]),
            (Some(DAY / 24), vec![AsAsked]),
            (Some(DAY), vec![day]),
            (Some(DAY * 8), vec![day, week, AsAsked]),
            (Some(DAY * 365), vec![day, week, month, year]),
            (Some(DAY * 1_000), vec![day, week, month, year, AsAsked]),
        ];
        let all: Vec<_> = [GrantEnd::Unchanged, AsAsked]
            .into_iter()
            .chain(Term::ALL.map(After))
            .collect();
        let now = Timestamp::from_unix_millis(0);
        for (longest, expected) in cases {
            assert_eq!(GrantEnd::choices(longest), expected, "{longest:?}");
            for &end in &all {
                let is_offered = expected.contains(&end) || end == GrantEnd::Unchanged;
                let is_same = end == AsAsked && longest.is_some();
                assert_eq!(
                    chosen_end(end, longest, now).is_ok(),
                    is_offered || is_same,
                    "{end:?} of {longest:?}"
                );
            }
        }
        for &end in &all {
            assert_eq!(GrantEnd::parse(end.name()), Some(end));
        }
    }

    #[test]
    fn what_is_given_is_what_is_asked_for_and_granted() {
        for (asked, granted, expected) in [
            ("orders:write", "orders:write", "orders:write"),
            ("orders:write", "orders:read", "orders:read"),
            ("orders:write", "orders:read orders:write", "orders:write"),
            ("orders:read", "orders:write", "orders:read"),
            ("orders:read catalog:read", "orders:read", "orders:read"),
            ("catalog:read", "orders:read", ""),
        ] {
            let given = given(asked.parse().unwrap(), granted.parse().unwrap());
            assert_eq!(given.to_string(), expected, "{asked} of {granted}");
        }
    }

    #[test]
    fn all_locations_are_more_than_some() {
        let id = |value| LocationId::from_uuid(uuid::Uuid::from_u128(value));
        assert_eq!(both(None, Some(&[id(1)])), None);
        assert_eq!(both(Some(&[id(1)]), None), None);
        assert_eq!(
            both(Some(&[id(2), id(1)]), Some(&[id(2), id(3)])),
            Some(vec![id(1), id(2), id(3)])
        );
    }
}
