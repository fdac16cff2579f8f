//! Clients: the apps that ask for tokens, and how they prove who they are (RFC 6749, section 2.3.1).

use kernel::id::AppId;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use subtle::ConstantTimeEq;

use crate::Error;

pub mod app;
pub mod secret;
mod store;

use secret::Secret;

/// What a client shows: its id as it was sent, and its secret.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The typed app id, if it is one.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: Secret,
}

/// The app whose credentials these are; `None` if there is no such app or the secret is another.
///
/// All refusals walk the same path: an id that is no id is looked up like any other, and a secret is compared even if there is nothing to
/// compare it with.
pub async fn authenticate(
    tx: &mut PgConnection,
    credentials: &Credentials,
) -> Result<Option<AppId>, Error> {
    let app = credentials
        .client_id
        .parse()
        .unwrap_or(AppId::from_uuid(uuid::Uuid::nil()));
    let kept = store::select_secret_sha256(tx, app).await?;
    let known = kept.is_some();
    let given = sha256(credentials.client_secret.expose());
    let equal = bool::from(
        given
            .as_slice()
            .ct_eq(kept.unwrap_or_else(|| vec![0; given.len()]).as_slice()),
    );
    Ok((known && equal).then_some(app))
}

/// What is kept of a secret. Its 256 random bits leave nothing to guess, so there is nothing to salt or to slow down.
fn sha256(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
