//! Clients: the apps that ask for tokens, and how they prove who they are (RFC 6749, section 2.3; RFC 7523).

use std::borrow::Cow;

use kernel::{clock::Timestamp, id::AppId};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use subtle::{Choice, ConstantTimeEq};

use crate::{Error, Issuer};

pub mod app;
pub mod app_secret;
pub mod assertion;
pub mod developer;
pub mod key;
pub mod limiter;
pub mod redirect_uri;
pub mod secret;
mod store;
pub mod token_error;

use app::{App, ClientKind};
use app_secret::SECRETS_MAX;
use secret::Secret;

/// What a client shows, as it was sent.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Nothing but its name: a public client.
    None {
        /// The app's id, if it is one.
        client_id: String,
    },
    /// A secret (RFC 6749, section 2.3.1).
    Secret {
        /// The app's id, if it is one.
        client_id: String,
        /// The secret.
        secret: Secret,
    },
    /// A JWT that it has signed (RFC 7523, section 2.2).
    Assertion {
        /// The app's id, if it is one and was sent beside the assertion.
        client_id: Option<String>,
        /// The JWT.
        assertion: Secret,
    },
}

impl Credentials {
    /// Who the client says it is, which nobody has checked: for counting and for logs. Empty if it does not say.
    pub fn client_id(&self) -> Cow<'_, str> {
        match self {
            Self::None { client_id }
            | Self::Secret { client_id, .. }
            | Self::Assertion {
                client_id: Some(client_id),
                ..
            } => Cow::Borrowed(client_id),
            Self::Assertion {
                client_id: None,
                assertion,
            } => Cow::Owned(assertion::claimed_subject(assertion.expose()).unwrap_or_default()),
        }
    }
}

/// How a client has proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Not at all: a public client.
    None,
    /// By a secret.
    Secret,
    /// By a signature. The transaction has noted the assertion as used, and must be committed even if what the client asks for is refused.
    Assertion,
}

/// A client that is who it says, as far as that can be known of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The app.
    pub app: App,
    /// How it has proved that.
    pub proof: Proof,
}

impl Client {
    /// The app's id, which is the client id.
    pub fn id(&self) -> AppId {
        self.app.id
    }
}

/// The client whose credentials these are at `now`; `None` if there is no such client or they are not its own.
///
/// A confidential client proves itself by any living secret or any registered key, also while it has both: that is how it moves from the one to
/// the other, and takes its secrets back when it has moved. A public client has neither, and shows neither.
///
/// All refusals walk the same path: an id that is no id is looked up like any other, and a secret is compared as often if there is nothing to
/// compare it with. The transaction has entered no merchant.
pub async fn authenticate(
    tx: &mut PgConnection,
    issuer: &Issuer,
    credentials: &Credentials,
    now: Timestamp,
) -> Result<Option<Client>, Error> {
    if let Credentials::Assertion {
        client_id,
        assertion,
    } = credentials
    {
        return assertion::authenticate(tx, issuer, client_id.as_deref(), assertion, now).await;
    }
    let known = store::select_with_secrets(tx, id_of(&credentials.client_id()), now).await?;
    let (app, secrets) = known.map_or((None, Vec::new()), |(app, secrets)| (Some(app), secrets));
    let (kind, proof, is_proved) = match credentials {
        Credentials::Secret { secret, .. } => {
            let is_proved = is_among(&sha256(secret.expose()), &secrets);
            (ClientKind::Confidential, Proof::Secret, is_proved)
        }
        Credentials::None { .. } | Credentials::Assertion { .. } => {
            (ClientKind::Public, Proof::None, true)
        }
    };
    Ok(app
        .filter(|app| is_proved && app.kind == kind)
        .map(|app| Client { app, proof }))
}

/// The app that `client_id` names, or one that there is not.
fn id_of(client_id: &str) -> AppId {
    client_id
        .parse()
        .unwrap_or(AppId::from_uuid(uuid::Uuid::nil()))
}

/// Whether `given` is one of `kept`. Takes as long for few as for many, and compares all of them.
fn is_among(given: &[u8; 32], kept: &[Vec<u8>]) -> bool {
    let nothing = [0; 32];
    let found = (0..SECRETS_MAX.max(kept.len())).fold(Choice::from(0), |found, place| {
        let (secret, is_there) = match kept.get(place) {
            Some(secret) => (secret.as_slice(), Choice::from(1)),
            None => (nothing.as_slice(), Choice::from(0)),
        };
        found | (given.as_slice().ct_eq(secret) & is_there)
    });
    bool::from(found)
}

/// What is kept of a secret. Its 256 random bits leave nothing to guess, so there is nothing to salt or to slow down.
fn sha256(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}
