//! Grants: what a merchant allows an app, for how long, where, and whether it sees personal data.
//!
//! There is one living grant per merchant and app; consent given again changes it. Whatever takes something away raises the grant's epoch, and
//! tokens of an older epoch are refused from then on, everywhere within a second (see [`view`]). What only adds something leaves the tokens
//! that are out valid, and is in the next ones.

use kernel::{
    actor::Access,
    clock::Timestamp,
    event::{self, NewEvent, ResourceRef},
    id::{AppId, GrantId, LocationId, MerchantId, PersonId, RequestId},
    problem::FieldError,
    scope::{Scope, ScopeSet},
    validation::{self, Faults, Validate},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::{Error, client::secret::Secret, token::Claims};

pub mod authorization_code;
pub mod client_credentials;
pub mod expiring;
pub mod installed;
pub mod last_use;
pub mod refresh_token;
pub(crate) mod scope_names;
mod store;
pub mod term;
pub mod view;

pub use installed::Grants;
pub use last_use::LastUse;
pub use term::Term;

/// Locations that a grant may name. They travel in every token, and headers must stay below what servers in between allow (8 KiB).
pub const LOCATIONS_MAX: usize = 50;

/// How often a creation that meets a twin looks again. Each turn needs another grant created and revoked in between.
const TURNS_MAX: usize = 8;

/// What a merchant has granted to an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The grant's id, as tokens carry it.
    pub id: GrantId,
    /// The merchant who grants.
    pub merchant_id: MerchantId,
    /// The app that it is granted to.
    pub app_id: AppId,
    /// What the app may do.
    #[serde(with = "scope_names")]
    #[schema(value_type = Vec<String>, example = json!(["orders:read"]))]
    pub scopes: ScopeSet,
    /// The locations that the grant is limited to; null: all.
    pub locations: Option<Vec<LocationId>>,
    /// Whether the grant includes personal data, seen together with the scope `orders.pii:read`.
    pub personal_data: bool,
    /// When it ends; null: not by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked; null: it was not.
    pub revoked_at: Option<Timestamp>,
    /// Raised by whatever takes something away; tokens of an older epoch are refused.
    #[serde(skip)]
    pub epoch: i64,
    /// Raised by every change.
    pub version: i64,
    /// When it was given first.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub changed_at: Timestamp,
}

/// What is consented to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantInput {
    /// What the app may do; at least one scope.
    #[serde(with = "scope_names")]
    #[schema(value_type = Vec<String>, example = json!(["orders:read"]))]
    pub scopes: ScopeSet,
    /// The locations that the grant is limited to, at most 50; null: all.
    #[serde(default)]
    pub locations: Option<Vec<LocationId>>,
    /// Whether the grant includes personal data.
    #[serde(default)]
    pub personal_data: bool,
    /// When it ends, in the future; null: not by itself.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

impl Validate for GrantInput {
    fn validate(&self, faults: &mut Faults) {
        if self.scopes.is_empty() {
            faults.add("/scopes", "required", "must name at least one scope");
        }
        if let Some(locations) = &self.locations {
            if locations.is_empty() {
                faults.add(
                    "/locations",
                    "required",
                    "must name at least one location, or be null for all",
                );
            }
            faults.at_most("/locations", locations, LOCATIONS_MAX);
        }
    }
}

impl Grant {
    /// Whether it may be used at `now`.
    pub fn is_living(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// What it allows.
    pub fn access(&self) -> Access {
        Access {
            scopes: self.scopes,
            locations: self.locations.clone(),
            personal_data: self.personal_data,
        }
    }

    fn terms(&self) -> GrantInput {
        GrantInput {
            scopes: self.scopes,
            locations: self.locations.clone(),
            personal_data: self.personal_data,
            expires_at: self.expires_at,
        }
    }
}

/// Whether `new` takes something away that `old` gave.
fn narrows(old: &GrantInput, new: &GrantInput) -> bool {
    let fewer_locations = match (&old.locations, &new.locations) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => old.iter().any(|location| !new.contains(location)),
    };
    let sooner = match (old.expires_at, new.expires_at) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => new < old,
    };
    !new.scopes.allows_all(old.scopes)
        || fewer_locations
        || sooner
        || (old.personal_data && !new.personal_data)
}

/// Gives `app` what `input` says, or changes what it was given. The transaction must have entered `merchant`; a new grant announces
/// `grant.created`.
pub async fn create_or_change(
    tx: &mut PgConnection,
    merchant: MerchantId,
    app: AppId,
    input: GrantInput,
    request: RequestId,
    now: Timestamp,
) -> Result<Grant, Error> {
    let input = checked(input, now)?;
    for _ in 0..TURNS_MAX {
        if let Some(mut grant) = store::select_unrevoked_for_update(tx, merchant, app).await? {
            if grant.terms() != input {
                apply(tx, &mut grant, input, now).await?;
            }
            return Ok(grant);
        }
        let grant = Grant {
            id: GrantId::new(now),
            merchant_id: merchant,
            app_id: app,
            scopes: input.scopes,
            locations: input.locations.clone(),
            personal_data: input.personal_data,
            expires_at: input.expires_at,
            revoked_at: None,
            epoch: 1,
            version: 1,
            created_at: now,
            changed_at: now,
        };
        if insert(tx, &grant).await? {
            announce(tx, "grant.created", &grant, request, now).await?;
            return Ok(grant);
        }
        // A twin was faster, and its grant is committed now: it is changed instead, unless it has been revoked meanwhile.
    }
    Err(Error::GrantContended)
}

/// Takes the grant back. A revoked grant stays as it is. The transaction must have entered `merchant`; announces `grant.revoked`.
pub async fn revoke(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: GrantId,
    request: RequestId,
    now: Timestamp,
) -> Result<Grant, Error> {
    Ok(revoke_once(tx, merchant, id, request, now).await?.grant)
}

/// A grant that is revoked, and whether it was just now.
struct Revoked {
    grant: Grant,
    is_new: bool,
}

async fn revoke_once(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: GrantId,
    request: RequestId,
    now: Timestamp,
) -> Result<Revoked, Error> {
    let mut grant = store::select_for_update(tx, merchant, id)
        .await?
        .ok_or_else(|| not_found(id))?;
    let is_new = grant.revoked_at.is_none();
    if is_new {
        grant.revoked_at = Some(now);
        grant.epoch = grant.epoch.saturating_add(1);
        write(tx, &mut grant, now).await?;
        announce(tx, "grant.revoked", &grant, request, now).await?;
    }
    Ok(Revoked { grant, is_new })
}

/// What a grant type of the token endpoint gives: what the access token says, and what else comes with it.
#[derive(Debug)]
pub struct Issued {
    /// What the access token says.
    pub claims: Claims,
    /// The merchant that it is for.
    pub merchant: MerchantId,
    /// When the grant ends; `None`: not by itself.
    pub grant_expires_at: Option<Timestamp>,
    /// The refresh token, where there is one.
    pub refresh_token: Option<Secret>,
}

/// Ends every access token of the grant that is out, and nothing else: refresh tokens get new ones. A revoked grant stays as it is.
pub(crate) async fn raise_epoch(
    tx: &mut PgConnection,
    merchant: MerchantId,
    id: GrantId,
    now: Timestamp,
) -> Result<(), Error> {
    let mut grant = store::select_for_update(tx, merchant, id)
        .await?
        .ok_or_else(|| not_found(id))?;
    if grant.revoked_at.is_none() {
        grant.epoch = grant.epoch.saturating_add(1);
        write(tx, &mut grant, now).await?;
    }
    Ok(())
}

/// The grant that `merchant` has given to `app` and has not revoked; it may have ended.
pub(crate) async fn unrevoked(
    tx: &mut PgConnection,
    merchant: MerchantId,
    app: AppId,
) -> Result<Option<Grant>, Error> {
    Ok(store::select_unrevoked(tx, merchant, app).await?)
}

/// The same, locked.
pub(crate) async fn unrevoked_for_update(
    tx: &mut PgConnection,
    merchant: MerchantId,
    app: AppId,
) -> Result<Option<Grant>, Error> {
    Ok(store::select_unrevoked_for_update(tx, merchant, app).await?)
}

/// Notes who consented last.
pub(crate) async fn note_consent(
    tx: &mut PgConnection,
    grant: &Grant,
    person: PersonId,
) -> Result<(), Error> {
    Ok(store::set_consented_by(tx, grant.merchant_id, grant.id, person).await?)
}

/// The grant `id` of `merchant`, living or not.
pub async fn get(tx: &mut PgConnection, merchant: MerchantId, id: GrantId) -> Result<Grant, Error> {
    store::select(tx, merchant, id)
        .await?
        .ok_or_else(|| not_found(id))
}

fn not_found(id: GrantId) -> Error {
    Error::NotFound {
        noun: "grant",
        id: id.to_string(),
    }
}

async fn insert(tx: &mut PgConnection, grant: &Grant) -> Result<bool, Error> {
    store::insert(tx, grant)
        .await
        .map_err(|error| match error.violated_constraint().as_deref() {
            Some("grants_merchant_fkey") => Error::NotFound {
                noun: "merchant",
                id: grant.merchant_id.to_string(),
            },
            Some("grants_app_fkey") => Error::NotFound {
                noun: "app",
                id: grant.app_id.to_string(),
            },
            _ => error.into(),
        })
}

/// What `input` says in the form in which it is kept, if it may be at `now`.
fn checked(mut input: GrantInput, now: Timestamp) -> Result<GrantInput, Error> {
    validation::check(&input).map_err(Error::InvalidFields)?;
    if input.expires_at.is_some_and(|end| end <= now) {
        return Err(Error::InvalidFields(vec![FieldError::at(
            "/expiresAt",
            "out_of_range",
            "must lie in the future",
        )]));
    }
    if let Some(locations) = &mut input.locations {
        locations.sort_unstable();
        locations.dedup();
    }
    Ok(input)
}

/// Gives `grant` other terms, which are [`checked`].
async fn apply(
    tx: &mut PgConnection,
    grant: &mut Grant,
    terms: GrantInput,
    now: Timestamp,
) -> Result<(), Error> {
    if narrows(&grant.terms(), &terms) {
        grant.epoch = grant.epoch.saturating_add(1);
    }
    grant.scopes = terms.scopes;
    grant.locations = terms.locations;
    grant.personal_data = terms.personal_data;
    grant.expires_at = terms.expires_at;
    write(tx, grant, now).await
}

/// Writes a change. Its time never goes back, so that rereads by time miss none where clocks differ.
async fn write(tx: &mut PgConnection, grant: &mut Grant, now: Timestamp) -> Result<(), Error> {
    grant.version = grant.version.saturating_add(1);
    grant.changed_at = grant.changed_at.max(now);
    Ok(store::update(tx, grant).await?)
}

async fn announce(
    tx: &mut PgConnection,
    kind: &'static str,
    grant: &Grant,
    request: RequestId,
    now: Timestamp,
) -> Result<(), Error> {
    let event = event_of(kind, grant)?;
    event::append(tx, grant.merchant_id, request, now, &[event]).await?;
    Ok(())
}

fn event_of(kind: &'static str, grant: &Grant) -> Result<NewEvent, Error> {
    Ok(NewEvent {
        kind,
        resource: ResourceRef {
            kind: "grant",
            id: grant.id.to_string(),
            version: grant.version,
        },
        scope: Scope::MerchantAdmin,
        locations: Vec::new(),
        data: serde_json::value::to_raw_value(grant)?,
        personal: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn terms(
        scopes: &str,
        locations: Option<&[u128]>,
        personal_data: bool,
        end: Option<i64>,
    ) -> GrantInput {
        GrantInput {
            scopes: scopes.parse().unwrap(),
            locations: locations.map(|ids| {
                ids.iter()
                    .map(|&id| LocationId::from_uuid(uuid::Uuid::from_u128(id)))
                    .collect()
            }),
            personal_data,
            expires_at: end.map(Timestamp::from_unix_millis),
        }
    }

    #[test]
    fn whatever_takes_something_away_narrows_and_nothing_else_does() {
        let all = terms("orders:write", None, true, None);
        let limited = terms("orders:write", Some(&[1, 2]), false, Some(2_000));
        let cases = [
            (&all, terms("orders:write", None, true, None), false),
            (
                &all,
                terms("orders:write orders:read", None, true, None),
                false,
            ),
            (
                &all,
                terms("orders:write catalog:read", None, true, None),
                false,
            ),
            (&all, terms("orders:read", None, true, None), true),
            (&all, terms("catalog:write", None, true, None), true),
            (&all, terms("orders:write", Some(&[1]), true, None), true),
            (&all, terms("orders:write", None, false, None), true),
            (&all, terms("orders:write", None, true, Some(2_000)), true),
            (
                &limited,
                terms("orders:write", Some(&[2, 1, 3]), true, Some(3_000)),
                false,
            ),
            (&limited, all.clone(), false),
            (
                &limited,
                terms("orders:write", Some(&[1, 3]), false, Some(2_000)),
                true,
            ),
            (
                &limited,
                terms("orders:write", Some(&[1, 2]), false, Some(1_999)),
                true,
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(narrows(old, &new), expected, "{old:?} to {new:?}");
        }
    }

    #[test]
    fn an_input_names_its_faults() {
        let input = r#"{"scopes": [], "locations": []}"#;
        let problem = validation::from_json::<GrantInput>(input.as_bytes()).unwrap_err();
        let pointers: Vec<_> = problem
            .errors
            .iter()
            .filter_map(|error| error.pointer.as_deref())
            .collect();
        assert_eq!(pointers, ["/scopes", "/locations"]);
        assert!(validation::from_json::<GrantInput>(br#"{"scopes": ["orders:raed"]}"#).is_err());
    }
}
