//! Sign-on by an upstream OpenID provider.
#![allow(unused_variables, clippy::unused_async, missing_docs)]

use kernel::caller::Caller;
use url::Url;

use super::{Accounts, CeremonyToken, NewSession, Session, pending};
use crate::{Error, Issuer, client::secret::Secret};

/// Where the provider sends the browser back to, below the issuer.
pub const CALLBACK_PATH: &str = "/console/upstream/callback";

/// The provider, and who we are to it.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// Its issuer identifier.
    pub issuer: String,
    /// Our client id there.
    pub client_id: String,
    /// Our client secret there; `None`: a public client.
    pub client_secret: Option<Secret>,
    /// What people call it: `Sign in with …`.
    pub name: String,
}

/// The provider at work.
#[derive(Debug)]
pub struct Upstream;

impl Upstream {
    pub(super) fn new(config: UpstreamConfig, issuer: &Issuer) -> Result<Self, Error> {
        pending()
    }
}

/// What somebody goes to the provider for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To sign in.
    SignIn,
    /// To accept the invitation with this token.
    Accept(&'a str),
    /// To be able to sign in that way from now on. Needs a recent proof.
    Link(&'a Session),
    /// To prove once more who they are.
    StepUp(&'a Session),
}

/// What came of it.
#[derive(Debug)]
pub enum UpstreamOutcome {
    /// Signed in.
    SignedIn(NewSession),
    /// The invitation is accepted, and the person signed in.
    Accepted(NewSession),
    /// The provider's account belongs to the person now.
    Linked,
    /// The session was proved anew.
    SteppedUp(NewSession),
}

impl Accounts {
    /// What the provider is called; `None`: there is none.
    pub fn upstream_name(&self) -> Option<&str> {
        None
    }

    /// Begins: the browser is sent to the URL (by 303), and keeps the ceremony in a cookie that outlives the way there (SameSite=Lax).
    pub async fn begin_upstream(
        &self,
        purpose: Purpose<'_>,
    ) -> Result<(CeremonyToken, Url), Error> {
        pending()
    }

    /// Finishes with what the provider has put into the query of the callback.
    pub async fn finish_upstream(
        &self,
        caller: &Caller,
        ceremony: &CeremonyToken,
        code: &str,
        state: &str,
        iss: Option<&str>,
    ) -> Result<UpstreamOutcome, Error> {
        pending()
    }

    /// Whether the person has an account at the provider.
    pub async fn has_upstream(&self, session: &Session) -> Result<bool, Error> {
        pending()
    }

    /// Forgets the person's account at the provider, and ends the other sessions. Needs a recent proof; the last way in stays.
    pub async fn unlink_upstream(&self, caller: &Caller, session: &Session) -> Result<(), Error> {
        pending()
    }
}
