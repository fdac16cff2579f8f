//! What a developer does with the apps that are theirs: makes and changes them, gives out and takes back what they prove themselves by, and sees how they fare.
//!
//! Called by `console`. An app belongs to the people who are its developers; to anybody else it is not there. Whatever changes an app needs a
//! fresh proof of who it is, and is in the audit log with the change.

use kernel::{
    audit::{self, Log, NewEntry},
    caller::Caller,
    clock::{Clock, Timestamp},
    db::{self, Database, Transaction},
    id::{AppId, MerchantId},
    problem::FieldError,
    validation,
    version::Version,
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{
    app::{self, App, AppInput, ClientKind, NewApp},
    app_secret::{self, AppSecret, AppSecretId, Overlap},
    key::{AppKey, ClientKey, KEYS_MAX},
    secret::Secret,
    token_error::{self, TokenError},
};
use crate::{Error, account::Session, grant::Grant};

mod store;

/// Apps of one person.
pub const APPS_MAX: usize = 50;

/// Installs that an app's page shows, those that changed last.
pub const INSTALLS_SHOWN_MAX: i64 = 200;

/// An app, as its developers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppDetail {
    /// The app.
    pub app: App,
    /// Its living secrets, the newest first.
    pub secrets: Vec<AppSecret>,
    /// Its keys, the newest first.
    pub keys: Vec<AppKey>,
    /// The merchants who have installed it, or had: those whose grants changed last first, at most 200.
    pub installs: Vec<AppInstall>,
    /// Merchants who have it installed now, those that are not shown included.
    pub living_installs: i64,
    /// What the token endpoint refused it lately, the newest first, at most 100.
    pub errors: Vec<TokenError>,
}

/// A merchant who has installed an app, or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppInstall {
    /// The merchant.
    pub merchant_id: MerchantId,
    /// What the merchant is called.
    pub merchant_name: String,
    /// What is granted.
    pub grant: Grant,
    /// When it was last used, to the hour; null: not yet.
    pub last_used_at: Option<Timestamp>,
}

/// The apps of developers.
#[derive(Debug, Clone)]
pub struct Developers {
    database: Database,
    clock: Clock,
}

impl Developers {
    /// Over a pool of the API role.
    pub fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock }
    }

    /// Makes an app, whose developer the person becomes. [`Error::Forbidden`] unless they are a developer or an operator, and beyond 50 apps.
    pub async fn create_app(
        &self,
        caller: &Caller,
        session: &Session,
        input: AppInput,
    ) -> Result<NewApp, Error> {
        if !session.person.is_developer && !session.person.is_operator {
            return Err(Error::Forbidden("Apps are for developers to make."));
        }
        let now = self.clock.now();
        session.require_recent_proof(now)?;
        validation::check(&input).map_err(Error::InvalidFields)?;
        let mut tx = self.database.begin().await?;
        let person = session.person.id;
        // One creation at a time, so that the count holds.
        store::lock_person(&mut tx, person).await?;
        if is_full(store::count_apps(&mut tx, person).await?, APPS_MAX) {
            return Err(Error::Forbidden("A person has at most 50 apps."));
        }
        let new = app::create(&mut tx, input, now).await?;
        store::insert_developer(&mut tx, new.app.id, person, now).await?;
        let act = Act {
            caller,
            session,
            app: new.app.id,
            now,
        };
        let details = json!({
            "name": new.app.name,
            "kind": new.app.kind,
            "redirectUris": new.app.redirect_uris,
        });
        act.record(&mut tx, "app.created", details).await?;
        commit(tx).await?;
        Ok(new)
    }

    /// The person's apps, by name.
    pub async fn apps(&self, session: &Session) -> Result<Vec<App>, Error> {
        let mut tx = self.database.begin().await?;
        Ok(store::select_apps(&mut tx, session.person.id).await?)
    }

    /// One of the person's apps with all that there is to know about it.
    pub async fn app(&self, session: &Session, id: AppId) -> Result<AppDetail, Error> {
        let now = self.clock.now();
        let mut tx = self.database.begin().await?;
        let tx = &mut *tx;
        let app = store::select_app(tx, session.person.id, id)
            .await?
            .ok_or_else(|| app::not_found(id))?;
        Ok(AppDetail {
            app,
            secrets: app_secret::living(tx, id, now).await?,
            keys: store::select_keys(tx, id).await?,
            installs: store::select_installs(tx, id, INSTALLS_SHOWN_MAX).await?,
            living_installs: store::count_living_installs(tx, id, now).await?,
            errors: token_error::list(tx, id).await?,
        })
    }

    /// Changes one of the person's apps, as they saw it in `version`: [`Error::Changed`] if it is another now. The kind of an app stays what it is.
    pub async fn change_app(
        &self,
        caller: &Caller,
        session: &Session,
        id: AppId,
        version: Version,
        input: AppInput,
    ) -> Result<App, Error> {
        let (mut tx, act, app) = self.begin(caller, session, id).await?;
        validation::check(&input).map_err(Error::InvalidFields)?;
        if app.version != version {
            return Err(Error::Changed("app"));
        }
        if app.kind != input.kind {
            return Err(fault(
                "/kind",
                "immutable",
                "can't be changed: make another app",
            ));
        }
        let changed = App {
            name: input.name,
            redirect_uris: input.redirect_uris,
            scopes: input.scopes,
            required_scopes: input.required_scopes,
            homepage_url: input.homepage_url,
            version: version.next(),
            ..app.clone()
        };
        let details = differences(&app, &changed);
        if details.as_object().is_none_or(serde_json::Map::is_empty) {
            return Ok(app);
        }
        store::update_app(&mut tx, &changed, act.now).await?;
        act.record(&mut tx, "app.changed", details).await?;
        commit(tx).await?;
        Ok(changed)
    }

    /// Makes a secret for one of the person's apps. The others end after `overlap`, or when they would have anyway.
    pub async fn rotate_secret(
        &self,
        caller: &Caller,
        session: &Session,
        id: AppId,
        overlap: Overlap,
    ) -> Result<(AppSecret, Secret), Error> {
        let (mut tx, act, app) = self.begin(caller, session, id).await?;
        let (secret, text) = app_secret::rotate(&mut tx, &app, overlap, act.now).await?;
        let details = json!({"secretId": secret.id, "overlap": overlap});
        act.record(&mut tx, "app_secret.created", details).await?;
        commit(tx).await?;
        Ok((secret, text))
    }

    /// Takes a secret back at once. The last one may go too: an app with keys needs none.
    pub async fn revoke_secret(
        &self,
        caller: &Caller,
        session: &Session,
        id: AppId,
        secret: AppSecretId,
    ) -> Result<(), Error> {
        let (mut tx, act, _) = self.begin(caller, session, id).await?;
        if !app_secret::revoke(&mut tx, id, secret, act.now).await? {
            return Err(Error::NotFound {
                noun: "secret",
                id: secret.to_string(),
            });
        }
        let details = json!({"secretId": secret});
        act.record(&mut tx, "app_secret.revoked", details).await?;
        commit(tx).await
    }

    /// Adds a public key, a JWK as JSON, under which the app signs assertions from now on. Its secrets stay good beside it until they are taken back.
    pub async fn add_key(
        &self,
        caller: &Caller,
        session: &Session,
        id: AppId,
        jwk: &str,
    ) -> Result<AppKey, Error> {
        let (mut tx, act, app) = self.begin(caller, session, id).await?;
        if app.kind == ClientKind::Public {
            return Err(Error::Forbidden("A public client has no keys."));
        }
        let key = ClientKey::parse(jwk).map_err(Error::InvalidFields)?;
        if is_full(store::count_keys(&mut tx, id).await?, KEYS_MAX) {
            return Err(Error::Forbidden(
                "An app has at most 10 keys: remove one first.",
            ));
        }
        if !store::insert_key(&mut tx, id, &key, act.now).await? {
            return Err(fault(
                "/kid",
                "repeated",
                "is the name of another key of this app",
            ));
        }
        let shown = key.shown(act.now);
        let details = json!({"kid": shown.kid, "kty": shown.kty});
        act.record(&mut tx, "app_key.added", details).await?;
        commit(tx).await?;
        Ok(shown)
    }

    /// Removes a key: what is signed by it is refused from now on.
    pub async fn remove_key(
        &self,
        caller: &Caller,
        session: &Session,
        id: AppId,
        kid: &str,
    ) -> Result<(), Error> {
        let (mut tx, act, _) = self.begin(caller, session, id).await?;
        if !store::delete_key(&mut tx, id, kid).await? {
            return Err(Error::NotFound {
                noun: "key",
                id: kid.to_owned(),
            });
        }
        act.record(&mut tx, "app_key.removed", json!({ "kid": kid }))
            .await?;
        commit(tx).await
    }

    /// Begins a change of the app `id`, which is locked until it is done.
    async fn begin<'a>(
        &self,
        caller: &'a Caller,
        session: &'a Session,
        id: AppId,
    ) -> Result<(Transaction, Act<'a>, App), Error> {
        let now = self.clock.now();
        session.require_recent_proof(now)?;
        let mut tx = self.database.begin().await?;
        let app = store::select_app_for_update(&mut tx, session.person.id, id)
            .await?
            .ok_or_else(|| app::not_found(id))?;
        let act = Act {
            caller,
            session,
            app: id,
            now,
        };
        Ok((tx, act, app))
    }
}

/// A change under way: what its audit entry says of it.
struct Act<'a> {
    caller: &'a Caller,
    session: &'a Session,
    app: AppId,
    now: Timestamp,
}

impl Act<'_> {
    async fn record(
        &self,
        tx: &mut PgConnection,
        action: &'static str,
        details: Value,
    ) -> Result<(), Error> {
        let entry = NewEntry::succeeded(action)
            .by_person(self.session.person.id)
            .by_app(self.app)
            .to("app", self.app)
            .with(details);
        audit::record(tx, Log::Installation, self.caller, self.now, &entry).await?;
        Ok(())
    }
}

/// The fields that differ, each with what it is now.
fn differences(before: &App, after: &App) -> Value {
    let mut fields = serde_json::Map::new();
    let mut note = |name: &str, differs: bool, value: Value| {
        if differs {
            fields.insert(name.to_owned(), value);
        }
    };
    note("name", before.name != after.name, json!(after.name));
    note(
        "redirectUris",
        before.redirect_uris != after.redirect_uris,
        json!(after.redirect_uris),
    );
    note(
        "scopes",
        before.scopes != after.scopes,
        json!(after.scopes.map(kernel::scope::ScopeSet::names)),
    );
    note(
        "requiredScopes",
        before.required_scopes != after.required_scopes,
        json!(after.required_scopes.names()),
    );
    note(
        "homepageUrl",
        before.homepage_url != after.homepage_url,
        json!(after.homepage_url),
    );
    Value::Object(fields)
}

fn is_full(count: i64, max: usize) -> bool {
    usize::try_from(count).is_ok_and(|count| count >= max)
}

fn fault(pointer: &str, code: &'static str, detail: &str) -> Error {
    Error::InvalidFields(vec![FieldError::at(pointer, code, detail)])
}

async fn commit(tx: Transaction) -> Result<(), Error> {
    Ok(tx.commit().await.map_err(db::Error::from)?)
}
