//! The gateway: Stoa's one executable, and the only place where its parts are put together.
//!
//! [`composition`] builds the parts, `edge` is what every request passes, `rest` is a thin coat over the domain, [`cli`] the command line,
//! [`private_postgres`] the database that runs by itself.

pub mod cli;
pub mod client;
pub mod composition;
pub mod config;
mod demo;
mod edge;
pub mod feed;
mod metrics;
pub mod openapi;
pub mod private_postgres;
mod rest;

/// Every kind of problem that the API can answer with.
pub(crate) fn problem_types() -> impl Iterator<Item = &'static kernel::problem::ProblemType> {
    let own = [
        kernel::problem::ALL,
        commerce::PROBLEM_TYPES,
        webhooks::PROBLEM_TYPES,
        graphql::PROBLEM_TYPES,
    ];
    own.into_iter().flatten().copied()
}
