//! `stoa merchant …`

use auth::merchant::{self, MerchantInput};
use clap::Subcommand;
use kernel::{
    audit::{Log, NewEntry},
    id::MerchantId,
};

use super::{CommandResult, Desk, Failure, Output, all};

/// `stoa merchant …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Merchant {
    /// Makes a merchant.
    Create {
        /// What the merchant is called.
        #[arg(long)]
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Lists every merchant.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Shows a merchant.
    Show {
        /// The merchant.
        #[arg(long)]
        merchant: MerchantId,
        #[command(flatten)]
        output: Output,
    },
}

impl Merchant {
    pub(in crate::cli) async fn run(self) -> CommandResult {
        match self {
            Self::Create { name, output } => {
                let foundation = output.open().await?;
                let merchant = Desk::at(&foundation).create_merchant(&name).await?;
                foundation.close().await;
                output.print(&merchant)
            }
            Self::List { output } => {
                let foundation = output.open().await?;
                let merchants = Desk::at(&foundation).merchants().await?;
                foundation.close().await;
                output.print_list(&merchants, &["/id", "/name", "/createdAt"])
            }
            Self::Show { merchant, output } => {
                let foundation = output.open().await?;
                let mut tx = Desk::at(&foundation).database.begin().await?;
                let merchant = merchant::get(&mut tx, merchant).await?;
                drop(tx);
                foundation.close().await;
                output.print(&merchant)
            }
        }
    }
}

impl Desk<'_> {
    pub(super) async fn create_merchant(
        &self,
        name: &str,
    ) -> Result<merchant::Merchant, auth::Error> {
        let id = MerchantId::new(self.now);
        let mut tx = self.database.enter(id).await?;
        let input = MerchantInput {
            name: name.to_owned(),
        };
        let keyring = self.foundation.keyring();
        let merchant = merchant::create(&mut tx, keyring, id, input, self.now).await?;
        let entry = NewEntry::succeeded("merchant.created").to("merchant", id);
        self.commit(tx, Log::Merchant(id), &entry).await?;
        Ok(merchant)
    }

    async fn merchants(&self) -> Result<Vec<merchant::Merchant>, Failure> {
        let mut tx = self.database.begin().await?;
        all(async |page| merchant::list(&mut tx, page).await).await
    }
}
