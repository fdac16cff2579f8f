//! The authorization server: merchants, apps, grants, tokens and their verification.
//!
//! A merchant gives an app a [`grant`]; the app exchanges its secret for a short [`token`] at `/oauth/token`; the gateway has a
//! [`bearer`] turn the token of each request into an [`Actor`](kernel::actor::Actor). The [view](grant::view) of the grants sees to
//! it that what was revoked or narrowed is felt by every process within a second.
//!
//! Called by `gateway`, which also owns the transactions; knows no domain noun but its own, and renders no HTML.

pub mod account;
pub mod authorization;
pub mod bearer;
pub mod client;
mod deadline;
mod error;
pub mod grant;
pub mod http;
pub mod issuer;
pub mod merchant;
mod sweep;
pub mod token;

pub use authorization::Authorizations;
pub use bearer::Bearer;
pub use error::{Error, TokenFault};
pub use grant::view::GrantView;
pub use issuer::Issuer;
pub use sweep::sweep;
pub use token::signing_key::SigningKeys;
