//! The console: server-rendered pages for people. Sign-in, consent, installed apps, one's own account, and an app developer's desk.
//!
//! Put together by `gateway`; renders what `auth` decides and holds no rule of its own. Pages are plain HTML that works without scripts; only passkeys
//! need one. What every answer has in common (headers, the guard of forms, the way to the sign-in and back) is a layer, so that no page can forget it.

use std::{fmt, sync::Arc};

use auth::{
    Issuer, account::Accounts, authorization::Authorizations, client::developer::Developers,
    grant::installed::Grants,
};
use axum::{Router, middleware};
use kernel::{clock::Clock, db::Database};

mod asset;
mod ceremony;
mod component;
mod cookie;
mod csrf;
mod failure;
mod layout;
mod outside;
mod page;
mod place;
#[cfg(test)]
mod samples;
mod security;
mod session;

pub use outside::problems_as_pages;

/// What the pages work with.
#[derive(Clone)]
pub struct Console {
    /// The people.
    pub accounts: Arc<Accounts>,
    /// What apps ask for.
    pub authorizations: Authorizations,
    /// The apps of developers.
    pub developers: Developers,
    /// What merchants have given.
    pub grants: Grants,
    /// Who issues the tokens: the origin of these pages.
    pub issuer: Issuer,
    /// The present.
    pub clock: Clock,
    /// A pool of the API role.
    pub database: Database,
}

impl fmt::Debug for Console {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Console")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Console {
    fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    fn cookies(&self) -> cookie::Cookies {
        cookie::Cookies::new(&self.issuer)
    }
}

/// The pages at work, all of them under `/console`. Handlers take a [`Caller`](kernel::caller::Caller) from the request's extensions.
pub fn router(console: Console) -> Router {
    page::routes()
        .method_not_allowed_fallback(|| async { failure::Failure::NoPage })
        .layer(middleware::from_fn_with_state(console.clone(), csrf::guard))
        .layer(middleware::from_fn(session::lead_back))
        .merge(asset::router())
        .layer(middleware::from_fn_with_state(
            console.clone(),
            security::headers,
        ))
        .with_state(console)
}
