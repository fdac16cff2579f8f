//! `stoa grant …`

use auth::grant::{self, GrantInput, installed};
use clap::Subcommand;
use kernel::{
    audit::{Log, NewEntry},
    clock::Timestamp,
    id::{AppId, GrantId, LocationId, MerchantId},
    scope::{Scope, ScopeSet},
};
use serde_json::json;

use super::{CommandResult, Desk, Output};

/// `stoa grant …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Grant {
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
    /// Lists a merchant's grants: those that live, and those that ended within thirty days.
    List {
        /// The merchant who granted.
        #[arg(long)]
        merchant: MerchantId,
        #[command(flatten)]
        output: Output,
    },
    /// Shows a grant, with its app and when it was last used.
    Show {
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

impl Grant {
    pub(in crate::cli) async fn run(self) -> CommandResult {
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
                let input = GrantInput {
                    scopes: scope,
                    locations,
                    personal_data,
                    expires_at,
                };
                let foundation = output.open().await?;
                let grant = Desk::at(&foundation).grant(merchant, app, input).await?;
                foundation.close().await;
                if scope.allows(Scope::OrdersPiiRead) != personal_data {
                    tracing::warn!(
                        "names, addresses and contacts take both --personal-data and the scope orders.pii:read"
                    );
                }
                output.print(&grant)
            }
            Self::Revoke {
                merchant,
                grant,
                output,
            } => {
                let foundation = output.open().await?;
                let grant = Desk::at(&foundation).revoke(merchant, grant).await?;
                foundation.close().await;
                output.print(&grant)
            }
            Self::List { merchant, output } => {
                let foundation = output.open().await?;
                let desk = Desk::at(&foundation);
                let mut tx = desk.database.enter(merchant).await?;
                let installed = installed::list(&mut tx, merchant, desk.now).await?;
                drop(tx);
                foundation.close().await;
                let columns = [
                    "/grant/id",
                    "/app/name",
                    "/grant/scopes",
                    "/grant/expiresAt",
                    "/grant/revokedAt",
                    "/lastUsedAt",
                ];
                output.print_list(&installed, &columns)
            }
            Self::Show {
                merchant,
                grant,
                output,
            } => {
                let foundation = output.open().await?;
                let desk = Desk::at(&foundation);
                let mut tx = desk.database.enter(merchant).await?;
                let installed = installed::get(&mut tx, merchant, grant, desk.now).await?;
                drop(tx);
                foundation.close().await;
                output.print(&installed)
            }
        }
    }
}

impl Desk<'_> {
    pub(super) async fn grant(
        &self,
        merchant: MerchantId,
        app: AppId,
        input: GrantInput,
    ) -> Result<grant::Grant, auth::Error> {
        let mut tx = self.database.enter(merchant).await?;
        let terms = json!({"appId": app, "after": installed::terms(&input)});
        let request = self.caller.request;
        let grant =
            grant::create_or_change(&mut tx, merchant, app, input, request, self.now).await?;
        if grant.changed_at < self.now {
            // It was so already.
            return Ok(grant);
        }
        let action = if grant.version == 1 {
            "grant.consented"
        } else {
            "grant.changed"
        };
        let entry = NewEntry::succeeded(action)
            .to("grant", grant.id)
            .with(terms);
        self.commit(tx, Log::Merchant(merchant), &entry).await?;
        Ok(grant)
    }

    async fn revoke(&self, merchant: MerchantId, id: GrantId) -> Result<grant::Grant, auth::Error> {
        let mut tx = self.database.enter(merchant).await?;
        let grant = grant::revoke(&mut tx, merchant, id, self.caller.request, self.now).await?;
        let entry = NewEntry::succeeded("grant.revoked")
            .to("grant", id)
            .with(json!({"appId": grant.app_id}));
        self.commit(tx, Log::Merchant(merchant), &entry).await?;
        Ok(grant)
    }
}
