//! People: merchants' staff, operators and apps' developers; how they prove who they are, and what they may decide.
//!
//! Called by `console`, whose pages show a [`session::Session`]; a merchant's word on a grant is given by one.

pub mod person;
pub mod session;

pub use person::{Membership, Person, Role};
pub use session::Session;
