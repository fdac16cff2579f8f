//! Sign-on by an upstream OpenID provider (OpenID Connect Core 1.0): authorization code, PKCE, state and nonce. Optional, by configuration.
//!
//! Somebody is known by the provider's issuer and their subject there, and by nothing else: an e-mail address is no proof of who holds it. What the provider has
//! verified counts by itself; a second factor is its business.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db::Transaction,
    id::PersonId,
};
use oauth2::{CsrfToken, PkceCodeChallenge, PkceCodeVerifier};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use url::Url;

use super::{
    Accounts, CeremonyToken, NewSession, Session,
    ceremony::{self, Kind},
    invitation, person,
    session::{self, Factor, SessionId},
    sign_in::{Reason, commit},
    token,
};
use crate::{Error, client::secret::Secret};

mod id_token;
mod provider;
mod store;

use id_token::Identity;
pub use provider::Upstream;

/// Where the provider sends the browser back to, below the issuer: the redirect URI to register there.
pub const CALLBACK_PATH: &str = "/console/upstream/callback";

/// Characters of a login or a name that is taken over from the provider, as the table has it.
const TEXT_LENGTH_MAX: usize = 200;

/// The provider, and who we are to it.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// Its issuer identifier: https, or http on a loopback address for trying things out.
    pub issuer: String,
    /// Our client id there.
    pub client_id: String,
    /// Our client secret there; `None`: a public client.
    pub client_secret: Option<Secret>,
    /// What people call it: `Sign in with …`.
    pub name: String,
}

/// What somebody goes to the provider for.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// To sign in.
    SignIn,
    /// To accept the invitation with this token, as whoever they are there.
    Accept(&'a str),
    /// To be able to sign in that way from now on. Needs a recent proof.
    Link(&'a Session),
    /// To prove once more who they are: the provider is asked to have them sign in anew.
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
    /// The session was proved anew, and goes on under a new token.
    SteppedUp(NewSession),
}

/// What is remembered while somebody is at the provider.
#[derive(Serialize, Deserialize)]
struct Away {
    purpose: AwayFor,
    state: String,
    nonce: String,
    verifier: String,
    began_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
enum AwayFor {
    SignIn,
    Accept(String),
    Link(PersonId, SessionId),
    StepUp(PersonId, SessionId),
}

impl AwayFor {
    const fn person(&self) -> Option<PersonId> {
        match self {
            Self::SignIn | Self::Accept(_) => None,
            Self::Link(person, _) | Self::StepUp(person, _) => Some(*person),
        }
    }
}

impl Accounts {
    /// What the provider is called; `None`: there is none.
    pub fn upstream_name(&self) -> Option<&str> {
        self.upstream.as_ref().map(Upstream::name)
    }

    fn provider(&self) -> Result<&Upstream, Error> {
        self.upstream.as_ref().ok_or(Error::Forbidden(
            "There is no sign-on by another provider here.",
        ))
    }

    /// Begins: the browser is sent to the URL (by 303), and keeps the ceremony in a cookie that comes back with it (`SameSite=Lax`), which binds the answer to this browser.
    /// [`Error::Upstream`] if the provider is away.
    pub async fn begin_upstream(
        &self,
        purpose: Purpose<'_>,
    ) -> Result<(CeremonyToken, Url), Error> {
        let provider = self.provider()?;
        let now = self.clock.now();
        let purpose = match purpose {
            Purpose::SignIn => AwayFor::SignIn,
            Purpose::Accept(token) => {
                self.invitation(token).await?;
                AwayFor::Accept(token.to_owned())
            }
            Purpose::Link(session) => {
                session.require_recent_proof(now)?;
                AwayFor::Link(session.person.id, session.id)
            }
            Purpose::StepUp(session) => AwayFor::StepUp(session.person.id, session.id),
        };
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let away = Away {
            state: token::generate().expose().to_owned(),
            nonce: token::generate().expose().to_owned(),
            verifier: verifier.secret().clone(),
            began_at: now,
            purpose,
        };
        let anew = matches!(away.purpose, AwayFor::StepUp(..));
        let state = CsrfToken::new(away.state.clone());
        let url = provider
            .authorization_url(state, &away.nonce, challenge, anew, now)
            .await?;
        let (key, person) = (self.keyring.master(), away.purpose.person());
        let expires_at = now.plus(ceremony::LONG_LIFETIME);
        let mut tx = self.database.begin().await?;
        let begun = ceremony::begin(&mut tx, key, Kind::Upstream, person, &away, expires_at);
        let ceremony = begun.await?;
        commit(tx).await?;
        Ok((ceremony, url))
    }

    /// Finishes with what the provider has put into the query of the callback. [`Error::Gone`] if the ceremony is over or was another's, [`Error::NotAccepted`] if the
    /// answer is not sound or the person not known here, [`Error::Upstream`] if the provider is away.
    pub async fn finish_upstream(
        &self,
        caller: &Caller,
        ceremony: &CeremonyToken,
        code: &str,
        state: &str,
        iss: Option<&str>,
    ) -> Result<UpstreamOutcome, Error> {
        let provider = self.provider()?;
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let key = self.keyring.master();
        let away: Away = ceremony::take(&mut tx, key, Kind::Upstream, ceremony, now).await?;
        commit(tx).await?;
        let is_ours: bool = away.state.as_bytes().ct_eq(state.as_bytes()).into();
        let identity = if is_ours {
            let verifier = PkceCodeVerifier::new(away.verifier);
            let anew = matches!(away.purpose, AwayFor::StepUp(..)).then_some(away.began_at);
            provider
                .identity(code, verifier, &away.nonce, iss, anew, now)
                .await
        } else {
            Err(Error::NotAccepted)
        };
        let identity = match identity {
            Err(Error::NotAccepted) => {
                return self
                    .refuse_upstream(caller, &away.purpose, away.purpose.person())
                    .await;
            }
            identity => identity?,
        };
        match away.purpose {
            AwayFor::SignIn => self.sign_in_as(caller, &identity).await,
            AwayFor::Accept(token) => self.accept_as_identity(caller, &token, &identity).await,
            AwayFor::Link(person, session) => self.link(caller, &identity, person, session).await,
            AwayFor::StepUp(person, session) => {
                self.step_up_as(caller, &identity, person, session).await
            }
        }
    }

    async fn refuse_upstream(
        &self,
        caller: &Caller,
        purpose: &AwayFor,
        person: Option<PersonId>,
    ) -> Result<UpstreamOutcome, Error> {
        let action = match purpose {
            AwayFor::StepUp(..) => "step_up.refused",
            AwayFor::SignIn | AwayFor::Accept(_) | AwayFor::Link(..) => "session.refused",
        };
        self.refuse(action, caller, person, Reason::Upstream).await
    }

    async fn sign_in_as(
        &self,
        caller: &Caller,
        identity: &Identity,
    ) -> Result<UpstreamOutcome, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let person = store::select(&mut tx, identity).await?;
        let current = match person {
            Some(person) => person::store::lock(&mut tx, person).await?,
            None => None,
        };
        let Some(current) = current.filter(|current| !current.is_disabled) else {
            drop(tx);
            return self.refuse_upstream(caller, &AwayFor::SignIn, person).await;
        };
        let factors = [Factor::Upstream];
        let started = session::start(&mut tx, current.id, &factors, caller, now).await?;
        commit(tx).await?;
        Ok(UpstreamOutcome::SignedIn(started))
    }

    /// Accepts as the person that the identity is linked to, or as somebody new who signs in that way alone.
    async fn accept_as_identity(
        &self,
        caller: &Caller,
        token: &str,
        identity: &Identity,
    ) -> Result<UpstreamOutcome, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let known = store::select(&mut tx, identity).await?;
        let id = known.unwrap_or_else(|| PersonId::new(now));
        let claimed = invitation::claim(&mut tx, token, id, now).await?;
        if known.is_some() {
            let current = person::store::lock(&mut tx, id).await?;
            if current.is_none_or(|current| current.is_disabled) {
                drop(tx);
                return self.refuse_upstream(caller, &AwayFor::SignIn, known).await;
            }
        } else {
            let login = free_login(&mut tx, identity, id).await?;
            let name = identity.name.as_deref().unwrap_or(&login);
            let checked = person::Checked {
                name: cut(name),
                login,
                password_hash: None,
            };
            person::create(&mut tx, id, checked, caller, now).await?;
            store::insert(&mut tx, identity, id, now).await?;
        }
        invitation::fulfil(&mut tx, claimed, id, caller, now).await?;
        commit(tx).await?;
        let started = self.start_session(id, &[Factor::Upstream], caller).await?;
        Ok(UpstreamOutcome::Accepted(started))
    }

    async fn link(
        &self,
        caller: &Caller,
        identity: &Identity,
        person: PersonId,
        session: SessionId,
    ) -> Result<UpstreamOutcome, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        if !session::store::is_living(&mut tx, person, session, now).await? {
            return Err(Error::Gone("session"));
        }
        if !store::insert(&mut tx, identity, person, now).await?
            && store::select(&mut tx, identity).await? != Some(person)
        {
            return Err(Error::Forbidden(
                "That account signs in somebody else here already.",
            ));
        }
        let entry = NewEntry::succeeded("upstream.linked")
            .by_person(person)
            .to("person", person);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        commit(tx).await?;
        Ok(UpstreamOutcome::Linked)
    }

    async fn step_up_as(
        &self,
        caller: &Caller,
        identity: &Identity,
        person: PersonId,
        session: SessionId,
    ) -> Result<UpstreamOutcome, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        if store::select(&mut tx, identity).await? != Some(person) {
            drop(tx);
            let purpose = AwayFor::StepUp(person, session);
            return self.refuse_upstream(caller, &purpose, Some(person)).await;
        }
        let factors = [Factor::Upstream];
        let renewed = session::renew(&mut tx, person, session, &factors, caller, now).await?;
        commit(tx).await?;
        Ok(UpstreamOutcome::SteppedUp(renewed))
    }

    /// Whether the person has an account at the provider.
    pub async fn has_upstream(&self, session: &Session) -> Result<bool, Error> {
        let Some(provider) = &self.upstream else {
            return Ok(false);
        };
        let mut tx = self.database.begin().await?;
        Ok(store::is_linked(&mut tx, provider.issuer(), session.person.id).await?)
    }

    /// Forgets the person's account at the provider, and ends the other sessions. Needs a recent proof; the last way in stays.
    pub async fn unlink_upstream(&self, caller: &Caller, session: &Session) -> Result<(), Error> {
        let provider = self.provider()?;
        let now = self.clock.now();
        session.require_recent_proof(now)?;
        let person = session.person.id;
        let mut tx = self.database.begin().await?;
        if !store::delete(&mut tx, provider.issuer(), person).await? {
            return Ok(());
        }
        person::require_way_in(&mut tx, person).await?;
        session::end_others(&mut tx, person, Some(session.id), caller, now).await?;
        let entry = NewEntry::succeeded("upstream.unlinked")
            .by_person(person)
            .to("person", person);
        audit::record(&mut tx, Log::Installation, caller, now, &entry).await?;
        commit(tx).await
    }
}

/// What somebody new is called in lists: as the provider calls them, if nobody else is. It is a name, not a proof.
async fn free_login(
    tx: &mut Transaction,
    identity: &Identity,
    id: PersonId,
) -> Result<String, Error> {
    let login = person::fold(identity.login.as_deref().unwrap_or_default());
    let is_free = !login.is_empty() && person::store::select_by_login(tx, &login).await?.is_none();
    Ok(if is_free { login } else { id.to_string() })
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(TEXT_LENGTH_MAX)
        .collect()
}
