//! Token revocation (RFC 7009): a client gives back what it does not need any more, or fears for.
//!
//! A refresh token ends its family, and every access token of the grant. An access token ends every access token of its grant, for they are known by
//! the grant's epoch; the refresh tokens live on and get new ones. The grant itself is the merchant's, and stays.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::Timestamp,
    db,
};
use sqlx::PgConnection;

use super::{
    access_token,
    access_token::Verifier,
    family::{self, EndReason},
    refusal::Refusal,
};
use crate::{
    Error,
    client::{Client, secret::Secret},
    grant,
};

/// Revokes `token` if it is one of `client`'s; another's, and what is none, is passed over without a word (RFC 7009, section 2.2). Runs in a
/// transaction that has entered no merchant.
pub(crate) async fn revoke(
    tx: &mut PgConnection,
    verifier: &Verifier,
    client: &Client,
    token: &Secret,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Refusal> {
    if family::is_refresh_token(token) {
        refresh_token(tx, client, token, caller, now).await?;
    } else {
        access_token(tx, verifier, client, token, caller, now).await?;
    }
    Ok(())
}

/// One that has been exchanged already ends its family all the same: whoever revokes wants it gone.
async fn refresh_token(
    tx: &mut PgConnection,
    client: &Client,
    token: &Secret,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Error> {
    let Some((family, _kept)) = family::lock_by_token(tx, token).await? else {
        return Ok(());
    };
    if family.app != client.id() {
        return Ok(());
    }
    db::enter_merchant(tx, family.merchant).await?;
    family::end(tx, caller, &family, EndReason::Revoked, now).await
}

/// One that is not good any more ends nothing: it must not be of use to whoever finds it.
async fn access_token(
    tx: &mut PgConnection,
    verifier: &Verifier,
    client: &Client,
    token: &Secret,
    caller: &Caller,
    now: Timestamp,
) -> Result<(), Error> {
    let read = match verifier.verify(token.expose()).await {
        Ok(read) => read,
        Err(Error::Token(_)) => return Ok(()),
        Err(other) => return Err(other),
    };
    let (merchant, claims) = (read.merchant, read.claims);
    if claims.client_id != client.id() || access_token::check_time(&claims, now).is_err() {
        return Ok(());
    }
    let grant = match grant::get(tx, merchant, claims.grant).await {
        Ok(grant) => grant,
        Err(Error::NotFound { .. }) => return Ok(()),
        Err(other) => return Err(other),
    };
    if !grant.is_living(now) || claims.epoch < grant.epoch {
        return Ok(());
    }
    db::enter_merchant(tx, merchant).await?;
    grant::raise_epoch(tx, merchant, grant.id, now).await?;
    let entry = NewEntry::succeeded("grant.changed")
        .by_app(client.id())
        .to("grant", grant.id)
        .with(serde_json::json!({"accessTokens": "revoked by their client"}));
    Ok(audit::record(tx, Log::Merchant(merchant), caller, now, &entry).await?)
}
