//! `stoa app …`

use auth::client::{
    app::{self, AppInput, ClientKind, NewApp},
    app_secret::{AppSecret, Overlap},
    secret::Secret,
};
use clap::{Args, Subcommand};
use kernel::{
    audit::{Log, NewEntry},
    id::AppId,
    scope::ScopeSet,
};
use serde_json::json;

use super::{CommandResult, Desk, Failure, Output, all};

/// `stoa app …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum App {
    /// Makes an app, and prints its secret this once.
    Create {
        #[command(flatten)]
        app: NewAppArguments,
        #[command(flatten)]
        output: Output,
    },
    /// Makes another secret for an app, and prints it this once.
    RotateSecret {
        /// The app.
        #[arg(long)]
        app: AppId,
        /// For how long the secrets that there are stay good beside it: now (not at all: one has leaked), day or week.
        #[arg(long, default_value = "day", value_parser = overlap)]
        overlap: Overlap,
        #[command(flatten)]
        output: Output,
    },
    /// Lists every app.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Shows an app.
    Show {
        /// The app.
        #[arg(long)]
        app: AppId,
        #[command(flatten)]
        output: Output,
    },
}

/// What a new app is.
#[derive(Debug, Args)]
pub(in crate::cli) struct NewAppArguments {
    /// What the app is called.
    #[arg(long)]
    name: String,
    /// It runs on people's machines, and so has no secret.
    #[arg(long)]
    public: bool,
    /// Where people may be sent back to; several times for several.
    #[arg(long)]
    redirect_uri: Vec<String>,
    /// What it may ask for at most, with a space between. None: whatever a merchant may give.
    #[arg(long)]
    scope: Option<ScopeSet>,
    /// What it can't do without: not for a merchant to untick.
    #[arg(long)]
    required_scope: Option<ScopeSet>,
    /// The app's own page.
    #[arg(long)]
    homepage: Option<String>,
}

impl From<NewAppArguments> for AppInput {
    fn from(arguments: NewAppArguments) -> Self {
        Self {
            name: arguments.name,
            kind: if arguments.public {
                ClientKind::Public
            } else {
                ClientKind::Confidential
            },
            redirect_uris: arguments.redirect_uri,
            scopes: arguments.scope,
            required_scopes: arguments.required_scope.unwrap_or_default(),
            homepage_url: arguments.homepage,
        }
    }
}

/// Reads an overlap by its name.
fn overlap(name: &str) -> Result<Overlap, &'static str> {
    match name {
        "now" => Ok(Overlap::Now),
        "day" => Ok(Overlap::Day),
        "week" => Ok(Overlap::Week),
        _ => Err("must be now, day or week"),
    }
}

impl App {
    pub(in crate::cli) async fn run(self) -> CommandResult {
        match self {
            Self::Create { app, output } => {
                let foundation = output.open().await?;
                let created = Desk::at(&foundation).create_app(app.into()).await?;
                foundation.close().await;
                let secret = created.client_secret.as_ref();
                output.print(&json!({
                    "clientId": created.app.id,
                    "clientSecret": secret.map(Secret::expose),
                    "name": created.app.name,
                }))
            }
            Self::RotateSecret {
                app,
                overlap,
                output,
            } => {
                let foundation = output.open().await?;
                let (secret, text) = Desk::at(&foundation).rotate_secret(app, overlap).await?;
                foundation.close().await;
                output.print(&json!({
                    "clientId": app,
                    "clientSecret": text.expose(),
                    "secretId": secret.id,
                }))
            }
            Self::List { output } => {
                let foundation = output.open().await?;
                let apps = Desk::at(&foundation).apps().await?;
                foundation.close().await;
                output.print_list(&apps, &["/id", "/name", "/kind", "/createdAt"])
            }
            Self::Show { app, output } => {
                let foundation = output.open().await?;
                let mut tx = Desk::at(&foundation).database.begin().await?;
                let app = app::get(&mut tx, app).await?;
                drop(tx);
                foundation.close().await;
                output.print(&app)
            }
        }
    }
}

impl Desk<'_> {
    pub(super) async fn create_app(&self, input: AppInput) -> Result<NewApp, auth::Error> {
        let mut tx = self.database.begin().await?;
        let created = app::create(&mut tx, input, self.now).await?;
        let entry = NewEntry::succeeded("app.created")
            .by_app(created.app.id)
            .to("app", created.app.id)
            .with(json!({"name": created.app.name, "kind": created.app.kind}));
        self.commit(tx, Log::Installation, &entry).await?;
        Ok(created)
    }

    async fn rotate_secret(
        &self,
        app: AppId,
        overlap: Overlap,
    ) -> Result<(AppSecret, Secret), auth::Error> {
        let mut tx = self.database.begin().await?;
        let (secret, text) = app::rotate_secret(&mut tx, app, overlap, self.now).await?;
        let entry = NewEntry::succeeded("app_secret.created")
            .by_app(app)
            .to("app", app)
            .with(json!({"secretId": secret.id, "overlap": overlap}));
        self.commit(tx, Log::Installation, &entry).await?;
        Ok((secret, text))
    }

    async fn apps(&self) -> Result<Vec<app::App>, Failure> {
        let mut tx = self.database.begin().await?;
        all(async |page| app::list(&mut tx, page).await).await
    }
}
