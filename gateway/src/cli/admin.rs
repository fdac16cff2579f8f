//! `stoa merchant`, `stoa app`, `stoa grant`: what an operator does until there are pages for it. They work beside a running server.

use clap::{Args, Subcommand};
use kernel::{
    clock::Timestamp,
    id::{AppId, GrantId, LocationId, MerchantId, RequestId},
    scope::{Scope, ScopeSet},
};
use serde_json::{Value, json};

use super::{CommandResult, say};
use crate::{composition::Foundation, config::Storage};

/// Connections that a command needs.
const CONNECTIONS_MAX: u32 = 2;

/// `stoa merchant …`
#[derive(Debug, Subcommand)]
pub(super) enum Merchant {
    /// Makes a merchant.
    Create {
        /// What the merchant is called.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

/// `stoa app …`
#[derive(Debug, Subcommand)]
pub(super) enum App {
    /// Makes an app, and prints its secret this once.
    Create {
        /// What the app is called.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

/// `stoa grant …`
#[derive(Debug, Subcommand)]
pub(super) enum Grant {
    /// Grants an app what it may do for a merchant, or changes what it was granted.
    Create {
        /// The merchant who grants.
        #[arg(long)]
        merchant: MerchantId,
        /// The app.
        #[arg(long)]
        app: AppId,
        /// What it may do, with a space between: "orders:read fulfillments:write".
        #[arg(long)]
        scope: ScopeSet,
        /// A location that the grant is limited to; several times for several. None: all.
        #[arg(long)]
        location: Vec<LocationId>,
        /// Includes personal data (together with the scope `orders.pii:read`).
        #[arg(long)]
        personal_data: bool,
        /// When it ends, as 2026-12-31T00:00:00Z. None: when it is revoked.
        #[arg(long)]
        expires_at: Option<Timestamp>,
        #[command(flatten)]
        output: Output,
    },
    /// Ends a grant; its tokens are refused within a second.
    Revoke {
        /// The merchant who granted.
        #[arg(long)]
        merchant: MerchantId,
        /// The grant.
        #[arg(long)]
        grant: GrantId,
        #[command(flatten)]
        output: Output,
    },
}

/// Where the data is, and how to print.
#[derive(Debug, Args)]
pub(super) struct Output {
    #[command(flatten)]
    storage: Storage,
    /// Prints JSON, for programs.
    #[arg(long)]
    json: bool,
}

impl Output {
    fn print(&self, fields: &Value) -> CommandResult {
        if self.json {
            say(serde_json::to_string(fields)?);
        } else {
            for (name, value) in fields.as_object().into_iter().flatten() {
                say(format_args!(
                    "{name}: {}",
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned)
                ));
            }
        }
        Ok(())
    }
}

impl Merchant {
    pub(super) async fn run(self) -> CommandResult {
        let Self::Create { name, output } = self;
        let foundation = Foundation::open_beside(&output.storage).await?;
        let merchant = foundation.create_merchant(&name).await?;
        foundation.close().await;
        output.print(&serde_json::to_value(merchant)?)
    }
}

impl App {
    pub(super) async fn run(self) -> CommandResult {
        let Self::Create { name, output } = self;
        let foundation = Foundation::open_beside(&output.storage).await?;
        let created = foundation.create_app(&name).await?;
        foundation.close().await;
        output.print(&json!({
            "clientId": created.app.id,
            "clientSecret": created.client_secret.as_ref().map(auth::client::secret::Secret::expose),
            "name": created.app.name,
        }))
    }
}

impl Grant {
    pub(super) async fn run(self) -> CommandResult {
        match self {
            Self::Create {
                merchant,
                app,
                scope,
                location,
                personal_data,
                expires_at,
                output,
            } => {
                let locations = (!location.is_empty()).then_some(location);
                let input = auth::grant::GrantInput {
                    scopes: scope,
                    locations,
                    personal_data,
                    expires_at,
                };
                let foundation = Foundation::open_beside(&output.storage).await?;
                let grant = foundation.grant(merchant, app, input).await?;
                foundation.close().await;
                if scope.allows(Scope::OrdersPiiRead) != personal_data {
                    tracing::warn!(
                        "names, addresses and contacts take both --personal-data and the scope orders.pii:read"
                    );
                }
                output.print(&serde_json::to_value(grant)?)
            }
            Self::Revoke {
                merchant,
                grant,
                output,
            } => {
                let foundation = Foundation::open_beside(&output.storage).await?;
                let grant = foundation.revoke(merchant, grant).await?;
                foundation.close().await;
                output.print(&serde_json::to_value(grant)?)
            }
        }
    }
}

impl Foundation {
    /// Makes a merchant.
    pub(crate) async fn create_merchant(
        &self,
        name: &str,
    ) -> Result<auth::merchant::Merchant, auth::Error> {
        let now = self.clock().now();
        let id = MerchantId::new(now);
        let mut tx = self.api_database(CONNECTIONS_MAX).enter(id).await?;
        let input = auth::merchant::MerchantInput {
            name: name.to_owned(),
        };
        let merchant = auth::merchant::create(&mut tx, self.keyring(), id, input, now).await?;
        tx.commit().await.map_err(kernel::db::Error::from)?;
        Ok(merchant)
    }

    /// Makes an app.
    pub(crate) async fn create_app(
        &self,
        name: &str,
    ) -> Result<auth::client::app::NewApp, auth::Error> {
        let mut tx = self.api_database(CONNECTIONS_MAX).begin().await?;
        let input = auth::client::app::AppInput::named(name);
        let app = auth::client::app::create(&mut tx, input, self.clock().now()).await?;
        tx.commit().await.map_err(kernel::db::Error::from)?;
        Ok(app)
    }

    /// Grants, or changes what was granted.
    pub(crate) async fn grant(
        &self,
        merchant: MerchantId,
        app: AppId,
        input: auth::grant::GrantInput,
    ) -> Result<auth::grant::Grant, auth::Error> {
        let now = self.clock().now();
        let mut tx = self.api_database(CONNECTIONS_MAX).enter(merchant).await?;
        let request = RequestId::new(now);
        let grant =
            auth::grant::create_or_change(&mut tx, merchant, app, input, request, now).await?;
        tx.commit().await.map_err(kernel::db::Error::from)?;
        Ok(grant)
    }

    async fn revoke(
        &self,
        merchant: MerchantId,
        grant: GrantId,
    ) -> Result<auth::grant::Grant, auth::Error> {
        let now = self.clock().now();
        let mut tx = self.api_database(CONNECTIONS_MAX).enter(merchant).await?;
        let grant = auth::grant::revoke(&mut tx, merchant, grant, RequestId::new(now), now).await?;
        tx.commit().await.map_err(kernel::db::Error::from)?;
        Ok(grant)
    }
}
