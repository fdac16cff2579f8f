//! Apps: what acts for merchants. To OAuth an app is a confidential client, whose client id is the app's id.

use kernel::{
    clock::Timestamp,
    id::AppId,
    validation::{self, Faults, Validate},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::{secret::Secret, sha256, store};
use crate::{Error, merchant::NAME_LENGTH_MAX};

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The app's id, which is its OAuth client id too.
    pub id: AppId,
    /// What the app is called.
    #[schema(example = "Parcel Desk")]
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What a new app is made of.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppInput {
    /// What the app is called, 1 to 200 characters.
    #[schema(example = "Parcel Desk")]
    pub name: String,
}

impl Validate for AppInput {
    fn validate(&self, faults: &mut Faults) {
        faults.text("/name", &self.name, NAME_LENGTH_MAX);
    }
}

/// A new app, with the secret that is shown this once.
#[derive(Debug)]
pub struct NewApp {
    /// The app.
    pub app: App,
    /// Its client secret; only a hash of it is kept.
    pub client_secret: Secret,
}

/// Makes an app and its secret.
pub async fn create(
    tx: &mut PgConnection,
    input: AppInput,
    now: Timestamp,
) -> Result<NewApp, Error> {
    validation::check(&input).map_err(Error::InvalidFields)?;
    let app = App {
        id: AppId::new(now),
        name: input.name,
        created_at: now,
    };
    let client_secret = Secret::generate_for_client();
    store::insert(tx, &app, &sha256(client_secret.expose())).await?;
    Ok(NewApp { app, client_secret })
}

/// The app `id`.
pub async fn get(tx: &mut PgConnection, id: AppId) -> Result<App, Error> {
    store::select(tx, id).await?.ok_or_else(|| Error::NotFound {
        noun: "app",
        id: id.to_string(),
    })
}
