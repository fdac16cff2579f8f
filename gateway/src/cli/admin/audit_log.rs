//! `stoa audit`

use clap::Args;
use kernel::{
    audit::{self, Filter, Log},
    id::{AppId, MerchantId, PersonId},
    page::{LIMIT_MAX, PageRequest},
};

use super::{CommandResult, Desk, Output};

/// `stoa audit`
#[derive(Debug, Args)]
pub(in crate::cli) struct Audit {
    /// The log of this merchant. None: the installation's, of sign-ins, apps and keys.
    #[arg(long)]
    merchant: Option<MerchantId>,
    /// Only what this person did.
    #[arg(long)]
    person: Option<PersonId>,
    /// Only what this app did, or what was done for it.
    #[arg(long)]
    app: Option<AppId>,
    /// How many of the last entries.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    last: u32,
    #[command(flatten)]
    output: Output,
}

impl Audit {
    pub(in crate::cli) async fn run(self) -> CommandResult {
        let foundation = self.output.open().await?;
        let desk = Desk::at(&foundation);
        let (log, mut tx) = match self.merchant {
            Some(merchant) => (
                Log::Merchant(merchant),
                desk.database.enter(merchant).await?,
            ),
            None => (Log::Installation, desk.database.begin().await?),
        };
        let filter = Filter {
            person: self.person,
            app: self.app,
        };
        let request = PageRequest {
            limit: self.last,
            after: None,
        };
        let mut entries = audit::list(&mut tx, log, &filter, &request).await?.data;
        drop(tx);
        foundation.close().await;
        // As a log is read: the newest at its end.
        entries.reverse();
        let columns = [
            "/occurredAt",
            "/action",
            "/outcome",
            "/personId",
            "/appId",
            "/targetId",
            "/address",
        ];
        self.output.print_list(&entries, &columns)
    }
}
