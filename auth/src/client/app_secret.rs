//! The secrets of confidential clients: several at a time, so that one can take another's place without a moment in which none is right.
//!
//! Binaries from before this table know one secret of an app, in a column of `apps`, and know of no end. So that column names the newest secret that
//! has no end, if there is one, and is asked only where an app has no row here: one that such a binary made.

use std::time::Duration;

use kernel::{
    clock::Timestamp,
    id::{AppId, Id, Kind},
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    app::{App, ClientKind},
    secret::Secret,
    sha256, store,
};
use crate::Error;

/// Living secrets of one app: one in use, one to take its place, and some for whoever forgets to take the old ones back.
pub const SECRETS_MAX: usize = 5;

/// Characters of a secret that are kept, for people to tell it from another. What is left has 232 bits.
const HINT_LENGTH: usize = 4;

/// A secret of an app, of which only a hash is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppSecret {
    /// The secret's id, which is no secret.
    pub id: AppSecretId,
    /// Its last characters; empty where they are not known.
    pub hint: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; null: not by itself.
    pub expires_at: Option<Timestamp>,
}

impl Kind for AppSecret {
    const PREFIX: &'static str = "sec";
}

/// The id of an app's secret.
pub type AppSecretId = Id<AppSecret>;

/// How long the secrets that there are stay good beside a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Not at all: the old one has leaked.
    Now,
    /// A day.
    Day,
    /// A week.
    Week,
}

impl Overlap {
    /// Its length.
    pub const fn duration(self) -> Duration {
        match self {
            Self::Now => Duration::ZERO,
            Self::Day => Duration::from_hours(24),
            Self::Week => Duration::from_hours(24 * 7),
        }
    }
}

/// Makes a secret beside those that there are. It is shown this once.
pub(super) async fn add(
    tx: &mut PgConnection,
    app: AppId,
    now: Timestamp,
) -> Result<(AppSecret, Secret), Error> {
    let text = Secret::generate_for_client();
    let secret = AppSecret {
        id: AppSecretId::new(now),
        hint: hint(text.expose()),
        created_at: now,
        expires_at: None,
    };
    store::insert_secret(tx, app, &secret, &sha256(text.expose())).await?;
    store::update_superseded_secret(tx, app).await?;
    Ok((secret, text))
}

/// The secrets that are good at `now`, the newest first.
pub(super) async fn living(
    tx: &mut PgConnection,
    app: AppId,
    now: Timestamp,
) -> Result<Vec<AppSecret>, Error> {
    Ok(store::select_living_secrets(tx, app, now).await?)
}

/// Has every secret end after `overlap`, unless it ends sooner. The app's row is locked, and [`add`] follows: until then older binaries take
/// one that ends for one that does not.
pub(super) async fn end_all(
    tx: &mut PgConnection,
    app: AppId,
    overlap: Overlap,
    now: Timestamp,
) -> Result<(), Error> {
    store::insert_superseded_secret(tx, app).await?;
    store::end_secrets(tx, app, now.plus(overlap.duration())).await?;
    Ok(store::delete_ended_secrets(tx, app, now).await?)
}

/// Makes a secret for `app`, whose row is locked. The others end after `overlap`, or when they would have anyway.
pub(super) async fn rotate(
    tx: &mut PgConnection,
    app: &App,
    overlap: Overlap,
    now: Timestamp,
) -> Result<(AppSecret, Secret), Error> {
    if app.kind == ClientKind::Public {
        return Err(Error::Forbidden("A public client has no secrets."));
    }
    end_all(tx, app.id, overlap, now).await?;
    if living(tx, app.id, now).await?.len() >= SECRETS_MAX {
        return Err(Error::Forbidden(
            "An app has at most 5 secrets: take one back first, or end the others now.",
        ));
    }
    add(tx, app.id, now).await
}

/// Takes a living secret back; false if there is none of that id. The app's row is locked.
pub(super) async fn revoke(
    tx: &mut PgConnection,
    app: AppId,
    secret: AppSecretId,
    now: Timestamp,
) -> Result<bool, Error> {
    store::insert_superseded_secret(tx, app).await?;
    store::delete_ended_secrets(tx, app, now).await?;
    let is_revoked = store::delete_secret(tx, app, secret).await?;
    // Where that was the last row, this leaves nothing to fall back on.
    store::update_superseded_secret(tx, app).await?;
    Ok(is_revoked)
}

fn hint(text: &str) -> String {
    let start = text.len().saturating_sub(HINT_LENGTH);
    text.get(start..).unwrap_or_default().to_owned()
}
