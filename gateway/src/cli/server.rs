//! Which server a command calls, and as whom.

use clap::Args;
use kernel::{clock::Clock, id::MerchantId, scope::ScopeSet};
use url::Url;

use super::Failure;
use crate::{
    client::{self, Client, ClientCredentials, Resource, Source, login},
    config::Credentials,
};

/// Which server, who calls it, and for which merchant: the login of `stoa login`, or an app by its id and secret.
#[derive(Debug, Args)]
pub(super) struct Server {
    /// The server's public address. Default: that of the login, or `http://127.0.0.1:8080` for an app.
    #[arg(long, env = "STOA_URL")]
    url: Option<Url>,

    /// The app's id. Default: the login is used.
    #[arg(long, env = "STOA_CLIENT_ID", requires = "client_secret")]
    client_id: Option<String>,

    /// The app's secret. On the command line other users of the machine can see it: better in the environment.
    #[arg(
        long,
        env = "STOA_CLIENT_SECRET",
        hide_env_values = true,
        requires = "client_id"
    )]
    client_secret: Option<Secret>,

    /// The merchant, by its id. Needed for an app, and where there are logins for several.
    #[arg(long, conflicts_with = "resource")]
    merchant: Option<MerchantId>,

    /// The merchant, as the `resource` of token requests: `https://…/merchants/mer_…`.
    #[arg(long, env = "STOA_RESOURCE")]
    resource: Option<String>,

    /// Where logins are kept.
    #[command(flatten)]
    credentials: Credentials,
}

/// What a token is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Breadth {
    /// What is needed, and no more.
    Needed,
    /// All that the merchant allows: for those who are shown what they may see.
    Grant,
}

/// The server of an app that names none.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

impl Server {
    /// A client of the server, by the app's credentials or a login; `scopes` is what is needed at least.
    pub(super) fn take_client(
        &mut self,
        scopes: ScopeSet,
        breadth: Breadth,
    ) -> Result<Client, Failure> {
        let options = if let (Some(client_id), Some(client_secret)) =
            (&self.client_id, &self.client_secret)
        {
            client::Options {
                url: self.url.take().map_or_else(|| URL_DEFAULT.parse(), Ok)?,
                source: Source::ClientCredentials(ClientCredentials {
                    client_id: client_id.clone(),
                    client_secret: client_secret.0.clone(),
                    resource: match (self.resource.take(), self.merchant) {
                        (Some(resource), _) => Resource::Url(resource),
                        (None, Some(merchant)) => Resource::Merchant(merchant),
                        (None, None) => {
                            return Err("either --merchant or --resource must be given".into());
                        }
                    },
                    scope: match breadth {
                        Breadth::Needed => scopes.to_string(),
                        Breadth::Grant => String::new(),
                    },
                }),
            }
        } else {
            self.login(scopes)?
        };
        Ok(Client::new(options)?)
    }

    /// The one login that fits.
    fn login(&self, scopes: ScopeSet) -> Result<client::Options, Failure> {
        let merchant = match &self.resource {
            // {issuer}/merchants/{id}
            Some(resource) => Some(resource.rsplit('/').next().unwrap_or_default().parse()?),
            None => self.merchant,
        };
        let file = self.credentials.file()?;
        let logins = file.read()?;
        let login = logins.one(self.url.as_ref(), merchant)?;
        Ok(client::Options {
            url: login.issuer.clone(),
            source: Source::Login(login::Source {
                file,
                url: login.issuer.clone(),
                merchant_id: login.merchant_id,
                scopes,
                clock: Clock::system(),
            }),
        })
    }
}

/// A secret that does not show where arguments are printed.
#[derive(Clone)]
struct Secret(oauth2::ClientSecret);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(oauth2::ClientSecret::new(text.to_owned())))
    }
}
