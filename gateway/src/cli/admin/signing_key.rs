//! `stoa signing-key …`

use auth::token::signing_key::rotation::{self, KeySummary, Pace};
use clap::Subcommand;

use super::{CommandResult, Desk, Output};

/// What a list of keys shows.
const COLUMNS: [&str; 5] = ["/kid", "/state", "/createdAt", "/signsFrom", "/retiredAt"];

/// `stoa signing-key …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SigningKey {
    /// Lists every key there ever was.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Makes a successor: published within seconds, it signs a quarter of an hour later. Keys rotate by themselves every thirty days; this is for
    /// whoever does not want to wait.
    Rotate {
        /// The keys may be known to others: retires all of them, and signs with a new one at once. Every access token that is out is refused within
        /// ten seconds, and apps ask for new ones.
        #[arg(long)]
        now: bool,
        #[command(flatten)]
        output: Output,
    },
}

impl SigningKey {
    pub(in crate::cli) async fn run(self) -> CommandResult {
        match self {
            Self::List { output } => {
                let foundation = output.open().await?;
                let desk = Desk::at(&foundation);
                let mut tx = desk.database.begin().await?;
                let keys = rotation::list(&mut tx, desk.now).await?;
                drop(tx);
                foundation.close().await;
                output.print_list(&keys, &COLUMNS)
            }
            Self::Rotate { now, output } => {
                let pace = if now { Pace::AtOnce } else { Pace::Announced };
                let foundation = output.open().await?;
                let keys = Desk::at(&foundation).rotate(pace).await?;
                foundation.close().await;
                output.print_list(&keys, &COLUMNS)
            }
        }
    }
}

impl Desk<'_> {
    async fn rotate(&self, pace: Pace) -> Result<Vec<KeySummary>, auth::Error> {
        let keyring = self.foundation.keyring();
        let mut tx = self.database.begin().await?;
        let keys = rotation::rotate(&mut tx, keyring, &self.caller, pace, self.now).await?;
        tx.commit().await.map_err(kernel::db::Error::from)?;
        Ok(keys)
    }
}
