//! Clients that prove themselves by a signature: `private_key_jwt` (RFC 7523, sections 2.2 and 3; RFC 7521, section 4.2).

use kernel::clock::Timestamp;
use sqlx::PgConnection;

use super::{Client, secret::Secret};
use crate::{Error, Issuer};

/// The value of `client_assertion_type` for a JWT (RFC 7523, section 2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who the assertion says it is about, before anything of it is checked.
pub(super) fn claimed_subject(_assertion: &str) -> Option<String> {
    None
}

/// The client that has signed `assertion`.
pub(super) async fn authenticate(
    _tx: &mut PgConnection,
    _issuer: &Issuer,
    _client_id: Option<&str>,
    _assertion: &Secret,
    _now: Timestamp,
) -> Result<Option<Client>, Error> {
    Ok(None)
}
