//! Giving a login back (RFC 7009).

use super::{CLIENT, Error, Login};
use crate::client::{Answer, Error as CallError, http, server::Server};

/// Gives a login back: its tokens are no longer good. What the merchant granted stands until the merchant ends it.
pub async fn revoke(login: &Login) -> Result<(), CallError> {
    let http = http()?;
    let server = Server::discover(&http, &login.issuer).await?;
    let endpoint = server.endpoint("revocation", server.revocation_endpoint.as_ref())?;
    let client_id = CLIENT.to_string();
    let form = [
        ("token", login.refresh_token.secret().as_str()),
        ("token_type_hint", "refresh_token"),
        ("client_id", &client_id),
    ];
    let answer = Answer::read(http.post(endpoint.clone()).form(&form).send().await?).await?;
    if answer.status.is_success() {
        Ok(())
    } else {
        Err(Error::NotRevoked(answer.status).into())
    }
}
