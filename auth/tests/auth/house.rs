//! An installation with people in it.

use std::sync::Arc;

use auth::{
    Error,
    account::{
        Accounts, CeremonyToken, Hasher, NewSession, Role, Session,
        invitation::Invited,
        person::{By, NewPerson},
        recovery_code::RecoveryCode,
        sign_in::SignIn,
    },
    client::secret::Secret,
};
use kernel::{
    audit::{self, AuditEntry, Filter, Log},
    caller::Caller,
    id::{MerchantId, RequestId},
    page::PageRequest,
};
use totp_rs::Totp;

use crate::fixture::Installation;

pub(crate) const PASSWORD: &str = "grauer Kranich im Nebel";

pub(crate) struct House {
    pub(crate) installation: Installation,
    pub(crate) accounts: Arc<Accounts>,
}

pub(crate) fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

pub(crate) fn new_person(login: &str) -> NewPerson {
    NewPerson {
        login: login.to_owned(),
        name: format!("Name of {login}"),
        password: secret(PASSWORD),
    }
}

impl House {
    pub(crate) async fn new() -> Self {
        let installation = Installation::new().await;
        let accounts = Arc::new(Self::accounts(&installation));
        Self {
            installation,
            accounts,
        }
    }

    /// What another process of the installation holds. Its hashes are cheap.
    pub(crate) fn accounts(installation: &Installation) -> Accounts {
        Accounts::new(
            installation.database.api(),
            Arc::clone(&installation.keyring),
            installation.clock.clone(),
            installation.issuer.clone(),
        )
        .unwrap()
        .with_hasher(Hasher::new(64, 1).unwrap())
    }

    pub(crate) fn caller(&self) -> Caller {
        self.caller_from("192.0.2.7")
    }

    pub(crate) fn caller_from(&self, address: &str) -> Caller {
        let request = RequestId::new(self.installation.clock.now());
        Caller::new(request, Some(address.parse().unwrap()), Some("Browser/1"))
    }

    pub(crate) async fn person(&self, login: &str) {
        self.accounts
            .create_person(&self.caller(), new_person(login), false, false)
            .await
            .unwrap();
    }

    pub(crate) async fn operator(&self, login: &str) -> Session {
        self.accounts
            .create_person(&self.caller(), new_person(login), true, false)
            .await
            .unwrap();
        self.signed_in(login).await
    }

    pub(crate) async fn try_sign_in(&self, login: &str, password: &str) -> Result<SignIn, Error> {
        self.accounts
            .sign_in(&self.caller(), login, &secret(password))
            .await
    }

    pub(crate) async fn new_session(&self, login: &str) -> NewSession {
        match self.try_sign_in(login, PASSWORD).await.unwrap() {
            SignIn::Session(new) => new,
            SignIn::SecondFactor(_) => panic!("{login} has a second factor"),
        }
    }

    pub(crate) async fn second_factor_of(&self, login: &str) -> CeremonyToken {
        match self.try_sign_in(login, PASSWORD).await.unwrap() {
            SignIn::SecondFactor(ceremony) => ceremony,
            SignIn::Session(_) => panic!("{login} has no second factor"),
        }
    }

    pub(crate) async fn session(&self, new: &NewSession) -> Session {
        self.find(new).await.unwrap()
    }

    pub(crate) async fn find(&self, new: &NewSession) -> Option<Session> {
        self.accounts.session(new.token.expose()).await.unwrap()
    }

    pub(crate) async fn signed_in(&self, login: &str) -> Session {
        let new = self.new_session(login).await;
        self.session(&new).await
    }

    /// Time-based codes for whoever `session` is.
    pub(crate) async fn with_totp(&self, session: &Session) -> (Totp, Vec<RecoveryCode>) {
        let setup = self.accounts.begin_totp(session).await.unwrap();
        let totp = Totp::from_url(setup.otpauth_url.expose()).unwrap();
        let codes = self
            .accounts
            .confirm_totp(&self.caller(), session, &setup.ceremony, &self.code(&totp))
            .await
            .unwrap();
        (totp, codes)
    }

    pub(crate) fn code(&self, totp: &Totp) -> String {
        let seconds = self.installation.clock.now().unix_seconds();
        totp.generate(u64::try_from(seconds).unwrap()).to_string()
    }

    /// Somebody new on the staff of `merchant`, by the command line's invitation.
    pub(crate) async fn staff(&self, merchant: MerchantId, role: Role, login: &str) -> NewSession {
        let invited = Invited::Staff { merchant, role };
        let (_, token) = self
            .accounts
            .invite(&self.caller(), By::CommandLine, invited, None)
            .await
            .unwrap();
        self.accounts
            .accept_as_new(&self.caller(), token.expose(), new_person(login))
            .await
            .unwrap()
    }

    pub(crate) async fn owner(&self, merchant: MerchantId, login: &str) -> Session {
        let new = self.staff(merchant, Role::Owner, login).await;
        self.session(&new).await
    }

    /// The entries of a log whose action this is, the newest first.
    pub(crate) async fn told(&self, log: Log, action: &str) -> Vec<AuditEntry> {
        let database = self.installation.database.api();
        let mut tx = match log {
            Log::Installation => database.begin().await.unwrap(),
            Log::Merchant(merchant) => database.enter(merchant).await.unwrap(),
        };
        let page = PageRequest {
            limit: 250,
            after: None,
        };
        let listed = audit::list(&mut tx, log, &Filter::default(), &page).await;
        let mut entries = listed.unwrap().data;
        entries.retain(|entry| entry.action == action);
        entries
    }
}
