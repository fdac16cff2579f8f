//! `stoa person …`

use std::{
    io::{IsTerminal, Read, Write},
    sync::Arc,
};

use auth::{
    Issuer,
    account::{
        Accounts, Role,
        invitation::Invited,
        person::{By, ListedPerson, NewPerson},
    },
    client::secret::Secret,
};
use clap::{Args, Subcommand};
use kernel::id::{MerchantId, PersonId};
use serde_json::{Value, json};
use url::Url;

use super::{CommandResult, Desk, Failure, Output, all};

/// Where pages are if nothing is said.
const PUBLIC_URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Bytes of a password that are read; one that is longer is refused for its length.
const PASSWORD_LENGTH_MAX: u64 = 4_096;

/// `stoa person …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Person {
    /// Invites somebody, and prints the link to hand over: good for seven days, once.
    Invite {
        #[command(flatten)]
        to: Invitation,
        /// Whom it is meant for, in your words.
        #[arg(long)]
        label: Option<String>,
        /// The address that browsers know.
        #[arg(long, env = "STOA_PUBLIC_URL", default_value = PUBLIC_URL_DEFAULT)]
        public_url: Url,
        #[command(flatten)]
        output: Output,
    },
    /// Makes a person, whose password is read from standard input.
    Create {
        /// What they sign in with.
        #[arg(long)]
        login: String,
        /// What they are called.
        #[arg(long)]
        name: String,
        /// They run this installation.
        #[arg(long)]
        operator: bool,
        /// They make apps.
        #[arg(long)]
        developer: bool,
        /// The merchant whose staff they are.
        #[arg(long, requires = "role", conflicts_with_all = ["operator", "developer"])]
        merchant: Option<MerchantId>,
        /// What they may do there: owner, manager or viewer.
        #[arg(long, requires = "merchant", value_parser = role)]
        role: Option<Role>,
        #[command(flatten)]
        output: Output,
    },
    /// Gives somebody who has lost theirs another password, which is read from standard input: takes their second factor away, and ends their sessions.
    ResetPassword {
        /// What they sign in with.
        #[arg(long)]
        login: String,
        #[command(flatten)]
        output: Output,
    },
    /// Lists everybody.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Ends somebody's sessions, and lets them sign in no more.
    Disable {
        /// The person.
        #[arg(long)]
        person: PersonId,
        #[command(flatten)]
        output: Output,
    },
    /// Lets somebody sign in again.
    Enable {
        /// The person.
        #[arg(long)]
        person: PersonId,
        #[command(flatten)]
        output: Output,
    },
}

/// To what somebody is invited.
#[derive(Debug, Args)]
#[group(required = true)]
pub(in crate::cli) struct Invitation {
    /// To be staff of this merchant.
    #[arg(long, requires = "role", conflicts_with_all = ["operator", "developer"])]
    merchant: Option<MerchantId>,
    /// What they may do there: owner, manager or viewer.
    #[arg(long, requires = "merchant", value_parser = role)]
    role: Option<Role>,
    /// To run this installation.
    #[arg(long, conflicts_with = "developer")]
    operator: bool,
    /// To make apps.
    #[arg(long)]
    developer: bool,
}

impl Invitation {
    fn invited(&self) -> Invited {
        match (self.merchant, self.role) {
            (Some(merchant), Some(role)) => Invited::Staff { merchant, role },
            _ if self.operator => Invited::Operator,
            _ => Invited::Developer,
        }
    }
}

/// Reads a role by its name.
fn role(name: &str) -> Result<Role, String> {
    Role::ALL
        .into_iter()
        .find(|role| role.name() == name)
        .ok_or_else(|| "must be owner, manager or viewer".to_owned())
}

impl Person {
    pub(in crate::cli) async fn run(self) -> CommandResult {
        match self {
            Self::Invite {
                to,
                label,
                public_url,
                output,
            } => {
                let issuer = Issuer::parse(public_url.as_str())?;
                let foundation = output.open().await?;
                let desk = Desk::at(&foundation);
                let (invitation, token) = desk
                    .accounts(issuer.clone())?
                    .invite(
                        &desk.caller,
                        By::CommandLine,
                        to.invited(),
                        label.as_deref(),
                    )
                    .await?;
                foundation.close().await;
                let link = format!("{issuer}/console/invitations/{}", token.expose());
                output.print(&json!({
                    "id": invitation.id,
                    "link": link,
                    "expiresAt": invitation.expires_at,
                }))
            }
            Self::Create {
                login,
                name,
                operator,
                developer,
                merchant,
                role,
                output,
            } => {
                let new = NewPerson {
                    login,
                    name,
                    password: read_password()?,
                };
                let foundation = output.open().await?;
                let desk = Desk::at(&foundation);
                let person = if let Some((merchant, role)) = merchant.zip(role) {
                    desk.create_staff(new, merchant, role).await?
                } else {
                    let accounts = desk.accounts(Issuer::parse(PUBLIC_URL_DEFAULT)?)?;
                    accounts
                        .create_person(&desk.caller, new, operator, developer)
                        .await?
                };
                foundation.close().await;
                output.print(&json!({
                    "id": person.id,
                    "login": person.login,
                    "name": person.name,
                    "isOperator": person.is_operator,
                    "isDeveloper": person.is_developer,
                    "merchantId": merchant,
                    "role": role,
                }))
            }
            Self::ResetPassword { login, output } => {
                let password = read_password()?;
                let foundation = output.open().await?;
                let desk = Desk::at(&foundation);
                let accounts = desk.accounts(Issuer::parse(PUBLIC_URL_DEFAULT)?)?;
                let person = accounts
                    .reset_person(&desk.caller, &login, &password)
                    .await?;
                foundation.close().await;
                output.print(&json!({"id": person, "login": login}))
            }
            Self::List { output } => {
                let foundation = output.open().await?;
                let persons = Desk::at(&foundation).persons().await?;
                foundation.close().await;
                let rows: Vec<Value> = persons.iter().map(row_of).collect();
                let columns = [
                    "/id",
                    "/login",
                    "/name",
                    "/isOperator",
                    "/isDeveloper",
                    "/merchants",
                    "/disabledAt",
                ];
                output.print_list(&rows, &columns)
            }
            Self::Disable { person, output } => switch(person, false, &output).await,
            Self::Enable { person, output } => switch(person, true, &output).await,
        }
    }
}

async fn switch(person: PersonId, is_enabled: bool, output: &Output) -> CommandResult {
    let foundation = output.open().await?;
    let desk = Desk::at(&foundation);
    let accounts = desk.accounts(Issuer::parse(PUBLIC_URL_DEFAULT)?)?;
    if is_enabled {
        accounts
            .enable_person(&desk.caller, By::CommandLine, person)
            .await?;
    } else {
        accounts
            .disable_person(&desk.caller, By::CommandLine, person)
            .await?;
    }
    foundation.close().await;
    output.print(&json!({"id": person, "isEnabled": is_enabled}))
}

fn row_of(listed: &ListedPerson) -> Value {
    let person = &listed.person;
    json!({
        "id": person.id,
        "login": person.login,
        "name": person.name,
        "isOperator": person.is_operator,
        "isDeveloper": person.is_developer,
        "hasTotp": person.has_totp,
        "merchants": listed.merchants,
        "disabledAt": listed.disabled_at,
        "createdAt": person.created_at,
    })
}

/// The password on standard input: all of it, but for the end of its line.
fn read_password() -> Result<Secret, Failure> {
    let mut input = std::io::stdin().lock();
    let mut text = String::new();
    if input.is_terminal() {
        // Whoever types it sees it: better from a file or a password store, by a pipe.
        write!(std::io::stderr(), "Password (shown as you type): ")?;
        std::io::BufRead::read_line(&mut input, &mut text)?;
    } else {
        input.take(PASSWORD_LENGTH_MAX).read_to_string(&mut text)?;
    }
    Ok(Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

impl Desk<'_> {
    fn accounts(&self, issuer: Issuer) -> Result<Accounts, auth::Error> {
        Accounts::new(
            self.database.clone(),
            Arc::clone(self.foundation.keyring()),
            self.foundation.clock().clone(),
            issuer,
        )
    }

    /// Makes a person who is staff of `merchant`: by an invitation that is accepted at once, and with no session left.
    async fn create_staff(
        &self,
        new: NewPerson,
        merchant: MerchantId,
        role: Role,
    ) -> Result<auth::account::Person, Failure> {
        let accounts = self.accounts(Issuer::parse(PUBLIC_URL_DEFAULT)?)?;
        let invited = Invited::Staff { merchant, role };
        let (_, token) = accounts
            .invite(&self.caller, By::CommandLine, invited, None)
            .await?;
        let begun = accounts
            .accept_as_new(&self.caller, token.expose(), new)
            .await?;
        let session = accounts.session(begun.token.expose()).await?;
        let session = session.ok_or("the new person's session has ended already")?;
        accounts.sign_out(&self.caller, &session).await?;
        Ok(session.person)
    }

    async fn persons(&self) -> Result<Vec<ListedPerson>, Failure> {
        let accounts = self.accounts(Issuer::parse(PUBLIC_URL_DEFAULT)?)?;
        all(async |page| accounts.persons(By::CommandLine, page).await).await
    }
}
