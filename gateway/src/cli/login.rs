//! `stoa login`, `stoa logout`, `stoa whoami`: the command line as an app that a merchant allows something, without a secret of its own.

use std::process::Stdio;

use clap::Args;
use kernel::{
    clock::{Clock, Timestamp},
    id::MerchantId,
    scope::ScopeSet,
};
use serde::Serialize;
use url::Url;

use super::{CommandResult, import, say};
use crate::{
    client::login::{
        self, LoginFile, Logins, Source,
        authorization::{Authorization, Request},
    },
    config::{self, Credentials},
};

/// Lets this command line act for a merchant: opens the browser, where somebody who may decide that says what it may do, and until when.
#[derive(Debug, Args)]
pub(super) struct Login {
    /// The server's public address.
    #[arg(long, env = "STOA_URL", default_value = "http://127.0.0.1:8080")]
    url: Url,

    /// The merchant, by its id. Default: chosen in the browser.
    #[arg(long)]
    merchant: Option<MerchantId>,

    /// What to ask for, with a space between. Default: what the commands of this program need.
    #[arg(long)]
    scope: Option<ScopeSet>,

    /// Prints the address, and opens no browser.
    #[arg(long)]
    no_browser: bool,

    #[command(flatten)]
    credentials: Credentials,
}

/// Gives logins back to the server, and forgets them. What the merchant allowed stands until it is ended under the merchant's installed apps.
#[derive(Debug, Args)]
pub(super) struct Logout {
    #[command(flatten)]
    which: Which,

    /// All logins that fit, where there are several.
    #[arg(long)]
    all: bool,

    /// Only forgets them, without telling the server.
    #[arg(long)]
    offline: bool,

    #[command(flatten)]
    credentials: Credentials,
}

/// Shows for whom this command line may do what, and until when, as the server says.
#[derive(Debug, Args)]
pub(super) struct Whoami {
    #[command(flatten)]
    which: Which,

    /// Prints JSON, for programs: a list of logins.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    credentials: Credentials,
}

/// Which logins.
#[derive(Debug, Args)]
struct Which {
    /// The server's public address.
    #[arg(long, env = "STOA_URL")]
    url: Option<Url>,

    /// The merchant, by its id.
    #[arg(long)]
    merchant: Option<MerchantId>,
}

impl Which {
    /// The logins that fit; at least one.
    fn of(&self, logins: Logins) -> Result<Vec<login::Login>, login::Error> {
        let found: Vec<_> = logins
            .logins
            .into_iter()
            .filter(|login| login.is_for(self.url.as_ref(), self.merchant))
            .collect();
        if found.is_empty() {
            let wanted = login::Wanted::new(self.url.as_ref(), self.merchant);
            return Err(login::Error::NotLoggedIn(wanted));
        }
        Ok(found)
    }
}

impl Login {
    pub(super) async fn run(self) -> CommandResult {
        let clock = Clock::system();
        let file = self.credentials.file()?;
        // A file that can't be used is better said before anybody is asked.
        file.read()?;
        let scope = self
            .scope
            .unwrap_or_else(|| [import::SCOPE].into_iter().collect());
        let authorization = Authorization::begin(Request {
            url: self.url,
            merchant: self.merchant,
            scope: scope.to_string(),
        })
        .await?;
        say("Open this address in a browser of this machine:\n");
        say(format_args!("  {}\n", authorization.url()));
        if !self.no_browser {
            open_browser(authorization.url());
        }
        let login = authorization.complete(&file, &clock).await?;
        say(format_args!(
            "Logged in at {} for {}: {}",
            login.server(),
            login.merchant_id,
            login.scope
        ));
        say(format_args!("Kept in {}", file.path().display()));
        Ok(())
    }
}

/// Opens the address where there is a browser; where there is none, it has been printed.
fn open_browser(url: &Url) {
    let Some(opener) = config::browser_opener() else {
        return;
    };
    let spawned = std::process::Command::new(opener)
        .arg(url.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if let Ok(mut child) = spawned {
        // Waited for, so that it does not stay a zombie while the person takes time.
        std::thread::spawn(move || child.wait());
    }
}

impl Logout {
    pub(super) async fn run(self) -> CommandResult {
        let file = self.credentials.file()?;
        let locked = file.lock().await?;
        let mut logins = locked.read()?;
        if !self.all {
            logins.one(self.which.url.as_ref(), self.which.merchant)?;
        }
        for login in self.which.of(logins.clone())? {
            if !self.offline {
                login::revoke(&login).await.map_err(|source| NotGivenBack {
                    server: login.server().to_owned(),
                    source,
                })?;
            }
            logins.remove(&login.issuer, login.merchant_id);
            locked.write(&logins)?;
            say(format_args!(
                "Logged out at {} for {}",
                login.server(),
                login.merchant_id
            ));
        }
        Ok(())
    }
}

/// The server did not take a login back, so it was kept.
#[derive(Debug, thiserror::Error)]
#[error("{server} did not take the login back, so it was kept; --offline forgets it without that")]
struct NotGivenBack {
    server: String,
    source: crate::client::Error,
}

/// A login as `whoami` shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    url: String,
    merchant_id: MerchantId,
    /// What is allowed, or was when the server said so last.
    scope: String,
    /// When what was allowed ends; null: not by itself.
    grant_expires_at: Option<Timestamp>,
    /// Why the server does not say that it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Whoami {
    pub(super) async fn run(self) -> CommandResult {
        let file = self.credentials.file()?;
        let mut shown = Vec::new();
        for login in self.which.of(file.read()?)? {
            shown.push(ask(&file, login).await);
        }
        if self.json {
            say(serde_json::to_string(&shown)?);
        } else {
            for login in &shown {
                say(sentence(login));
            }
        }
        if shown.iter().any(|login| login.error.is_some()) {
            return Err("not every login stands".into());
        }
        Ok(())
    }
}

async fn ask(file: &LoginFile, login: login::Login) -> Shown {
    let source = Source {
        file: file.clone(),
        url: login.issuer.clone(),
        merchant_id: login.merchant_id,
        scopes: ScopeSet::default(),
        clock: Clock::system(),
    };
    let (login, error) = match source.renew().await {
        Ok(login) => (login, None),
        Err(error) => (login, Some(error.to_string())),
    };
    Shown {
        url: login.server().to_owned(),
        merchant_id: login.merchant_id,
        scope: login.scope,
        grant_expires_at: login.grant_expires_at,
        error,
    }
}

fn sentence(login: &Shown) -> String {
    let Shown {
        url,
        merchant_id,
        scope,
        grant_expires_at,
        error,
    } = login;
    match (error, grant_expires_at) {
        (Some(error), _) => format!("{merchant_id} at {url}: {error}"),
        (None, Some(end)) => format!("{merchant_id} at {url}: {scope}; until {end}"),
        (None, None) => format!("{merchant_id} at {url}: {scope}; until it is ended"),
    }
}
