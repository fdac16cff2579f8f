//! Each merchant's part of apps' endpoints: made, changed and deleted as they are.
//!
//! Called by the relay in the transaction of a pass, after it has locked the merchant's feed and before it reads the audience, with or without events to
//! move: so one process at a time does it for a merchant. It costs one statement while nothing has changed. Invariant: what is wrong with one app's
//! endpoint is logged, and holds up neither another nor the relay.

use kernel::{
    clock::Timestamp,
    id::{AppId, GrantId, MerchantId, RequestId},
    keyring::Keyring,
};
use sqlx::PgConnection;

use super::{
    AppEndpoint, AppEndpointId,
    change::{open_credentials, open_key},
    store,
};
use crate::{
    endpoint::{
        DisabledReason, Endpoint, EndpointId, Owner, Status, Visible, announce,
        configuration::seal_credentials,
        health,
        key::{CopiedKey, Ring},
        settings::Credentials,
        store as endpoints,
    },
    error::Error,
    stream,
};

/// What a call has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Materialised {
    /// Endpoints that were made.
    pub made: usize,
    /// Endpoints that were changed.
    pub changed: usize,
    /// Endpoints that were deleted, because the app's endpoint was.
    pub deleted: usize,
}

/// A part that does not follow its app's endpoint, or is not there yet.
pub(super) struct Stale {
    /// The merchant's part; `None`: it is to be made.
    pub(super) endpoint: Option<EndpointId>,
    /// The app's endpoint; `None`: it was deleted.
    pub(super) app_endpoint: Option<AppEndpointId>,
    /// The app's living grant, if it has one.
    pub(super) grant: Option<GrantId>,
}

/// An app's endpoint, opened.
struct Opened {
    app: AppId,
    endpoint: AppEndpoint,
    credentials: Credentials,
    keys: Vec<CopiedKey>,
}

/// Makes the merchant's endpoints follow those of the apps that it has granted something. The transaction has locked the merchant's feed, or stands for
/// the merchant otherwise.
pub async fn materialise(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    now: Timestamp,
) -> Result<Materialised, Error> {
    let mut come_to = Materialised::default();
    for stale in store::stale(&mut *tx, merchant, now).await? {
        let Some(app_endpoint) = stale.app_endpoint else {
            if let Some(part) = stale.endpoint {
                endpoints::delete(&mut *tx, merchant, part).await?;
                come_to.deleted += 1;
            }
            continue;
        };
        let opened = match open(&mut *tx, keyring, app_endpoint).await {
            Ok(Some(opened)) => opened,
            // Deleted meanwhile: the next call sees that.
            Ok(None) => continue,
            Err(error) if error.is_of_what_was_read() => {
                tracing::error!(error = %error, app_endpoint.id = %app_endpoint, "an app's endpoint can't be read; merchants' parts do not follow it");
                continue;
            }
            Err(error) => return Err(error),
        };
        match (stale.endpoint, stale.grant) {
            (Some(part), grant) => {
                follow(&mut *tx, keyring, merchant, part, grant, &opened, now).await?;
                come_to.changed += 1;
            }
            (None, Some(grant)) => {
                make(&mut *tx, keyring, merchant, grant, &opened, now).await?;
                come_to.made += 1;
            }
            (None, None) => {}
        }
    }
    Ok(come_to)
}

async fn open(
    tx: &mut PgConnection,
    keyring: &Keyring,
    id: AppEndpointId,
) -> Result<Option<Opened>, Error> {
    let Some((app, endpoint, sealed)) = store::read(&mut *tx, id).await? else {
        return Ok(None);
    };
    let master = keyring.master();
    let credentials = open_credentials(master, id, sealed.as_deref())?;
    let keys = store::keys(tx, id).await?;
    let keys = keys.into_iter().map(|key| open_key(master, id, key));
    Ok(Some(Opened {
        app,
        endpoint,
        credentials,
        keys: keys.collect::<Result<_, _>>()?,
    }))
}

async fn make(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    grant: GrantId,
    opened: &Opened,
    now: Timestamp,
) -> Result<(), Error> {
    let app_endpoint = &opened.endpoint;
    let part = Endpoint {
        id: EndpointId::new(now),
        url: app_endpoint.url.clone(),
        description: app_endpoint.description.clone(),
        event_types: app_endpoint.event_types.clone(),
        owner: Owner::Grant,
        status: Status::Enabled,
        disabled_reason: None,
        settings: app_endpoint.settings.clone(),
        app_endpoint_id: Some(app_endpoint.id),
        verified_at: None,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    let key = keyring.merchant_key(&mut *tx, merchant).await?;
    let ring = Ring::of(&mut *tx, keyring, merchant, &part, now).await?;
    let owned = endpoints::Owned {
        app: opened.app,
        grant: Some(grant),
        // The keys that are copied below are written there too.
        sealed_secrets: ring.sealed_secrets([])?,
        sealed_credentials: seal_credentials(&key, merchant, part.id, &opened.credentials)?,
    };
    endpoints::insert(&mut *tx, merchant, &part, &owned).await?;
    ring.copy(&mut *tx, &opened.keys).await?;
    Ok(store::follow(
        tx,
        merchant,
        part.id,
        grant,
        app_endpoint.id,
        app_endpoint.version,
    )
    .await?)
}

async fn follow(
    tx: &mut PgConnection,
    keyring: &Keyring,
    merchant: MerchantId,
    part: EndpointId,
    grant: Option<GrantId>,
    opened: &Opened,
    now: Timestamp,
) -> Result<(), Error> {
    let app_endpoint = &opened.endpoint;
    let whole = Visible {
        merchant,
        app: None,
    };
    health::store::hold(&mut *tx, merchant, part).await?;
    let Some(before) = endpoints::lock(&mut *tx, whole, part).await? else {
        return Ok(());
    };
    let mut after = before.clone();
    after.url.clone_from(&app_endpoint.url);
    after.description.clone_from(&app_endpoint.description);
    after.event_types.clone_from(&app_endpoint.event_types);
    after.settings.clone_from(&app_endpoint.settings);
    if after.url != before.url {
        after.verified_at = None;
    }
    (after.status, after.disabled_reason) =
        switched(app_endpoint.status, before.status, before.disabled_reason);
    after.version = before.version.saturating_add(1);
    after.updated_at = now;
    endpoints::update(&mut *tx, merchant, &after).await?;
    let key = keyring.merchant_key(&mut *tx, merchant).await?;
    let sealed = seal_credentials(&key, merchant, part, &opened.credentials)?;
    endpoints::set_sealed_credentials(&mut *tx, merchant, part, sealed.as_deref()).await?;
    let ring = Ring::of(&mut *tx, keyring, merchant, &after, now).await?;
    ring.copy(&mut *tx, &opened.keys).await?;
    if after.begins_anew(&before) {
        health::store::forget_failing(&mut *tx, merchant, part).await?;
    }
    if !after.is_queued() {
        endpoints::delete_deliveries(&mut *tx, merchant, part).await?;
    }
    if after.status != before.status {
        let at = match after.status {
            Status::Enabled => None,
            Status::Disabled => Some(stream::last_sequence(&mut *tx, merchant, part).await?),
        };
        endpoints::set_disabled_at(&mut *tx, merchant, part, at).await?;
        announce(&mut *tx, merchant, RequestId::new(now), now, &after).await?;
    }
    let sends = after.url.is_some() && after.status == Status::Enabled;
    endpoints::raise_lane(&mut *tx, part, sends.then_some(now)).await?;
    let Some(grant) = grant else {
        // Without a living grant it keeps the one that it had, and is sent nothing by it.
        let version = app_endpoint.version;
        return Ok(store::follow_without_grant(tx, merchant, part, version).await?);
    };
    Ok(store::follow(
        tx,
        merchant,
        part,
        grant,
        app_endpoint.id,
        app_endpoint.version,
    )
    .await?)
}

/// What becomes of a part's status. An enabled app's endpoint gives what was switched off for its failures another chance; what a merchant has switched
/// off stays off.
fn switched(
    app: Status,
    status: Status,
    reason: Option<DisabledReason>,
) -> (Status, Option<DisabledReason>) {
    match (app, status, reason) {
        (_, Status::Disabled, Some(DisabledReason::Requested)) => (status, reason),
        (Status::Disabled, Status::Enabled, _) => (Status::Disabled, Some(DisabledReason::App)),
        (Status::Disabled, Status::Disabled, reason) => (status, reason),
        (Status::Enabled, ..) => (Status::Enabled, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_follows_its_apps_status_unless_its_merchant_said_otherwise() {
        use DisabledReason::{App, Failing, Gone, Requested};
        use Status::{Disabled, Enabled};
        for (app, before, after) in [
            (Enabled, (Enabled, None), (Enabled, None)),
            (Disabled, (Enabled, None), (Disabled, Some(App))),
            (Enabled, (Disabled, Some(App)), (Enabled, None)),
            (Enabled, (Disabled, Some(Gone)), (Enabled, None)),
            (Enabled, (Disabled, Some(Failing)), (Enabled, None)),
            (Disabled, (Disabled, Some(Gone)), (Disabled, Some(Gone))),
            (
                Enabled,
                (Disabled, Some(Requested)),
                (Disabled, Some(Requested)),
            ),
        ] {
            assert_eq!(
                switched(app, before.0, before.1),
                after,
                "{app:?} {before:?}"
            );
        }
    }
}
