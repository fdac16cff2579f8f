//! Who acts, and what they may see and do.

use futures_util::future::BoxFuture;

use crate::{
    db,
    id::{AppId, GrantId, LocationId, MerchantId, RequestId},
    problem::{self, Problem},
    scope::{Scope, ScopeSet},
};

/// The one on whose behalf a request is served: an app that a merchant has given a grant.
///
/// Made by the edge from a verified token, and handed to every domain function.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The tenant that is acted for.
    pub merchant: MerchantId,
    /// The app that acts.
    pub app: AppId,
    /// The grant that allows it.
    pub grant: GrantId,
    /// What the grant, as narrowed by the token, allows.
    pub access: Access,
    /// The request that this is, as answers, logs and events name it.
    pub request: RequestId,
}

/// What a grant allows: scopes, locations, and whether personal data is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// What may be done.
    pub scopes: ScopeSet,
    /// The locations whose orders, stock and fulfilments are visible; all of them if `None`.
    pub locations: Option<Vec<LocationId>>,
    /// Whether the grant includes personal data; seen only together with the scope `orders.pii:read`.
    pub personal_data: bool,
}

impl Access {
    /// All that there is: what the merchant's own endpoints see.
    pub fn full() -> Self {
        Self {
            scopes: ScopeSet::all(),
            locations: None,
            personal_data: true,
        }
    }

    /// What both allow: a grant, as seen through a token that is narrower.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> Self {
        let locations = match (&self.locations, &other.locations) {
            (Some(ours), Some(theirs)) => Some(
                ours.iter()
                    .copied()
                    .filter(|location| theirs.contains(location))
                    .collect(),
            ),
            (ours, theirs) => ours.as_ref().or(theirs.as_ref()).cloned(),
        };
        Self {
            scopes: self.scopes.shared_with(other.scopes),
            locations,
            personal_data: self.personal_data && other.personal_data,
        }
    }

    /// Nothing unless `scope` is allowed: a 403 that names it.
    pub fn require(&self, scope: Scope) -> Result<(), MissingScope> {
        if self.scopes.allows(scope) {
            Ok(())
        } else {
            Err(MissingScope(scope))
        }
    }

    /// Whether what lies at `location` is visible.
    pub fn sees_location(&self, location: LocationId) -> bool {
        self.locations
            .as_ref()
            .is_none_or(|visible| visible.contains(&location))
    }

    /// Whether something that touches `locations` is visible: one of them is enough, and what touches none is not bound to any.
    pub fn sees_any_location(&self, locations: &[LocationId]) -> bool {
        self.locations.is_none()
            || locations.is_empty()
            || locations
                .iter()
                .any(|&location| self.sees_location(location))
    }

    /// Whether names, addresses and contacts are shown.
    pub fn sees_personal_data(&self) -> bool {
        self.personal_data && self.scopes.allows(Scope::OrdersPiiRead)
    }

    /// The locations as a bind: `None` where all are visible.
    pub fn location_uuids(&self) -> Option<Vec<uuid::Uuid>> {
        self.locations
            .as_ref()
            .map(|locations| locations.iter().map(|location| location.uuid()).collect())
    }
}

/// Where the present access of a grant is found, by those who act for grants without a token: deliveries, streams, replays.
pub trait AccessSource: Send + Sync {
    /// What `merchant`'s `grant` allows at this moment; `None` once it is revoked or has ended, and where there is none.
    fn access(
        &self,
        merchant: MerchantId,
        grant: GrantId,
    ) -> BoxFuture<'_, Result<Option<Access>, db::Error>>;
}

/// The token lacks a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this needs the scope {0}")]
pub struct MissingScope(pub Scope);

impl From<MissingScope> for Problem {
    fn from(MissingScope(scope): MissingScope) -> Self {
        let mut problem = Problem::new(
            &problem::INSUFFICIENT_SCOPE,
            format!("This needs the scope `{scope}`, which the token does not have."),
        );
        problem.required_scope = Some(scope);
        problem
    }
}
