//! Logins: what a person allowed the command line in the browser, kept in a file and renewed by itself.
//!
//! `stoa login` makes one by an [authorization code](authorization) (RFC 6749, section 4.1, as RFC 8252 has it for programs on a person's machine); the
//! commands that call the API have a [`Source`] of tokens in it. A login's refresh token is good once: whoever exchanges it holds the file's lock from before the
//! file is read until the successor is on disk, and nobody sees a token that is not. A process that dies in between leaves the predecessor there, for which the
//! server gives the same successor again for a while.

use std::{fmt, path::PathBuf, time::Duration};

use http::StatusCode;
use kernel::{
    clock::{Clock, Timestamp},
    id::{AppId, MerchantId},
    scope::ScopeSet,
};
use serde::{Deserialize, Serialize};
use url::Url;

pub mod authorization;
mod callback;
pub mod file;
mod refresh;
mod revocation;

pub use file::{LoginFile, Logins};
pub use revocation::revoke;

use super::server::is_same_issuer;

/// The built-in public client that the command line is: it has no secret, and is answered on loopback alone.
pub const CLIENT: AppId = AppId::from_uuid(uuid::Uuid::from_u128(
    0x0000_0000_0000_7000_8000_0000_0000_00c1,
));

/// What a person allowed, and the tokens that show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Login {
    /// The server, as it calls itself.
    pub issuer: Url,
    /// The merchant that it is for.
    pub merchant_id: MerchantId,
    /// The scopes of the last token, with spaces between.
    pub scope: String,
    /// When what was allowed ends, as the last answer said; none: not by itself.
    #[serde(default)]
    pub grant_expires_at: Option<Timestamp>,
    /// The last access token.
    pub access_token: oauth2::AccessToken,
    /// When that ends.
    pub access_token_expires_at: Timestamp,
    /// What the next one is got for; good once.
    pub refresh_token: oauth2::RefreshToken,
}

impl Login {
    /// Whether it is for this server, if one is named, and this merchant, if one is named.
    pub fn is_for(&self, url: Option<&Url>, merchant: Option<MerchantId>) -> bool {
        url.is_none_or(|url| is_same_issuer(url.as_str(), self.issuer.as_str()))
            && merchant.is_none_or(|merchant| merchant == self.merchant_id)
    }

    /// The server, as people write it.
    pub fn server(&self) -> &str {
        self.issuer.as_str().trim_end_matches('/')
    }
}

/// Where a client's tokens come from if it uses a login.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file of the login.
    pub file: LoginFile,
    /// The server.
    pub url: Url,
    /// The merchant.
    pub merchant_id: MerchantId,
    /// The scopes that are needed; a login that lacks one is an error before anything is sent.
    pub scopes: ScopeSet,
    /// The present.
    pub clock: Clock,
}

/// How a login fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody says where the file is.
    #[error(
        "there is no place for credentials: set STOA_CREDENTIALS to a file, or HOME to a directory"
    )]
    NoPlace,
    /// The file can't be read or written.
    #[error("can't {act} {}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others than its owner have access to the file.
    #[error(
        "{} is open to other users of this machine (mode {mode:04o}): run `chmod 600 {}`. If somebody may have read it, run `stoa logout` and `stoa login` too",
        path.display(), path.display()
    )]
    TooOpen {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file is not one, or somebody else's.
    #[error("{} is not a regular file of this user", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what `stoa login` writes.
    #[error("{} is not a file of logins; move it away and run `stoa login`", path.display())]
    NotLogins {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another process holds the lock and does not let go.
    #[error("another stoa command has been at work on {} for {} s", path.display(), waited.as_secs())]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// There is no such login.
    #[error(
        "not logged in{0}: run `stoa login`, or name an app by --client-id and --client-secret"
    )]
    NotLoggedIn(Wanted),
    /// There are several.
    #[error("there are several logins{wanted}: say which by --url and --merchant\n{choices}")]
    Several {
        /// What was asked for.
        wanted: Wanted,
        /// Those that there are, a line each.
        choices: String,
    },
    /// The merchant did not allow what is needed.
    #[error(
        "the login at {server} for {merchant_id} does not include {lacking}: run `stoa login --url {server} --merchant {merchant_id} --scope \"{needed}\"`"
    )]
    Lacking {
        /// The server.
        server: String,
        /// The merchant.
        merchant_id: MerchantId,
        /// The scopes that are missing.
        lacking: ScopeSet,
        /// The scopes that are needed.
        needed: ScopeSet,
    },
    /// The server does not renew it any more.
    #[error(
        "the login at {server} for {merchant_id} has ended: the merchant has ended it, it was logged out, or it lay unused for too long. Run `stoa login --url {server} --merchant {merchant_id}`"
    )]
    Ended {
        /// The server.
        server: String,
        /// The merchant.
        merchant_id: MerchantId,
    },
    /// Whoever was asked said no, or the server would not ask.
    #[error("not allowed: {code}{}", description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The code (RFC 6749, section 4.1.2.1): `access_denied`.
        code: String,
        /// What the server adds to it.
        description: Option<String>,
    },
    /// The answer came from another server than was asked (RFC 9207), or is for another merchant.
    #[error("{0}; nothing was kept. Try again")]
    Mismatch(String),
    /// Nobody has answered.
    #[error("nobody has answered in the browser for {} minutes; run `stoa login` again", waited.as_secs() / 60)]
    TimedOut {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The server refuses to take a token back.
    #[error("the server answered {0} when the login was to be given back")]
    NotRevoked(StatusCode),
}

/// Which login was asked for, in words that follow others: ` at https://stoa.example for mer_…`.
#[derive(Debug, Clone)]
pub struct Wanted(String);

impl Wanted {
    /// A login at this server, for this merchant; either may be left open.
    pub fn new(url: Option<&Url>, merchant: Option<MerchantId>) -> Self {
        let server = url.map(|url| format!(" at {}", url.as_str().trim_end_matches('/')));
        let merchant = merchant.map(|merchant| format!(" for {merchant}"));
        Self(server.unwrap_or_default() + &merchant.unwrap_or_default())
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
