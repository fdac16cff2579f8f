//! An installation on a database of its own, and processes of it.

use std::{sync::Arc, time::Duration};

use auth::{
    Bearer, Error, GrantView, Issuer, SigningKeys,
    account::{Membership, Person, Role, Session, session::Factor},
    client::{
        app::{self, AppInput, NewApp},
        developer::Developers,
        token_error::TokenErrors,
    },
    grant::{self, Grant, GrantInput, Grants, LastUse},
    http, merchant,
};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use kernel::{
    actor::Actor,
    caller::Caller,
    clock::Clock,
    db::Database,
    event::Announcer,
    id::{AppId, GrantId, Id, MerchantId, PersonId, RequestId},
    keyring::Keyring,
    test_database::{self, TestDatabase},
};
use sqlx::{AssertSqlSafe, Executor};
use tower::ServiceExt;

pub(crate) const ISSUER: &str = "https://stoa.example";

pub(crate) struct Installation {
    pub(crate) database: TestDatabase,
    pub(crate) clock: Clock,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) issuer: Issuer,
}

/// What one `stoa serve` holds.
pub(crate) struct Process {
    pub(crate) database: Database,
    pub(crate) keys: Arc<SigningKeys>,
    pub(crate) view: Arc<GrantView>,
    pub(crate) bearer: Bearer,
    pub(crate) last_use: Arc<LastUse>,
    pub(crate) router: Router,
    pub(crate) errors: TokenErrors,
    /// Who asks, where nothing else is said.
    caller: Caller,
    clock: Clock,
}

/// A merchant, an app, and a grant between them.
pub(crate) struct Install {
    pub(crate) merchant: MerchantId,
    pub(crate) app: NewApp,
    pub(crate) grant: Grant,
}

pub(crate) fn terms(scopes: &str) -> GrantInput {
    GrantInput {
        scopes: scopes.parse().unwrap(),
        locations: None,
        personal_data: false,
        expires_at: None,
    }
}

impl Installation {
    pub(crate) async fn new() -> Self {
        Self {
            database: TestDatabase::create().await.unwrap(),
            clock: Clock::manual(Clock::system().now()),
            keyring: Arc::new(test_database::keyring().unwrap()),
            issuer: Issuer::parse(ISSUER).unwrap(),
        }
    }

    pub(crate) async fn process(&self) -> Process {
        let database = self.database.api();
        let keys = SigningKeys::load_or_create(
            database.clone(),
            Arc::clone(&self.keyring),
            self.clock.clone(),
        );
        let keys = Arc::new(keys.await.unwrap());
        let view = Arc::new(GrantView::new(database.clone(), self.clock.clone()));
        let bearer = Bearer::new(
            self.issuer.clone(),
            Arc::clone(&keys),
            Arc::clone(&view),
            self.clock.clone(),
        );
        let errors = TokenErrors::new(database.clone());
        let last_use = Arc::new(LastUse::new(database.clone(), self.clock.clone()));
        let bearer = bearer.noting(Arc::clone(&last_use));
        let state = http::State {
            issuer: self.issuer.clone(),
            keys: Arc::clone(&keys),
            database: database.clone(),
            clock: self.clock.clone(),
            limiter: Arc::default(),
            errors: errors.clone(),
        };
        let router = http::router(state);
        Process {
            database,
            keys,
            view,
            bearer,
            last_use,
            router,
            errors,
            caller: self.caller(),
            clock: self.clock.clone(),
        }
    }

    /// From where somebody of a merchant's staff decides.
    pub(crate) fn decider(&self) -> Caller {
        Caller::new(
            RequestId::new(self.clock.now()),
            Some("192.0.2.7".parse().unwrap()),
            Some("tests"),
        )
    }

    pub(crate) async fn merchant(&self) -> MerchantId {
        let id = MerchantId::new(self.clock.now());
        let mut tx = self.database.api().enter(id).await.unwrap();
        let input = merchant::MerchantInput {
            name: "Corner Books".to_owned(),
        };
        merchant::create(&mut tx, &self.keyring, id, input, self.clock.now())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub(crate) async fn app(&self) -> NewApp {
        self.app_named("Parcel Desk").await
    }

    pub(crate) async fn app_named(&self, name: &str) -> NewApp {
        let mut tx = self.database.api().begin().await.unwrap();
        let input = AppInput::named(name);
        let app = app::create(&mut tx, input, self.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        app
    }

    pub(crate) fn grants(&self) -> Grants {
        Grants::new(
            self.database.api(),
            self.clock.clone(),
            Announcer::default(),
        )
    }

    /// Somebody of `merchant`'s staff who has just signed in.
    pub(crate) fn session(&self, merchant: MerchantId, role: Role) -> Session {
        let now = self.clock.now();
        let person = Person {
            id: PersonId::new(now),
            login: "ada".to_owned(),
            name: "Ada".to_owned(),
            is_operator: false,
            is_developer: false,
            has_password: true,
            has_totp: false,
            version: 1,
            created_at: now,
        };
        Session {
            id: Id::new(now),
            person,
            memberships: vec![Membership {
                merchant,
                merchant_name: "Corner Books".to_owned(),
                role,
            }],
            authenticated_at: now,
            factors: vec![Factor::Password],
            created_at: now,
        }
    }

    /// A developer who has just signed in, and whose row is there.
    pub(crate) async fn developer(&self) -> Session {
        let mut session = self.session(MerchantId::new(self.clock.now()), Role::Viewer);
        session.memberships.clear();
        session.person.is_developer = true;
        let id = session.person.id.uuid();
        let insert = format!(
            "insert into persons (id, login, name, is_operator, is_developer, version, created_at)
            values ('{id}', '{id}', 'Ada', false, true, 1, now())"
        );
        let mut owner = self.database.owner().await.unwrap();
        owner.execute(AssertSqlSafe(insert)).await.unwrap();
        session
    }

    pub(crate) fn developers(&self) -> Developers {
        Developers::new(self.database.api(), self.clock.clone())
    }

    /// A request from `address`.
    pub(crate) fn caller_from(&self, address: &str) -> Caller {
        let request = RequestId::new(self.clock.now());
        Caller::new(request, Some(address.parse().unwrap()), Some("test"))
    }

    /// A request from somewhere.
    pub(crate) fn caller(&self) -> Caller {
        self.caller_from("192.0.2.7")
    }

    /// The same, but signed in this morning.
    pub(crate) fn stale_session(&self, merchant: MerchantId, role: Role) -> Session {
        let mut session = self.session(merchant, role);
        session.authenticated_at = session.created_at.minus(Duration::from_hours(4));
        session
    }

    pub(crate) async fn consent(
        &self,
        merchant: MerchantId,
        app: AppId,
        input: GrantInput,
    ) -> Result<Grant, Error> {
        let now = self.clock.now();
        let mut tx = self.database.api().enter(merchant).await.unwrap();
        let grant =
            grant::create_or_change(&mut tx, merchant, app, input, RequestId::new(now), now)
                .await?;
        tx.commit().await.unwrap();
        Ok(grant)
    }

    pub(crate) async fn revoke(&self, merchant: MerchantId, grant: GrantId) -> Grant {
        let now = self.clock.now();
        let mut tx = self.database.api().enter(merchant).await.unwrap();
        let grant = grant::revoke(&mut tx, merchant, grant, RequestId::new(now), now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        grant
    }

    pub(crate) async fn install(&self, input: GrantInput) -> Install {
        let (merchant, app) = (self.merchant().await, self.app().await);
        let grant = self.consent(merchant, app.app.id, input).await.unwrap();
        Install {
            merchant,
            app,
            grant,
        }
    }
}

impl Process {
    pub(crate) async fn verify(&self, token: &str) -> Result<Actor, Error> {
        self.bearer
            .verify(token, RequestId::new(self.clock.now()))
            .await
    }

    /// A token for all that the grant gives.
    pub(crate) async fn token(&self, install: &Install) -> String {
        let form = format!(
            "grant_type=client_credentials&resource={ISSUER}/merchants/{}",
            install.merchant
        );
        let answer = self.post(&[basic(&install.app)], &form).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        answer.json["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn post(
        &self,
        headers: &[(header::HeaderName, String)],
        form: &str,
    ) -> Answer {
        self.post_to("/oauth/token", headers, form).await
    }

    pub(crate) async fn post_to(
        &self,
        path: &str,
        headers: &[(header::HeaderName, String)],
        form: &str,
    ) -> Answer {
        self.post_to_as(&self.caller, path, headers, form).await
    }

    /// To the token endpoint from an address.
    pub(crate) async fn post_as(
        &self,
        caller: &Caller,
        headers: &[(header::HeaderName, String)],
        form: &str,
    ) -> Answer {
        self.post_to_as(caller, "/oauth/token", headers, form).await
    }

    pub(crate) async fn post_to_as(
        &self,
        caller: &Caller,
        path: &str,
        headers: &[(header::HeaderName, String)],
        form: &str,
    ) -> Answer {
        let mut request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .extension(caller.clone());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        self.send(request.body(Body::from(form.to_owned())).unwrap())
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        if request.extensions().get::<Caller>().is_none() {
            request.extensions_mut().insert(self.caller.clone());
        }
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            headers,
            json: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }
}

#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: serde_json::Value,
}

pub(crate) fn basic(app: &NewApp) -> (header::HeaderName, String) {
    basic_of(&app.app.id.to_string(), secret_of(app))
}

pub(crate) fn secret_of(app: &NewApp) -> &str {
    app.client_secret.as_ref().unwrap().expose()
}

pub(crate) fn basic_of(id: &str, secret: &str) -> (header::HeaderName, String) {
    (
        header::AUTHORIZATION,
        format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}"))),
    )
}
