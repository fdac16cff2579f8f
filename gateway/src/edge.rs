//! The edge: what every request passes on its way in and out.
//!
//! In: a request id, the caller, authentication, typed extraction of bodies, keys, versions and pages. Out: problems rendered as RFC 9457 with the
//! request's id, ETags, and one log line. Handlers see none of it: they take typed arguments and return a value or a [`Fault`].

pub(crate) mod answer;
pub(crate) mod authenticate;
pub(crate) mod caller;
pub(crate) mod extract;
pub(crate) mod fault;
pub(crate) mod observe;

pub(crate) use answer::{Listed, Mutated, Resource, Versioned};
pub(crate) use authenticate::Authenticated;
pub(crate) use extract::{Body, IdempotencyKey, IfMatch, Paging, PathId};
pub(crate) use fault::Fault;
